"""The lines of a failed command's output that its error shows."""

from __future__ import annotations

from sandbox.launch.output import offending_lines

NPM_CI = """\
npm error code EUSAGE
npm error
npm error `npm ci` can only install packages when your package.json and package-lock.json are in sync.
npm error
npm error Missing: express@4.18.2 from lock file
npm error
npm error Clean install a project
npm error
npm error Usage:
npm error npm ci
npm error
npm error Options:
npm error [--install-strategy <hoisted|nested|shallow|linked>] [--legacy-bundling]
npm error [-w|--workspace <workspace-name> [-w|--workspace <workspace-name> ...]]
npm error
npm error aliases: clean-install, ic, install-clean, isntall-clean
npm error
npm error Run "npm help ci" for more info
npm error A complete log of this run can be found in: /home/sandbox/.npm/_logs/2026-debug-0.log
"""
NPM_404 = """\
npm error code E404
npm error 404 Not Found - GET https://registry.example/no-such
npm error 404
npm error 404  'no-such@1.0.0' is not in this registry.
npm error 404
npm error 404 Note that you can also install from a
npm error 404 tarball, folder, http url, or git url.
npm error A complete log of this run can be found in: /home/sandbox/.npm/_logs/2026-debug-0.log
"""


def test_the_usage_text_of_npm_is_left_out() -> None:
    assert offending_lines(NPM_CI.splitlines()).splitlines() == [
        "npm error code EUSAGE",
        "npm error `npm ci` can only install packages when your package.json and package-lock.json are in sync.",
        "npm error Missing: express@4.18.2 from lock file",
    ]
    assert offending_lines(NPM_404.splitlines()).splitlines() == [
        "npm error code E404",
        "npm error 404 Not Found - GET https://registry.example/no-such",
        "npm error 404  'no-such@1.0.0' is not in this registry.",
    ]


def test_of_many_error_lines_the_first_and_the_last_are_shown() -> None:
    lines = [f"error {number}" for number in range(100)]
    assert offending_lines(lines).splitlines() == [*lines[:4], "…", *lines[-4:]]


def test_repeated_lines_are_shown_once_and_output_without_errors_by_its_end() -> None:
    assert offending_lines(["starting", "  no such table: error", "no such table: error"]) == "no such table: error"
    assert offending_lines([f"line {number}" for number in range(20)]).splitlines()[0] == "line 12"
    assert offending_lines(["", "  "]) == ""
    assert len(offending_lines(["error " + "x" * 10_000])) == 500
