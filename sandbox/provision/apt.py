"""Installs Debian and Ubuntu packages. Everything here blocks: call it in a thread."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sandbox.errors import EngineError

_POLICY = Path("/usr/sbin/policy-rc.d")
_NO_SERVICE = "#!/bin/sh\nexit 101\n"
_TIMEOUT_SECONDS = 900


class InstallFailed(EngineError):
    """apt-get could not install a package. The message contains the end of its output."""

    code = "package_install_failed"


def can_install() -> bool:
    """Return whether this process can install packages: it is root, and the system has apt-get."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install(packages: Sequence[str], progress: Callable[[str], None]) -> None:
    """Install packages without the packages that they recommend. Raises InstallFailed."""
    names = " ".join(packages)
    progress(f"Installing {names} (apt-get)")
    # The update fails if any one package source does not answer. That may be one that is not needed here, so only the
    # result of the installation counts.
    _apt("update")
    done = _apt("install", "--no-install-recommends", *packages)
    if done.returncode != 0:
        raise InstallFailed(
            f"{names} could not be installed: {(done.stderr or done.stdout).strip()[-800:]}",
            hint=f"Run: apt-get update && apt-get install {names}",
        )


def _apt(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=300", *arguments]
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_SUSPEND": "1"}
    try:
        return subprocess.run(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise InstallFailed(
            f"{' '.join(command)} did not end within {_TIMEOUT_SECONDS} s", hint="Run it yourself to see why."
        ) from error


@contextmanager
def services_not_started() -> Iterator[None]:
    """Prevent the packages that are installed in the block from starting their services.

    If the administrator has a policy for this already, it stays in force.
    """
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text(_NO_SERVICE)
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink(missing_ok=True)
