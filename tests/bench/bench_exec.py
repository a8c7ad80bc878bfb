"""Measures commands through the API: latency over one connection, a sustained rate, and output to a reader."""

from __future__ import annotations

import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import docker

from tests.acceptance.api import Api
from tests.acceptance.service import ADMIN_TOKEN, Service
from tests.bench.measure import alternately, p50, print_durations, print_ratio

COMMANDS = 400
RAW = 20
CLIENTS = 4
SECONDS = 10.0
OUTPUT_MB = 48


def main() -> None:
    home = Path(tempfile.mkdtemp(prefix="sbx-bench-"))
    home.chmod(0o711)
    service = Service(home, env={"SANDBOX_POOL_MAX": "0", "SANDBOX_LOG_LEVEL": "WARNING"})
    service.start()
    api, engine = Api(service.url, ADMIN_TOKEN), docker.APIClient()
    session, _ = api.launch()
    try:
        _latency(api, engine, session)
        _rate(service, session["session_id"])
        _output(api, session["session_id"])
    finally:
        api.end(session["session_id"])
        api.http.close()
        engine.close()
        service.stop()
        service.stop_edge()
        service.stop_database()
        shutil.rmtree(home, ignore_errors=True)


def _latency(api: Api, engine: docker.APIClient, session: dict[str, Any]) -> None:
    path = f"/api/v1/sessions/{session['session_id']}/exec"
    container = session["containers"]["main"]["id"]

    def raw() -> None:
        engine.exec_start(engine.exec_create(container, ["true"], user="1000")["Id"])

    found = alternately(
        COMMANDS,
        api=lambda: api.http.post(path, json={"command": ["true"]}).raise_for_status(),
        health=lambda: api.http.get("/healthz").raise_for_status(),
    )
    docker_exec = alternately(RAW, docker=raw)["docker"]
    print_durations("exec of `true`, one connection", found["api"])
    print_durations("GET /healthz, the same connection", found["health"])
    print_durations("docker exec of `true`", docker_exec)
    print_ratio("p50, ms", p50(found["api"]) * 1000, "under 3")
    print_ratio("p99, ms", found["api"][int(COMMANDS * 0.99)] * 1000, "under 10")
    print_ratio("exec / healthz", p50(found["api"]) / p50(found["health"]), "(for comparison)")
    print_ratio("exec / docker exec", p50(found["api"]) / p50(docker_exec), "under 0.1")


def _rate(service: Service, session_id: str) -> None:
    end = time.monotonic() + SECONDS

    def client(_number: int) -> int:
        api, done = Api(service.url, ADMIN_TOKEN), 0
        while time.monotonic() < end:
            api.http.post(f"/api/v1/sessions/{session_id}/exec", json={"command": ["true"]}).raise_for_status()
            done += 1
        api.http.close()
        return done

    with ThreadPoolExecutor(CLIENTS) as threads:
        total = sum(threads.map(client, range(CLIENTS)))
    print_ratio(f"commands a second, {CLIENTS} connections", total / SECONDS, "200 or more")


def _output(api: Api, session_id: str) -> None:
    """Lines of text as events, as they are printed."""
    lines = OUTPUT_MB * 8192
    command = f"yes {'x' * 127} | head -n {lines}"
    start, received = time.perf_counter(), 0
    headers = {"Accept": "text/event-stream"}
    path, body = f"/api/v1/sessions/{session_id}/exec", {"command": command}
    with api.http.stream("POST", path, json=body, headers=headers) as response:
        response.raise_for_status()
        for chunk in response.iter_raw():
            received += len(chunk)
    print_ratio("MB of output a second to a reader", received / 1e6 / (time.perf_counter() - start), "100 or more")
    # A command is killed after a minute.
    print_ratio("share of the output that arrived", received / (lines * 128), "1 or more")
