"""Ways into previews through the edge, for launches that look at an app as its visitors will."""

from __future__ import annotations

import asyncio
import secrets
from urllib.parse import urlsplit

from sandbox.domain.caller import SignedInBy
from sandbox.domain.session import Session
from sandbox.edge.folder import EdgeFolder, short_address
from sandbox.edge.grants import Grants
from sandbox.edge.store import GrantStore
from sandbox.launch.http_probe import Entrance, Streams, any_certificate
from sandbox.preview.headers import COOKIE_NAME
from sandbox.preview.target import Grant, PreviewTarget
from sandbox.settings import Settings

#: How long a launch may look at an app by one grant.
GRANT_SECONDS = 180


class Visitor:
    """Implements `launch.door.PreviewDoor` with a short-lived grant of the session's owner."""

    def __init__(self, settings: Settings, store: GrantStore, grants: Grants) -> None:
        self._settings = settings
        self._socket = EdgeFolder.of(settings).local_socket
        self._store = store
        self._grants = grants

    async def entrance(self, session: Session, port: int, role: str, *, tls: bool) -> Entrance:
        """See `PreviewDoor.entrance`."""
        grant = Grant(secrets.token_urlsafe(16), session.session_id, SignedInBy(session.user_id))
        await self._store.insert(grant, GRANT_SECONDS)
        target = PreviewTarget(
            session.session_id,
            session.user_id,
            session.status,
            port,
            (role,),
            port_roles={port: role},
            tls_ports=(port,) if tls else (),
            public_names=session.plan is not None and session.plan.preview.host == "public",
        )
        await self._grants.connect(grant, port, target, renew=False)
        host = urlsplit(self._settings.preview_url(session.session_id)).netloc
        secure = self._settings.public_scheme == "https"
        return Entrance(
            self._connect, port, host, {COOKIE_NAME: grant.name(port, public_names=target.public_names)}, tls=secure
        )

    async def _connect(self) -> Streams:
        context = any_certificate() if self._settings.tls != "off" else None
        name = self._settings.preview_domain if context else None
        with short_address(self._socket) as address:
            return await asyncio.open_unix_connection(address, ssl=context, server_hostname=name)
