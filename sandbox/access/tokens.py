"""Callers' tokens: creation, listing, revocation, and authentication with a short cache.

While the database does not answer, tokens that were used lately are still known. They are read again every
`CONFIRM_SECONDS`, so that a token that was revoked before the database went away is not among them.

A token is `sbx_` and 32 random bytes. Only its SHA-256 is stored; a fast hash is enough for a value with that entropy.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeGuard, TypeVar
from uuid import UUID

from cachetools import TTLCache

from sandbox.access.browsers import LINK_SECONDS, SIGN_IN_SECONDS
from sandbox.access.store import SignInKind, TokenRecord, TokenStore
from sandbox.db.connection import Database
from sandbox.db.last_known import LastKnown
from sandbox.domain.caller import Caller, CallerRole
from sandbox.errors import DatabaseUnavailable, InvalidInput, Kind, NotFound, SandboxError

TOKEN_PREFIX = "sbx_"  # noqa: S105 - a prefix, not a password
USER_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._@:+-]{0,99}$"
MAX_LIFETIME_SECONDS = 10 * 365 * 24 * 3600
#: Seconds after which this replica refuses a token that another replica has revoked, at most.
CACHE_SECONDS = 2.0
#: How often the tokens that are known for an outage are read again, and the oldest that one may be in it.
CONFIRM_SECONDS = 2.0
KNOWN_SECONDS = 5.0
_CACHE_SIZE = 10_000
_MAX_TOKEN_LENGTH = 500
#: More cookies of one name are not looked at.
_MAX_COOKIES = 4
#: Before the hash of a browser's secret, in the keys of what is cached.
_BROWSER = b"browser"

KeyT = TypeVar("KeyT", bytes, UUID)
#: A token, and the sign-in of the browser that uses it.
Credential = tuple[UUID, bytes | None]

logger = logging.getLogger(__name__)


class TokenMissing(SandboxError):
    """The request has no credentials."""

    code = "token_missing"
    kind = Kind.UNAUTHENTICATED


class TokenUnknown(SandboxError):
    """The token does not exist, has expired or was revoked."""

    code = "token_unknown"
    kind = Kind.UNAUTHENTICATED


class SignInMissing(TokenUnknown):
    """The browser is not signed in, or the link to sign in cannot be used."""

    code = "sign_in_missing"


@dataclass(frozen=True, slots=True)
class NewToken:
    """A new token. `token` is not stored, so this is the only time that it can be shown."""

    record: TokenRecord
    token: str


class TokenService:
    """Creates, lists and revokes tokens, and authenticates callers by token or cookie. Not thread-safe.

    Between `start` and `close` it keeps what it knows of tokens up to date.
    """

    def __init__(self, db: Database, *, cache_seconds: float = CACHE_SECONDS) -> None:
        self._store = TokenStore(db)
        self._cache: TTLCache[bytes | UUID, TokenRecord] = TTLCache(_CACHE_SIZE, cache_seconds)
        self._known: LastKnown[bytes | UUID, TokenRecord] = LastKnown(_CACHE_SIZE, age_seconds=KNOWN_SECONDS)
        self._revocations = 0
        self._confirmer: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._confirmer = asyncio.create_task(self._confirm_forever(), name="known tokens")

    async def close(self) -> None:
        if self._confirmer is not None:
            self._confirmer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._confirmer

    async def create(self, user_id: str, role: CallerRole, expires_in_seconds: int | None = None) -> NewToken:
        """Create a token. Raises InvalidInput for an invalid user id or lifetime."""
        if not re.fullmatch(USER_ID_PATTERN, user_id):
            raise InvalidInput(
                "user_id: at most 100 letters, digits and . _ @ : + - are allowed, a letter or digit first.",
                hint="Choose another user_id.",
            )
        if expires_in_seconds is not None and not 1 <= expires_in_seconds <= MAX_LIFETIME_SECONDS:
            raise InvalidInput(
                f"expires_in_seconds: from 1 to {MAX_LIFETIME_SECONDS}.",
                hint="Leave it out for a token that does not expire.",
            )
        token = generate_token()
        record = await self._store.insert(hash_token(token), user_id, role, expires_in_seconds)
        return NewToken(record, token)

    async def list(self, limit: int, before: tuple[datetime, UUID] | None = None) -> list[TokenRecord]:
        """Tokens newest first, including expired and revoked ones."""
        return await self._store.list_newest(limit, before)

    async def revoke(self, token_id: UUID) -> None:
        """Revoke a token. Does nothing if it is revoked already; raises NotFound if it does not exist."""
        self._revocations += 1
        record = await self._store.revoke(token_id)
        if record is None:
            raise NotFound(
                f"There is no token {token_id}.", code="token_not_found", hint="List them: GET /api/v1/tokens."
            )
        self._revocations += 1
        for key in [key for key, cached in self._cache.items() if cached.token_id == token_id]:
            self._cache.pop(key, None)
        for key in [key for key, known in self._known.values().items() if known.token_id == token_id]:
            self._known.forget(key)

    async def valid(self, credentials: Collection[Credential]) -> set[Credential]:
        """Those of these credentials that are good, as the database has them now: the token is neither revoked nor
        expired, and the browser, if there is one, is signed in."""
        tokens = await self._store.valid({token_id for token_id, _ in credentials})
        sign_ins = {sign_in for _, sign_in in credentials if sign_in is not None}
        signed_in = await self._store.by_sign_ins(sign_ins) if sign_ins else {}
        return {(token, sign_in) for token, sign_in in credentials if token in tokens and _is_good(sign_in, signed_in)}

    async def authenticate(self, token: str) -> Caller:
        """The caller of this token. Raises TokenUnknown."""
        if len(token) > _MAX_TOKEN_LENGTH:
            raise _unknown()
        return await self._caller(hash_token(token), self._store.by_hash)

    async def authenticate_cookies(self, cookies: Sequence[str]) -> Caller:
        """The caller that a browser is signed in as, from all cookies that it sends for that.

        Cookies of no sign-in are ignored. Raises SignInMissing if there is no other, or if there are those of several
        users: a page of another host can add one of its own, and which is which cannot be known. Raises TokenUnknown if
        the token of the sign-in is not valid.
        """
        callers: dict[str, Caller] = {}
        ended: TokenUnknown | None = None
        for cookie in list(dict.fromkeys(cookies))[:_MAX_COOKIES]:
            try:
                key = _BROWSER + hash_token(cookie)
                caller = await self._caller(key, self._by_sign_in, missing=_signed_out)
            except TokenUnknown as error:
                ended = error if not isinstance(error, SignInMissing) else ended
            else:
                callers[caller.user_id] = caller
        if len(callers) == 1:
            return next(iter(callers.values()))
        raise ended or _signed_out()

    async def sign_in(self, caller: Caller) -> str:
        """Sign a browser in as the caller; the value of its cookie."""
        return await self._new_secret("browser", caller, SIGN_IN_SECONDS)

    async def sign_out(self, cookie: str) -> None:
        """End a browser's sign-in. Does nothing if there is none."""
        self._revocations += 1
        await self._store.end_sign_in(hash_token(cookie), "browser")
        self._revocations += 1
        self._cache.pop(_BROWSER + hash_token(cookie), None)
        self._known.forget(_BROWSER + hash_token(cookie))

    async def sign_in_code(self, caller: Caller) -> str:
        """A code that signs a browser in as the caller, once, within `LINK_SECONDS`."""
        return await self._new_secret("link", caller, LINK_SECONDS)

    async def use_code(self, code: str) -> Caller:
        """The caller of a code, which is used up. Raises SignInMissing, and TokenUnknown if its token is not valid."""
        token_id = await self._store.end_sign_in(hash_token(code), "link")
        if token_id is None:
            raise SignInMissing(
                "This link has been used already, or its time is over.", hint="Print a new one: sandbox console"
            )
        return await self._caller(token_id, self._store.by_id)

    async def _new_secret(self, kind: SignInKind, caller: Caller, seconds: int) -> str:
        secret = secrets.token_urlsafe(32)
        await self._store.add_sign_in(hash_token(secret), kind, UUID(caller.token_id), seconds)
        return secret

    async def _by_sign_in(self, key: bytes) -> TokenRecord | None:
        return await self._store.by_sign_in(key.removeprefix(_BROWSER))

    async def _caller(
        self,
        key: KeyT,
        read: Callable[[KeyT], Awaitable[TokenRecord | None]],
        missing: Callable[[], TokenUnknown] | None = None,
    ) -> Caller:
        record = self._cache.get(key)
        if record is None:
            revocations = self._revocations
            record = await self._known.read(key, lambda: read(key))
            # A record that was read during a revocation may be outdated: use it now, but do not cache it.
            if record is not None and revocations == self._revocations:
                self._cache[key] = record
        if record is None:
            raise (missing or _unknown)()
        if not record.is_valid(datetime.now(UTC)):
            raise _unknown()
        sign_in = key.removeprefix(_BROWSER) if _is_browser(key) else None
        return Caller(user_id=record.user_id, role=record.role, token_id=str(record.token_id), sign_in=sign_in)

    async def _confirm_forever(self) -> None:
        while True:
            await asyncio.sleep(CONFIRM_SECONDS)
            try:
                await self.confirm()
            except DatabaseUnavailable as error:
                logger.info("known tokens could not be read again: %s", error)
            except Exception:
                logger.exception("known tokens could not be read again")

    async def confirm(self) -> None:
        """Read all tokens and sign-ins of browsers again that are known. Raises DatabaseUnavailable."""
        known = self._known.values()
        if not known:
            return
        found = await self._store.by_ids({record.token_id for record in known.values()})
        browsers = {key.removeprefix(_BROWSER): key for key in known if _is_browser(key)}
        signed_in = await self._store.by_sign_ins(browsers) if browsers else {}
        self._known.confirm(
            {key: found.get(record.token_id) for key, record in known.items() if not _is_browser(key)}
            | {key: signed_in.get(secret_hash) for secret_hash, key in browsers.items()}
        )


def _is_good(sign_in: bytes | None, signed_in: Collection[bytes]) -> bool:
    return sign_in is None or sign_in in signed_in


def _is_browser(key: bytes | UUID) -> TypeGuard[bytes]:
    return isinstance(key, bytes) and key.startswith(_BROWSER)


def generate_token() -> str:
    return TOKEN_PREFIX + secrets.token_urlsafe(32)


def hash_token(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _signed_out() -> TokenUnknown:
    return SignInMissing("This browser is not signed in.", hint="Sign in again.")


def _unknown() -> TokenUnknown:
    return TokenUnknown("This token is not known here, has expired or was revoked.", hint="Ask an admin for a new one.")
