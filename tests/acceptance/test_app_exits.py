"""Apps that exit after their launch: the session gets status `error` with the last lines, and can be recovered."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.acceptance.api import Api
from tests.acceptance.crashed_launches import assert_nothing_left
from tests.acceptance.previews import page, preview
from tests.acceptance.service import ADMIN_TOKEN, Service

APP = """\
import http.server, os, sys, urllib.parse
class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        if url.path == "/exit":
            print("the cupboard is bare", file=sys.stderr, flush=True)
            os._exit(int(urllib.parse.parse_qs(url.query)["code"][0]))
        super().do_GET()
http.server.HTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
"""
PROJECT = {
    "sandbox.toml": '[backend]\nruntime = "python312"\nstart = "python3 app.py"\nport = 8000\n'
    '[worker]\nruntime = "python312"\nstart = "until test -e stop; do sleep 0.1; done; exit $(cat stop)"\n',
    "app.py": APP,
    "note.txt": "as uploaded",
}
GET = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8000/{}').read().decode())"


@pytest.fixture(scope="module")
def home(make_service: Callable[..., Service]) -> Path:
    return make_service().home


@pytest.fixture(scope="module")
def replica(make_service: Callable[..., Service], home: Path) -> Iterator[Service]:
    service = make_service(home)
    service.start()
    yield service
    service.stop()


@pytest.fixture(scope="module")
def api(replica: Service) -> Iterator[Api]:
    api = Api(replica.url, ADMIN_TOKEN)
    api.upload("mortal-app", PROJECT)
    yield api
    api.http.close()


@pytest.fixture
def running(api: Api, docker_client: docker.DockerClient) -> Iterator[str]:
    """The id of a session whose apps run and in which the user has edited `note.txt`."""
    session, _ = api.launch(project_id="mortal-app")
    session_id = session["session_id"]
    assert session["status"] == "running", session
    write(api, session_id, "note.txt", "edited")
    yield session_id
    api.end(session_id)
    assert_nothing_left(docker_client, session_id)


def write(api: Api, session_id: str, path: str, text: str, role: str = "backend") -> None:
    params = {"path": path, "role": role}
    answer = api.http.put(f"/api/v1/sessions/{session_id}/files", params=params, content=text.encode())
    answer.raise_for_status()


def end_app(api: Api, session_id: str, code: int) -> None:
    """Send the app the request that makes it exit with this code."""
    done = api.exec(session_id, ["python3", "-c", GET.format(f"exit?code={code}")], role="backend")
    assert done["exit_code"] != 0, "the app did not exit"


def wait_for(api: Api, session_id: str, fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + 90
    while not fits(session := api.get(session_id)):
        assert time.monotonic() < deadline, session
        time.sleep(0.05)
    return session


def in_error(session: dict[str, Any]) -> bool:
    return bool(session["status"] == "error")


def assert_recovered(api: Api, session_id: str) -> None:
    list(api.events(session_id, last_event_id=0))
    session = api.get(session_id)
    assert (session["status"], session["error"]) == ("running", None), session
    assert {(c["status"], c["app"], c["exit_code"]) for c in session["containers"].values()} == {
        ("running", None, None)
    }
    with preview(api, session) as client:
        assert page(client, "/note.txt") == "edited"
    events = list(api.events(session_id, last_event_id=0))
    assert [int(event.id or 0) for event in events] == list(range(1, len(events) + 1))


def test_an_app_that_exits_is_reported_and_recovered(api: Api, running: str) -> None:
    before = len(list(api.events(running, last_event_id=0)))
    end_app(api, running, 3)
    session = wait_for(api, running, in_error)
    error = session["error"]
    assert (error["code"], error["stage"]) == ("app_exited", None)
    first, *lines = error["message"].splitlines()
    assert first.startswith("backend: `python3 app.py` ended with exit code 3 after ")
    assert lines[-1] == "the cupboard is bare"
    assert f"`sandbox recover {running[:8]}`" in error["hint"]
    assert (session["containers"]["backend"]["app"], session["containers"]["backend"]["exit_code"]) == ("exited", 3)
    assert (session["containers"]["worker"]["app"], session["containers"]["worker"]["status"]) == (None, "running")

    reported = list(api.events(running, last_event_id=before))
    assert [event.event for event in reported] == ["problem", "status", "end"]
    assert {key: reported[0].data[key] for key in error} == error
    assert (reported[1].data["previous"], reported[1].data["status"]) == ("running", "error")
    log = api.http.get(f"/api/v1/sessions/{running}/pipeline-log").text
    assert "problem: app_exited: backend: `python3 app.py` ended with exit code 3" in log
    with preview(api, session) as client:
        refused = client.get("/")
        assert (refused.status_code, refused.json()["code"]) == (502, "app_exited")

    assert api.http.post(f"/api/v1/sessions/{running}/recover").status_code == 202
    assert_recovered(api, running)
    end_app(api, running, 0)
    assert "ended with exit code 0" in wait_for(api, running, in_error)["error"]["message"]


def test_an_admin_recovers_the_session_by_a_bulk_recovery(api: Api, running: str) -> None:
    end_app(api, running, 1)
    wait_for(api, running, in_error)
    body = {"session_ids": [running]}
    (done,) = api.http.post("/api/v1/admin/recovery", json=body).raise_for_status().json()["items"]
    assert (done["action"], done["outcome"]) == ("restart", "done")
    assert_recovered(api, running)


def test_an_app_that_exits_while_the_service_is_down(
    api: Api, replica: Service, docker_client: docker.DockerClient, running: str
) -> None:
    container = docker_client.containers.get(api.get(running)["containers"]["backend"]["id"])
    replica.kill()
    assert container.exec_run(["python3", "-c", GET.format("exit?code=5")]).exit_code != 0
    replica.start()
    session = wait_for(api, running, in_error)
    assert "ended with exit code 5" in session["error"]["message"]


def test_another_replica_takes_over_the_watch_for_exits(
    api: Api, make_service: Callable[..., Service], home: Path, replica: Service, running: str
) -> None:
    other = make_service(home)
    other.start()
    replica.kill()
    there = Api(other.url, ADMIN_TOKEN)
    try:
        end_app(there, running, 4)
        assert "ended with exit code 4" in wait_for(there, running, in_error)["error"]["message"]
        assert [event.event for event in there.events(running, last_event_id=0)].count("problem") == 1
    finally:
        there.http.close()
        other.stop()
        replica.start()


def test_an_app_that_the_user_restarts_keeps_the_session_running(api: Api, running: str) -> None:
    before = len(list(api.events(running, last_event_id=0)))
    end_app(api, running, 0)
    api.exec(running, "setsid python3 app.py >/dev/null 2>&1 < /dev/null &", role="backend")
    session = wait_for(api, running, lambda session: session["containers"]["backend"]["app"] == "exited")
    assert (session["status"], session["error"]) == ("running", None)
    (reported,) = api.events(running, last_event_id=before)
    assert (reported.event, reported.data["stage"], reported.data["role"]) == ("log", "app", "backend")
    assert "port 8000 still answers" in reported.data["line"]
    with preview(api, session) as client:
        assert page(client, "/note.txt") == "edited"
    # The service did not start this process, so it cannot wait for it; it probes the port periodically.
    end_app(api, running, 0)
    assert wait_for(api, running, in_error)["error"]["code"] == "app_exited"


@pytest.mark.parametrize(("code", "status"), [(0, "running"), (9, "error")])
def test_a_role_without_a_port_may_exit_with_code_0(api: Api, running: str, code: int, status: str) -> None:
    write(api, running, "stop", str(code), role="worker")
    session = wait_for(api, running, lambda session: session["containers"]["worker"]["app"] == "exited")
    assert (session["status"], session["containers"]["worker"]["exit_code"]) == (status, code)
    last = list(api.events(running, last_event_id=0))
    if code == 0:
        assert last[-1].event == "log"
        assert "its work is done" in last[-1].data["line"]
    else:
        assert session["error"]["message"].endswith(" and printed nothing")


def test_a_restart_of_the_container_ends_its_app(api: Api, docker_client: docker.DockerClient, running: str) -> None:
    label = [f"sandbox.session_id={running}", "sandbox.role=backend"]
    (container,) = docker_client.containers.list(filters={"label": label})
    container.restart(timeout=5)
    error = wait_for(api, running, in_error)["error"]
    assert error["code"] in ("app_exited", "container_exited"), error
    api.http.post(f"/api/v1/sessions/{running}/recover").raise_for_status()
    assert_recovered(api, running)


def test_the_command_line(api: Api, replica: Service, running: str) -> None:
    end_app(api, running, 3)
    wait_for(api, running, in_error)
    env = os.environ | {"SANDBOX_URL": replica.url, "SANDBOX_TOKEN": ADMIN_TOKEN, "COLUMNS": "200"}

    def sandbox(*arguments: str) -> str:
        command = [str(Path(sys.executable).parent / "sandbox"), *arguments]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "error (app_exited)" in sandbox("list")
    shown = sandbox("show", running[:8])
    assert shown.splitlines()[-2].strip() == "the cupboard is bare"
    assert f"sandbox recover {running[:8]}" in shown
    assert "python312, running, its app exited with 3" in shown
    assert '"app_exited"' in sandbox("show", running[:8], "--json")
    sandbox("recover", running[:8])
    assert_recovered(api, running)
    assert "app_exited" not in sandbox("show", running[:8])
