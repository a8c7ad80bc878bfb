"""`/api/v1/agents`: the platform's agents and infrastructure components, and their health."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from pydantic import Field

from sandbox.api.http.auth import AdminRequired, CurrentAdmin, CurrentCaller
from sandbox.api.http.pages import Page
from sandbox.api.http.record_models import (
    Body,
    Int,
    JsonObject,
    LongName,
    Name,
    Percent,
    ShortName,
    Signature,
    TimedQuery,
    View,
    answer_page,
)
from sandbox.api.http.services import Injected
from sandbox.errors import NotFound
from sandbox.learning import prompts
from sandbox.learning.prompts import DEFAULT_CHARACTERS, DEFAULT_LESSONS, About, Budget
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


class PromptQuery(Body):
    """What the run is about, and how much room the prompt has. What is left out excludes no lesson."""

    runtime: ShortName | None = Field(None, description="Runtime of the project, such as python312")
    framework: ShortName | None = None
    project_id: LongName | None = None
    signature: Signature | None = Field(None, description="Normalised signature of a failure of the run before")
    pipeline_run_id: LongName | None = Field(
        None, description="Record the lessons as applied to this run, and withhold some by lot to measure them (admin)"
    )
    limit: int = Field(DEFAULT_LESSONS, ge=1, le=100, description="Maximum number of lessons")
    max_characters: int = Field(DEFAULT_CHARACTERS, ge=100, le=100_000, description="Maximum length of the text")


class PromptLesson(View):
    id: int
    lesson_text: str
    severity: str
    category: str
    source_issue_type: str | None


class PromptLessons(View):
    agent_name: str
    lesson_ids: list[int]
    lessons: list[PromptLesson]
    withheld_ids: list[int] = Field(description="Lessons that the lot withheld from this run")
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
    name: AgentName, caller: CurrentCaller, services: Injected, query: Annotated[PromptQuery, Query()]
) -> PromptLessons:
    """The agent's lessons for such a run as text for its prompt: the best fitting, most severe and most effective."""
    about = About(query.runtime, query.framework, query.project_id, query.signature)
    budget = Budget(query.limit, query.max_characters)
    if query.pipeline_run_id is None:
        prompt = await prompts.for_prompt(services.db, name, about, budget, everything=caller.is_admin)
    elif caller.is_admin:
        prompt = await prompts.for_run(
            services.db,
            name,
            about,
            budget,
            pipeline_run_id=query.pipeline_run_id,
            withheld_percent=services.settings.lessons_withheld_percent,
        )
    else:
        raise AdminRequired("Only an admin may record lessons as applied.", hint="Leave `pipeline_run_id` out.")
    return PromptLessons(
        agent_name=name,
        lesson_ids=[lesson["id"] for lesson in prompt.lessons],
        lessons=[PromptLesson.model_validate(lesson) for lesson in prompt.lessons],
        withheld_ids=list(prompt.withheld),
        text=prompt.text,
    )
