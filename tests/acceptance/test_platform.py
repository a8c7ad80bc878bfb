"""The platform's records as CI, Prometheus, webhooks and operators use them, on a running service."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.acceptance.api import Api
from tests.acceptance.service import ADMIN_TOKEN, Service
from tests.waiting import wait_until

TESTS = """
import warnings

def test_passes():
    warnings.warn("old() is deprecated", DeprecationWarning)

def test_fails():
    assert 1 == 2
"""


@pytest.fixture(scope="module")
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The URL of a webhook, and the list of what was posted to it."""
    got: list[dict[str, Any]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", got
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def quick_alerts(make_service: Callable[..., Service], webhook: tuple[str, list[dict[str, Any]]]) -> Service:
    """A service that reports an agent as silent after a few seconds and posts this to the webhook."""
    service = make_service(
        SANDBOX_AGENT_WARNING_SECONDS="3",
        SANDBOX_AGENT_ERROR_SECONDS="8",
        SANDBOX_ALERT_INTERVAL_SECONDS="1",
        SANDBOX_ALERT_WEBHOOK_URL=webhook[0],
        SANDBOX_ALERT_WEBHOOK_SECRET="a-secret-of-sixteen",
    )
    service.start()
    return service


@pytest.fixture(scope="module")
def root(quick_alerts: Service) -> Iterator[Api]:
    api = Api(quick_alerts.url, ADMIN_TOKEN)
    yield api
    api.http.close()


def test_ci_sends_its_reports(quick_alerts: Service, root: Api, tmp_path: Path) -> None:
    (tmp_path / "test_shop.py").write_text(TESTS)
    run = [sys.executable, "-m", "coverage", "run", "-m", "pytest", "-p", "no:cacheprovider", "--junitxml=junit.xml"]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, check=False)
    (tmp_path / "console.log").write_bytes(done.stdout)
    for report in ("xml", "json"):
        subprocess.run([sys.executable, "-m", "coverage", report, "-q"], cwd=tmp_path, check=True)

    junit = quick_alerts.command(
        "ingest", "junit", str(tmp_path / "junit.xml"), "-o", str(tmp_path / "console.log"), "--branch", "main"
    )
    assert (junit.returncode, "2 tests, 1 passed, 1 failed, 0 skipped, 1 warnings" in junit.stdout) == (0, True), junit
    (result,) = root.http.get("/api/v1/test-results").json()["items"]
    (warning,) = result["warning_details"]
    assert warning["message"] == "DeprecationWarning: old() is deprecated"
    assert (result["branch_name"], result["failed_tests"][0]["name"]) == ("main", "test_fails")
    for report in ("coverage.xml", "coverage.json"):
        assert quick_alerts.command("ingest", "coverage", str(tmp_path / report)).returncode == 0
    assert len(root.http.get("/api/v1/coverage").json()["items"]) == 2
    refused = quick_alerts.command("ingest", "junit", str(tmp_path / "test_shop.py"))
    assert (refused.returncode, "report_refused" in refused.stderr or "not XML" in refused.stderr) == (2, True), refused


def test_a_silent_agent_is_one_alert(root: Api, webhook: tuple[str, list[dict[str, Any]]]) -> None:
    def agent() -> dict[str, Any]:
        found: dict[str, Any] = root.http.get("/api/v1/agents/Unit Testing").json()
        return found

    def events() -> list[str]:
        return [event["event"] for event in webhook[1] if event["alert"]["metadata"].get("subject") == "Unit Testing"]

    assert root.http.put("/api/v1/agents/Unit Testing/heartbeat", json={"uptime": 99}).json()["status"] == "healthy"
    wait_until(lambda: agent()["status"] == "warning")
    wait_until(lambda: agent()["status"] == "error")
    wait_until(events)
    again = root.http.put("/api/v1/agents/Unit Testing/heartbeat", json={}).json()
    assert (again["status"], again["uptime"]) == ("healthy", 99)
    wait_until(lambda: agent()["status"] == "error")  # silent again before the alert was resolved
    assert events() == ["opened"]
    (alert,) = root.http.get("/api/v1/alerts", params={"source": "rules", "status": "active"}).json()["items"]
    assert alert["title"] == "agent-in-error: Unit Testing"
    root.http.post(f"/api/v1/alerts/{alert['alert_id']}/acknowledge")
    wait_until(lambda: events() == ["opened", "acknowledged"])
    # The service's own components are never silent, however short the settings are.
    parts = root.http.get("/api/v1/agents", params={"category": "infrastructure", "status": "healthy"}).json()["items"]
    assert {"PostgreSQL", "Container Engine", "Sandbox Manager"} <= {part["name"] for part in parts}
    assert {event["alert"]["metadata"].get("subject") for event in webhook[1]} == {"Unit Testing"}


def test_prometheus_metrics(root: Api) -> None:
    families = list(text_string_to_metric_families(root.http.get("/metrics").text))
    for family in families:
        assert family.documentation, family.name
        assert family.type != "counter" or all(sample.name.endswith("_total") for sample in family.samples), family.name
    assert {"sandbox_sessions", "sandbox_database_pool_connections", "sandbox_recorder_waiting_rows"} <= {
        family.name for family in families
    }


def test_retention_by_command(quick_alerts: Service) -> None:
    planned = quick_alerts.command("retention", "run", "--dry-run", "--json")
    assert planned.returncode == 0, planned.stderr
    steps = json.loads(planned.stdout)["steps"]
    assert [step["table"] for step in steps[:3]] == ["logs", "traces", "logs"]
    assert json.loads(quick_alerts.command("retention", "run", "--json").stdout)["dry_run"] is False


def test_a_stopping_service_ends_its_streams_without_errors(make_service: Callable[..., Service]) -> None:
    service = make_service()
    service.start()
    headers = {"X-API-Key": ADMIN_TOKEN}
    ended: list[bool] = []
    following = threading.Barrier(4)

    def follow() -> None:
        with httpx.stream("GET", f"{service.url}/api/v1/logs/tail", headers=headers, timeout=60) as answer:
            lines = answer.iter_lines()
            next(lines)
            following.wait(60)
            for _ in lines:
                pass
            ended.append(True)

    viewers = [threading.Thread(target=follow) for _ in range(3)]
    for viewer in viewers:
        viewer.start()
    while following.n_waiting < 3:
        httpx.get(f"{service.url}/api/v1/agents", headers=headers)
        time.sleep(0.1)
    following.wait(60)
    service.stop()
    for viewer in viewers:
        viewer.join(60)
    assert ended == [True, True, True]
    assert " ERROR " not in service.log.read_text()
