"""Spans as rows, including those of a launch that several processes worked on."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sandbox.errors import Kind, SandboxError
from sandbox.telemetry.recorder import Recorder
from sandbox.telemetry.tracing import Tracing, new_ids, set_status


async def test_a_trace_is_written_by_several_processes(database, records):
    trace_id, span_id = new_ids()
    started = datetime.now(UTC)

    async def write(name: str, own: str, parent: str, status: Any = "success", **more) -> None:
        """As another process would write them."""
        recorder = Recorder(database)
        recorder.start()
        ended = started + timedelta(seconds=2.5)
        Tracing(recorder).record_span(
            name,
            trace_id=trace_id,
            span_id=own,
            parent_span_id=parent,
            start=started,
            end=ended,
            status=status,
            **more,
        )
        await recorder.close()

    for stage in ("plan", "network"):
        await write(f"launch.{stage}", new_ids()[1], span_id, attributes={"stage": stage})
    for _ in range(2):  # a process that is killed after the write repeats it
        await write(
            "launch",
            span_id,
            "12" * 8,
            "error",
            attributes={"session_id": "s-9"},
            events=[{"name": "failed", "code": "port_not_opened"}],
        )
    spans = await records.spans()
    assert {span.trace_id for span in spans} == {trace_id}
    (launch,) = [span for span in spans if span.operation_name == "launch"]
    assert (launch.span_id, launch.parent_span_id, launch.status) == (span_id, "12" * 8, "error")
    assert (launch.start_time, launch.duration_ms) == (started, 2500)
    assert launch.tags["session_id"] == "s-9"
    assert launch.logs == [{"name": "failed", "code": "port_not_opened"}]
    stages = [span for span in spans if span.parent_span_id == span_id]
    assert {span.tags["stage"] for span in stages} == {"plan", "network"}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("wrong"), "error"),
        (TimeoutError("slow"), "timeout"),
        (SandboxError("slow", kind=Kind.TIMEOUT), "timeout"),
        (asyncio.CancelledError(), "error"),
    ],
)
async def test_an_exception_sets_the_status_and_is_an_event(recorder, records, error, status):
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
    (stored,) = await records.spans()
    assert stored.status == "timeout"
    assert stored.tags["error.message"] == "took too long"
    assert stored.tags["list"] == ["a", "b"]
    assert stored.tags["flag"] is True
    assert stored.logs[0]["event"] == "half way"
    assert stored.logs[0]["attributes"] == {"percent": 50}
    assert datetime.fromisoformat(stored.logs[0]["timestamp"]).tzinfo is not None


def test_new_ids_have_the_format_of_opentelemetry():
    trace_id, span_id = new_ids()
    assert (len(bytes.fromhex(trace_id)), len(bytes.fromhex(span_id))) == (16, 8)
    assert (trace_id, span_id) != new_ids()
