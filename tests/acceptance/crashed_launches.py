"""For tests that kill the service during a launch: a project with a long install, a viewer that reconnects, and the
checks of what must hold at the end."""

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
#: There are two roles so that the session has a network. Each appends to the file `marks` when it installs or starts.
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
#: A launch that has not ended by then is stuck.
TIMEOUT_SECONDS = 180


class Viewer:
    """Follows a launch in a thread until it ends. Reconnects with the last event's id when the connection breaks."""

    def __init__(self, api: Api, session_id: str) -> None:
        self._api = Api(api.url, api.token)
        self._session_id = session_id
        self.events: list[SseEvent] = []
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        # Closed here, so that a test that fails before `finish` leaves no connection to be found in a later test.
        with self._api.http:
            while not self.ended and time.monotonic() < deadline:
                last = int(self.events[-1].id or 0) if self.events else 0
                try:
                    for event in self._api.events(self._session_id, last_event_id=last):
                        self.events.append(event)
                except (httpx.TransportError, AssertionError):
                    time.sleep(0.05)  # the service is down, or is not ready yet

    @property
    def ended(self) -> bool:
        return bool(self.events) and self.events[-1].event == "end"

    def wait_for(self, what: str) -> None:
        """Return once an event with this text has arrived."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not any(what in str(event.data) for event in list(self.events)):
            assert time.monotonic() < deadline, f"{what!r} did not arrive: {self.events[-3:]}"
            time.sleep(0.01)

    def finish(self) -> list[SseEvent]:
        """Wait for the end of the launch; return all events."""
        self._thread.join(TIMEOUT_SECONDS)
        assert self.ended, f"the launch did not end: {[str(event.data)[:200] for event in self.events[-5:]]}"
        return self.events


def create_with_retries(api: Api, key: str | None = None, **body: Any) -> str:
    """Create a session on a service that may be killed meanwhile: repeat the same request until it is answered."""
    headers = {"Idempotency-Key": key or uuid.uuid4().hex}
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while True:
        try:
            answer = api.http.post("/api/v1/sessions", json=body, headers=headers)
            assert answer.status_code == 202, answer.text
            return str(answer.json()["session_id"])
        except httpx.TransportError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def assert_complete(api: Api, session_id: str, events: list[SseEvent]) -> None:
    """Check that the launch of `PROJECT` ended as without a crash: every event, stage and command exactly once."""
    assert [int(event.id or 0) for event in events] == list(range(1, len(events) + 1))
    assert [(e.id, e.event, e.data) for e in api.events(session_id, last_event_id=0)] == [
        (e.id, e.event, e.data) for e in events
    ]
    assert len({event.data["run_id"] for event in events}) == 1
    stages = [(e.data["stage"], e.data["state"]) for e in events if e.event == "stage"]
    assert stages == [(stage.value, state) for stage in PROJECT_STAGES for state in ("started", "completed")]
    assert Counter(e.event for e in events if e.event in ("status", "preview", "problem", "end")) == {
        "status": 2,
        "preview": 1,
        "end": 1,
    }
    session = api.get(session_id)
    assert session["status"] == "running", session
    for role in ROLES:
        lines = [e.data["line"] for e in events if e.event == "log" and e.data["role"] == role]
        assert [line for line in lines if line.startswith("tick")] == [f"tick {i}" for i in range(1, TICKS + 1)]
        # The app logs every probe, so only the lines of probes may be repeated.
        assert not [line for line, times in Counter(lines).items() if times > 1 and "GET /" not in line], lines
        marks = api.exec(session_id, "cat marks", role=role)["stdout"].split()
        assert marks == ["install", "start"]


def assert_nothing_left(client: docker.DockerClient, session_id: str) -> None:
    """Check that the engine has no container, network or volume of the session."""
    label = {"label": f"sandbox.session_id={session_id}"}
    left = [
        *client.containers.list(all=True, filters=label),
        *client.networks.list(filters=label),
        *client.volumes.list(filters=label),
    ]
    assert left == []
