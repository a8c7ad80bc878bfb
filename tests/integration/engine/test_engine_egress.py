"""What sandboxes may connect to, tried from inside against a machine of the test's own."""

import asyncio
import json
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from uuid import uuid4

import pytest

from sandbox.domain.egress import PUBLIC as EVERYTHING
from sandbox.domain.egress import Egress, parse_egress
from sandbox.engine.base import ContainerSpec, Refusal
from sandbox.engine.docker import egress as egress_module
from sandbox.engine.docker.engine import DockerEngine
from sandbox.errors import EngineError
from tests.firewall import remove_rules
from tests.integration.engine.outside import METADATA, OTHER_PUBLIC, PORT, PRIVATE, PUBLIC, machine_outside
from tests.integration.engine.test_engine_isolation_network import CONNECT, GATEWAY

pytestmark = [pytest.mark.engine, pytest.mark.root]

MakeSpec = Callable[..., ContainerSpec]
TARGETS = (PUBLIC, OTHER_PUBLIC, METADATA, PRIVATE)


@pytest.fixture(scope="module", autouse=True)
def outside() -> Iterator[None]:
    with machine_outside():
        yield


async def reached(engine: DockerEngine, make_spec: MakeSpec, egress: Egress, *hosts: str) -> set[str]:
    """Start a session with this egress, and return which of the hosts it reaches."""
    session_id = uuid4()
    network = None if egress == EVERYTHING else await engine.ensure_network(session_id, egress)
    await engine.ensure_container(make_spec(session_id, network=network))
    guest = engine.guest(session_id, "main")
    await guest.wait_ready(60)
    result = await guest.exec(["python3", "-c", CONNECT, *(f"{host}:{PORT}" for host in hosts)], timeout_seconds=60)
    return {target.rpartition(":")[0] for target, answer in json.loads(result.stdout).items() if answer == "reached"}


async def test_by_default_only_public_addresses_are_reached(engine: DockerEngine, make_spec: MakeSpec) -> None:
    assert await reached(engine, make_spec, EVERYTHING, *TARGETS) == {PUBLIC, OTHER_PUBLIC}


async def test_the_host_is_not_reached(engine: DockerEngine, make_spec: MakeSpec) -> None:
    session_id = uuid4()
    await engine.ensure_container(make_spec(session_id))
    guest = engine.guest(session_id, "main")
    await guest.wait_ready(60)
    gateway = json.loads((await guest.exec(["python3", "-c", GATEWAY], timeout_seconds=60)).stdout)

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"reached")
        writer.close()

    server = await asyncio.start_server(greet, "0.0.0.0", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        answer = await guest.exec(["python3", "-c", CONNECT, f"{gateway}:{port}"], timeout_seconds=60)
        assert json.loads(answer.stdout) == {f"{gateway}:{port}": None}
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.read() == b"reached"
        writer.close()


async def test_none_reaches_nothing(engine: DockerEngine, make_spec: MakeSpec) -> None:
    assert await reached(engine, make_spec, parse_egress("none"), *TARGETS) == set()


async def test_a_list_reaches_its_destinations_only(
    engine: DockerEngine, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        egress_module, "host_addresses", lambda name: {"api.example.com": [IPv4Address(PUBLIC)]}.get(name, [])
    )
    listed = parse_egress(["api.example.com", f"{METADATA}/32"])
    assert await reached(engine, make_spec, listed, "api.example.com", *TARGETS) == {"api.example.com", PUBLIC}
    with pytest.raises(EngineError, match=r"missing\.example\.com has no IPv4 address"):
        await engine.ensure_network(uuid4(), parse_egress(["missing.example.com"]))


async def test_roles_of_a_restricted_session_reach_each_other(engine: DockerEngine, make_spec: MakeSpec) -> None:
    session_id = uuid4()
    network = await engine.ensure_network(session_id, parse_egress("none"))
    for role in ("backend", "frontend"):
        await engine.ensure_container(make_spec(session_id, role, network=network))
        await engine.guest(session_id, role).wait_ready(60)
    await engine.guest(session_id, "backend").start("server", ["python3", "-m", "http.server", str(PORT)])
    fetch = (
        "import time, urllib.request\n"
        "for _ in range(100):\n"
        "    try: print(urllib.request.urlopen('http://backend:8123/', timeout=2).status); break\n"
        "    except OSError: time.sleep(0.1)\n"
    )
    result = await engine.guest(session_id, "frontend").exec(["python3", "-c", fetch], timeout_seconds=60)
    assert result.stdout.strip() == b"200"


async def test_removed_rules_are_put_back(engine: DockerEngine, make_spec: MakeSpec) -> None:
    assert await reached(engine, make_spec, EVERYTHING, PRIVATE) == set()
    assert await engine.guard_egress() is True
    remove_rules(engine._deployment_id)
    assert await engine.guard_egress() is False
    assert await reached(engine, make_spec, EVERYTHING, PRIVATE) == set()


async def test_the_operator_may_permit_private_networks(
    make_engine: Callable[..., DockerEngine], make_spec: MakeSpec
) -> None:
    engine = make_engine(egress_permitted=f"{PRIVATE}/32")
    assert await reached(engine, make_spec, EVERYTHING, *TARGETS) == {PUBLIC, OTHER_PUBLIC, PRIVATE}


async def test_a_host_without_rules_refuses_what_it_cannot_enforce(make_engine: Callable[..., DockerEngine]) -> None:
    unguarded, strict = make_engine(egress_guard="off"), make_engine(egress_guard="required")
    with pytest.raises(EngineError) as refused:
        await unguarded.ensure_network(uuid4(), parse_egress("none"))
    assert refused.value.code == "egress_unavailable"
    await unguarded.ensure_network(uuid4())
    await strict.ensure_network(uuid4())


async def test_refusals_are_counted_by_container_and_destination(engine: DockerEngine, make_spec: MakeSpec) -> None:
    sessions = uuid4(), uuid4()
    restricted = await engine.ensure_network(sessions[1], parse_egress("none"))
    await engine.ensure_container(make_spec(sessions[0]))
    await engine.ensure_container(make_spec(sessions[1], network=restricted))
    for session_id in sessions:
        await engine.guest(session_id, "main").wait_ready(60)
    tried = [f"{host}:{PORT}" for host in (PUBLIC, PRIVATE)]
    await engine.guest(sessions[0], "main").exec(["python3", "-c", CONNECT, *tried], timeout_seconds=60)
    # The rules are replaced in between, as another launch does.
    assert await engine.guard_egress() is True
    for session_id in (sessions[0], sessions[1]):
        await engine.guest(session_id, "main").exec(["python3", "-c", CONNECT, *tried], timeout_seconds=60)
    refused = {one for one in await engine.take_refusals() if one.port == PORT}
    assert refused == {
        Refusal(sessions[0], "main", PRIVATE, PORT, "tcp", 2),
        Refusal(sessions[1], "main", PRIVATE, PORT, "tcp", 1),
        Refusal(sessions[1], "main", PUBLIC, PORT, "tcp", 1),
    }
    assert await engine.take_refusals() == []
