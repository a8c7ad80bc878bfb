"""The OpenAPI document, completed with what all routes share: authentication and the format of errors."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, Field

from sandbox.api.http import problems

_WITHOUT_TOKEN = {"/healthz", "/readyz"}
_METHODS = {"get", "put", "post", "patch", "delete"}

DESCRIPTION = """\
Generated projects as live, previewable sandboxes.

Upload a project (`PUT /api/v1/projects/{project_id}`), launch it (`POST /api/v1/sessions`), follow the launch
(`GET /api/v1/sessions/{session_id}/events`, SSE) and open its `preview_url`. Every error is an RFC 9457 problem with a
stable `code`, a `detail` that names the cause and a `hint` for the next step.
"""


class FieldProblem(BaseModel):
    """An invalid field of a request."""

    location: str = Field(alias="in", description="body, query, path or header")
    field: str
    message: str
    code: str


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str = Field(description="urn:purple8-sandbox:problem:{code}")
    title: str
    status: int
    code: str = Field(description="Stable identifier of the kind of error")
    detail: str = Field(description="The cause")
    hint: str = Field(description="What to do next; may be empty")
    request_id: str | None = Field(description="Identifies the request in logs and traces")
    errors: list[FieldProblem] | None = Field(None, description="For 422 `invalid_input`: the invalid fields")


class DocumentedApi(FastAPI):
    """FastAPI with a corrected document: the default one has another format of errors and no authentication."""

    def openapi(self) -> dict[str, Any]:
        """The document, built once."""
        if self.openapi_schema is None:
            self.openapi_schema = _completed(super().openapi())
        return self.openapi_schema


def _completed(document: dict[str, Any]) -> dict[str, Any]:
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for foreign in ("HTTPValidationError", "ValidationError"):
        schemas.pop(foreign, None)
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= {**problem.pop("$defs"), "Problem": problem}
    components["responses"] = {
        "Problem": {
            "description": "An error. 401 carries `WWW-Authenticate`; 429 and 503 carry `Retry-After`.",
            "content": {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
    }
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "A token made by `sandbox token create`"},
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same token"},
    }
    document["security"] = [{"bearer": []}, {"key": []}]
    for path, item in document["paths"].items():
        for operation in (item[method] for method in _METHODS & item.keys()):
            operation["responses"].pop("422", None)
            if path in _WITHOUT_TOKEN:
                operation["security"] = []
            else:
                operation["responses"].setdefault("default", {"$ref": "#/components/responses/Problem"})
    return document
