"""The launch pipeline: an ordered list of stages, the checkpoint after each, and the clock.

A stage that is checkpointed is never run again in its run. One that was under way when the service died is run again
and looks at what exists. Passing errors (the engine or a guest agent does not answer for a moment) are tried again
here; `StageFailed` ends the run.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack
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
LOG_EVERY_SECONDS = 5.0


def failure_code(stage: StageName, error: EngineError | GuestError) -> str:
    """The code of a launch that ends with this error: one that lessons know."""
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
        # The next attempt at this stage may be in this very process.
        self.progress.update(progress or {})

    async def say(self, line: str, *, role: str = "") -> None:
        said = f"said:{role}:{line}"
        if said in self.progress:
            return
        data = {"stage": self._stage.value, "role": role, "stream": "system", "line": line}
        await self.write([NewEvent(EventType.LOG, data)], progress={said: True})

    async def about_to_make(self, resources: Sequence[tuple[ResourceKind, str, str | None]]) -> None:
        await self._journal.about_to_make(resources)


class Pipeline:
    """Runs the stages of one session's launch. Shared by all sessions; holds nothing of a run."""

    def __init__(self, db: Database, engine: Engine, tracing: Tracing, stages: Sequence[Stage]) -> None:
        self._db = db
        self._engine = engine
        self._tracing = tracing
        self._stages = {stage.name: stage for stage in stages}

    async def run(self, session: Session, owner: int) -> SessionStatus:
        """Carry the session's current run to its end, from wherever it stands.

        Returns the status it ended in. Raises `LostOwnership` when the run is not ours any more, and
        `DatabaseUnavailable` when nothing can be recorded now; both leave the run to be taken up again.
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
                error = SessionError(failure.code, failure.message, failure.hint, name.value)
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
        """One stage: told of, run, checkpointed. Its time counts from its first attempt, across restarts."""
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
            told = NewEvent(EventType.STAGE, {**position, "state": "failed", "duration_ms": duration})
            await journal.stage_ended(name, StageState.FAILED, [told], duration_ms=duration, error_code=failure.code)
            self._record_stage(identity, session, name, started_at, failure)
            raise
        state = StageState.SKIPPED if result.skipped else StageState.COMPLETED
        duration = _milliseconds(started_at)
        told = NewEvent(EventType.STAGE, {**position, "state": state.value, "duration_ms": duration})
        await journal.stage_ended(name, state, [*result.events, told], duration_ms=duration, result=result)
        crash_point(f"{name}:after-checkpoint")
        self._record_stage(identity, session, name, started_at, None)
        return replace(result.applied_to(session), pipeline_stage=name.value)

    async def _attempts(self, name: StageName, context: StageContext, journal: RunJournal) -> StageResult:
        """Run the stage; passing trouble is waited out a few times before it fails the launch."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                async with _ticking(journal):
                    return await self._stages[name].run(context)
            except (EngineError, GuestError) as error:
                if attempt == ATTEMPTS:
                    raise StageFailed(failure_code(name, error), error.message, error.hint) from error
                log.warning("stage %s met %s; trying again", name, error.code, extra={"cause": str(error)})
                await asyncio.sleep(0.5 * 2**attempt)
            except (StageFailed, LostOwnership, DatabaseUnavailable):
                raise
            except SandboxError as error:
                raise StageFailed(error.code, error.message, error.hint) from error
            except Exception as error:
                log.exception("stage %s failed by a mistake of ours", name)
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
        """The lessons this run's guest agents worked with. Safe to repeat after a restart."""
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
        """Whether each lesson helped: the run's failure code against what the lesson was learned from."""
        failed = StageName(error.stage) if error and error.stage else None
        # A skipped stage had nothing to do, so it shows nothing about a lesson.
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


class _ticking(AsyncExitStack):
    """Keep `pipeline_log` current every few seconds while a stage runs."""

    def __init__(self, journal: RunJournal) -> None:
        super().__init__()
        self._journal = journal

    async def __aenter__(self) -> _ticking:
        task = asyncio.create_task(self._tick())
        self.callback(task.cancel)
        return self

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(LOG_EVERY_SECONDS)
            try:
                await self._journal.update_log()
            except SandboxError as error:
                log.info("pipeline_log is behind for a moment: %s", error)
