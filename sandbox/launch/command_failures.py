"""The failures of commands: the failure code, and the cause that their output names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sandbox.domain.evidence import FailureCause, FailureEvidence
from sandbox.domain.plan import LaunchPlan
from sandbox.engine.guest_data import ProcessInfo
from sandbox.errors import StageFailed
from sandbox.launch.causes.cause import Cause
from sandbox.launch.crash_detection import IDLE_SECONDS
from sandbox.launch.http_probe import Answer
from sandbox.launch.process_exit import describe_exit

_BY_HAND = "Correct the app, upload again and relaunch; `sandbox exec` runs the command by hand."
_IN_FOREGROUND = "The start command has to run the server itself, in the foreground, for as long as it serves."


def install_failed(role: str, command: str, ended: ProcessInfo, cause: Cause) -> StageFailed:
    """The install command has ended with an error."""
    if ended.out_of_memory:
        return _out_of_memory(role, command, "install less")
    full = cause.evidence.cause is FailureCause.DISK_FULL
    return StageFailed(
        "disk_full" if full else "dependency_install_failed",
        f"{role}: `{command}` {describe_exit(ended)}:\n{cause.excerpt}",
        "Free disk space on the host."
        if full
        else cause.hint or "Correct what these lines name, upload again and relaunch.",
        details=_details(role, cause, exit_code=ended.exit_code),
    )


def app_exited(plan: LaunchPlan, role: str, ended: ProcessInfo | None, cause: Cause) -> StageFailed:
    """The app's process is over. `ended` None: the guest agent has no record of it."""
    start = plan.roles[role].start or ""
    if ended is not None and ended.out_of_memory:
        return _out_of_memory(role, start, "have the app use less")
    output = f":\n{cause.excerpt}" if cause.excerpt else " and printed nothing"
    message = f"{role}: `{start}` {describe_exit(ended)} before it answered{output}"
    exit_code = ended.exit_code if ended is not None else None
    hint = cause.hint or (_IN_FOREGROUND if exit_code == 0 else _BY_HAND)
    return StageFailed("app_exited", message, hint, details=_details(role, cause, exit_code=exit_code))


def app_crashed(plan: LaunchPlan, role: str, cause: Cause) -> StageFailed:
    """The app's process runs and waits, for example in a reloader, after the app itself has failed."""
    return StageFailed(
        "app_exited",
        f"{role}: `{plan.roles[role].start}` failed and waits for its code to change: it has done nothing for "
        f"{IDLE_SECONDS:.0f} s and port {plan.roles[role].port} is not open:\n{cause.excerpt}",
        cause.hint or _BY_HAND,
        details=_details(role, cause),
    )


def app_never_answered(
    plan: LaunchPlan, role: str, answer: Answer | None, open_ports: Sequence[int], timeout: float, cause: Cause
) -> StageFailed:
    """The app runs, and its time is up. `answer` is the last one of its port; None if nothing listens there."""
    planned, health = plan.roles[role].port, plan.roles[role].health
    known = cause.evidence.cause is not None
    if answer is not None:
        evidence = replace(
            cause.evidence,
            cause=cause.evidence.cause or FailureCause.BAD_STATUS,
            path=answer.path,
            status=answer.status,
        )
        return StageFailed(
            "health_check_failed",
            f"{role}: GET {health} on port {planned} failed for {timeout:.0f} s: {answer.detail}\n"
            f"{cause.excerpt}".rstrip(),
            cause.hint or "Correct the app, or name another `health` path in sandbox.toml.",
            details=_details(role, replace(cause, evidence=evidence)),
        )
    if others := [port for port in open_ports if port != planned]:
        listed = ", ".join(map(str, others))
        evidence = FailureEvidence(cause=FailureCause.OTHER_PORT, port_planned=planned, port_opened=others[0])
        return StageFailed(
            "other_port_opened",
            f"{role}: the plan says port {planned}, but the app listens on port {listed}",
            f"Have the app listen on $PORT, or set port={others[0]} for [{role}] in sandbox.toml.",
            details=_details(role, replace(cause, evidence=evidence)),
        )
    output = f"; the app printed:\n{cause.excerpt}" if cause.excerpt else ", and the app printed nothing"
    return StageFailed(
        "port_not_opened",
        f"{role}: nothing listened on port {planned} within {timeout:.0f} s{output}",
        (cause.hint if known else "")
        or "Have the app listen on $PORT, or raise SANDBOX_HEALTH_TIMEOUT_SECONDS if it is slow to start.",
        details=_details(role, replace(cause, evidence=replace(cause.evidence, port_planned=planned))),
    )


def _out_of_memory(role: str, command: str, remedy: str) -> StageFailed:
    return StageFailed(
        "out_of_memory",
        f"{role}: `{command}` was killed because the container ran out of memory",
        f"Relaunch with more memory (`sandbox relaunch --memory`), or {remedy}.",
        details=FailureEvidence(role=role, cause=FailureCause.OUT_OF_MEMORY).to_json(),
    )


def _details(role: str, cause: Cause, *, exit_code: int | None = None) -> dict[str, object]:
    excerpt = cause.excerpt or None
    return replace(cause.evidence, role=role, excerpt=excerpt, exit_code=exit_code).to_json()
