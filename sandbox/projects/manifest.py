"""`sandbox.toml`: how a project says itself what a launch does, one table a role."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from sandbox.domain.plan import MAX_ROLES, ROLE_PATTERN, LaunchPlan, RolePlan
from sandbox.errors import InvalidInput
from sandbox.projects.archive_tree import shown
from sandbox.projects.detection import EXAMPLE, RuntimeRules, detect, detect_role
from sandbox.projects.source import ProjectSource

MANIFEST = "sandbox.toml"
MAX_MANIFEST_BYTES = 64 * 1024
KEYS = ("runtime", "root", "install", "start", "port", "health", "env")


class PlanInvalid(InvalidInput):
    """`sandbox.toml` cannot be followed; the message names table, key, reason, and the line where there is one."""

    code = "plan_invalid"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{MANIFEST}: {message}", hint=hint or f"A whole {MANIFEST} looks like this:\n{EXAMPLE}")


def make_plan(source: ProjectSource, runtimes: Iterable[RuntimeRules]) -> LaunchPlan:
    """The plan of a project: what its `sandbox.toml` says, else what it is detected to be.

    Raises `PlanInvalid` or `PlanUndetected`. Reads files: call it in a thread.
    """
    rules = list(runtimes)
    if MANIFEST not in source.files:
        return detect(source, rules)
    text = source.read_text(MANIFEST, MAX_MANIFEST_BYTES)
    if text is None:
        raise PlanInvalid(f"it is larger than {MAX_MANIFEST_BYTES // 1024} KiB")
    return read_manifest(text, source, rules)


def read_manifest(text: str, source: ProjectSource, runtimes: Iterable[RuntimeRules]) -> LaunchPlan:
    """The plan that a manifest's text states for the project it lies in.

    What a table leaves out is filled from what its `root` is detected to be; `port`, `health` and `env` only where
    `start` is left out too, since they belong to it. `install = ""` and `start = ""` mean that there is none.
    """
    try:
        tables = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise PlanInvalid(f"it is not TOML: {error}", "Correct it at the place named.") from error
    if not tables:
        raise PlanInvalid("it is empty")
    if len(tables) > MAX_ROLES:
        raise PlanInvalid(f"it has {len(tables)} tables, and a project has at most {MAX_ROLES} roles")
    rules = list(runtimes)
    roles = {name: _Table(name, table, text).read(source, rules) for name, table in tables.items()}
    return LaunchPlan(roles=roles)


class _Table:
    """One table of the manifest, and where it stands in the text."""

    def __init__(self, name: str, content: object, text: str) -> None:
        self._name = name
        self._text = text
        if not isinstance(content, dict):
            raise self._error("", "is a value outside of any table; put it below [backend] or another role")
        if not re.match(ROLE_PATTERN, name):
            raise self._error(
                "", "is no name for a role: small letters, digits and '-', a letter first, at most 31 characters"
            )
        self._content: dict[str, Any] = content

    def read(self, source: ProjectSource, rules: list[RuntimeRules]) -> RolePlan:
        for key in self._content:
            if key not in KEYS:
                raise self._error(key, f"is not known; there are {', '.join(KEYS)}")
        stated = self._validated({"runtime": "", **self._content})
        if stated.root != "." and not any(path.startswith(f"{stated.root}/") for path in source.files):
            raise self._error("root", f"names the folder {shown(stated.root)}, which is not in the project")
        complete = self._filled(stated, source, rules)
        known = sorted(rule.name for rule in rules)
        if complete.runtime not in known:
            raise self._error("runtime", f"is {shown(complete.runtime)}; there are {', '.join(known)}")
        return complete

    def _filled(self, stated: RolePlan, source: ProjectSource, rules: list[RuntimeRules]) -> RolePlan:
        given = {key: getattr(stated, key) for key in KEYS if key in self._content}
        missing = [key for key in ("runtime", "install", "start") if key not in given]
        detected = detect_role(source, stated.root, self._name, rules) if missing else None
        if detected is None:
            needed = [key for key in missing if key != "install"]
            if needed:
                raise self._error(
                    "", f"does not say {' and '.join(needed)}, and nothing in {shown(stated.root)} was recognised"
                )
            filled: dict[str, Any] = {}
        else:
            # Another runtime's commands would not run in the one that is asked for.
            fits = given.get("runtime", detected.runtime) == detected.runtime
            keys = ["runtime", "install"] if "start" in given else [*KEYS, "framework"]
            filled = {key: getattr(detected, key) for key in keys} if fits else {}
            if not fits and "start" not in given:
                raise self._error("start", f"is missing, and what was recognised runs in {detected.runtime}")
        env = {**filled.get("env", {}), **given.get("env", {})}
        merged = {**filled, **given, "env": env}
        merged.update({key: merged.get(key) or None for key in ("install", "start")})
        return self._validated({**merged, "root": stated.root})

    def _validated(self, content: dict[str, Any]) -> RolePlan:
        try:
            plan = RolePlan.model_validate(content, strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = str(first["loc"][0]) if first["loc"] else ""
            inner = f" ({'.'.join(map(str, first['loc'][1:]))})" if len(first["loc"]) > 1 else ""
            reason = first["msg"].removeprefix("Value error, ")
            raise self._error(key, f"is refused{inner}: {reason}") from error
        if plan.port is not None and "start" in content and not plan.start:
            raise self._error("port", "is given for a role that starts nothing")
        return plan

    def _error(self, key: str, reason: str) -> PlanInvalid:
        line = self._line(key)
        where = f"[{self._name[:60]}] {key}".strip() if key else f"[{self._name[:60]}]"
        return PlanInvalid(f"{where} {reason}" + (f" (line {line})" if line else ""))

    def _line(self, key: str) -> int | None:
        """The line of a key, else of its table's head. None where TOML's freer forms hide it."""
        name = re.escape(self._name)
        head = re.compile(rf"""^\s*(?:\[\s*["']?{name}["']?\s*\]|["']?{name}["']?\s*=)""")
        wanted = re.compile(rf"""^\s*["']?{re.escape(key)}["']?\s*[=.]""")
        found = None
        for number, line in enumerate(self._text.splitlines(), 1):
            if head.match(line):
                found = number
            elif found and re.match(r"^\s*\[", line):
                break
            elif found and key and wanted.match(line):
                return number
        return found
