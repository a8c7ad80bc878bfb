"""Uncaught errors of Node.js, and the errors of the compilers and bundlers that run in it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from sandbox.domain.evidence import FailureCause, FailureEvidence
from sandbox.launch.causes.cause import Cause, project_path
from sandbox.launch.causes.variables import named_variable, variable_hint

_FRAMES = 3
_ERROR = re.compile(
    r"^(?:\[?Uncaught )?(?P<name>(?:[A-Z]\w*)?Error|[A-Z]\w*Exception)(?: \[(?P<code>\w+)\])?: (?P<text>.*)$"
)
_STACK = re.compile(r"^\s+at (?:.*\()?(?:file://)?(?P<file>[^():]+):(?P<line>\d+)(?::\d+)?\)?$")
#: The first line of an uncaught error: where it was thrown.
_PLACE = re.compile(r"^(?:file://)?(?P<file>/[^:]+):(?P<line>\d+)$")
#: The name of an error of the operating system in a message: "listen EADDRINUSE: …".
_SYSTEM_CODE = re.compile(r"\bE[A-Z]{4,}\b")
_CODE = re.compile(r"^\s+code: '(?P<code>[A-Z_]+)'")
_MODULE = re.compile(r"Cannot find (?:module|package) '(?P<module>[^']+)'")
#: Packages with the compiled part of another one, for one platform.
_PLATFORM_PACKAGE = re.compile(r"(?<![\w./-])(?P<module>@?[\w./-]*[/.-]linux-(?:x64|arm64)(?:-(?:gnu|musl))?)\b")
_MISSING = re.compile(r"Cannot find (?:module|package)|could not be found")
_PLATFORM_HINT = (
    "The lock file was written on another system and lacks this package for Linux: remove the lock file, or write it "
    "anew with an empty node_modules."
)
_BY_CODE = {
    "EADDRINUSE": FailureCause.PORT_IN_USE,
    "EACCES": FailureCause.PERMISSION_DENIED,
    "ENOENT": FailureCause.MISSING_FILE,
    "ENOSPC": FailureCause.DISK_FULL,
    "ECONNREFUSED": FailureCause.NETWORK_UNREACHABLE,
    "ENOTFOUND": FailureCause.NETWORK_UNREACHABLE,
    "EAI_AGAIN": FailureCause.NETWORK_UNREACHABLE,
    "SELF_SIGNED_CERT_IN_CHAIN": FailureCause.CERTIFICATE_REFUSED,
    "DEPTH_ZERO_SELF_SIGNED_CERT": FailureCause.CERTIFICATE_REFUSED,
    "UNABLE_TO_VERIFY_LEAF_SIGNATURE": FailureCause.CERTIFICATE_REFUSED,
    "UNABLE_TO_GET_ISSUER_CERT_LOCALLY": FailureCause.CERTIFICATE_REFUSED,
}
_TYPESCRIPT = re.compile(
    r"^(?P<file>[^\s():]+)(?:\((?P<line>\d+),\d+\)|:(?P<line2>\d+):\d+)\s*(?::|-)\s*"
    r"error (?P<code>TS\d+): (?P<text>.*)$"
)
_ESBUILD = re.compile(r"^\s*(?:✘|X) \[ERROR\] (?P<text>.*)$")
_ESBUILD_PLACE = re.compile(r"^\s+(?P<file>[^\s:]+):(?P<line>\d+):\d+:?$")
_UNRESOLVED = re.compile(
    r"(?:Failed to resolve import|Could not resolve|Rollup failed to resolve import|Can't resolve) "
    r"[\"'](?P<module>[^\"']+)[\"'](?: (?:from|in) [\"'](?P<file>[^\"']+)[\"'])?"
)


def read_node(lines: Sequence[str], root: str) -> Cause | None:
    """The last uncaught error that has a stack, with the place where it was thrown and the project's own frames."""
    for index in range(len(lines) - 1, -1, -1):
        match = _ERROR.match(lines[index])
        if match is None:
            continue
        stack = _stack(lines, index)
        if not stack:
            continue
        return _read_error(lines, index, match, stack, root)
    return None


def _stack(lines: Sequence[str], index: int) -> range:
    """The lines of the stack that follows an error's line and the rest of its message."""
    start = next((at for at in range(index + 1, min(index + 15, len(lines))) if lines[at].startswith("    at ")), None)
    if start is None:
        return range(0)
    end = start
    while end < len(lines) and lines[end].startswith("    at "):
        end += 1
    return range(start, end)


def _read_error(lines: Sequence[str], index: int, match: re.Match[str], stack: range, root: str) -> Cause:
    place = next((at for at in range(index - 1, max(-1, index - 8), -1) if _PLACE.match(lines[at])), None)
    thrown = _PLACE.match(lines[place]) if place is not None else None
    own = [at for at in stack if (frame := _STACK.match(lines[at])) and project_path(frame["file"], root)]
    excerpt = [*(lines[place:index] if place is not None and thrown and project_path(thrown["file"], root) else ())]
    excerpt += [line for line in lines[index : stack.start] if line.strip() or line is lines[index]]
    excerpt += [lines[at] for at in own[:_FRAMES]]
    end, code = _properties(lines, stack.stop)
    system = _SYSTEM_CODE.search(match["text"])
    evidence = FailureEvidence(tool="node", error=match["code"] or code or (system and system[0]) or match["name"])
    frame = _STACK.match(lines[own[0]]) if own else None
    where = thrown if thrown and project_path(thrown["file"], root) else frame
    if where is not None:
        evidence = replace(evidence, file=project_path(where["file"], root), line=int(where["line"]))
    evidence, hint = _judge(evidence, match["name"], "\n".join(lines[index : stack.start]), root)
    return Cause(tuple(excerpt), end, evidence, hint)


def _properties(lines: Sequence[str], start: int) -> tuple[int, str | None]:
    """The end of an error that is printed with its properties, and its `code`."""
    code = None
    if start == 0 or not lines[start - 1].rstrip().endswith("{"):
        return start, code
    for at in range(start, min(start + 15, len(lines))):
        code = code or ((match := _CODE.match(lines[at])) and match["code"])
        if lines[at].startswith("}"):
            return at + 1, code
    return start, code


def _judge(evidence: FailureEvidence, name: str, text: str, root: str) -> tuple[FailureEvidence, str]:
    if _MISSING.search(text) and (platform := _PLATFORM_PACKAGE.search(text)):
        cause = FailureCause.LOCK_FROM_OTHER_PLATFORM
        return replace(evidence, cause=cause, module=platform["module"]), _PLATFORM_HINT
    if match := _MODULE.search(text):
        return _missing_module(evidence, match["module"], root)
    if (variable := named_variable(text)) is not None:
        return replace(evidence, cause=FailureCause.MISSING_VARIABLE, variable=variable), variable_hint(variable)
    if name == "SyntaxError":
        hint = f"Correct line {evidence.line} of {evidence.file}." if evidence.file else ""
        return replace(evidence, cause=FailureCause.SYNTAX_ERROR), hint
    hint = ""
    if evidence.error == "ERR_OSSL_EVP_UNSUPPORTED":
        hint = 'Set NODE_OPTIONS="--openssl-legacy-provider" for the session, or use a newer version of the bundler.'
    return replace(evidence, cause=_BY_CODE.get(evidence.error or "", FailureCause.EXCEPTION)), hint


def _missing_module(evidence: FailureEvidence, module: str, root: str) -> tuple[FailureEvidence, str]:
    if module.startswith((".", "/")):
        path = (project_path(module, root) or module) if module.startswith("/") else module
        where = f"{evidence.file} asks for {path}" if evidence.file else f"The command asks for {path}"
        hint = f"{where}, which is not in the workspace: upload it, or run the build that makes it before the start."
        return replace(evidence, cause=FailureCause.MISSING_FILE, module=path), hint
    package = "/".join(module.split("/")[: 2 if module.startswith("@") else 1])
    hint = f"Add it to the dependencies in package.json: npm install {package}"
    return replace(evidence, cause=FailureCause.MISSING_MODULE, module=package), hint


def read_compiler(lines: Sequence[str], root: str) -> Cause | None:
    """The errors of TypeScript, esbuild, Vite and webpack."""
    return _read_typescript(lines, root) or _read_unresolved(lines, root) or _read_esbuild(lines, root)


def _read_typescript(lines: Sequence[str], root: str) -> Cause | None:
    found = [(index, match) for index, line in enumerate(lines) if (match := _TYPESCRIPT.match(line.strip()))]
    if not found:
        return None
    _, first = found[0]
    file, line = project_path(first["file"], root), int(first["line"] or first["line2"])
    evidence = FailureEvidence(
        tool="typescript", cause=FailureCause.SYNTAX_ERROR if first["code"] < "TS2" else FailureCause.EXCEPTION,
        error=first["code"], file=file, line=line,
    )  # fmt: skip
    hint = f"Correct line {line} of {file}." if file else ""
    shown = dict.fromkeys(lines[index].strip() for index, _ in found)
    return Cause(tuple(shown), found[-1][0] + 1, evidence, hint)


def _read_unresolved(lines: Sequence[str], root: str) -> Cause | None:
    for index in range(len(lines) - 1, -1, -1):
        match = _UNRESOLVED.search(lines[index])
        if match is None:
            continue
        file = project_path(match["file"], root) if match["file"] else None
        module = match["module"]
        evidence = FailureEvidence(tool="bundler", file=file, module=module)
        if module.startswith((".", "/", "@/", "~/")):
            return Cause((lines[index].strip(),), index + 1, replace(evidence, cause=FailureCause.MISSING_FILE))
        evidence, hint = _missing_module(evidence, module, root)
        return Cause((lines[index].strip(),), index + 1, evidence, hint)
    return None


def _read_esbuild(lines: Sequence[str], root: str) -> Cause | None:
    starts = [index for index, line in enumerate(lines) if _ESBUILD.match(line)]
    if not starts:
        return None
    start = starts[0]
    end = min(start + 6, len(lines))
    place = next((match for line in lines[start:end] if (match := _ESBUILD_PLACE.match(line))), None)
    file = project_path(place["file"], root) if place else None
    line = int(place["line"]) if place else None
    evidence = FailureEvidence(tool="esbuild", cause=FailureCause.SYNTAX_ERROR, file=file, line=line)
    return Cause(tuple(lines[start:end]), end, evidence, f"Correct line {line} of {file}." if file else "")
