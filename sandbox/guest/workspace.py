"""The sandbox's folder as callers see it: their paths below it, and what they are told of a file."""

from __future__ import annotations

import os
import stat
from typing import Any

from .wire import argument, bad_request


class Workspace:
    """Paths as callers give them, and what is told of a file."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def path(self, args: dict[str, Any], name: str = "path") -> str:
        given = argument(args, name, str)
        if "\0" in given:
            raise bad_request("a path must not have a NUL in it")
        return os.path.normpath(os.path.join(self.folder, given))

    def shown(self, path: str) -> str:
        """Relative to the workspace if it is below it."""
        if path == self.folder:
            return "."
        return path.removeprefix(self.folder + "/")

    def info(self, path: str, facts: os.stat_result) -> dict[str, Any]:
        """The fields of `FileInfo`."""
        kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink"}
        return {
            "path": self.shown(path),
            "type": kinds.get(stat.S_IFMT(facts.st_mode), "other"),
            "size": facts.st_size,
            "mode": stat.S_IMODE(facts.st_mode),
            "modified_at": facts.st_mtime,
        }
