"""Lessons over HTTP: to which runs they apply, what they prevent, prompts for a run, and refinement on request."""

from __future__ import annotations

from typing import Any

from sandbox.db.connection import Database
from tests.integration.learning.learning_rows import add_failure

LESSON: dict[str, Any] = {
    "agent_name": "Coder",
    "lesson_text": "Pin versions",
    "severity": "high",
    "category": "correctness",
}


async def test_a_lesson_says_to_which_runs_it_applies_and_what_it_prevents(admin, ada):
    trigger = {"runtime": "python312", "signature": "s"}
    made = (await admin.post("/api/v1/lessons", json=LESSON | {"trigger": trigger})).json()
    assert made["trigger"] == trigger | {
        "framework": None,
        "project_id": None,
        "remedy": None,
        "written_by": "person",
        "wording_problem": None,
        "occurrences": 0,
        "last_seen_at": made["trigger"]["last_seen_at"],
        "withdrawn_reason": None,
        "withdrawn_at": None,
    }
    assert (made["effect"]["verdict"], made["effect"]["needed_in_each_arm"]) == ("too_few_to_tell", 10)
    await admin.post("/api/v1/lessons", json=LESSON)
    listed = (await ada.get("/api/v1/lessons")).json()["items"]
    assert [lesson["trigger"] for lesson in listed] == [None, made["trigger"]]
    refused = await admin.post("/api/v1/lessons", json=LESSON | {"trigger": {"colour": "red"}})
    assert refused.status_code == 422


async def test_a_prompt_is_for_a_run(admin, ada):
    for runtime in ("python312", "node20"):
        body = LESSON | {"lesson_text": f"for {runtime}", "trigger": {"runtime": runtime}}
        await admin.post("/api/v1/lessons", json=body)
    path = "/api/v1/agents/Coder/prompt-lessons"
    prompt = (await ada.get(path, params={"runtime": "node20"})).json()
    assert [lesson["lesson_text"] for lesson in prompt["lessons"]] == ["for node20"]
    refused = await ada.get(path, params={"pipeline_run_id": "run"})
    assert (refused.status_code, refused.json()["code"]) == (403, "admin_required")
    assert (await ada.get(path, params={"max_characters": 1})).status_code == 422
    recorded = (await admin.get(path, params={"pipeline_run_id": "run", "limit": 2})).json()
    applied = (await ada.get("/api/v1/lesson-applications", params={"pipeline_run_id": "run"})).json()["items"]
    assert {row["lesson_id"] for row in applied} == set(recorded["lesson_ids"])
    assert len(recorded["lesson_ids"]) + len(recorded["withheld_ids"]) == 2
    drawn = (await admin.get("/api/v1/lesson-assignments", params={"pipeline_run_id": "run"})).json()["items"]
    assert {row["lesson_id"] for row in drawn if row["arm"] == "applied"} == set(recorded["lesson_ids"])
    assert {(row["channel"], row["failed"]) for row in drawn} == {("prompt", None)}
    assert (await ada.get("/api/v1/lesson-assignments")).status_code == 403
    end = {"pipeline_run_id": "run", "failed": True}
    assert (await ada.post("/api/v1/lesson-assignments/outcome", json=end)).status_code == 403
    settled = (await admin.post("/api/v1/lesson-assignments/outcome", json=end)).json()["lesson_ids"]
    assert settled == sorted(row["lesson_id"] for row in drawn)
    assert (await admin.post("/api/v1/lesson-assignments/outcome", json=end)).json()["lesson_ids"] == []
    effects = [lesson["effect"] for lesson in (await ada.get("/api/v1/lessons")).json()["items"]]
    assert sum(effect["applied_failed"] + effect["withheld_failed"] for effect in effects) == 2


async def test_a_person_asks_for_a_refinement_run(admin, ada, database: Database):
    await add_failure(database)
    refused = await ada.post("/api/v1/refinement-runs/execute")
    assert refused.status_code == 403
    done = await admin.post("/api/v1/refinement-runs/execute", json={"pipeline_run_id": "run"})
    assert done.status_code == 201
    run = done.json()
    assert (run["triggered_by"], run["status"], run["issues_analyzed"], run["lessons_generated"]) == (
        "hitl",
        "completed",
        1,
        1,
    )
    (lesson,) = (await ada.get("/api/v1/lessons")).json()["items"]
    assert (lesson["trigger"]["remedy"], lesson["trigger"]["written_by"]) == ("install_package", "rules")


async def test_lessons_that_quote_evidence_are_for_admins(admin, ada, database: Database):
    await add_failure(database, agents='["Coder"]', family="other", signature="app_exited: no luck with secret")
    await admin.post("/api/v1/refinement-runs/execute")
    await admin.post("/api/v1/lessons", json=LESSON)
    path = "/api/v1/agents/Coder/prompt-lessons"
    assert len((await admin.get("/api/v1/lessons")).json()["items"]) == 3
    assert [lesson["lesson_text"] for lesson in (await ada.get("/api/v1/lessons")).json()["items"]] == ["Pin versions"]
    assert len((await admin.get(path)).json()["lesson_ids"]) == 2
    assert len((await ada.get(path)).json()["lesson_ids"]) == 1
