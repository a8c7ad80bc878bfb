"""`sandbox secrets rotate-key` works on the file of the service's machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from sandbox.cli.main import app
from sandbox.errors import InvalidInput
from sandbox.secrets.keys import generate_key, key_path, parse_keys


def test_a_new_key_comes_before_the_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_HOME", str(tmp_path))
    for number in (1, 2):
        done = CliRunner().invoke(app, ["secrets", "rotate-key"], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        assert len(parse_keys(key_path(tmp_path).read_text(), "the file").checks()) == number


def test_keys_that_are_given_are_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_HOME", str(tmp_path))
    monkeypatch.setenv("SANDBOX_KEYS", generate_key())
    with pytest.raises(InvalidInput, match="SANDBOX_KEYS"):
        CliRunner().invoke(app, ["secrets", "rotate-key"], catch_exceptions=False)
    assert not key_path(tmp_path).exists()
