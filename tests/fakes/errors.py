"""The errors that the real implementations raise, for the fakes to raise the same."""

from __future__ import annotations

from sandbox.engine.docker.errors import unreachable as engine_unreachable
from sandbox.engine.guest_client.errors import guest_error
from sandbox.engine.guest_client.errors import unreachable as guest_unreachable
from sandbox.errors import EngineError, GuestError, SandboxError

__all__ = ["EngineError", "GuestError", "ScriptedFailures", "engine_unreachable", "guest_error", "guest_unreachable"]


class ScriptedFailures:
    """Failures that a test has asked for, by the name of the call."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[SandboxError]] = {}

    def add(self, call: str, error: SandboxError, times: int) -> None:
        self._waiting.setdefault(call, []).extend([error] * times)

    def raise_next(self, call: str) -> None:
        """Raise the next error asked for under this name, if there is one left."""
        if waiting := self._waiting.get(call):
            raise waiting.pop(0)
