"""Files of the data folder that only the service may read."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path


def read_or_generate(path: Path, generate: Callable[[], str]) -> str:
    """The text of a file, which is made with mode 0600 if there is none.

    Of several processes that start at once one makes it, and no reader sees a part. Blocks. Raises OSError.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
    unique = _written(path, generate())
    try:
        with contextlib.suppress(FileExistsError):
            os.link(unique, path)
    finally:
        unique.unlink()
    return path.read_text(encoding="utf-8")


def replace(path: Path, content: str) -> None:
    """Replace a file, or make it, in one step. Blocks. Raises OSError."""
    _written(path, content).replace(path)


def _written(path: Path, content: str) -> Path:
    """A new file of this content, mode 0600, beside the path."""
    unique = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(unique, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return unique
