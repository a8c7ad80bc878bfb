"""A container engine of a test's own: dockerd with a socket, a data folder and a network namespace of its own.

dockerd changes the network of the namespace in which it runs: one without a bridge removes the bridge of another
dockerd there. Therefore `python -m tests.own_engine`, which becomes dockerd, refuses to start in the namespace of the
machine or of another engine.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

_START_SECONDS = 60
_REFUSED = 3


class OwnEngine:
    """The engine of the folder `home`. It can be started again after `stop` or `kill`."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.host = f"unix://{home}/docker.sock"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        # Of an engine that was killed: dockerd takes any process that has this pid now for a running engine.
        (self.home / "pid").unlink(missing_ok=True)
        options = {
            "host": self.host,
            "data-root": self.home / "data",
            "exec-root": self.home / "exec",
            "pidfile": self.home / "pid",
            "shutdown-timeout": 2,
            "bridge": "none",
            "iptables": "false",
            "ip6tables": "false",
            "ip-masq": "false",
        }
        command = ["unshare", "--net", sys.executable, "-m", "tests.own_engine"]
        with (self.home / "log").open("ab") as out:
            self._process = subprocess.Popen(
                [*command, *(f"--{name}={value}" for name, value in options.items())], stdout=out, stderr=out
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, (self.home / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, (self.home / "log").read_text()[-2000:]
            time.sleep(0.1)

    def stop(self) -> None:
        """End it with SIGTERM. Its containers end, their volumes stay."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it with SIGKILL, and the containerd that it has started. The containers run on."""
        if self._process is not None:
            # It would end with dockerd. Waiting for it here makes sure that the next dockerd does not wait for it.
            helpers = [child for child in psutil.Process(self._process.pid).children() if _name(child) == "containerd"]
            self._end(signal.SIGKILL)
            for helper in helpers:
                with contextlib.suppress(psutil.NoSuchProcess):
                    helper.kill()
            psutil.wait_procs(helpers, timeout=30)

    def forget_start(self, container_id: str) -> None:
        """Let the engine, which does not run, take the container for one that was never started. It runs on."""
        file = self.home / "data" / "containers" / container_id / "config.v2.json"
        config = json.loads(file.read_text())
        config["State"].update(Running=False, Pid=0, StartedAt="0001-01-01T00:00:00Z")
        file.write_text(json.dumps(config))

    def lose_power(self) -> None:
        """Kill the engine and all containers at once, and leave of it what a machine has after a reboot."""
        self._kill_processes()
        self._process = None
        self._unmount()
        shutil.rmtree(self.home / "exec", ignore_errors=True)

    def end_everything(self) -> None:
        """End the engine and all processes that it has left, such as those that watch containers."""
        self.stop()
        self._kill_processes()
        self._unmount()

    def _kill_processes(self) -> None:
        folder = str(self.home)
        left = [process for process in psutil.process_iter() if any(folder in part for part in _command(process))]
        for process in list(left):
            with contextlib.suppress(psutil.NoSuchProcess):
                left += process.children(recursive=True)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=30)
        if self._process is not None:
            self._process.wait(60)

    def _unmount(self) -> None:
        """Unmount what a killed dockerd leaves: its data folder, mounted on itself, and parts of containers."""
        mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        own = [point for point in mounted if Path(point).is_relative_to(self.home)]
        if own:
            subprocess.run(["umount", "--lazy", *reversed(own)], check=False, capture_output=True)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(60)
        self._process = None

    def _answers(self) -> bool:
        # Not by a library, because those leave the socket of a refused connection open.
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(str(self.home / "docker.sock"))
                connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
                return b" 200 " in connection.recv(100)
            except OSError:
                return False


def refusal(own: str, others: Mapping[str, str]) -> str | None:
    """Why nothing may be started in the network namespace `own`; None if it may. `others` are the namespaces of
    processes that must not share it, by what these are."""
    shared = [what for what, namespace in others.items() if namespace == own]
    return f"this network namespace is also that of {', '.join(shared)}" if shared else None


def namespaces_to_avoid() -> dict[str, str]:
    """The network namespaces of the machine, of the process that started this one, and of all engines that run."""
    found = {"the machine (process 1)": _namespace(1), "the process that started it": _namespace(os.getppid())}
    for process in psutil.process_iter(["name"]):
        if process.info["name"] == "dockerd":
            found[f"the container engine with pid {process.pid}"] = _namespace(process.pid)
    return {what: namespace for what, namespace in found.items() if namespace is not None}


def require_own_namespace() -> None:
    """End the process unless it is in a network namespace of its own."""
    own = _namespace(os.getpid())
    reason = "it cannot be determined" if own is None else refusal(own, namespaces_to_avoid())
    if reason is not None:
        print(f"refused: {reason}; run it by `unshare --net`", file=sys.stderr)
        sys.exit(_REFUSED)


def _name(process: psutil.Process) -> str:
    """The name of a process; empty if it has ended."""
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


def _command(process: psutil.Process) -> list[str]:
    """The command line of a process; empty if it has ended, or is this one."""
    try:
        return process.cmdline() if process.pid != os.getpid() else []
    except psutil.Error:
        return []


def _namespace(pid: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return None


if __name__ == "__main__":
    require_own_namespace()
    os.execvp("dockerd", ["dockerd", *sys.argv[1:]])
