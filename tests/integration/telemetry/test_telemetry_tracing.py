"""Spans as rows: what they are mapped to, and a launch's trace that goes on in another process."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from sandbox.errors import Kind, SandboxError
from sandbox.telemetry import context
from sandbox.telemetry.recorder import Recorder
from sandbox.telemetry.tracing import Tracing, child_context, new_ids, set_status


async def test_launch_trace_goes_on_after_a_restart(database, records):
    trace_id, span_id = new_ids()
    started = datetime.now(UTC)
    for stages in (("plan", "network"), ("containers", "workspace")):  # one process, then the next
        recorder = Recorder(database)
        recorder.start()
        tracing = Tracing(recorder)
        for stage in stages:
            parent = child_context(trace_id, span_id)
            with (
                context.bind(session_id="s-9"),
                tracing.span(f"launch.stage.{stage}", parent=parent, attributes={"stage": stage}),
                tracing.span("engine.call"),
            ):
                pass
        await recorder.close()
    recorder = Recorder(database)
    recorder.start()
    for _ in range(2):  # a process killed after this write writes it again when it is back
        Tracing(recorder).record_span(
            "launch",
            trace_id=trace_id,
            span_id=span_id,
            parent_span_id="12" * 8,
            start=started,
            end=started + timedelta(seconds=2.5),
            status="error",
            attributes={"session_id": "s-9"},
            events=[{"name": "failed", "code": "port_not_opened"}],
        )
        await recorder.flush()
    await recorder.close()
    spans = await records.spans()
    assert {span.trace_id for span in spans} == {trace_id}
    (launch,) = [span for span in spans if span.operation_name == "launch"]
    assert (launch.span_id, launch.parent_span_id, launch.status) == (span_id, "12" * 8, "error")
    assert (launch.start_time, launch.duration_ms) == (started, 2500)
    assert launch.logs == [{"name": "failed", "code": "port_not_opened"}]
    stages = [span for span in spans if span.parent_span_id == span_id]
    assert [span.tags["stage"] for span in stages] == ["plan", "network", "containers", "workspace"]
    assert all(span.tags["session_id"] == "s-9" for span in stages)
    inner = [span for span in spans if span.operation_name == "engine.call"]
    assert [span.parent_span_id for span in inner] == [span.span_id for span in stages]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("wrong"), "error"),
        (TimeoutError("slow"), "timeout"),
        (SandboxError("slow", kind=Kind.TIMEOUT), "timeout"),
        (asyncio.CancelledError(), "error"),
    ],
)
async def test_exception_is_the_status_and_an_event(recorder, records, error, status):
    with pytest.raises(type(error)), Tracing(recorder).span("work"):
        raise error
    assert await recorder.flush()
    (span,) = await records.spans()
    assert span.status == status
    assert span.logs[0]["event"] == "exception"
    assert span.logs[0]["attributes"]["exception.message"] == str(error)


async def test_status_can_be_set_without_an_exception(recorder, records):
    with Tracing(recorder).span("work", attributes={"list": ["a", "b"], "flag": True}) as span:
        span.add_event("half way", {"percent": 50})
        set_status(span, "timeout", "took too long")
    assert await recorder.flush()
    (kept,) = await records.spans()
    assert kept.status == "timeout"
    assert kept.tags["error.message"] == "took too long"
    assert kept.tags["list"] == ["a", "b"]
    assert kept.tags["flag"] is True
    assert kept.logs[0]["event"] == "half way"
    assert kept.logs[0]["attributes"] == {"percent": 50}
    assert datetime.fromisoformat(kept.logs[0]["timestamp"]).tzinfo is not None


@pytest.mark.parametrize("ids", [("x" * 32, "1" * 16), ("1" * 31, "1" * 16), ("A" * 32, "1" * 16), ("1" * 32, "")])
def test_ids_that_are_none_are_refused(ids):
    with pytest.raises(ValueError, match="hex digits"):
        child_context(*ids)


def test_new_ids_are_what_child_context_takes():
    trace_id, span_id = new_ids()
    assert (len(trace_id), len(span_id)) == (32, 16)
    assert (trace_id, span_id) != new_ids()
    child_context(trace_id, span_id)
