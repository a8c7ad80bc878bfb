"""Configuration of all tests: the environment of their processes, the PostgreSQL fixtures, and markers by location.

A test that needs a container engine, root's privileges or a browser carries the marker of that name, so that
`pytest -m "not engine"` runs what a plain machine can. Markers are set here by path, because it is whole files and
directories that need these things; a parametrised test may set one for a single parameter itself.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

pytest_plugins = ["tests.postgres"]

os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
# The tests start Python hundreds of times. Where this variable is set, as in many container images, every start would
# compile the service and its dependencies anew, which takes several seconds of processor time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

_TESTS = Path(__file__).parent
#: Files and directories below tests/, and the markers of the tests in them.
_MARKERS = {
    "acceptance": ("engine",),
    "acceptance/test_browser.py": ("browser",),
    "acceptance/test_frameworks.py": ("browser",),
    "acceptance/test_full_disk.py": ("root",),
    "soak": ("engine",),
    "integration/engine": ("engine",),
    "integration/guest": ("root",),
    "integration/guest/test_guest_container.py": ("engine",),
    "integration/db/test_db_full_disk.py": ("root",),
    "integration/runtimes": ("engine",),
    "integration/sessions/test_sessions_sweep.py": ("engine",),
}


def pytest_itemcollected(item: pytest.Item) -> None:
    path = item.path.relative_to(_TESTS)
    for location in (path, *path.parents):
        for marker in _MARKERS.get(location.as_posix(), ()):
            item.add_marker(marker)
