"""A launch that fails with an error of the engine or a guest agent has one of the failure codes of lessons."""

from __future__ import annotations

import pytest

from sandbox.domain.failures import FAILURE_STAGES
from sandbox.domain.stages import StageName
from sandbox.errors import EngineError, GuestError
from sandbox.launch.attempts import failure_code


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
def test_the_failure_code_of_an_error(stage: StageName, error: EngineError | GuestError, code: str) -> None:
    assert failure_code(stage, error) == code
    assert code in FAILURE_STAGES
