"""A `dockerd` process that this program starts. A file records it, so that a later process can find and stop it.

Everything here blocks: call it in a thread.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from sandbox.engine.docker.connection import engine_version
from sandbox.errors import EngineError

_START_SECONDS = 60.0
#: dockerd waits up to 15 s of this for its containers to stop.
_STOP_SECONDS = 45.0
_LOG_LINES = 15


class DaemonFailed(EngineError):
    """dockerd did not start, or does not stop."""

    code = "engine_start_failed"


class LocalDaemon:
    """The dockerd of one data folder. Its log and its record are in `folder`.

    It uses dockerd's usual pid file unless `arguments` name another one. Because of the pid file, dockerd refuses to
    start while another one runs.
    """

    def __init__(
        self, folder: Path, host: str, arguments: Sequence[str] = (), *, program: Sequence[str] = ("dockerd",)
    ) -> None:
        self.host = host
        self._program = tuple(program)
        self._arguments = tuple(arguments)
        self._folder = folder
        self._record = folder / "dockerd.json"
        self._log = folder / "dockerd.log"

    def start(self) -> int:
        """Start dockerd, wait until it answers and return its pid. It outlives this process.

        Raises DaemonFailed with the end of its log.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        command = [*self._program, f"--host={self.host}", *self._arguments]
        pid = self._spawn(command)
        # The record is written before dockerd answers, so that it can be stopped even if this start is interrupted.
        self._record.write_text(json.dumps({"pid": pid, "started": _start_time(pid)}))
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self.running_pid() is not None:
            if self.answers():
                return pid
            time.sleep(0.2)
        cause = "did not answer in time" if self.running_pid() is not None else "ended at once"
        self.stop()
        raise DaemonFailed(f"dockerd {cause}:\n{self._tail()}", hint=f"Its log is {self._log}.")

    def _spawn(self, command: list[str]) -> int:
        with self._log.open("ab") as log, Path(os.devnull).open("rb") as null:
            streams = [(os.POSIX_SPAWN_DUP2, file.fileno(), n) for n, file in enumerate((null, log, log))]
            try:
                return os.posix_spawnp(command[0], command, os.environ, file_actions=streams, setsid=True)
            except OSError as error:
                raise DaemonFailed(f"{command[0]} cannot be run: {error}", hint="Install docker.io.") from error

    def answers(self) -> bool:
        """Return whether an engine answers at the address."""
        try:
            engine_version(self.host)
        except EngineError:
            return False
        return True

    def running_pid(self) -> int | None:
        """Return the pid of the recorded dockerd, or None if it has ended, even if another process has its pid now."""
        try:
            record = json.loads(self._record.read_text())
            pid, started = int(record["pid"]), record["started"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        _reap(pid)
        return pid if started is not None and _start_time(pid) == started else None

    def stop(self) -> bool:
        """Stop the recorded dockerd and its containers, and wait for the end. Return False if it is not running.

        Raises DaemonFailed.
        """
        pid = self.running_pid()
        if pid is not None:
            for number, timeout in ((signal.SIGTERM, _STOP_SECONDS), (signal.SIGKILL, 5.0)):
                os.kill(pid, number)
                if self._wait_for_end(timeout):
                    break
            else:
                raise DaemonFailed(f"dockerd (pid {pid}) does not end", hint=f"See what it does: ps -fp {pid}")
        self._record.unlink(missing_ok=True)
        return pid is not None

    def _wait_for_end(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.running_pid() is None:
                return True
            time.sleep(0.1)
        return False

    def _tail(self) -> str:
        try:
            return "\n".join(self._log.read_text(errors="replace").splitlines()[-_LOG_LINES:])
        except OSError:
            return "(no log)"


def _start_time(pid: int) -> str | None:
    """Return the boot id and the process's start time in ticks since boot, or None if the process has ended.

    Together with the pid this identifies a process, even after a reboot.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    # The program's name is in parentheses and may itself contain any character, so the fields are counted from the
    # last ")".
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else f"{boot}:{fields[19]}"


def _reap(pid: int) -> None:
    """Reap the process if it has ended and is a child of this process, which it is only if this process started it."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
