"""The working directory and the environment of a role's commands."""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from uuid import UUID

from sandbox.domain.plan import LaunchPlan
from sandbox.domain.session import Session
from sandbox.launch.otel_environment import cleared_variables, given_variables

WORKSPACE = "/workspace"
#: Written when the first source has been unpacked into an empty workspace: what changes afterwards is of later.
UNPACKED = f"{WORKSPACE}/.sandbox/unpacked"
#: The URL of a session's preview, or of another port of its apps.
PreviewUrl = Callable[[UUID, int | None], str]
BASE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def role_root(plan: LaunchPlan, role: str) -> str:
    """The folder in the container in which the role's commands run."""
    return posixpath.normpath(posixpath.join(WORKSPACE, plan.roles[role].root))


def role_environment(session: Session, plan: LaunchPlan, role: str) -> dict[str, str]:
    """The environment of the role's install and start commands.

    `PATH` begins with the programs of the project's own virtualenv and node_modules, and `PORT` is the planned port.
    Every other role with a port is given as `{ROLE}_HOST`, `{ROLE}_PORT` and `{ROLE}_URL`. Variables of the plan
    override these, and variables that the caller set for the session override both.
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
    given = given_variables(session, plan, role)
    return env | cleared_variables(given) | given


def preview_environment(session: Session, plan: LaunchPlan, role: str, preview_url: PreviewUrl) -> dict[str, str]:
    """Where visitors see the apps, in everything that runs in the role's container, without a `/` at the end.

    `SANDBOX_PREVIEW_URL` is the role's own app, or the session's preview for a role without one;
    `SANDBOX_PREVIEW_URL_{PORT}` is the app on each planned port.
    """

    def url(port: int | None) -> str:
        return preview_url(session.session_id, None if port == plan.preview_port else port).rstrip("/")

    ports = {each.port for each in plan.roles.values() if each.port is not None}
    own = plan.roles[role].port or plan.preview_port
    return {"SANDBOX_PREVIEW_URL": url(own)} | {f"SANDBOX_PREVIEW_URL_{port}": url(port) for port in sorted(ports)}


def ports_of_other_roles(plan: LaunchPlan, role: str, detected: LaunchPlan | None = None) -> dict[int, str]:
    """The ports that are forwarded from the role's localhost, with the role that each one leads to.

    The role's own port is never among them. If several other roles use one port, the first of the plan gets it. The
    ports of `detected`, which the roles were started with, come after all of `plan`.
    """
    ports: dict[int, str] = {}
    for each in (plan, detected or plan):
        for other, other_plan in each.roles.items():
            if other != role and other_plan.port is not None and other_plan.port != plan.roles[role].port:
                ports.setdefault(other_plan.port, other)
    return ports
