"""The checks of `sandbox doctor`. They are in a module of their own because they load slow libraries."""

from __future__ import annotations

import asyncio
import contextlib
import platform
import resource
import shutil
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import httpx

from sandbox.cli import process
from sandbox.cli.kernel_limits import low_limits
from sandbox.client.config import ClientConfig, authority_of
from sandbox.db import migrations
from sandbox.db.embedded import EmbeddedPostgres
from sandbox.domain.setting_formats import DiskReserve
from sandbox.edge.admin import EdgeAdmin
from sandbox.edge.configuration import edge_configuration
from sandbox.edge.folder import EdgeFolder
from sandbox.edge.process import EdgeProcess
from sandbox.edge.program import find_program
from sandbox.engine.docker.connection import data_folder, default_bridge_mtu, engine_version, is_local
from sandbox.engine.docker.firewall import why_not
from sandbox.engine.docker.host_network import default_route_mtu
from sandbox.engine.host_environment import container_environment
from sandbox.engine.runtimes import RuntimeCatalog
from sandbox.errors import SandboxError
from sandbox.images.runtime_images import RuntimeImages
from sandbox.settings import Settings

_GIB = 1024**3
#: For how many sandboxes the kernel's limits are checked.
_SANDBOXES = 200


class Verdict(StrEnum):
    """The result of a check."""

    OK = "ok"
    #: The service can start nevertheless.
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check, with a hint how to fix what it found."""

    check: str
    verdict: Verdict
    detail: str
    hint: str = ""


async def run_checks(settings: Settings) -> list[Finding]:
    """Run all checks in order. An error that a check raises counts as a failed check."""
    findings = []
    for name, check in _CHECKS.items():
        try:
            findings.append(await check(settings))
        except SandboxError as error:
            findings.append(Finding(name, Verdict.FAIL, error.message, error.hint))
    return findings


async def _python(_: Settings) -> Finding:
    found = f"{platform.python_version()} at {sys.executable}"
    verdict = Verdict.OK if sys.version_info >= (3, 11) else Verdict.FAIL
    return Finding("python", verdict, found, "" if verdict is Verdict.OK else "Python 3.11 or newer is needed.")


async def _data_folder(settings: Settings) -> Finding:
    home = settings.home
    if not home.exists():
        return Finding("data folder", Verdict.WARN, f"{home} does not exist yet", "sandbox up creates it.")
    token = home / "admin-token"
    if token.exists() and token.stat().st_mode & 0o077:
        return Finding("data folder", Verdict.FAIL, f"other users can read {token}", f"chmod 600 {token}")
    return Finding("data folder", Verdict.OK, str(home))


async def _engine(settings: Settings) -> Finding:
    version = await asyncio.to_thread(engine_version, settings.docker_host)
    return Finding("engine", Verdict.OK, f"Docker {version} at {settings.docker_host or 'the local socket'}")


async def _images(settings: Settings) -> Finding:
    catalog = RuntimeCatalog()
    images = RuntimeImages(catalog, settings.docker_host)
    missing = [runtime.name for runtime in catalog.list() if await images.reference(runtime.name) is None]
    if missing:
        hint = "sandbox runtimes build (otherwise the first launch builds what it needs, which takes longer)"
        return Finding("images", Verdict.WARN, f"not built: {', '.join(missing)}", hint)
    return Finding("images", Verdict.OK, ", ".join(runtime.name for runtime in catalog.list()))


async def _network(_: Settings) -> Finding:
    host = container_environment()
    if host.notes:
        return Finding(
            "network",
            Verdict.WARN,
            "; ".join(host.notes),
            "Containers run without these settings. Configure values that they can use.",
        )
    passed = [*sorted(host.env), *(["CA certificates"] if host.ca_bundle else [])]
    return Finding("network", Verdict.OK, f"passed to containers: {', '.join(passed) or 'no settings of this machine'}")


async def _egress(settings: Settings) -> Finding:
    reason = why_not(is_local(settings.docker_host))
    if settings.egress_guard == "off":
        reason = "SANDBOX_EGRESS_GUARD is off"
    if reason is None:
        return Finding("egress", Verdict.OK, "sandboxes are kept from the host and private networks")
    verdict = Verdict.FAIL if settings.egress_guard == "required" else Verdict.WARN
    hint = "Sandboxes reach the host and its networks. Install nftables and run the service as root beside the engine."
    return Finding("egress", verdict, reason, hint)


async def _database(settings: Settings) -> Finding:
    dsn, what = settings.database_url, "DATABASE_URL"
    if dsn is None:
        state = await EmbeddedPostgres(settings.home).status()
        dsn, what = state.dsn, f"embedded PostgreSQL, pid {state.pid}"
        if dsn is None:
            return Finding("database", Verdict.WARN, "the embedded PostgreSQL is not running", "sandbox up starts it.")
    found = await migrations.status(dsn)
    if found.pending:
        return Finding(
            "database", Verdict.WARN, f"{what}; pending migrations: {', '.join(found.pending)}", "sandbox migrate"
        )
    return Finding("database", Verdict.OK, f"{what}; all {len(found.applied)} migrations applied")


async def _port(settings: Settings) -> Finding:
    where = f"{settings.host}:{settings.port}"
    pid = process.running_pid(process.pid_file(settings))
    if pid is not None:
        return Finding("port", Verdict.OK, f"{where} is in use by the service (pid {pid})")
    if settings.edge == "external":
        return Finding("port", Verdict.OK, f"{where} is for the external edge")
    process.check_port(settings)
    return Finding("port", Verdict.OK, f"{where} is free")


async def _edge(settings: Settings) -> Finding:
    if settings.edge == "external":
        folder = EdgeFolder.of(settings)
        if await asyncio.to_thread(EdgeAdmin(folder).holds, edge_configuration(settings)):
            return Finding("edge", Verdict.OK, f"an external one at {folder.path}, with this service's configuration")
        hint = "Start it, then the service: docker-compose.yml shows how"
        return Finding("edge", Verdict.WARN, f"none with this service's configuration at {folder.admin_socket}", hint)
    program, version = await asyncio.to_thread(find_program, settings)
    pid = await asyncio.to_thread(EdgeProcess(settings).pid)
    if pid is None:
        return Finding("edge", Verdict.WARN, f"Caddy {version} at {program} does not run", "Start it: sandbox up")
    return Finding("edge", Verdict.OK, f"Caddy {version} at {program}, pid {pid}")


async def _service(settings: Settings) -> Finding:
    url = process.base_url(settings)
    try:
        config = ClientConfig(url, None, authority=authority_of(settings.home, settings.port))
        async with httpx.AsyncClient(trust_env=False, timeout=10.0, verify=config.tls()) as client:
            answer = await client.get(f"{url}/readyz")
    except httpx.TransportError:
        return Finding("service", Verdict.WARN, f"nothing answers at {url}", "Start it: sandbox up")
    if answer.status_code == 200:
        return Finding("service", Verdict.OK, f"{url} is ready")
    hint = f"Its log: {process.log_file(settings)}"
    return Finding("service", Verdict.FAIL, f"{url} is not ready: {answer.text[:200]}", hint)


async def _disk(settings: Settings) -> Finding:
    reserve = DiskReserve.parse(settings.disk_reserve)
    usages = [(folder, shutil.disk_usage(folder)) for folder in await asyncio.to_thread(_written_folders, settings)]
    folder, usage = min(usages, key=lambda found: found[1].free - reserve.of(found[1].total))
    detail = f"{usage.free / _GIB:.1f} GiB free at {folder}, the reserve is {reserve.of(usage.total) / _GIB:.1f} GiB"
    if usage.free < reserve.of(usage.total):
        return Finding("disk", Verdict.FAIL, detail, "Nothing new is begun until there is more: free some space.")
    if usage.free < reserve.of(usage.total) + 4 * _GIB:
        hint = "Free some space: images take about 1 GiB, and each sandbox needs space for what it installs."
        return Finding("disk", Verdict.WARN, detail, hint)
    return Finding("disk", Verdict.OK, detail)


def _written_folders(settings: Settings) -> list[Path]:
    """The folders to which the service, the embedded database and the engine write, as far as they are there."""
    folders = [next(path for path in (settings.home, *settings.home.parents) if path.exists())]
    folders += [path for path in [(settings.home / "postgres").resolve()] if path.exists()]
    with contextlib.suppress(SandboxError):
        folders += [path for path in [data_folder(settings.docker_host)] if path is not None]
    return folders


async def _files(_: Settings) -> Finding:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < process.WANTED_FILES:
        hint = f"Raise it to {process.WANTED_FILES} or more: LimitNOFILE= of systemd, or ulimit -Hn."
        return Finding("open files", Verdict.WARN, f"a process may open only {hard} files and connections", hint)
    most = "any number of" if hard == resource.RLIM_INFINITY else f"{hard}"
    return Finding("open files", Verdict.OK, f"a process may open {most} files and connections")


async def _kernel(settings: Settings) -> Finding:
    if not is_local(settings.docker_host):
        return Finding("kernel limits", Verdict.OK, "the engine is on another machine")
    low = list(low_limits(_SANDBOXES, settings.pids))
    if low:
        hint = f"Raise: sysctl -w {' '.join(f'{limit.name}={limit.needed}' for limit in low)}"
        return Finding("kernel limits", Verdict.WARN, f"for {_SANDBOXES} sandboxes: {'; '.join(map(str, low))}", hint)
    return Finding("kernel limits", Verdict.OK, f"enough for {_SANDBOXES} sandboxes")


async def _mtu(settings: Settings) -> Finding:
    if settings.docker_host is not None and not settings.docker_host.startswith("unix://"):
        return Finding("mtu", Verdict.OK, "the engine is on another machine")
    outer = default_route_mtu()
    bridge = await asyncio.to_thread(default_bridge_mtu, settings.docker_host)
    if outer is not None and bridge is not None and bridge > outer:
        hint = (
            f'Downloads during image builds can hang. Set "mtu": {outer} in /etc/docker/daemon.json and restart Docker.'
        )
        return Finding("mtu", Verdict.WARN, f"{bridge} in containers, more than the {outer} of the default route", hint)
    return Finding("mtu", Verdict.OK, f"{bridge or 'unknown'} in containers, {outer or 'unknown'} on the default route")


Check = Callable[[Settings], Awaitable[Finding]]
_CHECKS: dict[str, Check] = {
    "python": _python,
    "data folder": _data_folder,
    "engine": _engine,
    "images": _images,
    "network": _network,
    "egress": _egress,
    "database": _database,
    "port": _port,
    "edge": _edge,
    "service": _service,
    "disk": _disk,
    "open files": _files,
    "kernel limits": _kernel,
    "mtu": _mtu,
}
