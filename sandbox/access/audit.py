"""The audit log: who did what to which session, project, token or secret. Entries are added, and deleted by age."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Literal
from uuid import UUID

from sqlalchemy import text

from sandbox.db.connection import Database
from sandbox.db.driver import to_db
from sandbox.db.tables import Table
from sandbox.errors import DatabaseUnavailable

Outcome = Literal["succeeded", "refused", "failed"]

ENTRIES = Table(
    "audit_log",
    (
        "entry_id",
        "time",
        "user_id",
        "role",
        "token_id",
        "action",
        "resource_kind",
        "resource",
        "outcome",
        "status",
        "request_id",
        "address",
    ),
    time="time",
    keys={"entry_id": "bigint"},
)
#: How often entries are written that need not be there before the answer.
WRITE_SECONDS = 1.0
#: Entries that may wait while the database is away; older ones are lost, which is logged.
_WAITING = 50_000
_BATCH = 500

_INSERT = text("""
    INSERT INTO audit_log
        (time, user_id, role, token_id, action, resource_kind, resource, outcome, status, request_id, address)
    VALUES (:time, :user_id, :role, :token_id, :action, :resource_kind, :resource, :outcome, :status, :request_id,
        :address)
""")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """What one request did."""

    user_id: str
    role: str
    token_id: UUID
    #: Such as `session.create`.
    action: str
    resource_kind: str
    resource: str | None
    outcome: Outcome
    status: int | None
    request_id: str | None
    #: The client's IP address, as the proxy in front sees it.
    address: str | None
    time: datetime = field(default_factory=lambda: datetime.now(UTC))


class AuditLog:
    """Writes entries. Used from one event loop."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._waiting: deque[Entry] = deque(maxlen=_WAITING)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._write_forever(), name="audit log")

    async def close(self) -> None:
        """Stop, and write what waits."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._flush()

    async def write(self, entry: Entry) -> None:
        """Write an entry now. While the database does not answer, it waits in memory."""
        try:
            await self._insert([entry])
        except DatabaseUnavailable as error:
            log.warning("an entry of the audit log is written later: %s", error)
            self.note(entry)

    def note(self, entry: Entry) -> None:
        """Write an entry within about a second."""
        if len(self._waiting) == _WAITING:
            log.error("the audit log loses an entry: %s", self._waiting[0])
        self._waiting.append(entry)

    async def _write_forever(self) -> None:
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            await self._flush()

    async def _flush(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
            try:
                await self._insert(batch)
            except DatabaseUnavailable as error:
                self._waiting.extendleft(reversed(batch))
                log.info("%d entries of the audit log wait for the database: %s", len(self._waiting), error)
                return
            except Exception:
                log.exception("entries of the audit log could not be written: %s", batch)
            except BaseException:
                self._waiting.extendleft(reversed(batch))
                raise

    async def _insert(self, entries: Sequence[Entry]) -> None:
        values = [asdict(entry) | {"time": to_db(entry.time)} for entry in entries]
        async with self._db.transaction() as connection:
            await connection.execute(_INSERT, values)
