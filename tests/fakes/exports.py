"""What the apps of a fake container export, and the connection on which the service fetches it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

from sandbox.engine.guest_data import Export, ExportAnswer
from tests.fakes.errors import guest_unreachable


class ExportQueue:
    """The exports of one container that wait for an answer. The last connection made is the one that is served."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._waiting: dict[int, tuple[Export, asyncio.Future[ExportAnswer]]] = {}
        self._changed = asyncio.Event()
        self._connection: FakeExports | None = None
        self._fetched: set[int] = set()

    async def export(self, path: str, body: bytes, *, token: str = "") -> ExportAnswer:
        """Export as an app does, and wait for the answer."""
        number = next(self._numbers)
        answer: asyncio.Future[ExportAnswer] = asyncio.get_running_loop().create_future()
        export = Export(number, path, "application/json", "", f"Bearer {token}", body)
        self._waiting[number] = export, answer
        self._notify()
        return await answer

    def connect(self) -> FakeExports:
        """A new connection; an earlier one is over, and what it had fetched without answering waits again."""
        self._connection = FakeExports(self)
        self._fetched.clear()
        self._notify()
        return self._connection

    def disconnect(self, connection: FakeExports | None = None) -> None:
        """End the connection, whichever it is, as the end of the container does; or this one if it still lasts."""
        if connection is None or connection is self._connection:
            self._connection = None
            self._fetched.clear()
            self._notify()

    async def arrived(self, connection: FakeExports) -> None:
        while not self.unfetched(connection):
            await self._changed.wait()

    def unfetched(self, connection: FakeExports) -> list[Export]:
        if connection is not self._connection:
            raise guest_unreachable("another connection has taken over, or the container has ended")
        return [export for number, (export, _) in self._waiting.items() if number not in self._fetched]

    def fetch(self, connection: FakeExports) -> list[Export]:
        exports = self.unfetched(connection)
        self._fetched.update(export.number for export in exports)
        return exports

    def answer(self, connection: FakeExports, answers: Sequence[ExportAnswer]) -> None:
        self.unfetched(connection)
        for answer in answers:
            _, waiting = self._waiting.pop(answer.number, (None, None))
            self._fetched.discard(answer.number)
            if waiting is not None and not waiting.done():
                waiting.set_result(answer)

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class FakeExports:
    """Implements `base.Exports`."""

    def __init__(self, queue: ExportQueue) -> None:
        self._queue = queue

    async def arrived(self) -> None:
        await self._queue.arrived(self)

    async def fetch(self) -> list[Export]:
        await self._queue.arrived(self)
        return self._queue.fetch(self)

    async def answer(self, answers: Sequence[ExportAnswer]) -> None:
        self._queue.answer(self, answers)

    async def close(self) -> None:
        self._queue.disconnect(self)
