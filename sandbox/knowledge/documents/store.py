"""SQL of documents and their chunks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from sandbox.db.connection import Database
from sandbox.db.tables import Condition, Row, Table
from sandbox.db.user_space import require_space
from sandbox.knowledge.documents.chunks import Chunk
from sandbox.knowledge.documents.reading import Document

DOCUMENTS = Table(
    "documents",
    (
        "document_id",
        "user_id",
        "title",
        "source",
        "content_type",
        "content_hash",
        "version",
        "metadata",
        "created_at",
        "updated_at",
    ),
    time="created_at",
    keys={"document_id": "uuid"},
)
_LOCK_SOURCE = text("SELECT pg_advisory_xact_lock(hashtextextended('document ' || :owner || ' ' || :source, 0))")
_BY_SOURCE = text("""
    SELECT document_id, content_hash FROM documents
     WHERE source = :source AND user_id IS NOT DISTINCT FROM :user_id
     ORDER BY created_at DESC LIMIT 1 FOR UPDATE
""")
#: Bytes of a user's documents, without the one that is replaced.
_TEXT_OF_USER = text("""
    SELECT coalesce(sum(octet_length(content)), 0) FROM documents
     WHERE user_id = :user_id AND document_id IS DISTINCT FROM CAST(:replaced AS uuid)
""")
_REPLACE = text(f"""
    UPDATE documents
       SET title = :title, content_type = :content_type, metadata = :metadata, content = :content,
           content_hash = :content_hash, version = version + CAST(:changed AS integer)
     WHERE document_id = :document_id
    RETURNING {", ".join(DOCUMENTS.columns)}
""")
#: Words of the query in a highlight stand between these, which are taken out of the text itself.
MARK = "**"
_SEARCH = text(f"""
    SELECT found.*, ts_headline('english', replace(found.content, '{MARK}', ''), query,
                                'StartSel={MARK}, StopSel={MARK}, MaxFragments=2, MaxWords=30, MinWords=10,'
                                ' FragmentDelimiter=" … "') AS highlight
      FROM websearch_to_tsquery('english', :q) AS query,
           LATERAL (
               SELECT chunk.document_id, document.title, document.source, chunk.position, chunk.heading, chunk.content,
                      ts_rank_cd(chunk.search, query) AS rank, chunk.chunk_id
                 FROM document_chunks AS chunk JOIN documents AS document USING (document_id)
                WHERE chunk.search @@ query
                  AND (:everyone OR document.user_id IS NULL OR document.user_id = :user_id)
                  AND document.metadata @> CAST(:metadata AS jsonb)
                ORDER BY rank DESC, chunk.chunk_id DESC
                LIMIT :limit) AS found
     ORDER BY found.rank DESC, found.chunk_id DESC
""")
#: Candidates of each ranking, and the constant of reciprocal rank fusion.
CANDIDATES = 50
RRF = 60
#: More dimensions than this have no index: PostgreSQL compares every vector.
MAX_INDEXED = 2_000
_HAS_EMBEDDINGS = text("""
    SELECT EXISTS (SELECT FROM information_schema.columns
                    WHERE table_schema = current_schema() AND table_name = 'document_chunks'
                      AND column_name = 'embedding')
""")
_TO_EMBED = text("""
    SELECT chunk_id, heading, content FROM document_chunks
     WHERE embedding_model IS DISTINCT FROM :model ORDER BY chunk_id LIMIT :limit
""")
#: A chunk that was replaced meanwhile is not there any more.
_SET_EMBEDDING = text("""
    UPDATE document_chunks SET embedding = CAST(:vector AS vector), embedding_model = :model WHERE chunk_id = :chunk_id
""")
_HYBRID = """
    WITH visible AS NOT MATERIALIZED (
        SELECT chunk.*, document.title, document.source
          FROM document_chunks AS chunk JOIN documents AS document USING (document_id)
         WHERE (:everyone OR document.user_id IS NULL OR document.user_id = :user_id)
           AND document.metadata @> CAST(:metadata AS jsonb)),
    words AS (
        SELECT chunk_id, row_number() OVER (ORDER BY ts_rank_cd(search, query) DESC, chunk_id DESC) AS place
          FROM websearch_to_tsquery('english', :q) AS query, visible
         WHERE search @@ query ORDER BY place LIMIT {candidates}),
    nearest AS (
        SELECT chunk_id, CAST(embedding AS vector({dimensions})) <=> CAST(:vector AS vector({dimensions})) AS distance
          FROM visible
         WHERE vector_dims(embedding) = {dimensions} AND embedding_model = :model
         ORDER BY distance LIMIT {candidates}),
    meaning AS (SELECT chunk_id, row_number() OVER (ORDER BY distance, chunk_id DESC) AS place FROM nearest),
    fused AS (
        SELECT chunk_id, coalesce(1.0 / ({rrf} + words.place), 0) + coalesce(1.0 / ({rrf} + meaning.place), 0) AS rank
          FROM words FULL JOIN meaning USING (chunk_id) ORDER BY rank DESC, chunk_id DESC LIMIT :limit)
    SELECT visible.document_id, title, source, position, heading, content, CAST(rank AS double precision) AS rank,
           ts_headline('english', replace(content, '{mark}', ''), websearch_to_tsquery('english', :q),
                       'StartSel={mark}, StopSel={mark}, MaxFragments=2, MaxWords=30, MinWords=10,'
                       ' FragmentDelimiter=" … "') AS highlight
      FROM fused JOIN visible USING (chunk_id) ORDER BY rank DESC, chunk_id DESC
"""
_CONTENT = text(f"""
    SELECT {", ".join(DOCUMENTS.columns)}, content FROM documents
     WHERE document_id = :document_id AND (:everyone OR user_id IS NULL OR user_id = :user_id)
""")
_DELETE_DOCUMENT = text("""
    DELETE FROM documents WHERE document_id = :document_id AND (:everyone OR user_id = :user_id) RETURNING 1
""")


def visible_to(user_id: str) -> Condition:
    """The condition for documents of this user and of the platform itself."""
    return "(user_id IS NULL OR user_id = :owner)", {"owner": user_id}


def with_metadata(metadata: Mapping[str, Any]) -> Condition:
    """The condition for documents whose metadata contain these."""
    return "metadata @> CAST(:metadata AS jsonb)", {"metadata": Jsonb(dict(metadata))}


def documents_matching(query: str) -> Condition:
    """The condition for documents with a chunk that matches the query."""
    condition = (
        "EXISTS (SELECT FROM document_chunks AS chunk WHERE chunk.document_id = documents.document_id"
        " AND chunk.search @@ websearch_to_tsquery('english', :words))"
    )
    return condition, {"words": query}


async def put_document(
    db: Database, user_id: str | None, values: Mapping[str, Any], document: Document, bytes_per_user: int
) -> tuple[Row, bool]:
    """Store a document with its chunks; returns its row, and whether it is new.

    A document of the same owner and source is replaced, in one transaction: a search finds the chunks of one version.
    Its version rises if the content has changed. Raises SandboxError `storage_limit` if this user's documents would
    exceed `bytes_per_user`; 0 means no limit.
    """
    hashed = hashlib.sha256(document.content.encode()).hexdigest()
    stored = dict(values) | {"content": document.content, "content_hash": hashed}
    async with db.transaction() as connection:
        known = None
        if stored.get("source") is not None:
            await connection.execute(_LOCK_SOURCE, {"owner": user_id or "", "source": stored["source"]})
            known = (
                await connection.execute(_BY_SOURCE, {"source": stored["source"], "user_id": user_id})
            ).one_or_none()
        if user_id is not None:
            owned = {"user_id": user_id, "replaced": known.document_id if known else None}
            size = len(document.content.encode())
            await require_space(connection, "documents", _TEXT_OF_USER, owned, added=size, limit=bytes_per_user)
        if known is None:
            row = await DOCUMENTS.insert(connection, stored | {"user_id": user_id})
            await _write_chunks(connection, row["document_id"], document.chunks)
            return row, True
        changed = known.content_hash != stored["content_hash"]
        bound = {key: value for key, value in stored.items() if key != "source"}
        bound |= {"document_id": known.document_id, "changed": int(changed), "metadata": Jsonb(stored["metadata"])}
        row = dict((await connection.execute(_REPLACE, bound)).mappings().one())
        if changed:
            delete_chunks = text("DELETE FROM document_chunks WHERE document_id = :id")
            await connection.execute(delete_chunks, {"id": known.document_id})
            await _write_chunks(connection, known.document_id, document.chunks)
        return row, False


async def _write_chunks(connection: AsyncConnection, document_id: UUID, chunks: Sequence[Chunk]) -> None:
    rows = [
        {"document_id": document_id, "position": position, "heading": chunk.heading, "content": chunk.content}
        for position, chunk in enumerate(chunks)
    ]
    if rows:
        statement = text(
            "INSERT INTO document_chunks (document_id, position, heading, content) "
            "VALUES (:document_id, :position, :heading, :content)"
        )
        await connection.execute(statement, rows)


async def read_document(db: Database, document_id: UUID, user_id: str | None) -> Row | None:
    """A document with its content; with `user_id` only if this user may see it."""
    values = {"document_id": document_id, "user_id": user_id, "everyone": user_id is None}
    async with db.read() as connection:
        row = (await connection.execute(_CONTENT, values)).mappings().first()
        return dict(row) if row else None


async def delete_document(db: Database, document_id: UUID, user_id: str | None) -> bool:
    """Delete a document, with `user_id` only if it is this user's; returns whether there was one."""
    values = {"document_id": document_id, "user_id": user_id, "everyone": user_id is None}
    async with db.transaction() as connection:
        return (await connection.execute(_DELETE_DOCUMENT, values)).first() is not None


async def search_chunks(
    db: Database, query: str, user_id: str | None, metadata: Mapping[str, Any], limit: int
) -> list[Row]:
    """Chunks that match the query, the best match first, with the words of the query marked in `highlight`.

    With `user_id` only of documents that this user may see. The document's metadata contain `metadata`.
    """
    values = {
        "q": query,
        "user_id": user_id,
        "everyone": user_id is None,
        "metadata": Jsonb(dict(metadata)),
        "limit": limit,
    }
    async with db.read() as connection:
        return [dict(row) for row in (await connection.execute(_SEARCH, values)).mappings()]


async def has_embeddings(db: Database) -> bool:
    """Whether chunks can have embeddings: pgvector was there when the table was made."""
    async with db.read() as connection:
        return bool((await connection.execute(_HAS_EMBEDDINGS)).scalar_one())


async def chunks_to_embed(db: Database, model: str, limit: int) -> list[Row]:
    """Chunks (chunk_id, heading, content) without an embedding of this model."""
    async with db.read() as connection:
        return [dict(row) for row in (await connection.execute(_TO_EMBED, {"model": model, "limit": limit})).mappings()]


async def set_embeddings(
    db: Database, chunk_ids: Sequence[int], vectors: Sequence[Sequence[float]], model: str
) -> None:
    """Store the embeddings of chunks."""
    values = [
        {"chunk_id": chunk_id, "vector": _vector(vector), "model": model}
        for chunk_id, vector in zip(chunk_ids, vectors, strict=True)
    ]
    async with db.transaction() as connection:
        await connection.execute(_SET_EMBEDDING, values)


async def ensure_vector_index(db: Database, dimensions: int) -> None:
    """Make the index for vectors of this length, if there is none and there can be one."""
    if dimensions > MAX_INDEXED:
        return
    statement = text(
        f"CREATE INDEX CONCURRENTLY IF NOT EXISTS document_chunks_vector_{dimensions}_idx ON document_chunks"
        f" USING hnsw (CAST(embedding AS vector({dimensions})) vector_cosine_ops)"
        f" WHERE vector_dims(embedding) = {dimensions}"
    )
    async with db.read() as connection:
        await connection.execute(statement)


async def search_hybrid(
    db: Database,
    query: str,
    vector: Sequence[float],
    model: str,
    user_id: str | None,
    metadata: Mapping[str, Any],
    limit: int,
) -> list[Row]:
    """Chunks that match the query by words or are near its embedding, the best of both first. See `search_chunks`."""
    statement = _HYBRID.format(dimensions=len(vector), candidates=CANDIDATES, rrf=RRF, mark=MARK)
    values = {
        "q": query,
        "vector": _vector(vector),
        "model": model,
        "user_id": user_id,
        "everyone": user_id is None,
        "metadata": Jsonb(dict(metadata)),
        "limit": limit,
    }
    async with db.read() as connection:
        return [dict(row) for row in (await connection.execute(text(statement), values)).mappings()]


def _vector(values: Sequence[float]) -> str:
    return f"[{','.join(repr(value) for value in values)}]"
