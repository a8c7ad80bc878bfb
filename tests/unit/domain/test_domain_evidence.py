"""The evidence of a failure, as it is stored and sent."""

from __future__ import annotations

from sandbox.domain.evidence import MAX_EXCERPT, MAX_FIELD, FailureCause, FailureEvidence


def test_only_what_is_known_is_sent() -> None:
    evidence = FailureEvidence(role="backend", cause=FailureCause.MISSING_VARIABLE, variable="API_KEY", line=3)
    assert evidence.to_json() == {"role": "backend", "cause": "missing_variable", "variable": "API_KEY", "line": 3}
    assert FailureEvidence.from_json(evidence.to_json()) == evidence


def test_text_is_bounded() -> None:
    sent = FailureEvidence(excerpt="x" * 100_000, module="y" * 100_000).to_json()
    assert (len(sent["excerpt"]), len(sent["module"])) == (MAX_EXCERPT, MAX_FIELD)


def test_what_a_newer_release_has_stored_is_left_out() -> None:
    stored = {"role": "main", "cause": "of_a_newer_release", "colour": "red"}
    assert FailureEvidence.from_json(stored) == FailureEvidence(role="main")
