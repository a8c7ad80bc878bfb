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


#: The stages of a session that has a project.
PROJECT_STAGES: tuple[StageName, ...] = tuple(StageName)
#: The stages of a session without a project: there is nothing to install, to start or to show.
BLANK_STAGES: tuple[StageName, ...] = (
    StageName.PLAN,
    StageName.NETWORK,
    StageName.CONTAINERS,
    StageName.WORKSPACE,
)


class StageState(StrEnum):
    STARTED = "started"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"
