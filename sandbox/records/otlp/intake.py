"""Queues bodies of OTLP records in memory and has worker processes read and write them.

A body is answered once its records are committed. The queue is bounded and is not stored: a client that got no answer
sends the same body again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field

from sandbox.db.driver import connection_params
from sandbox.errors import Kind
from sandbox.records.otlp import worker
from sandbox.records.otlp.outcome import Outcome, Refused
from sandbox.records.otlp.worker import Body
from sandbox.workers import fork_server

logger = logging.getLogger(__name__)

#: OpenTelemetry exporters give up after ten seconds by default.
TIMEOUT_SECONDS = 8.0
#: Most bodies, and bytes of bodies, that one transaction writes.
_MAX_BATCH = 16
_MAX_BATCH_BYTES = 2 * 1024 * 1024

#: Code of the refusal of records that were not written in time.
INTAKE_TIMEOUT = "intake_waiting"


_FULL = Refused(
    "intake_full",
    Kind.TOO_MANY,
    "Records come faster than they are written.",
    "Send the same again after Retry-After seconds.",
)
_TIMED_OUT = Refused(
    INTAKE_TIMEOUT,
    Kind.UNAVAILABLE,
    "The records were not written in time.",
    "Check that PostgreSQL answers, and send them again.",
)
_NO_WORKER = Refused(
    INTAKE_TIMEOUT,
    Kind.UNAVAILABLE,
    "The process that writes records ended, or could not be started.",
    "Send the same again.",
)


@dataclass(slots=True, eq=False)
class _Queued:
    body: Body
    outcome: asyncio.Future[Outcome] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Intake:
    """The queue and its worker processes. Not thread-safe: use it from one event loop.

    Processes are started when there are bodies for them. They end with the service, also when it is killed.
    """

    def __init__(
        self,
        dsn: str,
        *,
        max_body_bytes: int,
        max_waiting_bytes: int,
        timeout_seconds: float = TIMEOUT_SECONDS,
        processes: int | None = None,
    ) -> None:
        """`max_body_bytes` bounds one body once it is decompressed, `max_waiting_bytes` all bodies as they arrived.

        Raises InvalidInput for a DSN that cannot be parsed.
        """
        connection_params(dsn)
        self._initargs = (dsn, max_body_bytes)
        self._max_waiting = max_waiting_bytes
        self._timeout = timeout_seconds
        # With two, one reads bodies while PostgreSQL writes what the other has read.
        self._processes = processes or min(max(2, os.cpu_count() or 1), 4)
        self._pool = self._new_pool()
        self._pids: set[int] = set()
        self._queue: asyncio.Queue[_Queued] = asyncio.Queue()
        #: One for each process of the pool.
        self._writers: set[asyncio.Task[None]] = set()
        self._closed = False
        #: Bytes of the bodies that have arrived and are not answered yet.
        self.waiting_bytes = 0

    async def store(self, body: Body) -> Outcome:
        """Wait until the body's records are written, or until it is certain or likely that they will not be.

        After the timeout they may still be written: a span that is then sent again is stored once, a log line twice.
        """
        if self._closed or self.waiting_bytes + len(body.content) > self._max_waiting:
            return _FULL
        if len(self._writers) < self._processes and (not self._writers or not self._queue.empty()):
            self._writers.add(asyncio.create_task(self._write_queued(), name="intake"))
        queued = _Queued(body)
        self._queue.put_nowait(queued)
        self.waiting_bytes += len(body.content)
        try:
            async with asyncio.timeout(self._timeout):
                return await queued.outcome
        except TimeoutError:
            return _TIMED_OUT
        finally:
            self.waiting_bytes -= len(body.content)

    async def close(self) -> None:
        """Accept no more bodies, wait until the queued ones are written, and end the processes."""
        self._closed = True
        try:
            async with asyncio.timeout(self._timeout):
                await self._queue.join()
        except TimeoutError:
            for pid in self._pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
        for writer in self._writers:
            writer.cancel()
        if self._writers:
            await asyncio.wait(self._writers)
        await asyncio.to_thread(self._pool.shutdown, cancel_futures=True)

    def _new_pool(self) -> ProcessPoolExecutor:
        context = fork_server([worker.__name__])
        return ProcessPoolExecutor(self._processes, context, initializer=worker.initialize, initargs=self._initargs)

    async def _write_queued(self) -> None:
        pool: ProcessPoolExecutor | None = None
        while True:
            if pool is not self._pool:
                # Before a body is claimed: while the process starts, the processes that run already can write it.
                pool = self._pool
                await self._start_process(pool)
            batch = await self._next_batch()
            # Of those that timed out meanwhile no client waits for the outcome.
            awaited = [queued for queued in batch if not queued.outcome.done()]
            outcomes = await self._write([queued.body for queued in awaited]) if awaited else []
            for queued, outcome in zip(awaited, outcomes, strict=True):
                if queued.outcome.done():
                    continue
                if isinstance(outcome, Exception):
                    queued.outcome.set_exception(outcome)
                else:
                    queued.outcome.set_result(outcome)
            for _ in batch:
                self._queue.task_done()

    async def _next_batch(self) -> list[_Queued]:
        """Wait for a body; with it, this writer's share of the bodies that are queued."""
        batch = [await self._queue.get()]
        size = len(batch[0].body.content)
        share = min(_MAX_BATCH, -(-(self._queue.qsize() + 1) // self._processes))
        while len(batch) < share and size < _MAX_BATCH_BYTES and not self._queue.empty():
            batch.append(self._queue.get_nowait())
            size += len(batch[-1].body.content)
        return batch

    async def _write(self, bodies: Sequence[Body]) -> Sequence[Outcome | Exception]:
        pool = self._pool
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, worker.write_bodies, bodies)
        except (BrokenProcessPool, OSError) as error:
            self._replace(pool, error)
            return [_NO_WORKER] * len(bodies)
        except Exception as error:  # noqa: BLE001 - each of the requests raises it
            return [error] * len(bodies)

    async def _start_process(self, pool: ProcessPoolExecutor) -> None:
        """Wait for a process of the pool to be ready, starting one if all are busy.

        The pool is called in a thread because starting a process blocks.
        """
        try:
            self._pids.add(await asyncio.wrap_future(await asyncio.to_thread(pool.submit, worker.ready)))
        except (BrokenProcessPool, OSError) as error:
            self._replace(pool, error)

    def _replace(self, broken: ProcessPoolExecutor, error: Exception) -> None:
        """Put a new pool in the place of one that has lost a process, or that could not start one."""
        if self._pool is broken:
            logger.warning("the processes that write records are replaced: %s", error)
            broken.shutdown(wait=False)
            self._pool = self._new_pool()
            self._pids.clear()
