"""The OpenAPI document, with what is true of all routes: how callers are known, and what errors look like."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, Field

from sandbox.api.http import problems

_OPEN = {"/healthz", "/readyz"}
_METHODS = {"get", "put", "post", "patch", "delete"}


class FieldProblem(BaseModel):
    """What is wrong with one field of a request."""

    place: str = Field(alias="in", description="body, query, path or header")
    field: str
    message: str
    code: str


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str = Field(description="urn:purple8-sandbox:problem:{code}")
    title: str
    status: int
    code: str = Field(description="Stable: programs may depend on it")
    detail: str = Field(description="The cause")
    hint: str = Field(description="The next step; empty if there is none to name")
    request_id: str | None = Field(description="Names the request in the service's log and in traces")
    errors: list[FieldProblem] | None = Field(None, description="With 422 `invalid_input`: each field that is wrong")


class DocumentedApi(FastAPI):
    """FastAPI, whose own document tells of errors in a shape that is not ours, and of no way to sign in."""

    def openapi(self) -> dict[str, Any]:
        """The document; made once."""
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
        "bearer": {"type": "http", "scheme": "bearer", "description": "A token, as `sandbox token create` makes them"},
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same token"},
    }
    document["security"] = [{"bearer": []}, {"key": []}]
    for path, item in document["paths"].items():
        for operation in (item[method] for method in _METHODS & item.keys()):
            operation["responses"].pop("422", None)
            if path in _OPEN:
                operation["security"] = []
            else:
                operation["responses"].setdefault("default", {"$ref": "#/components/responses/Problem"})
    return document
