"""The way in for records of others: bodies wait here, bounded, for one of a few processes that read and write them.

What is answered is written. Nothing is kept over a restart, and nothing needs to be: who has no answer sends again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import anyio.to_process
from anyio import BrokenWorkerProcess

from sandbox.errors import Kind, SandboxError, Unavailable
from sandbox.records.otlp.idle_group import IdleGroup
from sandbox.records.otlp.metronome import Metronome
from sandbox.records.otlp.priority import Patience
from sandbox.records.otlp.worker import Body, Kept, prepare, write_bodies

#: Exporters give up after ten seconds by default.
TIMEOUT_SECONDS = 8.0
#: Bodies, and bytes of them, that are written in one transaction.
_MOST_AT_ONCE = 16
_BYTES_AT_ONCE = 2 * 1024 * 1024


class QueueFull(SandboxError):
    """There is no room for more records until those in waiting are written."""

    code = "intake_full"
    kind = Kind.TOO_MANY


class NotWrittenYet(Unavailable):
    """The records wait for PostgreSQL, or for the process that writes them."""

    code = "intake_waiting"


@dataclass(slots=True, eq=False)
class _Waiting:
    body: Body
    outcome: asyncio.Future[Kept] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Intake:
    """Of one event loop. The processes are started as they are needed, and end with the service however that ends."""

    def __init__(
        self,
        dsn: str,
        *,
        most_bytes: int,
        max_waiting_bytes: int,
        timeout_seconds: float = TIMEOUT_SECONDS,
        processes: int | None = None,
    ) -> None:
        """`most_bytes` bounds one body once it is unpacked, `max_waiting_bytes` all bodies as they came."""
        self._dsn = dsn
        self._group = IdleGroup.make()
        self._patience = Patience(self._group)
        self._metronome = Metronome()
        self._most_bytes = most_bytes
        self._max_waiting = max_waiting_bytes
        self._timeout = timeout_seconds
        # One reads while PostgreSQL writes what another has read.
        self._limiter = anyio.CapacityLimiter(processes or min(max(2, os.cpu_count() or 1), 4))
        self._queue: deque[_Waiting] = deque()
        self._writers: set[asyncio.Task[None]] = set()
        self._closed = False
        #: Bytes of bodies that came and are not answered yet.
        self.waiting_bytes = 0

    async def keep(self, body: Body) -> Kept:
        """Have the body's records written, and wait for that.

        Raises QueueFull if there is no room, NotWrittenYet after the timeout (they may still be written then: a span
        that is sent again is not doubled, a log line is), DatabaseUnavailable, and what `messages` refuses.
        """
        if self._closed or self.waiting_bytes + len(body.content) > self._max_waiting:
            raise QueueFull(
                "Records come faster than they are written.", hint="Send the same again after Retry-After seconds."
            )
        waiting = _Waiting(body)
        self._queue.append(waiting)
        self.waiting_bytes += len(body.content)
        if len(self._writers) < self._limiter.total_tokens:
            writer = asyncio.create_task(self._write_waiting(), name="intake")
            self._writers.add(writer)
            writer.add_done_callback(self._writers.discard)
        try:
            async with asyncio.timeout(self._timeout):
                return await waiting.outcome
        except TimeoutError:
            raise NotWrittenYet("The records are not written yet.", hint="Look whether PostgreSQL answers.") from None
        finally:
            self.waiting_bytes -= len(body.content)

    async def close(self) -> None:
        """Take no more, and wait for what is being written."""
        self._closed = True
        if self._writers:
            await asyncio.wait(self._writers, timeout=self._timeout)
        await self._metronome.close()
        if self._group is not None:
            await asyncio.to_thread(self._group.remove)

    async def _write_waiting(self) -> None:
        # A process takes a second to start; until then others, if there are any, take what waits.
        with contextlib.suppress(Exception):  # those who wait are told when theirs is tried
            if self._group is not None:
                await self._metronome.start()
            await anyio.to_process.run_sync(prepare, self._dsn, self._group, limiter=self._limiter)
        while batch := self._next_batch():
            for waiting, outcome in zip(batch, await self._write([one.body for one in batch]), strict=True):
                if waiting.outcome.done():  # given up
                    continue
                if isinstance(outcome, Kept):
                    waiting.outcome.set_result(outcome)
                else:
                    waiting.outcome.set_exception(outcome)

    def _next_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        size = 0
        # A share: whoever is free next finds something, too, instead of waiting for those that are being written.
        share = min(_MOST_AT_ONCE, -(-len(self._queue) // int(self._limiter.total_tokens)))
        while self._queue and len(batch) < share and size < _BYTES_AT_ONCE:
            waiting = self._queue.popleft()
            if not waiting.outcome.done():
                batch.append(waiting)
                size += len(waiting.body.content)
        return batch

    async def _write(self, bodies: Sequence[Body]) -> Sequence[Kept | BaseException]:
        try:
            with self._patience.watched(), self._metronome.beating():
                return await anyio.to_process.run_sync(
                    write_bodies, self._dsn, self._group, bodies, self._most_bytes, limiter=self._limiter
                )
        except BrokenWorkerProcess:
            return [NotWrittenYet("The process that writes records ended.", hint="Send the same again.")] * len(bodies)
        except Exception as error:  # noqa: BLE001 - whoever waits is told, whatever it is
            return [error] * len(bodies)
