"""Compares the API with the container engine alone: commands, and the creation and launch of a blank session."""

from __future__ import annotations

import time
import uuid

import docker

from tests.acceptance.api import Api
from tests.bench.measure import alternately, p50, print_durations, print_ratio
from tests.bench.service import launching_service

COMMANDS = 100
SESSIONS = 20


def main() -> None:
    engine = docker.APIClient()
    with launching_service() as api:
        _commands(api, engine)
        _creation(api, engine)
    engine.close()


def _commands(api: Api, engine: docker.APIClient) -> None:
    session, _ = api.launch()
    container = session["containers"]["main"]["id"]
    path = f"/api/v1/sessions/{session['session_id']}/exec"

    def raw() -> None:
        made = engine.exec_create(container, ["true"], user="1000")
        engine.exec_start(made["Id"])

    durations = alternately(
        COMMANDS, api=lambda: api.http.post(path, json={"command": ["true"]}).raise_for_status(), docker=raw
    )
    print_durations("exec of `true` through the API", durations["api"])
    print_durations("docker exec of `true`", durations["docker"])
    print_ratio("API / docker exec", p50(durations["api"]) / p50(durations["docker"]), "under 0.1")


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
        """Wait for the end of the last launch, so that only the request is measured and not the queue before it."""
        if launched:
            list(api.events(launched[-1]))

    posts = []
    for _ in range(SESSIONS):
        idle_post()
        start = time.perf_counter()
        post()
        posts.append(time.perf_counter() - start)
    print_durations("POST /sessions", sorted(posts))
    idle_post()
    durations = alternately(SESSIONS, launch=launch, docker=raw)
    print_durations("POST to the end of a blank launch", durations["launch"])
    print_durations("docker create + start + remove, bare", durations["docker"])
    print_ratio("launch / docker", p50(durations["launch"]) / p50(durations["docker"]), "(for comparison)")
