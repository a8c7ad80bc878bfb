"""Values of secrets in output, whole and in pieces."""

from __future__ import annotations

import pytest

from sandbox.domain.redaction import MAX_LENGTH, MAX_LINES, Redactor, StreamRedactor


def test_secrets_are_redacted_in_texts_and_json() -> None:
    several_lines = "BEGIN\nMIIEpAIBAAKCAQEA\nEND"
    hide = Redactor({"key": "12345678", "longer": "12345678-9", "pem": several_lines, "short": "1234567"})
    assert hide.text("a 12345678 b 12345678-9 c 1234567") == "a [secret key] b [secret longer] c 1234567"
    assert hide.text("MIIEpAIBAAKCAQEA") == "[secret pem]"
    found = hide.json({"line": "x12345678", "items": ["12345678", 5, None], "tuple": ("12345678",)})
    assert found == {"line": "x[secret key]", "items": ["[secret key]", 5, None], "tuple": ["[secret key]"]}
    assert Redactor({}).json({"line": "12345678"}) == {"line": "12345678"}


@pytest.mark.parametrize("size", range(1, 30))
def test_values_are_found_across_pieces(size: int) -> None:
    hide = Redactor({"key": "12345678", "longer": "12345678-9", "again": "ababababc"})
    text = "a 12345678 b 12345678-9\nc 1234567 ababababababc 123"
    stream = StreamRedactor(hide)
    shown = [stream.text(text[start : start + size]) for start in range(0, len(text), size)]
    # Of values that begin alike, the shorter one may be found first.
    whole = "".join([*shown, stream.text("", end=True)]).replace("[secret key]-9", "[secret longer]")
    assert whole == hide.text(text)


def test_only_what_may_become_a_value_is_held_back() -> None:
    stream = StreamRedactor(Redactor({"key": "12345678"}))
    assert [stream.text("name: "), stream.text("1234"), stream.text("x"), stream.text("12", end=True)] == [
        "name: ",
        "",
        "1234x",
        "12",
    ]


def test_what_is_looked_for_is_limited() -> None:
    many = Redactor({f"key{number}": f"value-{number:06}" for number in range(MAX_LINES + 1)})
    assert many.text(f"value-{MAX_LINES - 1:06}") == f"[secret key{MAX_LINES - 1}]"
    assert many.text(f"value-{MAX_LINES:06}") == f"value-{MAX_LINES:06}"
    long = "x" * (MAX_LENGTH + 1)
    assert Redactor({"long": long}).text(long) == long
