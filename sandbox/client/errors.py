"""The errors of the SDK. Each has a stable code, a message that names the cause, and a hint what to do."""

from __future__ import annotations

from typing import Any


class SandboxError(Exception):
    """Base class of the SDK's errors."""

    code = "sandbox_error"

    def __init__(self, message: str, *, hint: str = "", code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return self.message

    def to_json(self) -> dict[str, Any]:
        """Return the error as a JSON object, for scripts."""
        return {"code": self.code, "message": self.message, "hint": self.hint}


class ConnectionFailed(SandboxError):
    """The service does not answer, or the connection broke and could not be opened again."""

    code = "service_unreachable"

    def __init__(self, base_url: str, cause: str) -> None:
        super().__init__(f"{base_url} does not answer: {cause}", hint="Is the service running? Start it: sandbox up")


class StreamBroken(SandboxError):
    """A stream ended without its last event, so the outcome is unknown."""

    code = "stream_broken"


class PackingFailed(SandboxError):
    """The folder cannot be packed for upload."""

    code = "packing_failed"


class ApiError(SandboxError):
    """The service refused the request. `status` is the HTTP status. `request_id` identifies the request in its logs."""

    code = "api_error"

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        hint: str = "",
        request_id: str | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message, hint=hint, code=code)
        self.status = status
        self.request_id = request_id
        #: The whole problem document, including members that the service adds for this code.
        self.details = details or {}

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "status": self.status, "request_id": self.request_id}


class NotFoundError(ApiError):
    """The resource does not exist, or belongs to another user."""


class AuthenticationError(ApiError):
    """There is no token, it is unknown or expired, or it does not permit the request (401, 403)."""


class LaunchFailed(SandboxError):
    """The session is in `error`. It still exists, so it can be relaunched or killed.

    `log_tail` contains the last lines that the failed stage printed.
    """

    def __init__(
        self,
        session_id: str,
        code: str,
        message: str,
        *,
        hint: str = "",
        stage: str | None = None,
        log_tail: list[str] | None = None,
    ) -> None:
        super().__init__(message, hint=hint, code=code)
        self.session_id = session_id
        self.stage = stage
        self.log_tail = log_tail or []

    def to_json(self) -> dict[str, Any]:
        extra = {"session_id": self.session_id, "stage": self.stage, "log_tail": self.log_tail}
        return {**super().to_json(), **extra}


def api_error(status: int, problem: dict[str, Any], request_id: str | None) -> ApiError:
    """Return the error for a response whose status is 400 or above. `problem` is its problem document."""
    kind: type[ApiError] = ApiError
    if status == 404:
        kind = NotFoundError
    elif status in (401, 403):
        kind = AuthenticationError
    hint = str(problem.get("hint") or "")
    if problem.get("code") == "token_missing" or (status == 401 and not hint):
        hint = "Set SANDBOX_TOKEN. `sandbox up` prints the first admin's token."
    return kind(
        status,
        str(problem.get("code") or f"http_{status}"),
        str(problem.get("detail") or problem.get("message") or problem.get("title") or f"HTTP {status}"),
        hint=hint,
        request_id=problem.get("request_id") or request_id,
        details=problem,
    )
