"""The guest agent as the main process of a container: limits of memory and processes, privileges, stopping."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal

import pytest

from sandbox.errors import GuestError
from tests.integration.guest.running_guests import MEMORY, PIDS, GuestContainer

HOG = ["python3", "-c", "held = []\nwhile True: held.append(bytearray(8 << 20))"]
#: A fork bomb that retries when the limit of processes is reached.
BOMB = """
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
"""


async def test_privileges(contained: GuestContainer) -> None:
    client = contained.client
    status = (await client.exec(["cat", "/proc/self/status"])).stdout.decode()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert {fields[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
    assert (fields["Uid"], fields["NoNewPrivs"]) == ("1000\t1000\t1000\t1000", "1")
    script = """
        kill -9 1 && echo init
        for process in /proc/[0-9]*; do
            [ "$(stat -c %u $process)" = 0 ] || continue
            kill -9 ${process#/proc/} 2>/dev/null && echo killed $process
            cat $process/environ 2>/dev/null && echo environ $process
        done
        ls /run/sandbox-agent && echo listed
        touch /opt/sandbox-agent/x && echo program
        ls /var/lib/sandbox-agent && echo spool
        mount -t tmpfs none /mnt && echo mounted
        unshare --mount true && echo unshared
        touch made && stat -c %u . made
    """
    assert (await client.exec(script)).stdout == b"1000\n1000\n"


async def test_stats_are_those_of_the_container(contained: GuestContainer) -> None:
    stats = await contained.client.stats()
    assert stats.memory_limit_bytes == MEMORY
    assert 0 < stats.memory_bytes < MEMORY
    assert 0 < stats.pids < PIDS
    assert await contained.client.listening_ports() == []


async def test_a_command_killed_for_memory_is_reported_and_the_guest_agent_survives(contained: GuestContainer) -> None:
    client = contained.client
    result = await client.exec(HOG, timeout_seconds=60)
    assert result.out_of_memory
    assert (result.exit_code, result.signal) == (137, signal.SIGKILL)
    await client.start("hog", HOG)
    info = await client.wait("hog")
    assert info.out_of_memory
    innocent = await client.exec("exit 3")
    assert (innocent.exit_code, innocent.out_of_memory) == (3, False)
    behind = await client.exec(["sh", "-c", "python3 -c 'x = bytearray(1 << 30)'; exit 9"], timeout_seconds=60)
    assert (behind.exit_code, behind.out_of_memory) == (9, True)


async def test_the_guest_agent_answers_during_a_fork_bomb(contained: GuestContainer) -> None:
    client = contained.client
    await client.start("bomb", ["python3", "-c", BOMB])
    while (await client.stats()).pids < PIDS:
        await asyncio.sleep(0.05)
    await client.wait_ready(60)
    assert [info.name for info in await client.processes()] == ["bomb"]
    with pytest.raises(GuestError) as refusal:
        await client.exec(["true"], timeout_seconds=10)
    assert refusal.value.code == "agent_refused"
    assert "limit" in refusal.value.message
    # More connections at once than the client's pool has idle: new ones are accepted as well.
    assert len(await asyncio.gather(*(client.stats() for _ in range(5)))) == 5
    assert await client.kill_all() >= PIDS // 2
    assert (await client.wait("bomb")).signal == signal.SIGKILL
    assert (await client.exec("echo on")).stdout == b"on\n"


async def test_killing_a_fork_bomb_by_name_ends_all_of_its_processes(contained: GuestContainer) -> None:
    client = contained.client
    await client.start("bomb", ["python3", "-c", BOMB])
    while (await client.stats()).pids < PIDS:
        await asyncio.sleep(0.05)
    await client.signal("bomb", signal.SIGKILL)
    assert (await client.wait("bomb")).signal == signal.SIGKILL
    assert (await client.exec("echo on")).stdout == b"on\n"


async def test_orphans_are_reaped(contained: GuestContainer) -> None:
    client = contained.client
    await client.exec("for i in $(seq 20); do (setsid sh -c 'sleep 0.1' &) ; done")
    await client.start("long", "sleep 1; echo through")
    async with contextlib.aclosing(client.output("long")) as output:
        assert (await anext(output)).data == b"through\n"
    zombies = await client.exec("cat /proc/[0-9]*/status | grep -c '^State:.Z'")
    assert zombies.stdout == b"0\n"


async def test_stopping_is_quick_and_clean(contained: GuestContainer) -> None:
    await contained.client.start("stubborn", "trap '' TERM; while :; do sleep 1; done")
    await asyncio.to_thread(contained.container.stop, timeout=30)
    state = await asyncio.to_thread(contained.container.client.api.inspect_container, contained.container.id)
    assert state["State"]["ExitCode"] == 0, json.dumps(state["State"])
