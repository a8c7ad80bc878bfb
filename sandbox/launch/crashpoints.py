"""Named points at which a test can have the service die as by SIGKILL, to prove that nothing is lost there.

`SANDBOX_CRASH_AT=name` arms one; in service the check costs one dictionary look-up at import and nothing else.
"""

from __future__ import annotations

import os
import signal

_ARMED = os.environ.get("SANDBOX_CRASH_AT")


def crash_point(name: str) -> None:
    """Die here if this point is armed."""
    if name == _ARMED:
        os.kill(os.getpid(), signal.SIGKILL)
