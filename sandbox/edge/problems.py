"""Errors that the edge answers by itself, in the form of the service's own (`application/problem+json`)."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

Json = dict[str, Any]


def problem(status: HTTPStatus, code: str, message: str, hint: str, **headers: str) -> Json:
    """Caddy's handler that answers with this error. `_` in the names of further headers stands for `-`."""
    body = {"type": "about:blank", "title": status.phrase, "status": status, "code": code}
    body |= {"detail": message, "message": message, "hint": hint, "request_id": "{http.request.uuid}"}
    own = {"Cache-Control": "no-store", "Content-Type": "application/problem+json"}
    own |= {"X-Request-Id": "{http.request.uuid}"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return {
        "handler": "static_response",
        "status_code": status,
        "headers": {name: [value] for name, value in own.items()},
        "body": json.dumps(body),
    }
