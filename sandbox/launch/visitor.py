"""Looks at an app as a visitor of the preview does, and says what is wrong with what is seen."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from sandbox.domain.hosts import ANSWER_HEADER
from sandbox.domain.observations import LaunchWarning, WarningCode
from sandbox.engine.guest import Guest
from sandbox.launch.answers import PAGE, frame_refusal, rank, refuses_host
from sandbox.launch.causes.cause import Cause
from sandbox.launch.http_probe import Answer, Entrance, visit
from sandbox.launch.page_search import CONVENTIONS, paths_to_try

#: How long an app that has just opened its port may answer with an error before that is what is seen. With the
#: statuses of `_NOT_YET` an app says itself that it needs more time.
ERROR_SECONDS = 3.0
NOT_YET_SECONDS = 15.0
_NOT_YET = (502, 503, 504)
_PAUSE = 0.5
#: Longest wait for one page: a development server may compile it first.
PAGE_SECONDS = 20.0
#: Longest that looking for another page may take.
SEARCH_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What a visitor gets. `path` is the path at which there is a page, or that was asked for."""

    path: str = "/"
    warning: LaunchWarning | None = None
    frame_refusal: str | None = None


@dataclass(frozen=True, slots=True)
class App:
    """One role's app, and the ways to it."""

    role: str
    port: int
    guest: Guest
    #: The role's folder in the container.
    root: str
    #: The last lines of its output.
    lines: Callable[[], Sequence[str]]
    #: What these lines say of a failure.
    cause: Callable[[], Awaitable[Cause]]
    #: The way through the guest agent.
    inside: Entrance
    #: The preview's own way; None if there is no proxy in front, or the app is not the one that the preview shows.
    door: Entrance | None
    #: Whether this is the app that the preview shows.
    is_shown: bool


async def look(app: App, named_path: str | None) -> Seen:
    """Ask for the page at `/` and judge it; in the app that the preview shows, another page is looked for if there is
    none.

    `named_path` is a health path that has answered already. Raises GuestError if the guest agent does not answer.
    """
    if named_path is not None and not app.is_shown:
        return Seen()
    answer = await _settled(app)
    if not app.is_shown and (answer.status or 0) < 500:  # only the preview needs a page, or HTTP
        return Seen()
    if rank(answer) < PAGE and not _is_error(answer):
        if (refusal := _host_refusal(app, answer)) is not None:
            return Seen(warning=refusal)
        found = await _other_page(app, answer)
        if found is not None:
            return Seen(found.path, None, frame_refusal(found))
        return Seen(warning=_no_page(app, answer))
    return Seen("/", await _warning(app, answer), frame_refusal(answer))


async def _settled(app: App) -> Answer:
    """The answer to `/`, once it is no error or has been one for a while."""
    began = time.monotonic()
    while True:
        answer = await _visit(app, "/")
        if not _is_error(answer):
            return answer
        own = ANSWER_HEADER in answer.headers
        patience = NOT_YET_SECONDS if answer.status in _NOT_YET and not own else ERROR_SECONDS
        if time.monotonic() - began > patience or answer.other_protocol:
            return answer
        await asyncio.sleep(_PAUSE)


def _is_error(answer: Answer) -> bool:
    """Whether no page of the app is seen at all: no HTTP, an error of the server, or an answer in its place."""
    return answer.status is None or answer.status >= 500 or ANSWER_HEADER in answer.headers


async def _visit(app: App, path: str) -> Answer:
    """The answer at the preview's door, or through the guest agent if the door cannot be reached at all."""
    if app.door is not None:
        answer = await visit(app.door, path, PAGE_SECONDS)
        if answer.status is not None or not answer.hung_up:
            return answer
    return await visit(app.inside, path, PAGE_SECONDS)


async def _other_page(app: App, refused: Answer) -> Answer | None:
    """A page at another path than `/`; None if there is none."""
    try:
        async with asyncio.timeout(SEARCH_SECONDS):
            for path in await paths_to_try(app.guest, app.root, app.port, app.lines(), refused):
                answer = await _visit(app, path)
                # A guess counts only if it is a page to look at.
                if rank(answer) > PAGE or (rank(answer) == PAGE and path not in CONVENTIONS):
                    return answer
    except TimeoutError:
        pass
    return None


def _host_refusal(app: App, answer: Answer) -> LaunchWarning | None:
    if not refuses_host(answer):
        return None
    return LaunchWarning(
        app.role,
        WarningCode.HOST_REFUSED,
        f"the app on port {app.port} refuses the host name under which it is asked: {_first_words(answer)}",
        "Allow the name in the configuration of its server (allowedHosts, ALLOWED_HOSTS).",
    )


def _no_page(app: App, answer: Answer) -> LaunchWarning:
    return LaunchWarning(
        app.role,
        WarningCode.NO_PAGE,
        f"the app on port {app.port} answers GET {answer.path} with status {answer.status}, and no page was found at "
        "the paths that it prints or that are usual",
        "Add the page's path to the preview's address, or have the app answer at /.",
    )


async def _warning(app: App, answer: Answer) -> LaunchWarning | None:
    """What is wrong with an answer that is not simply a page elsewhere."""
    if answer.status is None:
        hint = "The preview shows HTTP only; other protocols can be used inside the session."
        message = f"port {app.port} is open, but a visitor of the preview sees no page: {answer.detail}"
        return LaunchWarning(app.role, WarningCode.NOT_HTTP, message, hint)
    if not _is_error(answer):
        return None
    if own := answer.headers.get(ANSWER_HEADER):
        hint = "Open the preview; if it is the same there, look at the app's log."
        message = f"the app on port {app.port} answers, but the preview does not show it ({own})"
        return LaunchWarning(app.role, WarningCode.PREVIEW_DIFFERS, message, hint)
    cause = await app.cause()
    known = cause.evidence.cause is not None
    message = f"the app on port {app.port} answers GET {answer.path} with status {answer.status}"
    return LaunchWarning(
        app.role,
        WarningCode.SERVER_ERROR,
        f"{message}:\n{cause.excerpt}" if known else message,
        (cause.hint if known else "")
        or "The app runs: look at the preview and at its log, and correct what they name.",
    )


def _first_words(answer: Answer) -> str:
    words = re.sub(r"<[^>]*>", " ", answer.text).split()
    return " ".join(words)[:200]
