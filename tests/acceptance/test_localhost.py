"""Port forwarding between roles: apps of a session reach each other on localhost, as on one machine, except on ports
on which they listen themselves."""

from __future__ import annotations

import time
from collections.abc import Iterator

import docker
import pytest

from tests.acceptance.api import Api, SseEvent
from tests.acceptance.previews import page, preview

#: `store` listens on its own localhost only, and the others reach it there. `own` has another server on the port of
#: `store`, which `store` waits for. `late` waits for `store` before it opens its port. `idle` starts nothing.
MANIFEST = '''
[store]
runtime = "python312"
start = """until python3 get.py http://own:8001/name; do sleep 0.1; done
cd store && exec python3 -m http.server 8000 --bind 127.0.0.1"""
port = 8000
[own]
runtime = "python312"
start = """(cd own && exec python3 -m http.server 8000 --bind 127.0.0.1) &
until python3 get.py http://127.0.0.1:8000/name; do sleep 0.1; done; cd own && exec python3 -m http.server 8001"""
port = 8001
[late]
runtime = "python312"
start = "until python3 get.py http://localhost:8000/name; do sleep 0.2; done; exec python3 -m http.server 8002"
port = 8002
[idle]
start = ""
runtime = "python312"
'''
GET = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=20).read().decode(), end='')"
PROJECT = {
    "sandbox.toml": MANIFEST,
    "get.py": GET,
    "store/name": "the store",
    "own/name": "its own",
}


@pytest.fixture(scope="module")
def launched(admin: Api) -> Iterator[tuple[str, list[SseEvent]]]:
    admin.upload("at-localhost", PROJECT)
    session, events = admin.launch(project_id="at-localhost")
    assert session["status"] == "running", session["error"]
    yield session["session_id"], events
    admin.end(session["session_id"])


def get(api: Api, session_id: str, role: str, url: str) -> str:
    answer = api.exec(session_id, ["python3", "/workspace/get.py", url], role=role)
    assert answer["exit_code"] == 0, answer["stderr"][-500:]
    return str(answer["stdout"])


@pytest.mark.parametrize("role", ["late", "idle", "store"])
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_the_app_of_another_role_is_reached_on_localhost(
    admin: Api, launched: tuple[str, list[SseEvent]], role: str, host: str
) -> None:
    assert get(admin, launched[0], role, f"http://{host}:8000/name") == "the store"


def test_all_other_roles_are_reached_on_localhost(admin: Api, launched: tuple[str, list[SseEvent]]) -> None:
    for port in (8001, 8002):
        assert "name" in get(admin, launched[0], "idle", f"http://localhost:{port}/" + "own/" * (port == 8002))


def test_a_port_that_the_role_uses_itself_is_not_forwarded_and_a_line_says_so(
    admin: Api, launched: tuple[str, list[SseEvent]]
) -> None:
    session_id, events = launched
    assert get(admin, session_id, "own", "http://localhost:8000/name") == "its own"
    assert get(admin, session_id, "own", "http://store:8000/name") == "the store"
    lines = [event.data for event in events if event.event == "log" and event.data["stage"] == "health"]
    refused = [data["role"] for data in lines if data["line"].startswith("localhost:8000 is not forwarded to store: ")]
    assert refused == ["own"]


def test_a_preview_of_a_port_shows_the_role_with_that_port(admin: Api, launched: tuple[str, list[SseEvent]]) -> None:
    session = admin.get(launched[0])
    session["preview_url"] = session["preview_url"].replace("://", "://8000-", 1)
    with preview(admin, session) as client:
        assert page(client, "/name") == "the store"


def test_ports_are_forwarded_after_a_recovery(
    admin: Api, launched: tuple[str, list[SseEvent]], docker_client: docker.DockerClient
) -> None:
    session_id = launched[0]
    for role in ("store", "late"):
        label = [f"sandbox.session_id={session_id}", f"sandbox.role={role}"]
        (container,) = docker_client.containers.list(filters={"label": label})
        container.remove(force=True)
    deadline = time.monotonic() + 60
    while admin.get(session_id)["status"] != "error":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    admin.http.post(f"/api/v1/sessions/{session_id}/recover").raise_for_status()
    list(admin.events(session_id, last_event_id=0))
    assert admin.get(session_id)["status"] == "running", admin.get(session_id)["error"]
    for role, name in (("late", "the store"), ("idle", "the store"), ("own", "its own")):
        assert get(admin, session_id, role, "http://localhost:8000/name") == name
