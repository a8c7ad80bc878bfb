"""The help of every command contains an example that can be parsed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from sandbox.cli.main import app


def _commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from _commands(inner, (*path, name))
    else:
        yield path, command


COMMANDS = dict(_commands(get_command(app)))
WANTED = (
    "up down demo serve migrate doctor create watch list show logs exec shell ps signal open console audit kill "
    "relaunch recover download"
)


def test_all_commands_exist() -> None:
    expected: set[tuple[str, ...]] = {(name,) for name in WANTED.split()}
    expected |= {("runtimes", verb) for verb in ("list", "build")}
    expected |= {("ingest", report) for report in ("junit", "coverage")}
    expected |= {("retention", "run"), ("cache", "list"), ("cache", "clear")}
    expected |= {("lessons", verb) for verb in ("list", "refine")}
    expected |= {("secrets", verb) for verb in ("set", "list", "rm", "rotate-key")}
    expected |= {("token", verb) for verb in ("create", "list", "revoke")}
    assert set(COMMANDS) == expected


@pytest.mark.parametrize("path", sorted(COMMANDS), ids=" ".join)
def test_help_has_an_example_that_parses(path: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    example = re.search(r"Example: (.*?)\s*$", shown.output, re.MULTILINE)
    assert example is not None, shown.output
    words = shlex.split(example[1])
    while re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words.pop(0)
    assert words[0] == "sandbox"
    assert tuple(words[1 : 1 + len(path)]) == path
    context = COMMANDS[path].make_context(" ".join(path), words[1 + len(path) :])
    assert context.params is not None


def test_help_documents_the_exit_codes() -> None:
    shown = " ".join(CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output.split())
    for words in ("0 done", "1 failed", "2 wrong usage", "3 not found", "4 not authenticated", "5 the service"):
        assert words in shown


def test_an_unknown_option_is_wrong_usage() -> None:
    assert CliRunner().invoke(app, ["list", "--nonsense"]).exit_code == 2
    assert CliRunner().invoke(app, ["list", "--status", "asleep"]).exit_code == 2
