"""Tracing of the service: OpenTelemetry's SDK creates spans and the recorder stores them, without an exporter thread.

A launch may outlive the process that began it. Its trace and span ids are stored in its row (`new_ids`), and its span
and those of its stages are written at their end, by the process that ends them (`record_span`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Literal

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from sandbox.errors import Kind, SandboxError
from sandbox.telemetry import context
from sandbox.telemetry.metrics.collectors import observe_span
from sandbox.telemetry.recorder import Recorder
from sandbox.telemetry.rows import SpanRow, from_nanoseconds, span_event

SERVICE_NAME = "sandbox"
SpanStatus = Literal["success", "error", "timeout"]

_TIMEOUT: SpanStatus = "timeout"
_ERROR_TYPE = "error.type"
_KINDS = {"internal": SpanKind.INTERNAL, "server": SpanKind.SERVER, "client": SpanKind.CLIENT}


class Tracing:
    """Creates spans and passes finished ones to the recorder. Does not use the global tracer provider.

    Every span is recorded: the sampling flag of a client's `traceparent` concerns the client's own spans.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        provider = TracerProvider(
            sampler=ALWAYS_ON, resource=Resource({"service.name": SERVICE_NAME}), shutdown_on_exit=False
        )
        provider.add_span_processor(_ToRecorder(recorder))
        self._tracer = provider.get_tracer("sandbox")
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def span(
        self,
        name: str,
        *,
        attributes: Mapping[str, AttributeValue] | None = None,
        parent: Context | None = None,
        kind: Literal["internal", "server", "client"] = "internal",
    ) -> Iterator[Span]:
        """A span around the block, a child of `parent` or of the current span. An exception marks it as failed.

        Session and user of the log context become attributes, so that traces can be found by them.
        """
        bound = context.current()
        given = dict(attributes or {})
        if bound.session_id is not None:
            given.setdefault("session_id", bound.session_id)
        if bound.user_id is not None:
            given.setdefault("user_id", bound.user_id)
        span = self._tracer.start_span(name, context=parent, kind=_KINDS[kind], attributes=given)
        token = attach(trace.set_span_in_context(span))
        try:
            yield span
        except BaseException as error:
            span.record_exception(error)
            set_status(span, _TIMEOUT if _is_timeout(error) else "error", str(error))
            raise
        finally:
            detach(token)
            span.end()

    def record_span(
        self,
        name: str,
        *,
        trace_id: str,
        span_id: str,
        parent_span_id: str | None,
        start: datetime,
        end: datetime,
        status: SpanStatus,
        attributes: Mapping[str, Any] | None = None,
        events: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Record a span that several processes worked on. Only the first write of a span id is stored."""
        observe_span(name, (end - start).total_seconds(), status, attributes or {})
        self._recorder.add_span(
            SpanRow(
                trace_id=trace_id,
                span_id=span_id,
                parent_span_id=parent_span_id,
                operation_name=name,
                service_name=SERVICE_NAME,
                start_time=start,
                end_time=end,
                duration_ms=_milliseconds((end - start).total_seconds()),
                status=status,
                tags=dict(attributes or {}),
                logs=[dict(event) for event in events],
            )
        )

    def remote_context(self, traceparent: str) -> Context | None:
        """The context of a W3C `traceparent` header; None if the header is not valid."""
        extracted = self._propagator.extract({"traceparent": traceparent}, context=Context())
        return extracted if trace.get_current_span(extracted).get_span_context().is_valid else None


def new_ids() -> tuple[str, str]:
    """A new (trace_id, span_id): 32 and 16 lower-case hex digits."""
    generator = RandomIdGenerator()
    return trace.format_trace_id(generator.generate_trace_id()), trace.format_span_id(generator.generate_span_id())


def current_ids() -> tuple[str, str] | None:
    """(trace_id, span_id) of the current span; None outside any."""
    current = trace.get_current_span().get_span_context()
    if not current.is_valid:
        return None
    return trace.format_trace_id(current.trace_id), trace.format_span_id(current.span_id)


def set_status(span: Span, status: SpanStatus, description: str | None = None) -> None:
    """Set the status of a span. Without a call it is recorded as `success`."""
    if status == "success":
        span.set_status(Status(StatusCode.OK))
        return
    span.set_status(Status(StatusCode.ERROR, description))
    span.set_attribute(_ERROR_TYPE, status)


class _ToRecorder(SpanProcessor):
    """Passes each finished span to the recorder, which only queues it."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def on_end(self, span: ReadableSpan) -> None:
        seconds = ((span.end_time or 0) - (span.start_time or 0)) / 1e9
        observe_span(span.name, seconds, span.status.status_code.name, span.attributes or {})
        self._recorder.add_span(_to_row(span))


def _to_row(span: ReadableSpan) -> SpanRow:
    own = span.get_span_context()
    if own is None:
        raise ValueError("a finished span has no context")
    started, ended = span.start_time or 0, span.end_time or span.start_time or 0
    tags = {key: list(value) if isinstance(value, tuple) else value for key, value in (span.attributes or {}).items()}
    status: SpanStatus = "success"
    if span.status.status_code is StatusCode.ERROR:
        status = "timeout" if tags.get(_ERROR_TYPE) == _TIMEOUT else "error"
        if span.status.description:
            tags["error.message"] = span.status.description
    tags["span.kind"] = span.kind.name.lower()
    return SpanRow(
        trace_id=trace.format_trace_id(own.trace_id),
        span_id=trace.format_span_id(own.span_id),
        parent_span_id=trace.format_span_id(span.parent.span_id) if span.parent else None,
        operation_name=span.name,
        service_name=SERVICE_NAME,
        start_time=from_nanoseconds(started),
        end_time=from_nanoseconds(ended),
        duration_ms=_milliseconds((ended - started) / 1e9),
        status=status,
        tags=tags,
        logs=[
            span_event(event.name, from_nanoseconds(event.timestamp), event.attributes or {}) for event in span.events
        ],
    )


def _is_timeout(error: BaseException) -> bool:
    return isinstance(error, TimeoutError) or (isinstance(error, SandboxError) and error.kind is Kind.TIMEOUT)


def _milliseconds(seconds: float) -> int:
    return max(0, round(seconds * 1000))
