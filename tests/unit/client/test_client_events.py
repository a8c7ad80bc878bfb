"""The event stream resumes without a gap or a duplicate after broken connections and restarts of the service."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from sandbox.client import AsyncSandbox, ConnectionFailed, LaunchEvent, LaunchFailed
from sandbox.client.models import SessionInfo
from sandbox.client.transport import Transport


async def _connected(peer: Any) -> AsyncSandbox:
    return await AsyncSandbox.connect(peer.session()["session_id"], config=peer.config)


async def test_every_event_of_a_launch_is_received_once(launched: Any) -> None:
    sandbox = await _connected(launched)
    seen = [event.seq async for event in sandbox.events()]
    assert seen == list(range(1, 15))
    await sandbox.aclose()


async def test_events_after_a_seq(launched: Any) -> None:
    sandbox = await _connected(launched)
    assert [event.seq async for event in sandbox.events(after=12)] == [13, 14]
    await sandbox.aclose()


async def test_broken_connections_cause_no_gap_and_no_duplicate(launched: Any) -> None:
    launched.cuts = [3, 0, 1, 4]
    sandbox = await _connected(launched)
    assert [event.seq async for event in sandbox.events()] == list(range(1, 15))
    resumed = [h.get("last-event-id") for _, path, h in launched.asked if path.endswith("/events")]
    assert resumed == [None, "3", "3", "4", "8", "14"]
    await sandbox.aclose()


async def test_temporary_errors_of_a_proxy_are_retried(launched: Any) -> None:
    sandbox = await _connected(launched)
    launched.refuse = [502, 503, 504]
    assert len([event async for event in sandbox.events()]) == 14
    await sandbox.aclose()


async def test_the_stream_resumes_after_a_restart_of_the_service(peer: Any) -> None:
    peer.add("stage", stage="plan", state="started", index=1, total=4)
    peer.add("stage", stage="plan", state="completed", index=1, total=4, duration_ms=3)
    sandbox = await _connected(peer)
    seen: list[int] = []

    async def restart() -> None:
        await peer.stop()
        peer.add("status", status="ready", previous="creating")
        peer.add("end", status="ready")
        peer.status = "ready"
        await asyncio.sleep(0.3)
        await peer.start()

    restarting: asyncio.Task[None] | None = None
    async with aclosing(sandbox.events()) as events:
        async for event in events:
            seen.append(event.seq)
            if event.seq == 2:
                restarting = asyncio.create_task(restart())
    assert restarting is not None
    await restarting
    assert seen == [1, 2, 3, 4]
    await sandbox.aclose()


async def test_a_service_that_does_not_come_back_is_an_error(peer: Any) -> None:
    transport = Transport(peer.config, retry_seconds=0.3)
    sandbox = AsyncSandbox(transport, SessionInfo.from_json(peer.session()))
    await sandbox.refresh()
    await peer.stop()
    with pytest.raises(ConnectionFailed) as failed:
        async for _ in sandbox.events():
            pass
    assert "sandbox up" in failed.value.hint
    await sandbox.aclose()


async def test_a_service_that_never_answered_is_an_error_at_once(peer: Any) -> None:
    await peer.stop()
    with pytest.raises(ConnectionFailed):
        await AsyncSandbox.connect("x", config=peer.config)


async def test_wait_returns_when_the_session_runs_and_passes_on_each_event(launched: Any) -> None:
    sandbox = await _connected(launched)
    events: list[LaunchEvent] = []
    info = await sandbox.wait(on_event=events.append)
    assert info.status == "ready"
    assert [e.seq for e in events] == list(range(1, 15))
    await sandbox.aclose()


async def test_a_failed_launch_has_the_cause_and_the_output_of_its_stage(peer: Any) -> None:
    peer.add("stage", stage="plan", state="completed", index=1, total=8, duration_ms=3)
    peer.add("log", stage="plan", role="main", stream="stdout", line="not this")
    for number in range(50):
        peer.add("log", stage="dependencies", role="main", stream="stderr", line=f"npm ERR {number}")
    peer.add("problem", code="dependency_install_failed", message="npm ended with 1", hint="fix", stage="dependencies")
    peer.add("end", status="error")
    peer.status = "error"
    peer.error = {
        "code": "dependency_install_failed",
        "message": "npm ended with 1",
        "hint": "fix it",
        "stage": "dependencies",
    }
    sandbox = await _connected(peer)
    with pytest.raises(LaunchFailed) as failed:
        await sandbox.wait()
    error = failed.value
    assert (error.code, error.message, error.hint, error.stage) == (
        "dependency_install_failed",
        "npm ended with 1",
        "fix it",
        "dependencies",
    )
    assert error.log_tail == [f"npm ERR {number}" for number in range(20, 50)]
    assert error.session_id == sandbox.session_id
    await sandbox.aclose()
