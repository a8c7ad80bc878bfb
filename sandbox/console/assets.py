"""The files of the built console, read once: the page, and its scripts and styles with their compressed form.

`scripts/console.py` builds them into `built/`. The names of scripts and styles contain a digest of their content.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sandbox.errors import Kind, SandboxError

_FOLDER = Path(__file__).parent
_BUILT = _FOLDER / "built"
_PAGES = _FOLDER / "pages"
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".woff2": "font/woff2"}


class ConsoleNotBuilt(SandboxError):
    """The service runs from a checkout whose console has not been built."""

    code = "console_not_built"
    kind = Kind.UNAVAILABLE


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of the console. `gzip` is its compressed form, where it has one."""

    media_type: str
    body: bytes
    gzip: bytes | None
    #: True if the name changes with the content, so that a browser may keep the file for ever.
    is_immutable: bool


@cache
def assets() -> dict[str, Asset]:
    """The scripts and styles by the path below `/console/`."""
    found = {"login.css": Asset("text/css", (_PAGES / "login.css").read_bytes(), None, is_immutable=False)}
    for file in (_BUILT / "assets").glob("*"):
        if file.suffix in _TYPES:
            compressed = file.with_name(f"{file.name}.gz")
            packed = compressed.read_bytes() if compressed.exists() else None
            found[f"assets/{file.name}"] = Asset(_TYPES[file.suffix], file.read_bytes(), packed, is_immutable=True)
    return found


@cache
def page() -> str:
    """The console's page, in which the names of `routes.py` are still to be filled in. Raises ConsoleNotBuilt."""
    try:
        return (_BUILT / "index.html").read_text("utf-8")
    except FileNotFoundError as error:
        raise ConsoleNotBuilt("The web console has not been built.", hint="Run: make environment") from error


@cache
def login_page() -> str:
    """The page with the login form."""
    return (_PAGES / "login.html").read_text("utf-8")
