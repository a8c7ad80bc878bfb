"""What lets an instrumented app report by itself: the standard variables of OpenTelemetry's SDKs."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from sandbox.domain.plan import LaunchPlan
from sandbox.domain.session import Session
from sandbox.engine.base import EXPORTS_PORT

HEADERS = "OTEL_EXPORTER_OTLP_HEADERS"
#: Endings of the names of variables by which an app says that it reports elsewhere.
_ELSEWHERE = ("_ENDPOINT", "_HEADERS")


def reporting_environment(session: Session, plan: LaunchPlan, role: str, token: str) -> dict[str, str]:
    """The variables for everything that runs in the role's container. What the plan and the caller set wins; if they
    name an endpoint or headers, none of the exporter's is set: its token is not for others."""
    given = plan.roles[role].env | session.env
    name = role if session.project_id is None else session.project_id
    if session.project_id is not None and len(plan.roles) > 1:
        name = f"{session.project_id}-{role}"
    attributes = {"sandbox.session.id": str(session.session_id), "sandbox.role": role}
    if session.project_id is not None:
        attributes["sandbox.project.id"] = session.project_id
    env = {
        "OTEL_SERVICE_NAME": name,
        "OTEL_RESOURCE_ATTRIBUTES": ",".join(f"{key}={quote(value, safe='')}" for key, value in attributes.items()),
    }
    if not reports_elsewhere(given):
        env |= {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{EXPORTS_PORT}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            HEADERS: f"authorization={quote(f'Bearer {token}', safe='')}",
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_LOGS_EXPORTER": "otlp",
            # They are not taken here, and SDKs would say so every minute.
            "OTEL_METRICS_EXPORTER": "none",
        }
    return env | {name: value for name, value in given.items() if name.startswith("OTEL_")}


def reports_elsewhere(given: Mapping[str, str]) -> bool:
    """Whether these variables name an endpoint, or headers for one."""
    return any(name.startswith("OTEL_EXPORTER_OTLP_") and name.endswith(_ELSEWHERE) for name in given)
