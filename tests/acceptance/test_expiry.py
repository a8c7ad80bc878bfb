"""Sessions end when they are not used, or too old; they are warned before, and can be renewed."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

import docker
import pytest

from tests.acceptance.api import Api
from tests.acceptance.launches import assert_nothing_left


def wait_until_over(api: Api, session_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + 90
    while (session := api.get(session_id))["status"] != "terminated":
        assert time.monotonic() < deadline, session
        time.sleep(0.2)
    return session


def test_sessions_end_in_time_and_say_so_before(admin: Api, docker_client: docker.DockerClient) -> None:
    idle, _ = admin.launch(idle_timeout_seconds=12)
    old, _ = admin.launch(max_lifetime_seconds=12)
    for session in (idle, old):
        session_id = session["session_id"]
        ends = datetime.fromisoformat(session["expires_at"])
        over = wait_until_over(admin, session_id)
        assert datetime.fromisoformat(over["terminated_at"]) >= ends
        seen = list(admin.events(session_id, last_event_id=0))
        assert [int(event.id or 0) for event in seen] == list(range(1, len(seen) + 1))
        (warning,) = [event for event in seen if event.event == "log" and event.data["stage"] == "expiry"]
        assert f"{ends:%Y-%m-%d %H:%M:%S}" in warning.data["line"]
        assert_nothing_left(docker_client, session_id)


def test_use_and_renewal_put_the_end_off(admin: Api) -> None:
    session, _ = admin.launch(idle_timeout_seconds=600, max_lifetime_seconds=1000)
    session_id = session["session_id"]
    path = f"/api/v1/sessions/{session_id}"

    def moved_by(use: Any) -> bool:
        before = admin.get(session_id)["last_active"]
        use()
        deadline = time.monotonic() + 20
        while admin.get(session_id)["last_active"] == before:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    assert moved_by(lambda: admin.exec(session_id, "true"))
    assert moved_by(lambda: admin.http.put(f"{path}/files", params={"path": "a"}, content=b"a"))
    assert moved_by(lambda: admin.http.get(f"{path}/files", params={"path": "."}))

    renewed = admin.http.post(f"{path}/renew", json={"seconds": 5000}).json()
    left = datetime.fromisoformat(renewed["expires_at"]) - datetime.fromisoformat(renewed["last_active"])
    assert left.total_seconds() == pytest.approx(5000, abs=1)
    admin.end(session_id)
