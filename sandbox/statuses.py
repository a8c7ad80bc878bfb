"""The HTTP status of each kind of error, for the packages that serve HTTP."""

from __future__ import annotations

from sandbox.errors import Kind

#: The `Retry-After` header of answers with status 429 or 503, in seconds.
RETRY_AFTER_SECONDS = 2

STATUS: dict[Kind, int] = {
    Kind.INVALID: 422,
    Kind.UNAUTHENTICATED: 401,
    Kind.FORBIDDEN: 403,
    Kind.NOT_FOUND: 404,
    Kind.CONFLICT: 409,
    Kind.PRECONDITION: 412,
    Kind.GONE: 410,
    Kind.TOO_LARGE: 413,
    Kind.UNSUPPORTED: 415,
    Kind.MISDIRECTED: 421,
    Kind.TOO_MANY: 429,
    Kind.UNAVAILABLE: 503,
    Kind.TIMEOUT: 504,
    Kind.INTERNAL: 500,
}
