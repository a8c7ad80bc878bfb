"""The engine's event stream."""

import asyncio
import subprocess
import threading
from contextlib import aclosing
from uuid import uuid4

import pytest

from sandbox.engine.base import EngineEvent
from sandbox.engine.docker.engine import DockerEngine
from sandbox.engine.guest_client.client import GuestClient
from sandbox.errors import EngineError
from sandbox.settings import Settings


async def until(events, action: str) -> list[EngineEvent]:
    """The events up to the first with this action, without those of networks, which may be other deployments'."""
    seen = []
    async with asyncio.timeout(30), aclosing(events):
        async for event in events:
            if event.action != "network_destroy":
                seen.append(event)
            if event.action == action:
                break
    return seen


async def test_a_containers_events_go_to_its_deployment_only(make_engine, make_spec):
    engine, other = make_engine(), make_engine()
    told, told_other = engine.events(), other.events()
    spec = make_spec(uuid4())
    state = await engine.ensure_container(spec)
    subprocess.run(["docker", "kill", "--signal", "KILL", state.id], check=True, capture_output=True)
    await engine.remove_session(spec.session_id)
    seen = await until(told, "destroy")
    assert [(e.action, e.exit_code) for e in seen] == [("start", None), ("die", 137), ("destroy", None)]
    assert {(e.session_id, e.role, e.container_id) for e in seen} == {(spec.session_id, "main", state.id)}

    theirs = make_spec(uuid4())
    await other.ensure_container(theirs)
    assert {e.session_id for e in await until(told_other, "start")} == {theirs.session_id}


async def test_closing_the_iterator_ends_the_reader(engine, make_spec):
    events = engine.events()
    reading = asyncio.ensure_future(anext(events))
    await engine.ensure_container(make_spec(uuid4()))
    await reading
    while not reading.cancelled():  # until no event is there: those of networks of other deployments come, too
        reading = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait({reading})
    async with asyncio.timeout(60):
        while any(thread.name == "docker-events" for thread in threading.enumerate()):
            await asyncio.sleep(0.02)


async def test_events_end_when_the_engine_stops(tmp_path):
    """The connection goes through a relay, which is closed."""
    path = tmp_path / "engine.sock"
    writers: list[asyncio.StreamWriter] = []

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection("/var/run/docker.sock")
        writers.extend((writer, far_writer))

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while data := await source.read(65_536):
                target.write(data)
            target.close()

        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer), return_exceptions=True)

    server = await asyncio.start_unix_server(relay, path)
    engine = DockerEngine(Settings(home=tmp_path, docker_host=f"unix://{path}"), uuid4(), guest_factory=GuestClient)
    await engine.ping()
    events = engine.events()
    reading = asyncio.ensure_future(anext(events))
    before = len(writers)
    async with asyncio.timeout(60):
        while len(writers) == before:
            await asyncio.sleep(0.02)
    server.close()
    for writer in writers:
        writer.transport.abort()
    async with asyncio.timeout(60):
        with pytest.raises(EngineError) as ended:
            await reading
    assert ended.value.code == "engine_unreachable"
    await engine.aclose()
