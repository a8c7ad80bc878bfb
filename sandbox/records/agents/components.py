"""The infrastructure that this service can see reports itself, as agents do."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from sandbox.db.connection import Database
from sandbox.records.agents import store

CHECK_SECONDS = 10.0
_REMEMBERED = 100

#: Fails, or answers what is to be known of the component.
Check = Callable[[], Awaitable[Mapping[str, Any] | None]]


class _Figures:
    """How a component did lately."""

    def __init__(self) -> None:
        self.outcomes: deque[bool] = deque(maxlen=_REMEMBERED)
        self.milliseconds: deque[float] = deque(maxlen=_REMEMBERED)
        self.checks = self.good = 0

    def add(self, *, good: bool, milliseconds: float) -> None:
        self.outcomes.append(good)
        self.checks += 1
        self.good += good
        if good:
            self.milliseconds.append(milliseconds)

    def values(self) -> dict[str, Any]:
        told = self.milliseconds
        return {
            "uptime": round(100 * self.good / self.checks, 2),
            "success_rate": round(100 * sum(self.outcomes) / len(self.outcomes), 2),
            "avg_response_time": round(sum(told) / len(told)) if told else None,
        }


class Components:
    """Checks each component and writes what it found as its heartbeat."""

    def __init__(self, db: Database, checks: Mapping[str, Check]) -> None:
        self._db = db
        self._checks = checks
        self._figures = {name: _Figures() for name in checks}

    async def report(self) -> None:
        """One round. A component that does not answer is in `error`, with the cause in its metadata."""
        found = await asyncio.gather(*(self._check(name) for name in self._checks))
        for name, values in zip(self._checks, found, strict=True):
            await store.heartbeat(self._db, name, "infrastructure", values)

    async def _check(self, name: str) -> dict[str, Any]:
        began = time.perf_counter()
        metadata: dict[str, Any] = {"error": None}
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                metadata |= await self._checks[name]() or {}
            good = True
        except Exception as error:  # noqa: BLE001 - whatever it is, that is what is reported
            metadata["error"] = f"{type(error).__name__}: {error}"[:1000]
            good = False
        self._figures[name].add(good=good, milliseconds=1000 * (time.perf_counter() - began))
        return {"status": "healthy" if good else "error", "metadata": metadata, **self._figures[name].values()}
