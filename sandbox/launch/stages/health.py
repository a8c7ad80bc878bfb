"""Stage `health`: every app answers on its planned port; what it prints meanwhile is told.

The probe goes through the guest agent's tunnel to the container's own loopback, so an app that listens on 127.0.0.1
or ::1 only is as good as any.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from sandbox.concurrency import for_each
from sandbox.domain.plan import RolePlan
from sandbox.domain.processes import ProcessKind
from sandbox.domain.stages import StageName
from sandbox.engine.base import Guest, ProcessInfo
from sandbox.errors import StageFailed
from sandbox.launch.crashed import IDLE_SECONDS, CrashWatch
from sandbox.launch.endings import how_it_ended
from sandbox.launch.output import OutputTeller, offending_lines
from sandbox.launch.port_forwarding import PATIENCE_SECONDS, PortForwarding
from sandbox.launch.probe import Answer, probe
from sandbox.launch.stage import StageContext, StageResult

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0
#: Another port open for this long while the planned one is not is worth a word.
OTHER_PORT_SECONDS = 5.0
#: Longest that telling what an app printed before it answered may hold the launch up.
CATCH_UP_SECONDS = 5.0
#: An app that opens no port has to live this long.
SETTLED_SECONDS = 1.0
#: What a shell answers for a program that it cannot find.
NO_SUCH_PROGRAM = 127


@dataclass(slots=True)
class _Seen:
    """What the probes of one role have seen so far."""

    answer: Answer | None = None
    ports: list[int] = field(default_factory=list)
    told_of_ports: bool = False
    crash: CrashWatch = field(default_factory=CrashWatch)

    @property
    def connected(self) -> bool:
        return self.answer is not None and self.answer.connected


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
        teller = OutputTeller(guest, context.journal, self.name, role, name)
        following = asyncio.create_task(teller.follow())
        try:
            await self._until_it_answers(context, role, guest, name, teller, following, forwarding)
            await forwarding.answers(role)
        finally:
            following.cancel()
            await asyncio.wait({following})
            await teller.flush()

    async def _until_it_answers(
        self,
        context: StageContext,
        role: str,
        guest: Guest,
        name: str,
        teller: OutputTeller,
        following: asyncio.Task[None],
        forwarding: PortForwarding,
    ) -> None:
        plan = context.plan.roles[role]
        seen = _Seen()
        process = await guest.process(name)
        began = process.started_at if process else time.time()
        pause = FIRST_PAUSE
        while True:
            process = await guest.process(name)
            if process is None or not process.running:
                await asyncio.wait([following], timeout=2)
                raise _exited(role, plan, process, list(teller.tail))
            waited = time.time() - began
            if await self._is_up(plan, guest, seen, waited):
                await _catch_up(guest, name, teller, following)
                return
            if not seen.connected and await seen.crash.has_crashed(guest, process, teller.tail):
                raise _crashed(role, plan, list(teller.tail))
            if waited > self._timeout:
                raise await _never_answered(role, plan, guest, seen, self._timeout, list(teller.tail))
            if waited > OTHER_PORT_SECONDS and not seen.told_of_ports and not seen.connected:
                await self._tell_of_other_ports(context, role, plan, guest, seen)
            if waited > PATIENCE_SECONDS:
                await forwarding.is_slow(role)
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, LONGEST_PAUSE)

    async def _is_up(self, plan: RolePlan, guest: Guest, seen: _Seen, waited: float) -> bool:
        if plan.port is None:
            return waited > SETTLED_SECONDS
        seen.answer = await probe(guest, plan.port, plan.health)
        return seen.answer.healthy

    async def _tell_of_other_ports(
        self, context: StageContext, role: str, plan: RolePlan, guest: Guest, seen: _Seen
    ) -> None:
        seen.ports = await guest.listening_ports()
        if seen.ports:
            ports = ", ".join(map(str, seen.ports))
            await context.journal.say(f"waiting for port {plan.port}; open so far: {ports}", role=role)
            seen.told_of_ports = True


async def _catch_up(guest: Guest, name: str, teller: OutputTeller, following: asyncio.Task[None]) -> None:
    """Have all that the app has printed so far told, even when it was more than could be read meanwhile."""

    async def reach_the_end() -> None:
        reached = 0
        while (process := await guest.process(name)) is not None and process.output_end > reached:
            reached = process.output_end
            await teller.reach(reached)

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
    said = f":\n{lines}" if lines else " and printed nothing"
    message = f"{role}: `{plan.start}` {how_it_ended(ended)} before it answered{said}"
    return StageFailed("app_exited", message, _exit_hint(ended))


def _exit_hint(ended: ProcessInfo | None) -> str:
    if ended is not None and ended.exit_code == NO_SUCH_PROGRAM:
        return "Add the missing program to the project's dependencies, upload again and relaunch."
    if ended is not None and ended.exit_code == 0:
        return "The start command has to be the server itself, in the foreground, for as long as it serves."
    return "Correct the app, upload again and relaunch; `sandbox exec` runs the command by hand."


def _crashed(role: str, plan: RolePlan, tail: list[str]) -> StageFailed:
    return StageFailed(
        "app_exited",
        f"{role}: `{plan.start}` failed and waits for its code to change: it has done nothing for {IDLE_SECONDS:.0f} s "
        f"and port {plan.port} is not open:\n{offending_lines(tail)}",
        _exit_hint(None),
    )


async def _never_answered(
    role: str, plan: RolePlan, guest: Guest, seen: _Seen, timeout: float, tail: list[str]
) -> StageFailed:
    if seen.answer is not None and seen.connected:
        return StageFailed(
            "health_check_failed",
            f"{role}: GET {plan.health} on port {plan.port} failed for {timeout:.0f} s: {seen.answer.what}\n"
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
    said = f"; the app said:\n{lines}" if lines else ", and the app printed nothing"
    return StageFailed(
        "port_not_opened",
        f"{role}: nothing listened on port {plan.port} within {timeout:.0f} s{said}",
        "Have the app listen on $PORT, or raise SANDBOX_HEALTH_TIMEOUT_SECONDS if it is slow to start.",
    )
