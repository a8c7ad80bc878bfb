"""The API against the raw engine: commands, session creation, and the launch of a blank session."""

from __future__ import annotations

import shutil
import tempfile
import time
import uuid
from pathlib import Path

import docker

from tests.acceptance.api import Api
from tests.acceptance.service import ADMIN_TOKEN, Service
from tests.bench.measure import in_turns, line, p50, ratio

COMMANDS = 100
SESSIONS = 20


def main() -> None:
    home = Path(tempfile.mkdtemp(prefix="sbx-bench-"))
    home.chmod(0o711)
    service = Service(home)
    service.start(SANDBOX_MAX_SESSIONS_PER_USER="500")
    api, engine = Api(service.url, ADMIN_TOKEN), docker.APIClient()
    try:
        _commands(api, engine)
        _creation(api, engine)
    finally:
        for session in api.http.get("/api/v1/sessions", params={"limit": 500}).json()["items"]:
            if session["status"] != "terminated":
                api.end(session["session_id"])
        api.http.close()
        engine.close()
        service.stop()
        service.stop_database()
        shutil.rmtree(home, ignore_errors=True)


def _commands(api: Api, engine: docker.APIClient) -> None:
    session, _ = api.launch()
    container = session["containers"]["main"]["id"]
    path = f"/api/v1/sessions/{session['session_id']}/exec"

    def raw() -> None:
        made = engine.exec_create(container, ["true"], user="1000")
        engine.exec_start(made["Id"])

    taken = in_turns(
        COMMANDS, api=lambda: api.http.post(path, json={"command": ["true"]}).raise_for_status(), docker=raw
    )
    line("exec of `true` through the API", taken["api"])
    line("docker exec of `true`", taken["docker"])
    ratio("API / docker exec", p50(taken["api"]) / p50(taken["docker"]), "under 0.1")


def _creation(api: Api, engine: docker.APIClient) -> None:
    session, _ = api.launch()
    image = engine.inspect_container(session["containers"]["main"]["id"])["Config"]["Image"]
    launched: list[str] = []

    def post() -> None:
        launched.append(api.create()["session_id"])

    def raw() -> None:
        made = engine.create_container(image, name=f"bench-{uuid.uuid4().hex}", labels={"sandbox.bench": "1"})
        engine.start(made["Id"])
        engine.remove_container(made["Id"], force=True)

    def launch() -> None:
        launched.append(api.launch()[0]["session_id"])

    def idle_post() -> None:
        """The last launch is over before the next begins: the figure is the request's, not the queue's."""
        if launched:
            list(api.events(launched[-1]))

    posts = []
    for _ in range(SESSIONS):
        idle_post()
        start = time.perf_counter()
        post()
        posts.append(time.perf_counter() - start)
    line("POST /sessions", sorted(posts))
    idle_post()
    taken = in_turns(SESSIONS, launch=launch, docker=raw)
    line("POST to the end of a blank launch", taken["launch"])
    line("docker create + start + remove, bare", taken["docker"])
    ratio("launch / docker", p50(taken["launch"]) / p50(taken["docker"]), "(for comparison)")
