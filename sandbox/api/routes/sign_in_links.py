"""`/api/v1/sign-in-links`: links that sign a browser in to the console once."""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from sandbox.access.browsers import LINK_SECONDS
from sandbox.api.http.auth import CurrentCaller
from sandbox.api.http.services import Injected

router = APIRouter(prefix="/api/v1/sign-in-links", tags=["tokens"])


class SignInLink(BaseModel):
    path: str = Field(description="Path and query of the link, below the address of the service")
    expires_in_seconds: int


@router.post("", status_code=201)
async def create_sign_in_link(caller: CurrentCaller, services: Injected, response: Response) -> SignInLink:
    """Make a link that signs one browser in as the caller, once. It keeps the token itself out of addresses."""
    response.headers["Cache-Control"] = "no-store"
    code = await services.tokens.sign_in_code(caller)
    return SignInLink(path=f"/sign-in?code={code}", expires_in_seconds=LINK_SECONDS)
