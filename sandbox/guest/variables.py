"""Variables that the service sets for everything that is started in the container from then on.

A container of the pool is made before it is known whose it will be, and an engine cannot change the environment of a
container. The variables are stored, so that they are in force again after a restart of the container.
"""

from __future__ import annotations

import contextlib
import json
import os

_FILE = ".variables"


class Variables:
    """The variables, stored in a folder that only root may read."""

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, _FILE)
        self.current: dict[str, str] = {}
        with contextlib.suppress(FileNotFoundError), open(self._path, encoding="utf-8") as file:
            self.current = json.load(file)

    def replace(self, variables: dict[str, str]) -> None:
        """Set these variables instead of those that were set before."""
        # Renamed when it is complete: a container that is stopped meanwhile keeps a whole file.
        temporary = f"{self._path}.new"
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(variables, file)
        os.replace(temporary, self._path)
        self.current = variables
