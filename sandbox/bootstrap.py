"""Makes the environment `.venv` that everything else runs in. Run by `make` with whatever Python the machine has.

Standard library only, and nothing of ours: it runs before anything is installed. Does nothing when the environment is
as the lock says already.
"""

from __future__ import annotations

import hashlib
import html.parser
import os
import platform
import re
import shutil
import ssl
import subprocess
import sys
import sysconfig
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv"
LOCK = ROOT / "requirements.lock"
#: Where uv is put if the machine has none.
TOOLS = ROOT / ".sandbox" / "tools"
_STAMP = ENVIRONMENT / ".made-from"
_DEFAULT_INDEX = "https://pypi.org/simple"
_OLDEST_PYTHON = (3, 11)
_SECONDS = 120


class Failed(Exception):
    """Bootstrapping cannot go on; the message says what to do."""


def main() -> int:
    """Make the environment if it is not as the lock says. Answers the exit code."""
    try:
        _check_python()
        if not _is_current():
            _make(find_uv() or get_uv())
    except Failed as error:
        print(f"bootstrap: {error}", file=sys.stderr)
        return 1
    return 0


def _check_python() -> None:
    if sys.version_info < _OLDEST_PYTHON:
        raise Failed(
            f"Python {platform.python_version()} is too old, 3.11 or newer is needed. "
            "Install one and type, for example: make PYTHON=python3.12"
        )


def _is_current() -> bool:
    try:
        return _STAMP.read_text() == _fingerprint() and (ENVIRONMENT / "bin" / "python").exists()
    except OSError:
        return False


def _fingerprint() -> str:
    """What the environment is made from: the lock, the project's description, this Python and this script."""
    digest = hashlib.sha256(f"{sys.version}\0{ROOT}\0".encode())
    for path in (LOCK, ROOT / "pyproject.toml", Path(__file__)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _make(uv: Path) -> None:
    print("Making the environment .venv", flush=True)
    _STAMP.unlink(missing_ok=True)
    python = ENVIRONMENT / "bin" / "python"
    _uv(uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(ENVIRONMENT))
    _uv(uv, "pip", "sync", "--quiet", "--require-hashes", "--python", str(python), str(LOCK))
    _uv(uv, "pip", "install", "--quiet", "--no-deps", "--python", str(python), "--editable", str(ROOT))
    _STAMP.write_text(_fingerprint())


def _uv(uv: Path, *arguments: str) -> None:
    """Run uv with the index, proxy and certificates that this machine has set for pip, unless uv has its own."""
    env = dict(os.environ)
    for name, source in (("UV_DEFAULT_INDEX", "PIP_INDEX_URL"), ("SSL_CERT_FILE", "PIP_CERT")):
        if not env.get(name) and env.get(source):
            env[name] = env[source]
    env.pop("VIRTUAL_ENV", None)
    done = subprocess.run([str(uv), *arguments], cwd=ROOT, env=env, check=False)
    if done.returncode != 0:
        raise Failed(f"`uv {' '.join(arguments[:2])}` failed, see above. Is the package index reachable?")


def find_uv() -> Path | None:
    """A uv that works: on PATH, of the environment, or got earlier."""
    on_path = shutil.which("uv")
    for candidate in (on_path, ENVIRONMENT / "bin" / "uv", TOOLS / "bin" / "uv"):
        if candidate and _works(Path(candidate)):
            return Path(candidate)
    return None


def _works(program: Path) -> bool:
    try:
        return subprocess.run([str(program), "--version"], capture_output=True, check=False, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def get_uv() -> Path:
    """uv in the version and with the digest that the lock names: by pip if the machine has it, else its wheel."""
    version, digests = locked("uv")
    print(f"Getting uv {version}", flush=True)
    TOOLS.mkdir(parents=True, exist_ok=True)
    if not _with_pip(version, digests):
        _with_wheel(version, digests)
    program = TOOLS / "bin" / "uv"
    if not _works(program):
        raise Failed(f"{program} does not run on this machine. Install uv and try again.")
    return program


def locked(name: str) -> tuple[str, set[str]]:
    """The version and the SHA-256 digests that the lock has for a package."""
    found = re.search(rf"^{name}==(\S+)((?:\s*\\\n\s+--hash=sha256:\w+)+)", LOCK.read_text(), re.MULTILINE)
    if found is None:
        raise Failed(f"{LOCK.name} names no {name}; make it anew with: make lock")
    return found[1], set(re.findall(r"sha256:(\w+)", found[2]))


def _with_pip(version: str, digests: set[str]) -> bool:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as wanted:
        hashes = " ".join(f"--hash=sha256:{digest}" for digest in sorted(digests))
        wanted.write(f"uv=={version} {hashes}\n")
        wanted.flush()
        options = ["--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:", "--upgrade", "--target"]
        command = [sys.executable, "-m", "pip", "install", *options, str(TOOLS), "-r", wanted.name]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _with_wheel(version: str, digests: set[str]) -> None:
    """Fetch the wheel from the package index, check it against the lock and unpack the program. For a bare machine."""
    index = next(
        (os.environ[name] for name in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL") if os.environ.get(name)),
        _DEFAULT_INDEX,
    )
    page = f"{index.rstrip('/')}/uv/"
    tags = wheel_tags()
    wheel = choose_wheel(_fetch(page).decode(), version, tags)
    if wheel is None:
        raise Failed(f"{page} has no uv {version} for {' or '.join(tags)}. Install uv and try again.")
    content = _fetch(urllib.parse.urljoin(page, wheel))
    if hashlib.sha256(content).hexdigest() not in digests:
        raise Failed(f"uv's wheel from {page} is not the one that {LOCK.name} names. It was not used.")
    with tempfile.TemporaryFile() as archive:
        archive.write(content)
        with zipfile.ZipFile(archive) as members:
            program = next(name for name in members.namelist() if name.endswith(".data/scripts/uv"))
            target = TOOLS / "bin" / "uv"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(members.read(program))
            target.chmod(0o755)


def wheel_tags() -> tuple[str, ...]:
    """Parts of a wheel's name that fit this machine, best first."""
    machine = platform.machine().lower()
    if sys.platform == "darwin":
        return (f"macosx_.*_{'arm64' if machine == 'arm64' else 'x86_64'}",)
    family = "musllinux" if "musl" in (sysconfig.get_config_var("HOST_GNU_TYPE") or "") else "manylinux"
    return (f"{family}.*_{machine}",)


class _Links(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep where a link leads."""
        if tag == "a":
            self.found += [value for name, value in attrs if name == "href" and value]


def choose_wheel(page: str, version: str, tags: tuple[str, ...]) -> str | None:
    """The link to uv's wheel of this version for one of these tags, from an index's page; None if there is none."""
    links = _Links()
    links.feed(page)
    for tag in tags:
        pattern = re.compile(rf"(^|/)uv-{re.escape(version)}-py3-none-[^/]*{tag}\.whl$")
        for link in links.found:
            if pattern.search(urllib.parse.unquote(urllib.parse.urlsplit(link).path)):
                return link
    return None


def _fetch(url: str) -> bytes:
    if not url.startswith(("https://", "http://")):
        raise Failed(f"{url} is not an address of a package index. Correct PIP_INDEX_URL, or install uv.")
    try:
        return _open(url)
    except urllib.error.URLError as error:
        untrusted = isinstance(error.reason, ssl.SSLCertVerificationError)
        if untrusted and not os.environ.get("SSL_CERT_FILE") and _install_certificates():
            return _open(url)
        hint = " Type: apt-get install ca-certificates" if untrusted else ""
        raise Failed(f"{url} cannot be fetched: {error.reason}.{hint}") from error


def _open(url: str) -> bytes:
    context = ssl.create_default_context()
    certificates = os.environ.get("PIP_CERT")
    if certificates and not os.environ.get("SSL_CERT_FILE"):
        context.load_verify_locations(certificates)
    with urllib.request.urlopen(url, timeout=_SECONDS, context=context) as answer:  # noqa: S310 - checked by _fetch
        content: bytes = answer.read()
    return content


def _install_certificates() -> bool:
    """A bare Debian trusts nobody: it has no certificates. True if they could be installed."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return False
    print("Installing ca-certificates (apt-get)", flush=True)
    for arguments in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", "ca-certificates"]):
        done = subprocess.run(["apt-get", *arguments], stdout=subprocess.DEVNULL, check=False)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
