"""The contract of `Guest`, on the fake and on the real one: commands, named processes, terminals and ports."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from uuid import uuid4

import pytest

from sandbox.engine.guest import Guest
from sandbox.engine.guest_data import OutputChunk, Stream
from sandbox.errors import GuestError
from tests.contract.conftest import GuestUnderTest
from tests.fakes.processes import Script, echo
from tests.waiting import WAIT_SECONDS

FOREVER = Script(b"started\n", exit_code=None)


@pytest.fixture
def name() -> str:
    return f"process-{uuid4().hex[:8]}"


async def collect(guest: Guest, name: str, *, offset: int = 0, follow: bool = True) -> list[OutputChunk]:
    return [chunk async for chunk in guest.output(name, offset=offset, follow=follow)]


def joined(chunks: list[OutputChunk]) -> bytes:
    return b"".join(chunk.data for chunk in chunks)


async def until_printed(guest: Guest, name: str, expected: bytes) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while joined(await collect(guest, name, follow=False)) != expected:
            await asyncio.sleep(0.02)


async def test_exec_separates_the_streams_and_answers_the_exit_code(guest_under_test: GuestUnderTest) -> None:
    command = guest_under_test.program(Script(b"out\n", b"err\n", exit_code=7))
    result = await guest_under_test.guest.exec(command)
    assert (result.stdout, result.stderr, result.exit_code) == (b"out\n", b"err\n", 7)
    assert (result.signal, result.timed_out, result.truncated, result.out_of_memory) == (None, False, False, False)


async def test_exec_passes_standard_input_on(guest_under_test: GuestUnderTest) -> None:
    command = guest_under_test.program(Script(reads=True))
    assert (await guest_under_test.guest.exec(command, stdin=b"some input")).stdout == b"some input"
    assert (await guest_under_test.guest.exec(command)).stdout == b""


async def test_exec_kills_at_the_timeout(guest_under_test: GuestUnderTest) -> None:
    result = await guest_under_test.guest.exec(guest_under_test.program(FOREVER), timeout_seconds=0.5)
    assert result.timed_out
    assert (result.exit_code, result.signal) == (137, signal.SIGKILL)


async def test_an_interruption_ends_a_command_that_waits_and_nothing_else(guest_under_test: GuestUnderTest) -> None:
    guest = guest_under_test.guest
    running = asyncio.create_task(guest.exec(guest_under_test.program(FOREVER)))
    while not running.done():  # an interruption before the command has begun changes nothing
        guest.interrupt(GuestError("its container was paused", code="container_paused"))
        await asyncio.wait({running}, timeout=0.05)
    with pytest.raises(GuestError) as interrupted:
        await running
    assert interrupted.value.code == "container_paused"
    assert (await guest.exec(guest_under_test.program(Script(b"here")))).stdout == b"here"


async def test_exec_truncates_at_the_limit(guest_under_test: GuestUnderTest) -> None:
    result = await guest_under_test.guest.exec(guest_under_test.program(Script(b"x" * 100)), max_output_bytes=10)
    assert result.truncated
    assert len(result.stdout) + len(result.stderr) == 10


async def test_a_program_that_does_not_exist(guest: Guest, name: str) -> None:
    for call in (
        guest.exec(["no-such-program"]),
        guest.start(name, ["no-such-program"]),
        guest.pty(["no-such-program"]),
    ):
        with pytest.raises(GuestError) as refused:
            await call
        assert refused.value.code == "command_not_found"
    assert await guest.process(name) is None
    # A shell finds it out itself.
    assert (await guest.exec("no-such-program")).exit_code == 127


async def test_a_named_process_with_its_output_and_end(guest_under_test: GuestUnderTest, name: str) -> None:
    guest = guest_under_test.guest
    command = guest_under_test.program(Script(b"one\ntwo\n", b"three\n", exit_code=4, delay=0.2))
    started = await guest.start(name, command)
    assert (started.name, started.running, started.exit_code) == (name, True, None)
    chunks = await collect(guest, name)
    assert sorted(joined(chunks).splitlines()) == [b"one", b"three", b"two"]
    assert {chunk.stream for chunk in chunks} == {Stream.STDOUT, Stream.STDERR}
    position = 0
    for chunk in chunks:
        assert chunk.offset == position
        position += len(chunk.data)
    ended = await guest.wait(name)
    assert (ended.pid, ended.running, ended.exit_code, ended.signal) == (started.pid, False, 4, None)
    assert ended.output_end == position == 14
    assert ended.ended_at is not None
    assert ended.ended_at >= ended.started_at
    assert all(ended.started_at - 0.001 <= (chunk.time or 0) <= ended.ended_at for chunk in chunks)
    assert await guest.process(name) == ended
    assert ended in await guest.processes()


async def test_output_continues_at_an_offset(guest_under_test: GuestUnderTest, name: str) -> None:
    guest = guest_under_test.guest
    await guest.start(name, guest_under_test.program(Script(b"line 1\nline 2\n")))
    await guest.wait(name)
    assert joined(await collect(guest, name, offset=3)) == b"e 1\nline 2\n"
    assert await collect(guest, name, offset=10_000) == []


async def test_output_without_follow_is_what_there_is(guest_under_test: GuestUnderTest, name: str) -> None:
    guest = guest_under_test.guest
    await guest.start(name, guest_under_test.program(FOREVER))
    await until_printed(guest, name, b"started\n")
    await guest.signal(name, signal.SIGKILL)
    await guest.wait(name)


async def test_a_running_process_is_not_started_twice(guest_under_test: GuestUnderTest, name: str) -> None:
    guest, command = guest_under_test.guest, guest_under_test.program(FOREVER)
    infos = await asyncio.gather(*(guest.start(name, command) for _ in range(3)))
    assert len({info.pid for info in infos}) == 1
    await guest.signal(name, signal.SIGKILL)
    ended = await guest.wait(name)
    assert (ended.exit_code, ended.signal) == (137, signal.SIGKILL)
    await guest.signal(name, signal.SIGTERM)  # it has ended already, which is success
    assert (await guest.start(name, command, restart_finished=False)).pid == ended.pid
    other = guest_under_test.program(Script(b"again\n"))
    assert (await guest.start(name, other)).pid != ended.pid
    assert joined(await collect(guest, name)) == b"again\n"


async def test_a_forgotten_process_is_unknown(guest_under_test: GuestUnderTest, name: str) -> None:
    guest, command = guest_under_test.guest, guest_under_test.program(FOREVER)
    first = await guest.start(name, command)
    await guest.forget(name)
    assert await guest.process(name) is None
    await guest.forget(name)
    assert (await guest.start(name, command)).pid != first.pid
    await guest.forget(name)


async def test_standard_input_of_a_process_and_its_end(guest_under_test: GuestUnderTest, name: str) -> None:
    guest = guest_under_test.guest
    await guest.start(name, guest_under_test.program(Script(reads=True)))
    await guest.write_stdin(name, b"one ")
    await guest.write_stdin(name, b"two", close=True)
    assert joined(await collect(guest, name)) == b"one two"
    await guest.wait(name)
    with pytest.raises(GuestError) as refused:
        await guest.write_stdin(name, b"three")
    assert refused.value.code == "agent_refused"


async def test_calls_for_an_unknown_process(guest: Guest, name: str) -> None:
    assert await guest.process(name) is None
    for call in (guest.wait(name), guest.signal(name, 15), guest.write_stdin(name, b""), collect(guest, name)):
        with pytest.raises(GuestError) as refused:
            await call
        assert refused.value.code == "process_not_found"


async def test_a_port_is_listed_and_reached_by_a_tunnel(guest_under_test: GuestUnderTest, name: str) -> None:
    guest, port = guest_under_test.guest, 41_234
    with pytest.raises(GuestError) as refused:
        await guest.tunnel(port)
    assert refused.value.code == "port_not_open"
    await guest.start(name, guest_under_test.program(Script(exit_code=None, listens={port: echo})))
    async with asyncio.timeout(WAIT_SECONDS):
        while port not in await guest.listening_ports():
            await asyncio.sleep(0.05)
    assert await guest.port_sockets(opened={"ab-1": 9}) == {}
    assert (await guest.port_sockets(opened={"ab-1": port}))["ab-1"].port == port
    assert "ab-1" in await guest.port_sockets()
    assert await guest.port_sockets(closed=["ab-1", "cd-2"]) == {}
    reader, writer = await asyncio.open_connection(sock=await guest.tunnel(port))
    writer.write(b"there and back")
    writer.write_eof()
    assert await reader.read() == b"there and back"
    writer.close()
    await guest.signal(name, signal.SIGKILL)
    await guest.wait(name)
    assert port not in await guest.listening_ports()
    with pytest.raises(GuestError) as refused:
        await guest.tunnel(70_000)
    assert refused.value.code == "agent_refused"


async def test_forwarding_no_ports_is_always_possible(guest: Guest) -> None:
    assert await guest.forward_ports({}) == {}
    assert await guest.forward_ports({}) == {}


async def test_a_terminal(guest_under_test: GuestUnderTest) -> None:
    guest = guest_under_test.guest
    terminal = await guest.pty(guest_under_test.program(Script(b"shown", exit_code=0)), columns=100, rows=30)
    await terminal.resize(120, 40)
    printed = b""
    while data := await terminal.read():
        printed += data
    assert printed == b"shown"
    await terminal.close()
    with pytest.raises(GuestError) as refused:
        await guest.pty(guest_under_test.program(Script()), columns=0)
    assert refused.value.code == "agent_refused"


async def test_a_named_terminal_is_found_again(guest_under_test: GuestUnderTest) -> None:
    guest, name = guest_under_test.guest, f"terminal-{uuid4().hex}"
    command = guest_under_test.program(Script(b"shown", exit_code=None))
    first = await guest.pty(command, terminal=name)
    printed = b""
    while len(printed) < len(b"shown"):
        printed += await first.read()
    await first.leave()
    second = await guest.pty(command, terminal=name, after=3)
    assert (second.position, await second.read()) == (3, b"wn")
    await second.close()
    third = await guest.pty(command, terminal=name, after=3)
    assert third.position == 0
    await third.close()


async def test_the_container_s_resources_are_measured(guest: Guest) -> None:
    stats = await guest.stats()
    assert stats.memory_bytes > 0
    assert stats.pids > 0
    assert stats.disk_total_bytes > stats.disk_used_bytes > 0


async def test_the_usage_of_the_container_is_kept_from_its_start(guest: Guest) -> None:
    (first, *_) = await guest.stats_history()
    assert first.memory_bytes > 0
    assert first.disk_used_bytes > 0


async def test_a_later_connection_for_exports_ends_the_earlier(guest: Guest) -> None:
    first = await guest.exports()
    second = await guest.exports()
    with pytest.raises(GuestError) as over:
        await first.arrived()
    assert over.value.code == "agent_unreachable"
    await first.close()
    waiting = asyncio.ensure_future(second.arrived())
    await asyncio.sleep(0.05)
    assert not waiting.done()
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    await second.close()


async def test_running_processes_are_listed_and_signalled(guest_under_test: GuestUnderTest, name: str) -> None:
    guest = guest_under_test.guest
    started = await guest.start(name, guest_under_test.program(FOREVER))
    await until_printed(guest, name, b"started\n")
    (found,) = (process for process in await guest.running_processes() if process.pid == started.pid)
    assert found.command
    assert found.memory_bytes > 0
    assert abs(found.started_at - started.started_at) < 5
    await guest.signal_process(found.pid, signal.SIGTERM)
    assert (await guest.wait(name)).signal == signal.SIGTERM
    assert started.pid not in {process.pid for process in await guest.running_processes()}
    with pytest.raises(GuestError) as refused:
        await guest.signal_process(started.pid, signal.SIGTERM)
    assert refused.value.code == "process_not_found"
