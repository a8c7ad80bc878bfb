"""What a role's commands see: folders, environment, names of the processes."""

from __future__ import annotations

import posixpath

from sandbox.domain.plan import LaunchPlan
from sandbox.domain.session import Session
from sandbox.launch.reporting import withdrawn

WORKSPACE = "/workspace"
BASE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def role_root(plan: LaunchPlan, role: str) -> str:
    """The folder in the container in which the role's commands run."""
    return posixpath.normpath(posixpath.join(WORKSPACE, plan.roles[role].root))


def role_environment(session: Session, plan: LaunchPlan, role: str) -> dict[str, str]:
    """The environment of the role's install and start commands.

    Programs of the project's own virtualenv and node_modules come first on PATH; `PORT` is the planned port; every
    other role with a port is told as `{ROLE}_HOST`, `_PORT` and `_URL`. What the plan and the caller set wins.
    """
    root = role_root(plan, role)
    env = {
        "PATH": f"{root}/.venv/bin:{root}/node_modules/.bin:{BASE_PATH}",
        "SANDBOX_SESSION_ID": str(session.session_id),
        "SANDBOX_ROLE": role,
    }
    own_port = plan.roles[role].port
    if own_port is not None:
        env["PORT"] = str(own_port)
    for other, other_plan in plan.roles.items():
        if other != role and other_plan.port is not None:
            name = other.upper().replace("-", "_")
            env[f"{name}_HOST"] = other
            env[f"{name}_PORT"] = str(other_plan.port)
            env[f"{name}_URL"] = f"http://{other}:{other_plan.port}"
    given = plan.roles[role].env | session.env
    return env | withdrawn(given) | given


def ports_of_others(plan: LaunchPlan, role: str) -> dict[int, str]:
    """The ports at which a role finds the others on its own localhost, with their roles: never its own port; of several
    others on one port the first of the plan."""
    found: dict[int, str] = {}
    for other, what in plan.roles.items():
        if other != role and what.port is not None and what.port != plan.roles[role].port:
            found.setdefault(what.port, other)
    return found
