"""What sandboxed code can reach over the network, tried from inside.

Each refused connection is also tried where it is allowed, to show that the test itself works.
"""

import asyncio

from tests.integration.engine.isolated_world import Sandbox, World

SERVER_PORT = 8123
CONNECT = """
import json, socket, sys
answers = {}
for target in sys.argv[1:]:
    host, _, port = target.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=2) as connection:
            connection.settimeout(2)
            answers[target] = connection.recv(100).decode() or "closed"
    except OSError as error:
        answers[target] = None
print(json.dumps(answers))
"""
SERVER = """
import socket, sys
listener = socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True)
while True:
    connection, _ = listener.accept()
    connection.sendall(b"reached")
    connection.close()
"""


async def serve(sandbox: Sandbox) -> str:
    """Start a server on all of the sandbox's addresses, and return them."""
    await sandbox.guest.start("server", ["python3", "-c", SERVER, str(SERVER_PORT)])
    async with asyncio.timeout(60):
        while SERVER_PORT not in await sandbox.guest.listening_ports():
            await asyncio.sleep(0.02)
    return f"{sandbox.state.ip}:{SERVER_PORT}"


async def test_sessions_cannot_reach_each_other(world: World):
    answers = "reached"
    at = {name: await serve(getattr(world, name)) for name in ("neighbour", "frontend", "backend")}
    by_role, by_name = f"backend:{SERVER_PORT}", f"{world.neighbour.state.name}:{SERVER_PORT}"
    # These connections are allowed: to the container itself, and between the roles of one session.
    assert await world.neighbour.python(CONNECT, at["neighbour"]) == {at["neighbour"]: answers}
    assert await world.frontend.python(CONNECT, at["backend"], by_role) == {
        at["backend"]: "reached",
        by_role: "reached",
    }
    # All others are refused.
    assert set((await world.one.python(CONNECT, *at.values(), by_name, by_role)).values()) == {None}
    assert set((await world.frontend.python(CONNECT, at["neighbour"], by_name)).values()) == {None}


async def test_ipv6_does_not_bypass_the_isolation(world: World):
    for sandbox in (world.one, world.backend):
        result = await sandbox.run("cat", "/proc/net/if_inet6")
        addresses = [line.split() for line in result.stdout.decode().splitlines()]
        assert [row for row in addresses if row[5] != "lo"] == []


GATEWAY = """
import json, socket, struct
routes = [line.split() for line in open("/proc/net/route").readlines()[1:]]
print(json.dumps(socket.inet_ntoa(struct.pack("<I", int(next(r[2] for r in routes if r[1] == "00000000"), 16)))))
"""


async def test_the_service_on_the_hosts_loopback_is_unreachable(world: World):
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"the service")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.read() == b"the service"
        writer.close()
        for sandbox in (world.one, world.backend):
            gateway = await sandbox.python(GATEWAY)
            targets = [f"{host}:{port}" for host in (gateway, "127.0.0.1", "localhost", "host.docker.internal")]
            assert set((await sandbox.python(CONNECT, *targets)).values()) == {None}


NAMES = """
import json, socket, struct, sys
def asked(server, query):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(2)
        try:
            sock.sendto(query, (server, 53))
            return sock.recv(512)[3] & 15 == 0
        except OSError:
            return False
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = bool(socket.getaddrinfo(name, None))
    except OSError:
        found[name] = False
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\\0"
    query = struct.pack(">6H", 7, 0x100, 1, 0, 0, 0) + labels + struct.pack(">2H", 1, 1)
    found[name] |= asked("127.0.0.11", query)
    if name[0].isdigit():
        try:
            found[name] = bool(socket.gethostbyaddr(name)[0])
        except OSError:
            found[name] = False
print(json.dumps(found))
"""


async def test_names_of_other_sessions_resolve_to_nothing(world: World):
    names = [world.neighbour.state.name, world.neighbour.state.id[:12], str(world.neighbour.state.ip)]
    assert await world.one.python(NAMES, *names) == dict.fromkeys(names, False)
    # Roles of one session find each other, by the engine's name server.
    assert await world.frontend.python(NAMES, "backend") == {"backend": True}
    state = await world.engine.inspect_container(world.one.session_id, "main")
    assert state is not None
    assert (await world.one.sh("getent hosts localhost main")).count("\n") == 2
