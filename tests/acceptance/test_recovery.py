"""Containers that exit, run out of memory or are removed by others: reported at once, and recovered."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.models.containers import Container

from tests.acceptance.api import Api
from tests.acceptance.crashed_launches import assert_nothing_left
from tests.acceptance.service import ADMIN_TOKEN, Service
from tests.waiting import wait_until

APP = """\
import http.server, sys
class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/eat":
            held = bytearray(10**9)
        super().do_GET()
http.server.HTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
"""
PROJECT = {
    "sandbox.toml": '[backend]\nruntime = "python312"\nstart = "python3 app.py"\nport = 8000\n',
    "app.py": APP,
    "note.txt": "as uploaded",
}
GET = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8000/{}').read().decode())"


@pytest.fixture(scope="module")
def small(make_service: Callable[..., Service]) -> Iterator[Service]:
    """A service whose containers have little memory."""
    service = make_service(SANDBOX_MEMORY_MB="128")
    service.start()
    yield service
    service.stop()


@pytest.fixture(scope="module")
def api(small: Service) -> Iterator[Api]:
    api = Api(small.url, ADMIN_TOKEN)
    api.upload("lossy", PROJECT)
    yield api
    api.http.close()


@pytest.fixture
def running(api: Api, docker_client: docker.DockerClient) -> Iterator[str]:
    """The id of a session whose app runs and in which the user has edited `note.txt`."""
    session, _ = api.launch(project_id="lossy")
    session_id = session["session_id"]
    assert session["status"] == "running", session
    edited = api.http.put(f"/api/v1/sessions/{session_id}/files", params={"path": "note.txt"}, content=b"edited")
    assert edited.status_code in (200, 201, 204), edited.text
    yield session_id
    api.end(session_id)
    assert_nothing_left(docker_client, session_id)


def container_of(client: docker.DockerClient, session_id: str) -> Container:
    (container,) = client.containers.list(all=True, filters={"label": f"sandbox.session_id={session_id}"})
    return container


def wait_for_status(api: Api, session_id: str, *statuses: str) -> dict[str, Any]:
    wait_until(lambda: api.get(session_id)["status"] in statuses, lambda: api.get(session_id))
    return api.get(session_id)


def assert_recovered(api: Api, session_id: str) -> None:
    """Check that the session runs with the files as the user left them, and that its event log has no gap."""
    list(api.events(session_id, last_event_id=0))
    session = wait_for_status(api, session_id, "running", "error")
    assert session["status"] == "running", session["error"]
    assert session["error"] is None
    assert api.exec(session_id, ["python3", "-c", GET.format("note.txt")])["stdout"].strip() == "edited"
    events = list(api.events(session_id, last_event_id=0))
    assert [int(event.id or 0) for event in events] == list(range(1, len(events) + 1))


def recovery(api: Api, **body: Any) -> list[dict[str, Any]]:
    answer = api.http.post("/api/v1/admin/recovery", json=body)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def test_a_container_that_exits(api: Api, docker_client: docker.DockerClient, running: str) -> None:
    container_of(docker_client, running).kill()
    session = wait_for_status(api, running, "error")
    assert session["error"]["code"] == "container_exited"
    assert session["error"]["message"].endswith("exited 137")
    assert session["error"]["hint"]
    assert session["containers"]["backend"]["status"] == "exited"
    last_events = list(api.events(running, last_event_id=0))[-3:]
    assert [event.event for event in last_events] == ["problem", "status", "end"]
    assert (last_events[1].data["previous"], last_events[1].data["status"]) == ("running", "error")

    assert api.http.post(f"/api/v1/sessions/{running}/recover").status_code == 202
    assert_recovered(api, running)


def test_a_container_that_is_removed(api: Api, docker_client: docker.DockerClient, running: str) -> None:
    before = container_of(docker_client, running).id
    container_of(docker_client, running).remove(force=True)
    session = wait_for_status(api, running, "error")
    assert session["error"]["code"] == "container_gone"
    assert session["containers"]["backend"]["status"] == "gone"

    (planned,) = recovery(api, session_ids=[running], dry_run=True)
    assert (planned["action"], planned["outcome"]) == ("recreate", "planned")
    assert api.get(running)["status"] == "error"
    (done,) = recovery(api, session_ids=[running])
    assert (done["action"], done["outcome"]) == ("recreate", "done")
    assert_recovered(api, running)
    assert container_of(docker_client, running).id != before
    assert any(
        "recovery:" in event.data["line"] for event in api.events(running, last_event_id=0) if event.event == "log"
    )
    alerts = api.http.get("/api/v1/alerts", params={"source": "recovery"}).json()["items"]
    assert [alert["severity"] for alert in alerts if running in alert["title"]] == ["warning"]


def test_an_app_that_runs_out_of_memory(api: Api, running: str) -> None:
    api.exec(running, ["python3", "-c", GET.format("eat")])
    session = wait_for_status(api, running, "error")
    assert session["error"]["code"] == "out_of_memory"
    assert api.http.post(f"/api/v1/sessions/{running}/recover").status_code == 202
    assert_recovered(api, running)


def test_a_command_that_runs_out_of_memory_leaves_the_session_running(api: Api, running: str) -> None:
    result = api.exec(running, ["python3", "-c", "bytearray(10**9)"])
    assert result["exit_code"] != 0
    assert api.exec(running, ["python3", "-c", GET.format("note.txt")])["stdout"].strip() == "edited"
    assert api.get(running)["status"] == "running"


def test_a_removed_volume_is_reported_as_lost(api: Api, docker_client: docker.DockerClient, running: str) -> None:
    container = container_of(docker_client, running)
    name = container.name
    container.remove(force=True)
    docker_client.volumes.get(name).remove()
    wait_for_status(api, running, "error")
    (done,) = recovery(api, session_ids=[running])
    assert (done["action"], done["outcome"], done["differs"]) == ("mark_lost", "done", ["backend"])
    assert api.get(running)["error"]["code"] == "workspace_lost"
    (after,) = recovery(api, session_ids=[running])
    assert after["action"] == "none"
    alerts = api.http.get("/api/v1/alerts", params={"source": "recovery"}).json()["items"]
    assert [alert["severity"] for alert in alerts if running in alert["title"]] == ["error"]

    api.http.post(f"/api/v1/sessions/{running}/recover").raise_for_status()
    list(api.events(running, last_event_id=0))
    assert api.exec(running, ["python3", "-c", GET.format("note.txt")])["stdout"].strip() == "as uploaded"


def test_a_container_that_exits_while_the_service_is_down_is_found(
    small: Service, api: Api, docker_client: docker.DockerClient, running: str
) -> None:
    small.kill()
    container_of(docker_client, running).kill()
    small.start()
    assert wait_for_status(api, running, "error")["error"]["code"] == "container_exited"
    (done,) = recovery(api, session_ids=[running])
    assert (done["action"], done["outcome"]) == ("restart", "done")
    assert_recovered(api, running)


def test_a_start_brings_back_what_ended_while_the_service_was_down(
    small: Service, api: Api, docker_client: docker.DockerClient, running: str
) -> None:
    """As after a reboot of the machine: the containers have stopped, and the service is started."""
    small.kill()
    container_of(docker_client, running).kill()
    small.start(SANDBOX_RECOVER_AT_START="true")
    log = f"/api/v1/sessions/{running}/pipeline-log"
    wait_until(lambda: "launched again" in api.http.get(log).text, small.tail)
    assert_recovered(api, running)
    small.stop()
    small.start()


def test_stray_resources_are_listed_and_removed(api: Api, docker_client: docker.DockerClient, running: str) -> None:
    deployment = container_of(docker_client, running).labels["sandbox.deployment_id"]
    session_id = str(uuid.uuid4())
    labels = {"sandbox.deployment_id": deployment, "sandbox.session_id": session_id, "sandbox.role": "main"}
    volume = docker_client.volumes.create(f"sbx-{uuid.uuid4().hex}-main", labels=labels)
    of_others = docker_client.volumes.create(labels=labels | {"sandbox.deployment_id": str(uuid.uuid4())})
    try:
        found = api.http.get("/api/v1/admin/recovery").json()["items"]
        assert {item["session_id"]: item["action"] for item in found} == {running: "none", session_id: "remove"}
        done = {item["session_id"]: item["outcome"] for item in recovery(api)}
        assert done == {running: "done", session_id: "done"}
        names = {volume.name for volume in docker_client.volumes.list()}
        assert volume.name not in names
        assert of_others.name in names
    finally:
        of_others.remove()


def test_only_an_admin_may_use_bulk_recovery(api: Api, small: Service) -> None:
    token = api.http.post("/api/v1/tokens", json={"user_id": "a-user", "role": "user"}).json()["token"]
    user = Api(small.url, token)
    assert user.http.get("/api/v1/admin/recovery").status_code == 403
    assert user.http.post("/api/v1/admin/recovery", json={}).status_code == 403
    user.http.close()


def test_a_terminated_session_cannot_be_recovered(api: Api) -> None:
    session_id = api.create()["session_id"]
    api.end(session_id)
    answer = api.http.post(f"/api/v1/sessions/{session_id}/recover")
    assert (answer.status_code, answer.json()["code"]) == (410, "session_over")


def test_the_command_line(api: Api, small: Service, docker_client: docker.DockerClient, running: str) -> None:
    container_of(docker_client, running).kill()
    wait_for_status(api, running, "error")
    env = os.environ | {"SANDBOX_URL": small.url, "SANDBOX_TOKEN": ADMIN_TOKEN, "COLUMNS": "200"}

    def sandbox(*arguments: str) -> str:
        command = [str(Path(sys.executable).parent / "sandbox"), *arguments]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "restart" in sandbox("recover", "--dry-run")
    assert api.get(running)["status"] == "error"
    assert "done" in sandbox("recover")
    assert_recovered(api, running)


def test_deletes_during_launches_leave_nothing(api: Api, docker_client: docker.DockerClient) -> None:
    made = []
    for pause in (0, 0.05, 0.1, 0.2, 0.3):
        made.append(api.create(project_id="lossy")["session_id"])
        time.sleep(pause)
        api.end(made[-1])
    for session_id in made:
        assert_nothing_left(docker_client, session_id)
