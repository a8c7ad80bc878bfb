"""Stage `services`: starts every role's app once in a run, after stopping the apps of earlier runs."""

from __future__ import annotations

import signal

from sandbox.concurrency import for_each
from sandbox.domain.processes import ProcessKind, is_app
from sandbox.domain.stages import StageName
from sandbox.engine.guest import Guest
from sandbox.errors import GuestError, StageFailed
from sandbox.launch.environment import role_environment, role_root
from sandbox.launch.port_forwarding import stop_forwarding
from sandbox.launch.stage import StageContext, StageResult


class ServicesStage:
    name = StageName.SERVICES

    async def run(self, context: StageContext) -> StageResult:
        roles = [role for role, plan in context.plan.roles.items() if plan.start]
        if not roles:
            return StageResult(skipped=True)
        await stop_forwarding(context)
        await for_each(roles, lambda role: self._start(context, role))
        return StageResult()

    async def _start(self, context: StageContext, role: str) -> None:
        plan, command = context.plan, context.plan.roles[role].start
        if command is None:
            return
        guest = context.engine.guest(context.session.session_id, role)
        name = context.process_name(ProcessKind.APP)
        await _stop_others(guest, name)
        await context.journal.log_line(f"$ {command}", role=role)
        try:
            await guest.start(
                name,
                command,
                cwd=role_root(plan, role),
                env=role_environment(context.session, plan, role),
                restart_finished=False,
            )
        except GuestError as error:
            if error.code == "agent_unreachable":
                raise
            raise StageFailed(
                "app_start_failed", f"{role}: `{command}` could not be started: {error}", error.hint
            ) from error


async def _stop_others(guest: Guest, name: str) -> None:
    for process in await guest.processes():
        if process.running and is_app(process.name) and process.name != name:
            await guest.signal(process.name, signal.SIGKILL)
            await guest.wait(process.name)
