"""The events of a launch by SSE: the same for every viewer, resumable at any id, ended by the event `end`."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.acceptance.api import Api, parse_sse
from tests.acceptance.service import ADMIN_TOKEN, Service

VIEWERS = 200
CHATTY = {
    "sandbox.toml": (
        '[backend]\nruntime = "python312"\n'
        'install = "for i in $(seq 1 600); do echo line $i; done"\n'
        'start = "python3 -m http.server 8000"\nport = 8000\n'
    ),
    "index.html": "<h1>hello</h1>",
}


@pytest.fixture(scope="module")
def chatty(admin: Api) -> str:
    admin.upload("chatty", CHATTY)
    return "chatty"


async def _view(client: httpx.AsyncClient, path: str, after: int = 0) -> list[bytes]:
    """The data of all events until the stream ends, as it was sent."""
    async with client.stream("GET", path, headers={"Last-Event-ID": str(after)}) as answer:
        assert answer.status_code == 200
        body = b"".join([part async for part in answer.aiter_bytes()])
    return [line.removeprefix(b"data: ") for line in body.splitlines() if line.startswith(b"data: ")]


async def test_200_viewers_get_the_same_events_while_another_stopped_reading(
    service: Service, admin: Api, chatty: str
) -> None:
    session_id = admin.create(project_id=chatty)["session_id"]
    path = f"/api/v1/sessions/{session_id}/events"
    stalled = socket.create_connection(("127.0.0.1", service.port))
    stalled.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\n\r\n".encode())
    try:
        limits = httpx.Limits(max_connections=VIEWERS)
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
        async with httpx.AsyncClient(
            base_url=service.url, headers=headers, limits=limits, timeout=120, trust_env=False
        ) as client:
            everyone = await asyncio.gather(*(_view(client, path) for _ in range(VIEWERS)))
            late = await _view(client, path, after=5)
            over = await client.get(path, headers={"Last-Event-ID": str(len(everyone[0]))})
    finally:
        stalled.close()

    assert all(events == everyone[0] for events in everyone)
    assert late == everyone[0][5:]
    first = [json.loads(data) for data in everyone[0]]
    assert [event["seq"] for event in first] == list(range(1, len(first) + 1))
    lines = [
        event["line"] for event in first if event.get("stage") == "dependencies" and event.get("stream") == "stdout"
    ]
    assert lines == [f"line {i}" for i in range(1, 601)]
    assert over.status_code == 204
    admin.end(session_id)


def test_an_invalid_last_event_id_is_refused(admin: Api, blank: str) -> None:
    answer = admin.http.get(f"/api/v1/sessions/{blank}/events", headers={"Last-Event-ID": "x-1"})
    assert answer.status_code == 422
    assert answer.json()["code"] == "event_id_invalid"


def test_a_relaunch_continues_the_same_event_log(admin: Api, chatty: str) -> None:
    session, first = admin.launch(project_id=chatty)
    session_id = session["session_id"]
    assert session["status"] == "running"
    assert admin.http.post(f"/api/v1/sessions/{session_id}/relaunch").status_code == 202
    second = list(admin.events(session_id, last_event_id=int(first[-1].id or 0)))
    assert [int(event.id or 0) for event in second] == list(range(len(first) + 1, len(first) + len(second) + 1))
    assert len({event.data["run_id"] for event in second}) == 1
    assert second[0].data["run_id"] != first[0].data["run_id"]
    assert second[-1].event == "end"
    assert admin.get(session_id)["status"] == "running"
    admin.end(session_id)


def test_app_output_is_resumed_after_the_last_event_id(admin: Api, chatty: str) -> None:
    session, _ = admin.launch(project_id=chatty)
    session_id = session["session_id"]
    for path in ("one", "two"):
        admin.exec(
            session_id, ["python3", "-c", f"import urllib.request as u; u.urlopen('http://127.0.0.1:8000/?{path}')"]
        )
    path = f"/api/v1/sessions/{session_id}/logs"
    whole = _logs(admin, path, None)
    assert [event.data["line"].split('"')[1] for event in whole if "GET /?" in event.data.get("line", "")] == [
        "GET /?one HTTP/1.1",
        "GET /?two HTTP/1.1",
    ]
    cut = next(event for event in whole if "GET /?one" in event.data.get("line", ""))
    rest = [event.data["line"] for event in _logs(admin, path, cut.id) if event.event == "log"]
    assert len(rest) == 1
    assert "GET /?two" in rest[0]
    admin.end(session_id)


def _logs(admin: Api, path: str, last_event_id: str | None) -> list[Any]:
    headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
    with admin.http.stream("GET", path, headers=headers) as answer:
        return list(parse_sse(answer.iter_lines()))


def test_another_users_events_are_not_found(make_user: Callable[[], Api], blank: str) -> None:
    answer = make_user().http.get(f"/api/v1/sessions/{blank}/events")
    assert answer.status_code == 404
    assert answer.json()["code"] == "session_not_found"
