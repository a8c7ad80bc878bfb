"""The launch plan: what a launch does for each role.

`projects/` makes it from `sandbox.toml` or by detection, and `launch/` carries it out.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from sandbox.domain.egress import PUBLIC, Egress, parse_egress
from sandbox.domain.variables import Variables, check_text, referred

#: A role is a DNS label: it names the container on the session's network.
ROLE_PATTERN = r"^[a-z][a-z0-9-]{0,30}$"
#: The role of a session without a project.
BLANK_ROLE = "main"
MAX_ROLES = 8

Role = Annotated[str, StringConstraints(pattern=ROLE_PATTERN)]


Text = Annotated[str, AfterValidator(check_text)]


def _is_absent(value: object) -> bool:
    """Leave a field out of stored plans, so that the previous release can read those that do not need it."""
    return not value


class RolePlan(BaseModel):
    """The plan of one role: its runtime, its folder in the project, its commands, its port and its health check."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    runtime: Text = Field(max_length=50, description="Name of a folder of runtimes/, such as python312 or node20")
    root: Text = Field(".", max_length=500, description="Folder of this role within the project")
    install: Text | None = Field(None, max_length=4000, description="Shell command that installs the dependencies")
    start: Text | None = Field(
        None, max_length=4000, description="Shell command that starts the app; it runs until killed"
    )
    port: int | None = Field(
        None, ge=1, le=65535, description="Port the app listens on, on any of the container's addresses"
    )
    health: Text = Field("/", max_length=500, description="Path that answers below status 500 once the app is up")
    env: Variables = Field(default_factory=dict, description="Environment of install and start")
    framework: Text | None = Field(None, max_length=50, description="What was recognised, for people to read")
    health_timeout_seconds: int | None = Field(
        None, ge=1, exclude_if=_is_absent, description="Longest time until the app answers; default the service's"
    )
    install_timeout_seconds: int | None = Field(
        None, ge=1, exclude_if=_is_absent, description="Longest time of the install command; default the service's"
    )
    stated: tuple[Literal["port", "health"], ...] = Field(
        default_factory=tuple,
        description="Which of these the project states itself; the others were detected, and what is found counts",
    )

    @field_validator("root")
    @classmethod
    def _inside_the_project(cls, value: str) -> str:
        parts = value.replace("\\", "/").split("/")
        if value.startswith("/") or ".." in parts or "\0" in value:
            raise ValueError("root must be a folder inside the project, without '..'")
        return "/".join(p for p in parts if p not in ("", ".")) or "."

    @field_validator("health")
    @classmethod
    def _a_path(cls, value: str) -> str:
        if not value.startswith("/") or any(c in value for c in "\r\n\0 "):
            raise ValueError("health must be a path that starts with '/'")
        return value


class AppliedLesson(BaseModel):
    """A change that a lesson made to the plan of a role."""

    model_config = ConfigDict(frozen=True)

    lesson_id: int
    role: Role
    remedy: str = Field(description="The kind of the change, such as `install_package`")
    change: str = Field(description="What was changed and why, as a sentence")
    failure_id: int = Field(description="The earlier failure that it is a remedy for")


class PreviewPlan(BaseModel):
    """How the previews of a project are asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: Literal["localhost", "public"] = Field(
        "localhost",
        description="The name an app is asked by: localhost:PORT, or public for the name that visitors see",
    )
    log: bool = Field(False, description="Whether each request of the preview is a line in the session's logs")


class NetworkPlan(BaseModel):
    """What the containers of a project may connect to, unless the request for the session restricts them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    egress: Literal["all", "none"] | tuple[str, ...] = Field(
        "all", description="all, none, or host names and IPv4 networks: see the `network` of a session"
    )

    @field_validator("egress")
    @classmethod
    def _known(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        egress = parse_egress(value if isinstance(value, str) else list(value))
        return egress.destinations or egress.mode


class LaunchPlan(BaseModel):
    """The plan of a launch: its roles, in the order in which they are displayed, its previews and its network."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    roles: dict[Role, RolePlan] = Field(min_length=1, max_length=MAX_ROLES)
    lessons: tuple[AppliedLesson, ...] = Field((), exclude_if=_is_absent, description="What lessons have changed")
    planned: dict[Role, RolePlan] = Field(
        default_factory=dict,
        exclude_if=_is_absent,
        description="The roles that lessons changed, as the project has them",
    )
    preview: PreviewPlan = Field(PreviewPlan(), exclude_if=lambda preview: preview == PreviewPlan())
    network: NetworkPlan = Field(NetworkPlan(), exclude_if=lambda network: network == NetworkPlan())

    @model_validator(mode="after")
    def _startable(self) -> LaunchPlan:
        for name, role in self.roles.items():
            if role.port is not None and role.start is None:
                raise ValueError(f"role {name} has a port but no start command")
        return self

    def reach(self, requested: Egress) -> Egress:
        """What the containers may connect to: what the session's request restricts, else what the project does."""
        if requested != PUBLIC:
            return requested
        stated = self.network.egress
        return parse_egress(stated if isinstance(stated, str) else list(stated))

    def has_own_network(self, requested: Egress) -> bool:
        """Whether the containers are on a network of their own rather than on the shared one."""
        return len(self.roles) > 1 or self.reach(requested) != PUBLIC

    @property
    def secrets(self) -> set[str]:
        """The references to stored values in the environments of its roles."""
        return {name for role in (*self.roles.values(), *self.planned.values()) for name in referred(role.env)}

    def as_planned(self, role: str) -> RolePlan | None:
        """The role's plan as the project has it, before lessons changed it; None if there is no such role."""
        return self.planned.get(role) or self.roles.get(role)

    def with_port(self, role: str, port: int) -> LaunchPlan:
        """The plan in which the role has this port."""
        if self.roles[role].port == port:
            return self
        return self.model_copy(
            update={"roles": {**self.roles, role: self.roles[role].model_copy(update={"port": port})}}
        )

    @property
    def preview_role(self) -> str | None:
        """The role that the preview shows: `frontend` if it has a port, else the first role that has one."""
        served = [name for name, role in self.roles.items() if role.port is not None]
        return "frontend" if "frontend" in served else (served[0] if served else None)

    @property
    def preview_port(self) -> int | None:
        return self.roles[self.preview_role].port if self.preview_role else None

    @property
    def backend_port(self) -> int | None:
        """The port of the role `backend`, if there is one."""
        return self.roles["backend"].port if "backend" in self.roles else None

    @property
    def primary_runtime(self) -> str:
        """The session's `runtime_type`: the runtime of the role `backend`, else of the first role."""
        return self.roles["backend" if "backend" in self.roles else next(iter(self.roles))].runtime


def stored_plan(value: dict[str, Any]) -> LaunchPlan:
    """The plan of a session's row. Fields that this release does not know are ignored, because replicas are replaced
    one by one and a newer one may have written the row."""
    return LaunchPlan.model_validate(value, extra="ignore")


def blank_plan(runtime: str) -> LaunchPlan:
    """The plan of a session without a project: one container, nothing installed, nothing started."""
    return LaunchPlan(roles={BLANK_ROLE: RolePlan(runtime=runtime)})
