"""`/api/v1/analytics/{name}`: the documented questions."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from sandbox.api.http.auth import AdminRequired, CurrentCaller
from sandbox.api.http.record_models import Body, View
from sandbox.api.http.services import Injected
from sandbox.records import saved_queries

router = APIRouter(prefix="/api/v1/analytics", tags=["analytics"])


class QuestionView(View):
    name: str
    title: str
    window: str | None = Field(description="The documented span of time; null where there is none")
    admin_only: bool


class AnswerView(View):
    name: str
    title: str
    window: str | None
    items: list[dict[str, Any]] = Field(description="The rows, with the documented column names")


@router.get("")
async def list_questions(_: CurrentCaller) -> list[QuestionView]:
    """The questions there are."""
    return [
        QuestionView(name=name, title=question.title, window=question.window, admin_only=question.admin)
        for name, question in saved_queries.QUESTIONS.items()
    ]


class Asked(Body):
    window: str | None = Field(
        None,
        min_length=1,
        max_length=20,
        description="Up to now: 90s, 30m, 12h or 7d, ten years at most; without it the documented one",
    )


@router.get("/{name}")
async def ask(name: str, caller: CurrentCaller, services: Injected, query: Annotated[Asked, Query()]) -> AnswerView:
    """Ask one. `recent-error-logs` and `slow-traces` show what everybody did, and are for admins (403 to others)."""
    question = saved_queries.find(name)
    if question.admin and not caller.is_admin:
        raise AdminRequired("This question shows what everybody did.", hint="Call with an admin's token.")
    items = await saved_queries.answer(services.db, question, query.window)
    return AnswerView(name=name, title=question.title, window=query.window or question.window, items=items)
