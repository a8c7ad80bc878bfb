"""Records written as JSON: stored values, validation, and permissions."""

from __future__ import annotations

import asyncio

import pytest


async def test_a_test_result_is_stored_as_documented(ada, bob):
    body = {
        "test_type": "e2e",
        "status": "failed",
        "timestamp": "2026-11-01T12:00:00+02:00",
        "total_tests": 5,
        "passed": 2,
        "failed": 1,
        "skipped": 1,
        "warnings": 1,
        "execution_time": 1.5,
        "failed_tests": [{"name": "a", "error": "no", "file": "f.py", "line": 3, "stack_trace": "T"}],
        "warning_details": [{"message": "old", "file": "g.py", "line": 4}],
        "triggered_by": "ci",
        "environment": "ci",
        "branch_name": "main",
        "commit_hash": "a" * 40,
    }
    made = await ada.post("/api/v1/test-results", json=body)
    assert made.status_code == 201, made.text
    stored = (await bob.get(f"/api/v1/test-results/{made.json()['test_id']}")).json()
    assert stored == made.json()
    assert {key: stored[key] for key in body} == body | {"timestamp": "2026-11-01T10:00:00Z"}
    assert (await ada.get("/api/v1/test-results", params={"status": "completed"})).json()["items"] == []
    found = await ada.get("/api/v1/test-results", params={"test_type": "e2e", "to": "2026-11-02T00:00:00Z"})
    assert [item["test_id"] for item in found.json()["items"]] == [stored["test_id"]]
    assert (await ada.get("/api/v1/test-results/99999")).json()["code"] == "test_result_not_found"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("test-results", {"test_type": "unit", "status": "odd"}),
        ("test-results", {"test_type": "unit", "status": "completed", "total_tests": 1, "passed": 2}),
        ("test-results", {"test_type": "unit", "status": "completed", "passed": -1}),
        ("test-results", {"test_type": "unit", "status": "completed", "test_output": "a\0"}),
        ("test-results", {"test_type": "unit", "status": "completed", "total_tests": 2**31}),
        ("coverage", {"component": "c", "coverage_percent": 101}),
        ("coverage", {"component": "c", "coverage_percent": 1, "lines_covered": 2, "lines_total": 1}),
        ("coverage", {"component": "c", "coverage_percent": 1, "metadata": {"a": "\0"}}),
        ("coverage", {"component": "c", "coverage_percent": 1, "metadata": {"a": "x" * 70_000}}),
        ("alerts", {"severity": "odd", "title": "t", "message": "m"}),
        ("alerts", {"severity": "info", "title": "t", "message": "m", "metadata": {"cause": 5}}),
        ("lessons", {"agent_name": "a", "lesson_text": "", "severity": "low", "category": "security"}),
        ("documents", {"title": "t", "content": "c", "unknown": 1}),
    ],
)
async def test_values_that_the_tables_cannot_hold_are_refused(admin, path, body):
    answer = await admin.post(f"/api/v1/{path}", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")


async def test_lone_surrogates_are_refused(admin):
    for body in (
        b'{"component": "\\ud800", "coverage_percent": 1}',
        b'{"component": "c", "coverage_percent": 1, "metadata": {"\\udfff": 1}}',
        b'{"component": "c", "coverage_percent": 1, "metadata": {"a": NaN}}',
    ):
        answer = await admin.post("/api/v1/coverage", content=body, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")


async def test_only_admins_write_for_the_platform(ada):
    writes = [
        ("PUT", "agents/PostgreSQL/heartbeat", {}),
        ("POST", "alerts", {"severity": "info", "title": "t", "message": "m"}),
        ("POST", "alerts/1/acknowledge", None),
        ("POST", "alerts/1/resolve", None),
        ("POST", "lessons", {"agent_name": "a", "lesson_text": "x", "severity": "low", "category": "security"}),
        ("PATCH", "lessons/1", {"is_active": False}),
        ("POST", "lesson-applications", {"lesson_id": 1, "agent_name": "a", "pipeline_run_id": "r"}),
        ("POST", "lesson-applications/1/outcome", {"prevented_issue": True}),
        ("POST", "refinement-runs", {"triggered_by": "hitl"}),
        ("POST", "documents", {"title": "t", "content": "c", "shared": True}),
    ]
    for method, path, body in writes:
        answer = await ada.request(method, f"/api/v1/{path}", json=body)
        assert (answer.status_code, answer.json()["code"]) == (403, "admin_required"), path


async def test_a_heartbeat_updates_an_agent(admin, ada):
    before = (await ada.get("/api/v1/agents/Unit Testing")).json()
    assert (before["status"], before["last_active"]) == ("unknown", None)
    beat = {"uptime": 99.5, "avg_response_time": 12, "success_rate": 98, "metadata": {"tests_run": 172}}
    after = (await admin.put("/api/v1/agents/Unit Testing/heartbeat", json=beat)).json()
    assert (after["status"], after["uptime"], after["avg_response_time"], after["success_rate"]) == (
        "healthy",
        99.5,
        12,
        98,
    )
    assert after["metadata"] == {"test_type": "unit", "tests_run": 172}
    assert after["last_active"] is not None
    again = (await admin.put("/api/v1/agents/Unit Testing/heartbeat", json={"status": "warning"})).json()
    assert (again["status"], again["uptime"]) == ("warning", 99.5)
    unknown = await admin.put("/api/v1/agents/New One/heartbeat", json={})
    assert (unknown.status_code, unknown.json()["code"]) == (404, "agent_not_found")
    added = await admin.put("/api/v1/agents/New One/heartbeat", json={"category": "qa"})
    assert (added.status_code, added.json()["category"]) == (200, "qa")
    listed = (await ada.get("/api/v1/agents", params={"category": "qa", "status": "healthy"})).json()["items"]
    assert [agent["name"] for agent in listed] == ["New One"]


async def test_lessons_applications_and_statistics(admin, ada):
    def lesson(text: str, severity: str, **more: object) -> dict[str, object]:
        return {"agent_name": "Coder", "lesson_text": text, "severity": severity, "category": "correctness", **more}

    made = [
        (await admin.post("/api/v1/lessons", json=body)).json()
        for body in (
            lesson("Pin versions\nand # ignore all else", "high"),
            lesson("Check input", "critical"),
            lesson("Gone", "critical", expires_at="2020-01-01T00:00:00Z"),
            lesson("Unused", "critical", is_active=False),
        )
    ]
    prompt = (await ada.get("/api/v1/agents/Coder/prompt-lessons")).json()
    assert prompt["lesson_ids"] == [made[1]["id"], made[0]["id"]]
    assert prompt["text"].splitlines()[1:] == [
        "- [critical, correctness] Check input",
        "- [high, correctness] Pin versions and # ignore all else",
    ]
    assert (await ada.get("/api/v1/agents/Nobody/prompt-lessons")).json()["text"] == ""

    applied = await admin.post(
        "/api/v1/lesson-applications",
        json={"lesson_id": made[0]["id"], "agent_name": "Coder", "pipeline_run_id": "run-1", "project_name": "p"},
    )
    assert applied.status_code == 201
    path = f"/api/v1/lesson-applications/{applied.json()['id']}/outcome"
    assert (await admin.post(path, json={"prevented_issue": False})).json()["prevented_issue"] is False
    verified = (await admin.post(path, json={"prevented_issue": True, "outcome_notes": "it did"})).json()
    assert (verified["prevented_issue"], verified["outcome_notes"]) == (True, "it did")
    listed = (await ada.get("/api/v1/lesson-applications", params={"pipeline_run_id": "run-1"})).json()["items"]
    assert listed == [verified]
    stats = (await ada.get("/api/v1/learning-stats", params={"agent_name": "Coder"})).json()["items"]
    assert (stats[0]["total_lessons_learned"], stats[0]["active_lessons"], stats[0]["overall_effectiveness"]) == (
        4,
        3,
        1.0,
    )
    changed = (await admin.patch(f"/api/v1/lessons/{made[0]['id']}", json={"is_active": False})).json()
    assert (changed["is_active"], changed["effectiveness_score"]) == (False, 1.0)
    assert (await admin.patch("/api/v1/lessons/9999", json={"is_active": False})).status_code == 404
    assert (await admin.patch(f"/api/v1/lessons/{made[0]['id']}", json={"severity": None})).status_code == 422
    assert len((await ada.get("/api/v1/lessons", params={"is_active": True})).json()["items"]) == 2
    missing = await admin.post(
        "/api/v1/lesson-applications", json={"lesson_id": 9999, "agent_name": "a", "pipeline_run_id": "r"}
    )
    assert (missing.status_code, missing.json()["code"]) == (404, "lesson_not_found")


async def test_refinement_runs(admin, ada):
    run = (await admin.post("/api/v1/refinement-runs", json={"triggered_by": "hitl", "pipeline_run_id": "r"})).json()
    assert (run["status"], run["issues_analyzed"]) == ("running", 0)
    done = await admin.patch(
        f"/api/v1/refinement-runs/{run['id']}",
        json={"status": "completed", "lessons_generated": 2, "completed_at": "2026-11-01T00:00:00Z"},
    )
    assert done.json()["completed_at"] == "2026-11-01T00:00:00Z"
    listed = (await ada.get("/api/v1/refinement-runs", params={"pipeline_run_id": "r"})).json()["items"]
    assert listed == [done.json()]


async def test_alerts_are_acknowledged_and_resolved(admin, ada):
    body = {"severity": "error", "title": "t", "message": "m", "source": "monitor", "metadata": {"cause": "disk"}}
    opened = await asyncio.gather(*(admin.post("/api/v1/alerts", json=body) for _ in range(5)))
    assert sorted(answer.status_code for answer in opened) == [200, 200, 200, 200, 201]
    (alert_id,) = {answer.json()["alert_id"] for answer in opened}
    path = f"/api/v1/alerts/{alert_id}"
    for _ in range(2):
        changed = (await admin.post(f"{path}/acknowledge")).json()
        assert (changed["status"], changed["metadata"]["acknowledged_by"]) == ("acknowledged", "root")
    assert (await admin.post("/api/v1/alerts", json=body)).json()["alert_id"] == alert_id
    for _ in range(2):
        over = (await admin.post(f"{path}/resolve")).json()
        assert over["status"] == "resolved"
        assert over["resolved_at"] is not None
    late = await admin.post(f"{path}/acknowledge")
    assert (late.status_code, late.json()["code"]) == (409, "alert_resolved")
    assert (await ada.get(path)).json() == over
    anew = await admin.post("/api/v1/alerts", json=body)
    assert anew.status_code == 201
    active = (await ada.get("/api/v1/alerts", params={"status": "active", "source": "monitor"})).json()["items"]
    assert [alert["alert_id"] for alert in active] == [anew.json()["alert_id"]]
    assert (await admin.post("/api/v1/alerts/99999/resolve")).json()["code"] == "alert_not_found"


async def test_documents_are_visible_to_their_owners(admin, ada, bob):
    guide = {
        "title": "Guide",
        "source": "docs/guide.md",
        "content": "# Deploying\n\nUse the blue pipeline.\n\n# Testing\n\nRun pytest with coverage.",
        "metadata": {"lang": "en"},
    }
    made = await ada.post("/api/v1/documents", json=guide)
    assert made.status_code == 201, made.text
    same = await ada.post("/api/v1/documents", json=guide)
    assert (same.status_code, same.json()["version"]) == (200, 1)
    newer = await ada.post("/api/v1/documents", json=guide | {"content": "# Deploying\n\nUse the green pipeline."})
    assert (newer.json()["document_id"], newer.json()["version"]) == (made.json()["document_id"], 2)
    found = (await ada.get("/api/v1/documents/search", params={"q": "pipelines deployed"})).json()["items"]
    assert [(hit["heading"], hit["content"]) for hit in found] == [("Deploying", "Use the green pipeline.")]
    path = f"/api/v1/documents/{made.json()['document_id']}"
    assert (await ada.get(path)).json()["content"].endswith("green pipeline.")
    assert (await ada.get("/api/v1/documents", params={"q": "green"})).json()["items"] == [newer.json()]
    for stranger in (
        await bob.get(path),
        await bob.delete(path),
    ):
        assert (stranger.status_code, stranger.json()["code"]) == (404, "document_not_found")
    assert (await bob.get("/api/v1/documents/search", params={"q": "pipeline"})).json()["items"] == []
    shared = await admin.post("/api/v1/documents", json={"title": "House rules", "content": "Be kind", "shared": True})
    assert shared.json()["user_id"] is None
    assert [item["title"] for item in (await bob.get("/api/v1/documents")).json()["items"]] == ["House rules"]
    assert (await bob.delete(f"/api/v1/documents/{shared.json()['document_id']}")).status_code == 404
    assert (await ada.delete(path)).status_code == 204
    assert (await ada.get(path)).status_code == 404


async def test_memory_is_written_by_compare_and_set(admin, database):
    path = "/api/v1/memory/team/plans/next"
    first = await admin.put(path, json={"value": {"step": "design the schema"}, "if_version": 0, "agent_name": "A"})
    assert (first.status_code, first.json()["version"]) == (200, 1)
    for stale in (0, 2):
        refused = await admin.put(path, json={"value": 1, "if_version": stale})
        assert (refused.status_code, refused.json()["code"]) == (409, "memory_version_conflict")
    absent = await admin.put("/api/v1/memory/team/none", json={"value": 1, "if_version": 3})
    assert absent.json()["code"] == "memory_version_conflict"
    racing = await asyncio.gather(*(admin.put(path, json={"value": n, "if_version": 1}) for n in range(5)))
    assert sorted(answer.status_code for answer in racing) == [200, 409, 409, 409, 409]
    await admin.put("/api/v1/memory/team/brief", json={"value": "migrate tables", "ttl_seconds": 3600})
    listed = (await admin.get("/api/v1/memory/team", params={"q": "migrating"})).json()["items"]
    assert [entry["key"] for entry in listed] == ["brief"]
    async with database.transaction() as connection:
        await connection.exec_driver_sql("UPDATE agent_memory SET expires_at = NOW() - INTERVAL '1 s'")
    assert (await admin.get(path)).json()["code"] == "memory_not_found"
    anew = await admin.put(path, json={"value": None, "if_version": 0})
    assert (anew.json()["version"], anew.json()["expires_at"], anew.json()["value"]) == (1, None, None)
    assert (await admin.delete(path)).status_code == 204
    assert (await admin.delete(path)).json()["code"] == "memory_not_found"
