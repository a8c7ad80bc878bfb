"""Signatures of what others hold: a browser its caller's cookie, preview links and preview cookies; the apps of a
session its token for what they report.

All are signed with the deployment's key (every replica's, across restarts), each for one purpose only: what is signed
as a preview link is not taken for a caller's cookie.
"""

from __future__ import annotations

import hashlib
from uuid import UUID

from itsdangerous import BadData, SignatureExpired, URLSafeSerializer, URLSafeTimedSerializer

from sandbox.domain.caller import Caller
from sandbox.errors import Kind, SandboxError

#: The browser's cookie that says who calls.
CALLER_COOKIE = "sandbox_caller"
#: Seconds that each is good for.
COOKIE_SECONDS = 7 * 24 * 3600
PREVIEW_LINK_SECONDS = 10 * 60
PREVIEW_COOKIE_SECONDS = 12 * 3600
#: What every session's token begins with. It is good for writing that session's records, and for nothing else.
EXPORTS_TOKEN_PREFIX = "sbxs_"  # noqa: S105 - what every token begins with
#: Longer values are refused unread.
MAX_SIGNED_LENGTH = 2000


class SignatureRefused(SandboxError):
    """The value was not signed by this deployment for this purpose, or its time is over."""

    code = "signature_refused"
    kind = Kind.UNAUTHENTICATED


class Signer:
    """Signs and reads. No I/O; safe to share."""

    def __init__(self, signing_key: str) -> None:
        def serializer(purpose: str) -> URLSafeTimedSerializer:
            return URLSafeTimedSerializer(
                signing_key, salt=f"purple8-sandbox.{purpose}", signer_kwargs={"digest_method": hashlib.sha256}
            )

        self._cookie = serializer("cookie")
        self._preview_link = serializer("preview-link")
        self._preview_cookie = serializer("preview-cookie")
        self._exports = URLSafeSerializer(
            signing_key, salt="purple8-sandbox.exports", signer_kwargs={"digest_method": hashlib.sha256}
        )

    def sign_cookie(self, caller: Caller) -> str:
        """A browser's cookie, good for `COOKIE_SECONDS` and for as long as the caller's token is."""
        return _text(self._cookie.dumps(caller.token_id))

    def read_cookie(self, value: str) -> UUID:
        """The token id a cookie stands for; whether that token still is good is the token service's to say.

        Raises SignatureRefused.
        """
        hint = "Sign in again."
        try:
            return UUID(str(_loads(self._cookie, value, COOKIE_SECONDS, "cookie", hint)))
        except ValueError as error:
            raise SignatureRefused("This cookie does not name a token.", hint=hint) from error

    def sign_preview(self, session_id: UUID, user_id: str) -> str:
        """What a preview link carries, good for `PREVIEW_LINK_SECONDS`."""
        return _text(self._preview_link.dumps([str(session_id), user_id]))

    def read_preview(self, value: str, session_id: UUID) -> str:
        """The user a link to this session's preview was made for. Raises SignatureRefused."""
        return self._read_bound(self._preview_link, value, session_id, PREVIEW_LINK_SECONDS, "preview link")

    def sign_preview_cookie(self, session_id: UUID, user_id: str) -> str:
        """What the preview's host keeps once a link was followed, good for `PREVIEW_COOKIE_SECONDS`."""
        return _text(self._preview_cookie.dumps([str(session_id), user_id]))

    def read_preview_cookie(self, value: str, session_id: UUID) -> str:
        """The user whose browser this session's preview cookie was given to. Raises SignatureRefused."""
        return self._read_bound(self._preview_cookie, value, session_id, PREVIEW_COOKIE_SECONDS, "preview cookie")

    def sign_exports(self, session_id: UUID, user_id: str) -> str:
        """The token with which the apps of a session report, the same each time; good until the session is over, which
        is for whoever reads it to see."""
        return EXPORTS_TOKEN_PREFIX + _text(self._exports.dumps([str(session_id), user_id]))

    def read_exports(self, value: str) -> tuple[UUID, str]:
        """The session and its user whose records a token writes. Raises SignatureRefused."""
        hint = "Send the one of OTEL_EXPORTER_OTLP_HEADERS, as it is set in the session."
        if value.startswith(EXPORTS_TOKEN_PREFIX) and len(value) <= MAX_SIGNED_LENGTH:
            try:
                match self._exports.loads(value.removeprefix(EXPORTS_TOKEN_PREFIX)):
                    case [str(session_id), str(user_id)]:
                        return UUID(session_id), user_id
            except (BadData, ValueError) as error:
                raise SignatureRefused("This token was not made by this deployment.", hint=hint) from error
        raise SignatureRefused("This is not the token of a session.", hint=hint)

    def _read_bound(
        self, serializer: URLSafeTimedSerializer, value: str, session_id: UUID, max_age: int, what: str
    ) -> str:
        hint = "Open the preview again from its session's preview_url."
        match _loads(serializer, value, max_age, what, hint):
            case [bound_to, str(user_id)] if bound_to == str(session_id):
                return user_id
        raise SignatureRefused(f"This {what} is for another session.", hint=hint)


def _loads(serializer: URLSafeTimedSerializer, value: str, max_age: int, what: str, hint: str) -> object:
    if len(value) > MAX_SIGNED_LENGTH:
        raise SignatureRefused(f"This {what} is far too long to be one of ours.", hint=hint)
    try:
        loaded: object = serializer.loads(value, max_age=max_age)
    except SignatureExpired as error:
        raise SignatureRefused(f"The time of this {what} is over.", hint=hint) from error
    except BadData as error:
        raise SignatureRefused(f"This {what} was not made by this deployment.", hint=hint) from error
    return loaded


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("ascii")
