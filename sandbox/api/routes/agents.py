"""`/api/v1/agents`: the platform's agents and infrastructure components, and their health."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from pydantic import Field

from sandbox.api.http.auth import CurrentAdmin, CurrentCaller
from sandbox.api.http.pages import Page
from sandbox.api.http.record_models import Body, Int, JsonObject, Name, Percent, TimedQuery, View, answer_page
from sandbox.api.http.services import Injected
from sandbox.errors import NotFound
from sandbox.learning import lessons
from sandbox.records.agents import store

router = APIRouter(prefix="/api/v1/agents", tags=["agents"])

Category = Literal["core", "qa", "aiml", "enterprise", "infrastructure"]
Health = Literal["healthy", "warning", "error", "unknown"]
AgentName = Annotated[Name, Path(min_length=1, max_length=100)]


class AgentView(View):
    agent_id: int
    name: str
    category: Category
    status: Health
    uptime: float | None = Field(description="Percent")
    avg_response_time: int | None = Field(description="Milliseconds")
    success_rate: float | None = Field(description="Percent")
    last_active: datetime | None
    metadata: dict[str, Any] | None
    created_at: datetime | None
    updated_at: datetime | None


class Heartbeat(Body):
    """The health of an agent. Fields that are left out stay unchanged; `metadata` is merged with the stored one."""

    status: Health = "healthy"
    uptime: Percent | None = None
    avg_response_time: Int | None = None
    success_rate: Percent | None = None
    metadata: JsonObject | None = None
    category: Category | None = Field(None, description="Adds the agent if it is new")


class AgentQuery(TimedQuery):
    category: Category | None = None
    status: Health | None = None


class PromptLessons(View):
    agent_name: str
    lesson_ids: list[int]
    text: str = Field(description="Text for the agent's prompt; empty if there are no lessons")


@router.get("")
async def list_agents(_: CurrentCaller, services: Injected, query: Annotated[AgentQuery, Query()]) -> Page[AgentView]:
    """Agents, newest first; `from` and `to` refer to `last_active`."""
    return Page.model_validate(await answer_page(store.AGENTS, services.db, query))


@router.get("/{name}")
async def get_agent(name: AgentName, _: CurrentCaller, services: Injected) -> AgentView:
    """One agent."""
    row = await store.AGENTS.one(services.db, {"name": name})
    if row is None:
        raise NotFound(f"There is no agent {name}.", code="agent_not_found", hint="List them: GET /api/v1/agents.")
    return AgentView.model_validate(row)


@router.put("/{name}/heartbeat")
async def heartbeat(name: AgentName, body: Heartbeat, _: CurrentAdmin, services: Injected) -> AgentView:
    """Record the health of an agent (admin). An agent without heartbeats is marked after the configured time."""
    row = await store.heartbeat(services.db, name, body.category, body.model_dump(exclude={"category"}))
    return AgentView.model_validate(row)


@router.get("/{name}/prompt-lessons")
async def prompt_lessons(
    name: AgentName,
    _: CurrentCaller,
    services: Injected,
    limit: Annotated[int, Query(ge=1, le=100, description="Maximum number of lessons")] = 20,
) -> PromptLessons:
    """The agent's active lessons as text for its prompt, the most severe and most effective first."""
    chosen = await lessons.for_prompt(services.db, name, limit)
    return PromptLessons(agent_name=name, lesson_ids=[lesson["id"] for lesson in chosen], text=lessons.as_text(chosen))
