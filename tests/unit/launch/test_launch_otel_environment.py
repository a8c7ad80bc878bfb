"""The OTEL_* variables of a container, and how variables of the plan and the session override them."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import unquote
from uuid import UUID

from opentelemetry.util.re import parse_env_headers

from sandbox.domain.plan import LaunchPlan, RolePlan, blank_plan
from sandbox.domain.session import Session, SessionStatus
from sandbox.domain.variables import SessionValues
from sandbox.engine.guest import EXPORTS_PORT
from sandbox.guest.options import Options
from sandbox.launch.environment import preview_environment, role_environment
from sandbox.launch.otel_environment import otel_environment
from sandbox.settings import Settings

ID = UUID("5f0c3b0a-1111-2222-3333-444455556666")
TOKEN = "sbxs_WyJ.a-b_c"


def session(project_id: str | None = "shop", **env: str) -> Session:
    now = datetime.now(UTC)
    return Session(
        session_id=ID, user_id="ada", project_id=project_id, project_digest=None, status=SessionStatus.CREATING,
        runtime_type="python312", containers={}, preview_port=None, backend_port=None, pipeline_stage=None,
        pipeline_run_id="run", run_id=ID, created_at=now, last_active=now, terminated_at=None, expires_at=None,
        idle_timeout_seconds=None, max_lifetime_seconds=None, error=None, work=None, values=SessionValues(env),
    )  # fmt: skip


def plan(*roles: str, **env: str) -> LaunchPlan:
    return LaunchPlan(roles={role: RolePlan(runtime="python312", env=env) for role in roles})


def environment(session_: Session, plan_: LaunchPlan, role: str) -> dict[str, str]:
    """The environment of the role's commands, in a container that an earlier launch created without these variables."""
    bare = LaunchPlan(roles={name: RolePlan(runtime="python312") for name in plan_.roles})
    of_container = otel_environment(session(session_.project_id), bare, role, TOKEN)
    return of_container | role_environment(session_, plan_, role)


def test_the_variables_suffice_for_an_exporter() -> None:
    env = environment(session(), plan("backend"), "backend")
    assert env["OTEL_EXPORTER_OTLP_ENDPOINT"] == f"http://127.0.0.1:{EXPORTS_PORT}"
    assert env["OTEL_EXPORTER_OTLP_PROTOCOL"] == "http/protobuf"
    assert parse_env_headers(env["OTEL_EXPORTER_OTLP_HEADERS"]) == {"authorization": f"Bearer {TOKEN}"}
    assert (env["OTEL_TRACES_EXPORTER"], env["OTEL_LOGS_EXPORTER"], env["OTEL_METRICS_EXPORTER"]) == (
        "otlp", "otlp", "none",
    )  # fmt: skip


def test_apps_know_where_visitors_see_them() -> None:
    def of(role: str) -> dict[str, str]:
        return preview_environment(session(), served, role, settings.preview_url)

    settings = Settings(public_scheme="https", public_port=443, preview_domain="apps.example")
    ports = {"frontend": 5173, "backend": 8000, "worker": None}
    served = LaunchPlan(
        roles={name: RolePlan(runtime="python312", start="x", port=port) for name, port in ports.items()}
    )
    page, api = f"https://{ID}.apps.example", f"https://8000-{ID}.apps.example"
    by_port = {"SANDBOX_PREVIEW_URL_5173": page, "SANDBOX_PREVIEW_URL_8000": api}
    assert of("frontend") == {"SANDBOX_PREVIEW_URL": page} | by_port
    assert of("backend") == {"SANDBOX_PREVIEW_URL": api} | by_port
    assert of("worker") == {"SANDBOX_PREVIEW_URL": page} | by_port


def test_the_guest_agent_listens_on_the_port_of_the_endpoint() -> None:
    assert Options("serve").exports_port == EXPORTS_PORT


def test_the_service_is_named_after_project_and_role() -> None:
    assert environment(session(), plan("backend"), "backend")["OTEL_SERVICE_NAME"] == "shop"
    assert environment(session(), plan("backend", "frontend"), "frontend")["OTEL_SERVICE_NAME"] == "shop-frontend"
    blank = otel_environment(session(None), blank_plan("python312"), "main", TOKEN)
    assert blank["OTEL_SERVICE_NAME"] == "main"
    attributes = environment(session("a=b,c"), plan("web"), "web")["OTEL_RESOURCE_ATTRIBUTES"]
    pairs = {key: unquote(value) for key, value in (pair.split("=") for pair in attributes.split(","))}
    assert pairs == {"sandbox.session.id": str(ID), "sandbox.role": "web", "sandbox.project.id": "a=b,c"}


def test_given_variables_override_ours() -> None:
    env = environment(session(OTEL_SERVICE_NAME="mine"), plan("web", OTEL_METRICS_EXPORTER="console"), "web")
    assert (env["OTEL_SERVICE_NAME"], env["OTEL_METRICS_EXPORTER"]) == ("mine", "console")
    assert TOKEN in env["OTEL_EXPORTER_OTLP_HEADERS"]
    env = environment(session(OTEL_RESOURCE_ATTRIBUTES="service.name=mine"), plan("web"), "web")
    assert (env["OTEL_SERVICE_NAME"], env["OTEL_RESOURCE_ATTRIBUTES"]) == ("", "service.name=mine")


def test_the_token_is_not_sent_to_another_endpoint() -> None:
    for given in (
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://vendor.example"},
        {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://vendor.example/v1/traces"},
        {"OTEL_EXPORTER_OTLP_LOGS_HEADERS": "key=1"},
    ):
        for session_, plan_ in ((session(**given), plan("web")), (session(), plan("web", **given))):
            assert TOKEN not in str(environment(session_, plan_, "web"))
            container = otel_environment(session_, plan_, "web", TOKEN)
            assert TOKEN not in str(container)
            assert not container.keys() & given.keys()  # the engine shows them
    env = environment(session(OTEL_EXPORTER_OTLP_HEADERS="key=1"), plan("web"), "web")
    assert env["OTEL_EXPORTER_OTLP_HEADERS"] == "key=1"
