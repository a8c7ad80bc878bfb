"""What the intake's processes do: read bodies and write their rows, all that waited together in one transaction.

Reading hundreds of records is some ten milliseconds of pure Python. In a thread it would hold the interpreter's lock,
and so everybody's requests; here it holds up nobody. The rows go to PostgreSQL from where they are made.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sandbox.db.driver import OwnConnection
from sandbox.errors import Kind, SandboxError
from sandbox.records.otlp import messages
from sandbox.records.otlp.mapping import Mapped, map_logs, map_spans
from sandbox.records.otlp.messages import RecordKind
from sandbox.records.otlp.owner import Owner
from sandbox.telemetry.store import RecordStore, RowRefused

#: Niceness of the worker processes: those that answer requests come first.
NICE = 10


@dataclass(frozen=True, slots=True)
class Body:
    """The body of one request: what it holds, in which media type and encoding, and whose records they are."""

    what: RecordKind
    content: bytes
    media_type: str
    encoding: str
    owner: Owner | None
    #: With more it is refused whole.
    most_records: int | None = None


class TooManyRecords(SandboxError):
    """The body has more records than whoever sent it may send now."""

    code = "too_many_records"
    kind = Kind.TOO_MANY
    records = 0


@dataclass(frozen=True, slots=True)
class Kept:
    """How many records of a body are written, how many cannot be, and why the first of these."""

    written: int
    rejected: int
    reason: str


class Worker:
    """Reads bodies and writes their records through a connection of its own. Not thread-safe."""

    def __init__(self, dsn: str, max_body_bytes: int) -> None:
        connection = OwnConnection(dsn, application_name="purple8-sandbox intake")
        self._runner = asyncio.Runner()
        self._store = RecordStore(connection.transaction)
        self._max_body_bytes = max_body_bytes

    def write(self, bodies: Sequence[Body]) -> list[Kept | SandboxError]:
        """Write all bodies in one transaction; the outcome of each, in order."""
        return self._runner.run(_write(self._store, bodies, self._max_body_bytes))


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


def write_bodies(bodies: Sequence[Body]) -> list[Kept | SandboxError]:
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


async def _write(store: RecordStore, bodies: Sequence[Body], most_bytes: int) -> list[Kept | SandboxError]:
    read = [_read(body, most_bytes) for body in bodies]
    mapped = [(body.what, one) for body, one in zip(bodies, read, strict=True) if isinstance(one, Mapped)]
    logs = [row for what, one in mapped if what == "logs" for row in one.rows]
    spans = [row for what, one in mapped if what == "spans" for row in one.rows]
    try:
        await store.write(logs, spans)
    except RowRefused:
        # One of them holds what PostgreSQL will not take: each by itself, so that its sender is told.
        return [
            await _write_alone(store, body, one) if isinstance(one, Mapped) else one
            for body, one in zip(bodies, read, strict=True)
        ]
    except SandboxError as error:
        return [error if isinstance(one, Mapped) else one for one in read]
    return [_kept(one) if isinstance(one, Mapped) else one for one in read]


async def _write_alone(store: RecordStore, body: Body, mapped: Mapped) -> Kept | SandboxError:
    try:
        refusals = await store.write_acceptable(*((mapped.rows, ()) if body.what == "logs" else ((), mapped.rows)))
    except SandboxError as error:
        return error
    refused, kept = refusals.logs + refusals.spans, _kept(mapped)
    return replace(
        kept,
        written=kept.written - len(refused),
        rejected=kept.rejected + len(refused),
        reason=kept.reason or next(iter(refused), ""),
    )


def _kept(mapped: Mapped) -> Kept:
    return Kept(len(mapped.rows), mapped.rejected, mapped.reason)


def _read(body: Body, most_bytes: int) -> Mapped | SandboxError:
    try:
        unpacked = messages.unpack(body.content, body.encoding, most_bytes)
        if body.what == "logs":
            logs = messages.read(unpacked, body.media_type, ExportLogsServiceRequest)
            _check_count(body, (len(scope.log_records) for group in logs.resource_logs for scope in group.scope_logs))
            return map_logs(logs, body.owner)
        spans = messages.read(unpacked, body.media_type, ExportTraceServiceRequest)
        _check_count(body, (len(scope.spans) for group in spans.resource_spans for scope in group.scope_spans))
        return map_spans(spans, body.owner)
    except SandboxError as error:
        return error


def _check_count(body: Body, lengths: Iterable[int]) -> None:
    """Before they are mapped, which is most of the work."""
    if body.most_records is not None and (records := sum(lengths)) > body.most_records:
        error = TooManyRecords(f"{records} records are more than the {body.most_records} that may be sent now.")
        error.records = records
        raise error
