"""Variables that refer to secrets, and the redaction of secrets in output."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from sandbox.domain.variables import FromSecret, RequestedVariables, SessionValues, referred, withhold

REQUESTED: TypeAdapter[RequestedVariables] = TypeAdapter(RequestedVariables)


def test_a_value_may_refer_to_a_secret() -> None:
    env = REQUESTED.validate_python({"A": "1", "KEY": {"from_secret": "api-key"}})
    assert referred(env) == {"api-key"}
    assert SessionValues(env, {"api-key": "hush"}).resolve(env) == {"A": "1", "KEY": "hush"}
    assert "hush" not in repr(SessionValues(env, {"api-key": "hush"}))


@pytest.mark.parametrize("name", ["", "request/web/A", "a b", "../x", "x" * 101])
def test_a_request_names_secrets_only(name: str) -> None:
    with pytest.raises(ValidationError):
        REQUESTED.validate_python({"KEY": {"from_secret": name}})


def test_values_of_a_requested_plan_are_withheld_from_it() -> None:
    env, values = withhold("web", {"A": "1", "KEY": {"from_secret": "api-key"}})
    given = REQUESTED.validate_python({"KEY": env["KEY"]}) | {"A": FromSecret(**env["A"])}
    session = SessionValues(values=values | {"api-key": "hush"})
    assert session.resolve(given) == {"A": "1", "KEY": "hush"}
    assert "1" not in str(env)
    assert session.redactor().text("1 hush") == "1 hush"  # too short


def test_values_are_stored_and_read_again() -> None:
    values = SessionValues({"A": "1", "KEY": FromSecret(from_secret="api-key")}, {"api-key": "hush"})
    assert SessionValues.from_json(values.to_json()) == values
