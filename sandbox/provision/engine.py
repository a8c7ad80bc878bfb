"""The container engine: the one that answers, else one that is set up here, else what to type."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sandbox.engine.docker.connection import engine_version
from sandbox.engine.docker.host_network import default_route_mtu
from sandbox.errors import EngineError
from sandbox.provision import apt
from sandbox.provision.daemon import LocalDaemon
from sandbox.settings import Settings

Progress = Callable[[str], None]

_SOCKET = Path("/var/run/docker.sock")
_HOST = f"unix://{_SOCKET}"
_DAEMON_CONFIG = Path("/etc/docker/daemon.json")
_SYSTEMD = Path("/run/systemd/system")
_CGROUPS = Path("/sys/fs/cgroup")
#: What bridges have when nobody says otherwise.
_USUAL_MTU = 1500
_PACKAGE = "docker.io"
_SERVICE_SECONDS = 60.0


class EngineMissing(EngineError):
    """No container engine answers, and none may be set up here. The hint says what to type."""

    code = "engine_missing"


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """The engine that answers. `docker_host` None is the local socket."""

    docker_host: str | None
    #: It is a process that `ensure_engine` started for this data folder, so `stop_engine` will end it.
    started_by_us: bool
    version: str


async def ensure_engine(settings: Settings, progress: Progress = lambda _: None) -> EngineFacts:
    """The engine that answers at `DOCKER_HOST` or the local socket; where none does, one is set up if that may be done.

    As root on Debian or Ubuntu Docker is installed if need be and started: by systemd where that runs (it is the
    machine's from then on), else as a process recorded in the data folder. May be called at any time and from several
    processes at once; nothing that runs is touched. Raises EngineMissing, whose hint is what to type.
    """
    loop = asyncio.get_running_loop()

    def say(line: str) -> None:
        loop.call_soon_threadsafe(progress, line)

    return await asyncio.to_thread(_ensure, settings, say)


def stop_engine(home: Path) -> bool:
    """Stop the engine that `ensure_engine` started for this data folder; False if there is none. Blocks.

    Every container on it ends with it, this service's and others'; their volumes stay.
    """
    return _daemon(home).stop()


def _daemon(home: Path, arguments: tuple[str, ...] = ()) -> LocalDaemon:
    return LocalDaemon(home / "engine", _HOST, arguments)


def _ensure(settings: Settings, progress: Progress) -> EngineFacts:
    try:
        return _facts(settings)
    except EngineError as error:
        if settings.docker_host is not None:
            raise EngineMissing(
                f"No container engine answers at DOCKER_HOST={settings.docker_host}: {error}",
                hint="Start it, correct DOCKER_HOST, or unset it to use this machine's own engine.",
            ) from error
        _refuse_unless_permitted(error)
    with _one_at_a_time(settings.home / "engine"):
        try:
            return _facts(settings)
        except EngineError:
            _start(settings.home, progress)
    return _facts(settings)


def _facts(settings: Settings) -> EngineFacts:
    version = engine_version(settings.docker_host)
    ours = settings.docker_host is None and _daemon(settings.home).running_pid() is not None
    return EngineFacts(settings.docker_host, ours, version)


def _refuse_unless_permitted(error: EngineError) -> None:
    """Raise EngineMissing with what to type, unless we may set one up ourselves."""
    if _SOCKET.exists() and not os.access(_SOCKET, os.W_OK):
        raise EngineMissing(
            f"The container engine's socket {_SOCKET} is not open to this user",
            hint='Type: sudo usermod -aG docker "$USER", then log out and in again.',
        ) from error
    if os.geteuid() == 0 and (shutil.which("dockerd") or apt.can_install()):
        return
    raise EngineMissing("No container engine answers on this machine", hint=_what_to_type()) from error


def _what_to_type() -> str:
    """The commands that bring an engine up here, for somebody who may."""
    if not shutil.which("dockerd") and not shutil.which("apt-get"):
        return "Install Docker (https://docs.docker.com/engine/install/), start it, then run this again."
    parts = [] if shutil.which("dockerd") else [f"sudo apt-get update && sudo apt-get install -y {_PACKAGE}"]
    if _SYSTEMD.is_dir():
        parts.append("sudo systemctl start docker")
    else:
        parts.append(f"sudo sh -c 'nohup {' '.join(['dockerd', *_mtu_arguments()])} >/var/log/dockerd.log 2>&1 &'")
    parts.append('sudo usermod -aG docker "$USER"')
    return f"Type: {' && '.join(parts)} and log in again. Or run this as root, and it is done for you."


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "setup.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _start(home: Path, progress: Progress) -> None:
    if _SYSTEMD.is_dir():
        _start_service(progress)
        return
    if not shutil.which("dockerd"):
        with apt.services_stay_down():
            apt.install([_PACKAGE, "cgroupfs-mount"], progress)
    if not os.path.ismount(_CGROUPS) and shutil.which("cgroupfs-mount"):
        subprocess.run(["cgroupfs-mount"], capture_output=True, check=False, timeout=30)
    arguments = _mtu_arguments()
    progress(f"Starting the container engine ({' '.join(['dockerd', *arguments])})")
    _daemon(home, arguments).start()


def _start_service(progress: Progress) -> None:
    """Have systemd run the engine; from then on it is the machine's own."""
    if not shutil.which("dockerd"):
        _configure_mtu()
        apt.install([_PACKAGE], progress)
    progress("Starting the container engine (systemctl start docker)")
    done = subprocess.run(
        ["systemctl", "start", "docker"], capture_output=True, text=True, check=False, timeout=_SERVICE_SECONDS * 2
    )
    deadline = time.monotonic() + _SERVICE_SECONDS
    while time.monotonic() < deadline:
        try:
            engine_version(None)
        except EngineError:
            time.sleep(0.5)
        else:
            return
    raise EngineError(
        f"systemd did not bring the container engine up: {done.stderr.strip()[-400:]}",
        code="engine_start_failed",
        hint="See: journalctl -u docker",
    )


def _mtu_arguments() -> tuple[str, ...]:
    """dockerd's argument for a network narrower than usual: without it large downloads in containers hang."""
    mtu = default_route_mtu()
    if mtu is None or mtu >= _USUAL_MTU or "mtu" in _configured():
        return ()
    return (f"--mtu={mtu}",)


def _configured() -> dict[str, object]:
    """What the machine's own configuration says; dockerd refuses to be told the same thing twice."""
    try:
        content = json.loads(_DAEMON_CONFIG.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _configure_mtu() -> None:
    """For an engine that systemd will start: the MTU goes into its configuration, if there is none yet."""
    mtu = default_route_mtu()
    if mtu is not None and mtu < _USUAL_MTU and not _DAEMON_CONFIG.exists():
        _DAEMON_CONFIG.parent.mkdir(parents=True, exist_ok=True)
        _DAEMON_CONFIG.write_text(json.dumps({"mtu": mtu}) + "\n")
