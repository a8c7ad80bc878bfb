"""Instrumented apps in sandboxes export telemetry with unmodified SDKs, without an endpoint or token in their code."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest
from docker.models.containers import Container

from tests.acceptance.api import Api
from tests.acceptance.crashed_launches import assert_nothing_left
from tests.acceptance.service import ADMIN_TOKEN, Service
from tests.waiting import wait_until

PYTHON = Path(__file__).resolve().parents[2] / "examples" / "instrumented"
NODE = {
    "package.json": json.dumps(
        {
            "name": "js-shop",
            "dependencies": {
                "@opentelemetry/api": "^1.9.0",
                "@opentelemetry/api-logs": "*",
                "@opentelemetry/instrumentation-http": "*",
                "@opentelemetry/sdk-node": "*",
            },
        }
    ),
    "telemetry.js": """
const { NodeSDK } = require("@opentelemetry/sdk-node");
const { HttpInstrumentation } = require("@opentelemetry/instrumentation-http");
new NodeSDK({ instrumentations: [new HttpInstrumentation()] }).start();
""",
    "server.js": """
const { trace } = require("@opentelemetry/api");
const { logs, SeverityNumber } = require("@opentelemetry/api-logs");
require("http").createServer((request, response) => {
  logs.getLogger("shop").emit({
    severityNumber: SeverityNumber.WARN, body: `answer for ${request.url.slice(1)}`,
    attributes: { "user.id": "somebody else", session_id: "another" },
  });
  const { traceId } = trace.getActiveSpan().spanContext();
  response.end(JSON.stringify({ trace_id: traceId }));
}).listen(process.env.PORT);
""",
    "sandbox.toml": """
[web]
runtime = "node20"
install = "npm install --no-audit --no-fund"
start = "node --require ./telemetry.js server.js"
port = 3000
env = { OTEL_BSP_SCHEDULE_DELAY = "200", OTEL_BLRP_SCHEDULE_DELAY = "200" }
""",
}
#: Gets a page of the app, inside its container.
GET = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:{}{}').read().decode())"
#: Sends log records to the endpoint in the environment. Arguments: records per request, requests, text, token. Prints
#: the status and `Retry-After` of each answer.
SEND = """
import json, os, sys, urllib.error, urllib.parse, urllib.request
records, times, text = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
name, _, value = os.environ["OTEL_EXPORTER_OTLP_HEADERS"].partition("=")
token = sys.argv[4] if len(sys.argv) > 4 else urllib.parse.unquote(value)
attributes = [{"key": key, "value": {"stringValue": "another"}} for key in ("session_id", "user.id")]
record = {"body": {"stringValue": text}, "attributes": attributes}
body = {"resourceLogs": [{"resource": {"attributes": attributes}, "scopeLogs": [{"logRecords": [record] * records}]}]}
for _ in range(times):
    request = urllib.request.Request(
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] + "/v1/logs",
        json.dumps(body).encode(), {name: token, "Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request) as answer:
            print(answer.status, "-")
    except urllib.error.HTTPError as error:
        print(error.code, error.headers["Retry-After"])
"""


def trace_of(api: Api, trace_id: str) -> list[dict[str, Any]]:
    """Wait until the trace is stored; return its root spans."""
    deadline = time.monotonic() + 60
    while (answer := api.http.get(f"/api/v1/traces/{trace_id}")).status_code != 200:
        assert time.monotonic() < deadline, f"trace {trace_id} was not stored: {answer.text}"
        time.sleep(0.1)
    spans: list[dict[str, Any]] = answer.json()["spans"]
    return spans


def log_lines(api: Api, text: str, **filters: str) -> list[dict[str, Any]]:
    """Wait until log lines with this text are stored; return them."""
    deadline = time.monotonic() + 60
    while not (items := api.http.get("/api/v1/logs", params={"q": text, **filters}).json()["items"]):
        assert time.monotonic() < deadline, f"no line has {text!r}"
        time.sleep(0.1)
    lines: list[dict[str, Any]] = items
    return lines


def container_of(client: docker.DockerClient, session_id: str) -> Container:
    (container,) = client.containers.list(filters={"label": f"sandbox.session_id={session_id}"})
    return container


def send(api: Api, session_id: str, text: str, *, records: int = 1, times: int = 1, token: str = "") -> list[list[str]]:
    command = ["python3", "-c", SEND, str(records), str(times), text, *([token] if token else [])]
    done = api.exec(session_id, command)
    assert done["exit_code"] == 0, done
    return [line.split() for line in done["stdout"].splitlines()]


def token_of(api: Api, session_id: str) -> str:
    headers: str = api.exec(session_id, "echo $OTEL_EXPORTER_OTLP_HEADERS")["stdout"].strip()
    assert headers.startswith("authorization=Bearer%20sbxs_")
    return headers.removeprefix("authorization=Bearer%20")


def test_a_flask_app_and_the_python_sdk(user: Api, make_user: Callable[[], Api]) -> None:
    user.upload_folder("shop", PYTHON)
    session, _ = user.launch(project_id="shop")
    session_id = session["session_id"]
    assert session["status"] == "running", session["error"]
    bought = json.loads(user.exec(session_id, ["python3", "-c", GET.format(8000, "/buy/bolt")])["stdout"])

    (root,) = trace_of(user, bought["trace_id"])
    (child,) = root["children"]
    assert (root["operation_name"], root["service_name"], root["status"]) == ("GET /buy/<item>", "shop", "success")
    assert (child["operation_name"], child["tags"]["shop.item"]) == ("take from stock", "bolt")
    (line,) = log_lines(user, "bolt is sold out")
    assert (line["level"], line["service"], line["request_id"]) == ("WARNING", "shop", bought["trace_id"])
    for said in (root["tags"], child["tags"], line["metadata"]):
        assert said["session_id"] == session_id
        assert said["resource"]["sandbox.session.id"] == session_id
    assert {root["tags"]["user_id"], line["user_id"]} == {session["user_id"]}
    assert make_user().http.get(f"/api/v1/traces/{bought['trace_id']}").status_code == 404
    # Telemetry is exported from the start, so the health check of the launch is in it as well.
    names = {
        item["operation_name"]
        for item in user.http.get("/api/v1/traces", params={"service_name": "shop"}).json()["items"]
    }
    assert "GET /" in names
    # The SDK had no reason to log an error.
    printed = user.http.get(f"/api/v1/sessions/{session_id}/logs", params={"follow": "false"}).text
    assert "sold out" in printed
    assert "Failed to export" not in printed
    assert "opentelemetry" not in printed
    user.end(session_id)


def test_a_node_app_and_the_javascript_sdk(user: Api) -> None:
    user.upload("js-shop", NODE)
    session, events = user.launch(project_id="js-shop")
    session_id = session["session_id"]
    assert session["status"] == "running", [event.data for event in events][-20:]
    get = "fetch('http://127.0.0.1:3000/nut').then(r => r.text()).then(console.log)"
    answer = json.loads(user.exec(session_id, ["node", "-e", get])["stdout"])
    (root,) = trace_of(user, answer["trace_id"])
    assert (root["service_name"], root["tags"]["session_id"]) == ("js-shop", session_id)
    assert root["tags"]["user_id"] == session["user_id"]
    (line,) = log_lines(user, "answer for nut")
    assert (line["level"], line["user_id"]) == ("WARNING", session["user_id"])
    # The session and user that the app claims in its records are replaced.
    assert (line["metadata"]["session_id"], line["metadata"]["user.id"]) == (session_id, session["user_id"])
    user.end(session_id)


def test_commands_in_a_blank_session_export_and_cannot_pretend_to_be_others(user: Api, admin: Api, blank: str) -> None:
    text = f"said{uuid.uuid4().hex}"
    assert send(admin, blank, text) == [["200", "-"]]
    (line,) = log_lines(admin, text)
    assert (line["user_id"], line["metadata"]["session_id"], line["service"]) == ("admin", blank, "unknown_service")
    assert "another" not in json.dumps(line)

    other, _ = user.launch()
    for token in (f"Bearer {token_of(user, other['session_id'])}", "Bearer sbxs_none", f"Bearer {ADMIN_TOKEN}", "x"):
        assert send(admin, blank, text, token=token) == [["401", "None"]]
    user.end(other["session_id"])


def test_the_token_of_a_session_is_valid_for_exports_only_and_until_it_ends(user: Api, service: Service) -> None:
    session, _ = user.launch()
    token = token_of(user, session["session_id"])
    empty: dict[str, list[Any]] = {"resourceLogs": []}
    with httpx.Client(base_url=service.url, headers={"Authorization": f"Bearer {token}"}, trust_env=False) as http:
        assert http.post("/v1/logs", json=empty).status_code == 200
        paths = user.http.get("/openapi.json").json()["paths"]
        open_to_all = set()
        for path, methods in paths.items():
            for method in methods:
                route = path.replace("{session_id}", session["session_id"])
                while "{" in route:
                    route = route[: route.index("{")] + "1" + route[route.index("}") + 1 :]
                if route not in ("/v1/logs", "/v1/traces"):
                    answer = http.request(method, route, json={})
                    if answer.status_code not in (401, 403):
                        open_to_all.add((route, answer.status_code))
                        # The answer must be that to a request without any token.
                        plain = httpx.request(method, f"{service.url}{route}", json={}, trust_env=False)
                        assert plain.status_code == answer.status_code, route
        assert len(paths) > 30
        assert not any(route.startswith("/api/") for route, _ in open_to_all), open_to_all
        user.end(session["session_id"])
        refused = http.post("/v1/logs", json=empty)
        assert (refused.status_code, "is over" in refused.text) == (401, True)


@pytest.fixture(scope="module")
def mortal(make_service: Callable[..., Service]) -> Iterator[Service]:
    """A service of this module, which tests may kill and must leave running."""
    service = make_service(SANDBOX_REPLICA_LEASE_SECONDS="3", SANDBOX_SESSION_RECORDS_PER_MINUTE="1000")
    service.start()
    yield service
    service.stop()


@pytest.fixture(scope="module")
def api(mortal: Service) -> Iterator[Api]:
    api = Api(mortal.url, ADMIN_TOKEN)
    yield api
    api.http.close()


@pytest.fixture(scope="module")
def shop(api: Api, docker_client: docker.DockerClient) -> Iterator[str]:
    """The id of a session of the instrumented example, whose exporter retries for a minute."""
    api.upload_folder("shop", PYTHON)
    session, _ = api.launch(project_id="shop", env={"OTEL_EXPORTER_OTLP_TIMEOUT": "60"})
    assert session["status"] == "running", session["error"]
    yield session["session_id"]
    api.end(session["session_id"])
    assert_nothing_left(docker_client, session["session_id"])


def buy(client: docker.DockerClient, session_id: str) -> str:
    """Call the app through the engine instead of the service; return the id of the trace."""
    done = container_of(client, session_id).exec_run(["python3", "-c", GET.format(8000, "/buy/nut")])
    assert done.exit_code == 0, done.output
    trace_id: str = json.loads(done.output)["trace_id"]
    return trace_id


def test_telemetry_exported_while_the_service_is_down_arrives_after_its_start(
    mortal: Service, api: Api, shop: str, docker_client: docker.DockerClient
) -> None:
    mortal.kill()
    trace_id = buy(docker_client, shop)
    mortal.start()
    (root,) = trace_of(api, trace_id)
    assert root["tags"]["session_id"] == shop
    # The same for an orderly stop.
    mortal.stop()
    trace_id = buy(docker_client, shop)
    mortal.start()
    trace_of(api, trace_id)


def collected(service: Service) -> int:
    """Return from how many containers this replica collects telemetry."""
    metrics = httpx.get(f"{service.url}/metrics", headers={"X-API-Key": ADMIN_TOKEN}, trust_env=False, timeout=30).text
    return int(float(metrics.partition("\nsandbox_collected_containers ")[2].split()[0]))


def test_another_replica_takes_over_from_one_that_dies_or_hangs(
    mortal: Service, make_service: Callable[..., Service], api: Api, shop: str, docker_client: docker.DockerClient
) -> None:
    second = make_service(mortal.home, SANDBOX_REPLICA_LEASE_SECONDS="3")
    try:
        for hangs in (False, True):
            second.start()
            # One of the two collects and the other does not; which one depends on the numbers of the replicas.
            wait_until(lambda: sorted([collected(mortal), collected(second)]) == [0, 1])
            fetching, other = (mortal, second) if collected(mortal) else (second, mortal)
            trace_of(api, buy(docker_client, shop))
            if hangs:
                fetching.freeze()
            else:
                fetching.kill()
            trace_id = buy(docker_client, shop)
            asking = Api(other.url, ADMIN_TOKEN)
            (root,) = trace_of(asking, trace_id)
            assert root["tags"]["session_id"] == shop
            asking.http.close()
            if hangs:
                fetching.thaw()
                fetching.wait_ready()
            elif fetching is mortal:
                mortal.start()
            second.stop()
            trace_of(api, buy(docker_client, shop))
    finally:
        second.stop()


def test_an_app_exports_again_after_its_container_was_lost(
    api: Api, shop: str, docker_client: docker.DockerClient
) -> None:
    container_of(docker_client, shop).kill()
    deadline = time.monotonic() + 60
    while api.get(shop)["status"] != "error":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    answer = api.http.post("/api/v1/admin/recovery", json={})
    assert answer.status_code == 200, answer.text
    list(api.events(shop, last_event_id=0))
    while api.get(shop)["status"] != "running":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (root,) = trace_of(api, buy(docker_client, shop))
    assert root["tags"]["session_id"] == shop


def test_a_session_over_its_limit_gets_429_and_others_do_not(api: Api) -> None:
    flooding, other = (api.launch()[0]["session_id"] for _ in range(2))
    text = f"flood{uuid.uuid4().hex}"
    answers = send(api, flooding, text, records=300, times=5)
    assert [status for status, _ in answers] == ["200", "200", "200", "429", "429"]
    assert all(1 <= int(retry_after) <= 60 for _, retry_after in answers[3:])
    assert send(api, other, text, records=500) == [["200", "-"]]
    metrics = api.http.get("/metrics").text
    assert 'sandbox_session_exports_total{kind="logs",status="429"} 2.0' in metrics
    for session_id in (flooding, other):
        api.end(session_id)


def test_export_over_the_exec_transport(make_service: Callable[..., Service]) -> None:
    """With a remote engine there is no socket that the containers share with the service."""
    service = make_service(SANDBOX_AGENT_TRANSPORT="exec")
    service.start()
    api = Api(service.url, ADMIN_TOKEN)
    session_id = api.launch()[0]["session_id"]
    text = f"remote{uuid.uuid4().hex}"
    assert send(api, session_id, text) == [["200", "-"]]
    (line,) = log_lines(api, text)
    assert line["metadata"]["session_id"] == session_id
    api.end(session_id)
    api.http.close()
    service.stop()
