"""Whom a request comes from, recorded with the request (its ASGI scope), so that it is found out once."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any, Final

from sandbox.domain.caller import Caller
from sandbox.errors import SandboxError

_KEY: Final = "sandbox.identity"


def set_identity(scope: MutableMapping[str, Any], identity: Caller | SandboxError) -> None:
    """Record the caller, or the error that says why there is none."""
    scope[_KEY] = identity


def identity_of(scope: Mapping[str, Any]) -> Caller | SandboxError | None:
    """What was recorded; None if nothing was."""
    identity: Caller | SandboxError | None = scope.get(_KEY)
    return identity
