"""Exceptions of the guest agent."""

from __future__ import annotations

import errno

#: Error numbers of a write for which the disk, or the user's share of it, has no room.
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class Refused(Exception):
    """The request cannot be done. `code` is a code of the service's `GuestError`, `message` says why."""

    def __init__(self, code: str, message: str, status: int = 409) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status

    def document(self) -> dict[str, str]:
        """The body of the HTTP answer."""
        return {"code": self.code, "message": self.message}


class HungUp(Exception):
    """The peer closed the connection before the request or the answer was complete."""


def bad_request(message: str) -> Refused:
    """The request is malformed."""
    return Refused("agent_refused", message, 400)
