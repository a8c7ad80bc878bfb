"""Versions of Python and Node.js that a project asks for and the runtime does not have.

Package managers differ in what they do then: some go on with a warning, others refuse. Whatever they do, the launch's
log says it in the same words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sandbox.launch.output import plain

_PYTHON, _NODE = "Python", "Node.js"
_MANIFESTS = {_PYTHON: "requires-python", _NODE: "engines in package.json"}
#: The most packages that are named.
_MOST = 3
_SENTENCES: tuple[tuple[str, re.Pattern[str]], ...] = (
    # uv, of a project with pyproject.toml
    (_PYTHON, re.compile(r"resolved to Python (?P<has>[\d.]+), which is incompatible with the project's Python "
                         r"requirement: `(?P<wanted>[^`]+)`")),
    # Poetry and Pipenv
    (_PYTHON, re.compile(r"Current Python version \((?P<has>[\d.]+)\) is not allowed by the project "
                         r"\((?P<wanted>[^)]+)\)")),
    (_PYTHON, re.compile(r"Pipfile requires \"?python_(?:full_)?version\"? (?P<wanted>[\d.]+), but you are using "
                         r"(?P<has>[\d.]+)")),
    # npm, pnpm and Yarn 1
    (_NODE, re.compile(r"EBADENGINE\s+package: '(?P<package>[^']+)',\s.{0,40}?EBADENGINE\s+required: \{.{0,80}?"
                       r"\bnode: '(?P<wanted>[^']+)'.{0,160}?current: \{ node: 'v?(?P<has>[\d.]+)'")),
    (_NODE, re.compile(r"Unsupported engine: wanted: \{\"node\":\"(?P<wanted>[^\"]+)\"[^}]*\} "
                       r"\(current: \{\"node\":\"v?(?P<has>[\d.]+)\"")),
    (_NODE, re.compile(r"(?P<package>\S+): The engine \"node\" is incompatible with this module\. Expected version "
                       r"\"(?P<wanted>[^\"]+)\"\. Got \"(?P<has>[\d.]+)\"")),
)  # fmt: skip


def version_demands(output: Sequence[str]) -> list[str]:
    """A sentence for each demand that the output of an install names, with both versions; at most a few."""
    text = " ".join(plain(line).strip() for line in output)
    found: dict[str, None] = {}
    for program, sentence in _SENTENCES:
        for match in sentence.finditer(text):
            who = match.groupdict().get("package") or "the project"
            found[
                f"{who} asks for {program} {match['wanted']}, and the runtime has {match['has']}: if it fails because "
                f"of that, lower the demand ({_MANIFESTS[program]})"
            ] = None
    return list(found)[:_MOST]
