"""Compares the sessions in the database with the resources on the engine. No I/O."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from sandbox.domain.session import Session, SessionStatus, Work
from sandbox.engine.base import Resource, ResourceKind
from sandbox.engine.labels import container_name


class Action(StrEnum):
    """What resolves the difference."""

    #: There is no difference, or the session has unfinished work.
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


#: The errors of a session that worked until it lost something. The error of a launch that failed names a stage, and is
#: not repaired here: the session's owner has to correct the project.
LOSSES = frozenset({"container_exited", "container_gone", "out_of_memory", "app_exited"})
WORKSPACE_LOST = "workspace_lost"


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
    lost = session.error is not None and session.error.code in LOSSES and session.error.stage is None
    differs: Sequence[str] = ()
    if session.work is not None:
        action, reason = Action.NONE, f"it is being {'launched' if session.work is Work.LAUNCH else 'ended'}"
    elif session.status is SessionStatus.ERROR and not lost:
        action, reason = Action.NONE, f"it is in error: {session.error.code if session.error else 'unknown'}"
    else:
        action, reason, differs = _at_rest(session, found, lost=lost)
    return Finding(action, reason, session.session_id, session, tuple(found), tuple(differs))


def _at_rest(session: Session, found: list[Resource], *, lost: bool) -> tuple[Action, str, Sequence[str]]:
    """The most severe difference of a session that should run, or ran until it was lost."""
    containers = {r.name: r for r in found if r.kind is ResourceKind.CONTAINER}
    volumes = {r.name for r in found if r.kind is ResourceKind.VOLUME}
    names = {role: container_name(session.session_id, role) for role in session.containers}
    missing = [role for role, name in names.items() if name not in containers]
    stopped = [role for role, name in names.items() if name in containers and containers[name].status != "running"]
    running = {role: containers[name].id for role, name in names.items() if name in containers}
    changed = [role for role, container_id in running.items() if container_id != session.containers[role].id]

    if without := [role for role, name in names.items() if name not in volumes]:
        return Action.MARK_LOST, f"the files of {', '.join(without)} are gone", without
    if missing:
        return Action.RECREATE, f"the containers of {', '.join(missing)} are gone, their files are there", missing
    if stopped:
        return Action.RESTART, f"the containers of {', '.join(stopped)} do not run", stopped
    if lost:
        return Action.RESTART, "the containers run, the app does not", list(names)
    if changed:
        return Action.ADOPT, f"other containers run than recorded: {', '.join(changed)}", changed
    return Action.NONE, "as recorded", ()
