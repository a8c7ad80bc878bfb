"""The launch pipeline: what it records, several roles at once, relaunch, and a termination that leaves nothing."""

from __future__ import annotations

import asyncio
import itertools
import json
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import docker
import psycopg
import pytest
from psycopg.rows import dict_row

from sandbox.db.embedded import EmbeddedPostgres
from tests.acceptance.api import Api, SseEvent
from tests.acceptance.previews import page, preview
from tests.acceptance.service import Service

STAGES = ["plan", "network", "containers", "workspace", "dependencies", "services", "health", "preview"]

#: Each role's install waits for the other's, so the launch ends only if both run at the same time.
MEET = """
import socket, sys, time
listener = socket.create_server(("", 7000))
while True:
    try:
        socket.create_connection((sys.argv[1], 7000), 5).close()
        break
    except OSError:
        time.sleep(0.05)
listener.accept()
print("met", sys.argv[1])
"""
BACKEND = """
import json, os
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"installed": open("installed.txt").read(), **os.environ}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

HTTPServer(("0.0.0.0", int(os.environ["PORT"])), Handler).serve_forever()
"""
FRONTEND = """
const http = require("node:http");

http.createServer(async (request, response) => {
  const answer = await fetch(`${process.env.BACKEND_URL}/`);
  const { installed, GREETING, FROM_PLAN, SANDBOX_ROLE } = await answer.json();
  response.setHeader("Content-Type", "application/json");
  response.end(JSON.stringify({ installed, GREETING, FROM_PLAN, SANDBOX_ROLE, own: process.env.GREETING }));
}).listen(Number(process.env.PORT), "127.0.0.1");
"""
TWO_ROLES: dict[str, str | bytes] = {
    "sandbox.toml": """
[backend]
runtime = "python312"
install = "python3 meet.py frontend && printf '%s %s' \\"$GREETING\\" \\"$FROM_PLAN\\" > installed.txt"
start = "python3 backend.py"
port = 8000
env = { FROM_PLAN = "planned", GREETING = "overruled by the caller" }

[frontend]
runtime = "node20"
install = "python3 meet.py backend"
start = "node frontend.js"
port = 5173
""",
    "meet.py": MEET,
    "backend.py": BACKEND,
    "frontend.js": FRONTEND,
}


@dataclass(frozen=True)
class Launched:
    session: dict[str, Any]
    events: list[SseEvent]

    @property
    def id(self) -> str:
        return str(self.session["session_id"])

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event.data for event in self.events if event.event == kind]


@pytest.fixture(scope="module")
def two_roles(admin: Api) -> Iterator[Launched]:
    """A running session of two roles, which many tests read."""
    plan = admin.upload("two-roles", TWO_ROLES)["plan"]
    assert set(plan) == {"backend", "frontend"}
    session, events = admin.launch(project_id="two-roles", env={"GREETING": "hello there"})
    assert session["status"] == "running", session["error"]
    yield Launched(session, events)
    admin.end(session["session_id"])


@pytest.fixture(scope="module")
def database(service: Service) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    dsn = asyncio.run(EmbeddedPostgres(service.home).start())
    with psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as connection:
        yield connection


def row_of(database: psycopg.Connection[dict[str, Any]], session_id: str) -> dict[str, Any]:
    row = database.execute("SELECT * FROM sandbox_sessions WHERE session_id = %s", [session_id]).fetchone()
    assert row is not None
    return row


def test_every_stage_is_recorded(two_roles: Launched, database: psycopg.Connection[dict[str, Any]]) -> None:
    stage_events = two_roles.of("stage")
    assert [(event["stage"], event["state"]) for event in stage_events] == [
        (stage, state) for stage in STAGES for state in ("started", "completed")
    ]
    assert all((event["index"], event["total"]) == (STAGES.index(event["stage"]) + 1, 8) for event in stage_events)

    run_id = stage_events[0]["run_id"]
    rows = database.execute("SELECT * FROM session_stages WHERE run_id = %s ORDER BY started_at", [run_id]).fetchall()
    assert [(row["stage"], row["state"], row["error_code"]) for row in rows] == [(s, "completed", None) for s in STAGES]
    assert all(row["started_at"] <= row["ended_at"] for row in rows)
    assert all(before["ended_at"] <= after["started_at"] for before, after in itertools.pairwise(rows))
    assert [row["duration_ms"] for row in rows] == [e["duration_ms"] for e in stage_events if e["state"] == "completed"]
    run = database.execute("SELECT * FROM session_runs WHERE run_id = %s", [run_id]).fetchone()
    assert run is not None
    assert (run["outcome"], run["failure_code"]) == ("completed", None)
    assert run["started_at"] <= rows[0]["started_at"] <= rows[-1]["ended_at"] <= run["ended_at"]


def test_the_session_matches_the_engine(
    two_roles: Launched, docker_client: docker.DockerClient, database: psycopg.Connection[dict[str, Any]]
) -> None:
    session, row = two_roles.session, row_of(database, two_roles.id)
    assert (session["preview_port"], session["backend_port"], session["runtime_type"]) == (5173, 8000, "python312")
    assert session["pipeline_stage"] == "preview"
    assert session["error"] is None
    for column in ("status", "containers", "preview_port", "backend_port", "pipeline_stage", "runtime_type", "user_id"):
        assert row[column] == session[column], column
    assert (row["work"], row["owner"], row["terminated_at"]) == (None, None, None)
    assert datetime.fromisoformat(session["created_at"]) <= datetime.fromisoformat(session["last_active"])

    found = docker_client.containers.list(filters={"label": f"sandbox.session_id={two_roles.id}"})
    assert {container.labels["sandbox.role"]: container.id for container in found} == {
        role: container["id"] for role, container in session["containers"].items()
    }
    for container in found:
        recorded = session["containers"][container.labels["sandbox.role"]]
        (network,) = container.attrs["NetworkSettings"]["Networks"].values()
        assert (recorded["ip"], recorded["status"]) == (network["IPAddress"], container.status)
    assert {role: recorded["runtime"] for role, recorded in session["containers"].items()} == {
        "backend": "python312",
        "frontend": "node20",
    }


def test_the_pipeline_log_is_made_of_the_events(
    admin: Api, two_roles: Launched, database: psycopg.Connection[dict[str, Any]]
) -> None:
    log = admin.http.get(f"/api/v1/sessions/{two_roles.id}/pipeline-log").text
    assert log == row_of(database, two_roles.id)["pipeline_log"]
    assert log.splitlines() == [_log_line(event) for event in two_roles.events]


def _log_line(event: SseEvent) -> str:
    data = event.data
    time = datetime.fromisoformat(data["time"]).strftime("%H:%M:%S.%f")[:-3]
    if event.event == "stage":
        took = f" {data['duration_ms']} ms" if "duration_ms" in data else ""
        return f"{time} [{data['stage']}] {data['state']}{took}"
    if event.event == "log":
        return f"{time} [{data['stage']}] " + (f"{data['role']}: " if data["role"] else "") + data["line"]
    if event.event == "status":
        return f"{time} status: " + (f"{data['previous']} -> " if data["previous"] else "") + data["status"]
    return f"{time} preview: {data['url']}" if event.event == "preview" else f"{time} end: {data['status']}"


def test_roles_are_launched_at_the_same_time(two_roles: Launched) -> None:
    met = {(event["role"], event["line"]) for event in two_roles.of("log") if event["line"].startswith("met ")}
    assert met == {("backend", "met frontend"), ("frontend", "met backend")}


def test_roles_reach_each_other_by_name_and_get_their_environment(admin: Api, two_roles: Launched) -> None:
    with preview(admin, two_roles.session) as client:
        answer = json.loads(page(client))
    assert answer == {
        "installed": "hello there planned",
        "GREETING": "hello there",
        "FROM_PLAN": "planned",
        "SANDBOX_ROLE": "backend",
        "own": "hello there",
    }


def test_a_relaunch_uses_the_replaced_project(admin: Api, database: psycopg.Connection[dict[str, Any]]) -> None:
    def version(number: int) -> dict[str, str | bytes]:
        return {"index.html": f"<h1>Version {number}</h1>"}

    first_upload = admin.upload("replaced", version(1))
    session, first = admin.launch(project_id="replaced")
    session_id, last_seq = session["session_id"], int(first[-1].id or 0)
    with preview(admin, session) as client:
        assert "Version 1" in page(client)

        assert admin.upload("replaced", version(2))["digest"] != first_upload["digest"]
        assert "Version 1" in page(client)
        again = admin.http.post(f"/api/v1/sessions/{session_id}/relaunch")
        assert again.status_code == 202, again.text
        second = list(admin.events(session_id, last_event_id=last_seq))
        assert [int(event.id or 0) for event in second] == list(range(last_seq + 1, last_seq + 1 + len(second)))
        assert {event.data["run_id"] for event in second}.isdisjoint(event.data["run_id"] for event in first)
        assert (second[0].event, second[0].data["status"], second[0].data["previous"]) == (
            "status",
            "creating",
            "running",
        )
        assert (second[-1].event, second[-1].data["status"]) == ("end", "running")
        assert "Version 2" in page(client)

    after = admin.get(session_id)
    assert after["containers"] == session["containers"]
    servers = admin.exec(session_id, "grep -la '^python3.*http.server' /proc/[0-9]*/cmdline | wc -l")
    assert servers["stdout"].strip() == "1", "the first run's server was left running"
    runs = database.execute(
        "SELECT outcome FROM session_runs WHERE session_id = %s ORDER BY started_at", [session_id]
    ).fetchall()
    assert [run["outcome"] for run in runs] == ["completed", "completed"]
    admin.end(session_id)
    assert row_of(database, session_id)["pipeline_log"].count("[plan] started") == 2


def test_termination_leaves_nothing(
    admin: Api,
    service: Service,
    docker_client: docker.DockerClient,
    database: psycopg.Connection[dict[str, Any]],
) -> None:
    server = 'runtime = "python312"\nstart = "python3 -m http.server 8000"\nport = 8000\n'
    admin.upload("ends", {"sandbox.toml": f"[one]\n{server}[two]\n{server}"})
    session, events = admin.launch(project_id="ends")
    session_id = session["session_id"]
    sockets = service.home / "run" / session_id[-12:]
    assert sorted(folder.name for folder in sockets.iterdir()) == ["one", "two"]
    assert _resources(docker_client, session_id) == (2, 2, 1)

    admin.end(session_id)
    assert _resources(docker_client, session_id) == (0, 0, 0)
    assert not sockets.exists()
    assert (
        database.execute(
            "SELECT * FROM session_resources WHERE session_id = %s AND removed_at IS NULL", [session_id]
        ).fetchall()
        == []
    )
    over = admin.get(session_id)
    assert (over["status"], over["containers"], over["preview_url"]) == ("terminated", {}, None)
    assert over["terminated_at"] is not None
    last = list(admin.events(session_id, last_event_id=int(events[-1].id or 0)))
    assert [(event.event, event.data["status"]) for event in last] == [("status", "terminated"), ("end", "terminated")]
    # A second DELETE succeeds; every other request is refused because the session is over.
    assert admin.http.delete(f"/api/v1/sessions/{session_id}").status_code == 202
    for path in ("relaunch", "exec"):
        answer = admin.http.post(
            f"/api/v1/sessions/{session_id}/{path}", json={"command": "true"} if path == "exec" else {}
        )
        assert (answer.status_code, answer.json()["code"]) == (410, "session_over"), path


def _resources(client: docker.DockerClient, session_id: str) -> tuple[int, int, int]:
    label = {"label": f"sandbox.session_id={session_id}"}
    containers = client.containers.list(all=True, filters=label)
    return len(containers), len(client.volumes.list(filters=label)), len(client.networks.list(filters=label))


def test_delete_in_the_middle_of_an_install(
    admin: Api, docker_client: docker.DockerClient, database: psycopg.Connection[dict[str, Any]]
) -> None:
    files = {"sandbox.toml": '[app]\nruntime = "node20"\ninstall = "echo under way; sleep 3600"\nstart = "false"\n'}
    admin.upload("long-install", files)
    session_id = admin.create(project_id="long-install")["session_id"]
    events: list[SseEvent] = []
    for event in admin.events(session_id):
        events.append(event)
        if event.event == "log" and event.data["line"] == "under way":
            assert admin.http.delete(f"/api/v1/sessions/{session_id}").status_code == 202
    assert (events[-1].event, events[-1].data["status"]) == ("end", "terminated")
    assert [event for event in events if event.event == "problem"] == []
    assert _resources(docker_client, session_id) == (0, 0, 0)
    run = database.execute("SELECT outcome FROM session_runs WHERE session_id = %s", [session_id]).fetchone()
    assert run == {"outcome": "cancelled"}


def test_requests_with_one_idempotency_key_make_one_session(admin: Api, make_user: Callable[[], Api]) -> None:
    one, other = make_user(), make_user()
    headers = {"Idempotency-Key": f"key-{uuid.uuid4()}"}

    def post(api: Api, **body: Any) -> Any:
        return api.http.post("/api/v1/sessions", json=body, headers=headers)

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: post(one), range(6)))
    assert {answer.status_code for answer in answers} == {202}, [answer.text for answer in answers]
    (session_id,) = {answer.json()["session_id"] for answer in answers}
    assert {answer.headers["location"] for answer in answers} == {f"/api/v1/sessions/{session_id}"}
    assert len(one.http.get("/api/v1/sessions").json()["items"]) == 1

    one.upload("keyed", {"index.html": "<h1>another</h1>"})
    refused = post(one, project_id="keyed")
    assert (refused.status_code, refused.json()["code"]) == (409, "idempotency_conflict")
    for other_body in (
        {"env": {"A": "1"}},
        {"runtime_type": "node20"},
        {"idle_timeout_seconds": 60},
        {"agents": ["a"]},
    ):
        refused = post(one, **other_body)
        assert (refused.status_code, refused.json()["code"]) == (409, "idempotency_conflict"), other_body
    assert post(one, env={}).json()["session_id"] == session_id  # an absent field equals its default
    theirs = post(other).json()["session_id"]
    assert theirs != session_id
    one.end(session_id)
    other.end(theirs)
