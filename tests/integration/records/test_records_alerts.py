"""Alert rules, deliveries to the webhook, and notifications of Alertmanager."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json

import pytest
import uvicorn
from fastapi import FastAPI, Request, Response
from sqlalchemy import text

from sandbox.records.alert_rules import store as rules
from sandbox.records.alert_rules.evaluator import Evaluator
from sandbox.records.alerts.store import Alerts
from sandbox.records.alerts.webhook import Webhook


async def run(database, sql, **values):
    async with database.transaction() as connection:
        return (await connection.execute(text(sql), values)) and None


async def rows(database, sql):
    async with database.transaction() as connection:
        return list(await connection.execute(text(sql)))


async def alerts_of(client, **params):
    return (await client.get("/api/v1/alerts", params=params)).json()["items"]


@pytest.fixture
async def evaluator(database):
    async def disk():
        return [("/", 50.0)]

    return Evaluator(database, Alerts(notify=True), {"disk_used_percent": disk})


async def test_a_cause_has_one_alert_which_is_resolved_with_the_cause(evaluator, database, admin):
    await run(database, "UPDATE alert_rules SET resolve_seconds = 0")
    await evaluator.evaluate()
    assert await alerts_of(admin) == []
    await run(database, "UPDATE agents SET status = 'error' WHERE name IN ('Redis', 'MinIO')")
    await asyncio.gather(*(evaluator.evaluate() for _ in range(4)))
    opened = await alerts_of(admin, status="active")
    assert sorted(alert["title"] for alert in opened) == ["agent-in-error: MinIO", "agent-in-error: Redis"]
    assert opened[0]["metadata"]["current_value"] == 1
    redis = next(alert for alert in opened if alert["metadata"]["subject"] == "Redis")
    await admin.post(f"/api/v1/alerts/{redis['alert_id']}/acknowledge")
    await run(database, "UPDATE agents SET status = 'healthy' WHERE name = 'Redis'")
    await evaluator.evaluate()
    assert [alert["metadata"]["subject"] for alert in await alerts_of(admin, status="active")] == ["MinIO"]
    (resolved,) = await alerts_of(admin, status="resolved")
    assert (resolved["alert_id"], resolved["metadata"]["resolved_by"]) == (redis["alert_id"], "rules")
    events = await rows(database, "SELECT event FROM alert_deliveries ORDER BY delivery_id")
    assert sorted(row.event for row in events) == ["opened", "opened", "resolved"]


async def test_each_measure_returns_its_value(evaluator, database, admin):
    await run(
        database,
        "INSERT INTO logs (level, service, message) SELECT 'ERROR', 'shop', 'no' FROM generate_series(1, 40)",
    )
    await run(
        database,
        "INSERT INTO traces (trace_id, span_id, operation_name, service_name, start_time, duration_ms, status)"
        " SELECT n::text, n::text, 'op', CASE n % 2 WHEN 0 THEN 'shop' ELSE 'sandbox' END, NOW(), 2000, 'error'"
        " FROM generate_series(1, 50) AS n",
    )
    await run(
        database,
        "INSERT INTO test_results (test_type, status, timestamp, total_tests, passed) VALUES"
        " ('unit', 'completed', NOW() - INTERVAL '3 days', 10, 10), ('unit', 'completed', NOW(), 10, 5),"
        " ('smoke', 'completed', NOW(), 10, 5), ('e2e', 'completed', NOW(), 0, 0)",
    )
    await run(
        database,
        "INSERT INTO coverage (component, coverage_percent, timestamp) VALUES"
        " ('api', 90, NOW() - INTERVAL '3 days'), ('api', 70, NOW()), ('cli', 10, NOW())",
    )
    await run(
        database,
        "INSERT INTO sandbox_sessions (session_id, user_id, status, runtime_type, pipeline_run_id, terminated_at)"
        " VALUES ('00000000-0000-0000-0000-00000000000a', 'u', 'terminated', 'python312', 'p',"
        " NOW() - INTERVAL '1 hour')",
    )
    await run(
        database,
        "INSERT INTO session_resources (kind, name, session_id)"
        " VALUES ('volume', 'v', '00000000-0000-0000-0000-00000000000a')",
    )
    await run(
        database,
        "INSERT INTO session_runs (run_id, session_id, pipeline_run_id, trace_id, span_id, ended_at, outcome)"
        " SELECT gen_random_uuid(), '00000000-0000-0000-0000-00000000000a', 'p', 't', 's', NOW(), 'failed'"
        " FROM generate_series(1, 3)",
    )
    await run(database, "UPDATE alert_rules SET for_seconds = 0")
    for number, measure in enumerate(rules.MEASURES):
        body = {"measure": measure, "threshold": 1, "window_seconds": 300, "severity": "info"}
        assert (await admin.put(f"/api/v1/alert-rules/extra-{number}", json=body)).status_code == 200
    await evaluator.evaluate()
    found = {(a["metadata"]["rule"], a["metadata"]["subject"]): a for a in await alerts_of(admin, limit=100)}
    values = {key: alert["metadata"]["current_value"] for key, alert in found.items() if not key[0].startswith("extra")}
    assert values == {
        ("error-logs-rising", "shop"): 8.0,
        ("slow-traces", "shop"): 25.0,
        ("pass-rate-falling", "unit"): 50.0,
        ("coverage-falling", "api"): 20.0,
        ("launches-failing", "launches"): 100.0,
        ("leaked-resources", "volumes"): 1.0,
    }
    extra = {alert["metadata"]["metric"] for key, alert in found.items() if key[0].startswith("extra")}
    assert extra == set(rules.MEASURES) - {"agent_in_error"}


async def test_an_alert_opens_after_the_condition_has_held_for_seconds(evaluator, database, admin):
    body = {"measure": "agent_in_error", "threshold": 1, "for_seconds": 60, "severity": "critical"}
    assert (await admin.put("/api/v1/alert-rules/agent-in-error", json=body)).json()["for_seconds"] == 60
    await run(database, "UPDATE agents SET status = 'error' WHERE name = 'Redis'")
    await evaluator.evaluate()
    assert await alerts_of(admin) == []
    await run(database, "UPDATE alert_conditions SET since = since - INTERVAL '61 s'")
    await evaluator.evaluate()
    (alert,) = await alerts_of(admin)
    assert (alert["severity"], alert["metadata"]["duration_seconds"] >= 60) == ("critical", True)
    await admin.put("/api/v1/alert-rules/agent-in-error", json=body | {"is_enabled": False})
    await evaluator.evaluate()
    assert (await alerts_of(admin))[0]["status"] == "resolved"


async def test_a_condition_that_comes_and_goes_has_one_alert(evaluator, database, admin):
    for _ in range(3):
        for status in ("error", "healthy"):
            await run(database, f"UPDATE agents SET status = '{status}' WHERE name = 'Redis'")
            await asyncio.gather(*(evaluator.evaluate() for _ in range(3)))
    (alert,) = await alerts_of(admin)
    assert (alert["title"], alert["status"]) == ("agent-in-error: Redis", "active")
    await run(database, "UPDATE alert_conditions SET gone_since = gone_since - INTERVAL '61 s'")
    await evaluator.evaluate()
    (alert,) = await alerts_of(admin)
    assert alert["status"] == "resolved"
    assert [row.event for row in await rows(database, "SELECT event FROM alert_deliveries ORDER BY delivery_id")] == [
        "opened",
        "resolved",
    ]
    await run(database, "UPDATE agents SET status = 'error' WHERE name = 'Redis'")
    await evaluator.evaluate()
    assert [alert["status"] for alert in await alerts_of(admin)] == ["active", "resolved"]


async def test_a_condition_without_an_alert_is_removed_when_it_ends(evaluator, database, admin):
    await run(database, "UPDATE alert_rules SET for_seconds = 60")
    for _ in range(2):
        for status in ("error", "healthy"):
            await run(database, f"UPDATE agents SET status = '{status}' WHERE name = 'Redis'")
            await evaluator.evaluate()
            # Without the interruption it would be due now.
            await run(database, "UPDATE alert_conditions SET since = since - INTERVAL '40 s'")
    assert await rows(database, "SELECT * FROM alert_conditions") == []
    assert await alerts_of(admin) == []


async def test_open_alerts_are_evaluated_with_the_edited_rule(evaluator, database, admin):
    body = {"measure": "agent_in_error", "threshold": 1, "severity": "error"}
    await run(database, "UPDATE agents SET status = 'error' WHERE name = 'Redis'")
    await evaluator.evaluate()
    path = "/api/v1/alert-rules/agent-in-error"
    assert (await admin.put(path, json=body | {"threshold": 2, "resolve_seconds": 0})).json()["resolve_seconds"] == 0
    await evaluator.evaluate()
    assert [alert["status"] for alert in await alerts_of(admin)] == ["resolved"]
    assert (await admin.put(path, json=body)).json()["resolve_seconds"] == 60
    await evaluator.evaluate()
    assert (await admin.delete(path)).status_code == 204
    await evaluator.evaluate()
    assert {alert["status"] for alert in await alerts_of(admin)} == {"resolved"}


async def test_a_rule_that_cannot_be_measured_does_not_affect_others(evaluator, database, admin, caplog):
    await run(database, "UPDATE agents SET status = 'error' WHERE name = 'Redis'")
    await run(
        database,
        "INSERT INTO alert_rules (name, measure, comparison, threshold, window_seconds, severity)"
        " VALUES ('a-broken-one', 'no_such_measure', '>', 1, 60, 'info')",
    )
    await evaluator.evaluate()
    assert [alert["title"] for alert in await alerts_of(admin)] == ["agent-in-error: Redis"]
    assert "a-broken-one" in caplog.text


async def test_rules_are_listed_validated_and_deleted(admin, ada):
    listed = (await ada.get("/api/v1/alert-rules")).json()["items"]
    assert {rule["name"] for rule in listed} >= {"agent-in-error", "disk-full", "launches-failing"}
    refused = await admin.put("/api/v1/alert-rules/x", json={"measure": "; DROP TABLE logs", "threshold": 1})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_input")
    assert (await ada.put("/api/v1/alert-rules/x", json={})).json()["code"] == "admin_required"
    assert (await ada.get("/api/v1/alert-rules/disk-full")).json()["measure"] == "disk_used_percent"
    assert (await admin.delete("/api/v1/alert-rules/disk-full")).status_code == 204
    assert (await ada.get("/api/v1/alert-rules/disk-full")).json()["code"] == "alert_rule_not_found"
    assert (await admin.delete("/api/v1/alert-rules/disk-full")).json()["code"] == "alert_rule_not_found"


@pytest.fixture
async def receiver():
    """A webhook that answers with the statuses in `answers`; `got` has the requests it received."""
    app = FastAPI()
    app.state.got, app.state.answers = [], []

    @app.post("/hook")
    async def hook(request: Request) -> Response:
        app.state.got.append((dict(request.headers), await request.body()))
        return Response(status_code=app.state.answers.pop(0) if app.state.answers else 200)

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="off"))
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    app.state.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/hook"
    yield app.state
    server.should_exit = True
    await task


async def test_deliveries_are_signed_and_retried_until_accepted(database, receiver):
    alerts, secret = Alerts(notify=True), "a secret of 16 or more"
    webhook = Webhook(database, receiver.url, secret)
    async with database.transaction() as connection:
        await alerts.open(connection, {"severity": "info", "title": "t", "message": "m", "source": None})
    receiver.answers = [500]
    await webhook.deliver()
    await webhook.deliver()  # not due yet
    assert len(receiver.got) == 1
    (waiting,) = await rows(database, "SELECT *, next_attempt_at > NOW() AS later FROM alert_deliveries")
    assert (waiting.attempts, waiting.last_error, waiting.later) == (1, "HTTP 500", True)
    await run(database, "UPDATE alert_deliveries SET next_attempt_at = NOW()")
    await webhook.deliver()
    await webhook.deliver()
    assert len(receiver.got) == 2
    headers, body = receiver.got[1]
    time, signature = (part.split("=", 1)[1] for part in headers["x-sandbox-signature"].split(","))
    assert signature == hmac.new(secret.encode(), f"{time}.".encode() + body, hashlib.sha256).hexdigest()
    assert receiver.got[0][0]["x-sandbox-delivery"] == headers["x-sandbox-delivery"]
    sent = json.loads(body)
    assert (sent["event"], sent["alert"]["title"], sent["alert"]["status"]) == ("opened", "t", "active")
    (done,) = await rows(database, "SELECT delivered_at FROM alert_deliveries")
    assert done.delivered_at is not None


async def test_deliveries_of_one_alert_keep_their_order(database, receiver):
    alerts, webhook = Alerts(notify=True), Webhook(database, receiver.url, "a secret of 16 or more")
    async with database.transaction() as connection:
        first, _ = await alerts.open(connection, {"severity": "info", "title": "first", "message": "m", "source": None})
        receiver.answers = [500]
    await webhook.deliver()
    async with database.transaction() as connection:
        await alerts.resolve(connection, first["alert_id"], "root")
        await alerts.open(connection, {"severity": "info", "title": "second", "message": "m", "source": None})
    await webhook.deliver()  # the first alert's `opened` is not due yet, and its `resolved` comes after it
    assert [json.loads(body)["alert"]["title"] for _, body in receiver.got] == ["first", "second"]
    await run(database, "UPDATE alert_deliveries SET next_attempt_at = NOW()")
    await webhook.deliver()
    assert [json.loads(body)["event"] for _, body in receiver.got] == ["opened", "opened", "opened", "resolved"]


@pytest.mark.parametrize("answer", ["nothing", "trickle", "garbage", "redirect", "flood"])
async def test_misbehaving_receivers_do_not_block_other_deliveries(database, monkeypatch, answer):
    monkeypatch.setattr("sandbox.records.alerts.webhook.TIMEOUT_SECONDS", 1.0)

    async def misbehave(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            match answer:
                case "garbage":
                    writer.write(b"nonsense\r\n\r\n")
                case "redirect":
                    writer.write(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")
                case "trickle":
                    while True:
                        writer.write(b"H")
                        await writer.drain()
                        await asyncio.sleep(0.1)
                case "flood":
                    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
                    while True:
                        writer.write(b"x" * 65_536)
                        await writer.drain()
                case "nothing":
                    await reader.read()
        writer.close()

    async with await asyncio.start_server(misbehave, "127.0.0.1", 0) as server:
        async with database.transaction() as connection:
            for number in range(8):
                values = {"severity": "info", "title": str(number), "message": "m", "source": None}
                await Alerts(notify=True).open(connection, values)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with asyncio.timeout(30):
            await Webhook(database, url, "a secret of 16 or more").deliver()
    (found,) = await rows(
        database,
        "SELECT count(*) FILTER (WHERE attempts = 1) AS tried, count(delivered_at) AS delivered,"
        " count(*) FILTER (WHERE last_error <> '') AS failed FROM alert_deliveries",
    )
    assert (found.tried, found.delivered, found.failed) == ((8, 8, 0) if answer == "flood" else (8, 0, 8))


async def test_a_delivery_is_given_up_after_the_last_attempt(database, caplog):
    async with database.transaction() as connection:
        await Alerts(notify=True).open(connection, {"severity": "info", "title": "t", "message": "m", "source": None})
    webhook = Webhook(database, "http://127.0.0.1:1/none", "a secret of 16 or more")
    await run(database, "UPDATE alert_deliveries SET attempts = 14")
    await webhook.deliver()
    (gone,) = await rows(database, "SELECT attempts, given_up_at, last_error FROM alert_deliveries")
    assert (gone.attempts, gone.given_up_at is not None, bool(gone.last_error)) == (15, True, True)
    assert "did not accept" in caplog.text


async def test_alertmanager_opens_and_resolves_alerts(admin, ada, caplog):
    def notification(status):
        return {
            "version": "4",
            "status": status,
            "receiver": "sandbox",
            "groupKey": "{}:{}",
            "alerts": [
                {
                    "status": status,
                    "labels": {"alertname": "HighCPU", "severity": "page", "instance": "db-1"},
                    "annotations": {"summary": "CPU of db-1", "description": "95 %", "runbook_url": "https://r"},
                    "startsAt": "2026-11-20T10:00:00Z",
                    "endsAt": "0001-01-01T00:00:00Z",
                    "generatorURL": "http://prometheus/graph",
                    "fingerprint": "c0ffee",
                },
                {"status": status, "labels": {"alertname": "Plain", "job": "api"}},
            ],
        }

    path = "/api/v1/alerts/alertmanager"
    assert (await admin.post(path, json=notification("firing"))).json() == {"opened": 2, "resolved": 0}
    assert (await admin.post(path, json=notification("firing"))).json() == {"opened": 0, "resolved": 0}
    plain, cpu = sorted(await alerts_of(ada, source="alertmanager"), key=lambda alert: alert["severity"], reverse=True)
    assert (cpu["severity"], cpu["title"], cpu["message"]) == ("critical", "CPU of db-1", "95 %")
    assert (cpu["metadata"]["runbook_url"], cpu["metadata"]["labels"]["instance"]) == ("https://r", "db-1")
    assert cpu["metadata"]["starts_at"] == "2026-11-20T10:00:00Z"
    assert (plain["severity"], plain["title"]) == ("warning", "Plain: api")
    assert (await admin.post(path, json=notification("firing") | {"truncatedAlerts": 7})).status_code == 200
    assert "left 7 alerts out" in caplog.text
    assert (await admin.post(path, json=notification("resolved"))).json() == {"opened": 0, "resolved": 2}
    assert await alerts_of(ada, status="active") == []
    assert (await ada.post(path, json=notification("firing"))).json()["code"] == "admin_required"
