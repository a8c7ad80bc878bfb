"""What the log lines and spans of one request, or of one launch, have in common.

Kept in one context variable, so that it follows `await` and is copied into tasks and `asyncio.to_thread`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace


@dataclass(slots=True)
class LogContext:
    """Whose doing the current work is. `user_id` becomes known once the caller is authenticated."""

    request_id: str | None = None
    user_id: str | None = None
    session_id: str | None = None


_current: ContextVar[LogContext | None] = ContextVar("sandbox_log_context", default=None)
_NOBODY = LogContext()


def current() -> LogContext:
    """The context of the current work; empty outside any. To be read only: see `bind` and `set_user`."""
    return _current.get() or _NOBODY


def set_user(user_id: str) -> None:
    """Name the user of the request under way, for everything that shares its context; nothing happens outside one."""
    context = _current.get()
    if context is not None:
        context.user_id = user_id


@contextmanager
def bind(
    *, request_id: str | None = None, user_id: str | None = None, session_id: str | None = None
) -> Iterator[LogContext]:
    """Add to the context for the block; what is not given stays as it was."""
    given = {"request_id": request_id, "user_id": user_id, "session_id": session_id}
    context = replace(current(), **{name: value for name, value in given.items() if value is not None})
    token = _current.set(context)
    try:
        yield context
    finally:
        _current.reset(token)
