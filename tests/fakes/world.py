"""The parts of the service that launch and look after sessions, on the fake engine and a real database.

    session = await world.create_project(plan)
    status = await world.launch(session)

Tests construct and reach these parts through here, so that there is one place to adapt when they change.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from sandbox.db.connection import Database
from sandbox.domain.caller import Caller, CallerRole
from sandbox.domain.egress import PUBLIC, Egress
from sandbox.domain.events import Event, EventType
from sandbox.domain.plan import LaunchPlan, RolePlan
from sandbox.domain.session import Session, SessionStatus, Work
from sandbox.domain.variables import EnvValue
from sandbox.engine.base import Limits
from sandbox.errors import SandboxError
from sandbox.events import store as event_store
from sandbox.installs.archives import KeptInstalls
from sandbox.launch.causes.finding import Causes
from sandbox.launch.door import PreviewDoor
from sandbox.launch.kept_installs import InstallKeeper
from sandbox.launch.pipeline import Pipeline
from sandbox.launch.slots import LaunchSlots, WithoutSlot
from sandbox.launch.stage import Stage
from sandbox.launch.stages.containers import ContainersStage
from sandbox.launch.stages.dependencies import DependenciesStage
from sandbox.launch.stages.health import HealthStage
from sandbox.launch.stages.network import NetworkStage
from sandbox.launch.stages.plan import PlanStage
from sandbox.launch.stages.preview import PreviewStage
from sandbox.launch.stages.services import ServicesStage
from sandbox.launch.stages.workspace import WorkspaceStage
from sandbox.learning.launches.outcomes import Outcomes
from sandbox.learning.launches.plans import LaunchLessons, LessonOptions
from sandbox.learning.refinement.service import Refiner
from sandbox.learning.remedies import Deadlines
from sandbox.pool.keeper import PoolKeeper, PoolSize
from sandbox.projects.service import ProjectService
from sandbox.records.alerts.store import Alerts
from sandbox.sessions import store
from sandbox.sessions.create_request import CreateRequest
from sandbox.sessions.limits import SessionLimits
from sandbox.sessions.reconciler import Reconciler
from sandbox.sessions.recovery.service import RecoveryService
from sandbox.sessions.replica import Replica
from sandbox.sessions.run_origin import new_origin
from sandbox.sessions.service import SessionService
from sandbox.sessions.watcher import Watcher
from sandbox.telemetry.recorder import Recorder
from sandbox.telemetry.tracing import Tracing
from sandbox.workers import Workers
from tests.fakes.engine import FakeEngine
from tests.fakes.guest import FakeGuest
from tests.fakes.processes import Script, app
from tests.fakes.secrets import environments
from tests.fakes.source import FakeImages, FakeProjects
from tests.fakes.workers import InlineWorkers
from tests.waiting import WAIT_SECONDS

CALLER = Caller("ada", CallerRole.USER, "token")
#: More than any test makes.
MANY = 1000
#: The replica number under which `launch` claims sessions.
OWNER = 1
LEASE_SECONDS = 15.0
LIMITS = Limits(memory_bytes=256 << 20, cpus=1.0, pids=64)

#: The tables in which tests leave rows, those that refer to others first.
_WRITTEN = (
    "sandbox_sessions", "pool_containers", "alerts", "launch_failures", "agent_lesson_applications", "agent_lessons",
    "refined_test_results", "agent_refinement_runs", "agent_learning_stats",
)  # fmt: skip

INSTALL = "install dependencies"
START = "start the app"


def preview_url(session_id: UUID, port: int | None) -> str:
    return f"http://{f'{port}-' if port else ''}{session_id}.preview.test/"


def one_role(**changes: Any) -> LaunchPlan:
    """A plan of the role `main` that installs, starts and serves port 8000."""
    given = {"runtime": "python312", "install": INSTALL, "start": START, "port": 8000}
    return LaunchPlan(roles={"main": RolePlan(**(given | changes))})


def two_roles() -> LaunchPlan:
    """A plan of a front end on port 3000 and a back end on port 8000."""
    return LaunchPlan(
        roles={
            "frontend": RolePlan(runtime="node20", install=INSTALL, start=START, port=3000),
            "backend": RolePlan(runtime="python312", install=INSTALL, start=START, port=8000),
        }
    )


class Crash(BaseException):
    """Stands for the death of the process at a crash point: no code of the service catches it."""


class World:
    """One deployment. Not thread-safe."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.engine = FakeEngine()
        self.images = FakeImages()
        self.projects = FakeProjects(db)
        self.tracing = Tracing(Recorder(db))
        self.pool_size = PoolSize(0, 0)
        self.install_timeout_seconds = 60.0
        self.health_timeout_seconds = 60.0
        self.engine_wait_seconds = 60.0
        #: Keeps nothing.
        self.installs = KeptInstalls(Path("/nonexistent"), 0)
        #: No lot, so that a test knows whether a lesson is applied.
        self.lesson_options = LessonOptions(enabled=True, withheld_percent=0, deadlines=Deadlines(60, 60))
        self.causes = Causes(cast("Workers", InlineWorkers()))
        self.door: PreviewDoor | None = None
        self.environments = environments(db)
        self.secrets = self.environments.secrets
        self.sessions = SessionService(
            db,
            self.engine,
            cast("ProjectService", self.projects),
            SessionLimits(idle_timeout_seconds=0, max_lifetime_seconds=0, sessions_per_user=1000),
            ["python312", "node20"],
            environments=self.environments,
        )

    def stages(self, slots: LaunchSlots | None = None) -> list[Stage]:
        slots = slots or LaunchSlots(8, per_user=MANY)
        return [
            PlanStage(self.projects, LaunchLessons(self.db, self.lesson_options, Refiner(self.db).rework)),
            NetworkStage(),
            ContainersStage(
                self.images,
                LIMITS,
                lambda session_id, user_id: f"token-of-{user_id}",
                preview_url,
                pool=self.pool_size.most > 0,
            ),
            WorkspaceStage(self.projects),
            WithoutSlot(
                DependenciesStage(
                    self.install_timeout_seconds,
                    InstallKeeper(self.installs, self.images, lambda content: sha256(content).hexdigest()),
                    self.causes,
                ),
                slots,
            ),
            ServicesStage(),
            HealthStage(self.health_timeout_seconds, self.door, preview_url, self.causes),
            PreviewStage(lambda session_id: f"http://{session_id}.preview.test/"),
        ]

    def pipeline(self, slots: LaunchSlots | None = None) -> Pipeline:
        return Pipeline(
            self.db,
            self.engine,
            self.tracing,
            self.stages(slots),
            Outcomes(Alerts(notify=False)),
            environments=self.environments,
            engine_wait_seconds=self.engine_wait_seconds,
        )

    def keeper(self) -> PoolKeeper:
        return PoolKeeper(self.db, self.engine, self.images, ["python312", "node20"], LIMITS, self.pool_size)

    def recovery(self) -> RecoveryService:
        return RecoveryService(self.db, self.engine, Alerts(notify=False), new_origin)

    @asynccontextmanager
    async def watching(self, on_engine: Callable[[], None] = lambda: None) -> AsyncIterator[Watcher]:
        parts = (self.db, self.engine, self.environments, self.causes)
        watcher = Watcher(*parts, on_change=self.sessions.forget, on_engine=on_engine)
        await watcher.start()
        try:
            yield watcher
        finally:
            await watcher.close()

    @asynccontextmanager
    async def reconciling(
        self,
        *,
        concurrent_launches: int = 8,
        launches_per_user: int = MANY,
        launched: Callable[[UUID], None] = lambda _: None,
    ) -> AsyncIterator[Replica]:
        """A replica of the service that carries out what sessions are to have done."""
        slots = LaunchSlots(concurrent_launches, launches_per_user)
        replica = Replica(self.db)
        await replica.start()
        reconciler = Reconciler(
            self.db,
            self.engine,
            self.pipeline(slots),
            replica,
            slots=slots,
            lease_seconds=LEASE_SECONDS,
            on_launch_end=launched,
        )
        await reconciler.start()
        try:
            yield replica
        finally:
            await reconciler.close()
            await replica.close()

    async def create_blank(
        self, caller: Caller = CALLER, egress: Egress = PUBLIC, memory_mb: int | None = None
    ) -> Session:
        session, _ = await self.sessions.create(caller, CreateRequest(egress=egress, memory_mb=memory_mb), None)
        return session

    async def create_project(
        self, plan: LaunchPlan | SandboxError, *, scripted: bool = True, env: Mapping[str, EnvValue] | None = None
    ) -> Session:
        """A session of a new project. With `scripted`, every role's install succeeds and its app serves its port."""
        project_id = f"project-{uuid4().hex[:8]}"
        await self.projects.add(project_id, plan)
        session, _ = await self.sessions.create(CALLER, CreateRequest(project_id=project_id, env=env or {}), None)
        if scripted and isinstance(plan, LaunchPlan):
            for role, what in plan.roles.items():
                guest = self.guest(session, role)
                guest.script("install", Script(f"installed {role}\n".encode()))
                guest.script("app", app(what.port) if what.port else Script(b"working\n", exit_code=None))
        return session

    def guest(self, session: Session, role: str = "main") -> FakeGuest:
        return self.engine.guest(session.session_id, role)

    async def claim(self, session: Session) -> Session:
        """Make `OWNER` the owner of the session's work, whoever had it."""
        async with self.db.transaction() as conn:
            await conn.execute(
                text("UPDATE sandbox_sessions SET owner = NULL WHERE session_id = :id AND owner IS NOT NULL"),
                {"id": session.session_id},
            )
            claimed = await store.claim(
                conn, OWNER, Work.LAUNCH, running=[], limit=MANY, lease=LEASE_SECONDS, per_user=MANY
            )
        return next(one for one in claimed if one.session_id == session.session_id)

    async def launch(self, session: Session) -> SessionStatus:
        """Claim the session and carry its current run to its end."""
        return await self.pipeline().run(await self.claim(session), OWNER)

    async def launched(self, plan: LaunchPlan) -> Session:
        """A session of a new project that runs."""
        session = await self.create_project(plan)
        assert await self.launch(session) is SessionStatus.RUNNING
        return await self.read(session)

    async def relaunch(self, session: Session, memory_mb: int | None = None) -> Session:
        return await self.sessions.relaunch(CALLER, session.session_id, memory_mb=memory_mb)

    async def terminate(self, session: Session) -> Session:
        return await self.sessions.terminate(CALLER, session.session_id)

    async def read(self, session: Session) -> Session:
        return await self.sessions.get(replace(CALLER, user_id=session.user_id), session.session_id)

    async def until(self, session: Session, condition: Callable[[Session], bool]) -> Session:
        """Poll the session's row until the condition holds for it."""

        async def holds() -> bool:
            return condition(await self.read(session))

        await eventually(holds)
        return await self.read(session)

    async def until_status(self, session: Session, status: SessionStatus) -> Session:
        return await self.until(session, lambda row: row.status is status and row.work is None)

    async def events(self, session: Session, *types: EventType) -> list[Event]:
        """The session's events in order; with types, only these."""
        events, _ = await event_store.read(self.db, session.session_id, after=0, limit=10_000)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        return [event for event in events if not types or event.type in types]

    async def stages_of(self, session: Session) -> list[tuple[str, str]]:
        """The stage events of the session: (stage, state), in order."""
        return [(event.data["stage"], event.data["state"]) for event in await self.events(session, EventType.STAGE)]

    async def lines(self, session: Session) -> list[str]:
        """The lines of the session's log events, in order."""
        return [event.data["line"] for event in await self.events(session, EventType.LOG)]

    async def assert_whole(self, session: Session, stages: Sequence[str]) -> None:
        """The run of these stages is recorded once: each stage, each line, one end."""
        recorded = Counter(await self.stages_of(session))
        assert {stage for stage, _ in recorded} == set(stages)
        assert set(recorded.values()) == {1}
        assert [event.type for event in await self.events(session)][-1] is EventType.END
        assert len(await self.events(session, EventType.END)) == 1
        lines = Counter(await self._lines_by_role(session))
        assert set(lines.values()) <= {1}, lines

    async def execute(self, statement: str, **values: Any) -> None:
        async with self.db.transaction() as conn:
            await conn.execute(text(statement), values)

    async def aclose(self) -> None:
        await self.engine.aclose()
        # In one statement, because hundreds of tests do this.
        await self.execute(f"DO $$ BEGIN {' '.join(f'DELETE FROM {table};' for table in _WRITTEN)} END $$")

    async def _lines_by_role(self, session: Session) -> list[tuple[str, str]]:
        return [(event.data["role"], event.data["line"]) for event in await self.events(session, EventType.LOG)]


def crash_at(monkeypatch: pytest.MonkeyPatch, name: str) -> list[str]:
    """Raise `Crash` at the crash point of this name, once; the list of all points that were passed."""
    passed: list[str] = []

    def crash_point(point: str) -> None:
        passed.append(point)
        if point == name and passed.count(point) == 1:
            raise Crash(point)

    monkeypatch.setattr("sandbox.launch.pipeline.crash_point", crash_point)
    return passed


class QuickAsyncio:
    """Stands in for the module `asyncio` in a module under test whose `sleep` need not take its time.

    Sleeps of up to `longest` seconds are shortened by `factor`; longer ones are left as they are.
    """

    def __init__(self, factor: float = 0.01, longest: float = math.inf) -> None:
        self._factor = factor
        self._longest = longest
        #: The seconds of the sleeps that were shortened.
        self.slept: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, seconds: float) -> None:
        if seconds > self._longest:
            await asyncio.sleep(seconds)
        else:
            self.slept.append(seconds)
            await asyncio.sleep(seconds * self._factor)


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Poll until the condition holds. Raises TimeoutError."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not await condition():
            await asyncio.sleep(0.01)
