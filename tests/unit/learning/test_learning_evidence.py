"""What failures are recognised as by their evidence, which comes before what was printed."""

from __future__ import annotations

import pytest

from sandbox.domain.evidence import FailureCause as Cause
from sandbox.domain.evidence import FailureEvidence
from sandbox.learning.families import recognise

PRINTED = "ModuleNotFoundError: No module named 'yaml'"


@pytest.mark.parametrize(
    ("evidence", "family", "particulars"),
    [
        (
            FailureEvidence(cause=Cause.MISSING_MODULE, tool="python", module="a.b"),
            "python_module_missing",
            {"module": "a"},
        ),
        (
            FailureEvidence(cause=Cause.MISSING_MODULE, tool="node", module="@a/b"),
            "node_module_missing",
            {"package": "@a/b"},
        ),
        (
            FailureEvidence(cause=Cause.MISSING_VARIABLE, variable="API_KEY"),
            "variable_missing",
            {"variable": "API_KEY"},
        ),
        (FailureEvidence(cause=Cause.MISSING_PROGRAM, program="vite"), "program_missing", {"program": "vite"}),
        (
            FailureEvidence(cause=Cause.VERSION_NOT_FOUND, tool="uv", package="flask"),
            "python_version_missing",
            {"package": "flask"},
        ),
        (
            FailureEvidence(cause=Cause.OTHER_PORT, port_planned=80, port_opened=90),
            "other_port",
            {"planned": "80", "opened": "90"},
        ),
        (FailureEvidence(cause=Cause.LOCK_OUT_OF_STEP, tool="npm"), "lock_out_of_step", {}),
        (FailureEvidence(cause=Cause.CONFLICTING_VERSIONS, tool="npm"), "peer_conflict", {}),
    ],
)
def test_the_cause_names_the_family(evidence: FailureEvidence, family: str, particulars: dict[str, str]) -> None:
    finding = recognise("app_exited", "main: `x` ended", "", evidence)
    assert (finding.family, dict(finding.particulars)) == (family, particulars)


def test_a_hostile_value_is_not_used() -> None:
    evidence = FailureEvidence(cause=Cause.MISSING_PROGRAM, tool="shell", program="x; rm -rf /")
    finding = recognise("app_exited", "main: `x` ended", "", evidence)
    assert (finding.family, finding.signature) == ("other", "app_exited: missing_program shell")


def test_the_output_counts_where_the_evidence_names_no_family() -> None:
    for evidence in (None, FailureEvidence(role="main"), FailureEvidence(cause=Cause.EXCEPTION, tool="python")):
        assert recognise("app_exited", "main: `x` ended", PRINTED, evidence).family == "python_module_missing"
    unknown = recognise(
        "app_exited", "main: odd", "", FailureEvidence(cause=Cause.EXCEPTION, tool="python", error="OSError")
    )
    assert unknown.signature == "app_exited: exception python OSError"
