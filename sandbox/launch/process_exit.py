"""How a process ended, as part of a sentence for people."""

from __future__ import annotations

from sandbox.engine.guest_data import ProcessInfo


def describe_exit(process: ProcessInfo | None) -> str:
    """A predicate such as "ended with exit code 1" or "was killed by signal 9".

    `process` is None when the guest agent has no record of the process, because its container was restarted.
    """
    if process is None:
        return "is gone"
    if process.signal:
        return f"was killed by signal {process.signal}"
    return f"ended with exit code {process.exit_code}"
