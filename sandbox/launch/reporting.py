"""What lets an instrumented app report by itself: the standard variables of OpenTelemetry's SDKs."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from sandbox.domain.plan import LaunchPlan
from sandbox.domain.session import Session
from sandbox.engine.base import EXPORTS_PORT

_HEADERS = "OTEL_EXPORTER_OTLP_HEADERS"
_SERVICE = "OTEL_SERVICE_NAME"
_ATTRIBUTES = "OTEL_RESOURCE_ATTRIBUTES"


def reporting_environment(session: Session, plan: LaunchPlan, role: str, token: str) -> dict[str, str]:
    """The variables for everything that runs in the role's container; what the plan and the caller set wins."""
    given = plan.roles[role].env | session.env
    name = role if session.project_id is None else session.project_id
    if session.project_id is not None and len(plan.roles) > 1:
        name = f"{session.project_id}-{role}"
    attributes = {"sandbox.session.id": str(session.session_id), "sandbox.role": role}
    if session.project_id is not None:
        attributes["sandbox.project.id"] = session.project_id
    env = {
        _SERVICE: name,
        _ATTRIBUTES: ",".join(f"{key}={quote(value, safe='')}" for key, value in attributes.items()),
    }
    if not _reports_elsewhere(given):
        env |= {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{EXPORTS_PORT}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            _HEADERS: f"authorization={quote(f'Bearer {token}', safe='')}",
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_LOGS_EXPORTER": "otlp",
            # They are not taken here, and SDKs would say so every minute.
            "OTEL_METRICS_EXPORTER": "none",
        }
    return env | withdrawn(given) | {name: value for name, value in given.items() if name.startswith("OTEL_")}


def withdrawn(given: Mapping[str, str]) -> dict[str, str]:
    """Those of our variables, empty, that must not stand beside these: the container may have been made with them,
    before these were said. The token is not for the endpoint of others; the name of a service is given in two ways."""
    empty = [_HEADERS] if _reports_elsewhere(given) else []
    if "service.name=" in given.get(_ATTRIBUTES, ""):
        empty.append(_SERVICE)
    return dict.fromkeys(empty, "")


def _reports_elsewhere(given: Mapping[str, str]) -> bool:
    return any(
        name.startswith("OTEL_EXPORTER_OTLP_") and name.endswith(("_ENDPOINT", "_HEADERS")) and value
        for name, value in given.items()
    )
