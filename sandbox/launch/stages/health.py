"""Stage `health`: waits until every app answers on its planned port, and publishes what it prints meanwhile.

The probe goes through the guest agent's tunnel to the container's loopback address, so an app may listen on 127.0.0.1
or ::1 only.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from sandbox.concurrency import for_each
from sandbox.domain.plan import RolePlan
from sandbox.domain.processes import ProcessKind
from sandbox.domain.stages import StageName
from sandbox.engine.guest import Guest, ProcessInfo
from sandbox.errors import StageFailed
from sandbox.launch.crash_detection import IDLE_SECONDS, CrashDetector
from sandbox.launch.output import OutputFollower, offending_lines
from sandbox.launch.port_forwarding import PORT_CLAIM_GRACE_SECONDS, PortForwarding
from sandbox.launch.probe import ProbeResult, probe
from sandbox.launch.process_exit import describe_exit
from sandbox.launch.stage import StageContext, StageResult

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0
#: After this long without the planned port, the log names the ports that are open.
OTHER_PORT_SECONDS = 5.0
#: Longest that publishing what the app printed before it answered may delay the launch.
CATCH_UP_SECONDS = 5.0
#: An app without a port counts as up when it has run for this long.
STABLE_SECONDS = 1.0
#: Exit code of a shell that cannot find the program.
NO_SUCH_PROGRAM = 127


@dataclass(slots=True)
class _Observed:
    """What is known of one role's app so far."""

    probe: ProbeResult | None = None
    logged_other_ports: bool = False
    crash: CrashDetector = field(default_factory=CrashDetector)

    @property
    def connected(self) -> bool:
        return self.probe is not None and self.probe.connected


class HealthStage:
    name = StageName.HEALTH

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout = timeout_seconds

    async def run(self, context: StageContext) -> StageResult:
        roles = [role for role, plan in context.plan.roles.items() if plan.start]
        if not roles:
            return StageResult(skipped=True)
        forwarding = PortForwarding(context)
        await for_each(roles, lambda role: self._await_app(context, role, forwarding))
        return StageResult()

    async def _await_app(self, context: StageContext, role: str, forwarding: PortForwarding) -> None:
        guest = context.engine.guest(context.session.session_id, role)
        name = context.process_name(ProcessKind.APP)
        follower = OutputFollower(guest, context.journal, self.name, role, name)
        following = asyncio.create_task(follower.follow())
        try:
            await self._wait_until_up(context, role, guest, name, follower, following, forwarding)
            await forwarding.app_answers(role)
        finally:
            following.cancel()
            await asyncio.wait({following})
            await follower.flush()

    async def _wait_until_up(
        self,
        context: StageContext,
        role: str,
        guest: Guest,
        name: str,
        follower: OutputFollower,
        following: asyncio.Task[None],
        forwarding: PortForwarding,
    ) -> None:
        plan = context.plan.roles[role]
        observed = _Observed()
        process = await guest.process(name)
        began = process.started_at if process else time.time()
        pause = FIRST_PAUSE
        while True:
            process = await guest.process(name)
            if process is None or not process.running:
                await asyncio.wait([following], timeout=2)
                raise _exited(role, plan, process, list(follower.tail))
            waited = time.time() - began
            if await self._is_up(plan, guest, observed, waited):
                await _catch_up(guest, name, follower, following)
                return
            if not observed.connected and await observed.crash.has_crashed(guest, process, follower.tail):
                raise _crashed(role, plan, list(follower.tail))
            timeout = plan.health_timeout_seconds or self._timeout
            if waited > timeout:
                raise await _never_answered(role, plan, guest, observed, timeout, list(follower.tail))
            if waited > OTHER_PORT_SECONDS and not observed.logged_other_ports and not observed.connected:
                await self._log_other_ports(context, role, plan, guest, observed)
            if waited > PORT_CLAIM_GRACE_SECONDS:
                await forwarding.allow(role)
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, LONGEST_PAUSE)

    async def _is_up(self, plan: RolePlan, guest: Guest, observed: _Observed, waited: float) -> bool:
        if plan.port is None:
            return waited > STABLE_SECONDS
        observed.probe = await probe(guest, plan.port, plan.health)
        return observed.probe.healthy

    async def _log_other_ports(
        self, context: StageContext, role: str, plan: RolePlan, guest: Guest, observed: _Observed
    ) -> None:
        if open_ports := await guest.listening_ports():
            ports = ", ".join(map(str, open_ports))
            await context.journal.log_line(f"waiting for port {plan.port}; open so far: {ports}", role=role)
            observed.logged_other_ports = True


async def _catch_up(guest: Guest, name: str, follower: OutputFollower, following: asyncio.Task[None]) -> None:
    """Read and publish what the app has printed so far, for at most `CATCH_UP_SECONDS`."""

    async def reach_the_end() -> None:
        reached = 0
        while (process := await guest.process(name)) is not None and process.output_end > reached:
            reached = process.output_end
            await follower.wait_until_read(reached)

    reaching = asyncio.create_task(reach_the_end())
    await asyncio.wait({reaching, following}, timeout=CATCH_UP_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    reaching.cancel()
    await asyncio.gather(reaching, return_exceptions=True)


def _exited(role: str, plan: RolePlan, ended: ProcessInfo | None, tail: list[str]) -> StageFailed:
    if ended is not None and ended.out_of_memory:
        return StageFailed(
            "out_of_memory",
            f"{role}: `{plan.start}` was killed because the container ran out of memory",
            "Raise SANDBOX_MEMORY_MB, or have the app use less.",
        )
    lines = offending_lines(tail)
    output = f":\n{lines}" if lines else " and printed nothing"
    message = f"{role}: `{plan.start}` {describe_exit(ended)} before it answered{output}"
    return StageFailed("app_exited", message, _exit_hint(ended))


def _exit_hint(ended: ProcessInfo | None) -> str:
    if ended is not None and ended.exit_code == NO_SUCH_PROGRAM:
        return "Add the missing program to the project's dependencies, upload again and relaunch."
    if ended is not None and ended.exit_code == 0:
        return "The start command has to run the server itself, in the foreground, for as long as it serves."
    return "Correct the app, upload again and relaunch; `sandbox exec` runs the command by hand."


def _crashed(role: str, plan: RolePlan, tail: list[str]) -> StageFailed:
    return StageFailed(
        "app_exited",
        f"{role}: `{plan.start}` failed and waits for its code to change: it has done nothing for {IDLE_SECONDS:.0f} s "
        f"and port {plan.port} is not open:\n{offending_lines(tail)}",
        _exit_hint(None),
    )


async def _never_answered(
    role: str, plan: RolePlan, guest: Guest, observed: _Observed, timeout: float, tail: list[str]
) -> StageFailed:
    if observed.probe is not None and observed.connected:
        return StageFailed(
            "health_check_failed",
            f"{role}: GET {plan.health} on port {plan.port} failed for {timeout:.0f} s: {observed.probe.detail}\n"
            f"{offending_lines(tail)}".rstrip(),
            "Correct the app, or name another `health` path in sandbox.toml.",
        )
    others = [port for port in await guest.listening_ports() if port != plan.port]
    if others:
        listed = ", ".join(map(str, others))
        return StageFailed(
            "other_port_opened",
            f"{role}: the plan says port {plan.port}, but the app listens on port {listed}",
            f"Have the app listen on $PORT, or set port={others[0]} for [{role}] in sandbox.toml.",
        )
    lines = offending_lines(tail)
    output = f"; the app printed:\n{lines}" if lines else ", and the app printed nothing"
    return StageFailed(
        "port_not_opened",
        f"{role}: nothing listened on port {plan.port} within {timeout:.0f} s{output}",
        "Have the app listen on $PORT, or raise SANDBOX_HEALTH_TIMEOUT_SECONDS if it is slow to start.",
    )
