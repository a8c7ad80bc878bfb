"""Errors print a message and a hint, without a traceback, and give the documented exit code."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from sandbox.cli import output
from sandbox.cli.output import Exit, exit_code
from sandbox.client import ConnectionFailed, LaunchFailed, PackingFailed
from sandbox.client.errors import api_error
from sandbox.errors import EngineError, InvalidInput, NotFound
from tests.unit.command_line import CommandLine, Done


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConnectionFailed("http://x", "refused"), Exit.UNREACHABLE),
        (api_error(404, {}, None), Exit.NOT_FOUND),
        (api_error(401, {}, None), Exit.NOT_ALLOWED),
        (api_error(403, {}, None), Exit.NOT_ALLOWED),
        (api_error(422, {}, None), Exit.USAGE),
        (api_error(409, {}, None), Exit.FAILED),
        (api_error(500, {}, None), Exit.FAILED),
        (LaunchFailed("s", "port_not_opened", "no"), Exit.FAILED),
        (PackingFailed("no"), Exit.FAILED),
        (InvalidInput("no"), Exit.USAGE),
        (NotFound("no"), Exit.NOT_FOUND),
        (EngineError("no"), Exit.FAILED),
    ],
)
def test_exit_codes(error: output.AnyError, code: Exit) -> None:
    assert exit_code(error) is code


def test_an_error_is_printed_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_error(api_error(500, {"code": "c", "detail": "[bold]cause", "hint": "do that"}, "req-1"))
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == ["error: [bold]cause  [c]", "hint: do that", "request id: req-1"]


def test_an_error_is_json_for_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_error(LaunchFailed("s", "c", "m", hint="h", stage="health", log_tail=["x"]), as_json=True)
    output.print_error(EngineError("m"), as_json=True)
    launch, engine = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    said = {"code": "c", "message": "m", "hint": "h"}
    assert launch == {**said, "session_id": "s", "stage": "health", "log_tail": ["x"]}
    assert engine == {"code": "engine_error", "message": "m", "hint": ""}


@pytest.fixture
def sandbox(command_line: CommandLine, tmp_path: Path) -> Callable[..., Done]:
    def run(*arguments: str, **env: str) -> Done:
        given = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "SANDBOX_URL": "http://127.0.0.1:9", **env}
        return command_line.run(*arguments, env=given)

    return run


def test_an_unreachable_service_gives_code_5_and_a_hint(sandbox: Callable[..., Done]) -> None:
    done = sandbox("list")
    assert (done.code, done.out) == (5, "")
    assert "sandbox up" in done.err
    assert "Traceback" not in done.err
    assert "\x1b" not in done.err


def test_the_error_for_invalid_settings_names_the_variable(sandbox: Callable[..., Done]) -> None:
    done = sandbox("migrate", SANDBOX_PORT="none")
    assert done.code == 2
    assert "SANDBOX_PORT" in done.err
    assert "Traceback" not in done.err


def test_an_invalid_session_id_is_wrong_usage(sandbox: Callable[..., Done]) -> None:
    done = sandbox("logs", "not-an-id")
    assert done.code == 2
    assert "Traceback" not in done.err


def test_environment_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_HERE", "there")
    assert output.parse_env(["A=1", "B=x=y", "C=", "FROM_HERE"]) == {
        "A": "1",
        "B": "x=y",
        "C": "",
        "FROM_HERE": "there",
    }
    assert output.parse_env(None) is None
    for wrong in ("=1", "NOT_SET_ANYWHERE"):
        with pytest.raises(typer.BadParameter):
            output.parse_env([wrong])


def test_control_characters_are_removed() -> None:
    assert output.plain("a\x1b[2Jb\r\nc\x07é") == "a [2Jb  c é"
