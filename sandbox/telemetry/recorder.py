"""Records logs and spans: accepts them from any thread at once, and writes them to PostgreSQL in batches in one task.

While PostgreSQL is down, rows wait in memory, up to a number of rows and bytes. Rows beyond that are dropped, counted
and reported in the log. A batch whose acknowledgement is lost is written again; in that case a log line may be stored
twice, a span is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import islice

from sandbox.db.connection import Database
from sandbox.telemetry.rows import LogRow, SpanRow
from sandbox.telemetry.store import RecordStore

logger = logging.getLogger(__name__)

#: True in the task that writes: log records from it must not be recorded, or writing would never end.
writing: ContextVar[bool] = ContextVar("sandbox_recorder_writing", default=False)

_FIRST_BACKOFF_SECONDS = 0.2
_MAX_BACKOFF_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Dropped:
    """Rows lost since the start, because memory was full or because PostgreSQL refused them."""

    logs: int
    spans: int

    def __bool__(self) -> bool:
        return bool(self.logs or self.spans)


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of rows of one kind since the start; `waiting` is the current number."""

    waiting: int
    written: int
    dropped: int


class _Queue:
    """A bounded queue of rows, oldest first. Not thread-safe: its owner locks it."""

    def __init__(self, max_rows: int, max_bytes: int) -> None:
        self._rows: deque[bytes] = deque()
        self._max_rows = max_rows
        self._free_bytes = max_bytes
        #: Rows added and rows removed since the start; rows dropped, of which PostgreSQL refused some.
        self.added = self.removed = self.dropped = self.refused = 0

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, line: bytes) -> bool:
        if len(self._rows) >= self._max_rows or len(line) > self._free_bytes:
            self.dropped += 1
            return False
        self._free_bytes -= len(line)
        self._rows.append(line)
        self.added += 1
        return True

    def head(self, count: int) -> list[bytes]:
        return list(islice(self._rows, count))

    def remove_head(self, count: int) -> None:
        for _ in range(count):
            self._free_bytes += len(self._rows.popleft())
        self.removed += count


class Recorder:
    """Accepts rows from any thread, at any time. Call `start` in the event loop that is to write them."""

    def __init__(
        self,
        db: Database,
        *,
        max_rows: int = 20_000,
        max_bytes: int = 64 * 1024 * 1024,
        batch_rows: int = 500,
        interval_seconds: float = 0.2,
    ) -> None:
        """`max_rows` and `max_bytes` bound the queue of logs and that of spans.

        A batch is written when it has `batch_rows` rows, or `interval_seconds` after its first row.
        """
        self._store = RecordStore(db.driver_transaction)
        self._batch_rows = batch_rows
        self._interval = interval_seconds
        self._lock = threading.Lock()
        self._logs: _Queue = _Queue(max_rows, max_bytes)
        self._spans: _Queue = _Queue(max_rows, max_bytes)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        #: Set when there are rows to write, when they are to be written at once, and to end the pause before a retry.
        self._pending, self._urgent, self._retry = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._progress = asyncio.Condition()
        #: Whether the two events were signalled for the current batch.
        self._pending_signalled = self._urgent_signalled = False
        self._database_down = False
        self._reported = Dropped(0, 0)

    def add_log(self, row: LogRow) -> None:
        """Queue a log line. Never blocks and never raises; the line is dropped and counted if the queue is full."""
        # Encoded here, one by one: to encode a whole batch would block the event loop for milliseconds.
        line = row.line()
        with self._lock:
            self._add(self._logs, line)

    def add_span(self, row: SpanRow) -> None:
        """Queue a finished span, in the same way."""
        line = row.line()
        with self._lock:
            self._add(self._spans, line)

    @property
    def dropped(self) -> Dropped:
        """Rows lost so far."""
        return Dropped(self._logs.dropped, self._spans.dropped)

    @property
    def counts(self) -> dict[str, Counts]:
        """Counts of logs and of spans."""
        queues = {"logs": self._logs, "spans": self._spans}
        return {
            # Rows that PostgreSQL refused were removed without being written.
            kind: Counts(len(queue), queue.removed - queue.refused, queue.dropped)
            for kind, queue in queues.items()
        }

    @property
    def waiting(self) -> int:
        """Rows queued and not yet written."""
        return len(self._logs) + len(self._spans)

    def start(self) -> None:
        """Start writing, in the running event loop. Rows that were added before are written too."""
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._run(), name="telemetry recorder")
        self._pending.set()

    async def flush(self, timeout_seconds: float = 10.0) -> bool:
        """Wait until the rows added before this call are written; False after the timeout (they stay queued)."""
        logs, spans = self._logs.added, self._spans.added
        try:
            async with asyncio.timeout(timeout_seconds), self._progress:
                while self._logs.removed < logs or self._spans.removed < spans:
                    for event in (self._pending, self._urgent, self._retry):
                        event.set()
                    await self._progress.wait()
        except TimeoutError:
            return False
        return True

    async def close(self, timeout_seconds: float = 5.0) -> None:
        """Write the queued rows, within the timeout, and stop. Rows left over or added later count as dropped."""
        if self._task is None:
            return
        await self.flush(timeout_seconds)
        with self._lock:
            self._closed = True
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._task = None
        with self._lock:
            self._logs.dropped += len(self._logs)
            self._spans.dropped += len(self._spans)
        self._report_dropped()

    def _add(self, queue: _Queue, line: bytes) -> None:
        if self._closed:
            queue.dropped += 1
            return
        if not queue.add(line) or self._loop is None:
            return
        # The loop is woken for the first row of a batch and when the batch is full, not for each row.
        if not self._pending_signalled:
            self._pending_signalled = True
            self._signal(self._pending)
        if not self._urgent_signalled and len(queue) >= self._batch_rows:
            self._urgent_signalled = True
            self._signal(self._urgent)

    def _signal(self, event: asyncio.Event) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(event.set)

    async def _run(self) -> None:
        writing.set(True)
        while True:
            await self._pending.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._urgent.wait()
            self._pending.clear()
            self._urgent.clear()
            with self._lock:
                self._pending_signalled = self._urgent_signalled = False
            await self._write_batches()
            if self.waiting:
                self._pending.set()

    async def _write_batches(self) -> None:
        """Write one batch, and further ones while full batches are queued."""
        backoff = _FIRST_BACKOFF_SECONDS
        while self.waiting:
            with self._lock:
                logs, spans = self._logs.head(self._batch_rows), self._spans.head(self._batch_rows)
            try:
                await self._write(logs, spans)
            except Exception as error:  # noqa: BLE001 - after any failure the rows stay queued and are tried again
                self._report_down(error)
                self._retry.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(backoff):
                        await self._retry.wait()
                backoff = min(backoff * 2, _MAX_BACKOFF_SECONDS)
                continue
            backoff = _FIRST_BACKOFF_SECONDS
            with self._lock:
                self._logs.remove_head(len(logs))
                self._spans.remove_head(len(spans))
            self._report_recovered()
            async with self._progress:
                self._progress.notify_all()
            if max(len(self._logs), len(self._spans)) < self._batch_rows:
                return

    async def _write(self, logs: Sequence[bytes], spans: Sequence[bytes]) -> None:
        """Write all rows except those that PostgreSQL refuses, which are dropped and counted."""
        refusals = await self._store.write_acceptable(logs, spans)
        for queue, what, reasons in (
            (self._logs, "log line", refusals.logs),
            (self._spans, "span", refusals.spans),
        ):
            queue.dropped += len(reasons)
            queue.refused += len(reasons)
            for reason in reasons:
                with _recorded():
                    logger.warning("a %s could not be recorded: %s", what, reason)

    def _report_down(self, error: Exception) -> None:
        if not self._database_down:
            self._database_down = True
            with _recorded():
                logger.warning("logs and spans cannot be written and wait in memory: %s", error)

    def _report_recovered(self) -> None:
        if self._database_down:
            self._database_down = False
            with _recorded():
                logger.info("logs and spans are written again")
        self._report_dropped()

    def _report_dropped(self) -> None:
        dropped = self.dropped
        if dropped != self._reported:
            logs, spans = dropped.logs - self._reported.logs, dropped.spans - self._reported.spans
            self._reported = dropped
            with _recorded():
                logger.warning("%d log lines and %d spans were not recorded", logs, spans)


@contextlib.contextmanager
def _recorded() -> Iterator[None]:
    """Have log lines about the recorder itself recorded like any other; only for lines that are rare."""
    token = writing.set(False)
    try:
        yield
    finally:
        writing.reset(token)
