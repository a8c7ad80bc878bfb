"""Processes: forking as the sandbox's user, reaping, and finding and killing whole trees.

A fork is made by whichever thread needs it; everything is reaped by one thread (`Children.reap`, on SIGCHLD), orphans
of the sandbox included: the agent is their subreaper, so all that was ever started here stays its descendant.

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
from collections.abc import Callable, Iterable
from dataclasses import dataclass

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

    def become(self) -> None:
        """Turn this (forked) process into the user's, for good: no groups, no capability, killed first for memory."""
        with contextlib.suppress(OSError):
            score = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
            os.write(score, OOM_SCORE)
            os.close(score)
        os.setgroups([])
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)


class Child:
    """A process the agent forked. `status` is what waitpid said, None while it runs."""

    def __init__(self, pid: int, on_exit: Callable[[], None] | None) -> None:
        self.pid = pid
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


def outcome(status: int) -> tuple[int, int | None]:
    """Exit code and signal of a wait status; a signal counts as 128 + its number, as shells have it."""
    code = os.waitstatus_to_exitcode(status)
    return (code, None) if code >= 0 else (128 - code, -code)


class Children:
    """All children that run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[int, Child] = {}

    def fork(self, body: Callable[[], int], on_exit: Callable[[], None] | None = None) -> Child:
        """Run `body` in a forked process that ends with the status it returns, or 1 if it raises."""
        with self._lock:
            try:
                pid = os.fork()
            except OSError as error:
                raise Refused(
                    "agent_refused", f"no process could be started, the container is at its limit: {error.strerror}"
                ) from None
            if pid == 0:
                status = 1
                try:
                    status = body()
                except BaseException:  # noqa: BLE001 - nothing may return into the agent's code from a fork
                    sys.excepthook(*sys.exc_info())
                finally:
                    os._exit(status)
            child = self._running[pid] = Child(pid, on_exit)
            return child

    def reap(self) -> None:
        """Collect everything that has ended."""
        while True:
            with self._lock:
                try:
                    pid, status = os.waitpid(-1, os.WNOHANG)
                except ChildProcessError:
                    return
                if pid == 0:
                    return
                child = self._running.pop(pid, None)
            if child is not None:
                child.finished(status)

    def signal_group(self, child: Child, number: int) -> None:
        """Signal the child's process group; its members may outlive the child itself."""
        with self._lock:
            if child.status is not None and child.pid in self._running:
                return  # the number belongs to another process by now
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, number)

    def kill_tree(self, child: Child) -> None:
        """Kill the child's session, its group and all their descendants."""
        with self._lock:
            if child.status is not None and child.pid in self._running:
                return
            _freeze_and_kill(lambda: _tree([child.pid]))

    def kill_all(self) -> int:
        """Kill everything the agent ever started; how many processes that was."""
        me = os.getpid()
        return _freeze_and_kill(lambda: _tree([me]) - {me})


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


def spawn(
    children: Children,
    user: User,
    argv: list[str],
    *,
    cwd: str,
    env: dict[str, str],
    files: tuple[int, int, int],
    terminal: bool = False,
    on_exit: Callable[[], None] | None = None,
) -> Child:
    """Start a program as the user, in its own session, with these descriptors as its 0, 1 and 2.

    Returns once it runs. Raises Refused: `command_not_found`, `file_not_found` (the folder), `agent_refused`.
    """
    program = _Program(argv, cwd, user.environment(env), files, terminal)
    report_read, report_write = os.pipe()
    try:
        child = children.fork(lambda: program.run(user, report_write), on_exit)
    except Refused:
        os.close(report_read)
        raise
    finally:
        os.close(report_write)
    with open(report_read, "rb") as report:
        problem = report.read()
    if problem:
        child.wait()
        child.close()
        step, _, number = problem.decode("ascii").partition(":")
        raise _spawn_refused(step, int(number), argv[0], cwd)
    return child


@dataclass
class _Program:
    """What a forked process is to become."""

    argv: list[str]
    cwd: str
    environment: dict[str, str]
    files: tuple[int, int, int]
    terminal: bool

    def run(self, user: User, report: int) -> int:
        """In the forked process: become the program, or tell the agent why not."""
        step = "start"
        try:
            self._arrange()
            user.become()
            step = "cwd"
            os.chdir(self.cwd)
            step = "exec"
            os.execvpe(self.argv[0], self.argv, self.environment)  # noqa: S606 - to start what it is asked to is its work
        except OSError as error:
            os.write(report, f"{step}:{error.errno}".encode("ascii"))
        return 127

    def _arrange(self) -> None:
        """Its own session, its descriptors, and the signals as a program expects them."""
        os.setsid()
        if self.terminal:
            import fcntl
            import termios

            fcntl.ioctl(self.files[0], termios.TIOCSCTTY, 0)
        for target, source in enumerate(self.files):
            os.dup2(source, target)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.umask(0o022)


def _spawn_refused(step: str, number: int, program: str, cwd: str) -> Refused:
    reason = os.strerror(number)
    if step == "cwd":
        return Refused("file_not_found", f"cannot work in the folder {cwd}: {reason}", 404)
    if step == "exec":
        return Refused("command_not_found", f"cannot run {program}: {reason}", 404)
    return Refused("agent_refused", f"cannot start {program}: {reason}")


def become_subreaper() -> None:
    """Orphans become the agent's children, and no program may gain privileges, whatever the container's options say."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    for option in (36, 38):  # PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS
        if libc.prctl(option, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), f"prctl {option}")
