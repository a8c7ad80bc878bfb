"""The comparison itself, without I/O: rows of the database × resources of the engine → findings."""

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
    """What brings the two together."""

    #: They agree, or somebody is at work on it.
    NONE = "none"
    #: Record the containers as they are: they run, but are not those that were recorded.
    ADOPT = "adopt"
    #: Launch again: the containers are there and are started.
    RESTART = "restart"
    #: Launch again: containers are made anew on their volumes, files are kept.
    RECREATE = "recreate"
    #: Say that the files of a role are gone; launching again begins from the project's source.
    MARK_LOST = "mark_lost"
    #: Remove from the engine what belongs to no living session.
    REMOVE = "remove"


#: The errors of a session that was well until it lost something. A launch that failed, whose error names the stage, is
#: its owner's to correct.
LOSSES = frozenset({"container_exited", "container_gone", "out_of_memory", "app_exited"})
WORKSPACE_LOST = "workspace_lost"


@dataclass(frozen=True, slots=True)
class Finding:
    """One session, or one stray resource."""

    action: Action
    #: For people: why this is to be done, or why nothing is.
    reason: str
    #: The session; None for a stray that names none.
    session_id: UUID | None
    #: The row; None for a stray.
    session: Session | None
    #: What the engine has of it.
    found: tuple[Resource, ...]
    #: Roles whose container or volume is not as recorded.
    differs: tuple[str, ...] = ()


def compare(sessions: Iterable[Session], resources: Sequence[Resource]) -> list[Finding]:
    """Findings for sessions that are not terminated, in their order, then one for each stray resource.

    Read the sessions first and the resources after them, and look again for a stray's session before removing it: one
    that was made between the two is none.
    """
    by_session: dict[UUID | None, list[Resource]] = defaultdict(list)
    for resource in resources:
        by_session[resource.session_id].append(resource)
    findings = [_session(session, by_session.pop(session.session_id, [])) for session in sessions]
    # The network that sessions of one container share is nobody's in particular.
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
    """A session that should run, or did until it was lost; the worst of what differs."""
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
