"""The request, user and session that log lines and spans are about.

A context variable holds them: it follows `await` and is copied into tasks and `asyncio.to_thread`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace


@dataclass(slots=True)
class LogContext:
    """Request, user and session of the current work. `user_id` is set once the caller is authenticated."""

    request_id: str | None = None
    user_id: str | None = None
    session_id: str | None = None


_current: ContextVar[LogContext | None] = ContextVar("sandbox_log_context", default=None)
_EMPTY = LogContext()


def current() -> LogContext:
    """The context of the current work; an empty one outside any. Do not change it: use `bind` or `set_user`."""
    return _current.get() or _EMPTY


def set_user(user_id: str) -> None:
    """Set the user of the current request, for everything that shares its context. Does nothing outside a request."""
    context = _current.get()
    if context is not None:
        context.user_id = user_id


@contextmanager
def bind(
    *, request_id: str | None = None, user_id: str | None = None, session_id: str | None = None
) -> Iterator[LogContext]:
    """Set values of the context for the duration of the block; those that are not given stay as they are."""
    given = {"request_id": request_id, "user_id": user_id, "session_id": session_id}
    context = replace(current(), **{name: value for name, value in given.items() if value is not None})
    token = _current.set(context)
    try:
        yield context
    finally:
        _current.reset(token)
