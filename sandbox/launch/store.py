"""What a run writes: checkpoints, events and changes of the session's row, each in one fenced transaction.

Fenced means that every write has the run and its owner in the WHERE clause of the row that it locks. A replica that was
suspended for longer than its lease, or a run that DELETE has cancelled, therefore changes nothing; its write raises
`LostOwnership`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from sandbox.db.connection import Database
from sandbox.db.driver import to_utc
from sandbox.domain.events import EventType, NewEvent
from sandbox.domain.session import Session, SessionError, SessionStatus, Waiting, may_become
from sandbox.domain.stages import StageName, StageState
from sandbox.engine.base import ResourceKind
from sandbox.engine.labels import POOL_ROLE, container_name
from sandbox.errors import LostOwnership
from sandbox.events import store as events
from sandbox.events.pipeline_log import update_pipeline_log
from sandbox.launch.losses import Loss
from sandbox.launch.outages import OUTAGES
from sandbox.launch.stage import RoleContainer, StageResult
from sandbox.pool import store as pool

#: Columns that a write may set, and the SQL expression of each.
_COLUMNS = {
    "plan": "CAST(:plan AS jsonb)",
    "containers": "CAST(:containers AS jsonb)",
    "runtime_type": ":runtime_type",
    "preview_port": ":preview_port",
    "backend_port": ":backend_port",
    "pipeline_stage": ":pipeline_stage",
    "status": ":status",
    "error": "CAST(:error AS jsonb)",
    "waiting": "CAST(:waiting AS jsonb)",
}
_JSON = {"plan", "containers", "error", "waiting"}

#: Locks the row, checks the ownership and reserves sequence numbers for events.
_ADVANCE = """
    UPDATE sandbox_sessions SET last_seq = last_seq + :count, last_active = NOW(){changes}
     WHERE session_id = :session_id AND run_id = :run_id AND owner = :owner AND work = 'launch'{condition}
    RETURNING last_seq
"""
_RUN = text("SELECT trace_id, span_id, parent_span_id, request_id, started_at FROM session_runs WHERE run_id = :run_id")
_STAGES = text("SELECT stage, state, started_at, progress FROM session_stages WHERE run_id = :run_id")
#: A stage that is to be repeated has the state `failed` until it is started again.
_STAGE_STARTED = text("""
    INSERT INTO session_stages (run_id, stage, state) VALUES (:run_id, :stage, 'started')
    ON CONFLICT (run_id, stage) DO UPDATE
       SET state = 'started', started_at = NOW(), ended_at = NULL, duration_ms = NULL, error_code = NULL
""")
#: What was recorded of the processes in other roles' containers stays: they have gone on.
_REPEAT = text("""
    UPDATE session_stages
       SET state = 'failed', ended_at = NOW(), error_code = :code,
           progress = coalesce((SELECT jsonb_object_agg(key, value) FROM jsonb_each(progress)
                                 WHERE split_part(key, ':', 2) <> ALL(:roles)), '{}')
     WHERE run_id = :run_id AND stage = ANY(:stages)
""")
_REPLACEMENTS = text("SELECT container_losses FROM session_runs WHERE run_id = :run_id")
_REPLACED = text("UPDATE session_runs SET container_losses = container_losses + 1 WHERE run_id = :run_id")
_STAGE_ENDED = text("""
    UPDATE session_stages SET state = :state, ended_at = NOW(), duration_ms = :duration_ms, error_code = :error_code
     WHERE run_id = :run_id AND stage = :stage
""")
_PROGRESS = text("""
    UPDATE session_stages SET progress = progress || CAST(:progress AS jsonb) WHERE run_id = :run_id AND stage = :stage
""")
_RESOURCES = text("""
    INSERT INTO session_resources (kind, name, session_id, role)
    SELECT r->>0, r->>1, :session_id, r->>2 FROM jsonb_array_elements(CAST(:resources AS jsonb)) AS r
    ON CONFLICT (kind, name) DO UPDATE SET removed_at = NULL
""")
_HAD_VOLUMES = text("SELECT role FROM session_resources WHERE session_id = :session_id AND kind = 'volume'")
_RUN_ENDED = text("""
    UPDATE session_runs
       SET ended_at = NOW(), outcome = :outcome, failure_code = :failure_code, evidence = CAST(:evidence AS jsonb)
     WHERE run_id = :run_id AND ended_at IS NULL
""")
_UNCLAIM = text("UPDATE sandbox_sessions SET owner = NULL, lease_until = NULL WHERE session_id = :session_id")
_OBSERVED = text("UPDATE session_runs SET observations = CAST(:observations AS jsonb) WHERE run_id = :run_id")
_RELEASE = text(
    "UPDATE sandbox_sessions SET work = NULL, owner = NULL, lease_until = NULL WHERE session_id = :session_id"
)


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """The trace to which a run belongs, and the request that started it."""

    trace_id: str
    span_id: str
    parent_span_id: str | None
    request_id: str | None
    started_at: datetime


@dataclass(frozen=True, slots=True)
class StageRecord:
    """The checkpoint of one stage."""

    state: StageState
    started_at: datetime
    progress: dict[str, Any]


class RunJournal:
    """Reads and writes the records of one run, for the replica that owns it.

    Values of secrets that are in events are redacted.
    """

    def __init__(self, db: Database, session: Session, owner: int) -> None:
        self._db = db
        self._session = session
        self._owner = owner
        self._redactor = session.values.redactor()

    async def identity(self) -> RunIdentity:
        async with self._db.read() as conn:
            row = (await conn.execute(_RUN, {"run_id": self._session.run_id})).one()
        return RunIdentity(row.trace_id, row.span_id, row.parent_span_id, row.request_id, to_utc(row.started_at))

    async def stages(self) -> dict[StageName, StageRecord]:
        """The checkpoints of the stages that have started."""
        async with self._db.read() as conn:
            rows = (await conn.execute(_STAGES, {"run_id": self._session.run_id})).all()
        return {StageName(r.stage): StageRecord(StageState(r.state), to_utc(r.started_at), r.progress) for r in rows}

    async def stage_started(self, stage: StageName, event: NewEvent) -> None:
        async with self._db.transaction() as conn:
            await self._advance(conn, [event])
            await self._start(conn, stage)

    async def stage_ended(
        self,
        stage: StageName,
        state: StageState,
        new_events: Sequence[NewEvent],
        *,
        duration_ms: int,
        result: StageResult | None = None,
        error_code: str | None = None,
        following: StageName | None = None,
    ) -> None:
        """The checkpoint: the stage's outcome, its changes of the session and its events, in one transaction.

        `result` is None for a stage that failed; it then changes nothing in the session's row. The stage `following`
        is started by the last of the events.
        """
        changes = {**columns(result), "pipeline_stage": stage.value} if result is not None else {}
        async with self._db.transaction() as conn:
            await self._advance(conn, new_events, changes)
            await conn.execute(
                _STAGE_ENDED,
                {
                    "run_id": self._session.run_id,
                    "stage": stage.value,
                    "state": state.value,
                    "duration_ms": duration_ms,
                    "error_code": error_code,
                },
            )
            if result is not None and result.observations is not None:
                found = _json(result.observations.to_json())
                await conn.execute(_OBSERVED, {"run_id": self._session.run_id, "observations": found})
            if following is not None:
                await self._start(conn, following)
            await update_pipeline_log(conn, self._session.session_id)

    async def _start(self, conn: AsyncConnection, stage: StageName) -> None:
        await conn.execute(_STAGE_STARTED, {"run_id": self._session.run_id, "stage": stage.value})

    async def write(self, stage: StageName, new_events: Sequence[NewEvent], progress: dict[str, Any] | None) -> None:
        """See `StageJournal.write`."""
        async with self._db.transaction() as conn:
            await self._advance(conn, new_events)
            if progress:
                values = {"run_id": self._session.run_id, "stage": stage.value, "progress": json.dumps(progress)}
                await conn.execute(_PROGRESS, values)

    async def wait(self, stage: StageName, waiting: Waiting, new_events: Sequence[NewEvent], outages: int) -> None:
        """Record that the launch waits, and leave it to the replica that claims it when it can go on."""
        async with self._db.transaction() as conn:
            await self._advance(conn, new_events, {"waiting": waiting.to_json()})
            progress = json.dumps({OUTAGES: outages})
            await conn.execute(_PROGRESS, {"run_id": self._session.run_id, "stage": stage.value, "progress": progress})
            await update_pipeline_log(conn, self._session.session_id)
            await conn.execute(_UNCLAIM, {"session_id": self._session.session_id})

    async def release(self) -> None:
        """Leave a launch that still waits to the replica that claims it when it can go on."""
        async with self._db.transaction() as conn:
            await self._advance(conn, [])
            await conn.execute(_UNCLAIM, {"session_id": self._session.session_id})

    async def resumed(self, event: NewEvent) -> None:
        """Record that the launch does not wait any more."""
        async with self._db.transaction() as conn:
            await self._advance(conn, [event], {"waiting": None})

    async def replacements(self) -> int:
        """How often this run has replaced containers that were lost."""
        async with self._db.read() as conn:
            return int((await conn.execute(_REPLACEMENTS, {"run_id": self._session.run_id})).scalar_one())

    async def repeat(self, stages: Sequence[StageName], loss: Loss, event: NewEvent) -> None:
        """Record that these stages are to be done again, because containers were lost."""
        run = {"run_id": self._session.run_id}
        stored = {"stages": [stage.value for stage in stages], "roles": list(loss.ended), "code": loss.code}
        async with self._db.transaction() as conn:
            await self._advance(conn, [event])
            await conn.execute(_REPLACED, run)
            await conn.execute(_REPEAT, run | stored)
            await update_pipeline_log(conn, self._session.session_id)

    async def update_log(self) -> None:
        """Append the events so far to `pipeline_log`, for readers of the log while a stage takes long."""
        async with self._db.transaction() as conn:
            await update_pipeline_log(conn, self._session.session_id)

    async def record_resources(self, resources: Sequence[tuple[ResourceKind, str, str | None]]) -> None:
        """See `StageJournal.record_resources`."""
        async with self._db.transaction() as conn:
            await self._advance(conn, [])
            await self._record(conn, resources)

    async def record_containers(self, roles: Mapping[str, str | None]) -> dict[str, RoleContainer]:
        """See `StageJournal.record_containers`."""
        session_id = self._session.session_id
        found: dict[str, RoleContainer] = {}
        resources: list[tuple[ResourceKind, str, str | None]] = []
        async with self._db.transaction() as conn:
            await self._advance(conn, [])
            had = set((await conn.execute(_HAD_VOLUMES, {"session_id": session_id})).scalars())
            given = await pool.of_session(conn, session_id) if had else {}
            for role, fingerprint in roles.items():
                member = given.get(role)
                if role not in had and fingerprint is not None:
                    member = await pool.claim(conn, session_id, role, fingerprint)
                found[role] = RoleContainer(member, role in had)
                volume = container_name(member, POOL_ROLE) if member else container_name(session_id, role)
                resources.append((ResourceKind.VOLUME, volume, role))
                resources.append((ResourceKind.CONTAINER, container_name(session_id, role), role))
            await self._record(conn, resources)
        return found

    async def _record(self, conn: AsyncConnection, resources: Sequence[tuple[ResourceKind, str, str | None]]) -> None:
        values = {"session_id": self._session.session_id, "resources": json.dumps([list(r) for r in resources])}
        await conn.execute(_RESOURCES, values)

    async def finish(
        self, conn: AsyncConnection, status: SessionStatus, error: SessionError | None, previous: SessionStatus
    ) -> None:
        """End the run in the caller's transaction: write its last events, the outcome and the log, and release the
        session from its owner."""
        new_events = [NewEvent(EventType.STATUS, {"status": status.value, "previous": previous.value})]
        if error:
            new_events.insert(0, NewEvent(EventType.PROBLEM, error.to_json()))
        new_events.append(NewEvent(EventType.END, {"status": status.value}))
        changes = {"status": status.value, "error": error.to_row() if error else None, "waiting": None}
        await self._advance(conn, new_events, changes)
        outcome = "failed" if error else "completed"
        code = error.code if error else None
        evidence = _json(error.details) if error and error.details else None
        run = {"run_id": self._session.run_id, "outcome": outcome, "failure_code": code, "evidence": evidence}
        await conn.execute(_RUN_ENDED, run)
        await update_pipeline_log(conn, self._session.session_id)
        await conn.execute(_RELEASE, {"session_id": self._session.session_id})

    async def _advance(
        self, conn: AsyncConnection, new_events: Sequence[NewEvent], changes: dict[str, Any] | None = None
    ) -> None:
        """Set columns and append events in the caller's transaction. Raises LostOwnership."""
        changes = changes or {}
        assignments = "".join(f", {name} = {_COLUMNS[name]}" for name in changes)
        values: dict[str, Any] = {
            name: json.dumps(value) if name in _JSON and value is not None else value for name, value in changes.items()
        }
        condition = ""
        if "status" in changes:
            condition = " AND status = ANY(:may_become)"
            values["may_become"] = may_become(SessionStatus(changes["status"]))
        values |= {
            "session_id": self._session.session_id,
            "run_id": self._session.run_id,
            "owner": self._owner,
            "count": len(new_events),
        }
        row = (
            await conn.execute(text(_ADVANCE.format(changes=assignments, condition=condition)), values)
        ).one_or_none()
        if row is None:
            raise LostOwnership(f"this replica does not own the launch of session {self._session.session_id} any more")
        shown = [replace(event, data=self._redactor.json(event.data)) for event in new_events]
        await events.insert(conn, self._session.session_id, self._session.run_id, shown, last_seq=row.last_seq)


def columns(result: StageResult) -> dict[str, Any]:
    """The columns of the session's row that a stage's result sets, with their new values."""
    values: dict[str, Any] = {}
    if result.plan is not None:
        values |= {"plan": result.plan.model_dump(mode="json"), "runtime_type": result.plan.primary_runtime}
    if result.containers is not None:
        values["containers"] = {role: info.to_json() for role, info in result.containers.items()}
    if result.ports is not None:
        values |= {"preview_port": result.ports.preview, "backend_port": result.ports.backend}
    return values


def _json(value: Any) -> str:
    """JSON that PostgreSQL accepts: it has no NUL, which apps may print."""
    return json.dumps(value).replace("\\u0000", "\\ufffd")


def now() -> datetime:
    return datetime.now(UTC)
