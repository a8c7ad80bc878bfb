"""Secrets that an app exports by OTLP are not stored."""

from __future__ import annotations

from datetime import UTC, datetime

from sandbox.records.otlp.redaction import redacted
from sandbox.telemetry.rows import LogRow

SECRETS = {"plain": "s3cret-value", "odd": 'with "quotes" \\ and\ttabs é', "short": "1234567"}


def line_of(message: str, value: str) -> bytes:
    row = LogRow(datetime.now(UTC), "INFO", "web", message, metadata={"value": value, "list": [{"inner": value}]})
    return row.line()


def test_values_are_replaced_in_columns_and_in_json() -> None:
    for name in ("plain", "odd"):
        (found,) = redacted([line_of(f"login with {SECRETS[name]}", SECRETS[name])], SECRETS)
        assert found.count(f"[secret {name}]".encode()) == 3
        assert SECRETS[name].encode() not in found
        assert found.count(b"\t") == line_of("x", "y").count(b"\t")  # the columns are the same


def test_rows_without_secrets_stay() -> None:
    rows = [line_of("1234567", "nothing of interest")]
    assert redacted(rows, SECRETS) == rows
    assert redacted(rows, {}) == rows
