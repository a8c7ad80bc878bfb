"""`/api/v1/sessions`: create, list, get, terminate, relaunch, recover and renew sandbox sessions."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator
from sse_starlette import EventSourceResponse

from sandbox.api.http.auth import CurrentCaller
from sandbox.api.http.services import Injected, Services
from sandbox.api.http.streams import event_stream
from sandbox.domain.caller import Caller
from sandbox.domain.egress import parse_egress
from sandbox.domain.plan import MAX_ROLES, Role
from sandbox.domain.session import Session
from sandbox.domain.variables import RequestedVariables
from sandbox.events.sse import encode_event, encode_id
from sandbox.sessions.create_request import CreateRequest

router = APIRouter(prefix="/api/v1/sessions", tags=["sessions"])

MAX_SECONDS = 30 * 86_400
AgentName = Annotated[str, StringConstraints(min_length=1, max_length=100)]


class Network(BaseModel):
    """What the session's containers may connect to, apart from each other."""

    model_config = ConfigDict(extra="forbid")

    egress: Literal["all", "none"] | list[str] = Field(
        "all",
        description=(
            "`all`: the public internet, but neither the host nor private networks. `none`: nothing. A list: these "
            "host names and IPv4 networks and nothing else; names are resolved once, before the containers start"
        ),
    )

    @field_validator("egress")
    @classmethod
    def _known(cls, value: str | list[str]) -> str | list[str]:
        return parse_egress(value).to_json()


class RoleRequest(BaseModel):
    """One role of a requested plan: the keys of a table of `sandbox.toml`. Keys that are left out are detected."""

    model_config = ConfigDict(extra="forbid")

    runtime: str | None = Field(None, max_length=50, description="Name of a runtime, such as python312 or node20")
    root: str | None = Field(None, max_length=500, description="Folder of this role within the project")
    install: str | None = Field(None, max_length=4000, description="Null or empty: nothing is installed")
    start: str | None = Field(None, max_length=4000, description="Null or empty: nothing is started")
    port: int | None = Field(None, ge=1, le=65535, description="Null: the role has no port")
    health: str | None = Field(None, max_length=500, description="Path that answers once the app is up")
    env: RequestedVariables | None = Field(None, max_length=200, description="Environment of install and start")
    framework: str | None = Field(None, max_length=50, description="Ignored; accepted because a project's plan has it")
    stated: list[str] | None = Field(None, max_length=10, description="Ignored, as `framework` is")

    def table(self) -> dict[str, Any]:
        """Return the keys that were stated, as a table of `sandbox.toml` has them."""
        stated = self.model_dump(exclude_unset=True, exclude={"framework", "stated"})
        clearable = {"install": "", "start": "", "port": None}
        return {
            key: clearable[key] if value is None else value
            for key, value in stated.items()
            if value is not None or key in clearable
        }


class NewSession(BaseModel):
    """What to launch. Everything has a default: `{}` makes a blank Python sandbox."""

    model_config = ConfigDict(extra="forbid")

    project_id: str | None = Field(
        None, min_length=1, max_length=255, description="An uploaded project; without it the session is blank"
    )
    runtime_type: str | None = Field(None, max_length=50, description="Runtime of a blank session; default python312")
    env: RequestedVariables = Field(
        default_factory=dict,
        max_length=200,
        description='Environment of everything that runs in it; a value may name a secret: `{"from_secret": NAME}`',
    )
    network: Network = Field(default_factory=Network)
    idle_timeout_seconds: int | None = Field(
        None,
        ge=0,
        le=MAX_SECONDS,
        description="The session ends after this time without use; 0: the longest that the service allows",
    )
    max_lifetime_seconds: int | None = Field(
        None, ge=0, le=MAX_SECONDS, description="The session ends at this age; 0: the longest that the service allows"
    )
    pipeline_run_id: str | None = Field(
        None, min_length=1, max_length=255, description="The id that the platform gives this run"
    )
    agents: list[AgentName] = Field(
        default_factory=list, max_length=100, description="Agents of the platform whose lessons apply"
    )
    memory_mb: int | None = Field(
        None,
        ge=64,
        description="Memory of each container, MiB; default the service's, at most what its operator allows",
    )
    lessons: bool = Field(True, description="Whether lessons of earlier failures may change the plan of its launches")
    plan: dict[Role, RoleRequest | None] | None = Field(
        None,
        max_length=MAX_ROLES,
        description="Roles that replace those of the project's plan; null leaves a role out. Needs a project_id",
    )

    def request(self) -> CreateRequest:
        values = self.model_dump(exclude={"plan", "network", "env"})
        plan = {name: role.table() if role else None for name, role in (self.plan or {}).items()}
        return CreateRequest(**values, env=self.env, plan=plan or None, egress=parse_egress(self.network.egress))


class Relaunch(BaseModel):
    model_config = ConfigDict(extra="forbid")

    pipeline_run_id: str | None = Field(None, min_length=1, max_length=255)
    memory_mb: int | None = Field(
        None, ge=64, description="Memory of each container from now on, MiB; default as before"
    )


class Renewal(BaseModel):
    model_config = ConfigDict(extra="forbid")

    seconds: int = Field(ge=1, le=MAX_SECONDS, description="The session does not expire before this time has passed")


class ContainerView(BaseModel):
    id: str
    ip: str | None
    runtime: str
    status: str
    app: Literal["exited"] | None = Field(description="`exited` if the role's app has ended after its launch")
    exit_code: int | None = Field(description="The exit code of an app that has ended; null if it is not known")


class ErrorView(BaseModel):
    """Why the session is in `error`: its launch failed at `stage`, or, if `stage` is null, it was lost afterwards
    (`app_exited`, `container_exited`, `container_gone`, `out_of_memory`, `workspace_lost`)."""

    code: str
    message: str
    hint: str
    stage: str | None
    details: dict[str, Any] | None = Field(
        description="Particulars of a failed launch, those that are known: role, cause, tool, excerpt, error, file, "
        "line, module, package, version, program, variable, port_planned, port_opened, path, status, exit_code"
    )


class WarningView(BaseModel):
    """Something that is wrong with an app that runs."""

    role: str
    code: str
    message: str
    hint: str


class AppliedLessonView(BaseModel):
    """A change that a lesson made to the plan of the current launch."""

    lesson_id: int
    role: str
    remedy: str
    change: str


class WaitingView(BaseModel):
    """Why the launch is not being carried out just now."""

    reason: Literal["engine"] = Field(alias="for", description="What it waits for: the container engine")
    since: datetime
    until: datetime = Field(description="When the launch gives up and the session becomes `error`")


class SessionView(BaseModel):
    """A sandbox session. Times are UTC."""

    session_id: UUID
    user_id: str
    project_id: str | None
    status: Literal["creating", "ready", "running", "terminated", "error"]
    runtime_type: str
    network: Network
    memory_mb: int = Field(description="Memory of each container, MiB")
    memory_max_mb: int = Field(description="Most memory that it may be relaunched with")
    containers: dict[str, ContainerView]
    preview_port: int | None
    backend_port: int | None
    preview_url: str | None = Field(description="A signed link to the preview; valid for ten minutes")
    pipeline_stage: str | None = Field(description="Last completed launch stage")
    pipeline_run_id: str
    created_at: datetime
    last_active: datetime
    terminated_at: datetime | None
    expires_at: datetime | None
    error: ErrorView | None
    lessons: list[AppliedLessonView] = Field(description="What lessons have changed in the plan of the current launch")
    waiting: WaitingView | None = Field(description="Set while the session is `creating` and its launch waits")
    warnings: list[WarningView] = Field(description="What the launch noticed of the apps of a running session")
    preview_frame_refusal: str | None = Field(
        description="The header with which the app forbids other pages to show its preview in a frame"
    )


class SessionPage(BaseModel):
    items: list[SessionView]
    next_cursor: str | None


def view(session: Session, services: Services, caller: Caller) -> dict[str, Any]:
    """The session as JSON, with a preview link signed for this caller."""
    return {
        "session_id": str(session.session_id),
        "user_id": session.user_id,
        "project_id": session.project_id,
        "status": session.status.value,
        "runtime_type": session.runtime_type,
        "network": {"egress": (session.plan.reach(session.egress) if session.plan else session.egress).to_json()},
        "memory_mb": session.memory_mb or services.settings.memory_mb,
        "memory_max_mb": max(services.settings.memory_mb, services.settings.memory_max_mb),
        "containers": {role: info.to_json() for role, info in session.containers.items()},
        "preview_port": session.preview_port,
        "backend_port": session.backend_port,
        "preview_url": _preview_url(session, services, caller),
        "pipeline_stage": session.pipeline_stage,
        "pipeline_run_id": session.pipeline_run_id,
        "created_at": session.created_at,
        "last_active": session.last_active,
        "terminated_at": session.terminated_at,
        "expires_at": session.expires_at,
        "error": session.error.to_json() if session.error else None,
        "lessons": [lesson.model_dump(exclude={"failure_id"}) for lesson in session.plan.lessons]
        if session.plan
        else [],
        "waiting": session.waiting.to_json() if session.waiting else None,
        "warnings": [warning.to_json() for warning in session.observations.warnings],
        "preview_frame_refusal": session.observations.frame_refusal,
    }


def _preview_url(session: Session, services: Services, caller: Caller) -> str | None:
    if session.preview_port is None or session.terminated_at is not None:
        return None
    base = services.settings.preview_url(session.session_id).rstrip("/") + session.observations.preview_path
    signature = services.signer.sign_preview(session.session_id, caller.signed_in_by)
    return f"{base}{'&' if '?' in base else '?'}_sbx={signature}"


@router.post("", status_code=202, response_model=SessionView)
async def create_session(
    body: NewSession,
    caller: CurrentCaller,
    services: Injected,
    response: Response,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> Any:
    """Create a session and start its launch. Answers at once; follow the launch at `…/events`.

    A repeated request with the same `Idempotency-Key` answers the session that the first one made; another request
    with that key is refused (409 `idempotency_conflict`).
    """
    session, _ = await services.sessions.create(caller, body.request(), idempotency_key)
    response.headers["Location"] = f"/api/v1/sessions/{session.session_id}"
    return view(session, services, caller)


@router.get("", response_model=SessionPage)
async def list_sessions(
    caller: CurrentCaller,
    services: Injected,
    status: Annotated[Literal["creating", "ready", "running", "terminated", "error"] | None, Query()] = None,
    project_id: Annotated[str | None, Query(max_length=255)] = None,
    user_id: Annotated[str | None, Query(max_length=100)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(max_length=500)] = None,
) -> Any:
    """Sessions, newest first. Users see their own, admins all."""
    filters = {"status": status, "project_id": project_id, "user_id": user_id}
    sessions, more = await services.sessions.list_page(caller, filters, limit, cursor)
    return {"items": [view(session, services, caller) for session in sessions], "next_cursor": more}


@router.get("/events", response_class=EventSourceResponse)
async def sessions_events(caller: CurrentCaller, services: Injected) -> Response:
    """Follow the caller's sessions: `session` events hold a session as `GET` gives it, `gone` its `session_id` alone.

    The stream begins with all sessions that are not terminated. It holds states and not a history, so a client that
    connects again, with or without `Last-Event-ID`, has everything once it has read the beginning.
    """
    return event_stream(_changes(caller, services))


async def _changes(caller: Caller, services: Services) -> AsyncIterator[bytes]:
    number = 0
    async for changes in services.feed.follow(caller):
        encoded = []
        for change in changes:
            number += 1
            if change.session is None:
                encoded.append(encode_event("gone", {"session_id": str(change.session_id)}, event_id=number))
            else:
                body = SessionView.model_validate(view(change.session, services, caller)).model_dump(mode="json")
                encoded.append(encode_event("session", body, event_id=number))
        # A client without sessions has to learn that it has read the beginning.
        yield b"".join(encoded) or encode_id(number)


@router.get("/{session_id}", response_model=SessionView)
async def get_session(session_id: UUID, caller: CurrentCaller, services: Injected) -> Any:
    """One session."""
    return view(await services.sessions.get(caller, session_id), services, caller)


@router.delete("/{session_id}", status_code=202, response_model=SessionView)
async def terminate_session(session_id: UUID, caller: CurrentCaller, services: Injected) -> Any:
    """Terminate the session and remove its containers, network and volumes. May be repeated."""
    return view(await services.sessions.terminate(caller, session_id), services, caller)


@router.post("/{session_id}/relaunch", status_code=202, response_model=SessionView)
async def relaunch_session(
    session_id: UUID, caller: CurrentCaller, services: Injected, body: Relaunch | None = None
) -> Any:
    """Run the launch pipeline again in the same session, with the current version of the project."""
    asked = body or Relaunch()
    session = await services.sessions.relaunch(caller, session_id, asked.pipeline_run_id, asked.memory_mb)
    return view(session, services, caller)


@router.post("/{session_id}/recover", status_code=202, response_model=SessionView)
async def recover_session(session_id: UUID, caller: CurrentCaller, services: Injected) -> Any:
    """Recover a session: create missing containers on its volumes, keep running ones, and start the apps."""
    return view(await services.sessions.relaunch(caller, session_id), services, caller)


@router.post("/{session_id}/renew", response_model=SessionView)
async def renew_session(session_id: UUID, body: Renewal, caller: CurrentCaller, services: Injected) -> Any:
    """Postpone the expiry of the session."""
    return view(await services.sessions.renew(caller, session_id, body.seconds), services, caller)


@router.get("/{session_id}/pipeline-log", response_class=PlainTextResponse)
async def pipeline_log(session_id: UUID, caller: CurrentCaller, services: Injected) -> str:
    """The log of all launches of the session as text."""
    return await services.sessions.pipeline_log(caller, session_id)


@router.get("/{session_id}/stats")
async def stats(session_id: UUID, caller: CurrentCaller, services: Injected) -> dict[str, Any]:
    """Resource usage of each role's container, measured inside it."""
    session = await services.sessions.get(caller, session_id)
    return {"roles": await services.sessions.stats(session)}


@router.get("/{session_id}/stats/history")
async def stats_history(
    session_id: UUID,
    caller: CurrentCaller,
    services: Injected,
    seconds: Annotated[int, Query(ge=1, le=3600, description="How far back")] = 3600,
) -> dict[str, Any]:
    """Resource usage of each role's container over the last hour, as `{"roles": {role: [measurement]}}`, oldest first.

    A measurement is `{time, cpu_seconds, memory_bytes, disk_used_bytes, network_received_bytes, network_sent_bytes}`;
    `time` is in seconds since 1970, processor time and network count from the start of the container.
    """
    session = await services.sessions.get(caller, session_id)
    since = time.time() - seconds
    roles = await services.sessions.stats_history(session)
    return {"roles": {role: [it for it in samples if it["time"] >= since] for role, samples in roles.items()}}
