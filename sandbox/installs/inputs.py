"""What decides the result of an install command: the files that it reads, as a digest.

Package managers read manifests, lock files and their own settings. If the project's own code takes part, because it has
install scripts, is built as a package or the command is not one that is known, all files of the project count.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from sandbox.engine.guest import Guest

#: Part of every key: changed when archives of an earlier release must not be used any more.
_FORMAT = 1
_SECONDS = 30.0
#: More is printed only for projects with very many manifests, and then nothing is kept.
_PRINTED_BYTES = 1_048_576

_NAMES = (
    "package.json", "package-lock.json", "npm-shrinkwrap.json", "pnpm-lock.yaml", "pnpm-workspace.yaml", "bun.lockb",
    "lerna.json", ".npmrc", ".yarnrc", ".yarnrc.yml", ".pnpmfile.cjs", ".nvmrc", ".node-version", "*.patch", "*.prisma",
    "*.lock", "*.toml", "*.txt", "*.in", "Pipfile", "Pipfile.lock", "setup.py", "setup.cfg", ".python-version",
    "pip.conf", "binding.gyp",
)  # fmt: skip
_SKIPPED = r"\( -name node_modules -o -name .venv -o -name .git -o -path ./.sandbox \) -prune"
#: Starts at the topmost folder above the role's own that has a manifest, because workspaces share theirs.
_AT_TOP = r"""
top="$1"; above="$1"
while [ "$above" != "$2" ] && [ "$above" != / ]; do
    above=$(dirname "$above")
    for name in package.json pnpm-workspace.yaml pyproject.toml uv.lock; do
        if [ -e "$above/$name" ]; then top="$above"; fi
    done
done
cd "$top" || exit 1
"""
_NAMED = " -o ".join(f"-name '{name}'" for name in _NAMES)
_MANIFESTS = f"""{_AT_TOP}
manifests() {{ find . {_SKIPPED} -o -type f \\( {_NAMED} -o -path '*/.yarn/*' \\) -print0; }}
manifests | LC_ALL=C sort -z | xargs -0 -r sha256sum
echo --
manifests | xargs -0 -r grep -lE -e "$3" --
echo --
manifests | xargs -0 -r grep -lE -e "$4" --
find . {_SKIPPED} -o -type f \\( -name setup.py -o -name setup.cfg \\) -print
exit 0
"""
_EVERYTHING = f'cd "$1" && find . {_SKIPPED} -o -type f -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum | sha256sum'
#: Lines of manifests because of which files of the project are run or copied by any install.
_OWN_CODE = (
    r'"(preinstall|install|postinstall|prepublish|preprepare|prepare|postprepare)"[[:space:]]*:[[:space:]]*"'
    r'|"(file|portal):|^[[:space:]]*(-e|--editable|\.|/|file:)|@[[:space:]]*file:|[{,[:space:]]path[[:space:]]*=|"gypfile"'
)
#: Lines of manifests because of which a command that installs the project itself builds it.
_PACKAGE = r"^\[build-system\]|^[[:space:]]*package[[:space:]]*=[[:space:]]*true"
#: Commands of which it is known what they read.
_KNOWN = re.compile(
    r"(?:[A-Za-z_]\w*=\S+ +)*(?:corepack +)?(?:"
    r"npm +(?:ci|install|i)|npm +pkg +(?:set|delete)|pnpm +(?:install|i|add)|yarn(?:@\d+)?(?: +(?:install|add))?"
    r"|uv +(?:venv|sync|export|pip +install)|uvx +--with +poetry-plugin-export +poetry +export"
    r"|(?:python3? +-m +)?pip3? +install|python3? +-m +venv|echo)(?: .*)?",
    re.DOTALL,
)
#: Words that a shell replaces by what other programs print or files have.
_SHELL = re.compile(r"\$\(|`|<")
_BUILDS = re.compile(r"\buv +sync\b(?!.*--no-install-project)|(?<!\S)(?:-e|--editable)(?!\S)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Inputs:
    """The digest of what an install reads, and whether that is the whole project, with the reason."""

    digest: str
    whole_project: str | None


async def read_inputs(guest: Guest, workspace: str, root: str, command: str) -> Inputs | None:
    """Read what the command in the folder `root` of the workspace will read. None if that is unknown."""
    script = ["sh", "-c", _MANIFESTS, "manifests", root, workspace, _OWN_CODE, _PACKAGE]
    result = await guest.exec(script, timeout_seconds=_SECONDS, max_output_bytes=_PRINTED_BYTES)
    if result.exit_code != 0 or result.truncated or result.timed_out:
        return None
    sums, own_code, package = result.stdout.split(b"--\n", 2)
    why = _own_code(command, own_code.decode(errors="replace"), package.decode(errors="replace"))
    if why is None:
        return Inputs(hashlib.sha256(sums).hexdigest(), None)
    result = await guest.exec(["sh", "-c", _EVERYTHING, "everything", workspace], timeout_seconds=_SECONDS)
    if result.exit_code != 0 or result.timed_out:
        return None
    return Inputs(hashlib.sha256(sums + result.stdout).hexdigest(), why)


def key_content(owner: str, image: str, root: str, command: str, env: Mapping[str, str], inputs: Inputs) -> bytes:
    """What the key of an install is computed from: equal only if the same owner runs the same command on the same files
    in the same image. It contains the values of variables."""
    return json.dumps([_FORMAT, owner, image, root, command, sorted(env.items()), inputs.digest]).encode()


def _own_code(command: str, own_code: str, package: str) -> str | None:
    """Why files of the project other than manifests take part in the install, as part of a sentence; None if none
    do."""
    steps = [step.strip() for step in re.split(r"&&|;|\n|\|\||\|", command)]
    unknown = next((step for step in steps if step and (_SHELL.search(step) or not _KNOWN.fullmatch(step))), None)
    if unknown is not None:
        return f"`{unknown[:80]}` may read any of them"
    if own_code.strip():
        return f"{_first(own_code)} has scripts or packages of the project"
    if _BUILDS.search(command) and package.strip():
        return f"the project is built as a package ({_first(package)})"
    if any(_is_local(word) for step in steps for word in _words(step)[2:]):
        return "the command installs a folder of the project"
    return None


def _first(lines: str) -> str:
    return lines.split("\n", 1)[0].removeprefix("./")[:80]


def _words(step: str) -> list[str]:
    try:
        return shlex.split(step)
    except ValueError:
        return step.split()


def _is_local(word: str) -> bool:
    """Whether a word of a command is a folder or file of the project, not one for what the command itself writes."""
    return word == "." or (word.startswith(("./", "../", "/", "file:", ".[")) and not word.startswith("/tmp/"))  # noqa: S108
