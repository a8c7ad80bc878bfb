"""Periodic maintenance: agent health, heartbeats of components, and retention."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text

from sandbox.db.periodic import Periodic, exclusive
from sandbox.records import retention
from sandbox.records.agents import store as agents
from sandbox.records.agents.components import Components
from sandbox.records.maintenance import RETENTION, Maintenance
from sandbox.settings import Settings
from sandbox.telemetry.recorder import Recorder
from tests.waiting import WAIT_SECONDS


async def run(database, *statements):
    async with database.transaction() as connection:
        for statement in statements:
            await connection.execute(text(statement))


async def value(database, sql):
    async with database.transaction() as connection:
        return (await connection.execute(text(sql))).scalar_one()


async def test_agents_without_heartbeats_become_warning_then_error(database):
    await run(
        database,
        "UPDATE agents SET status = 'healthy', last_active = NOW() WHERE name = 'Redis'",
        "UPDATE agents SET status = 'healthy', last_active = NOW() - INTERVAL '6 min' WHERE name = 'MinIO'",
        "UPDATE agents SET status = 'warning', last_active = NOW() - INTERVAL '16 min' WHERE name = 'RabbitMQ'",
    )
    assert await agents.mark_silent(database, 300, 900) == {"MinIO": "warning", "RabbitMQ": "error"}
    assert await agents.mark_silent(database, 300, 900) == {}
    assert await value(database, "SELECT count(*) FROM agents WHERE status = 'unknown'") == 56
    back = await agents.heartbeat(database, "RabbitMQ", None, {"status": "healthy"})
    assert back["status"] == "healthy"


async def test_components_are_checked_and_get_heartbeats(database):
    answers = [{"version": "27"}, RuntimeError("no socket")]

    async def engine():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    components = Components(database, {"Container Engine": engine})
    await components.report()
    up = await agents.AGENTS.one(database, {"name": "Container Engine"})
    assert up is not None
    assert (up["status"], up["uptime"], up["metadata"]["version"]) == ("healthy", 100, "27")
    await components.report()
    down = await agents.AGENTS.one(database, {"name": "Container Engine"})
    assert down is not None
    assert (down["status"], down["success_rate"]) == ("error", 50)
    assert down["metadata"]["error"] == "RuntimeError: no socket"


async def fill(database):
    """Insert a row that is too old and one that is not, into every table."""
    await run(
        database,
        """CREATE TABLE logs_p20260101 (LIKE logs INCLUDING DEFAULTS INCLUDING CONSTRAINTS)""",
        """ALTER TABLE logs ATTACH PARTITION logs_p20260101 FOR VALUES FROM ('2026-01-01') TO ('2026-01-02')""",
        """INSERT INTO logs (timestamp, level, message) VALUES
           ('2026-01-01 12:00', 'ERROR', 'old'), ('2026-01-01 12:00', 'DEBUG', 'old')""",
        """INSERT INTO logs (timestamp, level, message) VALUES
           (NOW() - INTERVAL '8 days', 'DEBUG', 'old debug'), (NOW() - INTERVAL '8 days', 'INFO', 'young'),
           (NOW() - INTERVAL '6 days', 'DEBUG', 'young'), (NOW() - INTERVAL '32 days', 'INFO', 'old')""",
        """INSERT INTO traces (trace_id, span_id, operation_name, service_name, start_time) VALUES
           ('old', 's', 'o', 's', NOW() - INTERVAL '9 days'), ('young', 's', 'o', 's', NOW() - INTERVAL '6 days')""",
        """INSERT INTO coverage (component, coverage_percent, timestamp) VALUES
           ('old', 1, NOW() - INTERVAL '91 days'), ('young', 1, NOW() - INTERVAL '89 days')""",
        """INSERT INTO test_results (test_type, status, timestamp, branch_name) VALUES
           ('unit', 'completed', NOW() - INTERVAL '91 days', 'old'),
           ('unit', 'completed', NOW() - INTERVAL '89 days', 'young')""",
        """INSERT INTO alerts (severity, title, message, status, timestamp, resolved_at) VALUES
           ('info', 'old', '', 'resolved', NOW() - INTERVAL '200 days', NOW() - INTERVAL '181 days'),
           ('info', 'young', '', 'resolved', NOW() - INTERVAL '200 days', NOW() - INTERVAL '179 days'),
           ('info', 'young', '', 'active', NOW() - INTERVAL '200 days', NULL)""",
        """INSERT INTO agent_memory (namespace, key, value, expires_at) VALUES
           ('n', 'old', '1', NOW() - INTERVAL '1 s'), ('n', 'young', '1', NOW() + INTERVAL '1 day')""",
        """UPDATE agents SET last_active = NOW() - INTERVAL '900 days'""",
    )


async def old_and_young(database):
    found = set()
    for column, table in (
        ("message", "logs"),
        ("trace_id", "traces"),
        ("component", "coverage"),
        ("branch_name", "test_results"),
        ("title", "alerts"),
        ("key", "agent_memory"),
    ):
        async with database.transaction() as connection:
            for name in (await connection.execute(text(f"SELECT {column} FROM {table}"))).scalars():
                found.add((table, name))
    return found


async def test_retention_removes_exactly_what_is_too_old(database, admin):
    await fill(database)
    before = await old_and_young(database)
    planned = (await admin.post("/api/v1/admin/retention", json={"dry_run": True})).json()
    assert await old_and_young(database) == before
    assert planned["steps"][0]["partitions"] == ["logs_p20260101"]
    # Two of the partition and one of the default partition.
    assert planned["steps"][0]["rows"] == 3
    done = (await admin.post("/api/v1/admin/retention", json={})).json()
    assert done["steps"] == planned["steps"]
    assert {(step["table"], step["action"]): step["rows"] for step in done["steps"][2:]} == {
        ("logs", "delete DEBUG"): 1,
        ("coverage", "delete"): 1,
        ("test_results", "archive"): 1,
        ("alerts", "delete resolved"): 1,
        ("agent_memory", "delete expired"): 1,
        ("agent_memory_history", "delete"): 0,
        ("audit_log", "delete"): 0,
        ("record_space", "delete"): 0,
    }
    assert await old_and_young(database) == {
        (table, "young") for table in ("logs", "traces", "coverage", "test_results", "alerts", "agent_memory")
    }
    assert await value(database, "SELECT branch_name FROM test_results_archive") == "old"
    assert await value(database, "SELECT count(*) FROM agents") == 59
    again = (await admin.post("/api/v1/admin/retention", json={})).json()
    assert all(step["rows"] == 0 and not step["partitions"] for step in again["steps"])


async def test_retention_runs_once_at_a_time(database, admin, ada):
    async with exclusive(database, RETENTION) as ours:
        assert ours
        refused = await admin.post("/api/v1/admin/retention", json={})
        assert (refused.status_code, refused.json()["code"]) == (409, "retention_running")
    assert (await admin.post("/api/v1/admin/retention", json={})).status_code == 200
    assert (await ada.post("/api/v1/admin/retention", json={})).json()["code"] == "admin_required"


async def test_a_locked_table_is_left_for_the_next_run(database):
    await fill(database)
    async with database.connect_raw() as connection:
        await connection.execute("BEGIN")
        await connection.execute("SELECT * FROM logs_p20260101")
        steps = await retention.run(database, Settings(), dry_run=False)
        await connection.execute("COMMIT")
    assert steps[0].postponed
    assert not steps[1].postponed
    assert (await retention.run(database, Settings(), dry_run=False))[0].partitions == ("logs_p20260101",)


async def test_long_work_keeps_its_lock(database, monkeypatch):
    monkeypatch.setattr("sandbox.db.periodic.KEEPALIVE_SECONDS", 0.05)
    used = "SELECT query_start FROM pg_stat_activity JOIN pg_locks USING (pid) WHERE locktype = 'advisory'"
    async with exclusive(database, "long work") as ours:
        assert ours
        seen: set[object] = set()
        async with asyncio.timeout(WAIT_SECONDS):
            while len(seen) < 4:  # PostgreSQL would end the transaction if its connection were not used
                seen.add(
                    await value(
                        database,
                        used + " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
                    )
                )
        async with exclusive(database, "long work") as another:
            assert not another
    async with exclusive(database, "long work") as again:
        assert again


async def test_periodic_work_runs_in_one_replica_and_continues_after_failures(database, caplog):
    done = asyncio.Event()
    calls = 0

    async def work():
        nonlocal calls
        calls += 1
        if calls < 3:
            raise RuntimeError("not today")
        done.set()

    periodic = Periodic(database, "test work", 0.01, work)
    async with exclusive(database, "test work"):
        assert await Periodic(database, "test work", 1, work).once() is False
    periodic.start()
    await asyncio.wait_for(done.wait(), WAIT_SECONDS)
    await periodic.close()
    assert caplog.text.count("not today") == 1


def make_maintenance(database, home, **settings):
    async def engine():
        return {"version": "27"}

    return Maintenance(database, Settings(home=home, **settings), Recorder(database), engine)


@pytest.fixture
async def maintenance(database, tmp_path):
    maintenance = make_maintenance(database, tmp_path)
    maintenance.start()
    yield maintenance
    await maintenance.close()


async def test_maintenance_runs_its_jobs(maintenance, database):
    reported = "SELECT count(*) FROM agents WHERE status = 'healthy' AND name IN ('PostgreSQL', 'Container Engine')"
    async with asyncio.timeout(WAIT_SECONDS):
        while await value(database, reported) < 2:
            await asyncio.sleep(0.05)


async def test_agents_get_their_full_time_after_a_start_of_the_service(database, tmp_path):
    """While the service was down they could not send heartbeats."""
    await run(
        database, "UPDATE agents SET status = 'healthy', last_active = NOW() - INTERVAL '1 h' WHERE name = 'Redis'"
    )
    status = "SELECT status FROM agents WHERE name = 'Redis'"
    await make_maintenance(database, tmp_path)._mark_silent()
    assert await value(database, status) == "healthy"
    started = make_maintenance(database, tmp_path, agent_warning_seconds=1, agent_error_seconds=2)
    await asyncio.sleep(1.1)
    await started._mark_silent()
    assert await value(database, status) == "error"


@pytest.mark.parametrize("warning", [6, 300])
def test_components_get_heartbeats_often_enough_for_every_setting(database, tmp_path, warning):
    maintenance = make_maintenance(database, tmp_path, agent_warning_seconds=warning)
    assert maintenance._periodic["components"].interval_seconds <= min(30, warning / 3)
