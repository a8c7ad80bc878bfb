"""PostgreSQL or the container engine stop and come back, or the service itself is stopped by SIGTERM."""

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import docker
import psutil
import pytest

from sandbox.db.embedded import EmbeddedPostgres
from sandbox.engine.runtimes import RuntimeCatalog
from sandbox.images.runtime_images import RuntimeImages
from tests.acceptance.api import Api
from tests.acceptance.crashed_launches import PROJECT, Viewer, assert_complete, assert_nothing_left
from tests.acceptance.service import ADMIN_TOKEN, Service
from tests.own_engine import OwnEngine


@pytest.fixture(scope="module")
def own(make_service: Callable[..., Service]) -> Iterator[Service]:
    """A service of this module, whose database may be stopped."""
    service = make_service()
    service.start()
    yield service
    service.stop()


@pytest.fixture(scope="module")
def api(own: Service) -> Iterator[Api]:
    api = Api(own.url, ADMIN_TOKEN)
    api.upload("mortal", PROJECT)
    yield api
    api.http.close()


def test_postgresql_stops_during_launches(own: Service, api: Api, docker_client: docker.DockerClient) -> None:
    sessions = [api.create(project_id="mortal")["session_id"] for _ in range(2)]
    viewers = [Viewer(api, session_id) for session_id in sessions]
    for viewer in viewers:
        viewer.wait_for("tick 2")
    own.stop_database()
    try:
        answer = api.http.get(f"/api/v1/sessions/{sessions[0]}")
        assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
        assert int(answer.headers["Retry-After"]) > 0
        assert api.http.get("/readyz").status_code == 503
        assert api.http.get("/healthz").status_code == 200
        for session_id in sessions:
            containers = docker_client.containers.list(filters={"label": f"sandbox.session_id={session_id}"})
            assert len(containers) == 2
    finally:
        asyncio.run(EmbeddedPostgres(own.home).start())
    for session_id, viewer in zip(sessions, viewers, strict=True):
        assert_complete(api, session_id, viewer.finish())
    own.wait_ready()
    stored = api.http.get("/api/v1/logs", params={"limit": 500, "level": "WARNING"}).json()["items"]
    assert any("wait in memory" in row["message"] for row in stored)
    for session_id in sessions:
        api.end(session_id)
        assert_nothing_left(docker_client, session_id)


def test_sigterm_leaves_sandboxes_and_installs_running(
    own: Service, api: Api, docker_client: docker.DockerClient
) -> None:
    session_id = api.create(project_id="mortal")["session_id"]
    viewer = Viewer(api, session_id)
    viewer.wait_for("tick 2")
    assert own.process is not None
    began = time.monotonic()
    own.process.send_signal(signal.SIGTERM)
    assert own.wait_dead(30) == -signal.SIGTERM, own.tail()
    assert "Application shutdown complete" in own.tail()
    print(f"ended in {time.monotonic() - began:.1f} s")
    assert len(docker_client.containers.list(filters={"label": f"sandbox.session_id={session_id}"})) == 2
    own.start()
    assert_complete(api, session_id, viewer.finish())
    api.end(session_id)
    assert_nothing_left(docker_client, session_id)


#: A project whose first install does not end by itself, and whose second one does.
INTERRUPTED = {
    "sandbox.toml": """
[backend]
runtime = "python312"
install = "test -e begun || { touch begun; echo begun=$((40 + 2)); sleep 3600; }; echo done=$((40 + 2))"
start = "exec python3 -m http.server $PORT"
port = 8000
""",
    "index.html": "<h1>here</h1>",
}


@pytest.fixture
def daemon(docker_client: docker.DockerClient) -> Iterator[OwnEngine]:
    """A container engine that may be restarted, with the image of the Python runtime."""
    home = Path(tempfile.mkdtemp(prefix="sbx-dockerd-"))
    daemon = OwnEngine(home)
    reference = asyncio.run(RuntimeImages(RuntimeCatalog()).ensure("python312"))
    try:
        daemon.start()
        with closing(docker.DockerClient(daemon.host)) as client:
            client.images.load(docker_client.images.get(reference).save(named=reference))
        yield daemon
    finally:
        daemon.end_everything()
        shutil.rmtree(home)


def wait_for_new_run(service: Service, api: Api, before: dict[str, Any]) -> None:
    """Wait until the session is running in another run, and see that none of its errors was false."""
    session_id, deadline = before["session_id"], time.monotonic() + 60
    while (now := api.get(session_id))["pipeline_run_id"] == before["pipeline_run_id"] or now["status"] != "running":
        assert time.monotonic() < deadline, (now, service.tail())
        time.sleep(0.2)
    events = api.events(session_id, last_event_id=0)
    assert {event.data["code"] for event in events if event.event == "problem"} <= {"container_exited"}


def lose_database(service: Service) -> None:
    """Kill every process of the embedded database at once."""
    pid = asyncio.run(EmbeddedPostgres(service.home).status()).pid
    assert pid is not None
    for process in [psutil.Process(pid), *psutil.Process(pid).children()]:
        process.kill()


def test_the_engine_ends_and_comes_back(daemon: OwnEngine, make_service: Callable[..., Service]) -> None:
    """The sessions come back by themselves, on their volumes: after a restart, after a crash and after a reboot."""
    service = make_service(DOCKER_HOST=daemon.host, SANDBOX_RECOVER_AT_START="true")
    service.start()
    api = Api(service.url, ADMIN_TOKEN)
    api.upload("mortal", PROJECT)
    session, _ = api.launch(project_id="mortal")
    session_id = session["session_id"]
    assert session["status"] == "running", session
    path = f"/api/v1/sessions/{session_id}"
    api.http.put(f"{path}/files", params={"path": "index.html"}, content=b"edited").raise_for_status()

    daemon.stop()
    assert api.http.get("/readyz").status_code == 503
    assert api.http.get("/api/v1/admin/recovery").status_code in (503, 504)
    assert api.get(session_id)["status"] != "terminated"
    daemon.start()
    wait_for_new_run(service, api, session)
    assert api.http.get(f"{path}/files", params={"path": "index.html"}).content == b"edited"

    # The engine is killed after it has started a container, and before it has recorded that.
    session = api.get(session_id)
    container, *_ = session["containers"].values()
    with closing(docker.DockerClient(daemon.host)) as client:
        left = psutil.Process(client.containers.get(container["id"]).attrs["State"]["Pid"])
    daemon.kill()
    daemon.forget_start(container["id"])
    daemon.start()
    wait_for_new_run(service, api, session)
    assert api.http.get(f"{path}/files", params={"path": "index.html"}).content == b"edited"

    # The container that the engine has lost has ended.
    deadline = time.monotonic() + 30
    while left.is_running() and left.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.1)

    # Everything ends at once, in the middle of a launch, as when the machine loses power.
    session = api.get(session_id)
    api.upload("interrupted", INTERRUPTED)
    launching = api.create(project_id="interrupted")["session_id"]
    viewer = Viewer(api, launching)
    viewer.wait_for("begun=42")
    service.kill()
    service.kill_edge()
    lose_database(service)
    daemon.lose_power()
    daemon.start()
    service.start()
    wait_for_new_run(service, api, session)
    assert api.http.get(f"{path}/files", params={"path": "index.html"}).content == b"edited"
    events = viewer.finish()
    assert events[-1].data["status"] == "running"
    assert [int(event.id or 0) for event in events] == list(range(1, len(events) + 1))

    for ended in (session_id, launching):
        api.end(ended)
        with closing(docker.DockerClient(daemon.host)) as client:
            assert_nothing_left(client, ended)
    api.http.close()
    service.stop()


def test_the_engine_restarts_during_a_launch(daemon: OwnEngine, make_service: Callable[..., Service]) -> None:
    """The launch waits for the engine, replaces the containers that ended with it, and goes on."""
    service = make_service(DOCKER_HOST=daemon.host, SANDBOX_RECOVER_AT_START="true")
    service.start()
    api = Api(service.url, ADMIN_TOKEN)
    api.upload("interrupted", INTERRUPTED)
    session_id = api.create(project_id="interrupted")["session_id"]
    viewer = Viewer(api, session_id)
    viewer.wait_for("begun=42")
    daemon.stop()
    deadline = time.monotonic() + 60
    while (waiting := api.get(session_id)["waiting"]) is None:
        assert time.monotonic() < deadline, service.tail()
        time.sleep(0.1)
    assert waiting["for"] == "engine"
    # A launch that is requested meanwhile waits too.
    later = api.create()["session_id"]
    while api.get(later)["waiting"] is None:
        assert time.monotonic() < deadline, service.tail()
        time.sleep(0.1)
    daemon.start()
    events = viewer.finish()
    session = api.get(session_id)
    assert (session["status"], session["waiting"]) == ("running", None), session["error"]
    assert [int(event.id or 0) for event in events] == list(range(1, len(events) + 1))
    lines = [event.data["line"] for event in events if event.event == "log"]
    assert any("answers again" in line for line in lines)
    assert any("it is started again on its volume" in line for line in lines)
    assert "done=42" in lines
    list(api.events(later, last_event_id=0))
    assert api.get(later)["status"] == "ready"

    for ended in (session_id, later):
        api.end(ended)
    api.http.close()
    service.stop()
