"""`/api/v1/secrets`: values that users keep by name, and that the environment of a session refers to."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from sandbox.api.http.auth import CurrentCaller
from sandbox.api.http.pages import CursorText, Limit, Page
from sandbox.api.http.services import Injected
from sandbox.db.cursors import decode_cursor, next_cursor
from sandbox.domain.variables import MAX_VALUE
from sandbox.secrets.store import Secret

router = APIRouter(prefix="/api/v1/secrets", tags=["secrets"])

SecretName = Annotated[str, Path(max_length=100, description="Letters, digits and . _ -, a letter or digit first")]
OfProject = Annotated[
    str | None,
    Query(min_length=1, max_length=255, description="The project that it is for; without it, all of the user's"),
]


class NewSecret(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    value: str = Field(min_length=1, max_length=MAX_VALUE, repr=False, description="Is never given out again")


class SecretView(BaseModel):
    """A secret, without its value."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    project_id: str | None
    created_at: datetime
    updated_at: datetime


@router.put("/{name}")
async def put_secret(
    name: SecretName, body: NewSecret, caller: CurrentCaller, services: Injected, project_id: OfProject = None
) -> SecretView:
    """Store a value, or replace it. Sessions that run go on with the earlier value until they are relaunched."""
    return SecretView.model_validate(await services.secrets.put(caller, name, body.value, project_id))


@router.get("")
async def list_secrets(
    caller: CurrentCaller,
    services: Injected,
    project_id: OfProject = None,
    limit: Limit = 100,
    cursor: CursorText = None,
) -> Page[SecretView]:
    """The caller's secrets by name, without their values."""
    after = ("", "")
    if cursor is not None:
        _, key = decode_cursor(cursor, str)
        name, _, project = key.partition("/")
        after = (name, project)
    found = await services.secrets.list(caller, project_id, limit, after)
    return Page(
        items=[SecretView.model_validate(secret) for secret in found],
        next_cursor=next_cursor(found, limit, _position),
    )


def _position(secret: Secret) -> tuple[datetime, str]:
    return secret.created_at, f"{secret.name}/{secret.project_id or ''}"


@router.delete("/{name}", status_code=204)
async def delete_secret(
    name: SecretName, caller: CurrentCaller, services: Injected, project_id: OfProject = None
) -> None:
    """Remove a secret. Sessions that have its value keep it until they end."""
    await services.secrets.delete(caller, name, project_id)
