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
_FIRST_PORT = 8000
_ROLE = """
[{role}]
runtime = "python312"
install = "echo install >> marks; for i in $(seq 1 8); do echo tick $i; sleep 0.1; done"
start = "exec python3 -m http.server $PORT"
port = {port}
"""


def _project(roles: tuple[str, ...]) -> dict[str, str]:
    manifest = "".join(_ROLE.format(role=role, port=_FIRST_PORT + n) for n, role in enumerate(roles))
    return {"sandbox.toml": manifest, "index.html": "<h1>here</h1>"}


#: One project with a network of its own, and one in the network that such sessions share.
PROJECTS = {"pair": _project(ROLES), "single": _project(ROLES[:1])}
_ROLES_OF = {"pair": ROLES, "single": ROLES[:1]}
#: In a role's container: the marker, the number of installs, and the status with which each app answers.
_LOOK = (
    "cat marker; grep -c install marks; "
    "curl --silent --show-error --max-time 20 --write-out '%{{http_code}}\\n' {targets} 2>&1"
)
_MARK = "cat marker 2>/dev/null || echo {marker} > marker"
#: How long a command may take. On a busy machine a program takes many seconds to start, which shows nothing.
_COMMAND_SECONDS = 60
_TIMEOUT_SECONDS = _COMMAND_SECONDS + 15
#: The end of the log line of a launch that has lost a container and replaces it.
_REPLACED = "and the launch goes on from there"


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
    roles: tuple[str, ...]
    marker: str = field(default_factory=lambda: uuid.uuid4().hex)
    marked: set[str] = field(default_factory=set)
    #: How often the install command has run when it was last looked at, by role.
    installs: dict[str, int] = field(default_factory=dict)
    #: Whether it could not be brought back.
    gone: bool = False

    @property
    def name(self) -> str:
        return self.session_id[:8]


def launch(world: World, project: str) -> Kept:
    """Request a new session, as often as it takes; it is launched meanwhile."""
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    answer = world.call("POST", "/api/v1/sessions", json={"project_id": project}, headers=headers)
    assert answer.status_code == 202, answer.text
    session_id = str(answer.json()["session_id"])
    world.created.add(session_id)
    return Kept(session_id, Follower(world, session_id), _ROLES_OF[project])


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
    urls = [f"http://127.0.0.1:{_FIRST_PORT + n}/" for n in range(len(kept.roles))]
    look = _LOOK.format(targets=" ".join(f"--output /dev/null {url}" for url in urls))
    for role in kept.roles:
        first = role not in kept.marked
        answer = _exec(world, kept, role, f"{_MARK.format(marker=kept.marker)}; {look}" if first else look)
        if answer.status_code != 200:
            return f"{role}: {answer.status_code} {answer.text[:200]}"
        marker, installs, *answers = answer.json()["stdout"].split("\n")
        if first:
            kept.marked.add(role)
        if marker != kept.marker:
            return f"{role}: the marker is {marker!r}, not {kept.marker}"
        kept.installs[role] = int(installs or 0)
        if answers[: len(urls)] != ["200"] * len(urls):
            return f"{role}: the apps at {', '.join(urls)} answer {answers}"
    return ""


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


def possible_installs(stored: list[SseEvent]) -> int:
    """How often an install may have run: once in each run, and again where a run has replaced lost containers."""
    replaced = [event for event in stored if event.event == "log" and event.data["line"].endswith(_REPLACED)]
    return len({event.data["run_id"] for event in stored}) + len(replaced)


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for a condition; whether it came true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True
