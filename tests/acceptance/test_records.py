"""The records of a run: a trace, logs with the request's id, and the outcome of the lessons applied to it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from sandbox.db.driver import connection_params
from sandbox.db.embedded import EmbeddedPostgres
from tests.acceptance.api import Api
from tests.acceptance.service import Service
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def sql(service: Service) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    dsn = asyncio.run(EmbeddedPostgres(service.home).start())
    with psycopg.connect(**connection_params(dsn), autocommit=True, row_factory=dict_row) as connection:
        yield connection


def eventually(
    sql: psycopg.Connection[dict[str, Any]], query: str, values: list[Any], least: int
) -> list[dict[str, Any]]:
    """Return the rows of a query once there are at least `least`, because records are written in batches."""
    wait_until(lambda: len(sql.execute(query, values).fetchall()) >= least)
    return sql.execute(query, values).fetchall()


def test_a_launch_leaves_one_trace_and_logs_of_its_request(sql: psycopg.Connection[dict[str, Any]], user: Api) -> None:
    request_id, trace_id = f"test-{uuid.uuid4().hex}", uuid.uuid4().hex
    user.upload("site", {"index.html": "<h1>x</h1>"})
    headers = {"X-Request-ID": request_id, "traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"}
    session = user.http.post("/api/v1/sessions", json={"project_id": "site"}, headers=headers).json()
    list(user.events(session["session_id"]))

    spans = eventually(sql, "SELECT * FROM traces WHERE trace_id = %s ORDER BY start_time", [trace_id], 10)
    by_name = {span["operation_name"]: span for span in spans}
    stages = ["plan", "network", "containers", "workspace", "dependencies", "services", "health", "preview"]
    assert set(by_name) == {"POST /api/v1/sessions", "launch", *(f"launch.{stage}" for stage in stages)}
    request, launch = by_name["POST /api/v1/sessions"], by_name["launch"]
    assert request["parent_span_id"] == "00f067aa0ba902b7"
    assert launch["parent_span_id"] == request["span_id"]
    assert {by_name[f"launch.{stage}"]["parent_span_id"] for stage in stages} == {launch["span_id"]}
    assert {span["status"] for span in spans} == {"success"}
    assert launch["duration_ms"] >= max(by_name[f"launch.{stage}"]["duration_ms"] for stage in stages)
    assert launch["tags"]["session.id"] == session["session_id"]

    logs = eventually(sql, "SELECT * FROM logs WHERE request_id = %s", [request_id], 10)
    assert {log["user_id"] for log in logs} == {session["user_id"]}
    assert any("POST /api/v1/sessions" in log["message"] for log in logs)
    assert any("launch ended" in log["message"] for log in logs)
    user.end(session["session_id"])


def test_a_request_that_sends_records_leaves_a_log_line_and_no_span(
    sql: psycopg.Connection[dict[str, Any]], service: Service, user: Api
) -> None:
    request_id, trace_id = f"test-{uuid.uuid4().hex}", uuid.uuid4().hex
    headers = {"X-Request-ID": request_id, "traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"}
    record = {"body": {"stringValue": request_id}}
    body = {"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}
    # Requests to the host of a preview go to the sandbox, whatever the path is, so this one is not stored.
    host = {"Host": f"nobody.preview.localhost:{service.port}"}
    assert user.http.post("/v1/logs", json=body, headers=host).status_code == 404
    sent = user.http.post("/v1/logs", json=body, headers=headers)
    assert (sent.status_code, sent.headers["x-request-id"]) == (200, request_id)
    assert user.http.get("/api/v1/projects", headers=headers).status_code == 200

    (line,) = eventually(
        sql, "SELECT * FROM logs WHERE request_id = %s AND message LIKE 'POST /v1/logs 200%%'", [request_id], 1
    )
    assert line["user_id"] == eventually(sql, "SELECT * FROM logs WHERE message = %s", [request_id], 1)[0]["user_id"]
    spans = eventually(sql, "SELECT * FROM traces WHERE trace_id = %s", [trace_id], 1)
    assert [span["operation_name"] for span in spans] == ["GET /api/v1/projects"]


def lesson(sql: psycopg.Connection[dict[str, Any]], agent: str, issue: str | None, **more: Any) -> int:
    columns = {"agent_name": agent, "lesson_text": "t", "severity": "high", "category": "correctness", **more}
    columns["source_issue_type"] = issue
    names = ", ".join(columns)
    row = sql.execute(
        f"INSERT INTO agent_lessons ({names}) VALUES ({', '.join(['%s'] * len(columns))}) RETURNING id",
        list(columns.values()),
    ).fetchone()
    assert row is not None
    return int(row["id"])


def test_lessons_are_applied_and_scored_by_the_outcome_of_the_run(
    sql: psycopg.Connection[dict[str, Any]], user: Api
) -> None:
    agent = f"agent-{uuid.uuid4().hex[:8]}"
    install = lesson(sql, agent, "dependency_install_failed")
    port = lesson(sql, agent, "port_not_opened")
    workspace = lesson(sql, agent, "workspace_failed")
    lesson(sql, agent, "app_exited", is_active=False)
    lesson(sql, agent, "app_exited", expires_at="2020-01-01")
    toml = (
        '[backend]\nruntime = "python312"\ninstall = "echo no such package >&2; exit 7"\nstart = "true"\nport = 8000\n'
    )
    user.upload("broken", {"sandbox.toml": toml})
    run = f"run-{uuid.uuid4().hex}"
    session, _ = user.launch(project_id="broken", agents=[agent], pipeline_run_id=run)
    assert session["error"]["code"] == "dependency_install_failed"

    rows = sql.execute("SELECT * FROM agent_lesson_applications WHERE pipeline_run_id = %s", [run]).fetchall()
    applied = {row["lesson_id"]: row for row in rows}
    assert set(applied) == {install, port, workspace}
    assert applied[install]["prevented_issue"] is False
    assert "dependency_install_failed" in applied[install]["outcome_notes"]
    assert applied[workspace]["prevented_issue"] is True
    assert applied[workspace]["outcome_verified_at"] is not None
    assert (applied[port]["prevented_issue"], applied[port]["outcome_verified_at"]) == (None, None)
    assert {row["project_name"] for row in rows} == {"broken"}
    scores = sql.execute(
        "SELECT id, times_applied, effectiveness_score FROM agent_lessons WHERE agent_name = %s", [agent]
    )
    assert {r["id"]: (r["times_applied"], r["effectiveness_score"]) for r in scores if r["times_applied"]} == {
        install: (1, 0.0),
        workspace: (1, 1.0),
        port: (1, None),
    }
    user.end(session["session_id"])
