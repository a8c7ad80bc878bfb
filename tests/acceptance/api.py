"""A thin HTTP client of the service, for tests that check the HTTP contract itself rather than the SDK."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.waiting import wait_until

SESSIONS = "/api/v1/sessions"


@dataclass
class SseEvent:
    id: str | None
    event: str
    data: Any


class Api:
    """An HTTP client that sends one token."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self.token = token
        self.http = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60, trust_env=False
        )

    def create(self, **body: Any) -> dict[str, Any]:
        answer = self.http.post("/api/v1/sessions", json=body)
        assert answer.status_code == 202, answer.text
        return answer.json()

    def get(self, session_id: str) -> dict[str, Any]:
        answer = self.http.get(f"/api/v1/sessions/{session_id}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def upload(self, project_id: str, files: Mapping[str, str | bytes]) -> dict[str, Any]:
        return self.put_archive(project_id, tar_of(files))

    def upload_folder(self, project_id: str, folder: Path) -> dict[str, Any]:
        return self.put_archive(project_id, tar_of_folder(folder))

    def put_archive(self, project_id: str, archive: bytes) -> dict[str, Any]:
        answer = self.http.put(
            f"/api/v1/projects/{project_id}", content=archive, headers={"Content-Type": "application/gzip"}
        )
        assert answer.status_code in (200, 201), answer.text
        return answer.json()

    def events(self, session_id: str, last_event_id: int | None = None) -> Iterator[SseEvent]:
        """Yield events until the stream ends; none if the answer is 204."""
        headers = {"Last-Event-ID": str(last_event_id)} if last_event_id is not None else {}
        path = f"/api/v1/sessions/{session_id}/events"
        with self.http.stream("GET", path, headers=headers, timeout=300) as answer:
            if answer.status_code == 204:
                return
            assert answer.status_code == 200, answer.read()
            yield from parse_sse(answer.iter_lines())

    def launch(self, **body: Any) -> tuple[dict[str, Any], list[SseEvent]]:
        """Create a session and follow its launch to the end. Return the session as it is then, and all events."""
        session = self.create(**body)
        events = list(self.events(session["session_id"]))
        return self.get(session["session_id"]), events

    def exec(self, session_id: str, command: str | list[str], **more: Any) -> dict[str, Any]:
        answer = self.http.post(f"/api/v1/sessions/{session_id}/exec", json={"command": command, **more})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def end(self, session_id: str) -> None:
        """Terminate the session and wait until its status is `terminated`."""
        answer = self.http.delete(f"/api/v1/sessions/{session_id}")
        assert answer.status_code == 202, answer.text
        wait_until(lambda: self.get(session_id)["status"] == "terminated")


def sign_in_link(url: str, token: str) -> str:
    """A link that signs a browser in, once, as the user of the token."""
    headers = {"Authorization": f"Bearer {token}"}
    answer = httpx.post(f"{url}/api/v1/sign-in-links", headers=headers, timeout=60, trust_env=False)
    assert answer.status_code == 201, answer.text
    return f"{url}{answer.json()['path']}"


def parse_sse(lines: Iterator[str]) -> Iterator[SseEvent]:
    """Parse the lines of a server-sent event stream. Comments are left out."""
    ident: str | None = None
    event = "message"
    data: list[str] = []
    for line in lines:
        if line == "":
            if data:
                yield SseEvent(ident, event, json.loads("\n".join(data)))
            ident, event, data = None, "message", []
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "id":
                ident = value
            elif name == "event":
                event = value
            elif name == "data":
                data.append(value)


def tar_of(files: Mapping[str, str | bytes]) -> bytes:
    """Return a .tar.gz of the given files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in files.items():
            body = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(body)
            member.mode = 0o644
            tar.addfile(member, io.BytesIO(body))
    return out.getvalue()


def tar_of_folder(folder: Path) -> bytes:
    """Return a .tar.gz of a folder without its node_modules."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        tar.add(folder, arcname=".", filter=lambda m: None if "node_modules" in m.name.split("/") else m)
    return out.getvalue()


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check that the answer is this problem, with a detail, a hint and the request's id; return its body."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    body: dict[str, Any] = answer.json()
    assert (body["code"], body["status"]) == (code, status), body
    assert body["detail"]
    assert body["hint"]
    assert body["request_id"] == answer.headers["x-request-id"]
    return body
