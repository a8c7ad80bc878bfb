"""Lists of records: pages without gaps or duplicates; filters by column, time and words."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from sandbox.db import tables

NOW = datetime.now(UTC).replace(microsecond=0)


TIME = "2026-01-01T00:00:00+00:00"


def cursor(time, keys):
    return base64.urlsafe_b64encode(json.dumps([time, json.dumps(keys)]).encode()).decode().rstrip("=")


BAD_PLACES = [
    (TIME, []),
    (TIME, ["logs"]),
    (TIME, ["logs", "xyz"]),
    (TIME, ["logs", "9" * 22]),
    (TIME, ["logs", float("inf")]),
    (TIME, ["logs", None]),
    (TIME, ["alerts", "1"]),
    (TIME, {}),
    ("0001-01-01T00:00:00+14:00", ["logs", "1"]),
    ("9999-12-31T23:59:59-14:00", ["logs", "1"]),
    ("2026-01-01T00:00:00", ["logs", "1"]),
]


async def everything(client, path, **params):
    items, cursor, pages = [], None, 0
    while True:
        answer = await client.get(path, params=params | ({"cursor": cursor} if cursor else {}))
        assert answer.status_code == 200, answer.text
        page = answer.json()
        items += page["items"]
        pages += 1
        cursor = page["next_cursor"]
        if cursor is None:
            return items, pages


@pytest.fixture
async def logs(database):
    """30 lines over three days, several of them with the same time."""
    rows = [
        {
            "timestamp": NOW - timedelta(hours=3 * (number // 2)),
            "level": ("DEBUG", "INFO", "ERROR")[number % 3],
            "service": f"service-{number % 2}",
            "message": f"payment {number} of order ORD-{number % 5} was refused",
            "request_id": f"request-{number % 4}",
            "user_id": ("ada", "bob", None)[number % 3],
        }
        for number in range(30)
    ]
    statement = text(
        "INSERT INTO logs (timestamp, level, service, message, request_id, user_id) "
        "VALUES (:timestamp, :level, :service, :message, :request_id, :user_id)"
    )
    async with database.transaction() as connection:
        await connection.execute(statement, rows)
    return rows


async def test_pages_of_logs_have_no_gaps_and_no_duplicates(admin, logs):
    items, pages = await everything(admin, "/api/v1/logs", limit=7)
    assert pages == 5
    assert len({item["log_id"] for item in items}) == len(items) == 30
    places = [(item["timestamp"], item["log_id"]) for item in items]
    assert places == sorted(places, reverse=True)
    assert all(item["timestamp"].endswith("Z") for item in items)


@pytest.mark.parametrize(
    ("params", "matches"),
    [
        ({"level": "ERROR"}, lambda row: row["level"] == "ERROR"),
        ({"service": "service-1"}, lambda row: row["service"] == "service-1"),
        ({"request_id": "request-2"}, lambda row: row["request_id"] == "request-2"),
        ({"user_id": "bob"}, lambda row: row["user_id"] == "bob"),
        ({"from": (NOW - timedelta(hours=9)).isoformat()}, lambda row: row["timestamp"] >= NOW - timedelta(hours=9)),
        ({"to": (NOW - timedelta(hours=9)).isoformat()}, lambda row: row["timestamp"] < NOW - timedelta(hours=9)),
        ({"q": "ord-3 refused"}, lambda row: "ORD-3 " in row["message"]),
        ({"q": '"payment 7"'}, lambda row: "payment 7 " in row["message"]),
        ({"q": "refused -ord-0"}, lambda row: "ORD-0 " not in row["message"]),
        ({"q": "ORD-1", "level": "INFO"}, lambda row: "ORD-1 " in row["message"] and row["level"] == "INFO"),
        ({"q": "nowhere"}, lambda row: False),
    ],
)
async def test_logs_are_filtered(admin, logs, params, matches):
    items, _ = await everything(admin, "/api/v1/logs", limit=4, **params)
    assert sorted(item["message"] for item in items) == sorted(row["message"] for row in logs if matches(row))


async def test_a_cursor_is_valid_for_its_own_list_only(admin, logs):
    cursor = (await admin.get("/api/v1/logs", params={"limit": 1})).json()["next_cursor"]
    for path in ("agents", "alerts", "coverage", "test-results", "traces", "alert-rules"):
        refused = await admin.get(f"/api/v1/{path}", params={"cursor": cursor})
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_input"), path


async def test_users_see_their_own_logs_only(ada, bob, logs):
    items, _ = await everything(ada, "/api/v1/logs")
    assert len(items) == 10
    assert {item["user_id"] for item in items} == {"ada"}
    assert (await everything(ada, "/api/v1/logs", user_id="bob"))[0] == []
    assert {item["user_id"] for item in (await everything(bob, "/api/v1/logs", user_id="bob"))[0]} == {"bob"}


@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("logs", {"limit": 0}),
        ("logs", {"limit": 501}),
        ("logs", {"level": "LOUD"}),
        ("logs", {"colour": "red"}),
        ("logs/tail", {"colour": "red"}),
        ("analytics/slow-traces", {"from": "2026-01-01"}),
        ("analytics/slow-traces", {"window": ""}),
        ("logs", {"q": "a\0b"}),
        ("logs", {"service": "a\0"}),
        ("logs", {"from": "yesterday"}),
        ("logs", {"from": "9999-12-31T23:59:59-12:00"}),
        ("logs", {"cursor": "nonsense"}),
        *(("logs", {"cursor": cursor(time, keys)}) for time, keys in BAD_PLACES),
        ("traces", {"cursor": cursor(TIME, ["traces", "1"])}),
        ("traces", {"cursor": cursor(TIME, ["traces", "\ud800", "1"])}),
        ("traces", {"cursor": cursor(TIME, ["traces", "1", "\0"])}),
        ("alert-rules", {"cursor": cursor(TIME, ["alert_rules", "\0"])}),
        ("documents", {"cursor": cursor(TIME, ["documents", "1"])}),
    ],
)
async def test_invalid_queries_are_refused(admin, path, params):
    answer = await admin.get(f"/api/v1/{path}", params=params)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")


async def test_a_trace_is_a_tree_with_the_logs_of_its_requests(admin, ada, bob, database):
    spans = [
        ("root", None, 0, {"user_id": "ada", "request_id": "r-1"}),
        ("child", "root", 1, {"user_id": "ada"}),
        ("grandchild", "child", 2, {"user_id": "ada"}),
        ("orphan", "elsewhere", 3, {}),
        ("ring-a", "ring-b", 4, {}),
        ("ring-b", "ring-a", 5, {}),
        ("self", "self", 6, {}),
    ]
    async with database.transaction() as connection:
        for span_id, parent, second, tags in spans:
            await connection.execute(
                text(
                    "INSERT INTO traces (trace_id, span_id, parent_span_id, operation_name, service_name, start_time,"
                    " end_time, duration_ms, status, tags) VALUES ('t', :span, :parent, :span, 'shop', :start, :end,"
                    " 1000, 'success', :tags)"
                ),
                {
                    "span": span_id,
                    "parent": parent,
                    "start": NOW + timedelta(seconds=second),
                    "end": NOW + timedelta(seconds=second + 1),
                    "tags": tags,
                },
            )
        for request, user, message in (("r-1", "ada", "of it"), ("r-2", "ada", "other request"), ("r-1", "bob", "his")):
            await connection.execute(
                text(
                    "INSERT INTO logs (timestamp, level, message, request_id, user_id)"
                    " VALUES (:time, 'INFO', :message, :request, :user)"
                ),
                {"time": NOW, "message": message, "request": request, "user": user},
            )
    tree = (await admin.get("/api/v1/traces/t")).json()
    assert [span["span_id"] for span in tree["spans"]] == ["root", "orphan", "self", "ring-a"]
    (child,) = tree["spans"][0]["children"]
    assert [span["span_id"] for span in child["children"]] == ["grandchild"]
    assert [span["span_id"] for span in tree["spans"][3]["children"]] == ["ring-b"]
    assert (tree["span_count"], tree["duration_ms"], tree["truncated"]) == (7, 7000, False)
    assert [line["message"] for line in tree["logs"]] == ["of it", "his"]
    own = (await ada.get("/api/v1/traces/t")).json()
    assert own["span_count"] == 3
    assert [line["message"] for line in own["logs"]] == ["of it"]
    missing = await bob.get("/api/v1/traces/t")
    assert (missing.status_code, missing.json()["code"]) == (404, "trace_not_found")
    assert len((await everything(admin, "/api/v1/traces", limit=2))[0]) == 7
    assert len((await everything(ada, "/api/v1/traces", limit=2, service_name="shop"))[0]) == 3
    assert (await everything(ada, "/api/v1/traces", status="error"))[0] == []
    assert len((await everything(admin, "/api/v1/traces", limit=2, user_id="ada"))[0]) == 3
    assert len((await everything(ada, "/api/v1/traces", user_id="ada"))[0]) == 3
    assert (await everything(bob, "/api/v1/traces", user_id="ada"))[0] == []


async def test_each_saved_query_returns_rows(admin, ada, logs, database):
    questions = (await admin.get("/api/v1/analytics")).json()
    assert len(questions) == 8
    await admin.post(
        "/api/v1/test-results",
        json={
            "test_type": "unit",
            "status": "completed",
            "total_tests": 4,
            "passed": 3,
            "failed": 1,
            "failed_tests": [{"name": "test_x", "file": "tests/test_x.py"}],
        },
    )
    await admin.post("/api/v1/coverage", json={"component": "api", "coverage_percent": 70})
    await admin.post("/api/v1/alerts", json={"severity": "critical", "title": "down", "message": "it is"})
    answers = {}
    for question in questions:
        answer = await admin.get(f"/api/v1/analytics/{question['name']}")
        assert answer.status_code == 200, answer.text
        answers[question["name"]] = answer.json()["items"]
        refused = await ada.get(f"/api/v1/analytics/{question['name']}")
        assert refused.status_code == (403 if question["admin_only"] else 200)
    assert {row["category"] for row in answers["agent-status-summary"]} >= {"core", "infrastructure"}
    assert (answers["test-pass-rate-trend"][0]["runs"], float(answers["test-pass-rate-trend"][0]["pass_rate"])) == (
        1,
        75,
    )
    assert answers["most-common-test-failures"] == [
        {"test_name": "test_x", "failure_count": 1, "test_file": "tests/test_x.py"}
    ]
    assert float(answers["coverage-by-component"][0]["avg_coverage"]) == 70
    assert [row["title"] for row in answers["active-critical-alerts"]] == ["down"]
    assert answers["test-execution-analytics"][0]["total_failures"] == 1
    hour = len(answers["recent-error-logs"])
    week = len((await admin.get("/api/v1/analytics/recent-error-logs", params={"window": "7d"})).json()["items"])
    assert (hour, week) == (sum(r["level"] == "ERROR" and r["timestamp"] == NOW for r in logs), 10)
    for name, window in (("slow-traces", "soon"), ("slow-traces", "9999d"), ("agent-status-summary", "1h")):
        answer = await admin.get(f"/api/v1/analytics/{name}", params={"window": window})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")
    assert (await admin.get("/api/v1/analytics/what")).json()["code"] == "question_not_found"


async def test_a_page_of_large_records_says_that_more_follow(ada, monkeypatch):
    for number in range(5):
        value = {"value": {"number": number, "text": "x" * 1000}}
        assert (await ada.put(f"/api/v1/memory/notes/{number}", json=value)).status_code in (200, 201)
    assert (await everything(ada, "/api/v1/memory/notes", limit=500))[1] == 1
    monkeypatch.setattr(tables, "PAGE_BYTES", 2500)
    items, pages = await everything(ada, "/api/v1/memory/notes", limit=500)
    assert sorted(item["key"] for item in items) == ["0", "1", "2", "3", "4"]
    assert pages == 3
