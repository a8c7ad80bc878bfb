"""Tunnels, terminals, watching, stats, and failures of connections."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from sandbox.engine.guest_client.client import GuestClient, PtyStream
from sandbox.engine.guest_client.http import UnixConnector
from sandbox.errors import GuestError, Kind
from tests.integration.guest.running_guests import RunningGuest
from tests.waiting import WAIT_SECONDS, watch_begins


@pytest.fixture(params=["127.0.0.1", "::1"])
def echo_port(request: pytest.FixtureRequest) -> Iterator[int]:
    """The port of a server on one loopback address that sends everything back."""
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.bind((request.param, 0))
    listener.listen()

    def echo(sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            while data := sock.recv(65_536):
                sock.sendall(data)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                threading.Thread(target=echo, args=(sock,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


async def test_tunnel(client: GuestClient, echo_port: int) -> None:
    assert echo_port in await client.listening_ports()
    loop = asyncio.get_running_loop()
    data = os.urandom(2_000_000)
    with await client.tunnel(echo_port) as tunnel:

        async def send() -> None:
            await loop.sock_sendall(tunnel, data)
            tunnel.shutdown(socket.SHUT_WR)

        sending = asyncio.create_task(send())
        received = bytearray()
        while part := await loop.sock_recv(tunnel, 65_536):
            received += part
        await sending
    assert received == data


async def test_tunnel_through_the_bridge(bridged: GuestClient, echo_port: int) -> None:
    loop = asyncio.get_running_loop()
    with await bridged.tunnel(echo_port) as tunnel:
        await loop.sock_sendall(tunnel, b"across")
        assert await loop.sock_recv(tunnel, 100) == b"across"


async def test_closing_a_tunnel_closes_the_connection_to_the_app(client: GuestClient) -> None:
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        ended.set()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        with await client.tunnel(server.sockets[0].getsockname()[1]) as tunnel:
            await asyncio.get_running_loop().sock_sendall(tunnel, b"x")
        await asyncio.wait_for(ended.wait(), WAIT_SECONDS)


async def test_a_closed_port_is_refused(client: GuestClient) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(GuestError) as refusal:
            await client.tunnel(unused.getsockname()[1])
    assert (refusal.value.code, refusal.value.kind) == ("port_not_open", Kind.UNAVAILABLE)
    with pytest.raises(GuestError) as refusal:
        await client.tunnel(70_000)
    assert refusal.value.code == "agent_refused"


async def read_until(terminal: PtyStream, pattern: bytes) -> bytes:
    output = b""
    while not re.search(pattern, output):
        data = await terminal.read()
        assert data, output
        output += data
    return output


async def test_terminal(client: GuestClient) -> None:
    terminal = await client.pty(columns=132, rows=43, env={"PS1": "$ "})
    await terminal.write(b"stty -echo; tty; stty size; echo $TERM\n")
    await read_until(terminal, rb"(?s)/dev/pts/\d+.*43 132.*xterm-256color")
    await terminal.resize(100, 30)
    await terminal.write(b"stty size\n")
    await read_until(terminal, rb"30 100")
    # An interrupt drops input that was typed ahead, so each step waits for the one before.
    await terminal.write(b"sh -c 'echo going; exec sleep 600'\n")
    await read_until(terminal, rb"going")
    await terminal.write(b"\x03")
    await read_until(terminal, rb"[$] ")
    await terminal.write(b"echo $((20 + 22)); exit 3\n")
    await read_until(terminal, rb"42")
    while await terminal.read():
        pass
    assert terminal.exit_code == 3
    await terminal.close()


async def test_a_closed_terminal_hangs_up(client: GuestClient) -> None:
    name = f"hung-up-{uuid4().hex[:8]}"
    terminal = await client.pty(f"trap 'touch {name}; exit' HUP; echo ready; while :; do sleep 0.05; done")
    await read_until(terminal, rb"ready")
    await terminal.close()
    for _ in range(1200):
        if await client.stat(name):
            return
        await asyncio.sleep(0.05)
    pytest.fail("the program on the terminal was not hung up")


async def test_a_named_terminal_goes_on_after_its_connection(client: GuestClient) -> None:
    name = f"kept-{uuid4().hex}"
    terminal = await client.pty(terminal=name, env={"PS1": "$ "})
    assert terminal.position == 0
    await terminal.write(b"stty -echo; answer=21; echo be''gun\n")
    received = await read_until(terminal, rb"begun\r\n")
    await terminal.write(b"echo be''fore; sleep 0.3; echo mean''while\n")
    received += await read_until(terminal, rb"before")
    await terminal.leave()

    again = await client.pty(terminal=name, after=len(received))
    assert again.position == len(received)
    received += await read_until(again, rb"meanwhile")
    await again.write(b"echo $((answer * 2))\n")
    received += await read_until(again, rb"42")
    assert [received.count(word) for word in (b"begun", b"before", b"meanwhile", b"42")] == [1, 1, 1, 1]

    # A second connection takes it over, and gets the whole output if it has none of it.
    other = await client.pty(terminal=name)
    assert await again.read() == b""
    assert again.is_taken_over
    assert other.position == 0
    await read_until(other, rb"(?s)begun.*meanwhile.*42")
    await again.leave()
    await other.write(b"exit 3\n")
    while await other.read():
        pass
    assert other.exit_code == 3
    await other.leave()

    new = await client.pty(terminal=name, after=len(received))
    assert new.position == 0
    await new.close()


async def test_what_a_terminal_prints_without_a_connection_is_kept_in_part(client: GuestClient) -> None:
    name = f"kept-{uuid4().hex}"
    command = "stty -onlcr; seq -f 'row %08.0f' 0 99999; echo over; sleep 600"
    terminal = await client.pty(command, terminal=name)
    received = await read_until(terminal, rb"row 00000009\n")
    # It has to wait for the client that does not read.
    await terminal.leave()
    again = await client.pty(command, terminal=name, after=len(received))
    skipped = again.position - len(received)
    rows = await read_until(again, rb"over")
    assert skipped >= 0
    assert (again.position + len(rows)) == 100_000 * len("row 00000000\n") + len("over\n")
    await again.close()
    new = await client.pty(["sleep", "60"], terminal=name, after=again.position)
    assert new.position == 0
    await new.close()


async def test_a_terminal_that_cannot_be_opened(client: GuestClient) -> None:
    with pytest.raises(GuestError) as refusal:
        await client.pty(["no-such-program"])
    assert refusal.value.code == "command_not_found"
    with pytest.raises(GuestError) as refusal:
        await client.pty(columns=0)
    assert refusal.value.code == "agent_refused"


async def test_watch(client: GuestClient) -> None:
    folder = f"watched-{uuid4().hex[:8]}"
    await client.write_file(f"{folder}/there", b"1")
    await client.make_directory(f"{folder}/node_modules")
    async with contextlib.aclosing(client.watch(folder)) as watching:
        await watch_begins(client, folder, watching)
        await client.write_file(f"{folder}/node_modules/skipped", b"1")
        await client.write_file(f"{folder}/sub/new", b"1")
        assert await anext(watching) == {"type": "created", "path": f"{folder}/sub"}
        assert await anext(watching) == {"type": "created", "path": f"{folder}/sub/new"}
        await client.write_file(f"{folder}/there", b"22")
        assert await anext(watching) == {"type": "modified", "path": f"{folder}/there"}
        await client.remove(f"{folder}/sub/new")
        assert await anext(watching) == {"type": "removed", "path": f"{folder}/sub/new"}
    with pytest.raises(GuestError) as refusal:
        await anext(client.watch(f"{folder}/none"))
    assert refusal.value.code == "file_not_found"


async def test_stats(client: GuestClient) -> None:
    before = await client.stats()
    await client.exec("i=0; while [ $i -lt 100000 ]; do i=$((i + 1)); done")
    after = await client.stats()
    assert after.cpu_seconds > before.cpu_seconds > 0
    assert after.disk_total_bytes > after.disk_used_bytes > 0
    assert after.memory_bytes > 0


async def test_a_guest_agent_that_does_not_listen(tmp_path: Path) -> None:
    client = GuestClient(UnixConnector(tmp_path / "agent.sock"))
    for call in (client.wait_ready(0.2), client.exec("true"), client.tunnel(80)):
        with pytest.raises(GuestError) as refusal:
            await call
        assert (refusal.value.code, refusal.value.kind) == ("agent_unreachable", Kind.UNAVAILABLE)
    await client.aclose()


async def test_a_guest_agent_that_hangs_up_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly")
        writer.close()

    async with await asyncio.start_unix_server(hang_up, path):
        client = GuestClient(UnixConnector(path))
        with pytest.raises(GuestError) as refusal:
            await client.stats()
        assert refusal.value.code == "agent_unreachable"
        await client.aclose()


async def test_a_socket_path_of_any_length(tmp_path: Path, running_guest: RunningGuest) -> None:
    folder = tmp_path / ("long-" * 30)
    folder.mkdir()
    (folder / "agent.sock").symlink_to(running_guest.socket)
    client = GuestClient(UnixConnector(folder / "agent.sock"))
    await client.wait_ready(WAIT_SECONDS)
    await client.aclose()


async def test_the_client_works_after_cancelled_calls(client: GuestClient) -> None:
    for round_ in range(30):
        call = asyncio.create_task(client.exec("sleep 0.01; echo x"))
        await asyncio.sleep(0.0007 * round_)
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call
    results = await asyncio.gather(*(client.exec(f"echo {number}") for number in range(20)))
    assert [int(result.stdout) for result in results] == list(range(20))
