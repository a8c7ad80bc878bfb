"""Removes surplus cookies.

A page of a preview can set cookies for the whole domain, which browsers then send to every host of it: enough of
them, and apps and the service would refuse the request for the size of its head. Which of them come from another
preview cannot be seen. So the longest go first, until what is left is of a size that every server takes. Sign-ins of
this service, and most sessions of apps, are in short cookies. Browsers keep at most 180 cookies for a site, so that
the short ones stay.
"""

from __future__ import annotations

from typing import Any, Final

Json = dict[str, Any]

#: Node.js accepts heads of 16 KiB, and has the smallest limit of the usual servers.
MAX_BYTES: Final = 12 * 1024
#: In each step cookies longer than this are removed. Our own are shorter than the last.
_STEPS: Final = (1000, 250, 66)


def surplus_cookies() -> list[Json]:
    """Routes that shorten the `Cookie` header where it is too long; the first of a server."""
    too_long = {"expression": f"size({{http.request.header.Cookie}}) > {MAX_BYTES}"}
    shortened = [{"match": [too_long], "handle": [_without_longer(length)]} for length in _STEPS]
    # Only clients other than browsers send so many.
    removed = {"match": [too_long], "handle": [{"handler": "headers", "request": {"delete": ["Cookie"]}}]}
    return [*shortened, removed]


def _without_longer(length: int) -> Json:
    operations = [
        {"search_regexp": rf"(?:^|;)\s*[^;]{{{length}}}[^;]+", "replace": ""},
        {"search_regexp": r"^;\s*", "replace": ""},
    ]
    return {"handler": "headers", "request": {"replace": {"Cookie": operations}}}
