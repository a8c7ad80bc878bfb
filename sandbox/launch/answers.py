"""Judges an app's answer by what the visitor of a preview would see."""

from __future__ import annotations

import re

from sandbox.launch.http_probe import Answer

#: The least rank of an answer that is a page, so that nothing else has to be looked for.
PAGE = 4
#: The least rank of an answer that is worth showing at all.
ANSWERS = 2
#: How development servers refuse a host name: Vite, webpack-dev-server, Django, Rails, Next.js.
_REFUSES_HOST = re.compile(
    r"Blocked request\. This host|Invalid Host(?: header|/Origin header)|DisallowedHost|Invalid HTTP_HOST header"
    r"|Blocked hosts?: |Host .{1,200} is not allowed"
)
_FRAME_ANCESTORS = re.compile(r"frame-ancestors\s+([^;]+)", re.IGNORECASE)


def rank(answer: Answer) -> int:
    """How good an answer is for the visitor of a preview.

    5 is an HTML page, 4 another page, a redirect or a sign-in, 3 an error of the request such as 404, 2 an error of the
    server, 1 a port for WebSockets or a debugger, 0 no HTTP.
    """
    if answer.status is None:
        return 0
    if answer.status in (400, 426):
        return 1
    if answer.status >= 500:
        return 2
    signs_in = answer.status == 401 or (answer.status == 403 and bool(answer.body.strip()))
    if (answer.status >= 400 and not signs_in) or refuses_host(answer):
        return 3
    return 5 if answer.is_html else PAGE


def refuses_host(answer: Answer) -> bool:
    """Whether the app answers that it does not want to be asked by this host name."""
    return (answer.status or 0) >= 400 and _REFUSES_HOST.search(answer.text) is not None


def frame_refusal(answer: Answer) -> str | None:
    """The header with which an app forbids pages of other origins to show it in a frame; None if it does not.

    A browser that knows `frame-ancestors` ignores `X-Frame-Options` beside it.
    """
    policy = answer.headers.get("content-security-policy", "")
    if match := _FRAME_ANCESTORS.search(policy):
        allowed = match[1].split()
        return None if "*" in allowed else f"Content-Security-Policy: frame-ancestors {match[1].strip()}"[:200]
    options = answer.headers.get("x-frame-options", "").strip()
    return f"X-Frame-Options: {options}"[:200] if options.lower() in ("deny", "sameorigin") else None
