"""How a process ended, in words that fit into any sentence."""

from __future__ import annotations

from sandbox.engine.base import ProcessInfo


def how_it_ended(process: ProcessInfo | None) -> str:
    """What became of it: its exit code, the signal that killed it, or that nothing is known of it any more."""
    if process is None:
        return "is gone"
    if process.signal:
        return f"was killed by signal {process.signal}"
    return f"ended with exit code {process.exit_code}"
