"""The edge's access log of previews: one line of JSON for each request that an app answered.

The edge writes it to a file of bounded size, so that it never waits for the service; the service reads what is new.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from uuid import UUID

from sandbox.edge.folder import ACCESS_LOG

Json = dict[str, Any]

_LOGGER = "previews"
#: The file is replaced at this size; one older file is kept.
_FILE_MB = 16
#: Most that is read at once.
_READ_BYTES = 8 * 1024 * 1024
_MAX_PATH = 500


@dataclass(frozen=True, slots=True)
class PreviewRequest:
    """A request that an app has answered."""

    session_id: UUID
    method: str
    #: Without the query, which may hold secrets.
    path: str
    status: int
    seconds: float


def access_logs() -> Json:
    """Caddy's configuration of the log, an entry of `logging.logs`."""
    unused = ("request", "bytes_read", "user_id", "resp_headers", "level", "ts", "logger", "msg")
    fields = {name: {"filter": "delete"} for name in unused}
    roll = {"roll": True, "roll_size_mb": _FILE_MB, "roll_keep": 1, "roll_gzip": False}
    return {
        "access": {
            "writer": {"output": "file", "filename": ACCESS_LOG, "mode": "0600", **roll},
            "encoder": {"format": "filter", "wrap": {"format": "json"}, "fields": fields},
            "include": [f"http.log.access.{_LOGGER}"],
        }
    }


def server_logs() -> Json:
    """The part of a server's configuration by which it logs to it."""
    return {"default_logger_name": _LOGGER}


def skip_handler() -> Json:
    """Leaves a request out of the log, unless a later handler takes it in."""
    return {"handler": "vars", "log_skip": True}


def log_handlers() -> list[Json]:
    """Take a request to an app into the log. `{http.regexp.host.2}` is the session's id."""
    asked = "{http.regexp.host.2} {http.request.method} {http.request.orig_uri.path}"
    # The log's handler replaces a single placeholder only.
    return [
        {"handler": "vars", "log_skip": False, "asked": asked},
        {"handler": "log_append", "key": "asked", "value": "{http.vars.asked}"},
    ]


class AccessLogReader:
    """Reads what was added to the log since the last call. Blocks for milliseconds; not thread-safe.

    How far it has come is kept in a file beside the log, so that requests made while the service is away are read when
    it is back, as far as the log reaches.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / ACCESS_LOG
        self._position = folder / "access.position"
        self._file: BinaryIO | None = None
        self._rest = b""

    def resume(self) -> None:
        """Continue where `save` was called last, or, if it never was, at the end of the log."""
        try:
            inode, offset = map(int, self._position.read_text().split())
        except (FileNotFoundError, ValueError):
            if (file := self._open()) is not None:
                file.seek(0, os.SEEK_END)
            self.save()
            return
        # Caddy renames the log when it begins a new one: access-2026-11-30T16-38-03.120.log
        older = sorted(self._path.parent.glob(f"{self._path.stem}-*{self._path.suffix}"))
        for path in (*older, self._path):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino == inode and path.stat().st_size >= offset:
                    self._file = path.open("rb")
                    self._file.seek(offset)
                    return
        if older:  # the file that was read last is gone, and what is there is newer
            with contextlib.suppress(FileNotFoundError):
                self._file = older[0].open("rb")

    def save(self) -> None:
        """Note that all that was read is done with."""
        inode, offset = 0, 0
        if self._file is not None:
            inode, offset = os.fstat(self._file.fileno()).st_ino, self._file.tell() - len(self._rest)
        new = self._position.with_suffix(".new")
        new.write_text(f"{inode} {max(offset, 0)}")
        new.replace(self._position)

    def read(self) -> list[PreviewRequest]:
        """The requests that are new. Lines that are not of this form are left out."""
        file = self._open()
        if file is None:
            return []
        data = file.read(_READ_BYTES)
        if len(data) < _READ_BYTES and self._replaced(file):
            self.close()
            if (newer := self._open()) is not None:
                data += newer.read(_READ_BYTES)
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [request for line in lines if (request := _parse(line)) is not None]

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> BinaryIO | None:
        if self._file is None:
            with contextlib.suppress(FileNotFoundError):
                self._file = self._path.open("rb")
        return self._file

    def _replaced(self, file: BinaryIO) -> bool:
        """Whether the edge writes to another file by now."""
        try:
            return os.fstat(file.fileno()).st_ino != self._path.stat().st_ino
        except FileNotFoundError:
            return False


def _parse(line: bytes) -> PreviewRequest | None:
    try:
        entry = json.loads(line)
        session, method, path = entry["asked"].split(" ", 2)
        status, seconds = int(entry["status"]), float(entry["duration"])
        return PreviewRequest(UUID(session), method[:20], path[:_MAX_PATH], status, seconds)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
