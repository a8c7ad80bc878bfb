"""`sandbox.toml`: a project's own description of its launch, with one table per role."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from sandbox.domain.plan import MAX_ROLES, ROLE_PATTERN, LaunchPlan, RolePlan
from sandbox.errors import InvalidInput
from sandbox.projects.archive_tree import shown
from sandbox.projects.detection.detect import EXAMPLE, RuntimeRules, detect, detect_role
from sandbox.projects.source import ProjectSource

MANIFEST = "sandbox.toml"
MAX_MANIFEST_BYTES = 64 * 1024
KEYS = ("runtime", "root", "install", "start", "port", "health", "env")


class PlanInvalid(InvalidInput):
    """`sandbox.toml` is invalid. The message names the table, the key, the reason, and the line if it is known."""

    code = "plan_invalid"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{MANIFEST}: {message}", hint=hint or f"Example of a complete {MANIFEST}:\n{EXAMPLE}")


def make_plan(source: ProjectSource, runtimes: Iterable[RuntimeRules]) -> LaunchPlan:
    """Return the plan of a project, from its `sandbox.toml` or else from detection.

    Raises PlanInvalid or PlanUndetected. Blocks: call it in a thread.
    """
    rules = list(runtimes)
    if MANIFEST not in source.files:
        return detect(source, rules)
    text = source.read_text(MANIFEST, MAX_MANIFEST_BYTES)
    if text is None:
        raise PlanInvalid(f"it is larger than {MAX_MANIFEST_BYTES // 1024} KiB")
    return read_manifest(text, source, rules)


def read_manifest(text: str, source: ProjectSource, runtimes: Iterable[RuntimeRules]) -> LaunchPlan:
    """Return the plan that a manifest's text describes for the project that contains it.

    Keys that a table leaves out are filled in by detecting the app in its `root`. Because `port`, `health` and `env`
    belong to the start command, they are filled in only if `start` is left out, too. `install = ""` and `start = ""`
    mean that there is no such command.
    """
    try:
        tables = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise PlanInvalid(f"it is not TOML: {error}", "Correct it at the position given.") from error
    if not tables:
        raise PlanInvalid("it is empty")
    if len(tables) > MAX_ROLES:
        raise PlanInvalid(f"it has {len(tables)} tables, and a project has at most {MAX_ROLES} roles")
    rules = list(runtimes)
    roles = {name: _Table(name, table, text).read(source, rules) for name, table in tables.items()}
    return LaunchPlan(roles=roles)


class _Table:
    """One table of the manifest, with the text for line numbers."""

    def __init__(self, name: str, content: object, text: str) -> None:
        self._name = name
        self._text = text
        if not isinstance(content, dict):
            raise self._error("", "is a value outside of any table; move it below [backend] or another role")
        if not re.match(ROLE_PATTERN, name):
            raise self._error(
                "", "is not a valid role: use small letters, digits and '-', a letter first, at most 31 characters"
            )
        self._content: dict[str, Any] = content

    def read(self, source: ProjectSource, rules: list[RuntimeRules]) -> RolePlan:
        """Return the role's plan. Raises PlanInvalid."""
        for key in self._content:
            if key not in KEYS:
                raise self._error(key, f"is unknown; the known keys are {', '.join(KEYS)}")
        stated = self._validated({"runtime": "", **self._content})
        if stated.root != "." and not any(path.startswith(f"{stated.root}/") for path in source.files):
            raise self._error("root", f"names the folder {shown(stated.root)}, which is not in the project")
        complete = self._filled(stated, source, rules)
        known = sorted(rule.name for rule in rules)
        if complete.runtime not in known:
            raise self._error("runtime", f"is {shown(complete.runtime)}; the known runtimes are {', '.join(known)}")
        return complete

    def _filled(self, stated: RolePlan, source: ProjectSource, rules: list[RuntimeRules]) -> RolePlan:
        given = {key: getattr(stated, key) for key in KEYS if key in self._content}
        missing = [key for key in ("runtime", "install", "start") if key not in given]
        detected = detect_role(source, stated.root, self._name, rules) if missing else None
        if detected is None:
            needed = [key for key in missing if key != "install"]
            if needed:
                raise self._error(
                    "", f"does not set {' and '.join(needed)}, and nothing in {shown(stated.root)} was recognised"
                )
            filled: dict[str, Any] = {}
        else:
            # The commands of the detected runtime would not work in another one.
            fits = given.get("runtime", detected.runtime) == detected.runtime
            keys = ["runtime", "install"] if "start" in given else [*KEYS, "framework"]
            filled = {key: getattr(detected, key) for key in keys} if fits else {}
            if not fits and "start" not in given:
                raise self._error("start", f"is missing, and the recognised app needs the runtime {detected.runtime}")
        env = {**filled.get("env", {}), **given.get("env", {})}
        # What a detected or replaced plan had stated itself is still stated.
        earlier = detected.stated if detected is not None else ()
        names = tuple(key for key in ("port", "health") if key in given or (key in filled and key in earlier))
        merged = {**filled, **given, "env": env, "stated": names}
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
            raise self._error(key, f"is invalid{inner}: {reason}") from error
        if plan.port is not None and "start" in content and not plan.start:
            raise self._error("port", "is set for a role without a start command")
        return plan

    def _error(self, key: str, reason: str) -> PlanInvalid:
        line = self._line(key)
        where = f"[{self._name[:60]}] {key}".strip() if key else f"[{self._name[:60]}]"
        return PlanInvalid(f"{where} {reason}" + (f" (line {line})" if line else ""))

    def _line(self, key: str) -> int | None:
        """Return the line of a key, or else of its table's header. None if it is written in another form of TOML."""
        name = re.escape(self._name)
        header = re.compile(rf"""^\s*(?:\[\s*["']?{name}["']?\s*\]|["']?{name}["']?\s*=)""")
        assignment = re.compile(rf"""^\s*["']?{re.escape(key)}["']?\s*[=.]""")
        found = None
        for number, line in enumerate(self._text.splitlines(), 1):
            if header.match(line):
                found = number
            elif found and re.match(r"^\s*\[", line):
                break
            elif found and key and assignment.match(line):
                return number
        return found
