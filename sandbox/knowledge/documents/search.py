"""Search in documents: by words, and by meaning as well where embeddings are configured and pgvector is installed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sandbox.db.connection import Database
from sandbox.db.periodic import Periodic
from sandbox.db.tables import Row
from sandbox.knowledge.documents import store
from sandbox.knowledge.documents.embeddings import (
    CHUNKS_SECONDS,
    QUERY_SECONDS,
    EmbeddingModel,
    EmbeddingsUnavailable,
)

log = logging.getLogger(__name__)

#: How often chunks without an embedding are looked for, and how many are embedded in one request.
INDEX_SECONDS = 10.0
BATCH = 64


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found, and how."""

    chunks: list[Row]
    mode: Literal["words", "hybrid"]


class DocumentSearch:
    """Searches, and keeps the embeddings of chunks up to date. One replica at a time embeds."""

    def __init__(self, db: Database, model: EmbeddingModel | None = None) -> None:
        """Without a model, searches use words only."""
        self._db = db
        self._model = model
        self._indexing = Periodic(db, "embeddings", INDEX_SECONDS, self.index)

    async def start(self) -> None:
        if self._model is not None and not await store.has_embeddings(self._db):
            log.warning("searches use words only: pgvector was not installed when the tables of documents were made")
            self._model = None
        if self._model is not None:
            self._indexing.start()

    async def close(self) -> None:
        await self._indexing.close()

    async def search(self, query: str, user_id: str | None, metadata: Mapping[str, Any], limit: int) -> Found:
        """The chunks that match best; with `user_id` only of documents that this user may see.

        The two rankings are combined by reciprocal ranks. If the endpoint does not answer, the search uses words only.
        """
        if self._model is not None:
            try:
                (vector,) = await self._model.embed([query], timeout_seconds=QUERY_SECONDS)
            except EmbeddingsUnavailable as error:
                log.warning("a search uses words only: %s", error)
            else:
                chunks = await store.search_hybrid(self._db, query, vector, self._model.name, user_id, metadata, limit)
                return Found(chunks, "hybrid")
        return Found(await store.search_chunks(self._db, query, user_id, metadata, limit), "words")

    async def index(self) -> None:
        """Embed the chunks that have no embedding of the model yet. Raises EmbeddingsUnavailable."""
        if self._model is None:
            return
        while chunks := await store.chunks_to_embed(self._db, self._model.name, BATCH):
            texts = [
                f"{chunk['heading']}\n\n{chunk['content']}" if chunk["heading"] else chunk["content"]
                for chunk in chunks
            ]
            vectors = await self._model.embed(texts, timeout_seconds=CHUNKS_SECONDS)
            await store.set_embeddings(self._db, [chunk["chunk_id"] for chunk in chunks], vectors, self._model.name)
            await store.ensure_vector_index(self._db, len(vectors[0]))
