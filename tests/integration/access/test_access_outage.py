"""Tokens while the database is away: those used lately are known, those revoked before it went away are not."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandbox.access.tokens import TokenService, TokenUnknown
from sandbox.db.connection import Database
from sandbox.db.embedded import EmbeddedPostgres
from sandbox.db.migrations import migrate
from sandbox.domain.caller import CallerRole
from sandbox.errors import DatabaseUnavailable


@pytest.fixture
async def server(short_folder: Path) -> AsyncIterator[EmbeddedPostgres]:
    """A server that the test may stop."""
    home = Path(tempfile.mkdtemp(dir=short_folder)) / "h"
    home.parent.chmod(0o711)
    server = EmbeddedPostgres(home)
    await migrate(await server.start())
    yield server
    await server.stop()


async def test_known_tokens_count_while_the_database_is_away(server: EmbeddedPostgres) -> None:
    database = Database(await server.start())
    other = Database(await server.start())
    # Without the short cache, which would answer for some seconds.
    tokens = TokenService(database, cache_seconds=0)
    used, revoked, unused = [await tokens.create("ada", CallerRole.USER) for _ in range(3)]
    caller = await tokens.authenticate(used.token)
    cookie, ended = await tokens.sign_in(caller), await tokens.sign_in(caller)
    await tokens.authenticate_cookies([cookie, ended])
    await tokens.authenticate(revoked.token)
    # Another replica revokes it and ends a sign-in. This one reads what it knows again before the database goes away.
    await TokenService(other).revoke(revoked.record.token_id)
    await TokenService(other).sign_out(ended)
    await tokens.confirm()
    await other.close()
    await server.stop()

    assert await tokens.authenticate(used.token) == caller
    assert await tokens.authenticate_cookies([cookie]) == caller
    with pytest.raises(TokenUnknown):
        await tokens.authenticate(revoked.token)
    with pytest.raises(DatabaseUnavailable):
        await tokens.authenticate_cookies([ended])
    for token in (unused.token, "sbx_unknown"):
        with pytest.raises(DatabaseUnavailable):
            await tokens.authenticate(token)
    with pytest.raises(DatabaseUnavailable):
        await tokens.confirm()

    await server.start()
    async with asyncio.timeout(60):
        while True:
            try:
                assert await tokens.authenticate(unused.token) != caller
                break
            except DatabaseUnavailable:
                await asyncio.sleep(0.1)
    await database.close()
