"""Finds the Caddy program."""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

from sandbox.errors import Unavailable
from sandbox.settings import Settings

#: The first version that ends requests whose bodies make no progress (`read_idle_timeout`).
OLDEST_VERSION = (2, 11, 5)


class EdgeUnavailable(Unavailable):
    """The edge cannot be started or does not answer."""

    code = "edge_failed"


def find_program(settings: Settings) -> tuple[Path, str]:
    """The program and its version: the setting's, else the one installed with the service, else the one on PATH.

    Blocks for some 50 ms. Raises EdgeUnavailable if there is none, or it is too old.
    """
    hint = "Reinstall purple8-sandbox, which brings it, or set SANDBOX_EDGE_PROGRAM. Without: sandbox serve --no-edge"
    candidates = [settings.edge_program] if settings.edge_program else [Path(sysconfig.get_path("scripts")) / "caddy"]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None and settings.edge_program is None and (on_path := shutil.which("caddy")):
        found = Path(on_path)
    if found is None:
        raise EdgeUnavailable(f"The program of the edge, Caddy, is not there: {candidates[0]}", hint=hint)
    try:
        printed = subprocess.run([found, "version"], capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise EdgeUnavailable(f"{found} does not run: {error}", hint=hint) from error
    version = re.match(r"v?(\d+)\.(\d+)\.(\d+)", printed)
    if version is None or tuple(map(int, version.groups())) < OLDEST_VERSION:
        oldest = ".".join(map(str, OLDEST_VERSION))
        raise EdgeUnavailable(f"{found} is {printed.strip()[:40]}; {oldest} or newer is needed", hint=hint)
    if settings.tls == "acme":
        _check_dns_module(found, settings.dns_provider["name"])
    return found, version[0]


def _check_dns_module(program: Path, provider: str) -> None:
    """Raise EdgeUnavailable if the program cannot prove a domain by this DNS provider."""
    printed = subprocess.run([program, "list-modules"], capture_output=True, text=True, check=True, timeout=30).stdout
    if f"dns.providers.{provider}" not in printed.split():
        raise EdgeUnavailable(
            f"SANDBOX_TLS=acme needs the module dns.providers.{provider}, which {program} does not have",
            hint="Set SANDBOX_EDGE_PROGRAM to a Caddy that was built with it, or SANDBOX_TLS to CERTIFICATE:KEY.",
        )
