"""Create, list, commands and files of both SDKs, against the peer."""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from sandbox.client import AsyncSandbox, AuthenticationError, NotFoundError, Sandbox, SandboxError, StreamBroken


@pytest.fixture
async def sandbox(launched: Any) -> Any:
    found = await AsyncSandbox.connect(launched.session()["session_id"], config=launched.config)
    yield found
    await found.aclose()


async def test_create_uploads_the_folder_and_creates_a_session(launched: Any, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("print(1)")
    sandbox = await AsyncSandbox.create(tmp_path, env={"A": "1"}, config=launched.config)
    archive, body = launched.bodies
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert tar.getnames() == ["app.py"]
    _, path, headers = next(asked for asked in launched.asked if asked[0] == "PUT")
    project_id = path.rsplit("/", 1)[1]
    assert headers["content-type"] == "application/gzip"
    assert headers["authorization"] == "Bearer secret-token"
    assert json.loads(body) == {"project_id": project_id, "env": {"A": "1"}}
    assert sandbox.info.status == "ready"
    await sandbox.aclose()


async def test_a_retried_create_has_the_same_idempotency_key(launched: Any) -> None:
    sandbox = await AsyncSandbox.connect(launched.session()["session_id"], config=launched.config)
    await sandbox._transport.json(
        "POST", "/api/v1/sessions", body={}, headers={"Idempotency-Key": "k"}, repeatable=True
    )
    launched.refuse = [503, 503]
    await sandbox._transport.json(
        "POST", "/api/v1/sessions", body={}, headers={"Idempotency-Key": "k"}, repeatable=True
    )
    assert launched.keys == ["k", "k"]
    assert [path for method, path, _ in launched.asked if method == "POST"] == ["/api/v1/sessions"] * 4
    await sandbox.aclose()


async def test_list_reads_all_pages(launched: Any) -> None:
    launched.others = [{**launched.session(), "session_id": "another"}]
    found = await AsyncSandbox.list(config=launched.config)
    assert [info.session_id for info in found] == [launched.session()["session_id"], "another"]
    assert len(await AsyncSandbox.list(limit=1, config=launched.config)) == 1


async def test_a_command_that_fails_is_a_result(sandbox: AsyncSandbox, launched: Any) -> None:
    result = await sandbox.commands.run(["ls", "-l"], cwd="/tmp", timeout=5)
    assert (result.exit_code, result.stdout, result.stderr, result.truncated, result.ok) == (3, "o", "e", True, False)
    assert json.loads(launched.bodies[-1]) == {"command": ["ls", "-l"], "cwd": "/tmp", "timeout_seconds": 5}


async def test_output_is_passed_on_while_it_arrives(sandbox: AsyncSandbox, launched: Any) -> None:
    launched.exec_events = [
        ("start", {"seq": 1}),
        ("stdout", {"seq": 2, "data": "a\n"}),
        ("stderr", {"seq": 3, "data": "b"}),
        ("stdout", {"seq": 4, "data": "c"}),
        ("exit", {"seq": 5, "exit_code": 7, "duration_ms": 3}),
    ]
    printed: list[str] = []
    result = await sandbox.commands.run("x", on_stdout=printed.append)
    assert printed == ["a\n", "c"]
    assert (result.exit_code, result.stdout, result.stderr) == (7, "a\nc", "b")


async def test_a_stream_without_an_exit_event_is_an_error(sandbox: AsyncSandbox, launched: Any) -> None:
    launched.exec_events = [("start", {"seq": 1}), ("stdout", {"seq": 2, "data": "a"})]
    with pytest.raises(StreamBroken):
        await sandbox.commands.run("x", on_stdout=lambda text: None)


async def test_the_error_for_a_command_that_cannot_run_has_the_cause(sandbox: AsyncSandbox, launched: Any) -> None:
    failed = {"exit_code": None, "timed_out": False, "code": "agent_unreachable", "message": "the agent is gone"}
    launched.exec_events = [("exit", {"seq": 1, **failed})]
    with pytest.raises(SandboxError, match="the agent is gone") as error:
        await sandbox.commands.run("x", on_stderr=lambda text: None)
    assert error.value.code == "agent_unreachable"


async def test_a_terminal_goes_on_after_a_lost_connection(sandbox: AsyncSandbox, launched: Any) -> None:
    async with sandbox.terminal(columns=90, rows=20) as terminal:
        await terminal.send(b"ab")
        await terminal.send(b"x")
        shown = b""
        async for data in terminal:
            shown += data
            if shown.count(b"[90x20]") == 2 and not shown.endswith(b"Q"):
                await terminal.send(b"q")
    assert shown == b"[90x20]ABX[90x20]Q"
    (name, start), (same_name, again) = launched.terminals
    assert name == same_name
    assert (start, again) == (0, len(b"[90x20]ABX"))


async def test_a_folder_is_downloaded(sandbox: AsyncSandbox) -> None:
    target = io.BytesIO()
    assert await sandbox.files.download(target, exclude={"b", "a"}) == len(b"without a b")
    assert target.getvalue() == b"without a b"
    with pytest.raises(NotFoundError) as missing:
        await sandbox.files.download(target, "none", exclude={"a"})
    assert missing.value.code == "file_not_found"


async def test_files(sandbox: AsyncSandbox) -> None:
    await sandbox.files.write("a.json", '{"é": 1}')
    await sandbox.files.write("b", b"\x00\xff")
    assert await sandbox.files.read("a.json") == '{"é": 1}'
    assert await sandbox.files.read("b", format="bytes") == b"\x00\xff"
    assert [(entry.path, entry.size) for entry in await sandbox.files.list()] == [("a.json", 9), ("b", 2)]
    with pytest.raises(SandboxError, match="is a file"):
        await sandbox.files.list("b")
    with pytest.raises(SandboxError, match="is a folder"):
        await sandbox.files.read(".")
    await sandbox.files.remove("b")
    with pytest.raises(NotFoundError) as missing:
        await sandbox.files.read("b")
    assert (missing.value.code, missing.value.hint, missing.value.request_id) == ("file_not_found", "look", "rq")


async def test_logs_end_without_follow(sandbox: AsyncSandbox) -> None:
    assert [line.line async for line in sandbox.logs()] == ["line 1", "line 2"]


async def test_refusals_have_distinct_errors(sandbox: AsyncSandbox, launched: Any) -> None:
    launched.refuse = [403]
    with pytest.raises(AuthenticationError) as refused:
        await sandbox.refresh()
    assert refused.value.status == 403
    launched.refuse = [500]
    with pytest.raises(SandboxError, match="not now"):
        await sandbox.refresh()


async def test_the_host_of_a_port(sandbox: AsyncSandbox, launched: Any) -> None:
    assert sandbox.get_host(3000) == f"3000-{sandbox.session_id}.preview.localhost:{launched.port}"


async def test_a_context_manager_terminates_the_session(launched: Any) -> None:
    async with await AsyncSandbox.connect(launched.session()["session_id"], config=launched.config):
        assert launched.status == "ready"
    assert launched.status == "terminated"


def _use_it(peer: Any) -> list[int]:
    with Sandbox.create(project_id="p", config=peer.config) as sandbox:
        assert sandbox.info.status == "ready"
        assert sandbox.commands.run("true").exit_code == 3
        sandbox.files.write("x", b"1")
        assert sandbox.files.read("x", format="bytes") == b"1"
        assert [line.line for line in sandbox.logs()] == ["line 1", "line 2"]
        with pytest.raises(NotFoundError):
            sandbox.files.read("nothing")
        events = sandbox.events()
        assert next(events).seq == 1
        events.close()  # Closing it early ends the background task, and the sandbox can still be used.
        return [event.seq for event in sandbox.events()]


async def test_the_synchronous_sdk(launched: Any) -> None:
    assert await asyncio.to_thread(_use_it, launched) == list(range(1, 15))
    assert launched.status == "terminated"
