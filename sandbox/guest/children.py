"""Child processes: forking, reaping, and killing whole process trees.

Commands are started by the launcher (`launcher.py`), which reaps them; processes that work on files are forked here.
The guest agent is the subreaper of the container, so orphans become its children and everything that was ever started
stays its descendant.

A process that left its session *and* whose parent has ended is a child of the guest agent like any other orphan. Only
its environment tells whose it is (`marked.py`). `kill_tree` kills these too if the command itself still ran: what a
command that has ended left behind on purpose stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial

from .errors import Refused
from .marked import kill_marked
from .process_tree import find_tree, freeze_and_kill

_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38


class Child:
    """A process that was started here.

    A `helper` runs the guest agent's own code as the sandbox's user. The user's commands may stop it with a signal; it
    is killed then, so that the request that it serves does not hang. `mark` is the value of `marked.VARIABLE` in the
    environment of a command.
    """

    def __init__(self, pid: int, *, helper: bool = False, mark: str | None = None) -> None:
        self.pid = pid
        self.helper = helper
        self.mark = mark
        #: The wait status, None while it runs.
        self.status: int | None = None
        #: Done once it has been reaped. Wait with `wait` or `asyncio.wait`, which do not cancel it.
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def finish(self, status: int) -> None:
        """It has been reaped."""
        self.status = status
        self.ended.set_result(None)

    async def wait(self, seconds: float | None = None) -> bool:
        """Whether it has ended within that time."""
        await asyncio.wait({self.ended}, timeout=seconds)
        return self.ended.done()


def no_process(error: OSError) -> Refused:
    """The kernel refused to create a process."""
    return Refused("agent_refused", f"no process could be started, the container is at its limit: {error.strerror}")


def outcome(status: int) -> tuple[int, int | None]:
    """Exit code and signal of a wait status; a signal counts as 128 plus its number, as in shells."""
    code = os.waitstatus_to_exitcode(status)
    return (code, None) if code >= 0 else (128 - code, -code)


class Children:
    """All children that run. Not thread-safe: to be used on the event loop only."""

    def __init__(self, become_user: Callable[[set[int]], None] | None = None) -> None:
        """`become_user` makes a forked process the user's (`User.become`)."""
        self._become_user = become_user
        self._running: dict[int, Child] = {}
        self._starting = 0
        #: Wait statuses of unknown processes that ended while something was being started: it may have been that.
        self._early: dict[int, int] = {}

    @contextlib.contextmanager
    def starting(self) -> Iterator[None]:
        """To be held from before a process is started elsewhere until its `add`: an end reported early is not lost."""
        self._starting += 1
        try:
            yield
        finally:
            self._starting -= 1
            if not self._starting:
                self._early.clear()

    def add(self, child: Child) -> None:
        """It has been started."""
        self._running[child.pid] = child
        if (status := self._early.pop(child.pid, None)) is not None:
            self.report_end(child.pid, status)

    def fork(self, body: Callable[[], int]) -> Child:
        """Run `body` in a forked process, a helper. Its exit status is what `body` returns, or 1 if it raises."""
        try:
            pid = os.fork()
        except OSError as error:
            raise no_process(error) from None
        if pid == 0:
            status = 1
            try:
                status = body()
            except BaseException:  # noqa: BLE001 - nothing may return from here into the event loop's code
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(status)
        child = self._running[pid] = Child(pid, helper=True)
        return child

    def reap(self) -> None:
        """Collect every child that has ended, and kill helpers that were stopped. To be called at SIGCHLD."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if not os.WIFSTOPPED(status):
                self.report_end(pid, status)
            elif pid in self._running and self._running[pid].helper:
                os.kill(pid, signal.SIGKILL)

    def report_end(self, pid: int, status: int) -> None:
        """That process has ended. A second report of the same end is ignored."""
        child = self._running.pop(pid, None)
        if child is not None:
            child.finish(status)
        elif self._starting:
            self._early[pid] = status

    def signal_group(self, child: Child, number: int) -> None:
        """Signal the child's process group, whose members may outlive the child itself."""
        if self._owns_pid(child):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, number)

    async def kill_tree(self, child: Child) -> None:
        """Kill the child's session, its group and all their descendants; of a child that runs, its daemons too."""
        mark = child.mark if child.status is None else None
        await freeze_and_kill(lambda: find_tree({child.pid}) if self._owns_pid(child) else set())
        if mark is not None and self._become_user is not None:
            await self.fork(partial(self._kill_marked, mark)).wait()

    def _kill_marked(self, mark: str) -> int:
        """In the forked process."""
        if self._become_user is not None:
            self._become_user(set())
        kill_marked(mark)
        return 0

    def _owns_pid(self, child: Child) -> bool:
        """Whether the child's number has not become that of another child."""
        return child.status is None or child.pid not in self._running

    def helpers(self) -> set[int]:
        """The pids of the guest agent's own processes that run as the user."""
        return {child.pid for child in self._running.values() if child.helper}

    async def kill_all(self) -> int:
        """Kill everything that was started and still runs, helpers excepted; how many processes that was."""
        me = os.getpid()
        helpers = self.helpers()
        return await freeze_and_kill(lambda: find_tree({me}) - helpers - {me})


def become_subreaper() -> None:
    """Orphans become children of the guest agent, and no program may gain privileges, whatever the container's options
    are. Process 1 gets the orphans anyway."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    options = [_PR_SET_NO_NEW_PRIVS] if os.getpid() == 1 else [_PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS]
    for option in options:
        if libc.prctl(option, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), f"prctl {option}")
