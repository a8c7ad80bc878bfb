"""Make or update the virtual environment `.venv` from `uv.lock`, getting uv first where the machine has none, and build
the web console.

`make` runs this with the machine's own Python, so it uses the standard library only.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv"
#: The environment that uv is installed into when the machine has none.
TOOLS = ROOT / ".sandbox" / "tools"


def main() -> None:
    """Bring `.venv` up to date, or exit with a message that says what to do."""
    if sys.version_info < (3, 11):  # noqa: UP036 - an older Python may well run this script
        sys.exit(
            f"Python {platform.python_version()} is too old: 3.11 or newer is needed. "
            "Install one and name it, for example: make PYTHON=python3.12"
        )
    uv = find_uv() or install_uv()
    env = {
        **os.environ,
        "UV_PROJECT_ENVIRONMENT": str(ENVIRONMENT),
        "UV_PYTHON_DOWNLOADS": "never",
        # Without this, where PYTHONDONTWRITEBYTECODE is set, every start compiles all libraries again.
        "UV_COMPILE_BYTECODE": "1",
    }
    env.pop("VIRTUAL_ENV", None)
    # uv does not read pip's settings. The index matters for the build backend, which the lock does not cover.
    for name, source in (("UV_DEFAULT_INDEX", "PIP_INDEX_URL"), ("SSL_CERT_FILE", "PIP_CERT")):
        if env.get(source):
            env.setdefault(name, env[source])
    if not (ENVIRONMENT / "bin" / "python").exists():
        print("Making the environment .venv", flush=True)
    run([str(uv), "sync", "--frozen", "--quiet", "--python", sys.executable], env=env)
    run([str(ENVIRONMENT / "bin" / "python"), "-I", str(ROOT / "scripts" / "console.py")])


def find_uv() -> Path | None:
    """Return a uv that runs: the one on PATH, in `.venv`, or installed earlier by this script."""
    for candidate in (shutil.which("uv"), ENVIRONMENT / "bin" / "uv", TOOLS / "bin" / "uv"):
        if candidate and _runs(Path(candidate)):
            return Path(candidate)
    return None


def _runs(program: Path) -> bool:
    try:
        return subprocess.run([str(program), "--version"], capture_output=True, check=False, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def install_uv() -> Path:
    """Install the version of uv that the lock names with pip, which checks its hash, and return its path."""
    requirement = locked_requirement("uv")
    if importlib.util.find_spec("ensurepip") is None:
        install_venv_package()
    print("Installing uv", flush=True)
    run([sys.executable, "-m", "venv", "--clear", str(TOOLS)])
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write(requirement)
        requirements.flush()
        pip = [str(TOOLS / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        run([*pip, "--no-deps", "--only-binary=:all:", "--require-hashes", "-r", requirements.name])
    return TOOLS / "bin" / "uv"


def locked_requirement(name: str) -> str:
    """Return the locked version of a package and the hashes of its wheels, as a line of a requirements file."""
    import tomllib  # noqa: PLC0415 - new in Python 3.11, which main() checks first

    packages = tomllib.loads((ROOT / "uv.lock").read_text("utf-8"))["package"]
    package = next(package for package in packages if package["name"] == name)
    return " ".join([f"{name}=={package['version']}", *(f"--hash={wheel['hash']}" for wheel in package["wheels"])])


def install_venv_package() -> None:
    """Install the Debian package without which `python3 -m venv` cannot make an environment that has pip."""
    package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        sys.exit(
            f"This Python cannot make virtual environments. On Debian or Ubuntu type: sudo apt-get install {package}\n"
            "Elsewhere install uv (https://docs.astral.sh/uv/) and try again."
        )
    print(f"Installing {package}", flush=True)
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-qq"], env=env)
    run(["apt-get", "install", "-qq", "--yes", "--no-install-recommends", package], env=env)


def run(command: list[str], env: dict[str, str] | None = None) -> None:
    """Run a command in the project's folder; exit if it fails. It has printed the reason itself."""
    done = subprocess.run(command, cwd=ROOT, env=env, check=False)
    if done.returncode != 0:
        sys.exit(f"`{' '.join(command[:4])}` failed with exit code {done.returncode}; the cause is above.")


if __name__ == "__main__":
    main()
