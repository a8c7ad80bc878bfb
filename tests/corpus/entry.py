"""One project of the corpus: how it is made, and how its own page is recognised."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Entry:
    """A project that a framework's generator makes, or an example of its documentation.

    A generator runs in a blank session of `runtime` and makes the folder `app`; `files` are added to it.
    """

    name: str
    runtime: str
    #: Text in the page that the framework's own app shows.
    marker: str
    command: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    #: Path of that page.
    path: str = "/"


def read_entries() -> list[Entry]:
    """All entries, in the order of their files."""
    found = []
    for name in ("node.toml", "python.toml", "plain.toml"):
        content = tomllib.loads(Path(__file__).with_name(name).read_text())
        found += [Entry(**values) for values in content["entry"]]
    return found
