from sandbox.domain.failures import FAILURE_STAGES, ruled_out
from sandbox.domain.stages import PROJECT_STAGES, StageName


def test_only_codes_of_completed_stages_are_ruled_out() -> None:
    codes = ruled_out({StageName.PLAN, StageName.DEPENDENCIES}, run_completed=False)
    assert set(codes) == {
        "project_not_found",
        "plan_undetected",
        "plan_invalid",
        "runtime_unknown",
        "dependency_install_failed",
        "dependency_install_timeout",
    }


def test_a_completed_run_rules_out_every_code() -> None:
    assert set(ruled_out(PROJECT_STAGES, run_completed=True)) == set(FAILURE_STAGES)


def test_a_run_without_completed_stages_rules_out_no_code() -> None:
    assert ruled_out((), run_completed=False) == []
