"""Finds the container engine, or installs and starts one where that is allowed."""

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

from sandbox.engine.docker.connection import engine_version, is_local
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
#: The MTU of bridges by default.
_DEFAULT_MTU = 1500
_PACKAGE = "docker.io"
_FIREWALL_PACKAGE = "nftables"
_SYSTEMD_START_SECONDS = 60.0


class EngineMissing(EngineError):
    """No container engine answers, and this process may not set one up. The hint contains the commands to run."""

    code = "engine_missing"


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """The engine in use. `docker_host` None is the local socket."""

    docker_host: str | None
    #: Whether `ensure_engine` started it as a process of this data folder, so that `stop_engine` stops it.
    started_by_us: bool
    version: str


async def ensure_engine(settings: Settings, progress: Progress = lambda _: None) -> EngineFacts:
    """Return the engine at `DOCKER_HOST` or the local socket. If none answers, set one up where that is possible.

    As root on Debian or Ubuntu, Docker is installed if necessary and started. If the machine uses systemd, systemd
    starts it and it belongs to the machine from then on; otherwise it is a process that the data folder records. The
    call can be repeated, also from several processes at once, and does not change a running engine. Raises
    EngineMissing, whose hint contains the commands to run.
    """
    loop = asyncio.get_running_loop()

    def notify(line: str) -> None:
        loop.call_soon_threadsafe(progress, line)

    return await asyncio.to_thread(_ensure, settings, notify)


def stop_engine(home: Path) -> bool:
    """Stop the engine that `ensure_engine` started for this data folder. Return False if there is none. Blocks.

    All its containers end, including those that do not belong to this service. Their volumes stay.
    """
    return _daemon(home).stop()


def _daemon(home: Path, arguments: tuple[str, ...] = ()) -> LocalDaemon:
    return LocalDaemon(home / "engine", _HOST, arguments)


def _ensure(settings: Settings, progress: Progress) -> EngineFacts:
    facts = _ensure_running(settings, progress)
    if settings.egress_guard != "off" and is_local(settings.docker_host):
        _ensure_firewall(settings.home, progress)
    return facts


def _ensure_firewall(home: Path, progress: Progress) -> None:
    """Install nftables if that is possible. Without it sandboxes work, but what they reach cannot be restricted; the
    service refuses launches then if its settings require the restriction."""
    if shutil.which("nft") or not apt.can_install():
        return
    try:
        with _exclusive(home / "engine"), apt.services_not_started():
            apt.install([_FIREWALL_PACKAGE], progress)
    except apt.InstallFailed as error:
        progress(f"{error} {error.hint}")


def _ensure_running(settings: Settings, progress: Progress) -> EngineFacts:
    try:
        return _facts(settings)
    except EngineError as error:
        if settings.docker_host is not None:
            raise EngineMissing(
                f"No container engine answers at DOCKER_HOST={settings.docker_host}: {error}",
                hint="Start it, correct DOCKER_HOST, or unset it to use this machine's own engine.",
            ) from error
        _refuse_unless_permitted(error)
    with _exclusive(settings.home / "engine"):
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
    """Raise EngineMissing unless this process is able to set up an engine."""
    if _SOCKET.exists() and not os.access(_SOCKET, os.W_OK):
        raise EngineMissing(
            f"The container engine's socket {_SOCKET} is not open to this user",
            hint='Run: sudo usermod -aG docker "$USER", then log out and in again.',
        ) from error
    if os.geteuid() == 0 and (shutil.which("dockerd") or apt.can_install()):
        return
    raise EngineMissing("No container engine answers on this machine", hint=_commands_to_run()) from error


def _commands_to_run() -> str:
    """Return a hint with the commands that an administrator runs to set up an engine here."""
    if not shutil.which("dockerd") and not shutil.which("apt-get"):
        return "Install Docker (https://docs.docker.com/engine/install/), start it, then run this again."
    parts = [] if shutil.which("dockerd") else [f"sudo apt-get update && sudo apt-get install -y {_PACKAGE}"]
    if _SYSTEMD.is_dir():
        parts.append("sudo systemctl start docker")
    else:
        parts.append(f"sudo sh -c 'nohup {' '.join(['dockerd', *_mtu_arguments()])} >/var/log/dockerd.log 2>&1 &'")
    parts.append('sudo usermod -aG docker "$USER"')
    return f"Run: {' && '.join(parts)} and log in again. Or run this command as root, which does all that."


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Run the block in one process at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "setup.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _start(home: Path, progress: Progress) -> None:
    if _SYSTEMD.is_dir():
        _start_service(progress)
        return
    if not shutil.which("dockerd"):
        with apt.services_not_started():
            apt.install([_PACKAGE, "cgroupfs-mount"], progress)
    if not os.path.ismount(_CGROUPS) and shutil.which("cgroupfs-mount"):
        subprocess.run(["cgroupfs-mount"], capture_output=True, check=False, timeout=30)
    arguments = _mtu_arguments()
    progress(f"Starting the container engine ({' '.join(['dockerd', *arguments])})")
    _daemon(home, arguments).start()


def _start_service(progress: Progress) -> None:
    """Install Docker if necessary and let systemd start it."""
    if not shutil.which("dockerd"):
        _configure_mtu()
        apt.install([_PACKAGE], progress)
    progress("Starting the container engine (systemctl start docker)")
    done = subprocess.run(
        ["systemctl", "start", "docker"],
        capture_output=True,
        text=True,
        check=False,
        timeout=_SYSTEMD_START_SECONDS * 2,
    )
    deadline = time.monotonic() + _SYSTEMD_START_SECONDS
    while time.monotonic() < deadline:
        try:
            engine_version(None)
        except EngineError:
            time.sleep(0.5)
        else:
            return
    raise EngineError(
        f"systemd did not start the container engine: {done.stderr.strip()[-400:]}",
        code="engine_start_failed",
        hint="See: journalctl -u docker",
    )


def _mtu_arguments() -> tuple[str, ...]:
    """Return dockerd's argument for a network whose MTU is below the default.

    Without it, large downloads in containers hang.
    """
    mtu = default_route_mtu()
    if mtu is None or mtu >= _DEFAULT_MTU or "mtu" in _configured():
        return ()
    return (f"--mtu={mtu}",)


def _configured() -> dict[str, object]:
    """Return the machine's configuration file. dockerd refuses a setting that is in the file and in its arguments."""
    try:
        content = json.loads(_DAEMON_CONFIG.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _configure_mtu() -> None:
    """Write the MTU into the configuration of an engine that systemd will start, unless it has a configuration."""
    mtu = default_route_mtu()
    if mtu is not None and mtu < _DEFAULT_MTU and not _DAEMON_CONFIG.exists():
        _DAEMON_CONFIG.parent.mkdir(parents=True, exist_ok=True)
        _DAEMON_CONFIG.write_text(json.dumps({"mtu": mtu}) + "\n")
