"""Signed values that others hold: preview links, and the token with which the apps of a session send telemetry.

All are signed with keys that are derived from the deployment's keys. Each is valid for one purpose only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from uuid import UUID

from itsdangerous import BadData, SignatureExpired, URLSafeSerializer, URLSafeTimedSerializer

from sandbox.domain.caller import SignedInBy
from sandbox.errors import Kind, SandboxError

#: Seconds for which a link is valid.
PREVIEW_LINK_SECONDS = 10 * 60
#: The prefix of tokens for the telemetry of a session. Such a token is accepted by the OTLP routes only.
EXPORTS_TOKEN_PREFIX = "sbxs_"  # noqa: S105 - a prefix, not a password
#: Longer values are refused without being parsed.
MAX_SIGNED_LENGTH = 2000


class SignatureRefused(SandboxError):
    """The value was not signed by this deployment for this purpose, or has expired."""

    code = "signature_refused"
    kind = Kind.UNAUTHENTICATED


class Signer:
    """Signs values and verifies them. Does no I/O; safe to share between threads."""

    def __init__(self, keys: Sequence[bytes], *, earlier_exports_key: bytes | None = None) -> None:
        """The last of the keys signs, all of them verify.

        `earlier_exports_key` is the key of an earlier release, which was in the database; it verifies telemetry tokens.
        """

        def serializer(purpose: str) -> URLSafeTimedSerializer:
            return URLSafeTimedSerializer(
                list(keys), salt=f"purple8-sandbox.{purpose}", signer_kwargs={"digest_method": hashlib.sha256}
            )

        self._preview_link = serializer("preview-link")
        for_exports = [*([earlier_exports_key] if earlier_exports_key else []), *keys]
        self._exports = URLSafeSerializer(
            for_exports, salt="purple8-sandbox.exports", signer_kwargs={"digest_method": hashlib.sha256}
        )

    def sign_preview(self, session_id: UUID, by: SignedInBy) -> str:
        """The signature in a preview link, valid for `PREVIEW_LINK_SECONDS`."""
        token = [] if by.token_id is None else [str(by.token_id)]
        sign_in = [] if by.sign_in is None else [by.sign_in.hex()]
        return _text(self._preview_link.dumps([str(session_id), by.user_id, *token, *sign_in]))

    def read_preview(self, value: str, session_id: UUID) -> SignedInBy:
        """What a link to this session's preview was made with. Raises SignatureRefused.

        Links of earlier releases name neither the token nor the sign-in.
        """
        hint = "Open the preview again from its session's preview_url."
        match _loads(self._preview_link, value, PREVIEW_LINK_SECONDS, "preview link", hint):
            case [bound_to, str(user_id), *rest] if bound_to == str(session_id):
                token_id = UUID(str(rest[0])) if rest else None
                return SignedInBy(user_id, token_id, bytes.fromhex(str(rest[1])) if rest[1:] else None)
        raise SignatureRefused("This preview link is for another session.", hint=hint)

    def sign_exports(self, session_id: UUID, user_id: str) -> str:
        """The token with which the apps of a session send telemetry; the same for every call.

        It has no expiry: callers of `read_exports` must check that the session is not over.
        """
        return EXPORTS_TOKEN_PREFIX + _text(self._exports.dumps([str(session_id), user_id]))

    def read_exports(self, value: str) -> tuple[UUID, str]:
        """The session that a token belongs to, and the session's user. Raises SignatureRefused."""
        hint = "Send the one of OTEL_EXPORTER_OTLP_HEADERS, as it is set in the session."
        if value.startswith(EXPORTS_TOKEN_PREFIX) and len(value) <= MAX_SIGNED_LENGTH:
            try:
                match self._exports.loads(value.removeprefix(EXPORTS_TOKEN_PREFIX)):
                    case [str(session_id), str(user_id)]:
                        return UUID(session_id), user_id
            except (BadData, ValueError) as error:
                raise SignatureRefused("This token was not made by this deployment.", hint=hint) from error
        raise SignatureRefused("This is not the token of a session.", hint=hint)


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
