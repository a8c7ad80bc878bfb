"""Processes: forking, reaping, and finding and killing whole trees.

Commands are started by the launcher (`launcher.py`), which reaps them; what works on files is forked here. Orphans of
the sandbox become the agent's children: it is their subreaper, so all that was ever started stays its descendant.

What escapes `kill_tree`: a process that left its session *and* whose parent has ended is a child of the agent like any
other orphan, and cannot be told from those of another command. `kill_all` takes these too.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator

from .wire import Refused

#: The kernel ends these before the agent when memory runs out. Raising one's own score needs no privilege.
OOM_SCORE = b"1000"


class User:
    """The unprivileged user that everything sandboxed runs as."""

    def __init__(self, uid: int, workspace: str) -> None:
        self.uid = uid
        self.gid = uid
        self.workspace = workspace
        self.home = "/home/sandbox" if os.path.isdir("/home/sandbox") else workspace

    def environment(self, extra: dict[str, str]) -> dict[str, str]:
        """The container's own environment, the user's, and what the caller adds."""
        return {**os.environ, "HOME": self.home, "USER": "sandbox", "LOGNAME": "sandbox", **extra}

    def become(self, kept: set[int]) -> None:
        """Turn this forked process into the user's, for good: of the agent's descriptors those kept, no groups, no
        capability, killed first for memory. From here its memory is closed to other processes of the user."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        for name in os.listdir("/proc/self/fd"):
            if int(name) > 2 and int(name) not in kept:
                with contextlib.suppress(OSError):
                    os.close(int(name))
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "wb", buffering=0) as score:
            score.write(OOM_SCORE)
        os.setgroups([])
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)
        os.umask(0o022)


class Child:
    """A process that was started here. `status` is what waitpid said, None while it runs.

    `helper` is one that runs the agent's own code as the user: whoever stops it has it killed, for it must not hang.
    """

    def __init__(self, pid: int, on_exit: Callable[[], None] | None = None, *, helper: bool = False) -> None:
        self.pid = pid
        self.helper = helper
        self.status: int | None = None
        #: Readable once the process has been reaped.
        self.done_fd, self._done_write = os.pipe()
        self._on_exit = on_exit

    def finished(self, status: int) -> None:
        """It has been reaped. `on_exit` runs before anyone who waits is told."""
        self.status = status
        if self._on_exit is not None:
            self._on_exit()
        os.close(self._done_write)

    def wait(self, seconds: float | None = None) -> bool:
        """Whether it has ended within that time."""
        poller = select.poll()
        poller.register(self.done_fd, select.POLLIN)
        return bool(poller.poll(None if seconds is None else seconds * 1000))

    def close(self) -> None:
        """Nobody will wait for it any more."""
        os.close(self.done_fd)


def no_process(error: OSError) -> Refused:
    """The kernel gives no process."""
    return Refused("agent_refused", f"no process could be started, the container is at its limit: {error.strerror}")


def outcome(status: int) -> tuple[int, int | None]:
    """Exit code and signal of a wait status; a signal counts as 128 + its number, as shells have it."""
    code = os.waitstatus_to_exitcode(status)
    return (code, None) if code >= 0 else (128 - code, -code)


class Children:
    """All children that run. Their `on_exit` is called on the thread that reaps, to which `defer` leads.

    The lock is held for moments only, and never while anything of the sandbox's is waited for: reaping needs it.
    """

    def __init__(self, defer: Callable[[Callable[[], None]], None]) -> None:
        self._defer = defer
        self._lock = threading.Lock()
        self._running: dict[int, Child] = {}
        self._starting = 0
        #: Ends of processes nobody knew, seen while something was being started: it may have been that.
        self._early: dict[int, int] = {}

    @contextlib.contextmanager
    def starting(self) -> Iterator[None]:
        """Around the start of a process elsewhere and its `add`: an end that comes first is not missed."""
        with self._lock:
            self._starting += 1
        try:
            yield
        finally:
            with self._lock:
                self._starting -= 1
                if not self._starting:
                    self._early.clear()

    def add(self, child: Child) -> None:
        """It has been started."""
        with self._lock:
            self._running[child.pid] = child
            status = self._early.pop(child.pid, None)
        if status is not None:
            self._defer(lambda: self.ended(child.pid, status))

    def fork(self, body: Callable[[], int]) -> Child:
        """Run `body` in a forked process, a helper, that ends with the status it returns, or 1 if it raises."""
        with self._lock:
            try:
                pid = os.fork()
            except OSError as error:
                raise no_process(error) from None
            if pid == 0:
                status = 1
                try:
                    status = body()
                except BaseException:  # noqa: BLE001 - nothing may return into the agent's code from a fork
                    sys.excepthook(*sys.exc_info())
                finally:
                    os._exit(status)
            child = self._running[pid] = Child(pid, helper=True)
            return child

    def reap(self) -> None:
        """Collect everything that has ended."""
        while True:
            with self._lock:
                try:
                    pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
                except ChildProcessError:
                    return
                if pid == 0:
                    return
                if os.WIFSTOPPED(status):
                    if pid in self._running and self._running[pid].helper:
                        os.kill(pid, signal.SIGKILL)
                    continue
            self.ended(pid, status)

    def ended(self, pid: int, status: int) -> None:
        """That process has ended. What was said before is not taken again."""
        with self._lock:
            child = self._running.pop(pid, None)
            if child is None and self._starting:
                self._early[pid] = status
        if child is not None:
            child.finished(status)

    def signal_group(self, child: Child, number: int) -> None:
        """Signal the child's process group; its members may outlive the child itself."""
        with self._lock:
            if self._is_itself(child):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(child.pid, number)

    def kill_tree(self, child: Child) -> None:
        """Kill the child's session, its group and all their descendants."""

        def find() -> set[int]:
            found = _tree([child.pid])
            with self._lock:
                return found if self._is_itself(child) else set()

        _freeze_and_kill(find)

    def _is_itself(self, child: Child) -> bool:
        """Whether its number has not become another child's."""
        return child.status is None or child.pid not in self._running

    def kill_all(self) -> int:
        """Kill everything the agent ever started; how many processes that was."""
        me = os.getpid()
        helpers = {child.pid for child in list(self._running.values()) if child.helper}
        return _freeze_and_kill(lambda: _tree([me]) - helpers - {me})


def _freeze_and_kill(find: Callable[[], set[int]]) -> int:
    """Stop all, so that nothing can start more, then kill all; again while any are left. How many were killed."""
    killed: set[int] = set()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        stopped: set[int] = set()
        while (found := find()) - stopped:
            _signal(found - stopped, signal.SIGSTOP)
            stopped |= found
            if time.monotonic() > deadline:
                break
        if not stopped:
            break
        _signal(stopped, signal.SIGKILL)
        killed |= stopped
        time.sleep(0.005)
    return len(killed)


def _signal(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _tree(roots: list[int]) -> set[int]:
    """The roots' sessions and groups and all their descendants, from /proc; zombies are left out."""
    facts = []
    for entry in os.listdir("/proc"):
        if not entry.isdecimal():
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as file:
                state, parent, group, session = file.read().rpartition(b")")[2].split()[:4]
        except OSError:
            continue
        if state not in b"ZX":
            facts.append((int(entry), int(parent), int(group), int(session)))
    members = set(roots)
    found = {pid for pid, _, group, session in facts if pid in members or group in members or session in members}
    while True:
        more = {pid for pid, parent, _, _ in facts if pid not in found and (parent in found or parent in members)}
        if not more:
            return found
        found |= more


def become_subreaper() -> None:
    """Orphans become the agent's children, and no program may gain privileges, whatever the container's options say."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    for option in (36, 38):  # PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS
        if libc.prctl(option, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), f"prctl {option}")
