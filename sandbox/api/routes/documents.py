"""`/api/v1/documents`: what agents look things up in."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import Field

from sandbox.api.http.auth import AdminRequired, CurrentCaller
from sandbox.api.http.pages import Page
from sandbox.api.http.record_models import Body, JsonObject, Name, TimedQuery, View, Writable, answer_page
from sandbox.api.http.services import Injected
from sandbox.domain.caller import Caller
from sandbox.errors import NotFound
from sandbox.knowledge import store

router = APIRouter(prefix="/api/v1/documents", tags=["documents"])

Source = Annotated[str, Field(min_length=1, max_length=1000), Writable]
Words = Annotated[str, Field(min_length=1, max_length=500), Writable]


class NewDocument(Body):
    title: Annotated[str, Field(min_length=1, max_length=500), Writable]
    content: Annotated[str, Writable] = Field(min_length=1, description="Text; Markdown headings become chunk headings")
    source: Source | None = Field(
        None, description="Where it is from; another of the same owner and source is replaced"
    )
    content_type: Name = "text/plain"
    metadata: JsonObject = Field(default_factory=dict)
    shared: bool = Field(False, description="The platform's own, seen by everybody (admin)")


class DocumentView(View):
    document_id: UUID
    user_id: str | None = Field(description="Null for documents of the platform itself")
    title: str
    source: str | None
    content_type: str
    content_hash: str
    version: int
    metadata: dict[str, Any]
    created_at: datetime
    updated_at: datetime


class WholeDocument(DocumentView):
    content: str


class ChunkView(View):
    document_id: UUID
    title: str
    source: str | None
    position: int
    heading: str | None
    content: str
    rank: float


class DocumentQuery(TimedQuery):
    source: Source | None = None
    q: Words | None = Field(None, description="Documents that have these words")


@router.get("")
async def list_documents(
    caller: CurrentCaller, services: Injected, query: Annotated[DocumentQuery, Query()]
) -> Page[DocumentView]:
    """Documents, newest first: an admin's all, a user's its own and the platform's."""
    where = [] if caller.is_admin else [store.visible_to(caller.user_id)]
    if query.q:
        where.append(store.documents_matching(query.q))
    return Page.model_validate(await answer_page(store.DOCUMENTS, services.db, query, where=where))


@router.get("/search")
async def search_documents(
    caller: CurrentCaller,
    services: Injected,
    q: Annotated[Words, Query()],
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
) -> dict[str, list[ChunkView]]:
    """The pieces of documents that fit best, for a prompt."""
    rows = await store.search_chunks(services.db, q, _only(caller), limit)
    return {"items": [ChunkView.model_validate(row) for row in rows]}


@router.post("", status_code=201, responses={200: {"model": DocumentView, "description": "It replaced another"}})
async def put_document(
    body: NewDocument, caller: CurrentCaller, services: Injected, response: Response
) -> DocumentView:
    """Keep a document: 201 if it is new, 200 if it replaced the one from the same source."""
    if body.shared and not caller.is_admin:
        raise AdminRequired("Only an admin may add documents of the platform.", hint="Leave `shared` out.")
    row, new = await store.put_document(
        services.db, None if body.shared else caller.user_id, body.model_dump(exclude={"shared"})
    )
    response.status_code = 201 if new else 200
    return DocumentView.model_validate(row)


@router.get("/{document_id}")
async def get_document(document_id: UUID, caller: CurrentCaller, services: Injected) -> WholeDocument:
    """One document, with its content."""
    row = await store.read_document(services.db, document_id, _only(caller))
    if row is None:
        raise _missing(document_id)
    return WholeDocument.model_validate(row)


@router.delete("/{document_id}", status_code=204)
async def delete_document(document_id: UUID, caller: CurrentCaller, services: Injected) -> None:
    """Remove a document; the platform's own only by an admin."""
    if not await store.delete_document(services.db, document_id, _only(caller)):
        raise _missing(document_id)


def _only(caller: Caller) -> str | None:
    return None if caller.is_admin else caller.user_id


def _missing(document_id: UUID) -> NotFound:
    return NotFound(f"There is no document {document_id}.", code="document_not_found")
