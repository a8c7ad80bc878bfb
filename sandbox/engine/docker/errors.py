"""Errors of the Docker SDK, translated into this service's own errors."""

from __future__ import annotations

import re

import docker.errors
import requests.exceptions
import urllib3.exceptions

from sandbox.errors import EngineError, Kind

#: The errors that a call of the Docker SDK may raise: its own, and those of the libraries below it.
FOREIGN_ERRORS = (
    docker.errors.DockerException,
    requests.exceptions.RequestException,
    urllib3.exceptions.HTTPError,
    OSError,
    ValueError,
)
#: What an engine says of the start of a container if it was killed during an earlier one, whose remains it finds.
_LEFT_BEHIND = re.compile(
    r"task \S+ already exists|id already in use|container with (given )?id (already )?exists|: file exists",
    re.IGNORECASE,
)
DOCTOR_HINT = "run `sandbox doctor`: it says which engine is expected and how to start it"


class EngineNotFound(EngineError):
    """The engine has no such container, network or volume. Handled inside this package and never raised out of it."""

    code = "engine_not_found"
    kind = Kind.NOT_FOUND


class EngineConflict(EngineError):
    """The engine refused a call because of a resource's state: it or its name is in use, or it is being removed."""

    code = "engine_conflict"
    kind = Kind.CONFLICT


def unreachable(cause: str) -> EngineError:
    """Return the error for an engine that does not answer, with a hint that fits the cause."""
    hint = DOCTOR_HINT
    if "Permission denied" in cause:
        hint = "this user may not open the engine's socket: run as root, or add the user to the group `docker`"
    return EngineError(f"the container engine does not answer: {cause}", code="engine_unreachable", hint=hint)


def translate(error: Exception) -> EngineError:
    """Return our error for one of FOREIGN_ERRORS. The message contains the engine's own."""
    if isinstance(error, docker.errors.APIError):
        return _refusal(error)
    if isinstance(error, requests.exceptions.Timeout):
        return EngineError(
            f"the container engine did not answer: {error}", code="engine_timeout", kind=Kind.TIMEOUT, hint=DOCTOR_HINT
        )
    if isinstance(error, ValueError):  # The JSON errors of requests are OSErrors, too, so this is tested first.
        return EngineError(f"the container engine's answer cannot be parsed: {error}", hint=DOCTOR_HINT)
    return unreachable(str(error))


def is_left_behind(error: EngineError) -> bool:
    """Whether a container cannot be started because of what an interrupted start of it has left behind.

    No further start of this container succeeds, but one of a new container does.
    """
    return _LEFT_BEHIND.search(error.message) is not None


def _refusal(error: docker.errors.APIError) -> EngineError:
    message = str(error.explanation or error)
    if isinstance(error, docker.errors.ImageNotFound):
        return EngineError(
            f"the image is not on the engine: {message}", code="image_missing", hint="run `sandbox runtimes build`"
        )
    if "no space left on device" in message.lower() or "disk quota exceeded" in message.lower():
        return EngineError(
            f"the container engine has no disk space left: {message}",
            code="disk_full",
            hint="Free disk space on the engine's machine, then relaunch.",
        )
    if "pquota" in message or ("quota" in message and "support" in message):
        return EngineError(
            f"the container engine cannot limit disk space: {message}",
            code="disk_limit_unavailable",
            kind=Kind.UNAVAILABLE,
            hint="Set SANDBOX_DISK_MB=0, or put the engine's data on XFS that is mounted with pquota.",
        )
    if isinstance(error, docker.errors.NotFound):
        return EngineNotFound(message)
    # The engine refuses to remove a network that is in use with status 403.
    if error.status_code == 409 or "has active endpoints" in message:
        return EngineConflict(message)
    return EngineError(f"the container engine refused: {message}", hint="see the engine's own log for details")
