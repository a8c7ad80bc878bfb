"""The contract of `Engine`, on the fake and on the real one: every call may be repeated, "gone" is an answer."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from uuid import uuid4

import pytest

from sandbox.engine.base import EngineEvent, Resource, ResourceKind
from sandbox.engine.labels import POOL_ROLE, container_name
from sandbox.errors import EngineError, GuestError
from tests.contract.conftest import EngineUnderTest


async def resources_of(under_test: EngineUnderTest, session_id: object) -> list[Resource]:
    return [found for found in await under_test.engine.list_resources() if found.session_id == session_id]


async def test_ping_answers_the_version(engine_under_test: EngineUnderTest) -> None:
    assert (await engine_under_test.engine.ping())["version"]


async def test_ensure_container_makes_starts_and_then_finds_it(engine_under_test: EngineUnderTest) -> None:
    engine, spec = engine_under_test.engine, engine_under_test.spec()
    made = await engine.ensure_container(spec)
    assert (made.status, made.session_id, made.role) == ("running", spec.session_id, "main")
    assert (made.name, made.exit_code, made.out_of_memory) == (container_name(spec.session_id, "main"), None, False)
    assert made.ip
    assert made.started_at
    assert await engine.ensure_container(spec) == made
    assert await engine.inspect_container(spec.session_id, "main") == made
    found = {resource.kind: resource for resource in await resources_of(engine_under_test, spec.session_id)}
    assert found.keys() == {ResourceKind.CONTAINER, ResourceKind.VOLUME}
    assert found[ResourceKind.CONTAINER].status == "running"
    assert found[ResourceKind.CONTAINER].id == made.id
    assert {resource.name for resource in found.values()} == {made.name}
    shared = await resources_of(engine_under_test, None)
    assert [resource.kind for resource in shared] == [ResourceKind.NETWORK]


async def test_concurrent_ensures_make_one_container(engine_under_test: EngineUnderTest) -> None:
    engine, spec = engine_under_test.engine, engine_under_test.spec()
    states = await asyncio.gather(*(engine.ensure_container(spec) for _ in range(4)))
    assert len({state.id for state in states}) == 1


async def test_a_killed_container_is_started_again_with_its_files(engine_under_test: EngineUnderTest) -> None:
    engine, spec = engine_under_test.engine, engine_under_test.spec()
    first = await engine.ensure_container(spec)
    guest = engine.guest(spec.session_id, "main")
    await guest.wait_ready(60)
    await guest.write_file("stored", b"content")
    engine_under_test.kill(spec, first.id)
    ended = await engine.inspect_container(spec.session_id, "main")
    assert ended is not None
    assert (ended.status, ended.exit_code, ended.ip) == ("exited", 137, None)
    with pytest.raises(GuestError) as unreachable:
        await guest.stats()
    assert unreachable.value.code == "agent_unreachable"
    again = await engine.ensure_container(spec)
    assert (again.id, again.status) == (first.id, "running")
    await guest.wait_ready(60)
    assert [file.path for file in await guest.list_files(".")] == ["stored"]


async def test_a_guest_agent_that_is_stopped_ends_its_container(engine_under_test: EngineUnderTest) -> None:
    engine, spec = engine_under_test.engine, engine_under_test.spec()
    await engine.ensure_container(spec)
    guest = engine.guest(spec.session_id, "main")
    await guest.wait_ready(60)
    await guest.stop()
    async with asyncio.timeout(60):
        while (state := await engine.inspect_container(spec.session_id, "main")) is None or state.status == "running":
            await asyncio.sleep(0.05)
    assert (state.status, state.exit_code) == ("exited", 0)


async def test_a_container_removed_alone_leaves_its_volume_to_the_next(engine_under_test: EngineUnderTest) -> None:
    engine, spec = engine_under_test.engine, engine_under_test.spec()
    first = await engine.ensure_container(spec)
    guest = engine.guest(spec.session_id, "main")
    await guest.wait_ready(60)
    await guest.write_file("stored", b"content")
    resource = Resource(ResourceKind.CONTAINER, first.name, spec.session_id, "main", None)
    assert await engine.remove(resource) is True
    assert await engine.remove(resource) is False
    assert await engine.inspect_container(spec.session_id, "main") is None
    again = await engine.ensure_container(spec)
    assert again.id != first.id
    guest = engine.guest(spec.session_id, "main")
    await guest.wait_ready(60)
    assert [file.path for file in await guest.list_files(".")] == ["stored"]


async def test_a_container_of_another_image_is_a_mismatch(engine_under_test: EngineUnderTest) -> None:
    engine, spec = engine_under_test.engine, engine_under_test.spec()
    await engine.ensure_container(spec)
    with pytest.raises(EngineError, match="image") as refused:
        await engine.ensure_container(engine_under_test.spec(session_id=spec.session_id, image="something:else"))
    assert refused.value.code == "container_mismatch"
    assert refused.value.hint


async def test_a_container_of_other_memory_is_a_mismatch(engine_under_test: EngineUnderTest) -> None:
    engine, spec = engine_under_test.engine, engine_under_test.spec()
    await engine.ensure_container(spec)
    more = replace(spec.limits, memory_bytes=spec.limits.memory_bytes * 2)
    with pytest.raises(EngineError, match="memory") as refused:
        await engine.ensure_container(replace(spec, limits=more))
    assert refused.value.code == "container_mismatch"


async def test_a_missing_image_is_reported(engine_under_test: EngineUnderTest) -> None:
    spec = engine_under_test.spec(image="sbx-test-nothing:here")
    with pytest.raises(EngineError, match="sbx-test-nothing:here") as refused:
        await engine_under_test.engine.ensure_container(spec)
    assert refused.value.code == "image_missing"
    assert "runtimes build" in refused.value.hint
    assert await engine_under_test.engine.inspect_container(spec.session_id, "main") is None


async def test_a_missing_session_network_is_reported(engine_under_test: EngineUnderTest) -> None:
    spec = engine_under_test.spec(network="sbx-test-no-such-network")
    with pytest.raises(EngineError, match="sbx-test-no-such-network") as refused:
        await engine_under_test.engine.ensure_container(spec)
    assert refused.value.code == "network_missing"
    assert await engine_under_test.engine.inspect_container(spec.session_id, "main") is None


async def test_what_does_not_exist_is_an_answer(engine_under_test: EngineUnderTest) -> None:
    engine, session_id = engine_under_test.engine, uuid4()
    assert await engine.inspect_container(session_id, "main") is None
    assert await engine.container_logs(session_id, "main") == ""
    assert await engine.remove_session(session_id) == []
    for kind in ResourceKind:
        assert (
            await engine.remove(Resource(kind, container_name(session_id, "main"), session_id, "main", None)) is False
        )


async def test_the_guest_agent_of_no_container_is_unreachable(engine_under_test: EngineUnderTest) -> None:
    guest = engine_under_test.engine.guest(uuid4(), "main")
    for call in (guest.wait_ready(0.2), guest.exec("true"), guest.tunnel(80), guest.stat("file")):
        with pytest.raises(GuestError) as unreachable:
            await call
        assert unreachable.value.code == "agent_unreachable"


async def test_remove_session_removes_everything_of_it_and_nothing_else(engine_under_test: EngineUnderTest) -> None:
    engine, session_id = engine_under_test.engine, uuid4()
    network = await engine.ensure_network(session_id)
    assert await engine.ensure_network(session_id) == network
    for role in ("backend", "frontend"):
        await engine.ensure_container(engine_under_test.spec(role, session_id, network=network))
    other = engine_under_test.spec()
    await engine.ensure_container(other)
    removed = await engine.remove_session(session_id)
    names = [container_name(session_id, role) for role in ("backend", "frontend")]
    assert sorted((resource.kind, resource.name) for resource in removed) == sorted(
        [(kind, name) for kind in (ResourceKind.CONTAINER, ResourceKind.VOLUME) for name in names]
        + [(ResourceKind.NETWORK, network)]
    )
    assert await resources_of(engine_under_test, session_id) == []
    assert await engine.remove_session(session_id) == []
    left = await engine.inspect_container(other.session_id, "main")
    assert left is not None
    assert left.status == "running"


async def test_the_life_of_a_container_is_published(engine_under_test: EngineUnderTest) -> None:
    engine, spec = engine_under_test.engine, engine_under_test.spec()
    events = engine.events()
    state = await engine.ensure_container(spec)
    engine_under_test.kill(spec, state.id)
    await engine.remove_session(spec.session_id)
    observed: list[EngineEvent] = []
    async with asyncio.timeout(30), aclosing(events):
        async for event in events:
            # The stream of the real engine begins with what happened in the same second.
            if event.session_id == spec.session_id:
                observed.append(event)
            if observed and observed[-1].action == "destroy":
                break
    assert [(event.action, event.exit_code) for event in observed] == [("start", None), ("die", 137), ("destroy", None)]
    assert {(event.role, event.container_id) for event in observed} == {("main", state.id)}


async def test_a_container_of_the_pool_becomes_a_roles_with_its_volume(engine_under_test: EngineUnderTest) -> None:
    engine, member = engine_under_test.engine, engine_under_test.spec(POOL_ROLE)
    made = await engine.ensure_container(member)
    guest = engine.guest(member.session_id, POOL_ROLE)
    await guest.wait_ready(60)
    wanted = replace(member.limits, memory_bytes=member.limits.memory_bytes * 2)
    plain = engine_under_test.spec()
    network = await engine.ensure_network(plain.session_id)
    spec = replace(plain, member=member.session_id, limits=wanted, network=network)
    assert await engine.fingerprint(replace(spec, network=None)) != ""
    taken = await engine.ensure_container(spec)
    assert (taken.id, taken.session_id, taken.role, taken.connected) == (made.id, spec.session_id, "main", True)
    assert taken.name == container_name(spec.session_id, "main")
    assert await engine.ensure_container(spec) == taken
    guest = engine.guest(spec.session_id, "main")
    await guest.write_file("stored", b"content")
    await guest.set_variables({"GIVEN": "later"})
    assert await engine.inspect_container(member.session_id, POOL_ROLE) is None

    # Lost from outside, it is made again on its volume.
    await engine.remove(Resource(ResourceKind.CONTAINER, taken.name, spec.session_id, "main", None))
    again = await engine.ensure_container(spec)
    assert again.id != made.id
    guest = engine.guest(spec.session_id, "main")
    await guest.wait_ready(60)
    assert b"".join([part async for part in await guest.read_file("stored")]) == b"content"
    for owner in (member.session_id, spec.session_id):
        await engine.remove_session(owner)
        assert await resources_of(engine_under_test, owner) == []
