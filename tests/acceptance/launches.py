"""Launches that are crashed: a project with a long install, a viewer that never gives up, and what must hold after."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from typing import Any

import docker
import httpx

from sandbox.domain.stages import PROJECT_STAGES
from tests.acceptance.api import Api, SseEvent

TICKS = 12
#: Two roles, so that there is a network; each leaves a mark whenever it installs or starts.
ROLES = ("backend", "frontend")
_ROLE = """
[{role}]
runtime = "python312"
install = "echo install >> marks; for i in $(seq 1 {ticks}); do echo tick $i; echo $i >> ticks; sleep 0.1; done"
start = "echo start >> marks; echo serving; exec python3 -m http.server $PORT"
port = {port}
"""
PROJECT = {
    "sandbox.toml": "".join(_ROLE.format(role=role, ticks=TICKS, port=8000 + n) for n, role in enumerate(ROLES)),
    "index.html": "<h1>here</h1>",
}
#: A viewer that does not see the end of a launch by then has found a launch that is stuck.
PATIENCE = 180


class Viewer:
    """Watches a launch to its end, whatever happens to the service; reconnects with the last id it saw."""

    def __init__(self, api: Api, session_id: str) -> None:
        self._api = Api(api.url, api.token)
        self._session_id = session_id
        self.seen: list[SseEvent] = []
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while not self.ended and time.monotonic() < deadline:
            last = int(self.seen[-1].id or 0) if self.seen else 0
            try:
                for event in self._api.events(self._session_id, last_event_id=last):
                    self.seen.append(event)
            except (httpx.TransportError, AssertionError):
                time.sleep(0.05)  # the service is away, or is just coming up

    @property
    def ended(self) -> bool:
        return bool(self.seen) and self.seen[-1].event == "end"

    def wait_for(self, what: str) -> None:
        """Return once an event that has this text was seen."""
        deadline = time.monotonic() + PATIENCE
        while not any(what in str(event.data) for event in list(self.seen)):
            assert time.monotonic() < deadline, f"{what!r} was not seen: {self.seen[-3:]}"
            time.sleep(0.01)

    def finish(self) -> list[SseEvent]:
        """Everything that was seen, once the launch has ended."""
        self._thread.join(PATIENCE)
        self._api.http.close()
        assert self.ended, f"the launch did not end: {[str(event.data)[:200] for event in self.seen[-5:]]}"
        return self.seen


def create_surely(api: Api, key: str | None = None, **body: Any) -> str:
    """Create a session by a service that may die meanwhile: the same request again until it is answered."""
    headers = {"Idempotency-Key": key or uuid.uuid4().hex}
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            answer = api.http.post("/api/v1/sessions", json=body, headers=headers)
            assert answer.status_code == 202, answer.text
            return str(answer.json()["session_id"])
        except httpx.TransportError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def assert_whole(api: Api, session_id: str, seen: list[SseEvent]) -> None:
    """The launch of `PROJECT` ended as it does undisturbed: every event once, every stage once, every command once."""
    assert [int(event.id or 0) for event in seen] == list(range(1, len(seen) + 1))
    assert [(e.id, e.event, e.data) for e in api.events(session_id, last_event_id=0)] == [
        (e.id, e.event, e.data) for e in seen
    ]
    assert len({event.data["run_id"] for event in seen}) == 1
    stages = [(e.data["stage"], e.data["state"]) for e in seen if e.event == "stage"]
    assert stages == [(stage.value, state) for stage in PROJECT_STAGES for state in ("started", "completed")]
    assert Counter(e.event for e in seen if e.event in ("status", "preview", "problem", "end")) == {
        "status": 2,
        "preview": 1,
        "end": 1,
    }
    session = api.get(session_id)
    assert session["status"] == "running", session
    for role in ROLES:
        lines = [e.data["line"] for e in seen if e.event == "log" and e.data["role"] == role]
        assert [line for line in lines if line.startswith("tick")] == [f"tick {i}" for i in range(1, TICKS + 1)]
        # But for the probes, which the app tells of one by one, no line is there twice.
        assert not [line for line, times in Counter(lines).items() if times > 1 and "GET /" not in line], lines
        marks = api.exec(session_id, "cat marks", role=role)["stdout"].split()
        assert marks == ["install", "start"]


def assert_nothing_left(client: docker.DockerClient, session_id: str) -> None:
    """The engine has nothing of the session any more."""
    label = {"label": f"sandbox.session_id={session_id}"}
    left = [
        *client.containers.list(all=True, filters=label),
        *client.networks.list(filters=label),
        *client.volumes.list(filters=label),
    ]
    assert left == []
