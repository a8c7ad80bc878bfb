"""Running single commands to their end."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from sandbox.engine.guest_client.client import GuestClient
from sandbox.errors import GuestError
from tests.integration.guest.running_guests import RunningGuest


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # the latter: it ended between opening and reading
        return False
    return state not in "ZX"


async def ends(pid: int) -> bool:
    """whether the process ends."""
    for _ in range(1200):
        if not alive(pid):
            return True
        await asyncio.sleep(0.05)
    return False


async def test_runs_as_the_user_without_groups_or_capabilities(client: GuestClient) -> None:
    result = await client.exec("id -u; id -g; cat /proc/self/status; ulimit -c; cat /proc/self/oom_score_adj")
    lines = result.stdout.decode().split("\n")
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert lines[:2] == ["1000", "1000"]
    assert lines[-3:-1] == ["0", "1000"]
    assert status["Groups"].strip() == ""
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"


async def test_only_standard_descriptors_reach_a_command(client: GuestClient) -> None:
    result = await client.exec(["ls", "/proc/self/fd"])
    assert result.stdout.split() == [b"0", b"1", b"2", b"3"]  # 3 is the folder that ls reads


async def test_stdout_stderr_and_exit_code_are_returned_separately(client: GuestClient) -> None:
    result = await client.exec("echo out; echo err >&2; exit 7")
    assert (result.stdout, result.stderr, result.exit_code) == (b"out\n", b"err\n", 7)
    assert (result.signal, result.timed_out, result.truncated) == (None, False, False)


async def test_a_list_is_run_without_a_shell(client: GuestClient) -> None:
    result = await client.exec(["printf", "%s|", "a b", "$HOME", "'"])
    assert result.stdout == b"a b|$HOME|'|"


async def test_environment_and_working_directory(client: GuestClient) -> None:
    await client.make_directory("deep/er")
    result = await client.exec('echo "$GREETING $HOME"; pwd', cwd="deep/er", env={"GREETING": "grüß"})
    greeting, folder = result.stdout.decode().splitlines()
    assert greeting.startswith("grüß /")
    assert folder.endswith("/workspace/deep/er")


async def test_stdin_larger_than_a_pipe(client: GuestClient) -> None:
    data = os.urandom(1_000_000)
    result = await client.exec(["cat"], stdin=data, max_output_bytes=2_000_000)
    assert result.stdout == data


async def test_stdin_that_the_command_does_not_read(client: GuestClient) -> None:
    result = await client.exec(["true"], stdin=b"x" * 1_000_000)
    assert result.exit_code == 0


async def test_without_stdin_the_input_is_empty(client: GuestClient) -> None:
    assert (await client.exec(["cat"], timeout_seconds=20)).exit_code == 0


async def test_a_command_goes_on_after_its_output_is_truncated(client: GuestClient) -> None:
    result = await client.exec("yes | head -c 5000000; echo end >&2; touch finished", max_output_bytes=1000)
    assert result.truncated
    assert len(result.stdout) + len(result.stderr) == 1000
    assert await client.stat("finished") is not None


async def test_a_timeout_kills_the_process_group_and_processes_that_left_it(client: GuestClient) -> None:
    command = "sleep 600 & echo $!; setsid sleep 600 & echo $!; yes > /dev/null & echo $!; sleep 600"
    result = await client.exec(command, timeout_seconds=3)
    pids = [int(line) for line in result.stdout.split()]
    assert result.timed_out
    assert (result.exit_code, result.signal) == (137, 9)
    assert len(pids) == 3
    for pid in pids:
        assert await ends(pid)


async def test_a_timeout_kills_daemons_and_an_ended_command_leaves_them(client: GuestClient) -> None:
    daemon = (
        "(setsid sh -c 'echo $$ > {0}; exec sleep 300' > /dev/null 2>&1 &); while ! test -s {0}; do sleep 0.05; done"
    )
    left = await client.exec(daemon.format("left.pid"), timeout_seconds=60)
    assert (left.exit_code, left.timed_out) == (0, False)
    killed = await client.exec(f"{daemon.format('killed.pid')}; sleep 300", timeout_seconds=3)
    assert killed.timed_out
    pids = [int((await client.exec(["cat", name])).stdout) for name in ("left.pid", "killed.pid")]
    assert await ends(pids[1])
    assert alive(pids[0])
    await client.exec(["kill", str(pids[0])])


async def test_timeout_of_a_command_that_never_stops_printing(client: GuestClient) -> None:
    result = await client.exec("yes", timeout_seconds=2)
    assert result.timed_out
    assert result.truncated


async def test_the_command_of_a_cancelled_call_is_killed(client: GuestClient) -> None:
    call = asyncio.create_task(client.exec("echo $$ > mine; exec sleep 600"))
    for _ in range(1200):
        if (info := await client.stat("mine")) and info.size:
            break
        await asyncio.sleep(0.02)
    pid = int(b"".join([part async for part in await client.read_file("mine")]))
    assert alive(pid)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await ends(pid)
    assert (await client.exec("echo on")).stdout == b"on\n"


async def test_a_background_process_survives_and_does_not_delay_the_answer(client: GuestClient) -> None:
    command = "(sleep 1; echo late; echo late; touch survived) & echo now"
    result = await client.exec(command, timeout_seconds=30)
    assert result.stdout == b"now\n"
    for _ in range(1200):
        if await client.stat("survived"):
            return
        await asyncio.sleep(0.05)
    pytest.fail("the process in the background did not survive its first print")


@pytest.mark.parametrize(
    ("command", "cwd", "code"),
    [
        (["no-such-program"], None, "command_not_found"),
        (["/etc/passwd"], None, "command_not_found"),
        (["true"], "no/such/folder", "file_not_found"),
        ([], None, "agent_refused"),
        ("", None, "agent_refused"),
        (["a\0b"], None, "agent_refused"),
    ],
)
async def test_commands_that_cannot_run_are_refused(
    client: GuestClient, command: str | list[str], cwd: str | None, code: str
) -> None:
    with pytest.raises(GuestError) as refusal:
        await client.exec(command, cwd=cwd)
    assert refusal.value.code == code
    assert refusal.value.hint


async def test_many_commands_at_once(client: GuestClient) -> None:
    results = await asyncio.gather(*(client.exec(f"echo {number}") for number in range(40)))
    assert [int(result.stdout) for result in results] == list(range(40))


async def test_the_user_cannot_reach_the_guest_agent(client: GuestClient, running_guest: RunningGuest) -> None:
    pid = running_guest.process.pid
    script = f"""
        kill -9 {pid} && echo killed
        cat /proc/{pid}/environ && echo environ
        cat /proc/{pid}/mem && echo mem
        ls /proc/{pid}/fd && echo descriptors
        ls {running_guest.socket.parent} && echo listed
        cat {running_guest.spool}/* && echo spool
        echo tried
    """
    assert (await client.exec(script)).stdout == b"tried\n"


async def test_a_launcher_that_is_stopped_or_killed_is_replaced(client: GuestClient) -> None:
    await client.start("survivor", "sleep 2; exit 5")
    for signal in ("STOP", "KILL"):
        # The command's parent is the launcher; it runs as the same user, so the command may signal it.
        hit = await client.exec(f"sleep 0.2; kill -{signal} $PPID; sleep 0.3; echo lived")
        assert hit.stdout == b"lived\n"
        assert (await client.exec("echo on")).stdout == b"on\n"
    info = await client.wait("survivor")
    assert info.exit_code == 5


async def test_a_launcher_that_is_signalled_before_it_answers_blocks_no_other_command(client: GuestClient) -> None:
    for signal in ("STOP", "KILL") * 10:
        try:
            assert (await client.exec(f"kill -{signal} $PPID; echo lived", timeout_seconds=5)).stdout == b"lived\n"
        except GuestError as error:
            assert "launcher" in error.message  # noqa: PT017 - either is right
        assert (await client.exec("echo on", timeout_seconds=5)).stdout == b"on\n"


async def test_commands_through_the_bridge(bridged: GuestClient) -> None:
    result = await bridged.exec(["cat"], stdin=b"across\n" * 50_000)
    assert result.stdout == b"across\n" * 50_000
    assert await bridged.process("nothing of that name") is None
