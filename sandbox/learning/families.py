"""The kinds of failure that are recognised in what a launch printed, with what each lesson about them says."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from sandbox.domain.evidence import FailureCause, FailureEvidence
from sandbox.learning.quoting import normalise

#: Longest part of a failure's output that is searched.
MAX_OUTPUT = 32_768


@dataclass(frozen=True, slots=True)
class Finding:
    """What a failure is: its family, its signature, and the particulars that the signature leaves out."""

    family: str
    signature: str
    particulars: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of failure.

    `patterns` find it in the output; their named groups are its particulars. `codes` restricts it to these failure
    codes; without patterns a code is enough.
    """

    name: str
    signature: str
    advice: str
    patterns: Sequence[re.Pattern[str]] = ()
    codes: frozenset[str] = frozenset()
    category: str = "correctness"
    #: Whether the particulars that were found are usable.
    accepts: Callable[[Mapping[str, str]], bool] = lambda _: True


def _package_of(particulars: Mapping[str, str]) -> bool:
    """Whether an import of Node.js names a package, and not a file of the project or a part of Node.js."""
    return not particulars["package"].startswith(("node:", "#"))


_VARIABLE = r"(?P<variable>[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*)"
_PACKAGE = r"(?P<package>(?:@[a-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]{0,100})"

FAMILIES: tuple[Family, ...] = (
    Family(
        "python_module_missing",
        "ModuleNotFoundError: No module named <module>",
        "Declare every package whose modules the code imports in requirements.txt or pyproject.toml.",
        (re.compile(r"ModuleNotFoundError: No module named '(?P<module>[A-Za-z_]\w{0,80})"),),
        frozenset({"app_exited"}),
    ),
    Family(
        "node_module_missing",
        "Cannot find package <package>",
        "Declare every package that the code imports under dependencies in package.json.",
        (
            re.compile(r"Cannot find (?:module|package) '(?P<package>(?:@[a-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]{0,100})"),
            re.compile(r"Can't resolve '(?P<package>(?:@[a-z0-9][\w.-]*/)?[a-z0-9][\w.-]{0,100})"),
            re.compile(
                r"Failed to resolve import \"(?P<package>(?:@[a-z0-9][\w.-]*/)?[a-z0-9][\w.-]{0,100})[^\"]*\" from"
            ),
        ),
        accepts=_package_of,
    ),
    Family(
        "program_missing",
        "<program>: not found",
        "Declare the package that brings the program of the start command as a dependency.",
        (
            re.compile(
                r"(?:^|[\s:/])(?:ba|da)?sh: (?:line )?(?:\d+: )?(?:exec: )?(?P<program>[A-Za-z][\w.-]{0,60}): "
                r"(?:command )?not found",
                re.MULTILINE,
            ),
        ),
    ),
    Family(
        "openssl_of_old_webpack",
        "ERR_OSSL_EVP_UNSUPPORTED",
        "Use a bundler that supports the installed Node.js; webpack 4 needs NODE_OPTIONS=--openssl-legacy-provider.",
        (re.compile(r"ERR_OSSL_EVP_UNSUPPORTED|digital envelope routines::unsupported"),),
    ),
    Family(
        "engine_mismatch",
        "the declared engine does not match the installed one",
        "Declare an engine version that the runtime has: Node.js 20, Python 3.12.",
        (
            re.compile(r"(?P<tool>npm) (?:error|ERR!) code EBADENGINE"),
            re.compile(r"The engine \"node\" is incompatible with this module"),
            re.compile(r"ERR_(?P<tool>PNPM)_UNSUPPORTED_ENGINE"),
        ),
        frozenset({"dependency_install_failed"}),
    ),
    Family(
        "package_manager_too_new",
        "the package manager that package.json names needs a newer Node.js",
        "Name a version of the package manager in package.json that supports the Node.js of the runtime.",
        (
            re.compile(r"No such built-in module: node:\w+"),
            re.compile(r"This version of pnpm requires at least Node\.js"),
        ),
        frozenset({"dependency_install_failed"}),
    ),
    Family(
        "lock_out_of_step",
        "the lock file does not match the manifest",
        "Write the lock file anew whenever the manifest changes, and keep both in the project.",
        (
            re.compile(r"`?npm ci`? can only install packages when your package\.json and package-lock\.json"),
            re.compile(r"ERR_PNPM_OUTDATED_LOCKFILE|ERR_PNPM_LOCKFILE_CONFIG_MISMATCH"),
            re.compile(r"Your lockfile needs to be updated"),
            re.compile(r"lockfile (?:at `[^`]*` )?needs to be updated"),
        ),
        frozenset({"dependency_install_failed"}),
    ),
    Family(
        "peer_conflict",
        "npm ERESOLVE: peer dependencies conflict",
        "Choose versions whose peer dependencies agree.",
        (re.compile(r"npm (?:error|ERR!) code ERESOLVE|ERESOLVE (?:could not resolve|unable to resolve)"),),
        frozenset({"dependency_install_failed"}),
    ),
    Family(
        "node_version_missing",
        "npm: No matching version found for <package>",
        "Require only versions of packages that are published.",
        (re.compile(rf"No matching version found for {_PACKAGE}@(?P<version>[^\s.][^\s]{{0,60}}?)\.?(?:\s|$)"),),
        frozenset({"dependency_install_failed"}),
    ),
    Family(
        "python_version_missing",
        "there is no version of <package> as required",
        "Require only versions of packages that are published.",
        (
            re.compile(rf"there is no version of {_PACKAGE}\s*==\s*(?P<version>[\w.!+-]{{1,60}})"),
            re.compile(rf"only (?:the following versions of )?{_PACKAGE}(?:[<>=!][^\s]*)? (?:is|are) available"),
            re.compile(rf"[Nn]o matching distribution found for {_PACKAGE}\s*==\s*(?P<version>[\w.!+-]{{1,60}})"),
        ),
        frozenset({"dependency_install_failed"}),
    ),
    Family(
        "python_package_unsupported",
        "the required version of <package> does not support the installed Python",
        "Require versions of packages that support the Python version of the runtime.",
        (
            re.compile(rf"does not satisfy Python[^\n]{{1,80}}? and {_PACKAGE}[<>=!~][^\s]* depends on Python"),
            re.compile(rf"Package '{_PACKAGE}' requires a different Python"),
        ),
        frozenset({"dependency_install_failed"}),
    ),
    Family(
        "python_version_mismatch",
        "the project requires another version of Python than the installed one",
        "Require a version of Python that the runtime has: Python 3.12.",
        (
            re.compile(r"incompatible with the project's Python requirement"),
            re.compile(
                r"[Cc]urrent Python version \([\d.]+\) (?:does not satisfy Python|is not allowed by the project)"
            ),
        ),
        frozenset({"dependency_install_failed"}),
    ),
    Family(
        "python_build_failed",
        "the required version of <package> has no wheel for the installed Python and cannot be built",
        "Require versions of packages that have a wheel for the Python version of the runtime.",
        (re.compile(rf"Failed to build `{_PACKAGE}=="),),
        frozenset({"dependency_install_failed"}),
    ),
    Family(
        "python_conflict",
        "requirements contradict each other",
        "Require versions that agree with each other.",
        (re.compile(rf"[Aa]nd because you require {_PACKAGE}[<>=!~][^\s,]*,? we can conclude that your requirements"),),
        frozenset({"dependency_install_failed"}),
    ),
    Family(
        "requirements_not_utf8",
        "a file of requirements is not UTF-8",
        "Save requirements.txt as UTF-8.",
        (re.compile(r"failed to (?:decode|read from) file `(?P<file>[\w][\w./-]{0,100}\.txt)`.*valid UTF-8"),),
        frozenset({"dependency_install_failed"}),
    ),
    Family(
        "opencv_with_display",
        "cv2: <library>: cannot open shared object file",
        "Require opencv-python-headless; opencv-python needs the libraries of a display, which containers lack.",
        (
            re.compile(
                r"\bcv2\b(?s:.{0,1500}?)(?P<library>lib[\w.+-]{1,60}\.so[\w.]{0,20}): cannot open shared object file"
            ),
        ),
    ),
    Family(
        "system_library_missing",
        "<library>: cannot open shared object file",
        "Use packages that bring their own system libraries, such as the headless variant of OpenCV.",
        (re.compile(r"(?P<library>lib[\w.+-]{1,60}\.so[\w.]{0,20}): cannot open shared object file"),),
    ),
    Family(
        "variable_missing",
        "the environment variable <variable> is missing",
        "Give every environment variable that the code reads a default, or state it in `env` of sandbox.toml.",
        (
            re.compile(rf"KeyError: '{_VARIABLE}'"),
            re.compile(rf"UndefinedValueError: {_VARIABLE} not found"),
            re.compile(rf"[Ee]nvironment variables?:? (?:not found: )?[\"'`]?{_VARIABLE}\b"),
            re.compile(
                rf"\b{_VARIABLE}[\"'`]? (?:environment variable|is not set|is not defined|must be set|is required)"
            ),
            re.compile(rf"[Mm]issing (?:required )?(?:\w+ ){{0,3}}[\"'`]?{_VARIABLE}\b"),
        ),
        frozenset({"app_exited"}),
    ),
    Family(
        "address_not_available",
        "the app binds to an address that the container does not have",
        "Listen on 0.0.0.0, or on the address in $HOST.",
        (
            re.compile(r"EADDRNOTAVAIL|[Cc]annot assign requested address"),
            re.compile(r"getaddrinfo (?:ENOTFOUND|EAI_AGAIN)|gaierror"),
        ),
        frozenset({"app_exited"}),
    ),
    Family(
        "other_port",
        "the app listens on another port than the plan says",
        "Listen on the port in $PORT.",
        (re.compile(r"the plan says port (?P<planned>\d{1,5}), but the app listens on port (?P<opened>\d{1,5})"),),
        frozenset({"other_port_opened"}),
    ),
    Family(
        "slow_start",
        "the app opened no port in time",
        "Open the port first and do slow work afterwards.",
        codes=frozenset({"port_not_opened"}),
        category="performance",
    ),
    Family(
        "slow_install",
        "the install command did not finish in time",
        "Require fewer or smaller packages.",
        codes=frozenset({"dependency_install_timeout"}),
        category="performance",
    ),
)
BY_NAME = {family.name: family for family in FAMILIES}
OTHER = "other"

_ERROR_LINE = re.compile(r"(?:error|exception|failed|cannot|not found|unable|invalid|denied)", re.IGNORECASE)


#: Values of particulars that may come into a command or a lesson.
_PARTICULARS = {
    "module": re.compile(r"[A-Za-z_]\w{0,80}"),
    "package": re.compile(r"(?:@[a-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]{0,100}"),
    "program": re.compile(r"[A-Za-z][\w.-]{0,60}"),
    "variable": re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*"),
    "planned": re.compile(r"\d{1,5}"),
    "opened": re.compile(r"\d{1,5}"),
}
_PYTHON_TOOLS = frozenset({"python", "uv", "pip"})


def recognise(code: str, message: str, output: str = "", evidence: FailureEvidence | None = None) -> Finding:
    """The finding of a failure with this code, by its evidence, or else by what the failing command printed.

    A failure of no known family gets the signature of its last line that names an error.
    """
    known = _by_evidence(code, evidence) if evidence else None
    if known is not None and known.family != OTHER:
        return known
    by_output = _by_output(code, message, output)
    return known if known is not None and by_output.family == OTHER else by_output


def _by_evidence(code: str, evidence: FailureEvidence) -> Finding | None:
    """The finding by evidence; None if its cause is not known."""
    if evidence.cause is None:
        return None
    python = evidence.tool in _PYTHON_TOOLS
    module = (evidence.module or "").split(".")[0] if python else evidence.module
    family, particulars = {
        FailureCause.MISSING_MODULE: (
            ("python_module_missing", {"module": module}) if python else ("node_module_missing", {"package": module})
        ),
        FailureCause.MISSING_VARIABLE: ("variable_missing", {"variable": evidence.variable}),
        FailureCause.MISSING_PROGRAM: ("program_missing", {"program": evidence.program}),
        FailureCause.VERSION_NOT_FOUND: (
            "python_version_missing" if python else "node_version_missing",
            {"package": evidence.package},
        ),
        FailureCause.CONFLICTING_VERSIONS: (
            ("python_conflict", {"package": evidence.package}) if python else ("peer_conflict", {})
        ),
        FailureCause.LOCK_OUT_OF_STEP: ("lock_out_of_step", {}),
        FailureCause.RUNTIME_VERSION: _by_runtime_version(evidence.package) if python else ("engine_mismatch", {}),
        FailureCause.BUILD_FAILED: (("python_build_failed", {"package": evidence.package}) if python else (OTHER, {})),
        FailureCause.OTHER_PORT: (
            "other_port",
            {"planned": _shown(evidence.port_planned), "opened": _shown(evidence.port_opened)},
        ),
    }.get(evidence.cause, (OTHER, {}))
    usable = {name: value for name, value in particulars.items() if value and _PARTICULARS[name].fullmatch(value)}
    if family != OTHER and len(usable) == len(particulars):
        return Finding(family, BY_NAME[family].signature, usable)
    parts = (evidence.cause.value, evidence.tool, evidence.error)
    return Finding(OTHER, f"{code}: {normalise(' '.join(part for part in parts if part))}")


def _by_runtime_version(package: str | None) -> tuple[str, dict[str, str | None]]:
    """Python's version does not suit a package, or else the project."""
    return ("python_package_unsupported", {"package": package}) if package else ("python_version_mismatch", {})


def _shown(port: int | None) -> str | None:
    return None if port is None else str(port)


def _by_output(code: str, message: str, output: str) -> Finding:
    text = f"{message}\n{output}"[-MAX_OUTPUT:]
    for family in FAMILIES:
        if family.codes and code not in family.codes:
            continue
        if not family.patterns:
            return Finding(family.name, family.signature)
        for pattern in family.patterns:
            match = pattern.search(text)
            if match is None:
                continue
            particulars = {name: value for name, value in match.groupdict().items() if value}
            if family.accepts(particulars):
                return Finding(family.name, family.signature, particulars)
    lines = [line for line in message.splitlines() if line.strip()]
    errors = [line for line in lines[1:] if _ERROR_LINE.search(line)] or lines[:1] or [""]
    return Finding(OTHER, f"{code}: {normalise(errors[-1])}")
