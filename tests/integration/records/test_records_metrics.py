"""`/metrics` in the text format of Prometheus."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from sandbox.api.http.middleware import RequestMiddleware
from sandbox.api.routes import otlp
from sandbox.telemetry.metrics.collectors import engine_call, watch
from sandbox.telemetry.tracing import SpanStatus, Tracing, new_ids


def read(answer) -> dict[str, dict[tuple[str, ...], float]]:
    samples: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(answer.text):
        assert family.documentation
        for sample in family.samples:
            samples.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return samples


async def test_metrics_count_what_happened(app, admin, ada, database, services):
    watch(database)
    async with database.transaction() as connection:
        await connection.execute(
            text(
                "INSERT INTO sandbox_sessions (user_id, status, runtime_type, pipeline_run_id, last_seq)"
                " VALUES ('u', 'running', 'python312', 'p', 7)"
            )
        )
        await connection.execute(
            text(
                "INSERT INTO session_resources (kind, name, session_id, removed_at)"
                " SELECT kind, name, session_id, CASE WHEN name = 'gone' THEN NOW() END FROM sandbox_sessions,"
                " (VALUES ('container', 'a'), ('volume', 'a'), ('volume', 'b'), ('volume', 'gone')) AS r (kind, name)"
            )
        )
    before = read(await admin.get("/metrics"))
    tracing = Tracing(services.recorder)
    end = datetime.now(UTC)
    spans: list[tuple[str, SpanStatus, str | None]] = [
        ("launch", "error", "install_failed"),
        ("launch.plan", "success", None),
    ]
    for name, status, code in spans:
        trace_id, span_id = new_ids()
        tracing.record_span(
            name,
            trace_id=trace_id,
            span_id=span_id,
            parent_span_id=None,
            start=end - timedelta(seconds=3),
            end=end,
            status=status,
            attributes={"error.code": code} if code else {},
        )
    with pytest.raises(RuntimeError), engine_call():
        raise RuntimeError
    record = {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": {"stringValue": "x"}}]}]}]}
    transport = httpx.ASGITransport(RequestMiddleware(app, tracing, untraced=otlp.PATHS))
    async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=ada.headers) as client:
        await client.post("/v1/logs", json=record)
    assert await services.recorder.flush()
    answer = await admin.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    after = read(answer)

    def rose(name: str, *labels: str) -> float:
        return after[name].get(labels, 0) - before.get(name, {}).get(labels, 0)

    assert rose("sandbox_launch_duration_seconds_count", "error") == 1
    assert rose("sandbox_launch_duration_seconds_sum", "error") == pytest.approx(3)
    assert rose("sandbox_stage_duration_seconds_count", "plan", "success") == 1
    assert rose("sandbox_launch_failures_total", "install_failed") == 1
    assert rose("sandbox_engine_call_duration_seconds_count", "error") == 1
    assert rose("sandbox_http_request_duration_seconds_count", "POST /v1/logs", "200") == 1
    assert rose("sandbox_intake_records_total", "logs", "written") == 1
    assert after["sandbox_intake_waiting_bytes"][()] == 0
    assert rose("sandbox_database_query_duration_seconds_count") > 0
    assert after["sandbox_sessions"][("running",)] == 1
    assert after["sandbox_sessions"][("error",)] == 0
    assert after["sandbox_resources"] == {("container",): 1, ("network",): 0, ("volume",): 2}
    assert set(after["sandbox_leaked_resources"].values()) == {0}
    assert after["sandbox_events_total"][()] == 7
    assert after["sandbox_database_up"][()] == 1
    assert after["sandbox_recorder_waiting_rows"][("logs",)] == 0
    assert sum(after["sandbox_agents"].values()) == 59
    assert (await ada.get("/metrics")).json()["code"] == "admin_required"
