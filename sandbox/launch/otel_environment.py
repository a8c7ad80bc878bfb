"""The standard OTEL_* variables, with which an app that uses an OpenTelemetry SDK exports to this service.

An app in a container sends OTLP to the guest agent on the loopback address; the service fetches the exports from there
(`sessions/exports/`).
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from sandbox.domain.plan import LaunchPlan
from sandbox.domain.session import Session
from sandbox.engine.guest import EXPORTS_PORT

_HEADERS = "OTEL_EXPORTER_OTLP_HEADERS"
_SERVICE = "OTEL_SERVICE_NAME"
_ATTRIBUTES = "OTEL_RESOURCE_ATTRIBUTES"


def otel_environment(session: Session, plan: LaunchPlan, role: str, token: str) -> dict[str, str]:
    """The OTEL_* variables of everything that runs in the role's container.

    `token` is the session's exports token (`Signer.sign_exports`). Variables of the plan and of the session override
    the ones set here where commands run, and are not among them: the engine shows a container's environment to all who
    may inspect it. If they name another endpoint, the token is left out.
    """
    given = given_variables(session, plan, role)
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
    if not _exports_elsewhere(given):
        env |= {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{EXPORTS_PORT}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            _HEADERS: f"authorization={quote(f'Bearer {token}', safe='')}",
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_LOGS_EXPORTER": "otlp",
            # The service accepts no OTLP metrics, and SDKs would log the refusal every minute.
            "OTEL_METRICS_EXPORTER": "none",
        }
    return env | cleared_variables(given)


def given_variables(session: Session, plan: LaunchPlan, role: str) -> dict[str, str]:
    """The variables of the plan and of the session, which override the former. Their values must be decrypted."""
    if session.sealed is not None:
        raise RuntimeError("the values of this session's environment have not been decrypted")
    return session.values.resolve({**plan.roles[role].env, **session.values.env})


def cleared_variables(given: Mapping[str, str]) -> dict[str, str]:
    """Variables to set to the empty string because they contradict the given ones.

    The container may have been created in an earlier launch, before these variables were given, so it may have ours in
    its environment. The token must not be sent to another endpoint, and `OTEL_SERVICE_NAME` would override a
    `service.name` in `OTEL_RESOURCE_ATTRIBUTES`.
    """
    cleared = [_HEADERS] if _exports_elsewhere(given) else []
    if "service.name=" in given.get(_ATTRIBUTES, ""):
        cleared.append(_SERVICE)
    return dict.fromkeys(cleared, "")


def _exports_elsewhere(given: Mapping[str, str]) -> bool:
    return any(
        name.startswith("OTEL_EXPORTER_OTLP_") and name.endswith(("_ENDPOINT", "_HEADERS")) and value
        for name, value in given.items()
    )
