"""Reads reports in worker processes: one of some megabytes takes seconds and hundreds of megabytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from sandbox.records.reports.upload import Upload, read_upload
from sandbox.workers import Workers, WorkLimits

LIMITS: Final = WorkLimits(cpu_seconds=20, memory_bytes=512 * 1024 * 1024, deadline_seconds=60)

ReadT = TypeVar("ReadT")


class ReportReader:
    """Reads reports. Used from one event loop."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers

    async def read(
        self, user_id: str, upload: Upload, reader: Callable[..., ReadT], names: tuple[str, ...] = ("report",)
    ) -> ReadT:
        """The result of `reader`, a function at the top of a module, with the parts of the upload: see `read_upload`.

        Raises also what `Workers.run` raises.
        """
        return await self._workers.run(f"user {user_id}", LIMITS, read_upload, upload, names, reader)
