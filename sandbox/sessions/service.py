"""What callers can do with sessions. Each operation is one short transaction; the reconciler does the work."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

from cachetools import TTLCache

from sandbox.concurrency import for_each
from sandbox.db.connection import Database
from sandbox.db.last_known import LastKnown
from sandbox.domain.caller import Caller
from sandbox.domain.redaction import Redactor
from sandbox.domain.session import Session, SessionStatus, Work
from sandbox.domain.variables import SessionValues, referred
from sandbox.engine.base import Engine
from sandbox.engine.guest import Guest
from sandbox.engine.guest_data import RunningProcess
from sandbox.errors import Conflict, GuestError, InvalidInput, Kind, NotFound, SandboxError
from sandbox.events import store as events
from sandbox.events.pipeline_log import read_pipeline_log
from sandbox.events.store import Position
from sandbox.launch.environment import role_environment
from sandbox.projects.project import ProjectRef, RequestedPlan
from sandbox.projects.service import ProjectService
from sandbox.secrets.environments import Environments
from sandbox.sessions import store, usage
from sandbox.sessions.activity import Activity
from sandbox.sessions.app_output import app_lines, read_resume
from sandbox.sessions.create_request import CreateRequest, NewSession
from sandbox.sessions.failed_requests import FailedRequests
from sandbox.sessions.limits import SessionLimits, at_most, weight
from sandbox.sessions.run_origin import new_origin

log = logging.getLogger(__name__)

#: How long a session's row is cached for commands.
CACHE_SECONDS = 1.0
_CACHE_SIZE = 1024
#: Memory for the rows that are known while the database does not answer, in bytes, roughly.
_KNOWN_BYTES = 16 * 1024 * 1024


class SessionService:
    """Creates, reads, terminates and relaunches sessions on behalf of a caller.

    A session of another user is reported as not found, except to admins.
    """

    def __init__(
        self,
        db: Database,
        engine: Engine,
        projects: ProjectService,
        limits: SessionLimits,
        runtimes: Sequence[str],
        *,
        environments: Environments,
        require_room: Callable[[], None] = lambda: None,
    ) -> None:
        """`require_room` raises `disk_low` while there is too little disk space for something new."""
        self._db = db
        self._environments = environments
        self._require_room = require_room
        self._engine = engine
        self._projects = projects
        self._limits = limits
        self._runtimes = runtimes
        self._cache: TTLCache[UUID, Session] = TTLCache(_CACHE_SIZE, CACHE_SECONDS)
        #: For commands while the database does not answer. The owner of a session never changes, and where its row is
        #: out of date its guest agent says so.
        self._known: LastKnown[UUID, Session] = LastKnown(_KNOWN_BYTES, weigh=weight)
        self._activity = Activity(db)
        #: Of previews.
        self.failed_requests = FailedRequests()

    async def start(self) -> None:
        await self._activity.start()

    async def close(self) -> None:
        await self._activity.close()

    async def create(self, caller: Caller, request: CreateRequest, idempotency_key: str | None) -> tuple[Session, bool]:
        """Insert a session whose launch the reconciler will do.

        Returns the session, and False if an earlier request with this idempotency key has created it. Raises Conflict
        if the key was used with a different request, InvalidInput for an unknown runtime or an invalid plan, NotFound
        for an unknown project, SandboxError (`too_many_sessions`) at the user's limit, and DiskLow.
        """
        digest = request.digest(self._environments.keys) if idempotency_key else None
        if idempotency_key:
            # This comes before the checks, because the project may have been deleted since the first request.
            async with self._db.read() as conn:
                earlier = await store.by_idempotency_key(conn, caller.user_id, idempotency_key)
            if earlier:
                return _same_request(earlier, digest), False
        self._require_room()
        self._limits.check_memory(request.memory_mb)
        plan, withheld = request.withheld()
        reference = await self._reference(caller, request, plan)
        runtime = reference.runtime_type if reference else request.runtime_type or self._limits.default_runtime
        if runtime not in self._runtimes:
            known = ", ".join(self._runtimes)
            raise InvalidInput(f"there is no runtime {runtime!r}", hint=f"Known are: {known}.", code="runtime_unknown")
        new = await self._new_session(caller, request, reference, plan, withheld, runtime)
        new = replace(new, idempotency_key=idempotency_key, request_digest=digest)
        async with self._db.transaction() as conn:
            # `count_live` locks the user, so of concurrent requests with one key all but the first find the session.
            live = await store.count_live(conn, caller.user_id)
            if idempotency_key:
                earlier = await store.by_idempotency_key(conn, caller.user_id, idempotency_key)
                if earlier:
                    return _same_request(earlier, digest), False
            self._limits.check_number(caller.user_id, live)
            session = await store.insert(conn, new, new_origin())
            if session is None:
                raise Conflict("another request with this Idempotency-Key is under way", code="idempotency_conflict")
        return session, True

    async def _new_session(
        self,
        caller: Caller,
        request: CreateRequest,
        reference: ProjectRef | None,
        plan: RequestedPlan | None,
        withheld: dict[str, str],
        runtime: str,
    ) -> NewSession:
        """The row of a new session. `plan` refers to the values that are `withheld` from it."""
        session_id = uuid4()
        names = referred(request.env) | (reference.secrets if reference else frozenset())
        values = await self._environments.complete(
            caller.user_id, request.project_id, SessionValues(request.env, withheld), names
        )
        return NewSession(
            session_id=session_id,
            user_id=caller.user_id,
            project_id=request.project_id,
            project_digest=reference.digest if reference else None,
            runtime_type=runtime,
            sealed=self._environments.seal(session_id, values),
            egress=request.egress,
            agents=request.agents,
            requested_plan=plan,
            pipeline_run_id=request.pipeline_run_id,
            idle_timeout_seconds=at_most(self._limits.idle_timeout_seconds, request.idle_timeout_seconds),
            max_lifetime_seconds=at_most(self._limits.max_lifetime_seconds, request.max_lifetime_seconds),
            lessons=request.lessons,
            memory_mb=request.memory_mb,
        )

    async def _reference(self, caller: Caller, request: CreateRequest, plan: RequestedPlan | None) -> ProjectRef | None:
        if request.project_id:
            return await self._projects.reference(caller, request.project_id, plan)
        if plan:
            raise InvalidInput(
                "plan: a session without a project has none",
                hint="Give the project_id of an uploaded project beside the plan.",
                code="plan_invalid",
            )
        return None

    async def get(self, caller: Caller, session_id: UUID) -> Session:
        """The session; NotFound when there is none or it is another's."""
        session = await self._read(session_id)
        if session is not None:
            self._known.put(session_id, session)
        return _visible(caller, session_id, session)

    async def find(self, session_id: UUID) -> Session | None:
        """The session, as it was last read while the database does not answer.

        Without a check of the caller: the preview does its own.
        """
        return await self._known.read(session_id, lambda: self._read(session_id))

    async def _read(self, session_id: UUID) -> Session | None:
        async with self._db.read() as conn:
            return await store.get(conn, session_id)

    async def list_page(
        self, caller: Caller, filters: dict[str, str | None], limit: int, cursor: str | None
    ) -> tuple[list[Session], str | None]:
        """See `store.list_page`."""
        async with self._db.read() as conn:
            return await store.list_page(conn, caller, filters, limit, cursor)

    async def terminate(self, caller: Caller, session_id: UUID) -> Session:
        """Request the termination of the session. Idempotent, also after the session has ended."""
        session = await self.get(caller, session_id)
        async with self._db.transaction() as conn:
            return await store.request_termination(conn, session_id) or session

    async def relaunch(
        self, caller: Caller, session_id: UUID, pipeline_run_id: str | None = None, memory_mb: int | None = None
    ) -> Session:
        """Start a new run of the pipeline with the current version of the project and the current values of secrets,
        and from now on with this memory of each container, in MiB.

        Raises Conflict while the session has other work, SandboxError (`session_over`) after its end, and DiskLow.
        """
        session = await self.get(caller, session_id)
        self._refuse_ended(session)
        self._require_room()
        self._limits.check_memory(memory_mb)
        digest, earlier = None, self._environments.opened(session).values
        names = referred(earlier.env)
        if session.project_id:
            reference = await self._projects.reference(caller, session.project_id, session.requested_plan)
            digest, names = reference.digest, names | reference.secrets
        values = await self._environments.complete(session.user_id, session.project_id, earlier, names)
        sealed = self._environments.seal(session_id, values)
        async with self._db.transaction() as conn:
            again = await store.relaunch(
                conn,
                session_id,
                session.status,
                digest,
                pipeline_run_id,
                new_origin(),
                memory_mb=memory_mb,
                sealed=sealed,
            )
        if again is None:
            raise Conflict(
                "a launch of this session is under way",
                hint="Follow it to its end first: sandbox logs, or GET …/events.",
                code="session_busy",
            )
        return again

    async def renew(self, caller: Caller, session_id: UUID, seconds: int) -> Session:
        """Put the session's expiry off to `seconds` from now, if that is later and within the operator's limit."""
        session = await self.get(caller, session_id)
        async with self._db.transaction() as conn:
            renewed = await store.renew(conn, session_id, seconds, self._limits.max_lifetime_seconds)
        if renewed is None:
            self._refuse_ended(session)
            raise Conflict("the session has ended meanwhile", code="session_over")
        return renewed

    async def pipeline_log(self, caller: Caller, session_id: UUID) -> str:
        """The text of the session's events, of all its runs."""
        await self.get(caller, session_id)
        async with self._db.read() as conn:
            return await read_pipeline_log(conn, session_id)

    async def position(self, caller: Caller, session_id: UUID) -> Position:
        """The end of the session's event log."""
        await self.get(caller, session_id)
        _, position = await events.read(self._db, session_id, after=2**62, limit=1)
        if position is None:
            raise NotFound(f"there is no session {session_id}", code="session_not_found")
        return position

    async def app_lines(
        self, caller: Caller, session_id: UUID, roles: Sequence[str], *, follow: bool, resume: str | None
    ) -> AsyncIterator[bytes]:
        """The output of the apps of some roles, or of all if none is named, as encoded SSE. `resume` is the id of the
        last event that the client has received."""
        session = await self.get(caller, session_id)
        guests = self.guests_of(session, roles or list(session.containers))
        session = self._environments.opened(session)
        return self._touching(session_id, app_lines(session, guests, read_resume(session, resume), follow=follow))

    async def _touching(self, session_id: UUID, lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Pass the lines on, and count each as activity of the session."""
        async for line in lines:
            self.touch(session_id)
            yield line

    async def stats(self, session: Session) -> dict[str, dict[str, Any]]:
        """See `usage.measure`. Raises SandboxError (`session_over`)."""
        self._refuse_ended(session)
        return await usage.measure(self._engine, session)

    async def stats_history(self, session: Session) -> dict[str, list[dict[str, Any]]]:
        """See `usage.history`. Raises SandboxError (`session_over`)."""
        self._refuse_ended(session)
        return await usage.history(self._engine, session)

    async def running_processes(
        self, caller: Caller, session_id: UUID, role: str | None
    ) -> dict[str, list[RunningProcess]]:
        """What runs in the containers of all roles, or in that of one, by role."""
        session = await self._cached(caller, session_id)
        self.guest_of(session, role)

        async def one(name: str) -> list[RunningProcess]:
            return await self._engine.guest(session_id, name).running_processes()

        return await for_each([role] if role else session.containers, one)

    async def guest(self, caller: Caller, session_id: UUID, role: str | None) -> tuple[Guest, str]:
        """The guest agent of a role's container (by default the first role's), and the role."""
        return self.guest_of(await self._cached(caller, session_id), role)

    async def commands(
        self, caller: Caller, session_id: UUID, role: str | None
    ) -> tuple[Guest, dict[str, str], Redactor]:
        """The guest agent of a role's container, the environment of commands and terminals in it, and what hides the
        session's secrets in their output.

        It is that of the role's app: the programs of its virtualenv and node_modules are on `PATH`, and the variables
        of the plan and of the session are set.
        """
        session = await self._cached(caller, session_id)
        guest, chosen = self.guest_of(session, role)
        if session.plan is None:
            return guest, session.values.resolve(session.values.env), session.values.redactor()
        return guest, role_environment(session, session.plan, chosen), session.values.redactor()

    async def _cached(self, caller: Caller, session_id: UUID) -> Session:
        """The session, whose row may be `CACHE_SECONDS` old, because clients send many commands a second.

        While the database does not answer, it is the row that was read last. If the session ended meanwhile, its guest
        agent does not answer.
        """
        session = self._cache.get(session_id)
        if session is None or not caller.may_see(session.user_id):
            session = self._environments.opened(_visible(caller, session_id, await self.find(session_id)))
            if session.containers and session.work is None:
                self._cache[session_id] = session
        return session

    def redactor(self, session: Session) -> Redactor:
        """What hides the session's secrets in output of its apps."""
        return self._environments.opened(session).values.redactor()

    def forget(self, session_id: UUID) -> None:
        """Read the session's row again for its next command, because it has changed."""
        self._cache.pop(session_id, None)

    def guest_of(self, session: Session, role: str | None) -> tuple[Guest, str]:
        """See `guest`; of a session that the caller has read already."""
        self._refuse_ended(session)
        if (silence := session.silence) is not None:
            raise GuestError(silence.message, hint=silence.hint, code=silence.code)
        if not session.containers:
            raise Conflict(
                "the session's containers are not up yet",
                hint="Wait for the stage `containers`.",
                code="session_not_ready",
            )
        chosen = role or next(iter(session.containers))
        if chosen not in session.containers:
            raise NotFound(
                f"the session has no role {chosen!r}",
                hint=f"Its roles: {', '.join(session.containers)}.",
                code="role_not_found",
            )
        self.touch(session.session_id)
        return self._engine.guest(session.session_id, chosen), chosen

    def guests_of(self, session: Session, roles: Sequence[str]) -> dict[str, Guest]:
        """The guest agents of some roles' containers, by default of the first role's; see `guest_of`."""
        found = [self.guest_of(session, role) for role in roles] or [self.guest_of(session, None)]
        return {role: guest for guest, role in found}

    def touch(self, session_id: UUID) -> None:
        """Record activity of the session. It is written a little later."""
        self._activity.touch(session_id)

    @staticmethod
    def _refuse_ended(session: Session) -> None:
        if session.status is SessionStatus.TERMINATED or session.work is Work.TERMINATE:
            raise SandboxError(
                "the session is over", hint="Create a new one: sandbox create.", code="session_over", kind=Kind.GONE
            )


def _visible(caller: Caller, session_id: UUID, session: Session | None) -> Session:
    """The session, if there is one and the caller may see it. Raises NotFound."""
    if session is None or not caller.may_see(session.user_id):
        raise NotFound(f"there is no session {session_id}", hint="List yours: sandbox list.", code="session_not_found")
    return session


def _same_request(earlier: tuple[Session, str | None], digest: str | None) -> Session:
    session, earlier_digest = earlier
    if earlier_digest not in (None, digest):
        raise Conflict(
            "this Idempotency-Key was used for another request", hint="Use a new key.", code="idempotency_conflict"
        )
    return session
