"""Connections to guest agents through a shared socket, through the engine's exec, and in mode auto."""

import asyncio
import os
import subprocess
import sys
import threading
from uuid import uuid4

import pytest

from sandbox.errors import GuestError

ECHO = """
import socket
listener = socket.create_server(("127.0.0.1", 7000))
while True:
    connection, _ = listener.accept()
    with connection:
        data = b""
        while piece := connection.recv(65536):
            data += piece
        connection.sendall(data.upper())
"""


async def bridges_end() -> None:
    async with asyncio.timeout(60):
        while any(thread.name == "exec-bridge" for thread in threading.enumerate()):
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("transport", ["socket", "exec"])
async def test_the_guest_agent_answers(make_engine, make_spec, transport):
    engine, spec = make_engine(agent_transport=transport), make_spec(uuid4())
    await engine.ensure_container(spec)
    guest = engine.guest(spec.session_id, "main")
    assert engine.guest(spec.session_id, "main") is guest
    await guest.wait_ready(60)

    size = 700_000
    long = await guest.exec(["python3", "-c", f"import sys; sys.stdout.write('x' * {size}); sys.stderr.write('e')"])
    assert (long.exit_code, len(long.stdout), long.stderr) == (0, size, b"e")
    assert (await guest.exec(["cat"], stdin=b"y" * size)).stdout == b"y" * size
    at_once = await asyncio.gather(*(guest.exec(["echo", str(number)]) for number in range(8)))
    assert [result.stdout for result in at_once] == [f"{number}\n".encode() for number in range(8)]

    await guest.start("echo", ["python3", "-c", ECHO])
    async with asyncio.timeout(60):
        while 7000 not in await guest.listening_ports():
            await asyncio.sleep(0.02)
    loop = asyncio.get_running_loop()
    with await guest.tunnel(7000) as tunnel:
        await loop.sock_sendall(tunnel, b"half closed")
        tunnel.shutdown(1)
        answer = b""
        while piece := await loop.sock_recv(tunnel, 65_536):
            answer += piece
    assert answer == b"HALF CLOSED"

    await engine.remove_session(spec.session_id)
    with pytest.raises(GuestError) as gone:
        await engine.guest(spec.session_id, "main").exec("true")
    assert gone.value.code == "agent_unreachable"
    await bridges_end()


async def test_closed_exec_connections_leave_no_process_in_the_container(make_engine, make_spec):
    """This includes connections on which the guest agent sent nothing before the service closed them."""
    engine, spec = make_engine(agent_transport="exec"), make_spec(uuid4())
    state = await engine.ensure_container(spec)
    guest = engine.guest(spec.session_id, "main")
    await guest.wait_ready(60)
    await guest.start("quiet", ["sleep", "600"])
    following = asyncio.ensure_future(anext(guest.output("quiet")))
    terminal = await guest.pty()
    await terminal.read()
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await terminal.close()
    await guest.aclose()
    await bridges_end()
    async with asyncio.timeout(30):
        while b"sandbox-agent connect" in subprocess.check_output(["docker", "top", state.id]):
            await asyncio.sleep(0.05)


async def test_auto_falls_back_to_exec_if_the_socket_does_not_appear(make_engine, make_spec):
    deployment_id, spec = uuid4(), make_spec(uuid4())
    without_socket = make_engine(deployment_id, agent_transport="exec")
    await without_socket.ensure_container(spec)
    guest = make_engine(deployment_id, agent_transport="auto").guest(spec.session_id, "main")
    await guest.wait_ready(30)
    assert (await guest.exec(["id", "-un"])).stdout == b"sandbox\n"
    assert any(thread.name == "exec-bridge" for thread in threading.enumerate())

    with pytest.raises(GuestError) as refused:
        await make_engine(deployment_id, agent_transport="socket").guest(spec.session_id, "main").exec("true")
    assert refused.value.code == "agent_unreachable"


async def test_auto_uses_the_shared_socket_if_possible(make_engine, make_spec):
    engine, spec = make_engine(), make_spec(uuid4())
    await engine.ensure_container(spec)
    guest = engine.guest(spec.session_id, "main")
    await guest.wait_ready(60)
    bridged = any(thread.name == "exec-bridge" for thread in threading.enumerate())
    assert bridged == (os.geteuid() != 0)


HIDDEN_HOME = """
import asyncio, sys
from uuid import UUID
from pathlib import Path
from sandbox.engine.guest_client.client import GuestClient
from sandbox.engine.base import ContainerSpec, Limits
from sandbox.engine.docker.engine import DockerEngine
from sandbox.settings import Settings

async def main(home, deployment_id, session_id, image):
    engine = DockerEngine(Settings(home=Path(home) / "home"), UUID(deployment_id), guest_factory=GuestClient)
    await engine.ensure_container(
        ContainerSpec(UUID(session_id), "main", image, "python312", None, Limits(256 << 20, 1, 64))
    )
    guest = engine.guest(UUID(session_id), "main")
    await guest.wait_ready(60)
    print((await guest.exec(["id", "-un"])).stdout.decode().strip())
    await engine.aclose()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_exec_is_used_if_the_engine_cannot_access_the_services_folders(make_engine, image, tmp_path):
    """This is so for a service in a container that has the engine's socket, but another file system."""
    deployment_id, session_id = uuid4(), uuid4()
    make_engine(deployment_id)  # The fixture removes what the other process creates.
    hide = f'mount -t tmpfs none "{tmp_path}" && exec "$@"'
    arguments = [sys.executable, "-c", HIDDEN_HOME, str(tmp_path), str(deployment_id), str(session_id), image]
    run = await asyncio.to_thread(
        subprocess.run,
        ["unshare", "--mount", "sh", "-c", hide, "sh", *arguments],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "sandbox\n", "")
