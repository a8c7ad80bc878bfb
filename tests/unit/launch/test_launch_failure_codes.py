"""A launch ends with a code that lessons know, whatever the engine called it."""

from __future__ import annotations

import pytest

from sandbox.domain.failures import FAILURE_STAGES
from sandbox.domain.stages import StageName
from sandbox.errors import EngineError, GuestError
from sandbox.launch.pipeline import failure_code


@pytest.mark.parametrize(
    ("stage", "error", "code"),
    [
        (StageName.NETWORK, EngineError("full", code="subnet_pool_exhausted"), "network_failed"),
        (StageName.CONTAINERS, EngineError("late", code="engine_timeout"), "engine_error"),
        (StageName.CONTAINERS, EngineError("gone", code="image_missing"), "image_missing"),
        (StageName.WORKSPACE, GuestError("silent", code="agent_unreachable"), "agent_unreachable"),
        (StageName.DEPENDENCIES, GuestError("no", code="agent_refused"), "agent_refused"),
    ],
)
def test_the_code_of_a_launch_that_fails(stage: StageName, error: EngineError | GuestError, code: str) -> None:
    assert failure_code(stage, error) == code
    assert code in FAILURE_STAGES
