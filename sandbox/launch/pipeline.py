"""The launch pipeline: runs the stages in order, checkpoints each of them, and measures their time.

A stage that has a checkpoint is not run again in the same run. A stage that was interrupted when the service died is
run again and checks what exists. `attempts.py` decides what follows from an error: the stage is tried again, the launch
waits, containers are replaced and some stages done again, or the run ends.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import zip_longest
from typing import Any

from sandbox.crashpoints import crash_point
from sandbox.db.connection import Database
from sandbox.domain.events import EventType, NewEvent
from sandbox.domain.session import Session, SessionError, SessionStatus
from sandbox.domain.stages import BLANK_STAGES, PROJECT_STAGES, StageName, StageState
from sandbox.engine.base import Engine, ResourceKind
from sandbox.errors import StageFailed
from sandbox.launch.attempts import Attempts
from sandbox.launch.losses import ContainersLost
from sandbox.launch.stage import RoleContainer, Stage, StageContext
from sandbox.launch.store import RunIdentity, RunJournal, StageRecord, now
from sandbox.learning.applications import record_applications
from sandbox.learning.launches.outcomes import Outcomes
from sandbox.secrets.environments import Environments
from sandbox.telemetry.context import bind
from sandbox.telemetry.tracing import Tracing, new_ids

log = logging.getLogger(__name__)


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

    async def record_containers(self, roles: Mapping[str, str | None]) -> dict[str, RoleContainer]:
        return await self._journal.record_containers(roles)


class Pipeline:
    """Runs the stages of launches. One object serves all sessions; it has no state of a run."""

    def __init__(
        self,
        db: Database,
        engine: Engine,
        tracing: Tracing,
        stages: Sequence[Stage],
        outcomes: Outcomes,
        *,
        environments: Environments,
        engine_wait_seconds: float,
    ) -> None:
        """`engine_wait_seconds` is the longest that a launch waits for an engine that is away."""
        self._db = db
        self._engine = engine
        self._tracing = tracing
        self._outcomes = outcomes
        self._environments = environments
        by_name = {stage.name: stage for stage in stages}
        self._attempts = Attempts(engine, by_name, engine_wait_seconds=engine_wait_seconds)

    async def run(self, session: Session, owner: int) -> SessionStatus:
        """Carry out the session's current run, from its last checkpoint to its end.

        `owner` is the number of this replica, which has claimed the session. Returns the status in which the run ended.
        Raises `LostOwnership` when another replica owns the run or it was cancelled, `DatabaseUnavailable` when nothing
        can be recorded, and `LaunchWaits` when the engine is away; after each the run can be resumed.
        """
        session = self._environments.opened(session)
        journal = RunJournal(self._db, session, owner)
        identity = await journal.identity()
        with bind(request_id=identity.request_id):
            return await self._run(session, journal, identity)

    async def _run(self, session: Session, journal: RunJournal, identity: RunIdentity) -> SessionStatus:
        names = PROJECT_STAGES if session.project_id else BLANK_STAGES
        await self._record_lessons(session)
        repeat, error = True, None
        while repeat:
            session, error, repeat = await self._run_stages(session, journal, identity, names)
        return await self._finish(session, journal, identity, error)

    async def _run_stages(
        self, session: Session, journal: RunJournal, identity: RunIdentity, names: Sequence[StageName]
    ) -> tuple[Session, SessionError | None, bool]:
        """Run the stages without a checkpoint.

        Returns the session as it is then, the error of a stage that failed, and whether stages are to be done again
        because containers were lost.
        """
        records = await journal.stages()
        done = (StageState.COMPLETED, StageState.SKIPPED)
        left = [name for name in names if name not in records or records[name].state not in done]
        positions = {
            name: {"stage": name.value, "index": index, "total": len(names)}
            for index, name in enumerate(names, start=1)
        }
        if left and _begins(records.get(left[0])):
            crash_point(f"{left[0]}:before-start")
            await journal.stage_started(left[0], _stage_event(positions[left[0]], "started"))
            records[left[0]] = _started(records.get(left[0]))
        for name, following in zip_longest(left, left[1:]):
            begun = following if following is not None and _begins(records.get(following)) else None
            starts = {begun: _stage_event(positions[begun], "started")} if begun else {}
            try:
                session = await self._run_stage(
                    session, journal, identity, name, positions[name], records[name], starts
                )
            except StageFailed as failure:
                error = SessionError(failure.code, failure.message, failure.hint, name.value, failure.details)
                return session, error, False
            except ContainersLost as lost:
                log.warning("containers were lost at stage %s and are replaced: %s", name, lost)
                return replace(session, waiting=None), None, True
            if begun:
                records[begun] = _started(records.get(begun))
        return session, None, False

    async def _run_stage(
        self,
        session: Session,
        journal: RunJournal,
        identity: RunIdentity,
        name: StageName,
        position: dict[str, Any],
        record: StageRecord,
        starts: Mapping[StageName, NewEvent],
    ) -> Session:
        """Run one stage and write its checkpoint; the session as it is after that. Raises StageFailed.

        The checkpoint also starts the next stage, if `starts` has it, with this event. The duration counts from the
        stage's first attempt, across restarts of the service.
        """
        started_at = record.started_at
        bound = _BoundJournal(journal, name, dict(record.progress))
        context = StageContext(session, self._engine, bound)
        try:
            crash_point(f"{name}:before-act")
            result = await self._attempts.run(name, context, journal)
            crash_point(f"{name}:after-act")
        except StageFailed as error:
            failure = _redacted(error, session)
            duration = _milliseconds(started_at)
            event = _stage_event(position, "failed", duration_ms=duration)
            await journal.stage_ended(name, StageState.FAILED, [event], duration_ms=duration, error_code=failure.code)
            self._record_stage(identity, session, name, started_at, failure)
            raise failure from error
        state = StageState.SKIPPED if result.skipped else StageState.COMPLETED
        duration = _milliseconds(started_at)
        events = [*result.events, _stage_event(position, state.value, duration_ms=duration), *starts.values()]
        following = next(iter(starts), None)
        await journal.stage_ended(name, state, events, duration_ms=duration, result=result, following=following)
        crash_point(f"{name}:after-checkpoint")
        self._record_stage(identity, session, name, started_at, None)
        return replace(result.applied_to(context.session), pipeline_stage=name.value)

    async def _finish(
        self, session: Session, journal: RunJournal, identity: RunIdentity, error: SessionError | None
    ) -> SessionStatus:
        status = SessionStatus.ERROR if error else session.healthy_status
        crash_point("end:before-checkpoint")
        records = await journal.stages()
        async with self._db.transaction() as conn:
            await journal.finish(conn, status, error, SessionStatus.CREATING)
            states = {name: record.state for name, record in records.items()}
            await self._outcomes.record(conn, session, error, states)
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
                runtime=session.runtime_type,
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


def _redacted(failure: StageFailed, session: Session) -> StageFailed:
    """The failure without values of secrets, which the output that it quotes may contain."""
    hide = session.values.redactor()
    details = hide.json(failure.details) if failure.details else None
    return StageFailed(failure.code, hide.text(failure.message), hide.text(failure.hint), details=details)


def _begins(record: StageRecord | None) -> bool:
    """Whether a stage without a checkpoint is not under way."""
    return record is None or record.state is StageState.FAILED


def _started(record: StageRecord | None) -> StageRecord:
    """The record of a stage that was started just now. What it had recorded before a repetition stays."""
    return StageRecord(StageState.STARTED, now(), record.progress if record else {})


def _stage_event(position: Mapping[str, Any], state: str, **more: Any) -> NewEvent:
    return NewEvent(EventType.STAGE, {**position, "state": state, **more})


def _attributes(session: Session, code: str | None) -> dict[str, Any]:
    found = {"session.id": str(session.session_id), "run.id": str(session.run_id), "user_id": session.user_id}
    if session.project_id:
        found["project.id"] = session.project_id
    if code:
        found["error.code"] = code
    return found


def _milliseconds(start: datetime) -> int:
    return max(0, round((now() - start).total_seconds() * 1000))
