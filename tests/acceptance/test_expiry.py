"""Sessions end when they are idle or too old; a warning is logged before, and they can be renewed."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import docker
import httpx
import pytest
from websockets.sync.client import connect

from tests.acceptance.api import Api
from tests.acceptance.crashed_launches import assert_nothing_left
from tests.waiting import WAIT_SECONDS, wait_until

#: A timeout that lets a launch end on a busy machine, and a test soon.
SHORT_SECONDS = 15


def project(start: str) -> dict[str, str]:
    """Return a project with a silent server; `start` is run before it."""
    serve = "exec python3 -m http.server $PORT > /dev/null 2>&1"
    return {"sandbox.toml": f'[main]\nruntime = "python312"\nstart = "{start} {serve}"\nport = 8000\n'}


@pytest.fixture(scope="module")
def expiring(admin: Api) -> dict[str, dict[str, Any]]:
    """Sessions with short timeouts by name, launched at the same time so that their timeouts pass at the same time."""
    admin.upload("silent", project("echo starting;"))
    admin.upload("talking", project("(while sleep 0.5; do echo tick; done) &"))
    made = {
        "idle": admin.create(idle_timeout_seconds=SHORT_SECONDS),
        "old": admin.create(max_lifetime_seconds=SHORT_SECONDS),
        "talking": admin.create(project_id="talking", idle_timeout_seconds=SHORT_SECONDS),
        "silent": admin.create(project_id="silent", idle_timeout_seconds=SHORT_SECONDS),
    }
    return {name: launched(admin, session["session_id"]) for name, session in made.items()}


def launched(api: Api, session_id: str) -> dict[str, Any]:
    """The session as it is when its launch has ended."""
    list(api.events(session_id))
    return api.get(session_id)


def wait_until_terminated(api: Api, session_id: str) -> dict[str, Any]:
    wait_until(lambda: api.get(session_id)["status"] == "terminated", pause=0.2)
    return api.get(session_id)


def test_idle_and_old_sessions_are_warned_and_then_terminated(
    admin: Api, expiring: dict[str, dict[str, Any]], docker_client: docker.DockerClient
) -> None:
    for session in (expiring["idle"], expiring["old"]):
        session_id = session["session_id"]
        ends = datetime.fromisoformat(session["expires_at"])
        over = wait_until_terminated(admin, session_id)
        assert datetime.fromisoformat(over["terminated_at"]) >= ends
        events = list(admin.events(session_id, last_event_id=0))
        assert [int(event.id or 0) for event in events] == list(range(1, len(events) + 1))
        (warning,) = [event for event in events if event.event == "log" and event.data["stage"] == "expiry"]
        assert f"{ends:%Y-%m-%d %H:%M:%S}" in warning.data["line"]
        assert_nothing_left(docker_client, session_id)


def test_output_of_an_app_is_activity(admin: Api, expiring: dict[str, dict[str, Any]]) -> None:
    talking, silent = expiring["talking"], expiring["silent"]
    assert (talking["status"], silent["status"]) == ("running", "running"), (talking, silent)
    # They have the same idle timeout, and neither was used.
    over = wait_until_terminated(admin, silent["session_id"])
    stays = admin.get(talking["session_id"])
    assert stays["status"] == "running"
    assert stays["last_active"] > over["last_active"]
    assert stays["expires_at"] > over["terminated_at"]
    admin.end(talking["session_id"])


def moved_by(api: Api, session_id: str, use: Callable[[], object]) -> bool:
    """Whether the session's `last_active` changes soon after `use` was called."""
    before = api.get(session_id)["last_active"]
    use()
    deadline = time.monotonic() + WAIT_SECONDS
    while api.get(session_id)["last_active"] == before:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def test_use_and_renewal_postpone_the_expiry(admin: Api) -> None:
    admin.upload("page", {"index.html": "<h1>here</h1>"})
    session, _ = admin.launch(project_id="page", idle_timeout_seconds=600, max_lifetime_seconds=1000)
    session_id = session["session_id"]
    assert session["status"] == "running", session
    path = f"/api/v1/sessions/{session_id}"
    assert moved_by(admin, session_id, lambda: admin.exec(session_id, "true"))
    assert moved_by(admin, session_id, lambda: admin.http.put(f"{path}/files", params={"path": "a"}, content=b"a"))
    assert moved_by(admin, session_id, lambda: admin.http.get(f"{path}/files", params={"path": "."}))

    link = httpx.URL(session["preview_url"])
    with httpx.Client(trust_env=False, follow_redirects=False) as browser:
        # By address and Host header, because not every machine resolves names below localhost.
        host = {"Host": f"{link.host}:{link.port}"}
        address = httpx.URL(admin.url)
        opened = browser.get(address.copy_with(raw_path=link.raw_path), headers=host)
        cookie = {"Cookie": opened.headers["set-cookie"].partition(";")[0]}
        shown: list[str] = []
        assert moved_by(admin, session_id, lambda: shown.append(browser.get(address, headers=host | cookie).text))
        assert shown == ["<h1>here</h1>"]

    renewed = admin.http.post(f"{path}/renew", json={"seconds": 5000}).json()
    left = datetime.fromisoformat(renewed["expires_at"]) - datetime.fromisoformat(renewed["last_active"])
    assert left.total_seconds() == pytest.approx(5000, abs=1)
    admin.end(session_id)


def test_a_terminal_is_activity(admin: Api, blank: str) -> None:
    url = f"{admin.url.replace('http', 'ws', 1)}/api/v1/sessions/{blank}/terminal"
    with connect(url, additional_headers={"Authorization": f"Bearer {admin.token}"}, proxy=None) as terminal:
        assert moved_by(admin, blank, lambda: terminal.send('{"resize": [100, 30]}'))
        # Output counts as well, for example that of a long build. The input alone moves `last_active` twice at most.
        terminal.send(b"while sleep 1; do echo building; done\n")
        for _ in range(4):
            assert moved_by(admin, blank, lambda: None)
