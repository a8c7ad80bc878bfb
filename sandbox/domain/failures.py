"""Why a launch fails: the stable codes, and the stage at which each can occur. Lessons refer to these codes."""

from __future__ import annotations

from collections.abc import Collection

from sandbox.domain.stages import StageName

#: Failure code -> the stage that fails with it; None: any stage can.
FAILURE_STAGES: dict[str, StageName | None] = {
    #: The project was deleted between the request and the launch.
    "project_not_found": StageName.PLAN,
    #: No manifest, and nothing that detection knows.
    "plan_undetected": StageName.PLAN,
    #: `sandbox.toml` breaks a rule.
    "plan_invalid": StageName.PLAN,
    #: The plan names a runtime that is not installed.
    "runtime_unknown": StageName.PLAN,
    #: The engine could not make the session's network.
    "network_failed": StageName.NETWORK,
    #: The engine could not make or start a container.
    "container_start_failed": StageName.CONTAINERS,
    #: A container started, but the guest agent in it does not answer.
    "agent_unreachable": StageName.CONTAINERS,
    #: The runtime's image is not there and could not be got.
    "image_missing": StageName.CONTAINERS,
    #: The source could not be put into the container.
    "workspace_failed": StageName.WORKSPACE,
    #: The install command ended with an error.
    "dependency_install_failed": StageName.DEPENDENCIES,
    #: The install command took longer than it may.
    "dependency_install_timeout": StageName.DEPENDENCIES,
    #: The start command could not be run.
    "app_start_failed": StageName.SERVICES,
    #: The app runs and never opened a port.
    "port_not_opened": StageName.HEALTH,
    #: The app runs and opened another port than planned.
    "other_port_opened": StageName.HEALTH,
    #: The app ended before it answered.
    "app_exited": StageName.HEALTH,
    #: The app opened its port and answers with an error, or not at all.
    "health_check_failed": StageName.HEALTH,
    #: A container was killed because its memory limit was reached.
    "out_of_memory": None,
    #: No room left for a container's files.
    "disk_full": None,
    #: The container engine refused or does not answer.
    "engine_error": None,
    #: The guest agent in a container refused what the launch asked of it.
    "agent_refused": None,
    #: Our own mistake.
    "internal_error": None,
}


def ruled_out(completed: Collection[StageName], *, run_completed: bool) -> list[str]:
    """The failure codes that a run has shown not to occur: their stage is behind it without them.

    `completed` are the stages that did their work to the end. A failure that any stage can have is ruled out only when
    the whole run has completed.
    """
    return [code for code, stage in FAILURE_STAGES.items() if (run_completed if stage is None else stage in completed)]
