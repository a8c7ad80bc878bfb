"""Stage `dependencies`: runs every role's install command and publishes its output line by line.

The command runs in the container under a name that contains the run. It continues while the service is down, is found
again after a restart, and is never started twice in one run.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time

from sandbox.concurrency import for_each
from sandbox.domain.processes import ProcessKind
from sandbox.domain.stages import StageName
from sandbox.errors import GuestError, StageFailed
from sandbox.launch.causes.reading import explain
from sandbox.launch.command_failures import install_failed
from sandbox.launch.environment import role_environment, role_root
from sandbox.launch.output import OutputFollower
from sandbox.launch.stage import StageContext, StageResult


class DependenciesStage:
    name = StageName.DEPENDENCIES

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout = timeout_seconds

    async def run(self, context: StageContext) -> StageResult:
        roles = [role for role, plan in context.plan.roles.items() if plan.install]
        if not roles:
            return StageResult(skipped=True)
        await for_each(roles, lambda role: self._install(context, role))
        return StageResult()

    async def _install(self, context: StageContext, role: str) -> None:
        plan = context.plan
        command = plan.roles[role].install
        if command is None:
            return
        guest = context.engine.guest(context.session.session_id, role)
        name = context.process_name(ProcessKind.INSTALL)
        await context.journal.log_line(f"$ {command}", role=role)
        process = await guest.start(
            name,
            command,
            cwd=role_root(plan, role),
            env=role_environment(context.session, plan, role),
            restart_finished=False,
        )
        # At the end of its input, an installer that asks a question takes the default or fails with a message.
        with contextlib.suppress(GuestError):
            await guest.write_stdin(name, b"", close=True)
        follower = OutputFollower(guest, context.journal, self.name, role, name)
        # The timeout counts from the start of the process, so a restart of the service does not extend it.
        left = self._timeout - (time.time() - process.started_at)
        try:
            async with asyncio.timeout(max(1.0, left)):
                await follower.follow()
        except TimeoutError:
            await guest.signal(name, signal.SIGKILL)
            await follower.flush()
            raise StageFailed(
                "dependency_install_timeout",
                f"{role}: `{command}` had not finished after {self._timeout:.0f} s; its last lines:\n"
                + "\n".join(list(follower.tail)[-5:]),
                "Install less, or raise SANDBOX_INSTALL_TIMEOUT_SECONDS.",
            ) from None
        ended = await guest.wait(name)
        if ended.exit_code != 0:
            cause = await explain(guest, list(follower.tail), role_root(plan, role))
            raise install_failed(role, command, ended, cause)
