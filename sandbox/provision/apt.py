"""Debian and Ubuntu packages, where this process may install them. Blocks: run it in a thread."""

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
_SECONDS = 900


class InstallFailed(EngineError):
    """apt-get could not install a package; the message has what it said."""

    code = "package_install_failed"


def can_install() -> bool:
    """Whether this process may install packages: it is root, and apt-get is there."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install(packages: Sequence[str], progress: Callable[[str], None]) -> None:
    """Install packages without what they merely recommend. Raises InstallFailed."""
    names = " ".join(packages)
    progress(f"Installing {names} (apt-get)")
    # A source that does not answer need not be the one these come from: the installation decides.
    _apt("update")
    done = _apt("install", "--no-install-recommends", *packages)
    if done.returncode != 0:
        raise InstallFailed(
            f"{names} could not be installed: {(done.stderr or done.stdout).strip()[-800:]}",
            hint=f"Type: apt-get update && apt-get install {names}",
        )


def _apt(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=300", *arguments]
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_SUSPEND": "1"}
    try:
        return subprocess.run(
            command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise InstallFailed(
            f"{' '.join(command)} did not end within {_SECONDS} s", hint="Type it yourself and see."
        ) from error


@contextmanager
def services_stay_down() -> Iterator[None]:
    """Keep installed packages from starting their services during the block, so that nobody but us starts them.

    The administrator's own policy, if there is one, stays in force.
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
