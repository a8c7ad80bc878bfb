"""The launch pipeline: runs the stages in order, checkpoints each of them, and measures their time.

A stage that has a checkpoint is not run again in the same run. A stage that was interrupted when the service died is
run again and checks what exists. After a transient error (the engine or a guest agent does not answer) the stage is run
again a few times; `StageFailed` ends the run.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from sandbox.db.connection import Database
from sandbox.domain.events import EventType, NewEvent
from sandbox.domain.failures import FAILURE_STAGES
from sandbox.domain.session import Session, SessionError, SessionStatus
from sandbox.domain.stages import BLANK_STAGES, PROJECT_STAGES, StageName, StageState
from sandbox.engine.base import Engine, ResourceKind
from sandbox.errors import DatabaseUnavailable, EngineError, GuestError, LostOwnership, SandboxError, StageFailed
from sandbox.launch.crashpoints import crash_point
from sandbox.launch.stage import Stage, StageContext, StageResult
from sandbox.launch.store import RunIdentity, RunJournal, StageRecord, now
from sandbox.learning.applications import record_applications, verify_outcomes
from sandbox.telemetry.context import bind
from sandbox.telemetry.tracing import Tracing, new_ids

log = logging.getLogger(__name__)

ATTEMPTS = 4
#: How often `pipeline_log` is updated while a stage runs.
LOG_SECONDS = 5.0


def failure_code(stage: StageName, error: EngineError | GuestError) -> str:
    """The failure code of a launch that ends with this error: one of `FAILURE_STAGES`, to which lessons refer."""
    if error.code in FAILURE_STAGES or isinstance(error, GuestError):
        return error.code
    return "network_failed" if stage is StageName.NETWORK else "engine_error"


class _BoundJournal:
    """`StageJournal` for one stage of one run."""

    def __init__(self, journal: RunJournal, stage: StageName, progress: dict[str, Any]) -> None:
        self._journal = journal
        self._stage = stage
        self.progress = progress

    async def write(self, events: Sequence[NewEvent], *, progress: dict[str, Any] | None = None) -> None:
        await self._journal.write(self._stage, events, progress)
        # The next attempt at this stage may use this object.
        self.progress.update(progress or {})

    async def log_line(self, line: str, *, role: str = "", warning: Mapping[str, str] | None = None) -> None:
        # The prefix is stored in rows: a run that the previous release began must find its lines.
        key = f"said:{role}:{line}"
        if key in self.progress:
            return
        data: dict[str, Any] = {"stage": self._stage.value, "role": role, "stream": "system", "line": line}
        if warning is not None:
            data["warning"] = dict(warning)
        await self.write([NewEvent(EventType.LOG, data)], progress={key: True})

    async def record_resources(self, resources: Sequence[tuple[ResourceKind, str, str | None]]) -> None:
        await self._journal.record_resources(resources)


class Pipeline:
    """Runs the stages of launches. One object serves all sessions; it has no state of a run."""

    def __init__(self, db: Database, engine: Engine, tracing: Tracing, stages: Sequence[Stage]) -> None:
        self._db = db
        self._engine = engine
        self._tracing = tracing
        self._stages = {stage.name: stage for stage in stages}

    async def run(self, session: Session, owner: int) -> SessionStatus:
        """Carry out the session's current run, from its last checkpoint to its end.

        `owner` is the number of this replica, which has claimed the session. Returns the status in which the run ended.
        Raises `LostOwnership` when another replica owns the run or it was cancelled, and `DatabaseUnavailable` when
        nothing can be recorded; after either the run can be resumed.
        """
        journal = RunJournal(self._db, session, owner)
        identity = await journal.identity()
        with bind(request_id=identity.request_id):
            return await self._run(session, journal, identity)

    async def _run(self, session: Session, journal: RunJournal, identity: RunIdentity) -> SessionStatus:
        names = PROJECT_STAGES if session.project_id else BLANK_STAGES
        await self._record_lessons(session)
        records = await journal.stages()
        error: SessionError | None = None
        for index, name in enumerate(names, start=1):
            record = records.get(name)
            if record and record.state in (StageState.COMPLETED, StageState.SKIPPED):
                continue
            position = {"stage": name.value, "index": index, "total": len(names)}
            try:
                session = await self._run_stage(session, journal, identity, name, position, record)
            except StageFailed as failure:
                error = SessionError(failure.code, failure.message, failure.hint, name.value, failure.details)
                break
        return await self._finish(session, journal, identity, error)

    async def _run_stage(
        self,
        session: Session,
        journal: RunJournal,
        identity: RunIdentity,
        name: StageName,
        position: dict[str, Any],
        record: StageRecord | None,
    ) -> Session:
        """Run one stage and write its checkpoint; the session as it is after that. Raises StageFailed.

        The duration counts from the stage's first attempt, across restarts of the service.
        """
        started_at = record.started_at if record else now()
        if record is None:
            crash_point(f"{name}:before-start")
            await journal.stage_started(name, NewEvent(EventType.STAGE, {**position, "state": "started"}))
        bound = _BoundJournal(journal, name, dict(record.progress) if record else {})
        context = StageContext(session, self._engine, bound)
        try:
            crash_point(f"{name}:before-act")
            result = await self._attempts(name, context, journal)
            crash_point(f"{name}:after-act")
        except StageFailed as failure:
            duration = _milliseconds(started_at)
            event = NewEvent(EventType.STAGE, {**position, "state": "failed", "duration_ms": duration})
            await journal.stage_ended(name, StageState.FAILED, [event], duration_ms=duration, error_code=failure.code)
            self._record_stage(identity, session, name, started_at, failure)
            raise
        state = StageState.SKIPPED if result.skipped else StageState.COMPLETED
        duration = _milliseconds(started_at)
        event = NewEvent(EventType.STAGE, {**position, "state": state.value, "duration_ms": duration})
        await journal.stage_ended(name, state, [*result.events, event], duration_ms=duration, result=result)
        crash_point(f"{name}:after-checkpoint")
        self._record_stage(identity, session, name, started_at, None)
        return replace(result.applied_to(session), pipeline_stage=name.value)

    async def _attempts(self, name: StageName, context: StageContext, journal: RunJournal) -> StageResult:
        """Run the stage, again after transient errors, at most `ATTEMPTS` times."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                async with _updating_log(journal):
                    return await self._stages[name].run(context)
            except (EngineError, GuestError) as error:
                if attempt == ATTEMPTS:
                    raise StageFailed(failure_code(name, error), error.message, error.hint) from error
                log.warning("stage %s: %s; trying again", name, error.code, extra={"cause": str(error)})
                await asyncio.sleep(0.5 * 2**attempt)
            except (StageFailed, LostOwnership, DatabaseUnavailable):
                raise
            except SandboxError as error:
                raise StageFailed(error.code, error.message, error.hint) from error
            except Exception as error:
                log.exception("stage %s failed with an unexpected error", name)
                raise StageFailed(
                    "internal_error",
                    f"stage {name} failed: {type(error).__name__}",
                    "The service's log has the details.",
                ) from error
        raise AssertionError("unreachable")

    async def _finish(
        self, session: Session, journal: RunJournal, identity: RunIdentity, error: SessionError | None
    ) -> SessionStatus:
        started = session.plan is not None and any(role.start for role in session.plan.roles.values())
        healthy = SessionStatus.RUNNING if started else SessionStatus.READY
        status = SessionStatus.ERROR if error else healthy
        crash_point("end:before-checkpoint")
        records = await journal.stages()
        async with self._db.transaction() as conn:
            await journal.finish(conn, status, error, SessionStatus.CREATING)
            await self._verify_lessons(conn, session, error, records)
        crash_point("end:after-checkpoint")
        self._tracing.record_span(
            "launch",
            trace_id=identity.trace_id,
            span_id=identity.span_id,
            parent_span_id=identity.parent_span_id,
            start=identity.started_at,
            end=now(),
            status="error" if error else "success",
            attributes=_attributes(session, error.code if error else None),
        )
        level = logging.WARNING if error else logging.INFO
        log.log(level, "launch ended: %s", f"{error.code}: {error.message}" if error else status.value)
        return status

    async def _record_lessons(self, session: Session) -> None:
        """Record the lessons that the agents of this pipeline run had applied. Idempotent."""
        if not session.agents:
            return
        async with self._db.transaction() as conn:
            await record_applications(
                conn,
                pipeline_run_id=session.pipeline_run_id,
                agents=session.agents,
                project_name=session.project_id or "",
            )

    async def _verify_lessons(
        self,
        conn: AsyncConnection,
        session: Session,
        error: SessionError | None,
        records: dict[StageName, StageRecord],
    ) -> None:
        """Record whether each applied lesson helped, by the run's failure code and the stages it reached."""
        failed = StageName(error.stage) if error and error.stage else None
        # A skipped stage did no work, so it is no evidence for or against a lesson.
        reached = {name for name, record in records.items() if record.state is not StageState.SKIPPED}
        await verify_outcomes(
            conn,
            pipeline_run_id=session.pipeline_run_id,
            failure_code=error.code if error else None,
            failed_stage=failed,
            reached_stages=reached,
        )

    def _record_stage(
        self, identity: RunIdentity, session: Session, name: StageName, start: datetime, failure: StageFailed | None
    ) -> None:
        _, span_id = new_ids()
        self._tracing.record_span(
            f"launch.{name}",
            trace_id=identity.trace_id,
            span_id=span_id,
            parent_span_id=identity.span_id,
            start=start,
            end=now(),
            status="error" if failure else "success",
            attributes=_attributes(session, failure.code if failure else None),
        )
        if failure:
            log.warning("stage %s failed: %s: %s", name, failure.code, failure.message)
        else:
            log.info("stage %s completed in %d ms", name, _milliseconds(start))


def _attributes(session: Session, code: str | None) -> dict[str, Any]:
    found = {"session.id": str(session.session_id), "run.id": str(session.run_id), "user_id": session.user_id}
    if session.project_id:
        found["project.id"] = session.project_id
    if code:
        found["error.code"] = code
    return found


def _milliseconds(start: datetime) -> int:
    return max(0, round((now() - start).total_seconds() * 1000))


@asynccontextmanager
async def _updating_log(journal: RunJournal) -> AsyncIterator[None]:
    """Update `pipeline_log` every `LOG_SECONDS` during the block."""
    task = asyncio.create_task(_update_log_periodically(journal))
    try:
        yield
    finally:
        task.cancel()


async def _update_log_periodically(journal: RunJournal) -> None:
    while True:
        await asyncio.sleep(LOG_SECONDS)
        try:
            await journal.update_log()
        except SandboxError as error:
            log.info("pipeline_log could not be updated: %s", error)
