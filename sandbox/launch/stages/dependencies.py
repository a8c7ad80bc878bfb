"""Stage `dependencies`: runs every role's install command and publishes its output line by line.

The command runs in the container under a name that contains the run. It continues while the service is down, is found
again after a restart, and is never started twice in one run. If it fails for a reason with a usual remedy, another
command is run in its place, once (`install_repairs.py`). Nothing is run if what it would install is kept
(`kept_installs.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time

from sandbox.concurrency import for_each
from sandbox.domain.processes import ProcessKind
from sandbox.domain.stages import StageName
from sandbox.engine.guest_data import ProcessInfo
from sandbox.errors import GuestError, StageFailed
from sandbox.launch.causes.finding import Causes
from sandbox.launch.command_failures import install_failed
from sandbox.launch.environment import role_environment, role_root
from sandbox.launch.install_repairs import second_attempt
from sandbox.launch.kept_installs import InstallKeeper
from sandbox.launch.output import TAIL_LINES, OutputFollower, last_lines
from sandbox.launch.stage import StageContext, StageResult
from sandbox.launch.version_demands import version_demands


class DependenciesStage:
    name = StageName.DEPENDENCIES

    def __init__(self, timeout_seconds: float, keeper: InstallKeeper, causes: Causes) -> None:
        self._timeout = timeout_seconds
        self._keeper = keeper
        self._causes = causes

    async def run(self, context: StageContext) -> StageResult:
        roles = [role for role, plan in context.plan.roles.items() if plan.install]
        if not roles:
            return StageResult(skipped=True)
        await for_each(roles, lambda role: self._install(context, role))
        return StageResult()

    async def _install(self, context: StageContext, role: str) -> None:
        command = context.plan.roles[role].install
        if command is None:
            return
        guest = context.engine.guest(context.session.session_id, role)
        recalled = self._keeper.recalled(context, role)
        if await guest.process(context.process_name(ProcessKind.INSTALL)) is None:
            recalled = await self._keeper.recall(context, role, command)
        if recalled is not None and recalled.result == "hit":
            return
        ended, lines = await self._run(context, role, command, ProcessKind.INSTALL)
        printed = list(lines)
        again = second_attempt(command, lines) if ended.exit_code != 0 and not ended.out_of_memory else None
        if again is not None:
            await context.journal.log_line(f"{again.reason} (in this workspace only)", role=role)
            command = again.command
            ended, lines = await self._run(context, role, command, ProcessKind.REINSTALL, ended.started_at)
            printed += lines
        for demand in version_demands(printed):
            await context.journal.log_line(demand, role=role)
        if ended.exit_code != 0:
            session_id, root = context.session.session_id, role_root(context.plan, role)
            cause = await self._causes.explain(session_id, guest, lines, root)
            raise install_failed(role, command, ended, cause)
        if recalled is not None:
            await self._keeper.keep(context, role, recalled)

    async def _run(
        self, context: StageContext, role: str, command: str, kind: ProcessKind, began: float | None = None
    ) -> tuple[ProcessInfo, list[str]]:
        """Run a command to its end. Return how it ended, and the last lines of its output.

        `began` is the time of the first attempt, from which the timeout counts. Raises StageFailed at the timeout.
        """
        plan = context.plan
        guest = context.engine.guest(context.session.session_id, role)
        name = context.process_name(kind)
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
        part = "" if kind is ProcessKind.INSTALL else kind.value
        follower = OutputFollower(guest, context.journal, self.name, role, name, part=part)
        # The timeout counts from the start of the process, so a restart of the service does not extend it.
        timeout = plan.roles[role].install_timeout_seconds or self._timeout
        left = timeout - (time.time() - (began or process.started_at))
        try:
            async with asyncio.timeout(max(1.0, left)):
                await follower.follow()
        except TimeoutError:
            await guest.signal(name, signal.SIGKILL)
            await follower.flush()
            raise StageFailed(
                "dependency_install_timeout",
                f"{role}: `{command}` had not finished after {timeout:.0f} s; its last lines:\n"
                + "\n".join(list(follower.tail)[-5:]),
                "Install less, or raise SANDBOX_INSTALL_TIMEOUT_SECONDS.",
            ) from None
        ended = await guest.wait(name)
        lines = list(follower.tail)
        if ended.exit_code != 0:
            # After a restart of the service the follower has not read what was published before.
            lines = max(lines, await last_lines(guest, ended, limit=TAIL_LINES), key=len)
        return ended, lines
