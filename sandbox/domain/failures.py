"""The failure codes of launches, and the stage at which each can occur. The codes are stable: lessons refer to them."""

from __future__ import annotations

from collections.abc import Collection

from sandbox.domain.stages import StageName

#: Failure code -> the stage that can fail with it, or None if any stage can.
FAILURE_STAGES: dict[str, StageName | None] = {
    #: The project was deleted between the request and the launch.
    "project_not_found": StageName.PLAN,
    #: There is no manifest, and detection does not recognise the project.
    "plan_undetected": StageName.PLAN,
    #: `sandbox.toml` is invalid.
    "plan_invalid": StageName.PLAN,
    #: The plan names a runtime that is not installed.
    "runtime_unknown": StageName.PLAN,
    #: The engine could not create the session's network.
    "network_failed": StageName.NETWORK,
    #: This host cannot enforce the egress that the session requests.
    "egress_unavailable": StageName.NETWORK,
    #: A host name in the session's egress does not resolve.
    "egress_host_unknown": StageName.NETWORK,
    #: The engine could not create or start a container.
    "container_start_failed": StageName.CONTAINERS,
    #: The engine cannot limit the disk space of containers, which SANDBOX_DISK_MB asks for.
    "disk_limit_unavailable": StageName.CONTAINERS,
    #: A container started, but the guest agent in it does not answer.
    "agent_unreachable": StageName.CONTAINERS,
    #: The runtime's image does not exist and could not be built.
    "image_missing": StageName.CONTAINERS,
    #: The project's files could not be unpacked in the container.
    "workspace_failed": StageName.WORKSPACE,
    #: The install command ended with an error.
    "dependency_install_failed": StageName.DEPENDENCIES,
    #: The install command exceeded its timeout.
    "dependency_install_timeout": StageName.DEPENDENCIES,
    #: The start command could not be executed.
    "app_start_failed": StageName.SERVICES,
    #: The app runs but did not open a port in time.
    "port_not_opened": StageName.HEALTH,
    #: The app runs but opened another port than the planned one.
    "other_port_opened": StageName.HEALTH,
    #: The app ended before it answered.
    "app_exited": StageName.HEALTH,
    #: The app opened its port but answers with an error or not at all.
    "health_check_failed": StageName.HEALTH,
    #: A container exited or was killed during the launch, more often than it is replaced.
    "container_exited": None,
    #: A container was paused during the launch, more often than it is resumed.
    "container_paused": None,
    #: A container was removed during the launch, more often than it is replaced.
    "container_gone": None,
    #: A container was cut off from its network during the launch, more often than it is attached again.
    "network_lost": None,
    #: A container was killed because its memory limit was reached.
    "out_of_memory": None,
    #: No room left for a container's files.
    "disk_full": None,
    #: The container engine refused.
    "engine_error": None,
    #: The container engine did not answer for as long as a launch waits for it.
    "engine_away": None,
    #: The guest agent in a container refused a request.
    "agent_refused": None,
    #: An unexpected error of the service itself.
    "internal_error": None,
}

#: The failure of a launch, and the refusal of a request, for which there is no room on a disk.
DISK_FULL = "disk_full"
#: The failures of launches that no change of the project would have prevented. Recovery launches such sessions again.
RECOVERABLE_FAILURES = frozenset(
    {
        "network_failed",
        "network_lost",
        "container_start_failed",
        "container_exited",
        "container_gone",
        "container_paused",
        "agent_unreachable",
        "agent_refused",
        "image_missing",
        "engine_error",
        "engine_away",
        DISK_FULL,
    }
)
#: What a session at rest can be lost with, and recovered from.
LOSSES = frozenset(
    {
        "container_exited",
        "container_gone",
        "container_paused",
        "network_lost",
        "out_of_memory",
        "app_exited",
        "agent_unreachable",
    }
)
#: Of these, what may pass without a launch: the session is then as it was before.
PASSING_LOSSES = frozenset({"container_paused", "network_lost", "agent_unreachable"})
#: Of these, with what no command can be run in the session.
SILENT = frozenset({"container_paused", "agent_unreachable"})
#: Of these, what the app itself may have caused. A service that starts leaves such sessions as they are.
LOSSES_BY_APP = frozenset({"out_of_memory", "app_exited"})
#: Of these, what something outside of the session has done to it. The service launches such sessions again by itself.
LOSSES_FROM_OUTSIDE = frozenset({"container_exited", "container_gone", "network_lost"})
#: What a session is lost with when the files of a role are gone. Only a relaunch from the source helps.
WORKSPACE_LOST = "workspace_lost"


def ruled_out(completed: Collection[StageName], *, run_completed: bool) -> list[str]:
    """The failure codes that did not occur in a run, although their stage was completed.

    `completed` are the stages that have completed. A code that any stage can fail with is ruled out only if the whole
    run has completed.
    """
    return [code for code, stage in FAILURE_STAGES.items() if (run_completed if stage is None else stage in completed)]
