"""`/api/v1/analytics/{name}`: saved queries over the records."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from sandbox.api.http.auth import AdminRequired, CurrentCaller
from sandbox.api.http.record_models import Body, View
from sandbox.api.http.services import Injected
from sandbox.records import saved_queries

router = APIRouter(prefix="/api/v1/analytics", tags=["analytics"])


class SavedQueryView(View):
    name: str
    title: str
    window: str | None = Field(description="The default period, ending now; null if the query has none")
    admin_only: bool


class SavedQueryResult(View):
    name: str
    title: str
    window: str | None
    items: list[dict[str, Any]] = Field(description="The rows, with the documented column names")


@router.get("")
async def list_saved_queries(_: CurrentCaller) -> list[SavedQueryView]:
    """The saved queries."""
    return [
        SavedQueryView(name=name, title=saved_query.title, window=saved_query.window, admin_only=saved_query.admin)
        for name, saved_query in saved_queries.SAVED_QUERIES.items()
    ]


class SavedQueryParameters(Body):
    window: str | None = Field(
        None,
        min_length=1,
        max_length=20,
        description="The period, ending now: 90s, 30m, 12h or 7d, ten years at most; default the documented one",
    )


@router.get("/{name}")
async def run_saved_query(
    name: str, caller: CurrentCaller, services: Injected, query: Annotated[SavedQueryParameters, Query()]
) -> SavedQueryResult:
    """Run a saved query. `recent-error-logs` and `slow-traces` show the data of all users, so they are for admins."""
    saved_query = saved_queries.find(name)
    if saved_query.admin and not caller.is_admin:
        raise AdminRequired("This query shows the data of all users.", hint="Call with an admin's token.")
    items = await saved_queries.run(services.db, saved_query, query.window)
    return SavedQueryResult(name=name, title=saved_query.title, window=query.window or saved_query.window, items=items)
