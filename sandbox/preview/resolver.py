"""Implements the preview's protocols with sessions, guest agents, callers and signatures."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from sandbox.access.tokens import TokenService, TokenUnknown
from sandbox.domain.caller import Caller
from sandbox.engine.base import Engine
from sandbox.engine.guest import Guest
from sandbox.preview.target import PreviewTarget
from sandbox.sessions.service import SessionService


class SessionResolver:
    """`PreviewResolver` over the sessions of the database."""

    def __init__(self, sessions: SessionService, engine: Engine) -> None:
        self._sessions = sessions
        self._engine = engine

    async def resolve(self, session_id: UUID) -> PreviewTarget | None:
        session = await self._sessions.find(session_id)
        if session is None:
            return None
        roles = session.plan.roles if session.plan else {}
        ports = {plan.port: role for role, plan in roles.items() if plan.port is not None}
        return PreviewTarget(
            session_id=session_id,
            user_id=session.user_id,
            status=session.status,
            preview_port=session.preview_port,
            roles=tuple(session.containers),
            port_roles=ports,
            tls_ports=session.observations.tls_ports,
            pipeline_stage=session.pipeline_stage,
            error=session.error,
            public_names=session.plan is not None and session.plan.preview.host == "public",
        )

    def guest(self, session_id: UUID, role: str) -> Guest:
        return self._engine.guest(session_id, role)


class TokenAuthenticator:
    """`PreviewAuthenticator` over the callers' tokens."""

    def __init__(self, tokens: TokenService) -> None:
        self._tokens = tokens

    async def caller(self, headers: Mapping[str, str]) -> Caller | None:
        token = headers.get("x-api-key") or headers.get("authorization", "").partition(" ")[2].strip()
        if not token:
            return None
        try:
            return await self._tokens.authenticate(token)
        except TokenUnknown:
            return None
