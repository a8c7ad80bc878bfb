"""Looks for the page of an app that has none at `/`.

Apps with a base path and APIs answer 404 there. The paths to try come from what the app has printed, from the error
page itself, from the configuration of its framework, and last from conventions.
"""

from __future__ import annotations

import contextlib
import json
import posixpath
import re
from collections.abc import AsyncIterator, Iterable
from html import unescape

from sandbox.engine.guest import Guest
from sandbox.engine.guest_data import FileInfo
from sandbox.errors import GuestError
from sandbox.launch.http_probe import Answer
from sandbox.launch.port_search import printed_addresses

#: Paths under which frameworks show the pages of an API: FastAPI, Swagger, Django, GraphQL servers.
CONVENTIONS = ("/docs", "/api/docs", "/swagger", "/swagger-ui/index.html", "/redoc", "/admin/", "/graphql", "/api/")
MAX_PATHS = 24
_CONFIGURATIONS = (
    "next.config", "vite.config", "nuxt.config", "astro.config", "svelte.config", "vue.config", "gatsby-config",
    "docusaurus.config", "rsbuild.config", ".vitepress/config", "docs/.vitepress/config",
)  # fmt: skip
_SUFFIXES = ("js", "mjs", "ts", "mts", "cjs")
_MAX_CONFIGURATION_BYTES = 64 * 1024
_BASE = re.compile(
    r"\b(?:basePath|base|baseURL|baseUrl|publicPath|pathPrefix|assetPrefix)[\"']?\s*:\s*[\"'`](/[^\"'`\s]*)"
)
_LINK = re.compile(r"<a\b[^>]*?\bhref\s*=\s*[\"'](/[^\"'#]{0,200})", re.IGNORECASE)
#: The patterns that Django lists on its page for 404, in debug mode.
_DJANGO_PATTERN = re.compile(r"<code>\s*([a-z0-9_][a-z0-9_/-]{0,80}/)\s*</code>", re.IGNORECASE)


async def paths_to_try(guest: Guest, root: str, port: int, lines: Iterable[str], refused: Answer) -> list[str]:
    """The paths at which the app may have its page, the likeliest first. `root` is the role's folder in the container,
    `refused` the answer to `/`. Raises GuestError if the guest agent does not answer."""
    printed = [path for other, path in printed_addresses(lines) if other == port]
    linked = [unescape(path) for path in _LINK.findall(refused.text)] if refused.is_html else []
    patterns = [f"/{path}" for path in _DJANGO_PATTERN.findall(refused.text)] if refused.is_html else []
    configured = [path async for path in _configured(guest, root)]
    candidates = [*printed, *linked, *configured, *patterns, *CONVENTIONS]
    return [path for path in dict.fromkeys(candidates) if path != "/" and _is_path(path)][:MAX_PATHS]


def _is_path(path: str) -> bool:
    return path.startswith("/") and not path.startswith("//") and path.isascii() and path.isprintable()


async def _configured(guest: Guest, root: str) -> AsyncIterator[str]:
    """The base paths in the configuration files of frameworks."""
    names = {posixpath.basename(info.path) for info in await _files(guest, root)}
    for name in _CONFIGURATIONS:
        for suffix in _SUFFIXES:
            if f"{name}.{suffix}" in names or name.split("/")[0] in names:
                for base in _BASE.findall(await _text(guest, f"{root}/{name}.{suffix}")):
                    yield base
                    yield base.rstrip("/") + "/"
    with contextlib.suppress(ValueError, AttributeError):
        homepage = str(json.loads(await _text(guest, f"{root}/package.json")).get("homepage") or "")
        path = re.sub(r"^https?://[^/]*", "", homepage)
        if path.startswith("/"):
            yield path


async def _files(guest: Guest, root: str) -> list[FileInfo]:
    try:
        return await guest.list_files(root)
    except GuestError as error:
        if error.code == "agent_unreachable":
            raise
        return []


async def _text(guest: Guest, path: str) -> str:
    """The beginning of a file; empty if it cannot be read."""
    content = b""
    try:
        async for piece in await guest.read_file(path):
            content += piece
            if len(content) >= _MAX_CONFIGURATION_BYTES:
                break
    except GuestError as error:
        if error.code == "agent_unreachable":
            raise
    return content.decode("utf-8", "replace")
