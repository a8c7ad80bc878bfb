"""Compares the sessions in the database with the resources on the engine. No I/O."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from uuid import UUID

from sandbox.domain.failures import LOSSES, RECOVERABLE_FAILURES
from sandbox.domain.session import Session, SessionError, SessionStatus, Work
from sandbox.engine.base import Resource, ResourceKind
from sandbox.engine.labels import container_name, network_name


class Action(StrEnum):
    """What resolves the difference."""

    #: There is no difference, the session has unfinished work, or it is in an error that its owner has to act on.
    NONE = "none"
    #: Record the running containers: they are not those in the session's row.
    ADOPT = "adopt"
    #: Launch again: the containers exist and are started.
    RESTART = "restart"
    #: Launch again: containers are created on their old volumes, so files are kept.
    RECREATE = "recreate"
    #: Set the session to `error`, because the files of a role are gone. A relaunch begins from the project's source.
    MARK_LOST = "mark_lost"
    #: Remove a resource of no session from the engine.
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class Finding:
    """One session, or one stray resource."""

    action: Action
    #: For people: why this action, or why none.
    reason: str
    #: None for a stray whose labels name no session.
    session_id: UUID | None
    #: None for a stray.
    session: Session | None
    #: The resources on the engine.
    found: tuple[Resource, ...]
    #: Roles whose container or volume is not as recorded.
    differs: tuple[str, ...] = ()


def assign(resources: Iterable[Resource], owners: Mapping[UUID, tuple[UUID, str] | None]) -> list[Resource]:
    """The resources with their sessions and roles; without those of containers that wait in the pool.

    `owners` has session and role of each container that came from the pool, or None, by its own id. The volume of such
    a container keeps the labels it had there.
    """
    assigned = []
    for resource in resources:
        if resource.session_id is None or resource.session_id not in owners:
            assigned.append(resource)
        elif (owner := owners[resource.session_id]) is not None:
            session_id, role = owner
            assigned.append(replace(resource, session_id=session_id, role=role))
    return assigned


def compare(sessions: Iterable[Session], resources: Sequence[Resource]) -> list[Finding]:
    """A finding for each of the sessions, in their order, then one for each stray resource.

    The caller reads the sessions first and the resources after them, and checks again for a stray's session before
    removing it: a session created between the two reads is not among `sessions`.
    """
    by_session: dict[UUID | None, list[Resource]] = defaultdict(list)
    for resource in resources:
        by_session[resource.session_id].append(resource)
    findings = [_session(session, by_session.pop(session.session_id, [])) for session in sessions]
    # The network that all sessions with one container share belongs to no session.
    by_session[None] = [r for r in by_session[None] if r.kind is not ResourceKind.NETWORK]
    return findings + [
        Finding(Action.REMOVE, "no living session has it", session_id, None, (stray,))
        for session_id, strays in by_session.items()
        for stray in strays
    ]


def _session(session: Session, found: list[Resource]) -> Finding:
    error = session.error if session.status is SessionStatus.ERROR else None
    differs: Sequence[str] = ()
    if session.work is not None:
        action, reason = Action.NONE, f"it is being {'launched' if session.work is Work.LAUNCH else 'ended'}"
    elif error is not None and not is_recoverable(error):
        action, reason = Action.NONE, f"it is in error, and its owner has to act: {error.code}: {error.hint}"
    else:
        action, reason, differs = _at_rest(session, found, error)
    return Finding(action, reason, session.session_id, session, tuple(found), tuple(differs))


def is_recoverable(error: SessionError) -> bool:
    """Whether a session in this error is launched again by recovery.

    The error of a launch that failed names a stage. Most of them need a correction of the project first.
    """
    return error.code in (LOSSES if error.stage is None else RECOVERABLE_FAILURES)


def _at_rest(session: Session, found: list[Resource], error: SessionError | None) -> tuple[Action, str, Sequence[str]]:
    """The most severe difference of a session that should run, or would if it had not been lost with this error."""
    containers = {r.name: r for r in found if r.kind is ResourceKind.CONTAINER}
    volumes = {r.role for r in found if r.kind is ResourceKind.VOLUME}
    names = {role: container_name(session.session_id, role) for role in session.containers}
    missing = [role for role, name in names.items() if name not in containers]
    stopped = [role for role, name in names.items() if name in containers and containers[name].status != "running"]
    running = {role: containers[name].id for role, name in names.items() if name in containers}
    changed = [role for role, container_id in running.items() if container_id != session.containers[role].id]

    without = [role for role in names if role not in volumes]
    networks = {r.name for r in found if r.kind is ResourceKind.NETWORK}
    # The network that other sessions share belongs to none of them.
    has_own = session.plan is not None and session.plan.has_own_network(session.egress)
    gone = has_own and network_name(session.session_id) not in networks
    cut_off = [role for role, name in names.items() if name in containers and (gone or not containers[name].connected)]
    differences = [
        (Action.MARK_LOST, without, "the files of {} are gone"),
        (Action.RECREATE, missing, "the containers of {} are gone, their files are there"),
        (Action.RESTART, stopped, "the containers of {} do not run"),
        (Action.RESTART, cut_off, "the containers of {} are cut off from their network"),
    ]
    if error is None:
        differences.append((Action.ADOPT, changed, "other containers run than recorded: {}"))
    for action, roles, reason in differences:
        if roles:
            return action, reason.format(", ".join(roles)), roles
    if error is None:
        return Action.NONE, "as recorded", ()
    if error.stage is None:
        return Action.RESTART, f"the containers run, and it is in error: {error.code}", list(names)
    reason = f"its launch failed at {error.stage} for a cause outside of the project: {error.code}"
    return Action.RESTART, reason, list(names)
