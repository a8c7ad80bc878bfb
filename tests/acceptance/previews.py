"""Previews as a browser that has opened the session's link sees them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.acceptance.api import Api


@contextmanager
def preview(api: Api, session: dict[str, Any]) -> Iterator[httpx.Client]:
    """A client of the session's preview, signed in by its link. It asks the service on loopback and names the preview
    in `Host`, since not every resolver knows names below `localhost`."""
    link = urlsplit(session["preview_url"])
    with httpx.Client(base_url=api.url, headers={"Host": link.netloc}, timeout=60, trust_env=False) as client:
        opened = client.get(f"{link.path}?{link.query}")
        assert opened.status_code == 302, opened.text
        assert opened.headers["location"] == "/"
        yield client


def page(client: httpx.Client, path: str = "/") -> str:
    """The text that a path of the preview answers, which must be a 200."""
    answer = client.get(path)
    assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text[:500]}"
    return answer.text
