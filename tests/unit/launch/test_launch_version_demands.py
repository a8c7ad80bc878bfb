"""Versions that a project asks for and the runtime does not have, in the words of the package managers."""

from __future__ import annotations

import pytest

from sandbox.launch.version_demands import version_demands

UV = (
    ": The requested interpreter resolved to Python 3.12.1, which is incompatible with the project's Python "
    "requirement: `>=3.13` (from `project.requires-python`)"
)
PYTHON = "the project asks for Python >=3.13, and the runtime has 3.12.1"
NODE = "a@1.0.0 asks for Node.js >=24, and the runtime has 20.20.2"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([f"warning{UV}"], PYTHON),
        ([f"error{UV}"], PYTHON),
        (["Current Python version (3.12.1) is not allowed by the project (>=3.13)."], PYTHON),
        (
            ['Warning: Your Pipfile requires "python_version" 3.13, but you are using 3.12.1 '],
            "the project asks for Python 3.13, and the runtime has 3.12.1",
        ),
        (
            [
                "npm warn EBADENGINE Unsupported engine {",
                "npm warn EBADENGINE   package: 'a@1.0.0',",
                "npm warn EBADENGINE   required: { node: '>=24' },",
                "npm warn EBADENGINE   current: { node: 'v20.20.2', npm: '10.9.9' }",
                "npm warn EBADENGINE }",
            ],
            NODE,
        ),
        (
            [' WARN  Unsupported engine: wanted: {"node":">=24"} (current: {"node":"v20.20.2","pnpm":"10.34.9"})'],
            "the project asks for Node.js >=24, and the runtime has 20.20.2",
        ),
        (
            [
                'error a@1.0.0: The engine "node" is incompatible with this module. '
                'Expected version ">=24". Got "20.20.2"'
            ],
            NODE,
        ),
    ],
)
def test_both_versions_are_said_in_the_same_words(lines: list[str], said: str) -> None:
    (sentence,) = version_demands(["something before", *lines, "something after"])
    assert sentence.startswith(f"{said}: if it fails because of that, lower the demand")


def test_other_output_demands_nothing_and_many_demands_are_bounded() -> None:
    assert version_demands(["Resolved 3 packages in 5ms", "npm warn deprecated a@1"]) == []
    line = 'error a{}@1: The engine "node" is incompatible with this module. Expected version ">=24". Got "20.2"'
    assert len(version_demands([line.format(number) for number in range(9)])) == 3
