"""The pool: containers that wait, sessions that get them, and what becomes of both."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

import pytest

from sandbox.domain.egress import Egress
from sandbox.domain.plan import LaunchPlan
from sandbox.domain.session import SessionStatus
from sandbox.engine.base import Resource, ResourceKind
from sandbox.engine.labels import POOL_ROLE, container_name
from sandbox.errors import EngineError
from sandbox.pool import keeper, store
from sandbox.pool.keeper import PoolSize
from sandbox.pool.store import Member, MemberState
from tests.fakes.world import Crash, World, one_role, two_roles


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for pause in ("PAUSE_SECONDS", "QUIET_SECONDS", "CHECK_SECONDS"):
        monkeypatch.setattr(keeper, pause, 0.0)


async def waiting(world: World) -> list[Member]:
    async with world.db.read() as conn:
        return await store.members(conn)


async def containers(world: World) -> list[Resource]:
    return [found for found in await world.engine.list_resources() if found.kind is ResourceKind.CONTAINER]


async def filled(world: World, least: int = 1, most: int = 1) -> list[Member]:
    world.pool_size = PoolSize(least, most)
    assert await world.keeper().once()
    return await waiting(world)


def of(members: list[Member], runtime: str) -> list[Member]:
    return [member for member in members if member.runtime == runtime]


async def test_each_runtime_has_containers_that_answer(world: World) -> None:
    members = await filled(world, least=2, most=8)
    assert Counter(member.runtime for member in members) == {"python312": 2, "node20": 2}
    assert {member.state for member in members} == {MemberState.READY}
    for member in members:
        await world.engine.guest(member.member_id, POOL_ROLE).wait_ready(1)
    assert await filled(world, least=2, most=8) == members


async def test_a_session_gets_the_container_that_waited_longest(world: World) -> None:
    (oldest, *_) = of(await filled(world, least=2, most=8), "python312")
    made = world.engine.container(oldest.member_id, POOL_ROLE)
    session = await world.create_blank()
    assert await world.launch(session) is SessionStatus.READY
    session = await world.read(session)
    assert session.containers["main"].id == made.id
    assert made.variables["SANDBOX_PREVIEW_URL"] == f"http://{session.session_id}.preview.test"
    assert made.variables["OTEL_EXPORTER_OTLP_HEADERS"].endswith("token-of-ada")
    assert oldest not in await waiting(world)


async def test_a_project_of_two_roles_gets_two_and_its_own_network(world: World) -> None:
    members = await filled(world)
    session = await world.launched(two_roles())
    ids = {info.id for info in session.containers.values()}
    assert len(ids) == len(members) == 2
    for role in session.containers:
        spec = world.engine.container(session.session_id, role).spec
        assert spec.network is not None
        assert spec.member in {member.member_id for member in members}


async def test_without_a_container_that_waits_one_is_made(world: World) -> None:
    world.pool_size = PoolSize(1, 1)
    session = await world.create_blank()
    assert await world.launch(session) is SessionStatus.READY
    assert world.engine.container(session.session_id, "main").spec.member is None


async def test_a_restricted_network_is_not_served(world: World) -> None:
    members = await filled(world)
    session = await world.create_blank(egress=Egress("none"))
    assert await world.launch(session) is SessionStatus.READY
    assert world.engine.container(session.session_id, "main").spec.member is None
    assert await waiting(world) == members


async def test_a_container_is_never_used_by_a_second_session(world: World) -> None:
    (member,) = of(await filled(world), "python312")
    async with world.reconciling():
        session = await world.until_status(await world.create_blank(), SessionStatus.READY)
        await world.terminate(session)
        await world.until_status(session, SessionStatus.TERMINATED)
    left = of(await waiting(world), "node20")
    assert [found.session_id for found in await containers(world)] == [other.member_id for other in left]
    names = {found.name for found in await world.engine.list_resources()}
    assert container_name(member.member_id, POOL_ROLE) not in names
    async with world.db.read() as conn:
        assert member.member_id not in await store.owners(conn)


async def test_simultaneous_launches_get_different_containers(world: World) -> None:
    members = of(await filled(world, least=8, most=8), "python312")
    sessions = [await world.create_blank() for _ in range(10)]
    claimed = [await world.claim(session) for session in sessions]
    await asyncio.gather(*(world.pipeline().run(session, 1) for session in claimed))
    specs = [world.engine.container(session.session_id, "main").spec.member for session in sessions]
    assert Counter(member for member in specs if member is not None) == {m.member_id: 1 for m in members}
    assert specs.count(None) == 2


async def test_a_launch_resumes_at_every_call_with_what_it_had_claimed(world: World) -> None:
    """Whatever the death of the service leaves, the session has one container and no other is lost or made."""
    await filled(world, least=1, most=1)
    await world.launch(await world.create_blank())
    calls = len(world.engine.calls)
    await filled(world)
    session = await world.create_blank()
    before = len(world.engine.calls)
    await world.launch(session)
    calls = len(world.engine.calls) - before
    for crashing in range(calls):
        await filled(world)
        session = await world.create_blank()
        remaining = crashing

        def count_down(call: str) -> None:
            nonlocal remaining
            if remaining == 0:
                raise Crash(call)
            remaining -= 1

        world.engine.on_call = count_down
        with pytest.raises(Crash):
            await world.launch(session)
        world.engine.on_call = lambda _: None
        assert await world.launch(session) is SessionStatus.READY
        made = world.engine.container(session.session_id, "main")
        assert made.spec.member is not None
        assert made.variables
        assert await world.recovery().sweep(timedelta(0)) == 0


async def test_a_keeper_that_dies_leaves_nothing(world: World) -> None:
    world.pool_size = PoolSize(1, 1)
    await filled(world)
    calls = len(world.engine.calls)
    for crashing in range(calls):
        await filled(world, least=0, most=0)
        remaining = crashing

        def count_down(call: str) -> None:
            nonlocal remaining
            if remaining == 0:
                raise Crash(call)
            remaining -= 1

        world.engine.on_call = count_down
        world.pool_size = PoolSize(1, 1)
        with pytest.raises(Crash):
            await world.keeper().once()
        world.engine.on_call = lambda _: None
        members = await filled(world)
        assert Counter(member.runtime for member in members) == {"python312": 1, "node20": 1}
        found = await containers(world)
        assert {one.session_id for one in found} == {member.member_id for member in members}


async def test_what_waits_is_neither_stray_nor_session(world: World) -> None:
    await filled(world)
    assert await world.recovery().findings() == []
    assert await world.recovery().sweep(timedelta(0)) == 0
    assert len(await containers(world)) == 2


async def test_a_session_with_a_container_of_the_pool_is_as_recorded(world: World) -> None:
    await filled(world)
    session = await world.launched(two_roles())
    (finding,) = await world.recovery().findings()
    assert (finding.session_id, finding.reason) == (session.session_id, "as recorded")


async def test_a_lost_container_of_the_pool_is_made_again_on_its_volume(world: World) -> None:
    await filled(world)
    session = await world.launched(one_role())
    await world.guest(session).write_file("/workspace/note", b"kept")
    volume = world.engine.container(session.session_id, "main").spec.volume
    world.engine.destroy(session.session_id, "main", silent=True)
    (finding,) = await world.recovery().findings()
    assert finding.action == "recreate"
    await world.relaunch(session)
    assert await world.launch(session) is SessionStatus.RUNNING
    assert world.engine.container(session.session_id, "main").spec.volume == volume
    assert world.guest(session).files().read("/workspace/note") == b"kept"


async def test_a_relaunch_keeps_its_container(world: World) -> None:
    world.pool_size = PoolSize(1, 1)
    session = await world.launched(one_role())
    members = await filled(world)
    await world.relaunch(session)
    assert await world.launch(session) is SessionStatus.RUNNING
    assert (await world.read(session)).containers["main"].id == session.containers["main"].id
    assert await waiting(world) == members


async def test_containers_of_an_old_image_are_replaced(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    old = await filled(world)

    async def newer(name: str) -> str:
        return "fake/static"

    monkeypatch.setattr(world.images, "reference", newer)
    session = await world.create_blank()
    assert await world.launch(session) is SessionStatus.READY
    assert world.engine.container(session.session_id, "main").spec.member is None
    new = await filled(world)
    assert len(new) == 2
    assert not {member.member_id for member in old} & {member.member_id for member in new}
    assert len(await containers(world)) == 3


async def test_a_container_that_does_not_answer_is_replaced(world: World) -> None:
    dead, alive = await filled(world)
    world.engine.kill(dead.member_id, POOL_ROLE, silent=True)
    members = await filled(world)
    assert alive in members
    assert dead.member_id not in {member.member_id for member in members}
    assert len(members) == 2


async def test_a_claimed_container_that_has_ended_is_started(world: World) -> None:
    (member,) = of(await filled(world), "python312")
    world.engine.kill(member.member_id, POOL_ROLE, silent=True)
    session = await world.create_blank()
    assert await world.launch(session) is SessionStatus.READY
    assert world.engine.container(session.session_id, "main").spec.member == member.member_id


async def test_a_claimed_container_that_is_gone_is_made(world: World) -> None:
    (member,) = of(await filled(world), "python312")
    world.engine.destroy(member.member_id, POOL_ROLE, silent=True)
    session = await world.create_blank()
    assert await world.launch(session) is SessionStatus.READY
    assert world.engine.container(session.session_id, "main").variables


async def test_the_size_follows_the_busiest_minute_within_its_bounds(world: World) -> None:
    await filled(world, least=1, most=3)
    for _ in range(5):
        await world.launch(await world.create_blank())
    members = await filled(world, least=1, most=3)
    assert Counter(member.runtime for member in members) == {"python312": 3, "node20": 1}
    await world.execute("UPDATE sandbox_sessions SET created_at = created_at - INTERVAL '9 minutes'")
    assert len(await filled(world, least=1, most=3)) == 4
    await world.execute("UPDATE sandbox_sessions SET created_at = created_at - INTERVAL '2 minutes'")
    assert len(await filled(world, least=1, most=3)) == 2


async def test_a_pool_that_is_turned_off_is_emptied(world: World) -> None:
    await filled(world)
    assert await filled(world, least=1, most=0) == []
    assert await containers(world) == []


async def test_only_one_replica_keeps_the_pool(world: World) -> None:
    world.pool_size = PoolSize(3, 3)
    acquired = await asyncio.gather(*(world.keeper().once() for _ in range(3)))
    assert True in acquired
    assert Counter(member.runtime for member in await waiting(world)) == {"python312": 3, "node20": 3}
    assert len(await containers(world)) == 6


async def test_an_engine_that_is_away_is_asked_again(world: World) -> None:
    world.pool_size = PoolSize(1, 1)
    world.engine.fail("ensure_container", EngineError("busy"), times=1)
    with pytest.raises(EngineError):
        await world.keeper().once()
    assert {member.state for member in await waiting(world)} == {MemberState.MAKING}
    assert {member.state for member in await filled(world)} == {MemberState.READY}
    assert len(await containers(world)) == 2


async def test_a_plan_of_one_runtime_twice_gets_two_containers(world: World) -> None:
    await filled(world, least=2, most=2)
    roles = {name: role.model_copy(update={"runtime": "python312"}) for name, role in two_roles().roles.items()}
    session = await world.launched(LaunchPlan(roles=roles))
    members = {world.engine.container(session.session_id, role).spec.member for role in session.containers}
    assert len(members) == 2
    assert None not in members


async def test_a_session_with_a_size_of_its_own_is_served_and_gets_it(world: World) -> None:
    (member,) = of(await filled(world), "python312")
    session = await world.create_blank(memory_mb=128)
    assert await world.launch(session) is SessionStatus.READY
    spec = world.engine.container(session.session_id, "main").spec
    assert (spec.member, spec.limits.memory_bytes) == (member.member_id, 128 << 20)
