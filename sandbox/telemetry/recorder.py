"""Keeps logs and spans: taken at once from any thread, written to PostgreSQL in batches by one task.

What is added waits in memory, bounded by rows and bytes, while PostgreSQL is away, and is written when it is back. What
the bound does not hold is dropped, counted, and said. A batch whose acknowledgement is lost is written again, so a log
line may in that one case be there twice; a span never is.
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

#: True in the task that writes: what is logged there must not come back to be written.
writing: ContextVar[bool] = ContextVar("sandbox_recorder_writing", default=False)

_FIRST_BACKOFF_SECONDS = 0.2
_MAX_BACKOFF_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Dropped:
    """How many rows were not kept since the start: no room in memory, or refused by PostgreSQL."""

    logs: int
    spans: int

    def __bool__(self) -> bool:
        return bool(self.logs or self.spans)


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the rows of one kind so far."""

    waiting: int
    written: int
    dropped: int


class _Queue:
    """Rows in waiting, oldest first, bounded. Not locked: its owner does that."""

    def __init__(self, max_rows: int, max_bytes: int) -> None:
        self._rows: deque[bytes] = deque()
        self._max_rows = max_rows
        self._room = max_bytes
        #: Rows ever taken, rows that left again, and rows that were not kept.
        self.taken = self.left = self.dropped = self.refused = 0

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, line: bytes) -> bool:
        if len(self._rows) >= self._max_rows or len(line) > self._room:
            self.dropped += 1
            return False
        self._room -= len(line)
        self._rows.append(line)
        self.taken += 1
        return True

    def head(self, count: int) -> list[bytes]:
        return list(islice(self._rows, count))

    def remove_head(self, count: int) -> None:
        for _ in range(count):
            self._room += len(self._rows.popleft())
        self.left += count


class Recorder:
    """Takes rows from any thread, at any time; `start` in the event loop that is to write them."""

    def __init__(
        self,
        db: Database,
        *,
        max_rows: int = 20_000,
        max_bytes: int = 64 * 1024 * 1024,
        batch_rows: int = 500,
        interval_seconds: float = 0.2,
    ) -> None:
        """`max_rows` and `max_bytes` bound logs and spans each; a batch leaves when it is full or an interval old."""
        self._store = RecordStore(db.driver_transaction)
        self._batch_rows = batch_rows
        self._interval = interval_seconds
        self._lock = threading.Lock()
        self._logs: _Queue = _Queue(max_rows, max_bytes)
        self._spans: _Queue = _Queue(max_rows, max_bytes)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        #: There is something to write; it is to be written now; try PostgreSQL again now.
        self._wanted, self._hurry, self._retry = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._progress = asyncio.Condition()
        self._woken = self._hurried = False
        self._away = False
        self._said = Dropped(0, 0)

    def add_log(self, row: LogRow) -> None:
        """Take a log line. Never waits, never raises; dropped and counted if there is no room."""
        # Made ready here, each in its turn: a batch at once would hold up the loop.
        line = row.line()
        with self._lock:
            self._add(self._logs, line)

    def add_span(self, row: SpanRow) -> None:
        """Take a finished span, in the same way."""
        line = row.line()
        with self._lock:
            self._add(self._spans, line)

    @property
    def dropped(self) -> Dropped:
        """What was not kept so far."""
        return Dropped(self._logs.dropped, self._spans.dropped)

    @property
    def counts(self) -> dict[str, Counts]:
        """What became of logs and of spans so far."""
        queues = {"logs": self._logs, "spans": self._spans}
        return {
            # What was refused by PostgreSQL left the queue without being written.
            kind: Counts(len(queue), queue.left - queue.refused, queue.dropped)
            for kind, queue in queues.items()
        }

    @property
    def waiting(self) -> int:
        """Rows taken and not yet written."""
        return len(self._logs) + len(self._spans)

    def start(self) -> None:
        """Begin to write, in the running event loop. What was added before is written too."""
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._run(), name="telemetry recorder")
        self._wanted.set()

    async def flush(self, timeout_seconds: float = 10.0) -> bool:
        """Write what was added before this call. False if that took longer than the timeout; it is still kept then."""
        logs, spans = self._logs.taken, self._spans.taken
        try:
            async with asyncio.timeout(timeout_seconds), self._progress:
                while self._logs.left < logs or self._spans.left < spans:
                    for event in (self._wanted, self._hurry, self._retry):
                        event.set()
                    await self._progress.wait()
        except TimeoutError:
            return False
        return True

    async def close(self, timeout_seconds: float = 5.0) -> None:
        """Write what there is, within the timeout, and stop. What is left or comes later is dropped and counted."""
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
        self._say_dropped()

    def _add(self, queue: _Queue, line: bytes) -> None:
        if self._closed:
            queue.dropped += 1
            return
        if not queue.add(line) or self._loop is None:
            return
        # The loop is woken once for the first row of a batch and once for the last, not for each.
        if not self._woken:
            self._woken = True
            self._signal(self._wanted)
        if not self._hurried and len(queue) >= self._batch_rows:
            self._hurried = True
            self._signal(self._hurry)

    def _signal(self, event: asyncio.Event) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(event.set)

    async def _run(self) -> None:
        writing.set(True)
        while True:
            await self._wanted.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._hurry.wait()
            self._wanted.clear()
            self._hurry.clear()
            with self._lock:
                self._woken = self._hurried = False
            await self._write_batches()
            if self.waiting:
                self._wanted.set()

    async def _write_batches(self) -> None:
        """Write one batch, and more as long as full ones are waiting."""
        backoff = _FIRST_BACKOFF_SECONDS
        while self.waiting:
            with self._lock:
                logs, spans = self._logs.head(self._batch_rows), self._spans.head(self._batch_rows)
            try:
                await self._write(logs, spans)
            except Exception as error:  # noqa: BLE001 - whatever it is, the rows are kept and tried again
                self._say_away(error)
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
            self._say_back()
            async with self._progress:
                self._progress.notify_all()
            if max(len(self._logs), len(self._spans)) < self._batch_rows:
                return

    async def _write(self, logs: Sequence[bytes], spans: Sequence[bytes]) -> None:
        """Write all of it but the rows that PostgreSQL refuses, which are dropped and counted."""
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

    def _say_away(self, error: Exception) -> None:
        if not self._away:
            self._away = True
            with _recorded():
                logger.warning("logs and spans wait in memory: %s", error)

    def _say_back(self) -> None:
        if self._away:
            self._away = False
            with _recorded():
                logger.info("logs and spans are written again")
        self._say_dropped()

    def _say_dropped(self) -> None:
        dropped = self.dropped
        if dropped != self._said:
            logs, spans = dropped.logs - self._said.logs, dropped.spans - self._said.spans
            self._said = dropped
            with _recorded():
                logger.warning("%d log lines and %d spans were not recorded", logs, spans)


@contextlib.contextmanager
def _recorded() -> Iterator[None]:
    """For the few lines about the recorder itself that are to be recorded like any other."""
    token = writing.set(False)
    try:
        yield
    finally:
        writing.reset(token)
