"""The command line, as a process of its own, against the peer."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import struct
import sys
import termios
from pathlib import Path
from typing import Any

import pytest

from tests.unit.command_line import CommandLine, Done

EXEC_EVENTS = [
    ("start", {"seq": 1}),
    ("stdout", {"seq": 2, "data": "out\n"}),
    ("stderr", {"seq": 3, "data": "err\n"}),
    ("exit", {"seq": 4, "exit_code": 7, "duration_ms": 3}),
]


def _env(peer: Any) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "SANDBOX_URL": peer.config.base_url, "TERM": "xterm"}


class Sandbox:
    """Runs the command line against the peer, off the event loop on which the peer runs."""

    def __init__(self, command_line: CommandLine) -> None:
        self._command_line = command_line

    async def __call__(
        self, peer: Any, *arguments: str, stdin: bytes | None = None, token: str = "secret-token"
    ) -> Done:
        env = {**_env(peer), "SANDBOX_TOKEN": token}
        done = await asyncio.to_thread(self._command_line.run, *arguments, env=env, stdin=stdin)
        assert "Traceback" not in done.err, done.err
        return done


@pytest.fixture
def sandbox(command_line: CommandLine) -> Sandbox:
    return Sandbox(command_line)


@pytest.fixture
def session_id(launched: Any) -> str:
    return str(launched.session()["session_id"])


async def test_create_prints_the_preview(sandbox: Sandbox, launched: Any, session_id: str, tmp_path: Any) -> None:
    (tmp_path / "index.html").write_text("hello")
    done = await sandbox(launched, "create", str(tmp_path), "--env", "A=1")
    assert done.code == 0
    assert session_id in done.out
    assert "http://x.preview.localhost/?t=1" in done.out
    assert "[4/4] workspace completed (5 ms)" in done.err
    assert json.loads(launched.bodies[-1])["env"] == {"A": "1"}


async def test_create_with_json_prints_only_the_session(sandbox: Sandbox, launched: Any) -> None:
    done = await sandbox(launched, "create", "--runtime", "node20", "--json")
    assert done.code == 0
    assert json.loads(done.out) == launched.session()
    assert done.err == ""
    assert json.loads(launched.bodies[-1]) == {"runtime_type": "node20"}


async def test_a_failed_launch_gives_code_1_and_its_cause(sandbox: Sandbox, peer: Any) -> None:
    peer.add("log", stage="dependencies", role="main", stream="stderr", line="npm ERR! 404 left-pad")
    peer.add("end", status="error")
    peer.status = "error"
    peer.error = {
        "code": "dependency_install_failed",
        "message": "npm failed",
        "hint": "Fix it.",
        "stage": "dependencies",
    }
    done = await sandbox(peer, "create", "-p", "p")
    assert done.code == 1
    for words in ("at dependencies: npm failed", "npm ERR! 404 left-pad", "hint: Fix it.", "sandbox relaunch 3f2a"):
        assert words in done.err
    done = await sandbox(peer, "create", "-p", "p", "--json")
    assert done.code == 1
    assert json.loads(done.err)["code"] == "dependency_install_failed"


async def test_list(sandbox: Sandbox, launched: Any, session_id: str) -> None:
    done = await sandbox(launched, "list", "--limit", "1", "--json")
    assert json.loads(done.out) == {"items": [launched.session()]}
    done = await sandbox(launched, "list", "--limit", "1")
    assert session_id[:8] in done.out


async def test_exec_streams_output_and_exits_with_the_commands_code(
    sandbox: Sandbox, launched: Any, session_id: str
) -> None:
    launched.exec_events = EXEC_EVENTS
    done = await sandbox(launched, "exec", session_id, "--role", "web", "--", "ls", "-la", "--json")
    assert (done.code, done.out, done.err) == (7, "out\n", "err\n")
    asked = json.loads(launched.bodies[-1])
    assert (asked["command"], asked["role"], "stdin" in asked) == (["ls", "-la", "--json"], "web", False)


async def test_exec_passes_piped_input_on_and_runs_a_single_word_by_the_shell(
    sandbox: Sandbox, launched: Any, session_id: str
) -> None:
    launched.exec_events = EXEC_EVENTS
    await sandbox(launched, "exec", session_id, "cat | wc -c", stdin="tée\n".encode())
    asked = json.loads(launched.bodies[-1])
    assert (asked["command"], asked["stdin"]) == ("cat | wc -c", "tée\n")
    done = await sandbox(launched, "exec", session_id, "cat", stdin=b"\xff\xfe")
    assert (done.code, "UTF-8" in done.err) == (1, True)


async def test_exec_with_json(sandbox: Sandbox, launched: Any, session_id: str) -> None:
    done = await sandbox(launched, "exec", "--json", session_id, "x")
    assert done.code == 3
    assert json.loads(done.out)["stdout"] == "o"


async def test_logs_and_watch(sandbox: Sandbox, launched: Any, session_id: str) -> None:
    done = await sandbox(launched, "logs", session_id)
    assert done.out == "main │ line 1\nmain │ line 2\n"
    done = await sandbox(launched, "watch", session_id, "--json")
    events = [json.loads(line) for line in done.out.splitlines()]
    assert [event["seq"] for event in events] == list(range(1, 15))
    assert events[-1]["type"] == "end"


async def test_open_and_kill(sandbox: Sandbox, launched: Any, session_id: str) -> None:
    done = await sandbox(launched, "open", "--print", session_id)
    assert done.out == "http://x.preview.localhost/?t=1\n"
    done = await sandbox(launched, "kill", session_id, "--json")
    assert json.loads(done.out) == {"terminated": [session_id]}
    assert launched.status == "terminated"


async def test_a_session_is_found_by_the_beginning_of_its_id(sandbox: Sandbox, launched: Any, session_id: str) -> None:
    assert (await sandbox(launched, "open", "--print", "3f2a")).code == 0
    assert (await sandbox(launched, "open", "--print", "ffff")).code == 3
    launched.others = [{**launched.session(), "session_id": "3f2b0000-0000-4000-8000-000000000001"}]
    ambiguous = await sandbox(launched, "open", "--print", "3f2")
    assert ambiguous.code == 2
    assert "3f2b0000" in ambiguous.err
    assert (await sandbox(launched, "open", "--print", "3f2a")).code == 0


async def test_an_unknown_token_gives_code_4(sandbox: Sandbox, launched: Any) -> None:
    launched.refuse = [401]
    done = await sandbox(launched, "list")
    assert done.code == 4
    assert "SANDBOX_TOKEN" in done.err


async def test_download_writes_the_archive_or_nothing(
    sandbox: Sandbox, launched: Any, session_id: str, tmp_path: Path
) -> None:
    target = tmp_path / "work.tar.gz"
    done = await sandbox(launched, "download", session_id, str(target))
    assert done.code == 0
    assert b"node_modules" in target.read_bytes()
    done = await sandbox(launched, "download", session_id, str(tmp_path / "other"), "--path", "none")
    assert done.code == 3
    assert [file.name for file in tmp_path.iterdir()] == ["work.tar.gz"]


async def test_a_shell_needs_a_terminal(sandbox: Sandbox, launched: Any, session_id: str) -> None:
    done = await sandbox(launched, "shell", session_id)
    assert done.code == 1
    assert "sandbox exec" in done.err


async def test_shell_passes_on_input_and_size_and_restores_the_terminal(launched: Any, session_id: str) -> None:
    outer, inner = pty.openpty()
    try:
        _resize(outer, 100, 30)
        before = termios.tcgetattr(inner)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "sandbox.cli.main",
            "shell",
            session_id,
            stdin=inner,
            stdout=inner,
            stderr=inner,
            env={**_env(launched), "SANDBOX_TOKEN": "secret-token"},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        seen = await _read_until(outer, b"[100x30]")
        _resize(outer, 120, 40)
        seen = await _read_until(outer, b"[120x40]")
        os.write(outer, b"abc\x03")  # Ctrl-C is passed on like any other key.
        seen = await _read_until(outer, b"ABC\x03")
        os.write(outer, b"q")
        assert await process.wait() == 0, seen
        assert termios.tcgetattr(inner) == before
    finally:
        os.close(outer)
        os.close(inner)


def _resize(terminal: int, columns: int, rows: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


async def _read_until(terminal: int, wanted: bytes) -> bytes:
    seen = b""
    async with asyncio.timeout(60):
        while wanted not in seen:
            seen += await asyncio.to_thread(os.read, terminal, 4096)
    return seen
