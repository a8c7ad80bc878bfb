"""The names of the launch stages, in order. `launch/pipeline.py` binds each to the code that runs it."""

from __future__ import annotations

from enum import StrEnum


class StageName(StrEnum):
    PLAN = "plan"
    NETWORK = "network"
    CONTAINERS = "containers"
    WORKSPACE = "workspace"
    DEPENDENCIES = "dependencies"
    SERVICES = "services"
    HEALTH = "health"
    PREVIEW = "preview"


PROJECT_STAGES: tuple[StageName, ...] = tuple(StageName)
BLANK_STAGES: tuple[StageName, ...] = PROJECT_STAGES[:4]


class StageState(StrEnum):
    STARTED = "started"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"
