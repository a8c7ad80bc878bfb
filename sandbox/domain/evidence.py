"""What is known of the cause of a failed launch, as particulars that programs can compare.

A failure's message is for people. Its evidence names the same cause in fields: they are part of an error in the API
(`details`), they are stored with the run, and lessons are derived from them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any

#: Longest value of a field, in characters; an excerpt may be longer.
MAX_FIELD = 500
MAX_EXCERPT = 4_000


class FailureCause(StrEnum):
    """The kinds of causes that are recognised. The values are stable."""

    #: The source imports a module that is not installed.
    MISSING_MODULE = "missing_module"
    #: The app needs an environment variable that is not set.
    MISSING_VARIABLE = "missing_variable"
    #: A command names a program that the image and the project do not have.
    MISSING_PROGRAM = "missing_program"
    #: A file that a command or the app reads does not exist.
    MISSING_FILE = "missing_file"
    #: `npm run` names a script that package.json does not have.
    MISSING_SCRIPT = "missing_script"
    #: A source file cannot be parsed.
    SYNTAX_ERROR = "syntax_error"
    #: The app raised an exception of another kind.
    EXCEPTION = "exception"
    #: A script has the line ends of Windows.
    WINDOWS_LINE_ENDS = "windows_line_ends"
    #: The index or registry has no package of this name.
    PACKAGE_NOT_FOUND = "package_not_found"
    #: The package exists, and this version of it does not.
    VERSION_NOT_FOUND = "version_not_found"
    #: The package exists for other platforms only.
    WRONG_PLATFORM = "wrong_platform"
    #: No wheel of the package fits, and building it from source failed.
    BUILD_FAILED = "build_failed"
    #: The requirements contradict each other.
    CONFLICTING_VERSIONS = "conflicting_versions"
    #: The project or a dependency asks for another version of Python or Node.js.
    RUNTIME_VERSION = "runtime_version"
    #: The lock file does not agree with the manifest.
    LOCK_OUT_OF_STEP = "lock_out_of_step"
    #: The lock file was written on another platform and lacks packages of this one.
    LOCK_FROM_OTHER_PLATFORM = "lock_from_other_platform"
    #: A TLS certificate was not accepted.
    CERTIFICATE_REFUSED = "certificate_refused"
    #: A host could not be reached or resolved.
    NETWORK_UNREACHABLE = "network_unreachable"
    #: Another process listens on the port already.
    PORT_IN_USE = "port_in_use"
    #: The app listens on another port than the one that the project states.
    OTHER_PORT = "other_port"
    #: The app answers with a status that is an error.
    BAD_STATUS = "bad_status"
    #: A file or folder may not be read, written or executed.
    PERMISSION_DENIED = "permission_denied"
    DISK_FULL = "disk_full"
    OUT_OF_MEMORY = "out_of_memory"


@dataclass(frozen=True, slots=True)
class FailureEvidence:
    """Particulars of one failure. A field is None where it is not known or does not apply."""

    role: str | None = None
    #: None if the output was not recognised.
    cause: FailureCause | None = None
    #: The program whose output was read: uv, pip, npm, pnpm, yarn, python, node, typescript, esbuild, vite, shell, …
    tool: str | None = None
    #: The lines of the output that name the cause, as the tool printed them.
    excerpt: str | None = None
    #: The tool's own name of the error: KeyError, ERESOLVE, ERR_PNPM_OUTDATED_LOCKFILE, TS2304, EADDRINUSE.
    error: str | None = None
    #: The file of the project that is named last, relative to the role's folder, and the line in it, from 1.
    file: str | None = None
    line: int | None = None
    #: The module that is missing.
    module: str | None = None
    #: The package that could not be installed, and the version that was asked for.
    package: str | None = None
    version: str | None = None
    #: The program that is missing.
    program: str | None = None
    #: The environment variable that is missing.
    variable: str | None = None
    #: The port of the plan, and the port that the app opened instead.
    port_planned: int | None = None
    port_opened: int | None = None
    #: The path that was requested last, and the status of the answer.
    path: str | None = None
    status: int | None = None
    exit_code: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields that are known; text is cut at `MAX_FIELD` or `MAX_EXCERPT` characters."""
        return {name: _bounded(name, value) for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> FailureEvidence:
        """The evidence of a stored row. Fields and causes that this release does not know are left out."""
        known = {field.name for field in fields(cls)}
        found = {name: content for name, content in value.items() if name in known}
        cause = found.pop("cause", None)
        return cls(**found, cause=FailureCause(cause) if cause in _CAUSES else None)


_CAUSES = frozenset(cause.value for cause in FailureCause)


def _bounded(name: str, value: object) -> object:
    if not isinstance(value, str):
        return value
    return str(value)[: MAX_EXCERPT if name == "excerpt" else MAX_FIELD]
