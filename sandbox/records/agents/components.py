"""Heartbeats of the infrastructure that this service can check: it sends them on the components' behalf."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from sandbox.db.connection import Database
from sandbox.records.agents import store

CHECK_SECONDS = 10.0
#: Checks of a component from which its success rate and response time are computed.
_RECENT = 100

#: Raises if the component does not work; may return metadata about it.
Check = Callable[[], Awaitable[Mapping[str, Any] | None]]


class _Statistics:
    """Outcomes and response times of a component's checks."""

    def __init__(self) -> None:
        self.outcomes: deque[bool] = deque(maxlen=_RECENT)
        self.milliseconds: deque[float] = deque(maxlen=_RECENT)
        self.checks = self.successes = 0

    def add(self, *, good: bool, milliseconds: float) -> None:
        self.outcomes.append(good)
        self.checks += 1
        self.successes += good
        if good:
            self.milliseconds.append(milliseconds)

    def values(self) -> dict[str, Any]:
        return {
            "uptime": round(100 * self.successes / self.checks, 2),
            "success_rate": round(100 * sum(self.outcomes) / len(self.outcomes), 2),
            "avg_response_time": round(sum(self.milliseconds) / len(self.milliseconds)) if self.milliseconds else None,
        }


class Components:
    """Checks each component and writes the outcome as its heartbeat."""

    def __init__(self, db: Database, checks: Mapping[str, Check]) -> None:
        self._db = db
        self._checks = checks
        self._statistics = {name: _Statistics() for name in checks}

    async def report(self) -> None:
        """Check all components once. One that fails gets the status `error`, with the cause in its metadata."""
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
        except Exception as error:  # noqa: BLE001 - any failure of the check is the outcome
            metadata["error"] = f"{type(error).__name__}: {error}"[:1000]
            good = False
        self._statistics[name].add(good=good, milliseconds=1000 * (time.perf_counter() - began))
        return {"status": "healthy" if good else "error", "metadata": metadata, **self._statistics[name].values()}
