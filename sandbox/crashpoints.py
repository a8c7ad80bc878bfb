"""Named points at which a test can kill the service with SIGKILL, to prove that a restart loses nothing there.

`SANDBOX_CRASH_AT=name` arms one. Otherwise a crash point costs one look-up in the environment.
"""

from __future__ import annotations

import os
import signal


def crash_point(name: str) -> None:
    """Kill this process if the point of this name is armed."""
    if name == os.environ.get("SANDBOX_CRASH_AT"):
        os.kill(os.getpid(), signal.SIGKILL)
