"""`sandbox.toml`: a project's own description of its launch, with one table per role."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, TypeVar

from pydantic import ValidationError

from sandbox.domain.plan import MAX_ROLES, ROLE_PATTERN, LaunchPlan, NetworkPlan, PreviewPlan, RolePlan
from sandbox.errors import InvalidInput
from sandbox.projects.archive_tree import shown
from sandbox.projects.detection.detect import EXAMPLE, PlanUndetected, RuntimeRules, detect, detect_role
from sandbox.projects.project import RequestedPlan
from sandbox.projects.source import ProjectSource
from sandbox.projects.toml import TomlInvalid, load_toml

P = TypeVar("P", PreviewPlan, NetworkPlan)

MANIFEST = "sandbox.toml"
MAX_MANIFEST_BYTES = 64 * 1024
KEYS = ("runtime", "root", "install", "start", "port", "health", "env")


#: Names the plan of a request in error messages.
REQUEST = "the plan of the request"


class PlanInvalid(InvalidInput):
    """A stated plan is invalid: `sandbox.toml`, or the plan of a request.

    The message names the table, the key, the reason, and the line if it is known.
    """

    code = "plan_invalid"

    def __init__(self, message: str, hint: str = "", *, stated_in: str = MANIFEST) -> None:
        super().__init__(f"{stated_in}: {message}", hint=hint or f"Example of a complete {MANIFEST}:\n{EXAMPLE}")


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
        tables = load_toml(text)
    except TomlInvalid as error:
        raise PlanInvalid(f"it is not TOML: {error}", "Correct it at the position given.") from error
    if not tables:
        raise PlanInvalid("it is empty")
    preview = _take(tables, text, "preview", PreviewPlan)
    network = _take(tables, text, "network", NetworkPlan)
    if len(tables) > MAX_ROLES:
        raise PlanInvalid(f"it has {len(tables)} tables, and a project has at most {MAX_ROLES} roles")
    rules = list(runtimes)
    if not tables:
        return detect(source, rules).model_copy(update={"preview": preview, "network": network})
    roles = {name: _Table(name, table, text).read(source, rules) for name, table in tables.items()}
    return LaunchPlan(roles=roles, preview=preview, network=network)


def _take(tables: dict[str, Any], text: str, name: str, kind: type[P]) -> P:
    """Take the table of this name out, unless it is a role of that name: then it has keys of a role."""
    content = tables.get(name)
    if not isinstance(content, dict) or not set(content) <= set(kind.model_fields):
        return kind()
    del tables[name]
    return _Table(name, content, text).read_as(kind)


def with_request(requested: RequestedPlan, source: ProjectSource, runtimes: Iterable[RuntimeRules]) -> LaunchPlan:
    """Return the plan of a project in which the requested roles replace its own.

    A role is checked like a table of `sandbox.toml`. Keys that it leaves out are those of the project's own role with
    this name, or else of the app that is detected in its `root`. None leaves the project's role out. Raises
    PlanInvalid. Blocks: call it in a thread.
    """
    rules = list(runtimes)
    try:
        own = make_plan(source, rules)
        roles, preview, network = dict(own.roles), own.preview, own.network
    except (PlanInvalid, PlanUndetected):
        roles, preview, network = {}, PreviewPlan(), NetworkPlan()
    for name, content in requested.items():
        if content is None:
            roles.pop(name, None)
        else:
            roles[name] = _Table(name, dict(content), "", REQUEST).read(source, rules, roles.get(name))
    if not roles:
        raise PlanInvalid("it leaves no role", "State at least one role.", stated_in=REQUEST)
    if len(roles) > MAX_ROLES:
        raise PlanInvalid(
            f"there are {len(roles)} roles with those of the project, and a project has at most {MAX_ROLES}",
            "Set the roles of the project that are not needed to null.",
            stated_in=REQUEST,
        )
    return LaunchPlan(roles=roles, preview=preview, network=network)


class _Table:
    """One table of a stated plan, with the text of the manifest for line numbers."""

    def __init__(self, name: str, content: object, text: str, stated_in: str = MANIFEST) -> None:
        self._name = name
        self._text = text
        self._stated_in = stated_in
        if not isinstance(content, dict):
            raise self._error("", "is a value outside of any table; move it below [backend] or another role")
        if not re.match(ROLE_PATTERN, name):
            raise self._error(
                "", "is not a valid role: use small letters, digits and '-', a letter first, at most 31 characters"
            )
        self._content: dict[str, Any] = content

    def read_as(self, kind: type[P]) -> P:
        """Return the table as one that describes no role. Raises PlanInvalid."""
        try:
            return kind.model_validate_json(json.dumps(self._content, default=str), strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise self._error(str(first["loc"][0]), f"is invalid: {first['msg']}") from error

    def read(self, source: ProjectSource, rules: list[RuntimeRules], own: RolePlan | None = None) -> RolePlan:
        """Return the role's plan. Keys that are left out are those of the project's `own` role. Raises PlanInvalid."""
        for key in self._content:
            if key not in KEYS:
                raise self._error(key, f"is unknown; the known keys are {', '.join(KEYS)}")
        own_root = {"root": own.root} if own else {}
        stated = self._validated({"runtime": "", **own_root, **self._content})
        if stated.root != "." and not any(path.startswith(f"{stated.root}/") for path in source.files):
            raise self._error("root", f"names the folder {shown(stated.root)}, which is not in the project")
        complete = self._filled(stated, source, rules, own if own and own.root == stated.root else None)
        known = sorted(rule.name for rule in rules)
        if complete.runtime not in known:
            raise self._error("runtime", f"is {shown(complete.runtime)}; the known runtimes are {', '.join(known)}")
        return complete

    def _filled(
        self, stated: RolePlan, source: ProjectSource, rules: list[RuntimeRules], own: RolePlan | None
    ) -> RolePlan:
        given = {key: getattr(stated, key) for key in KEYS if key in self._content}
        if own is not None and given.get("start", own.start) == own.start:
            # What a request repeats, because it changes another key of the role, is not stated by that.
            given = {key: value for key, value in given.items() if value != getattr(own, key)}
        missing = [key for key in ("runtime", "install", "start") if key not in given]
        detected = own
        if missing and detected is None:
            detected = detect_role(source, stated.root, self._name, rules)
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
        if own is not None and "env" in given:
            env = given["env"]
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
            # What follows is which of the types of a value was tried.
            inner = f" ({first['loc'][1]})" if len(first["loc"]) > 1 else ""
            reason = first["msg"].removeprefix("Value error, ")
            raise self._error(key, f"is invalid{inner}: {reason}") from error
        if plan.port is not None and "start" in content and not plan.start:
            raise self._error("port", "is set for a role without a start command")
        return plan

    def _error(self, key: str, reason: str) -> PlanInvalid:
        line = self._line(key)
        where = f"[{self._name[:60]}] {key}".strip() if key else f"[{self._name[:60]}]"
        return PlanInvalid(f"{where} {reason}" + (f" (line {line})" if line else ""), stated_in=self._stated_in)

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
