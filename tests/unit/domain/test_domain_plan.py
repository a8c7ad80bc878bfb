"""Plans as they are stored in a session's row."""

from __future__ import annotations

from sandbox.domain.plan import LaunchPlan, RolePlan, stored_plan

#: As release 0.1 writes it.
STORED = {
    "roles": {
        "backend": {
            "env": {"A": "1"},
            "root": "api",
            "port": 8000,
            "start": "uvicorn main:app --port 8000",
            "health": "/health",
            "install": "uv pip install -r requirements.txt",
            "runtime": "python312",
            "framework": "FastAPI",
        },
        "worker": {
            "env": {},
            "root": ".",
            "port": None,
            "start": None,
            "health": "/",
            "install": None,
            "runtime": "node20",
            "framework": None,
        },
    }
}


def test_a_plan_of_the_previous_release_is_read_and_written_unchanged() -> None:
    plan = stored_plan(STORED)
    assert plan.roles["backend"].start == "uvicorn main:app --port 8000"
    assert (plan.preview_role, plan.backend_port, plan.primary_runtime) == ("backend", 8000, "python312")
    written = plan.model_dump(mode="json")["roles"]
    assert {role: written[role] | stored for role, stored in STORED["roles"].items()} == written


def test_fields_written_by_a_newer_release_are_ignored() -> None:
    newer = {"roles": {"main": {"runtime": "node20", "gpu": 1}}, "schedule": "daily"}
    assert stored_plan(newer) == LaunchPlan(roles={"main": RolePlan(runtime="node20")})
