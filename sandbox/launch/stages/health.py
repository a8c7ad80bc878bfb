"""Stage `health`: waits until every app answers, and looks at the preview as its visitor will.

An app may listen on any of the container's addresses. Which port it is, is decided in `launch/port_search.py`; what a
visitor gets, in `launch/visitor.py`. What is wrong with an app that runs is a warning and does not end the launch.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass

from sandbox.concurrency import for_each
from sandbox.domain.observations import LaunchWarning, Observations
from sandbox.domain.plan import LaunchPlan, RolePlan
from sandbox.domain.processes import ProcessKind
from sandbox.domain.stages import StageName
from sandbox.engine.guest import Guest
from sandbox.errors import GuestError
from sandbox.launch.causes.cause import Cause
from sandbox.launch.causes.finding import Causes
from sandbox.launch.command_failures import app_crashed, app_exited, app_never_answered
from sandbox.launch.crash_detection import CrashDetector
from sandbox.launch.door import PreviewDoor
from sandbox.launch.environment import PreviewUrl, role_root
from sandbox.launch.http_probe import Answer, direct
from sandbox.launch.local_addresses import local_addresses
from sandbox.launch.output import OutputFollower
from sandbox.launch.port_forwarding import PORT_CLAIM_GRACE_SECONDS, PortForwarding
from sandbox.launch.port_search import OTHER_SECONDS, Found, PortSearch
from sandbox.launch.stage import StageContext, StageResult
from sandbox.launch.visitor import App, Seen, look

#: The app is asked again after a tenth of the time for which it has been waited for, within these limits.
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0
#: After this long without the planned port, the log names the ports that are open.
OTHER_PORT_SECONDS = 5.0
#: Longest that publishing what the app printed before it answered may delay the launch.
CATCH_UP_SECONDS = 5.0
#: An app without a port counts as up when it has run for this long.
STABLE_SECONDS = 1.0


class HealthStage:
    name = StageName.HEALTH

    def __init__(
        self, timeout_seconds: float, door: PreviewDoor | None, preview_url: PreviewUrl, causes: Causes
    ) -> None:
        """`door` None: there is no proxy in front of this service, and apps are looked at through the guest agent."""
        self._timeout = timeout_seconds
        self._door = door
        self._preview_url = preview_url
        self._causes = causes

    async def run(self, context: StageContext) -> StageResult:
        roles = [role for role, plan in context.plan.roles.items() if plan.start]
        if not roles:
            return StageResult(skipped=True)
        forwarding = PortForwarding(context)
        all_up = asyncio.Barrier(len(roles))
        results = await for_each(
            roles,
            lambda role: _RoleHealth(
                context, role, self._timeout, forwarding, self._door, all_up, self._causes
            ).check(),
        )
        seen = {role: result for role, result in results.items() if result is not None}
        for result in seen.values():
            await _report(context, result)
        plan = forwarding.plan
        shown = seen.get(plan.preview_role or "")
        warnings = [result.seen.warning for result in seen.values() if result.seen.warning]
        for warning in await self._local_addresses(context, plan):
            await _warn(context, warning)
            warnings.append(warning)
        observations = Observations(
            tuple(warnings),
            shown.seen.path if shown else "/",
            tuple(result.found.port for result in seen.values() if result.found.answer.tls),
            shown.seen.frame_refusal if shown else None,
        )
        return StageResult(plan=plan if plan != context.plan else None, observations=observations)

    async def _local_addresses(self, context: StageContext, plan: LaunchPlan) -> list[LaunchWarning]:
        """What the code of the shown page asks at localhost. `plan` has the ports that the apps have opened."""
        if plan.preview_role is None:
            return []
        session_id = context.session.session_id
        opened = {
            port: each.port for role, each in plan.roles.items() for port in (context.plan.roles[role].port, each.port)
        }
        guest = context.engine.guest(session_id, plan.preview_role)
        ports = [port for port in opened if port is not None]
        return await local_addresses(guest, plan, ports, lambda port: self._preview_url(session_id, opened[port]))


@dataclass(frozen=True, slots=True)
class _Result:
    """One role's app with a port."""

    role: str
    found: Found
    seen: Seen


async def _report(context: StageContext, result: _Result) -> None:
    """Put what was seen into the launch's log."""
    if (warning := result.seen.warning) is not None:
        await _warn(context, warning)
    elif result.seen.path != "/":
        line = f"GET / answers no page, and GET {result.seen.path} does: the preview opens there"
        await context.journal.log_line(line, role=result.role)


async def _warn(context: StageContext, warning: LaunchWarning) -> None:
    line = f"warning: {warning.message.splitlines()[0].rstrip(':')}. {warning.hint}"
    await context.journal.log_line(line, role=warning.role, warning=warning.to_json())


class _RoleHealth:
    """One role in one attempt at the stage."""

    def __init__(
        self,
        context: StageContext,
        role: str,
        timeout: float,
        forwarding: PortForwarding,
        door: PreviewDoor | None,
        all_up: asyncio.Barrier,
        causes: Causes,
    ) -> None:
        self._context = context
        self._role = role
        self._plan: RolePlan = context.plan.roles[role]
        self._timeout = self._plan.health_timeout_seconds or timeout
        self._forwarding = forwarding
        self._door = door
        self._all_up = all_up
        self._causes = causes
        self._guest: Guest = context.engine.guest(context.session.session_id, role)
        self._process = context.process_name(ProcessKind.APP)
        self._follower = OutputFollower(self._guest, context.journal, StageName.HEALTH, role, self._process)
        self._search = PortSearch(self._plan)
        self._crash = CrashDetector()
        self._logged_other_ports = False

    async def check(self) -> _Result | None:
        """Wait for the app, then look at it once all roles are up. None for an app without a port."""
        following = asyncio.create_task(self._follower.follow())
        try:
            found = await self._wait_until_up(following)
            if found is not None:
                await self._log_ports(found)
            await self._forwarding.app_answers(self._role, found.port if found else None)
            # A page may need the other roles.
            await self._all_up.wait()
            seen = await self._look(found) if found else None
            await self._catch_up(following)
        finally:
            following.cancel()
            await asyncio.wait({following})
            await self._follower.flush()
        return _Result(self._role, found, seen) if found and seen else None

    async def _wait_until_up(self, following: asyncio.Task[None]) -> Found | None:
        process = await self._guest.process(self._process)
        began = process.started_at if process else time.time()
        while True:
            process = await self._guest.process(self._process)
            if process is None or not process.running:
                await asyncio.wait([following], timeout=2)
                raise app_exited(self._context.plan, self._role, process, await self._cause())
            waited = time.time() - began
            found = await self._search.look(self._guest, self._follower.tail)
            if found is not None and self._is_up(found.answer):
                return found
            if self._plan.port is None and self._is_stable(waited):
                return None
            connected = found is not None or self._search.planned is not None
            if not connected and await self._crash.has_crashed(self._guest, process, self._follower.tail):
                raise app_crashed(self._context.plan, self._role, await self._cause())
            if waited > self._timeout:
                answer = found.answer if found else self._search.planned
                ports = await self._guest.listening_ports()
                cause = await self._cause()
                raise app_never_answered(self._context.plan, self._role, answer, ports, self._timeout, cause)
            if waited > OTHER_PORT_SECONDS and not connected:
                await self._log_other_ports()
            if waited > PORT_CLAIM_GRACE_SECONDS:
                await self._forwarding.allow(self._role)
            await asyncio.sleep(min(max(FIRST_PAUSE, waited / 10), LONGEST_PAUSE))

    async def _cause(self) -> Cause:
        """What the app's output says of its failure."""
        session_id, root = self._context.session.session_id, role_root(self._context.plan, self._role)
        return await self._causes.explain(session_id, self._guest, self._follower.tail, root)

    @property
    def _named_path(self) -> str | None:
        """The health path that the project or its framework names; None if there is none."""
        return self._plan.health if self._plan.health != "/" or "health" in self._plan.stated else None

    def _is_up(self, answer: Answer) -> bool:
        """A named health path has to answer below 500. Otherwise any answer will do: what it is worth is seen later."""
        if answer.status is None:
            return answer.other_protocol
        return self._named_path is None or answer.status < 500

    def _is_stable(self, waited: float) -> bool:
        """Whether an app without a port counts as up: it opens none, or none that answers HTTP."""
        return waited > STABLE_SECONDS and (not self._search.open_ports or waited > STABLE_SECONDS + OTHER_SECONDS)

    async def _look(self, found: Found) -> Seen:
        """What a visitor of the preview gets from this app."""
        plan, session = self._forwarding.plan, self._context.session
        tls = found.answer.tls
        door = None
        if self._door is not None and plan.preview_role == self._role:
            with contextlib.suppress(GuestError):  # what is wrong is seen through the guest agent as well
                door = await self._door.entrance(session, found.port, self._role, tls=tls)
        app = App(
            role=self._role,
            port=found.port,
            guest=self._guest,
            root=role_root(plan, self._role),
            lines=lambda: list(self._follower.tail),
            cause=lambda: self._causes.find(session.session_id, self._follower.tail, role_root(plan, self._role)),
            inside=direct(self._guest, found.port, tls=tls),
            door=door,
            is_shown=plan.preview_role == self._role,
        )
        return await look(app, self._named_path)

    async def _log_ports(self, found: Found) -> None:
        """Name the ports that differ from the plan, and those that are open besides."""
        journal, session_id = self._context.journal, self._context.session.session_id
        if self._plan.port is not None and found.port != self._plan.port:
            line = (
                f"the app listens on port {found.port} instead of the detected {self._plan.port}: the preview follows"
            )
            await journal.log_line(line, role=self._role)
            if len(self._context.plan.roles) > 1:
                places = f"{self._role}:{self._plan.port} and localhost:{self._plan.port}"
                line = f"the other roles reach it at {places}, too"
                await journal.log_line(line, role=self._role)
        if others := [port for port in self._search.open_ports if port not in (found.port, self._plan.port)]:
            ports = ", ".join(f"{port} (preview: {port}-{session_id})" for port in others[:5])
            await journal.log_line(f"also open: {ports}", role=self._role)

    async def _log_other_ports(self) -> None:
        others = [port for port in await self._guest.listening_ports() if port != self._plan.port]
        if others and not self._logged_other_ports:
            ports = ", ".join(map(str, others))
            line = f"waiting for port {self._plan.port}; open so far: {ports}"
            await self._context.journal.log_line(line, role=self._role)
            self._logged_other_ports = True

    async def _catch_up(self, following: asyncio.Task[None]) -> None:
        """Read and publish what the app has printed so far, for at most `CATCH_UP_SECONDS`."""

        async def reach_the_end() -> None:
            reached = 0
            while (process := await self._guest.process(self._process)) is not None and process.output_end > reached:
                reached = process.output_end
                await self._follower.wait_until_read(reached)

        reaching = asyncio.create_task(reach_the_end())
        await asyncio.wait({reaching, following}, timeout=CATCH_UP_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        reaching.cancel()
        await asyncio.gather(reaching, return_exceptions=True)
