"""The sandbox's folder: paths as clients give and get them, and what they are sent about a file."""

from __future__ import annotations

import os
import stat
from typing import Any

from .errors import bad_request
from .request import argument


class Workspace:
    """The workspace at an absolute path. Relative paths of clients are below it."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def path(self, args: dict[str, Any], name: str = "path") -> str:
        """The absolute path that the argument means. Raises Refused."""
        given = argument(args, name, str)
        if "\0" in given:
            raise bad_request("a path must not have a NUL in it")
        return os.path.normpath(os.path.join(self.folder, given))

    def shown(self, path: str) -> str:
        """The path for the client: relative to the workspace if it is below it."""
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
