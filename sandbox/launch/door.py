"""The preview's own door: how a launch asks for an app's page as a visitor of the preview does."""

from __future__ import annotations

from typing import Protocol

from sandbox.domain.session import Session
from sandbox.launch.http_probe import Entrance


class PreviewDoor(Protocol):
    """Makes ways into previews (`edge/visitor.py`)."""

    async def entrance(self, session: Session, port: int, role: str, *, tls: bool) -> Entrance:
        """A way to the port through the proxy in front of the service, good for some minutes.

        `tls` means that the app uses TLS. Raises GuestError if the port cannot be reached.
        """
