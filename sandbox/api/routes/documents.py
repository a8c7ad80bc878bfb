"""`/api/v1/documents`: documents for retrieval by the platform's agents."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from sandbox.api.http.auth import AdminRequired, CurrentCaller
from sandbox.api.http.pages import Page
from sandbox.api.http.record_models import (
    Body,
    JsonObject,
    Name,
    TimedQuery,
    View,
    Writable,
    answer_page,
    writable_json,
)
from sandbox.api.http.services import Injected, Services
from sandbox.api.http.uploads import received_report
from sandbox.domain.caller import Caller
from sandbox.errors import NotFound
from sandbox.knowledge.documents import store
from sandbox.knowledge.documents.formats import media_type
from sandbox.knowledge.documents.reading import Document


def _json_object(value: str) -> str:
    """Refuse what is not a JSON object that can be stored."""
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    if not isinstance(parsed, dict):
        raise ValueError("is not a JSON object")  # noqa: TRY004 - pydantic answers 422 to ValueError
    writable_json(parsed)
    return value


#: A JSON object as the text of a query parameter.
JsonText = Annotated[
    str,
    Field(max_length=4_000, description='A JSON object, such as `{"team": "a"}`'),
    AfterValidator(_json_object),
]

router = APIRouter(prefix="/api/v1/documents", tags=["documents"])

Source = Annotated[str, Field(min_length=1, max_length=1000), Writable]
Words = Annotated[str, Field(min_length=1, max_length=500), Writable]


class NewDocument(Body):
    title: Annotated[str, Field(min_length=1, max_length=500), Writable]
    content: Annotated[str, Writable] = Field(min_length=1, description="Text; Markdown headings become chunk headings")
    source: Source | None = Field(
        None, description="Where the document is from; it replaces one of the same owner and source"
    )
    content_type: Name = "text/plain"
    metadata: JsonObject = Field(default_factory=dict)
    shared: bool = Field(False, description="Belongs to the platform and is visible to all users (admin)")


class FileQuery(BaseModel):
    """The query parameters of an uploaded file."""

    model_config = ConfigDict(extra="forbid")

    title: Annotated[str, Field(min_length=1, max_length=500), Writable]
    source: Source | None = Field(None, description="Where it is from; it replaces one of the same owner and source")
    metadata: JsonText | None = None
    shared: bool = False


class DocumentView(View):
    document_id: UUID
    user_id: str | None = Field(description="The owner; null for documents of the platform")
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
    highlight: str = Field(description="Passages of the chunk with the words of the query between `**`")
    rank: float


class FoundView(View):
    items: list[ChunkView]
    mode: Literal["words", "hybrid"] = Field(
        description="`hybrid`: by words and by meaning, where embeddings are configured; otherwise by words"
    )


class DocumentQuery(TimedQuery):
    source: Source | None = None
    metadata: JsonText | None = None
    q: Words | None = Field(None, description="Full-text query: documents with these words")


@router.get("")
async def list_documents(
    caller: CurrentCaller, services: Injected, query: Annotated[DocumentQuery, Query()]
) -> Page[DocumentView]:
    """Documents, newest first. Users see their own and the platform's, admins all."""
    where = [] if caller.is_admin else [store.visible_to(caller.user_id)]
    if query.q:
        where.append(store.documents_matching(query.q))
    if query.metadata:
        where.append(store.with_metadata(json.loads(query.metadata)))
    page = await answer_page(store.DOCUMENTS, services.db, query, where=where, besides={"metadata"})
    return Page.model_validate(page)


@router.get("/search")
async def search_documents(
    caller: CurrentCaller,
    services: Injected,
    q: Annotated[Words, Query()],
    metadata: Annotated[JsonText | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
) -> FoundView:
    """The chunks of documents that match best, to be put into a prompt."""
    found = await services.search.search(q, _user_filter(caller), json.loads(metadata or "{}"), limit)
    return FoundView(items=[ChunkView.model_validate(row) for row in found.chunks], mode=found.mode)


@router.post("", status_code=201, responses={200: {"model": DocumentView, "description": "It replaced a document"}})
async def put_document(
    body: NewDocument, caller: CurrentCaller, services: Injected, response: Response
) -> DocumentView:
    """Store a document: 201 if it is new, 200 if it replaced the one from the same source.

    A page of HTML (`content_type: text/html`) is stored as Markdown; every other content is taken for text or Markdown.
    """
    kind = media_type(body.content_type)
    kind = kind if kind == "text/html" else "text/markdown"
    document = await services.documents.read(caller.user_id, body.content, kind)
    values = body.model_dump(exclude={"shared", "content"})
    return await _stored(services, caller, response, values, document, shared=body.shared)


@router.post(
    "/files", status_code=201, responses={200: {"model": DocumentView, "description": "It replaced a document"}}
)
async def put_file(
    request: Request,
    caller: CurrentCaller,
    services: Injected,
    response: Response,
    query: Annotated[FileQuery, Query()],
) -> DocumentView:
    """Store a file as a document: text, Markdown, HTML or PDF, by its `Content-Type`. The body is the file.

    It is stored as Markdown; the chunks of a PDF have the number of their page as a heading.
    """
    async with received_report(request, services.settings.max_intake_mb * 1024 * 1024) as upload:
        content_type = media_type(upload.content_type)
        document = await services.documents.read(caller.user_id, upload.file, content_type)
    values = {
        "title": query.title,
        "source": query.source,
        "metadata": json.loads(query.metadata or "{}"),
        "content_type": content_type,
    }
    return await _stored(services, caller, response, values, document, shared=query.shared)


async def _stored(
    services: Services,
    caller: Caller,
    response: Response,
    values: dict[str, Any],
    document: Document,
    *,
    shared: bool,
) -> DocumentView:
    if shared and not caller.is_admin:
        raise AdminRequired("Only an admin may add documents of the platform.", hint="Leave `shared` out.")
    limit = 0 if caller.is_admin else services.settings.documents_mb_per_user * 1024 * 1024
    row, new = await store.put_document(services.db, None if shared else caller.user_id, values, document, limit)
    response.status_code = 201 if new else 200
    return DocumentView.model_validate(row)


@router.get("/{document_id}")
async def get_document(document_id: UUID, caller: CurrentCaller, services: Injected) -> WholeDocument:
    """One document, with its content."""
    row = await store.read_document(services.db, document_id, _user_filter(caller))
    if row is None:
        raise _missing(document_id)
    return WholeDocument.model_validate(row)


@router.delete("/{document_id}", status_code=204)
async def delete_document(document_id: UUID, caller: CurrentCaller, services: Injected) -> None:
    """Delete a document; the platform's documents only as an admin."""
    if not await store.delete_document(services.db, document_id, _user_filter(caller)):
        raise _missing(document_id)


def _user_filter(caller: Caller) -> str | None:
    """The user whose documents the caller may use; None means all."""
    return None if caller.is_admin else caller.user_id


def _missing(document_id: UUID) -> NotFound:
    return NotFound(f"There is no document {document_id}.", code="document_not_found")
