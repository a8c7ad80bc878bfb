"""Containers that are paused or cut off from their network from outside: seen, reported and mended."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import docker
import pytest

from tests.acceptance.api import Api
from tests.acceptance.crashed_launches import assert_nothing_left

#: `frontend` asks `backend` over the session's network.
_START = "exec python3 -m http.server $PORT"
PROJECT = {
    "sandbox.toml": "".join(
        f'[{role}]\nruntime = "python312"\nstart = "{_START}"\nport = {port}\n'
        for role, port in (("frontend", 3000), ("backend", 8000))
    ),
    "index.html": "reached",
}
ASK = "import urllib.request as u; print(u.urlopen('http://backend:8000/index.html', timeout=10).read().decode())"


def docker_run(*arguments: str) -> None:
    subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True)


def until(api: Api, session_id: str, status: str, code: str | None = None) -> dict[str, Any]:
    """Wait until the session has the status, and its error the code."""
    deadline = time.monotonic() + 120
    while True:
        session = api.get(session_id)
        if session["status"] == status and (code is None or session["error"]["code"] == code):
            return session
        assert time.monotonic() < deadline, session
        time.sleep(0.1)


@pytest.fixture
def running(admin: Api, docker_client: docker.DockerClient) -> Iterator[str]:
    """The id of a session of two roles whose apps run and reach each other."""
    admin.upload("faulty", PROJECT)
    session, _ = admin.launch(project_id="faulty")
    session_id = session["session_id"]
    assert session["status"] == "running", session
    assert ask(admin, session_id) == "reached"
    yield session_id
    admin.end(session_id)
    assert_nothing_left(docker_client, session_id)


def ask(api: Api, session_id: str) -> str:
    return api.exec(session_id, ["python3", "-c", ASK], role="frontend")["stdout"].strip()


def test_a_paused_container_is_told_and_is_as_before_when_it_is_resumed(admin: Api, running: str) -> None:
    container = admin.get(running)["containers"]["backend"]["id"]
    with ThreadPoolExecutor(1) as pool:
        body = {"command": "touch begun; sleep 600", "role": "backend", "timeout_seconds": 900}
        in_progress = pool.submit(admin.http.post, f"/api/v1/sessions/{running}/exec", json=body, timeout=60)
        while "begun" not in admin.exec(running, "ls", role="backend")["stdout"]:
            time.sleep(0.1)
        docker_run("pause", container)
        began = time.monotonic()
        ended = in_progress.result()
        print(f"the command ended after {time.monotonic() - began:.2f} s")
        assert (ended.status_code, ended.json()["code"]) == (503, "container_paused")
    try:
        session = until(admin, running, "error", "container_paused")
        assert session["containers"]["backend"]["status"] == "paused"
        began = time.monotonic()
        refused = admin.http.post(f"/api/v1/sessions/{running}/exec", json={"command": "true", "role": "backend"})
        print(f"refused after {time.monotonic() - began:.2f} s")
        assert (refused.status_code, refused.json()["code"]) == (503, "container_paused")
    finally:
        docker_run("unpause", container)
    session = until(admin, running, "running")
    assert session["error"] is None
    assert ask(admin, running) == "reached"


def test_a_network_that_is_removed_is_told_and_mended(admin: Api, running: str) -> None:
    containers = [info["id"] for info in admin.get(running)["containers"].values()]
    network = f"sbx-{running.replace('-', '')}"
    for container in containers:
        docker_run("network", "disconnect", "--force", network, container)
    docker_run("network", "rm", network)
    until(admin, running, "error", "network_lost")
    (planned,) = admin.http.post("/api/v1/admin/recovery", json={"session_ids": [running], "dry_run": True}).json()[
        "items"
    ]
    assert planned["action"] == "restart"
    assert "network" in planned["reason"]
    admin.http.post(f"/api/v1/sessions/{running}/recover").raise_for_status()
    list(admin.events(running, last_event_id=0))
    session = until(admin, running, "running")
    assert [info["id"] for info in session["containers"].values()] == containers
    assert ask(admin, running) == "reached"
