"""The stream of a caller's sessions, pages of lines, and the history of usage, over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from tests.acceptance.api import Api

PRINTING = {
    "sandbox.toml": """
[web]
runtime = "python312"
install = "for i in $(seq 1 50); do echo installed $i; done; echo careful >&2"
start = "seq -f 'printed %.0f' 1 1000; exec python3 -m http.server 8000"
port = 8000
""",
}


@asynccontextmanager
async def sessions_of(api: Api) -> AsyncIterator[AsyncIterator[tuple[str, dict[str, Any]]]]:
    """The events of `GET /api/v1/sessions/events` as pairs of type and data."""
    headers = {"Authorization": f"Bearer {api.token}"}
    async with (
        httpx.AsyncClient(base_url=api.url, headers=headers, timeout=120, trust_env=False) as client,
        client.stream("GET", "/api/v1/sessions/events") as answer,
    ):
        assert answer.status_code == 200

        async def events() -> AsyncIterator[tuple[str, dict[str, Any]]]:
            kind = ""
            async for line in answer.aiter_lines():
                name, _, value = line.partition(": ")
                if name == "event":
                    kind = value
                elif name == "data":
                    yield kind, json.loads(value)

        yield events()


async def test_a_user_follows_its_own_sessions_only(make_user: Callable[[], Api]) -> None:
    ann, bob = make_user(), make_user()
    before = await asyncio.to_thread(ann.create)
    async with asyncio.timeout(120), sessions_of(ann) as seen:
        kind, first = await anext(seen)
        assert (kind, first["session_id"], first["user_id"]) == ("session", before["session_id"], before["user_id"])
        assert first.keys() == before.keys()
        await asyncio.to_thread(bob.create)
        await asyncio.to_thread(ann.http.delete, f"/api/v1/sessions/{before['session_id']}")
        async for _, session in seen:
            assert session["session_id"] == before["session_id"]
            if session["status"] == "terminated":
                break


async def test_a_change_without_an_event_is_seen(user: Api) -> None:
    session = await asyncio.to_thread(user.create, max_lifetime_seconds=3600)
    async with asyncio.timeout(120), sessions_of(user) as seen:
        async for _, shown in seen:
            if shown["status"] == "ready":
                break
        renew = {"seconds": 80_000}
        path = f"/api/v1/sessions/{session['session_id']}/renew"
        renewed = (await asyncio.to_thread(lambda: user.http.post(path, json=renew))).json()
        async for _, shown in seen:
            if shown["expires_at"] == renewed["expires_at"]:
                break
    await asyncio.to_thread(user.end, session["session_id"])


@pytest.fixture(scope="module")
def printing(admin: Api) -> str:
    admin.upload("printing", PRINTING)
    session, _ = admin.launch(project_id="printing")
    assert session["status"] == "running", session
    return str(session["session_id"])


def lines(api: Api, session_id: str, **query: Any) -> dict[str, Any]:
    answer = api.http.get(f"/api/v1/sessions/{session_id}/lines", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ({"source": "launch", "stage": "dependencies", "stream": "stdout"}, [f"installed {i}" for i in range(1, 51)]),
        ({"source": "output", "q": "PRINTED", "role": "web"}, [f"printed {i}" for i in range(1, 1001)]),
    ],
    ids=["launch", "output"],
)
def test_lines_are_read_by_page_in_both_directions(
    admin: Api, printing: str, query: dict[str, Any], wanted: list[str]
) -> None:
    backwards: list[str] = []
    ids: set[str] = set()
    page = lines(admin, printing, limit=17, **query)
    while True:
        backwards = [item["text"] for item in page["items"]] + backwards
        ids |= {item["id"] for item in page["items"]}
        if not page["older"] or not page["items"]:
            break
        page = lines(admin, printing, limit=17, before=page["items"][0]["position"], **query)
    assert backwards == wanted
    assert len(ids) == len(wanted)

    forwards: list[str] = []
    page = lines(admin, printing, limit=300, after=0, **query)
    forwards = [item["text"] for item in page["items"]]
    while page["newer"]:
        page = lines(admin, printing, limit=300, after=page["items"][-1]["position"], **query)
        forwards += [item["text"] for item in page["items"]]
    assert forwards == wanted


def test_lines_are_filtered(admin: Api, printing: str, user: Api) -> None:
    (found,) = lines(admin, printing, stream="stderr", stage="dependencies")["items"]
    assert (found["text"], found["role"], found["stream"]) == ("careful", "web", "stderr")
    (found,) = lines(admin, printing, q="Installed 37")["items"]
    assert found["id"] == f"l-{found['position']}"
    assert lines(admin, printing, run="00000000-0000-4000-8000-000000000000")["items"] == []
    for bad in ({"before": 1, "after": 1}, {"source": "other"}, {"limit": 0}, {"unknown": 1}):
        assert admin.http.get(f"/api/v1/sessions/{printing}/lines", params=bad).status_code == 422
    for path in ("lines", "lines/download", "stats/history"):
        assert user.http.get(f"/api/v1/sessions/{printing}/{path}").status_code == 404


def test_following_goes_on_where_a_page_ended(admin: Api, printing: str) -> None:
    page = lines(admin, printing, source="output", q="printed 9", after=0, limit=1)
    assert [item["text"] for item in page["items"]] == ["printed 9"]
    answer = admin.http.get(f"/api/v1/sessions/{printing}/logs?role=web", headers={"Last-Event-ID": page["resume"]})
    first = json.loads(answer.text.split("data: ")[1].splitlines()[0])
    assert (first["line"], first["stream"]) in [(f"printed {i}", "stdout") for i in range(10, 91)]
    assert first["end"] > page["items"][0]["position"]


@pytest.mark.parametrize(("source", "text"), [("launch", "installed 50\n"), ("output", "printed 1000\n")])
def test_all_lines_are_downloaded_as_text(admin: Api, printing: str, source: str, text: str) -> None:
    answer = admin.http.get(f"/api/v1/sessions/{printing}/lines/download", params={"source": source})
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["content-disposition"].startswith("attachment")
    assert text in answer.text


def test_usage_is_kept(admin: Api, printing: str) -> None:
    answer = admin.http.get(f"/api/v1/sessions/{printing}/stats/history")
    (first, *_) = answer.json()["roles"]["web"]
    assert first["memory_bytes"] > 0
    later = admin.http.get(f"/api/v1/sessions/{printing}/stats/history", params={"seconds": 1})
    assert len(later.json()["roles"]["web"]) <= len(answer.json()["roles"]["web"])
    assert admin.http.get(f"/api/v1/sessions/{printing}/stats/history?seconds=0").status_code == 422
