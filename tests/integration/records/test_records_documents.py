"""Documents over HTTP: files of several formats, passages with highlights, filters by metadata, replacement at once."""

from __future__ import annotations

import asyncio
import json

import pytest

from sandbox.errors import Kind, SandboxError
from sandbox.knowledge.documents import store
from sandbox.knowledge.documents.reading import read_document
from tests.unit.knowledge.test_knowledge_formats import pdf

PATH = "/api/v1/documents"


async def put_file(client, data: bytes, content_type: str, **params: str):
    return await client.post(f"{PATH}/files", content=data, params=params, headers={"Content-Type": content_type})


async def search(client, q: str, **params: str) -> list[dict[str, object]]:
    answer = await client.get(f"{PATH}/search", params={"q": q, **params})
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


async def test_files_are_found_by_their_words(ada, bob):
    page = b"<h1>Pipelines</h1><p><b>Deploy</b> with the blue pipeline.</p><script>secret()</script>"
    made = await put_file(ada, page, "text/html; charset=utf-8", title="Guide", source="guide.html")
    assert (made.status_code, made.json()["content_type"], made.json()["version"]) == (201, "text/html", 1)
    (found,) = await search(ada, "deploying pipelines")
    assert (found["heading"], found["highlight"]) == ("Pipelines", "**Deploy** with the blue **pipeline**")
    assert await search(ada, "secret") == []
    assert await search(bob, "deploying pipelines") == []
    report = await put_file(ada, pdf("Nothing here", "Valves are open"), "application/pdf", title="Report")
    assert report.status_code == 201
    (found,) = await search(ada, "open valve")
    assert found["heading"] == "Page 2"


async def test_what_cannot_be_read_is_refused_and_nothing_is_stored(ada):
    for data, content_type, status, code in (
        (b"%PDF-", "application/pdf", 422, "document_unreadable"),
        (b"GIF89a", "image/gif", 415, "document_type_unsupported"),
    ):
        refused = await put_file(ada, data, content_type, title="x")
        assert (refused.status_code, refused.json()["code"]) == (status, code)
    assert (await put_file(ada, b"x", "text/plain")).status_code == 422
    assert (await put_file(ada, b"x", "text/plain", title="x", shared="true")).status_code == 403
    assert (await ada.get(PATH)).json()["items"] == []


async def test_documents_are_filtered_by_metadata(ada):
    for team in ("a", "b"):
        body = {"title": team, "content": "the same words", "metadata": {"team": team, "year": 2026}}
        await ada.post(PATH, json=body)
    listed = (await ada.get(PATH, params={"metadata": json.dumps({"team": "a"})})).json()["items"]
    assert [document["title"] for document in listed] == ["a"]
    found = await search(ada, "words", metadata=json.dumps({"team": "b", "year": 2026}))
    assert [chunk["title"] for chunk in found] == ["b"]
    for wrong in ("[1]", "{", '{"a": "\\u0000"}'):
        assert (await ada.get(PATH, params={"metadata": wrong})).status_code == 422
        assert (await ada.get(f"{PATH}/search", params={"q": "x", "metadata": wrong})).status_code == 422


async def test_a_search_sees_one_version_of_a_document_that_is_replaced(ada):
    async def put(version: int) -> None:
        content = "\n\n".join(f"# Part {part}\n\nword version{version}" for part in range(20))
        body = {"title": "t", "source": "s", "content": content}
        assert (await ada.post(PATH, json=body)).status_code in (200, 201)

    async def replace() -> None:
        for version in range(2, 12):
            await put(version)

    await put(1)
    replacing = asyncio.create_task(replace())
    while not replacing.done():
        found = await search(ada, "word", limit="100")
        assert len(found) == 20
        assert len({str(chunk["content"]) for chunk in found}) == 1
    await replacing


async def test_the_text_of_a_users_documents_is_limited(database):
    async def put(user_id: str | None, source: str, size: int) -> bool:
        values = {"title": "x", "source": source, "content_type": "text/plain", "metadata": {}}
        document = read_document("word " * (size // 5), "text/plain")
        return (await store.put_document(database, user_id, values, document, 1000))[1]

    assert await put("ann", "one", 800)
    with pytest.raises(SandboxError) as refused:
        await put("ann", "two", 300)
    assert (refused.value.code, refused.value.kind) == ("storage_limit", Kind.TOO_LARGE)
    assert not await put("ann", "one", 900), "what is replaced does not count"
    assert await put("bob", "one", 900)
    assert await put(None, "one", 2000), "documents of the platform are not limited"
