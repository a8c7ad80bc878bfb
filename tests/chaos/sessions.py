"""The sessions of a fault run: launched from one project, followed all the time, and compared with what really is."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

import httpx

from tests.acceptance.api import Api, SseEvent
from tests.chaos.world import World

ROLES = ("backend", "frontend")
_ROLE = """
[{role}]
runtime = "python312"
install = "echo install >> marks; for i in $(seq 1 8); do echo tick $i; sleep 0.1; done"
start = "exec python3 -m http.server $PORT"
port = {port}
"""
PROJECT_ID = "mortal"
PROJECT = {
    "sandbox.toml": "".join(_ROLE.format(role=role, port=8000 + n) for n, role in enumerate(ROLES)),
    "index.html": "<h1>here</h1>",
}
#: In a role's container: the marker, the number of installs, and whether the apps of both roles answer.
_LOOK = (
    "cat marker; grep -c install marks; for port in 8000 8001; do "
    "curl --silent --show-error --max-time 20 --output /dev/null http://127.0.0.1:$port/ 2>&1 && echo answers; done"
)
_MARK = "cat marker 2>/dev/null || echo {marker} > marker"
#: How long a command may take. On a busy machine a program takes many seconds to start, which shows nothing.
_COMMAND_SECONDS = 60
_TIMEOUT_SECONDS = _COMMAND_SECONDS + 15


class Shown(Enum):
    """How the state that the service shows compares with what is."""

    TRUE = "true"
    FALSE = "false"
    #: The service does not answer, so it shows nothing.
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Verdict:
    shown: Shown
    status: str
    #: What is not true, or the error's code and message.
    reason: str = ""


class Follower:
    """Reads a session's events in a thread, and reconnects with the id of the last one."""

    def __init__(self, world: World, session_id: str) -> None:
        self._api = Api(world.service.url, world.api.token)
        self._session_id = session_id
        self._ended = threading.Event()
        self.events: list[SseEvent] = []
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    @property
    def ids(self) -> list[int]:
        return [int(event.id or 0) for event in list(self.events)]

    def wait_for(self, last: int, seconds: float) -> None:
        """Wait until the event with this id has arrived, at most so long."""
        wait_until(lambda: last <= max(self.ids, default=0), seconds)

    def close(self) -> None:
        self._ended.set()

    def _follow(self) -> None:
        while not self._ended.is_set():
            last = self.ids[-1] if self.events else 0
            try:
                for event in self._api.events(self._session_id, last_event_id=last):
                    self.events.append(event)
            except (httpx.TransportError, AssertionError, ValueError):
                pass  # the service is away
            self._ended.wait(1)
        self._api.http.close()


@dataclass
class Kept:
    """A session that is to survive everything."""

    session_id: str
    follower: Follower
    marker: str = field(default_factory=lambda: uuid.uuid4().hex)
    marked: set[str] = field(default_factory=set)


def launch(world: World) -> Kept:
    """Request a new session, as often as it takes; it is launched meanwhile."""
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    answer = world.call("POST", "/api/v1/sessions", json={"project_id": PROJECT_ID}, headers=headers)
    assert answer.status_code == 202, answer.text
    session_id = str(answer.json()["session_id"])
    world.created.add(session_id)
    return Kept(session_id, Follower(world, session_id))


def judge(world: World, kept: Kept) -> Verdict:
    """Compare what the service shows of a session with what is. Does not wait."""
    try:
        answer = world.api.http.get(f"/api/v1/sessions/{kept.session_id}", timeout=_TIMEOUT_SECONDS)
        if answer.status_code == 404:
            return Verdict(Shown.FALSE, "none", "the session is not there any more")
        if answer.status_code != 200:
            return Verdict(Shown.NOTHING, "", f"{answer.status_code} {answer.text[:200]}")
        session = answer.json()
        status = str(session["status"])
        if status != "running":
            error = session.get("error") or {}
            return Verdict(Shown.TRUE, status, f"{error.get('code')}: {str(error.get('message'))[:200]}")
        reason = _unusable(world, kept)
        # What cannot be used and is shown as such is true.
        told = str(session.get("health") or "") not in ("", "healthy", "ok") and bool(reason)
        return Verdict(Shown.FALSE if reason and not told else Shown.TRUE, status, reason)
    except httpx.TransportError as error:
        return Verdict(Shown.NOTHING, "", repr(error))


def _unusable(world: World, kept: Kept) -> str:
    """What cannot be done in a session that is shown as running; empty if everything can."""
    for role in ROLES:
        first = role not in kept.marked
        command = f"{_MARK.format(marker=kept.marker)}; {_LOOK}" if first else _LOOK
        answer = _exec(world, kept, role, command)
        if answer.status_code != 200:
            return f"{role}: {answer.status_code} {answer.text[:200]}"
        lines = answer.json()["stdout"].split("\n")
        if first:
            kept.marked.add(role)
        if lines[0] != kept.marker:
            return f"{role}: the marker is {lines[0]!r}, not {kept.marker}"
        if lines[2:4] != ["answers", "answers"]:
            return f"{role}: of the apps at 8000 and 8001: {lines[2:4]}"
    return ""


def installs(world: World, kept: Kept, role: str) -> int:
    """How often the role's install command has run."""
    answer = _exec(world, kept, role, "grep -c install marks")
    return int(answer.json()["stdout"] or 0) if answer.status_code == 200 else 0


def _exec(world: World, kept: Kept, role: str, command: str) -> httpx.Response:
    body = {"command": command, "role": role, "timeout_seconds": _COMMAND_SECONDS}
    return world.api.http.post(f"/api/v1/sessions/{kept.session_id}/exec", json=body, timeout=_TIMEOUT_SECONDS)


def event_faults(stored: list[SseEvent], seen: list[int]) -> dict[str, str]:
    """What is missing or doubled in the stored events and in those that a viewer saw; by the name of the counter."""
    found = {}
    ids = [int(event.id or 0) for event in stored]
    expected = list(range(1, len(ids) + 1))
    if len(set(ids)) < len(ids) or len(set(seen)) < len(seen):
        twice = [number for number, times in Counter(seen or ids).items() if times > 1]
        found["doubled"] = f"events {twice[:5]}"
    if ids != expected and len(set(ids)) == len(ids):
        found["missing"] = f"stored events are {ids[:5]} … {ids[-5:]}"
    elif set(seen) < set(ids):
        found["missing"] = f"a viewer did not see {sorted(set(ids) - set(seen))[:5]}"
    return found


def runs_of(stored: list[SseEvent]) -> int:
    return len({event.data["run_id"] for event in stored})


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for a condition; whether it came true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True
