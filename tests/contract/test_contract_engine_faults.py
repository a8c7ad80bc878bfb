"""The contract of `Engine` for containers that are paused or cut off from outside: seen, reported and mended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from sandbox.engine.base import ContainerSpec, EngineEvent, ResourceKind
from sandbox.errors import EngineError
from tests.contract.conftest import EngineUnderTest


async def until(events: AsyncIterator[EngineEvent], spec: ContainerSpec, action: str) -> EngineEvent:
    """The first event of this action of the session."""
    async with asyncio.timeout(60), aclosing(events):
        async for event in events:
            if (event.session_id, event.action) == (spec.session_id, action):
                return event
    raise AssertionError(action)


async def is_connected(under_test: EngineUnderTest, spec: ContainerSpec) -> bool:
    """Whether the container is attached to its network; the engine's list says the same as its inspection."""
    state = await under_test.engine.inspect_container(spec.session_id, spec.role)
    assert state is not None
    (listed,) = (
        found
        for found in await under_test.engine.list_resources()
        if found.kind is ResourceKind.CONTAINER and found.session_id == spec.session_id
    )
    assert listed.connected is state.connected
    return state.connected


async def test_a_container_that_is_detached_is_attached_again(engine_under_test: EngineUnderTest) -> None:
    engine = engine_under_test.engine
    spec = engine_under_test.spec()
    network = await engine.ensure_network(spec.session_id)
    spec = engine_under_test.spec(session_id=spec.session_id, network=network)
    made = await engine.ensure_container(spec)
    await engine.guest(spec.session_id, "main").wait_ready(60)
    assert await is_connected(engine_under_test, spec)
    events = engine.events()
    engine_under_test.disconnect(spec, made.id)
    assert not await is_connected(engine_under_test, spec)
    event = await until(events, spec, "disconnect")
    assert (event.role, event.container_id) == ("main", made.id)
    again = await engine.ensure_container(spec)
    assert (again.id, again.connected) == (made.id, True)
    assert again.ip
    assert await is_connected(engine_under_test, spec)


async def test_a_network_that_is_removed_is_made_again_first(engine_under_test: EngineUnderTest) -> None:
    engine = engine_under_test.engine
    spec = engine_under_test.spec()
    network = await engine.ensure_network(spec.session_id)
    spec = engine_under_test.spec(session_id=spec.session_id, network=network)
    made = await engine.ensure_container(spec)
    events = engine.events()
    engine_under_test.remove_network(spec, made.id)
    await until(events, spec, "network_destroy")
    assert not await is_connected(engine_under_test, spec)
    with pytest.raises(EngineError) as missing:
        await engine.ensure_container(spec)
    assert missing.value.code == "network_missing"
    assert await engine.ensure_network(spec.session_id) == network
    again = await engine.ensure_container(spec)
    assert (again.id, again.connected) == (made.id, True)


async def test_a_container_that_is_paused_is_reported_and_resumed(engine_under_test: EngineUnderTest) -> None:
    engine, spec = engine_under_test.engine, engine_under_test.spec()
    made = await engine.ensure_container(spec)
    guest = engine.guest(spec.session_id, "main")
    # While the guest agent starts, it starts processes, and the kernel may fail to freeze them.
    await guest.wait_ready(60)
    events = engine.events()
    engine_under_test.pause(spec, made.id)
    assert (await until(events, spec, "pause")).container_id == made.id
    paused = await engine.inspect_container(spec.session_id, "main")
    assert paused is not None
    assert paused.status == "paused"
    events = engine.events()
    again = await engine.ensure_container(spec)
    assert (again.id, again.status) == (made.id, "running")
    await until(events, spec, "unpause")
    await guest.wait_ready(60)
