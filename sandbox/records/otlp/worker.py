"""The worker processes of the intake: they read bodies and write their records, a batch in one transaction.

To read hundreds of records takes some ten milliseconds of pure Python. A thread would hold the interpreter lock of the
service meanwhile; a process of its own delays no request. Rows go from here to PostgreSQL, not through the service.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sandbox.db.driver import OwnConnection
from sandbox.errors import Kind, SandboxError
from sandbox.records.otlp import messages
from sandbox.records.otlp.mapping import Mapped, map_logs, map_spans
from sandbox.records.otlp.messages import Decoded, RecordKind
from sandbox.records.otlp.outcome import TOO_MANY_RECORDS, Outcome, Refused, Stored
from sandbox.records.otlp.owner import Owner
from sandbox.records.otlp.redaction import redacted
from sandbox.telemetry.store import RecordStore, RowRefused

#: Niceness of the worker processes: those that answer requests come first.
NICE = 10


@dataclass(frozen=True, slots=True)
class Body:
    """The body of one export request as it arrived."""

    what: RecordKind
    content: bytes
    #: `messages.PROTOBUF` or `messages.JSON`.
    media_type: str
    #: The request's `Content-Encoding`.
    encoding: str
    owner: Owner | None
    #: A body with more records is refused.
    max_records: int | None = None
    #: Values that are taken out of the records, by name.
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)


class Worker:
    """Reads bodies and writes their records through a connection of its own. Not thread-safe."""

    def __init__(self, dsn: str, max_body_bytes: int) -> None:
        connection = OwnConnection(dsn, application_name="purple8-sandbox intake")
        self._runner = asyncio.Runner()
        self._store = RecordStore(connection.transaction)
        self._max_body_bytes = max_body_bytes

    def write(self, bodies: Sequence[Body]) -> list[Outcome]:
        """Write all bodies in one transaction; the outcome of each, in order."""
        return self._runner.run(self._write(bodies))

    async def _write(self, bodies: Sequence[Body]) -> list[Outcome]:
        read = [_read(body, self._max_body_bytes) for body in bodies]
        mapped = [(body.what, one) for body, one in zip(bodies, read, strict=True) if isinstance(one, Mapped)]
        logs = [row for what, one in mapped if what == "logs" for row in one.rows]
        spans = [row for what, one in mapped if what == "spans" for row in one.rows]
        try:
            await self._store.write(logs, spans)
        except RowRefused:
            # PostgreSQL refuses a row of one of the bodies. Written one by one, only the body that has it is affected.
            return [
                await self._write_acceptable(body, one) if isinstance(one, Mapped) else one
                for body, one in zip(bodies, read, strict=True)
            ]
        except SandboxError as error:
            refused = Refused.from_error(error)
            return [refused if isinstance(one, Mapped) else one for one in read]
        return [_stored(one) if isinstance(one, Mapped) else one for one in read]

    async def _write_acceptable(self, body: Body, mapped: Mapped) -> Outcome:
        try:
            refusals = await self._store.write_acceptable(
                *((mapped.rows, ()) if body.what == "logs" else ((), mapped.rows))
            )
        except SandboxError as error:
            return Refused.from_error(error)
        refused, stored = refusals.logs + refusals.spans, _stored(mapped)
        return replace(
            stored,
            written=stored.written - len(refused),
            rejected=stored.rejected + len(refused),
            reason=stored.reason or next(iter(refused), ""),
        )


_worker: Worker | None = None


def initialize(dsn: str, max_body_bytes: int) -> None:
    """Make this process a worker. The process pool calls it once in each of its processes.

    `max_body_bytes` bounds a body once it is decompressed.
    """
    global _worker  # noqa: PLW0603 - a process pool has no other way to hand an object to later calls
    os.nice(NICE)
    # On Ctrl-C the terminal signals all processes of its group, but the service is to end this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, name="parent watch", daemon=True).start()
    _worker = Worker(dsn, max_body_bytes)
    # Modules and classes stay: without this the garbage collector scans them again and again, some 10 ms each time.
    gc.freeze()


def ready() -> int:
    """The process id of a process that is initialized."""
    return os.getpid()


def write_bodies(bodies: Sequence[Body]) -> list[Outcome]:
    """`Worker.write` of this process's worker."""
    if _worker is None:
        raise RuntimeError("this process is not initialized as a worker")
    return _worker.write(bodies)


def _exit_with_parent() -> None:
    """End this process when the service ends. A worker of a killed service would wait for calls forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def _stored(mapped: Mapped) -> Stored:
    return Stored(len(mapped.rows), mapped.rejected, mapped.reason, sum(map(len, mapped.rows)))


def _read(body: Body, max_bytes: int) -> Mapped | Refused:
    """The rows of a body. Records are counted before they are mapped, which is most of the work."""
    try:
        unpacked = messages.unpack(body.content, body.encoding, max_bytes)
        if body.what == "logs":
            logs = messages.read(unpacked, body.media_type, ExportLogsServiceRequest)
            groups = logs.message.resource_logs
            count = logs.rejected + sum(len(scope.log_records) for group in groups for scope in group.scope_logs)
            return _too_many(body, count) or _complete(body, map_logs(logs.message, body.owner), logs)
        spans = messages.read(unpacked, body.media_type, ExportTraceServiceRequest)
        traces = spans.message.resource_spans
        count = spans.rejected + sum(len(scope.spans) for group in traces for scope in group.scope_spans)
        return _too_many(body, count) or _complete(body, map_spans(spans.message, body.owner), spans)
    except SandboxError as error:
        return Refused.from_error(error)


def _complete(body: Body, mapped: Mapped, decoded: Decoded[Any]) -> Mapped:
    """Add the records that could not be read, and take secrets out of the others."""
    mapped.rows = redacted(mapped.rows, body.secrets) if body.secrets else mapped.rows
    mapped.rejected += decoded.rejected
    mapped.reason = decoded.reason or mapped.reason
    return mapped


def _too_many(body: Body, records: int) -> Refused | None:
    if body.max_records is None or records <= body.max_records:
        return None
    message = f"{records} records are more than the {body.max_records} that may be sent now."
    return Refused(TOO_MANY_RECORDS, Kind.TOO_MANY, message, records=records)
