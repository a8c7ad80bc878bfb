"""The causes that are read from the output of failed commands. The outputs are those of the tools themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sandbox.launch.causes.cause import MAX_LINES, Cause
from sandbox.launch.causes.reading import find_cause

OUTPUTS = Path(__file__).parent / "outputs"

#: By output: the evidence, without `tool`, and words of the hint; no words: there is no hint.
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "python-environ": (
        {"cause": "missing_variable", "error": "KeyError", "file": "app2.py", "line": 3, "variable": "DATABASE_URL"},
        "--env DATABASE_URL=",
    ),
    "python-module": (
        {"cause": "missing_module", "error": "ModuleNotFoundError", "file": "main.py", "line": 3, "module": "flask"},
        "add flask",
    ),
    "python-syntax": (
        {"cause": "syntax_error", "error": "SyntaxError", "file": "s.py", "line": 1},
        "Correct line 1 of s.py",
    ),
    "flask-traceback": (
        {"cause": "exception", "error": "sqlite3.OperationalError", "file": "shop/totals.py", "line": 4},
        "",
    ),
    "settings": (
        {"cause": "missing_variable", "error": "pydantic_core._pydantic_core.ValidationError", "file": "main.py",
         "line": 8, "variable": "STRIPE_KEY"},
        "STRIPE_KEY",
    ),
    "node-throw": ({"cause": "exception", "error": "Error", "file": "a.js", "line": 2}, ""),
    "start-throw": ({"cause": "exception", "error": "Error", "file": "a.js", "line": 2}, ""),
    "node-syntax": ({"cause": "syntax_error", "error": "SyntaxError", "file": "b.js", "line": 1}, "line 1 of b.js"),
    "node-require": (
        {"cause": "missing_module", "error": "MODULE_NOT_FOUND", "file": "c.js", "line": 1, "module": "express"},
        "npm install express",
    ),
    "node-import": ({"cause": "missing_module", "error": "ERR_MODULE_NOT_FOUND", "module": "express"}, "npm install"),
    "node-relative": (
        {"cause": "missing_file", "error": "MODULE_NOT_FOUND", "file": "e.js", "line": 1, "module": "./nothing"},
        "e.js asks for ./nothing",
    ),
    "node-entry": ({"cause": "missing_file", "error": "MODULE_NOT_FOUND", "module": "dist/index.js"}, "run the build"),
    "node-port": ({"cause": "port_in_use", "error": "EADDRINUSE", "file": "f.js", "line": 1}, ""),
    "node-variable": (
        {"cause": "missing_variable", "error": "Error", "file": "g.js", "line": 1, "variable": "API_KEY"},
        "API_KEY",
    ),
    "rollup-platform": (
        {"cause": "lock_from_other_platform", "error": "Error", "module": "@rollup/rollup-linux-x64-gnu"},
        "another system",
    ),
    "typescript": ({"cause": "exception", "error": "TS2322", "file": "src/index.ts", "line": 3}, "src/index.ts"),
    "esbuild": ({"cause": "syntax_error", "file": "src/main.ts", "line": 3}, "src/main.ts"),
    "vite-unresolved": ({"cause": "missing_module", "file": "src/App.jsx", "module": "axios"}, "npm install axios"),
    "npm-404": ({"cause": "package_not_found", "error": "E404", "package": "no-such-package-xyz-1"}, "check its name"),
    "npm-version": (
        {"cause": "version_not_found", "error": "ETARGET", "package": "express", "version": "99.0.0"},
        "no version 99.0.0 of express",
    ),
    "npm-script": ({"cause": "missing_script", "program": "nothing"}, "no script nothing"),
    "npm-peer": ({"cause": "conflicting_versions", "error": "ERESOLVE"}, "--legacy-peer-deps"),
    "npm-platform": (
        {"cause": "wrong_platform", "error": "EBADPLATFORM", "package": "fsevents", "version": "2.3.3"},
        "optionalDependencies",
    ),
    "npm-engine": ({"cause": "runtime_version", "error": "EBADENGINE", "package": "n", "version": ">=99"}, ">=99"),
    "npm-json": ({"cause": "syntax_error", "error": "EJSONPARSE"}, ""),
    "npm-lock": ({"cause": "lock_out_of_step", "error": "EUSAGE"}, "npm install"),
    "pnpm-404": (
        {"cause": "package_not_found", "error": "ERR_PNPM_FETCH_404", "package": "no-such-package-xyz-1"},
        "check its name",
    ),
    "pnpm-version": (
        {"cause": "version_not_found", "error": "ERR_PNPM_NO_MATCHING_VERSION", "package": "express", "version": "99"},
        "no version 99 of express",
    ),
    "pnpm-frozen": ({"error": "ERR_PNPM_NO_LOCKFILE"}, ""),
    "yarn-404": ({"cause": "package_not_found", "package": "no-such-package-xyz-1"}, "check its name"),
    "yarn-version": ({"cause": "version_not_found", "package": "express", "version": "99.0.0"}, "no version 99.0.0"),
    "yarn-lock": ({"cause": "lock_out_of_step"}, "yarn install"),
    "berry-lock": ({"cause": "lock_out_of_step", "error": "YN0028"}, "yarn install"),
    "uv-404": ({"cause": "package_not_found", "package": "no-such-package-xyz"}, "check its name"),
    "uv-version": ({"cause": "version_not_found", "package": "flask", "version": "99.1"}, "no version 99.1 of flask"),
    "uv-conflict": ({"cause": "conflicting_versions"}, ""),
    "uv-windows": (
        {"cause": "wrong_platform", "package": "pywin32", "version": "308"},
        'is for Windows only. Take the line out of the requirements, or write pywin32==308; sys_platform == "win32"',
    ),
    "uv-macos": (
        {"cause": "wrong_platform", "package": "pyobjc-core", "version": "10.3"},
        'for macOS only. Take the line out of the requirements, or write pyobjc-core==10.3; sys_platform == "darwin"',
    ),
    "uv-conda": (
        {"cause": "missing_file", "file": "file:///C:/ci_311/numpy_1676823382924/work"},
        "a file of the machine on which the list was written",
    ),
    "uv-windows-marks": ({"cause": "wrong_platform", "package": "pywin32", "version": "308"}, "for Windows only"),
    "uv-python": (
        {"cause": "runtime_version", "program": "python", "version": ">=3.13"},
        "asks for Python >=3.13 and the runtime has Python 3.12",
    ),
    "uv-package-python": (
        {"cause": "runtime_version", "program": "python", "version": ">=3.13", "package": "annotatedyaml"},
        "ask for a version of annotatedyaml that supports it",
    ),
    "uv-build": (
        {"cause": "build_failed", "package": "psycopg2", "version": "2.9.9", "program": "pg_config"},
        "psycopg2-binary",
    ),
    "pip-404": ({"cause": "package_not_found", "package": "no-such-package-xyz"}, "check its name"),
    "pip-version": ({"cause": "version_not_found", "package": "flask", "version": "99.1"}, "such as 3.1.3"),
    "shell-program": ({"cause": "missing_program", "program": "nodemon"}, "no program nodemon"),
    "shell-file": ({"cause": "missing_file", "file": "nofile.py"}, "nofile.py"),
    "shell-denied": ({"cause": "permission_denied", "file": "start.sh"}, "chmod +x start.sh"),
    "shell-crlf-env": ({"cause": "windows_line_ends"}, "line ends of Windows"),
    "shell-crlf-dash": ({"cause": "missing_file", "file": "start.sh"}, ""),
    "shell-crlf-bash": ({"cause": "missing_file", "file": "start.sh"}, ""),
    "unknown": ({}, ""),
    "handled-error": ({}, ""),
}  # fmt: skip


def cause_of(name: str) -> Cause:
    return find_cause((OUTPUTS / f"{name}.txt").read_text("utf-8").splitlines(), "/workspace")


@pytest.mark.parametrize("name", CASES)
def test_the_cause_is_read_in_the_tools_own_words(name: str) -> None:
    evidence, hint = CASES[name]
    cause = cause_of(name)
    found = cause.evidence.to_json()
    found.pop("tool", None)
    assert found == evidence
    assert hint in cause.hint
    assert bool(hint) == bool(cause.hint)


def test_there_is_a_case_for_each_output() -> None:
    assert {path.stem for path in OUTPUTS.iterdir()} == CASES.keys()


@pytest.mark.parametrize(
    ("name", "shown", "left_out"),
    [
        ("uv-windows", "Because pywin32==308 has no wheels", "Activate with"),
        ("uv-build", "Error: pg_config executable not found", "egg_info"),
        ("npm-peer", 'peer react@"^18.2.0" from react-dom@18.2.0', "A complete log"),
        ("npm-lock", "Missing: is-odd@3.0.1 from lock file", "Usage:"),
        ("start-throw", 'throw new Error("no luck")', "> node a.js"),
        ("python-environ", 'os.environ["DATABASE_URL"]', "<frozen os>"),
        ("flask-traceback", "no such table: items", "site-packages"),
        ("handled-error", "Ended.", "…"),
    ],
)
def test_the_excerpt_is_the_reason_as_a_whole(name: str, shown: str, left_out: str) -> None:
    excerpt = cause_of(name).excerpt
    assert shown in excerpt
    assert left_out not in excerpt


def test_of_several_errors_the_last_one_is_the_cause() -> None:
    lines = [(OUTPUTS / f"{name}.txt").read_text("utf-8") for name in ("python-module", "node-throw")]
    assert find_cause("\n".join(lines).splitlines(), "/workspace").evidence.tool == "node"
    assert find_cause("\n".join(reversed(lines)).splitlines(), "/workspace").evidence.tool == "python"


def test_an_error_that_was_survived_is_not_the_cause() -> None:
    lines = (OUTPUTS / "flask-traceback.txt").read_text("utf-8").splitlines()
    cause = find_cause([*lines, *(f"GET /{number} 200" for number in range(50)), "the end"], "/workspace")
    assert cause.evidence.cause is None
    assert cause.excerpt.endswith("the end")


def test_colours_do_not_hide_a_cause() -> None:
    lines = ["\x1b[31merror\x1b[39m: Failed to build `x==1`", "  cause: no"]
    assert find_cause(lines, "/workspace").evidence.package == "x"


def test_an_excerpt_is_bounded() -> None:
    lines = ["ERROR: " + "x" * 10_000, *(f"ERROR: {number}" for number in range(100))]
    excerpt = find_cause(lines, "/workspace").excerpt.splitlines()
    assert len(excerpt) == MAX_LINES + 1
    assert max(map(len, excerpt)) == 500


@pytest.mark.parametrize(
    ("beginning", "tool"),
    [
        ("ERROR: ", "pip"),
        ("error: Failed to build ", "uv"),
        ("Because ", "poetry"),
        ("npm error ", "npm"),
        ("npm error notsup Not compatible with your version of node/npm: ", "npm"),
        (" ERR_PNPM_X  ", "pnpm"),
    ],
)
@pytest.mark.parametrize("piece", ["x", "a-", "a[", "a@", "@1", "@a/"])
def test_long_words_take_linear_time(beginning: str, tool: str, piece: str) -> None:
    """Patterns that try every part of a word would take minutes for these lines."""
    words = [beginning + piece * (40_000 // len(piece)) for _ in range(20)]
    assert find_cause(words, "/workspace").evidence.tool == tool


def test_nothing_printed_is_no_cause() -> None:
    assert find_cause(["", "  "], "/workspace").excerpt == ""
