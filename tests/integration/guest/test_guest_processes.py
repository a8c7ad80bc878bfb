"""Named processes and their output."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from uuid import uuid4

import pytest

from sandbox.engine.guest_client.client import GuestClient
from sandbox.engine.guest_client.http import UnixConnector
from sandbox.engine.guest_data import OutputChunk, Stream
from sandbox.errors import GuestError
from sandbox.guest.children import Children
from sandbox.guest.launcher import Launcher
from sandbox.guest.user import User
from sandbox.guest.variables import Variables
from tests.integration.guest.running_guests import RunningGuest


@pytest.fixture
def name() -> str:
    return f"process {uuid4().hex[:8]}/ä"


async def collect(client: GuestClient, name: str, *, offset: int = 0, follow: bool = True) -> list[OutputChunk]:
    return [chunk async for chunk in client.output(name, offset=offset, follow=follow)]


def joined(chunks: list[OutputChunk]) -> bytes:
    return b"".join(chunk.data for chunk in chunks)


async def printed(client: GuestClient, name: str, expected: bytes) -> None:
    for _ in range(1200):
        if expected in joined(await collect(client, name, follow=False)):
            return
        await asyncio.sleep(0.05)
    pytest.fail(f"{expected!r} was not printed")


async def test_both_streams_are_one_log_in_order(client: GuestClient, name: str) -> None:
    await client.start(name, "for i in 1 2 3; do echo out $i; sleep 0.1; echo err $i >&2; sleep 0.1; done; exit 4")
    chunks = await collect(client, name)
    assert joined(chunks) == b"out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\n"
    assert {chunk.stream for chunk in chunks if b"err" in chunk.data} == {Stream.STDERR}
    assert [chunk.offset for chunk in chunks] == [0, 6, 12, 18, 24, 30]
    info = await client.wait(name)
    assert (info.running, info.exit_code, info.signal, info.output_end) == (False, 4, None, 36)
    assert info.ended_at is not None
    assert info.ended_at >= info.started_at


async def test_reading_continues_at_the_offset_of_another_client(
    client: GuestClient, name: str, running_guest: RunningGuest
) -> None:
    first = GuestClient(UnixConnector(running_guest.socket))
    await first.start(name, "for i in $(seq 1 40); do echo line $i; sleep 0.02; done")
    async with contextlib.aclosing(first.output(name)) as output:
        chunk = await anext(output)
    await first.aclose()
    read = len(chunk.data)
    rest = await collect(client, name, offset=read)
    assert rest[0].offset == read
    assert chunk.data + joined(rest) == b"".join(b"line %d\n" % number for number in range(1, 41))
    # In the middle of a line, and after the end.
    assert joined(await collect(client, name, offset=3, follow=False)).startswith(b"e 1\n")
    assert await collect(client, name, offset=10_000_000) == []


async def test_without_follow_the_output_ends_at_once(client: GuestClient, name: str) -> None:
    await client.start(name, "echo here; exec sleep 600")
    while not (chunks := await collect(client, name, follow=False)):
        await asyncio.sleep(0.02)
    assert joined(chunks) == b"here\n"
    await client.signal(name, signal.SIGKILL)


async def test_a_running_process_is_not_started_twice(client: GuestClient, name: str) -> None:
    infos = await asyncio.gather(*(client.start(name, "echo x; exec sleep 600") for _ in range(5)))
    assert len({info.pid for info in infos}) == 1
    await client.signal(name, signal.SIGTERM)
    ended = await client.wait(name)
    assert (ended.exit_code, ended.signal) == (143, 15)
    await client.signal(name, signal.SIGTERM)  # no error for a process that has ended
    same = await client.start(name, "echo again", restart_finished=False)
    assert same.pid == ended.pid
    anew = await client.start(name, "echo again")
    assert anew.pid != ended.pid
    assert joined(await collect(client, name)) == b"again\n"
    assert name in [info.name for info in await client.processes()]


async def test_forgetting_a_process_kills_it(client: GuestClient, name: str) -> None:
    info = await client.start(name, "echo kept; exec sleep 600")
    await client.forget(name)
    assert await client.process(name) is None
    for _ in range(1200):
        if (await client.exec(["kill", "-0", str(info.pid)])).exit_code:
            break
        await asyncio.sleep(0.05)
    assert (await client.exec(["kill", "-0", str(info.pid)])).exit_code == 1
    await client.forget(name)
    assert (await client.start(name, ["true"])).pid != info.pid


async def test_what_an_ended_process_left_in_the_background_outlives_its_name(client: GuestClient, name: str) -> None:
    await client.start(name, "sleep 300 & echo $!")
    await client.wait(name)
    pid = b"".join([chunk.data async for chunk in client.output(name, follow=False)]).decode().strip()
    await client.forget(name)
    assert (await client.exec(["kill", "-0", pid])).exit_code == 0
    await client.exec(["kill", pid])


async def test_a_line_of_10_mb(client: GuestClient, name: str) -> None:
    await client.start(name, "head -c 10000000 /dev/zero | tr '\\0' x; echo; echo end >&2")
    size = 0
    async for chunk in client.output(name):
        size += len(chunk.data)
        assert len(chunk.data) <= 256 * 1024
    assert size == 10_000_005


async def test_100_000_lines(client: GuestClient, name: str) -> None:
    await client.start(name, "seq 1 100000")
    chunks = await collect(client, name)
    assert joined(chunks) == b"".join(b"%d\n" % number for number in range(1, 100_001))
    assert len(chunks) < 5_000


async def test_the_log_is_bounded_and_its_first_offset_is_reported(client: GuestClient, name: str) -> None:
    await client.start(name, "yes 0123456 | head -c 40000000")
    info = await client.wait(name)
    assert info.output_end == 40_000_000
    first, size = None, 0
    async for chunk in client.output(name):
        first = chunk.offset if first is None else first
        size += len(chunk.data)
    assert first is not None
    assert first > 0
    assert first + size == 40_000_000
    assert 24_000_000 < size < 40_000_000


async def test_a_process_waits_for_the_reader_of_its_output_if_it_is_paced(client: GuestClient, name: str) -> None:
    await client.start(name, "yes 0123456 | head -c 60000000; touch printed", paced=True)
    size = 0
    async for chunk in client.output(name):
        if not size:  # the spool holds less than half of it: without waiting, the first bytes would be gone
            assert await client.stat("printed") is None
        assert chunk.offset == size
        size += len(chunk.data)
    assert size == 60_000_000
    assert await client.stat("printed") is not None
    await client.remove("printed")


async def test_what_goes_on_in_the_background_does_not_wait_for_a_reader_that_is_gone(
    client: GuestClient, name: str
) -> None:
    await client.start(name, "(yes | head -c 30000000; touch printed) & sleep 0.1", paced=True)
    await client.wait(name)
    assert await client.stat("printed") is None
    await client.forget(name)
    async with asyncio.timeout(30):
        while await client.stat("printed") is None:
            await asyncio.sleep(0.05)
    await client.remove("printed")


async def test_stdin_is_written_and_closed(client: GuestClient, name: str) -> None:
    await client.start(name, ["cat"])
    await client.write_stdin(name, b"one ")
    await client.write_stdin(name, b"two", close=True)
    assert joined(await collect(client, name)) == b"one two"
    with pytest.raises(GuestError) as refusal:
        await client.write_stdin(name, b"three")
    assert refusal.value.code == "agent_refused"


async def test_sigkill_kills_the_whole_tree(client: GuestClient, name: str) -> None:
    await client.start(name, "setsid sleep 601 & sleep 602 & (sleep 603 & wait) & echo ready; wait")
    async with contextlib.aclosing(client.output(name)) as output:
        await anext(output)
    await client.signal(name, signal.SIGKILL)
    assert (await client.wait(name)).signal == signal.SIGKILL
    left = await client.exec("ps -eo args | grep -E '^sleep 60[123]$'")
    assert left.stdout == b""


async def test_the_group_of_an_ended_process_can_be_signalled(client: GuestClient, name: str) -> None:
    await client.start(name, "(trap 'echo signalled; exit' TERM; echo set; while :; do sleep 0.05; done) & exit 0")
    assert (await client.wait(name)).exit_code == 0
    await printed(client, name, b"set\n")
    await client.signal(name, signal.SIGTERM)
    await printed(client, name, b"signalled\n")


async def test_an_unknown_process(client: GuestClient, name: str) -> None:
    assert await client.process(name) is None
    for call in (client.wait(name), client.signal(name, 15), client.write_stdin(name, b""), collect(client, name)):
        with pytest.raises(GuestError) as refusal:
            await call
        assert refusal.value.code == "process_not_found"


async def test_a_process_that_cannot_start_leaves_nothing(client: GuestClient, name: str) -> None:
    with pytest.raises(GuestError) as refusal:
        await client.start(name, ["no-such-program"])
    assert refusal.value.code == "command_not_found"
    assert await client.process(name) is None


async def test_a_follower_that_does_not_read_does_not_delay_others(client: GuestClient, name: str) -> None:
    await client.start(name, "sleep 0.3; seq 1 200000")
    async with contextlib.aclosing(client.output(name)) as idle:
        first = await anext(idle)
        sizes = [len(joined(chunks)) for chunks in await asyncio.gather(*(collect(client, name) for _ in range(5)))]
    assert first.offset == 0
    assert sizes == [1_288_895] * 5


async def test_an_order_to_a_launcher_that_has_just_died_goes_to_a_new_one(tmp_path: Path) -> None:
    launcher = Launcher(Children(), User(os.getuid(), str(tmp_path), Variables(str(tmp_path))))
    pids = set()
    with open(os.devnull, "r+b") as null:
        for _ in range(3):
            await launcher.start(["true"], cwd="/", env={}, files=[null.fileno()] * 3)
            assert launcher._process is not None
            pids.add(pid := launcher._process.pid)
            os.kill(pid, signal.SIGKILL)
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # the launcher's owner does not know of it yet
    launcher.close()
    assert len(pids) == 3
    for pid in pids:
        os.waitpid(pid, 0)
