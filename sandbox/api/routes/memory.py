"""`/api/v1/memory/{namespace}/{key}`: shared memory of the platform's agents (admin)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import Field

from sandbox.api.http.auth import CurrentAdmin
from sandbox.api.http.pages import Page
from sandbox.api.http.record_models import Body, JsonValue, Name, TimedQuery, View, Writable, answer_page
from sandbox.api.http.services import Injected
from sandbox.errors import NotFound
from sandbox.knowledge import store

router = APIRouter(prefix="/api/v1/memory", tags=["memory"])

MAX_TTL_SECONDS = 10 * 365 * 86_400
Namespace = Annotated[Name, Path(min_length=1, max_length=100)]
Key = Annotated[str, Path(min_length=1, max_length=255), Writable]


class Memory(Body):
    value: JsonValue = Field(description="Any JSON value of at most 64 KiB")
    agent_name: Name | None = None
    ttl_seconds: int | None = Field(
        None, ge=1, le=MAX_TTL_SECONDS, description="The entry expires after this time; default never"
    )
    if_version: int | None = Field(
        None, ge=0, le=2**63 - 1, description="Write only if the entry has this version; 0: only if it does not exist"
    )


class MemoryView(View):
    namespace: str
    key: str
    value: Any
    version: int = Field(description="Incremented by each write")
    agent_name: str | None
    expires_at: datetime | None
    created_at: datetime
    updated_at: datetime


class MemoryQuery(TimedQuery):
    q: Annotated[str, Writable] | None = Field(
        None, min_length=1, max_length=500, description="Full-text query over key and value"
    )


@router.get("/{namespace}")
async def list_memory(
    namespace: Namespace, _: CurrentAdmin, services: Injected, query: Annotated[MemoryQuery, Query()]
) -> Page[MemoryView]:
    """The entries of a namespace, the last written first."""
    where = [store.NOT_EXPIRED] + ([store.memory_matching(query.q)] if query.q else [])
    page = await answer_page(store.MEMORY, services.db, query, where=where, equal={"namespace": namespace})
    return Page.model_validate(page)


@router.get("/{namespace}/{key:path}")
async def recall(namespace: Namespace, key: Key, _: CurrentAdmin, services: Injected) -> MemoryView:
    """One entry."""
    row = await store.read_memory(services.db, namespace, key)
    if row is None:
        raise _missing(namespace, key)
    return MemoryView.model_validate(row)


@router.put("/{namespace}/{key:path}")
async def remember(namespace: Namespace, key: Key, body: Memory, _: CurrentAdmin, services: Injected) -> MemoryView:
    """Write an entry; `if_version` makes it compare-and-set (409 `memory_version_conflict`)."""
    values = body.model_dump(exclude={"if_version"}) | {"namespace": namespace, "key": key}
    return MemoryView.model_validate(await store.write_memory(services.db, values, body.if_version))


@router.delete("/{namespace}/{key:path}", status_code=204)
async def forget(namespace: Namespace, key: Key, _: CurrentAdmin, services: Injected) -> None:
    """Delete an entry."""
    if not await store.delete_memory(services.db, namespace, key):
        raise _missing(namespace, key)


def _missing(namespace: str, key: str) -> NotFound:
    return NotFound(f"There is no memory entry {namespace}/{key}.", code="memory_not_found")
