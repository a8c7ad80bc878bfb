"""The failures of apps during the health stage, with the cause that their output names."""

from __future__ import annotations

from collections.abc import Sequence

from sandbox.domain.evidence import FailureCause, FailureEvidence
from sandbox.domain.plan import LaunchPlan
from sandbox.engine.guest import ProcessInfo
from sandbox.errors import StageFailed
from sandbox.launch.crash_detection import IDLE_SECONDS
from sandbox.launch.http_probe import Answer
from sandbox.launch.output import offending_lines
from sandbox.launch.process_exit import describe_exit

#: Exit code of a shell that cannot find the program.
NO_SUCH_PROGRAM = 127


def app_exited(plan: LaunchPlan, role: str, ended: ProcessInfo | None, tail: list[str]) -> StageFailed:
    """The app's process is over. `ended` None: the guest agent has no record of it."""
    start = plan.roles[role].start
    if ended is not None and ended.out_of_memory:
        return StageFailed(
            "out_of_memory",
            f"{role}: `{start}` was killed because the container ran out of memory",
            "Raise SANDBOX_MEMORY_MB, or have the app use less.",
            details=FailureEvidence(role=role, cause=FailureCause.OUT_OF_MEMORY).to_json(),
        )
    lines = offending_lines(tail)
    output = f":\n{lines}" if lines else " and printed nothing"
    message = f"{role}: `{start}` {describe_exit(ended)} before it answered{output}"
    return StageFailed("app_exited", message, _exit_hint(ended))


def _exit_hint(ended: ProcessInfo | None) -> str:
    if ended is not None and ended.exit_code == NO_SUCH_PROGRAM:
        return "Add the missing program to the project's dependencies, upload again and relaunch."
    if ended is not None and ended.exit_code == 0:
        return "The start command has to run the server itself, in the foreground, for as long as it serves."
    return "Correct the app, upload again and relaunch; `sandbox exec` runs the command by hand."


def app_crashed(plan: LaunchPlan, role: str, tail: list[str]) -> StageFailed:
    """The app's process runs and waits, for example in a reloader, after the app itself has failed."""
    return StageFailed(
        "app_exited",
        f"{role}: `{plan.roles[role].start}` failed and waits for its code to change: it has done nothing for "
        f"{IDLE_SECONDS:.0f} s and port {plan.roles[role].port} is not open:\n{offending_lines(tail)}",
        _exit_hint(None),
    )


def app_never_answered(
    plan: LaunchPlan, role: str, answer: Answer | None, open_ports: Sequence[int], timeout: float, tail: list[str]
) -> StageFailed:
    """The app runs, and its time is up. `answer` is the last one of its port; None if nothing listens there."""
    planned, health = plan.roles[role].port, plan.roles[role].health
    if answer is not None:
        return StageFailed(
            "health_check_failed",
            f"{role}: GET {health} on port {planned} failed for {timeout:.0f} s: {answer.detail}\n"
            f"{offending_lines(tail)}".rstrip(),
            "Correct the app, or name another `health` path in sandbox.toml.",
        )
    if others := [port for port in open_ports if port != planned]:
        listed = ", ".join(map(str, others))
        return StageFailed(
            "other_port_opened",
            f"{role}: the plan says port {planned}, but the app listens on port {listed}",
            f"Have the app listen on $PORT, or set port={others[0]} for [{role}] in sandbox.toml.",
        )
    lines = offending_lines(tail)
    output = f"; the app printed:\n{lines}" if lines else ", and the app printed nothing"
    return StageFailed(
        "port_not_opened",
        f"{role}: nothing listened on port {planned} within {timeout:.0f} s{output}",
        "Have the app listen on $PORT, or raise SANDBOX_HEALTH_TIMEOUT_SECONDS if it is slow to start.",
    )
