"""Named points at which a test can have the service die as by SIGKILL, to prove that nothing is lost there.

`SANDBOX_CRASH_AT=name` arms one; in service the check costs a look-up in the environment a few times a launch.
"""

from __future__ import annotations

import os
import signal


def crash_point(name: str) -> None:
    """Die here if this point is armed."""
    if name == os.environ.get("SANDBOX_CRASH_AT"):
        os.kill(os.getpid(), signal.SIGKILL)
