"""`/api/v1/memory/{namespace}/{key}`: the memory that the platform's agents share."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Response
from pydantic import Field

from sandbox.api.http.auth import CurrentCaller
from sandbox.api.http.pages import Page
from sandbox.api.http.record_models import Body, JsonValue, ListQuery, Name, TimedQuery, View, Writable, answer_page
from sandbox.api.http.services import Injected
from sandbox.errors import InvalidInput, Kind
from sandbox.knowledge.memory import store
from sandbox.knowledge.memory.service import Access, missing

router = APIRouter(prefix="/api/v1", tags=["memory"])

MAX_TTL_SECONDS = 10 * 365 * 86_400
Namespace = Annotated[Name, Path(min_length=1, max_length=100)]
Key = Annotated[str, Path(min_length=1, max_length=255), Writable]
IfMatch = Annotated[
    str | None, Header(max_length=100, description='Only if the entry has this version: `"3"`, as in `ETag`')
]
IfNoneMatch = Annotated[str | None, Header(max_length=100, description="`*`: only if the entry does not exist")]
_ETAG = re.compile(r'"(\d{1,18})"')


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
    written_by: str | None = Field(description="The user that wrote it last")
    expires_at: datetime | None
    created_at: datetime
    updated_at: datetime


class ChangeView(View):
    change_id: int
    version: int
    value: Any = Field(description="Null where the entry was removed")
    removed: bool
    agent_name: str | None
    written_by: str | None
    changed_at: datetime


class MemoryQuery(TimedQuery):
    q: Annotated[str, Writable] | None = Field(
        None, min_length=1, max_length=500, description="Full-text query over key and value"
    )
    prefix: Annotated[str, Writable] | None = Field(
        None, min_length=1, max_length=255, description="Only keys that begin so"
    )


class Sharing(Body):
    access: Access = Field(description="What users other than the owner may do: `none`, `read` or `write`")
    owner: Name | None = Field(None, description="Hand the namespace over to this user (admin)")


class NamespaceView(View):
    namespace: str
    owner: str
    access: Access
    created_at: datetime


@router.get("/memory-namespaces")
async def list_namespaces(
    caller: CurrentCaller, services: Injected, query: Annotated[ListQuery, Query()]
) -> Page[NamespaceView]:
    """Namespaces that have an owner and that the caller may read, by name, descending."""
    where = [] if caller.is_admin else [store.usable_by(caller.user_id)]
    return Page.model_validate(await answer_page(store.NAMESPACES, services.db, query, where=where))


@router.put("/memory-namespaces/{namespace}")
async def share_namespace(
    namespace: Namespace, body: Sharing, caller: CurrentCaller, services: Injected
) -> NamespaceView:
    """Set what others may do with a namespace (its owner, or an admin)."""
    return NamespaceView.model_validate(await services.memory.share(caller, namespace, body.access, body.owner))


@router.get("/memory-history/{namespace}/{key:path}")
async def list_changes(
    namespace: Namespace, key: Key, caller: CurrentCaller, services: Injected, query: Annotated[ListQuery, Query()]
) -> Page[ChangeView]:
    """The last fifty changes of an entry, newest first."""
    if not await services.memory.check_readable(caller, namespace):
        raise missing(namespace, key)
    page = await answer_page(store.HISTORY, services.db, query, equal={"namespace": namespace, "key": key})
    return Page.model_validate(page)


@router.get("/memory/{namespace}")
async def list_memory(
    namespace: Namespace, caller: CurrentCaller, services: Injected, query: Annotated[MemoryQuery, Query()]
) -> Page[MemoryView]:
    """The entries of a namespace, the last written first; none of a namespace that the caller may not read."""
    if not await services.memory.check_readable(caller, namespace):
        return Page.model_validate({"items": [], "next_cursor": None})
    where = [store.NOT_EXPIRED]
    where += [store.matching(query.q)] if query.q else []
    where += [store.beginning_with(query.prefix)] if query.prefix else []
    page = await answer_page(
        store.MEMORY, services.db, query, where=where, equal={"namespace": namespace}, besides={"prefix"}
    )
    return Page.model_validate(page)


@router.get("/memory/{namespace}/{key:path}")
async def recall(
    namespace: Namespace, key: Key, caller: CurrentCaller, services: Injected, response: Response
) -> MemoryView:
    """One entry. Its version is the `ETag`."""
    row = await services.memory.read(caller, namespace, key)
    response.headers["ETag"] = f'"{row["version"]}"'
    return MemoryView.model_validate(row)


@router.put("/memory/{namespace}/{key:path}")
async def remember(
    namespace: Namespace,
    key: Key,
    body: Memory,
    caller: CurrentCaller,
    services: Injected,
    response: Response,
    if_match: IfMatch = None,
    if_none_match: IfNoneMatch = None,
) -> MemoryView:
    """Write an entry. `If-Match` or `If-None-Match: *` make it compare-and-set (412 `memory_version_conflict`), and so
    does `if_version` (409)."""
    expected = 0 if if_none_match == "*" else _expected(if_match)
    kind = Kind.CONFLICT if expected is None else Kind.PRECONDITION
    row = await services.memory.write(
        caller,
        namespace,
        key,
        body.model_dump(exclude={"if_version"}),
        body.if_version if expected is None else expected,
        kind,
    )
    response.headers["ETag"] = f'"{row["version"]}"'
    return MemoryView.model_validate(row)


@router.delete("/memory/{namespace}/{key:path}", status_code=204)
async def forget(
    namespace: Namespace, key: Key, caller: CurrentCaller, services: Injected, if_match: IfMatch = None
) -> None:
    """Delete an entry, with `If-Match` only at that version (412 `memory_version_conflict`)."""
    await services.memory.remove(caller, namespace, key, _expected(if_match))


def _expected(if_match: str | None) -> int | None:
    """The version that `If-Match` names; None without the header. Raises InvalidInput."""
    if if_match is None:
        return None
    match = _ETAG.fullmatch(if_match.strip())
    if match is None or int(match[1]) == 0:
        raise InvalidInput(
            "If-Match does not name one version.",
            hint='Send the `ETag` of the entry, such as "3".',
            code="invalid_etag",
        )
    return int(match[1])
