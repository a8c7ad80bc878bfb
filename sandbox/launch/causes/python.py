"""Tracebacks and syntax errors of Python."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sandbox.domain.evidence import FailureCause, FailureEvidence
from sandbox.launch.causes.cause import Cause, project_path
from sandbox.launch.causes.variables import named_variable, variable_hint

TRACEBACK = "Traceback (most recent call last):"
#: Frames of the project that are shown, the last ones.
_FRAMES = 3
#: Lines of an exception's message that are shown.
_MESSAGE_LINES = 8
_FRAME = re.compile(r'^\s+File "(?P<file>[^"]+)", line (?P<line>\d+)(?:, in (?P<name>.+))?$')
_EXCEPTION = re.compile(r"^(?P<name>[A-Za-z_][\w.]*)(?:: (?P<message>.*))?$")
_SYNTAX = re.compile(r"^(?P<name>SyntaxError|IndentationError|TabError): (?P<message>.*)$")
_MODULE = re.compile(r"No module named '([^']+)'")
_ENVIRONMENT = re.compile(r"os\.environ\[|environ\.__getitem__|<frozen os>|/os\.py$|\benviron\b")
#: Import names whose package has another name.
_PACKAGES = {
    "PIL": "pillow", "bs4": "beautifulsoup4", "cv2": "opencv-python-headless", "dotenv": "python-dotenv",
    "jose": "python-jose", "jwt": "pyjwt", "MySQLdb": "mysqlclient", "psycopg2": "psycopg2-binary",
    "serial": "pyserial", "sklearn": "scikit-learn", "yaml": "pyyaml", "multipart": "python-multipart",
    "decouple": "python-decouple", "environ": "django-environ", "rest_framework": "djangorestframework",
    "corsheaders": "django-cors-headers", "dateutil": "python-dateutil", "slugify": "python-slugify",
}  # fmt: skip
_BY_NAME = {
    "SyntaxError": FailureCause.SYNTAX_ERROR,
    "IndentationError": FailureCause.SYNTAX_ERROR,
    "TabError": FailureCause.SYNTAX_ERROR,
    "FileNotFoundError": FailureCause.MISSING_FILE,
    "PermissionError": FailureCause.PERMISSION_DENIED,
    "gaierror": FailureCause.NETWORK_UNREACHABLE,
    "ConnectionRefusedError": FailureCause.NETWORK_UNREACHABLE,
}
_BY_MESSAGE = (
    (re.compile(r"address already in use", re.I), FailureCause.PORT_IN_USE),
    (re.compile(r"CERTIFICATE_VERIFY_FAILED"), FailureCause.CERTIFICATE_REFUSED),
    (re.compile(r"No space left on device"), FailureCause.DISK_FULL),
    (re.compile(r"Connection refused|could not translate host name|Name or service not known", re.I),
     FailureCause.NETWORK_UNREACHABLE),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Frame:
    #: The lines of the traceback that show it.
    lines: tuple[str, ...]
    file: str
    line: int


def read_python(lines: Sequence[str], root: str) -> Cause | None:
    """The last traceback, with the project's own frames; or a syntax error, which Python prints without one."""
    starts = [index for index, line in enumerate(lines) if line.endswith(TRACEBACK)]
    if starts:
        return _read_traceback(lines, starts[-1], root)
    return _read_syntax_error(lines, root)


def _read_traceback(lines: Sequence[str], start: int, root: str) -> Cause | None:
    # A logger may have put something before every line.
    prefix = lines[start].removesuffix(TRACEBACK)
    body = [line.removeprefix(prefix) for line in lines[start + 1 :]]
    frames: list[_Frame] = []
    index = 0
    while index < len(body) and (body[index].startswith((" ", "\t")) or not body[index]):
        if match := _FRAME.match(body[index]):
            after = next(
                (at for at in range(index + 1, len(body)) if _FRAME.match(body[at]) or not body[at].startswith(" ")),
                len(body),
            )
            frames.append(_Frame(tuple(body[index:after]), match["file"], int(match["line"])))
            index = after
        else:
            index += 1
    match = _EXCEPTION.match(body[index]) if index < len(body) else None
    if match is None:
        return None
    message = _message(body[index:])
    end = start + 1 + index + len(message)
    own = [frame for frame in frames if project_path(frame.file, root) is not None]
    shown = [*own[-_FRAMES:]] or frames[-1:]
    excerpt = [TRACEBACK, *(["  …"] if len(shown) < len(frames) else [])]
    for frame in shown:
        excerpt += frame.lines
    evidence = FailureEvidence(tool="python", error=match["name"])
    if own:
        evidence = replace(evidence, file=project_path(own[-1].file, root), line=own[-1].line)
    evidence, hint = _judge(evidence, message, frames)
    return Cause((*excerpt, *message), end, evidence, hint)


def _message(body: Sequence[str]) -> list[str]:
    """The exception's line and those of its message that follow it: indented ones, or the fields of pydantic."""
    found = [body[0]]
    for line in body[1:_MESSAGE_LINES]:
        if not line.startswith((" ", "\t")) and "ValidationError" not in body[0]:
            break
        if not line.strip() or line.endswith(TRACEBACK):
            break
        found.append(line)
    return found


def _read_syntax_error(lines: Sequence[str], root: str) -> Cause | None:
    for index in range(len(lines) - 1, -1, -1):
        if _SYNTAX.match(lines[index]) is None:
            continue
        start = next((at for at in range(index - 1, max(-1, index - 6), -1) if _FRAME.match(lines[at])), None)
        frame = _FRAME.match(lines[start]) if start is not None else None
        if start is None or frame is None:
            return None
        evidence = FailureEvidence(
            tool="python",
            cause=FailureCause.SYNTAX_ERROR,
            error=lines[index].split(":")[0],
            file=project_path(frame["file"], root),
            line=int(frame["line"]),
        )
        return Cause(tuple(lines[start : index + 1]), index + 1, evidence, _syntax_hint(evidence))
    return None


def _judge(evidence: FailureEvidence, message: Sequence[str], frames: Sequence[_Frame]) -> tuple[FailureEvidence, str]:
    """The evidence with its cause, and the hint for it."""
    name = (evidence.error or "").rpartition(".")[2]
    text = "\n".join(message)
    if match := _MODULE.search(text):
        module = match[1]
        return replace(evidence, cause=FailureCause.MISSING_MODULE, module=module), _module_hint(module)
    variable = _missing_key(name, text, frames) or named_variable(text)
    if variable is not None:
        return replace(evidence, cause=FailureCause.MISSING_VARIABLE, variable=variable), variable_hint(variable)
    cause = _BY_NAME.get(name) or next((cause for pattern, cause in _BY_MESSAGE if pattern.search(text)), None)
    evidence = replace(evidence, cause=cause or FailureCause.EXCEPTION)
    if cause is FailureCause.SYNTAX_ERROR and frames:
        evidence = replace(evidence, line=frames[-1].line)
        return evidence, _syntax_hint(evidence)
    return evidence, ""


def _missing_key(name: str, text: str, frames: Sequence[_Frame]) -> str | None:
    """The environment variable of a KeyError that `os.environ` has raised."""
    match = re.match(r"KeyError: '([A-Za-z_][A-Za-z0-9_]*)'", text)
    if name != "KeyError" or match is None or not frames:
        return None
    last = "\n".join((frames[-1].file, *frames[-1].lines))
    return match[1] if _ENVIRONMENT.search(last) else None


def _module_hint(module: str) -> str:
    top = module.split(".", maxsplit=1)[0]
    package = _PACKAGES.get(top, top.replace("_", "-"))
    return (
        f"If {top} is a package, add {package} to the project's dependencies; if it is a file of the project, "
        "run the command in the folder that contains it."
    )


def _syntax_hint(evidence: FailureEvidence) -> str:
    return f"Correct line {evidence.line} of {evidence.file}." if evidence.file else ""
