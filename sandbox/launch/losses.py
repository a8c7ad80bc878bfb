"""Containers that are lost: what is the matter with them, and which stages of a launch replace them.

The launch and the watcher of sessions at rest both decide by `find_loss`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sandbox.domain.stages import StageName
from sandbox.engine.base import ContainerState
from sandbox.errors import SandboxError

#: Exit code of a process that was killed with SIGKILL.
KILLED = 137
#: How often one run replaces lost containers; after that the loss ends it.
MOST_REPLACEMENTS = 3
#: The losses after which what ran in the container goes on.
_STILL_RUNNING = frozenset({"container_paused", "network_lost"})


@dataclass(frozen=True, slots=True)
class Loss:
    """What is the matter with containers of a session. The code and the message are those of the first of them."""

    code: str
    message: str
    #: The roles whose containers are lost.
    roles: tuple[str, ...]
    #: Of these, the roles in whose containers everything that ran has ended.
    ended: tuple[str, ...]
    #: Whether a container is gone, with everything that was not on its volume.
    gone: bool = False
    #: Whether a container is cut off from its network.
    cut_off: bool = False


class ContainersLost(SandboxError):
    """Containers were lost while a launch was under way, and may be replaced: the run goes on from an earlier stage."""

    code = "containers_lost"

    def __init__(self, loss: Loss) -> None:
        super().__init__(loss.message)
        self.loss = loss


def find_loss(states: Mapping[str, ContainerState | None]) -> Loss | None:
    """What is the matter with the containers of these roles; None if all of them run."""
    lost = {role: found for role, state in states.items() if (found := _matter(role, state)) is not None}
    if not lost:
        return None
    code, message = next(iter(lost.values()))
    codes = {code for code, _ in lost.values()}
    ended = tuple(role for role, (code, _) in lost.items() if code not in _STILL_RUNNING)
    return Loss(code, message, tuple(lost), ended, gone="container_gone" in codes, cut_off="network_lost" in codes)


def _matter(role: str, state: ContainerState | None) -> tuple[str, str] | None:
    if state is None:
        return "container_gone", f"the container of role {role} is gone"
    if state.status == "running" and not state.connected:
        return "network_lost", f"the container of role {role} is cut off: it is not attached to its network any more"
    if state.status == "paused":
        return "container_paused", f"the container of role {role} is paused"
    if state.status in ("running", "restarting"):
        return None
    if state.out_of_memory and state.exit_code == KILLED:
        return "out_of_memory", f"the container of role {role} was killed for using too much memory"
    ended = f"exited {state.exit_code}" if state.exit_code is not None else f"is {state.status}"
    return "container_exited", f"the container of role {role} {ended}"


def stages_to_repeat(current: StageName, loss: Loss) -> list[StageName]:
    """The stages of a run that are done again, in order, when containers are lost during stage `current`.

    The files of the volume remain, so an install is repeated only if it was under way or its container is made anew.
    """
    repeated = {StageName.CONTAINERS, StageName.WORKSPACE, current}
    if loss.cut_off:
        repeated.add(StageName.NETWORK)
    if loss.gone:
        repeated.add(StageName.DEPENDENCIES)
    if current in (StageName.HEALTH, StageName.PREVIEW):
        repeated |= {StageName.SERVICES, StageName.HEALTH}
    names = list(StageName)
    return [name for name in names if name in repeated and names.index(name) <= names.index(current)]
