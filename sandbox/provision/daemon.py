"""A `dockerd` that we start ourselves: found again by its record, stopped only if it is still the same process.

All of it blocks: run it in a thread.
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
#: dockerd gives its containers 15 s of this.
_STOP_SECONDS = 45.0
_LINES_OF_LOG = 15


class DaemonFailed(EngineError):
    """dockerd did not come up, or does not go away."""

    code = "engine_start_failed"


class LocalDaemon:
    """The dockerd of one data folder. Its log and record are in `folder`.

    Its pid file is dockerd's usual one unless the arguments say otherwise: that is how dockerd itself refuses to start
    beside another.
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
        """Start it and wait until it answers; its pid. It outlives this process. Raises DaemonFailed with its log."""
        self._folder.mkdir(parents=True, exist_ok=True)
        command = [*self._program, f"--host={self.host}", *self._arguments]
        pid = self._spawn(command)
        # Recorded before it answers: a start that is interrupted can still be stopped.
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
        with self._log.open("ab") as log, Path(os.devnull).open("rb") as nothing:
            streams = [(os.POSIX_SPAWN_DUP2, file.fileno(), n) for n, file in enumerate((nothing, log, log))]
            try:
                return os.posix_spawnp(command[0], command, os.environ, file_actions=streams, setsid=True)
            except OSError as error:
                raise DaemonFailed(f"{command[0]} cannot be run: {error}", hint="Install docker.io.") from error

    def answers(self) -> bool:
        """Whether an engine answers at its address."""
        try:
            engine_version(self.host)
        except EngineError:
            return False
        return True

    def running_pid(self) -> int | None:
        """The pid of the dockerd we started, if it still runs; a process that merely has its pid does not count."""
        try:
            record = json.loads(self._record.read_text())
            pid, started = int(record["pid"]), record["started"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        _reap(pid)
        return pid if started is not None and _start_time(pid) == started else None

    def stop(self) -> bool:
        """Stop what `start` started and wait for its end; False if that does not run. Its containers end with it."""
        pid = self.running_pid()
        if pid is not None:
            for number, patience in ((signal.SIGTERM, _STOP_SECONDS), (signal.SIGKILL, 5.0)):
                os.kill(pid, number)
                if self._wait_for_end(patience):
                    break
            else:
                raise DaemonFailed(f"dockerd (pid {pid}) does not end", hint=f"Look at it: ps -fp {pid}")
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
            return "\n".join(self._log.read_text(errors="replace").splitlines()[-_LINES_OF_LOG:])
        except OSError:
            return "(no log)"


def _start_time(pid: int) -> str | None:
    """When a process started, in the kernel's ticks since boot; None if there is none, or only its remains.

    Together with the pid it names a process for as long as the machine is up.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    # The name may hold anything, a ")" among it: what follows the last one is regular.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else f"{boot}:{fields[19]}"


def _reap(pid: int) -> None:
    """Let go of a child of ours that has ended. One that an earlier run of ours started is not our child."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
