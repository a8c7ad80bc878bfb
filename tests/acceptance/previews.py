"""Access to previews as a browser has it that has opened the session's link."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.acceptance.api import Api


@contextmanager
def preview(api: Api, session: dict[str, Any]) -> Iterator[httpx.Client]:
    """Yield a client of the session's preview that is signed in by its link.

    It connects to the service's address and names the preview in `Host`, because not every resolver knows names below
    `localhost`.
    """
    link = urlsplit(session["preview_url"])
    with httpx.Client(base_url=api.url, headers={"Host": link.netloc}, timeout=60, trust_env=False) as client:
        opened = client.get(f"{link.path}?{link.query}")
        assert opened.status_code == 302, opened.text
        assert opened.headers["location"] == link.path
        yield client


def page(client: httpx.Client, path: str = "/") -> str:
    """Return the body at a path of the preview. The status must be 200."""
    answer = client.get(path)
    assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text[:500]}"
    return answer.text
