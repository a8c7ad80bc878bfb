"""Errors of uv, pip and Poetry."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from sandbox.domain.evidence import FailureCause, FailureEvidence
from sandbox.launch.causes.cause import Cause

_UV = re.compile(r"^(?:error: |\s*× )")
#: What only uv says, so that an `error:` is known to be its own.
_UV_WORDS = re.compile(
    r"No solution found|Failed to |requested interpreter|lockfile|virtual environment|Distribution |Querying Python"
    r"|resolving dependencies|is not supported|does not satisfy Python"
)
_PIP = re.compile(r"^\s*(?:ERROR|error): ")
_POETRY = re.compile(r"^\s*(?:Because |So, because |And because |pyproject\.toml changed significantly)")
#: The name of a package, with its extras. It begins a word and is bounded, so that long lines are read in linear time.
_NAME = r"`?(?<![A-Za-z0-9._-])(?P<package>[A-Za-z0-9][A-Za-z0-9._-]{0,199}?)(?:\[[^\]]{0,200}\])?"
_MISSING_PROGRAM = re.compile(
    r"command '(?:[\w/.-]*/)?([\w+.-]+)' failed: No such file|(?<![\w-])(\w[\w-]*): not found"
)
#: Lines of the output of a build in which no error is marked.
_BUILD_LINES = 12
_SPACES = re.compile(r"\s+")

#: Sets fields of the evidence from a match, and gives the hint.
_Judge = Callable[[FailureEvidence, re.Match[str], str], tuple[FailureEvidence, str]]


def read_uv(lines: Sequence[str], root: str) -> Cause | None:  # noqa: ARG001 - a `Reader`
    """uv's last error with its causes and hints, which go to the end of the output."""
    start = next((at for at in range(len(lines) - 1, -1, -1) if _UV.match(lines[at])), None)
    if start is None or not any(_UV_WORDS.search(line) for line in lines[start : start + 3]):
        return None
    return _cause("uv", _without_output(lines[start:]), len(lines))


def _without_output(lines: Sequence[str]) -> list[str]:
    """uv's error without the output of a build, except for the errors at its end."""
    quoted = next((at for at, line in enumerate(lines) if line.strip() in ("[stdout]", "[stderr]")), None)
    if quoted is None:
        return list(lines)
    stderr = next((at for at, line in enumerate(lines) if line.strip() == "[stderr]"), quoted)
    named = next(
        (at for at in range(stderr + 1, len(lines)) if re.match(r"\s*(?:\w+: )*error\b", lines[at], re.I)), None
    )
    return [*lines[:quoted], *(lines[named:] if named is not None else lines[-_BUILD_LINES:])]


def read_pip(lines: Sequence[str], root: str) -> Cause | None:  # noqa: ARG001 - a `Reader`
    """The lines that pip marks as errors, with the output of a build that it quotes between them."""
    marked = [at for at, line in enumerate(lines) if _PIP.match(line)]
    if not any(lines[at].lstrip().startswith("ERROR: ") for at in marked):
        return None
    quoted = any("subprocess-exited-with-error" in lines[at] for at in marked)
    shown = list(lines[marked[0] : marked[-1] + 1]) if quoted else [lines[at] for at in marked]
    return _cause("pip", list(dict.fromkeys(shown)), marked[-1] + 1)


def read_poetry(lines: Sequence[str], root: str) -> Cause | None:  # noqa: ARG001 - a `Reader`
    """Poetry's reasoning, from its first "Because" to the end of the paragraph."""
    start = next((at for at, line in enumerate(lines) if _POETRY.match(line)), None)
    if start is None:
        return None
    end = next((at for at in range(start, len(lines)) if not lines[at].strip()), len(lines))
    return _cause("poetry", lines[start:end], end)


def _cause(tool: str, lines: Sequence[str], end: int) -> Cause:
    text = _SPACES.sub(" ", " ".join(line.strip().lstrip("│╰─▶├×> ") for line in lines))
    evidence = FailureEvidence(tool=tool)
    for pattern, judge in _RULES:
        if match := pattern.search(text):
            evidence, hint = judge(evidence, match, text)
            return Cause(tuple(lines), end, evidence, hint)
    return Cause(tuple(lines), end, evidence)


def _wrong_platform(evidence: FailureEvidence, match: re.Match[str], text: str) -> tuple[FailureEvidence, str]:
    package, version = match["package"], match["version"]
    evidence = replace(evidence, cause=FailureCause.WRONG_PLATFORM, package=package, version=version)
    named = re.search(r"on the following platforms?: ((?:`\w+`(?:, )?)+)", text)
    platforms = re.findall(r"\w+", named[1]) if named else []
    requirement = f"{package}=={version}" if version else package
    for prefix, system, marker in (("win", "Windows", "win32"), ("macosx", "macOS", "darwin")):
        if platforms and all(platform.startswith(prefix) for platform in platforms):
            return _only_on(evidence, system, marker)
    return evidence, f"There is no wheel of {requirement} for Linux on this processor: ask for a version that has one."


def _only_on(evidence: FailureEvidence, system: str, marker: str) -> tuple[FailureEvidence, str]:
    requirement = f"{evidence.package}=={evidence.version}" if evidence.version else evidence.package
    return evidence, (
        f"{evidence.package} is for {system} only. Take the line out of the requirements, or write "
        f'{requirement}; sys_platform == "{marker}"'
    )


def _other_machine(evidence: FailureEvidence, match: re.Match[str], text: str) -> tuple[FailureEvidence, str]:  # noqa: ARG001
    return replace(evidence, cause=FailureCause.MISSING_FILE, file=match["path"]), (
        f"{match['path']} is a file of the machine on which the list was written (conda's Python does that). Write "
        "name and version of the package instead, as `pip list --format=freeze` prints them."
    )


def _other_python(evidence: FailureEvidence, match: re.Match[str], text: str) -> tuple[FailureEvidence, str]:
    groups = match.groupdict()
    wanted, package = groups.get("wanted"), groups.get("package")
    if package and f"only {package}==" in text:  # the project itself, of which there is one version
        package = None
    evidence = replace(evidence, cause=FailureCause.RUNTIME_VERSION, program="python", version=wanted, package=package)
    has = re.search(r"Python:? \(?(3\.\d+)[.\d]*", text)
    runtime = f"Python {has[1]}" if has else "another version of Python"
    if wanted is None or evidence.package:
        return evidence, f"The runtime has {runtime}: ask for a version of {evidence.package or 'it'} that supports it."
    return evidence, (
        f"The project asks for Python {wanted} and the runtime has {runtime}. Lower requires-python in pyproject.toml "
        "(and .python-version, and write the lock file anew) if the project works with it."
    )


def _not_found(evidence: FailureEvidence, match: re.Match[str], text: str) -> tuple[FailureEvidence, str]:  # noqa: ARG001
    package = match["package"]
    evidence = replace(evidence, cause=FailureCause.PACKAGE_NOT_FOUND, package=package)
    return evidence, f"There is no package {package} in the index: check its name."


def _no_version(evidence: FailureEvidence, match: re.Match[str], text: str) -> tuple[FailureEvidence, str]:
    package, version = match["package"], match["version"]
    evidence = replace(evidence, cause=FailureCause.VERSION_NOT_FOUND, package=package, version=version)
    known = re.search(r"\(from versions: ([^)]*)\)", text)
    newest = known[1].rpartition(",")[2].strip() if known else ""
    hint = f"There is no version {version} of {package}: ask for one that exists"
    return evidence, f"{hint}, such as {newest}." if newest else f"{hint}."


def _pip_candidates(evidence: FailureEvidence, match: re.Match[str], text: str) -> tuple[FailureEvidence, str]:
    if match["known"].strip() in ("none", ""):
        return _not_found(evidence, match, text)
    return _no_version(evidence, match, text)


def _build_failed(evidence: FailureEvidence, match: re.Match[str], text: str) -> tuple[FailureEvidence, str]:
    package = match["package"]
    evidence = replace(
        evidence, cause=FailureCause.BUILD_FAILED, package=package, version=match.groupdict().get("version")
    )
    if "pg_config" in text:
        return replace(
            evidence, program="pg_config"
        ), "Use psycopg2-binary, which needs no compiler, instead of psycopg2."
    if package.lower().startswith("pyobjc"):  # the bindings to the frameworks of macOS
        return _only_on(replace(evidence, cause=FailureCause.WRONG_PLATFORM), "macOS", "darwin")
    missing = _MISSING_PROGRAM.search(text)
    program = (missing[1] or missing[2]) if missing else None
    hint = "" if program else f"Ask for a version of {package} that has a wheel for this version of Python."
    return replace(evidence, program=program), hint


def _lock(evidence: FailureEvidence, match: re.Match[str], text: str) -> tuple[FailureEvidence, str]:  # noqa: ARG001
    evidence = replace(evidence, cause=FailureCause.LOCK_OUT_OF_STEP)
    return evidence, f"Write the lock file anew ({evidence.tool} lock), and upload it with the project."


def _simple(cause: FailureCause, hint: str = "") -> _Judge:
    return lambda evidence, match, text: (replace(evidence, cause=cause), hint)  # noqa: ARG005


#: The first that matches counts. Line breaks of the output are spaces here.
_RULES: tuple[tuple[re.Pattern[str], _Judge], ...] = (
    (re.compile(rf"{_NAME}(?:==(?P<version>[\w.+!-]+))? has no wheels with a matching platform tag"), _wrong_platform),
    (re.compile(rf"{_NAME}(?:==(?P<version>[\w.+!-]+))? has no wheels with a matching Python"), _other_python),
    (re.compile(r"incompatible with the project's Python requirement: `(?P<wanted>[^`]+)`"), _other_python),
    (re.compile(rf"does not satisfy Python ?(?P<wanted>[<>=~!]\S{{1,100}}?),? and {_NAME}[<>=~!]\S{{1,100}} "
                r"depends on Python"),
     _other_python),
    (re.compile(r"does not satisfy Python ?(?P<wanted>[<>=~!][^\s,]+)"), _other_python),
    (re.compile(rf"Package '{_NAME}' requires a different Python: [\d.]+ not in '(?P<wanted>[^']+)'"), _other_python),
    (re.compile(r"The lockfile at `?[^`]*`? needs to be updated|changed significantly since poetry\.lock"), _lock),
    (re.compile(r"Distribution not found at: (?P<path>file:\S+)"), _other_machine),
    (re.compile(rf"{_NAME} was not found in the (?:package registry|provided package locations|cache)"), _not_found),
    (re.compile(rf"there is no version of {_NAME}(?:==|=)(?P<version>[\w.+!-]+)"), _no_version),
    (re.compile(rf"satisfies the requirement {_NAME}(?:[=<>~!]=?(?P<version>[\w.+!*-]+))? "
                r"\(from versions: (?P<known>[^)]*)\)"),
     _pip_candidates),
    (re.compile(r"invalid peer certificate|CERTIFICATE_VERIFY_FAILED|certificate verify failed"),
     _simple(FailureCause.CERTIFICATE_REFUSED)),
    (re.compile(rf"Failed to (?:build|download and build) {_NAME}(?:==(?P<version>[\w.+!-]+))?`"), _build_failed),
    (re.compile(rf"Failed building wheel for {_NAME}(?: |$)"), _build_failed),
    (re.compile(r"dns error|failed to lookup address|tcp connect error|error sending request|failure in name resol"),
     _simple(FailureCause.NETWORK_UNREACHABLE)),
    (re.compile(r"No space left on device|os error 28"), _simple(FailureCause.DISK_FULL)),
    (re.compile(r"are incompatible|requirements are unsatisfiable|version solving failed|conflicting dependencies"),
     _simple(FailureCause.CONFLICTING_VERSIONS)),
)  # fmt: skip
