"""Search by meaning: a fake endpoint whose embeddings are known, and its failures."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from sqlalchemy import text

from sandbox.db.connection import Database
from sandbox.knowledge.documents import store
from sandbox.knowledge.documents.embeddings import EmbeddingModel, EmbeddingsUnavailable
from sandbox.knowledge.documents.reading import read_document
from sandbox.knowledge.documents.search import DocumentSearch

#: Words with one meaning have one direction.
MEANINGS = (("car", "automobile", "vehicle"), ("cat", "kitten", "feline"))


@dataclass
class FakeEndpoint:
    """Embeds a text by the meanings that its words have."""

    url: str = ""
    status: int = 200
    raw: bytes | None = None
    inputs: list[str] = field(default_factory=list)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = next(int(line.split(":")[1]) for line in head.splitlines() if line.startswith("content-length"))
        asked = json.loads(await reader.readexactly(length))["input"]
        self.inputs += asked
        vectors = [
            [0.1] + [float(any(word in one.lower() for word in meaning)) for meaning in MEANINGS] for one in asked
        ]
        body = self.raw or json.dumps({"data": [{"embedding": vector} for vector in vectors]}).encode()
        writer.write(b"HTTP/1.1 %d x\r\nContent-Length: %d\r\n\r\n" % (self.status, len(body)) + body)
        await writer.drain()
        writer.close()


@pytest.fixture
async def endpoint() -> AsyncIterator[FakeEndpoint]:
    fake = FakeEndpoint()
    server = await asyncio.start_server(fake.handle, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    fake.url = f"http://{host}:{port}/v1"
    yield fake
    server.close()


async def put(database: Database, title: str, content: str, user_id: str | None = None, team: str = "a") -> None:
    values = {"title": title, "source": title, "content_type": "text/plain", "metadata": {"team": team}}
    await store.put_document(database, user_id, values, read_document(content, "text/plain"), 0)


async def titles(search: DocumentSearch, query: str, user_id: str | None = "ada", **metadata: str) -> list[str]:
    found = await search.search(query, user_id, metadata, 10)
    assert found.mode == "hybrid"
    return [chunk["title"] for chunk in found.chunks]


async def test_a_chunk_is_found_by_meaning_and_words_count_too(database: Database, endpoint: FakeEndpoint) -> None:
    await put(database, "cars", "The automobile needs oil.")
    await put(database, "cats", "The kitten sleeps.")
    await put(database, "both", "A vehicle is sometimes called a car.")
    await put(database, "bob's", "Another automobile.", user_id="bob")
    search = DocumentSearch(database, EmbeddingModel(endpoint.url, "small"))
    await search.index()
    assert await store.chunks_to_embed(database, "small", 10) == []
    assert (await titles(search, "car"))[:2] == ["both", "cars"]
    assert "bob's" not in await titles(search, "car")
    assert "bob's" in await titles(search, "car", None)
    assert await titles(search, "car", team="other") == []


async def test_a_replaced_document_is_embedded_anew(database: Database, endpoint: FakeEndpoint) -> None:
    search = DocumentSearch(database, EmbeddingModel(endpoint.url, "small"))
    await put(database, "doc", "A car.")
    await search.index()
    await put(database, "doc", "A cat.")
    await search.index()
    assert endpoint.inputs == ["A car.", "A cat."]
    await DocumentSearch(database, EmbeddingModel(endpoint.url, "large")).index()
    assert endpoint.inputs[2:] == ["A cat."]


async def test_the_index_serves_the_search(database: Database, endpoint: FakeEndpoint) -> None:
    await put(database, "doc", "A car.")
    await DocumentSearch(database, EmbeddingModel(endpoint.url, "small")).index()
    async with database.transaction() as connection:
        await connection.execute(text("SET LOCAL enable_seqscan = off"))
        plan = await connection.execute(
            text(
                "EXPLAIN SELECT chunk_id FROM document_chunks WHERE vector_dims(embedding) = 3"
                " ORDER BY CAST(embedding AS vector(3)) <=> CAST('[1,0,0]' AS vector(3)) LIMIT 5"
            )
        )
        assert "document_chunks_vector_3_idx" in "\n".join(row[0] for row in plan)


@pytest.mark.parametrize("raw", [b"{}", b'{"data": [{"embedding": []}]}', b'{"data": [{"embedding": [1e999]}]}'])
async def test_a_search_uses_words_if_the_endpoint_fails(
    database: Database, endpoint: FakeEndpoint, raw: bytes
) -> None:
    await put(database, "doc", "A car.")
    search = DocumentSearch(database, EmbeddingModel(endpoint.url, "small"))
    endpoint.raw = raw
    found = await search.search("car", None, {}, 10)
    assert (found.mode, [chunk["title"] for chunk in found.chunks]) == ("words", ["doc"])
    with pytest.raises(EmbeddingsUnavailable):
        await search.index()


async def test_a_database_without_pgvector_is_searched_by_words(database: Database, endpoint: FakeEndpoint) -> None:
    async with database.transaction() as connection:
        await connection.execute(text("ALTER TABLE document_chunks DROP COLUMN embedding, DROP COLUMN embedding_model"))
    await put(database, "cars", "The automobile needs oil.")
    search = DocumentSearch(database, EmbeddingModel(endpoint.url, "one"))
    await search.start()
    found = await search.search("automobile", "ada", {}, 10)
    await search.close()
    assert (found.mode, [chunk["title"] for chunk in found.chunks]) == ("words", ["cars"])
    assert endpoint.inputs == []
