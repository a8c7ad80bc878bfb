"""What callers have open, and its end when their tokens end, or when their browsers sign out.

A request's token is checked when the request begins. Streams, terminals and long commands go on for hours, so their
tokens are checked again and again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Protocol
from uuid import UUID

from sandbox.access.tokens import Credential
from sandbox.domain.caller import Caller
from sandbox.errors import DatabaseUnavailable

#: How often the tokens of all that is open are checked.
CHECK_SECONDS = 2.0

log = logging.getLogger(__name__)


class TokenEnded(Exception):
    """The token with which this was opened has been revoked or has expired, or its browser has signed out."""


class TokenStates(Protocol):
    """Checks credentials. `TokenService` implements this protocol."""

    async def valid(self, credentials: Collection[Credential]) -> set[Credential]: ...


class OpenConnections:
    """Requests, streams and terminals under way, by the credential that opened them. Used from one event loop."""

    def __init__(self, tokens: TokenStates, *, check_seconds: float = CHECK_SECONDS) -> None:
        self._tokens = tokens
        self._seconds = check_seconds
        self._open: defaultdict[Credential, set[asyncio.Timeout]] = defaultdict(set)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to check."""
        self._task = asyncio.create_task(self._check_forever(), name="tokens of open connections")

    async def close(self) -> None:
        """Stop checking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    @asynccontextmanager
    async def until_token_ends(self, caller: Caller) -> AsyncIterator[None]:
        """Interrupt the block when the caller's token or sign-in ends. Raises TokenEnded then."""
        credential = UUID(caller.token_id), caller.sign_in
        end = asyncio.timeout(None)
        try:
            async with end:
                self._open[credential].add(end)
                try:
                    yield
                finally:
                    self._open[credential].discard(end)
                    if not self._open[credential]:
                        del self._open[credential]
        except TimeoutError:
            if end.expired():
                raise TokenEnded from None
            raise

    async def _check_forever(self) -> None:
        while True:
            await asyncio.sleep(self._seconds)
            try:
                await self._check()
            except DatabaseUnavailable as error:
                # What is open goes on while the database is away.
                log.warning("tokens of open connections could not be checked: %s", error)
            except Exception:
                log.exception("tokens of open connections could not be checked")

    async def _check(self) -> None:
        opened = set(self._open)
        if not opened:
            return
        now = asyncio.get_running_loop().time()
        for credential in opened - await self._tokens.valid(opened):
            ends = [end for end in self._open.get(credential, ()) if not end.expired()]
            log.info("a token or a sign-in has ended; %d of its connections are closed", len(ends))
            for end in ends:
                with contextlib.suppress(RuntimeError):  # it is ending already
                    end.reschedule(now)
