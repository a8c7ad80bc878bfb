"""Creation, authentication, expiry and revocation of tokens on a real database, and the first admin's token."""

from __future__ import annotations

import asyncio
import stat
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from sandbox.access.first_admin import FIRST_ADMIN_TOKEN_ID, admin_token_path, ensure_admin
from sandbox.access.tokens import SignInMissing, TokenService, TokenUnknown, hash_token
from sandbox.db.connection import Database
from sandbox.db.deployment import load_deployment
from sandbox.domain.caller import Caller, CallerRole
from sandbox.errors import DatabaseUnavailable, InvalidInput, NotFound
from sandbox.settings import Settings


@pytest.fixture
def tokens(database):
    return TokenService(database, cache_seconds=3600)


async def execute(database: Database, statement: str, **values: object) -> None:
    async with database.transaction() as connection:
        await connection.execute(text(statement), values)


async def test_deployment_is_stable(database):
    assert await load_deployment(database) == await load_deployment(database)


async def test_token_is_authenticated_and_stored_as_a_hash(tokens, database):
    made = await tokens.create("ada", CallerRole.USER)
    assert made.token.startswith("sbx_")
    assert len(made.token) == 47
    caller = await tokens.authenticate(made.token)
    assert caller == Caller("ada", CallerRole.USER, str(made.record.token_id))
    async with database.transaction() as connection:
        row = str((await connection.execute(text("SELECT * FROM api_tokens"))).one())
    assert made.token not in row
    assert made.token.removeprefix("sbx_") not in row


@pytest.mark.parametrize("token", ["", "sbx_unknown", "x" * 100_000, "nul\0", "\udcff"])
async def test_unknown_token_is_refused(tokens, token):
    with pytest.raises(TokenUnknown):
        await tokens.authenticate(token)


async def test_expired_token_is_refused_cached_or_not(tokens, database):
    made = await tokens.create("ada", CallerRole.USER, expires_in_seconds=3600)
    assert abs(made.record.expires_at - datetime.now(UTC) - timedelta(hours=1)) < timedelta(minutes=1)
    await tokens.authenticate(made.token)
    await execute(database, "UPDATE api_tokens SET expires_at = now() - interval '1 second'")
    with pytest.raises(TokenUnknown):
        await TokenService(database).authenticate(made.token)


async def test_token_expires_while_it_is_cached(tokens, monkeypatch):
    made = await tokens.create("ada", CallerRole.USER, expires_in_seconds=3600)
    await tokens.authenticate(made.token)

    class OneHourLater(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(hours=1)

    monkeypatch.setattr("sandbox.access.tokens.datetime", OneHourLater)
    with pytest.raises(TokenUnknown):
        await tokens.authenticate(made.token)


async def test_revoked_token_and_its_cookie_are_refused_at_once(tokens):
    made = await tokens.create("ada", CallerRole.USER)
    caller = await tokens.authenticate(made.token)
    cookie = await tokens.sign_in(caller)
    assert await tokens.authenticate_cookies([cookie]) == caller
    await tokens.revoke(made.record.token_id)
    await tokens.revoke(made.record.token_id)
    with pytest.raises(TokenUnknown):
        await tokens.authenticate(made.token)
    with pytest.raises(TokenUnknown):
        await tokens.authenticate_cookies([cookie])
    with pytest.raises(NotFound) as missing:
        await tokens.revoke(uuid4())
    assert missing.value.code == "token_not_found"


async def test_a_sign_in_ends_on_the_server_and_only_hashes_are_stored(tokens, database):
    caller = await tokens.authenticate((await tokens.create("ada", CallerRole.USER)).token)
    cookie, other, code = await tokens.sign_in(caller), await tokens.sign_in(caller), await tokens.sign_in_code(caller)
    async with database.transaction() as connection:
        rows = str((await connection.execute(text("SELECT * FROM sign_ins"))).all())
    assert not [secret for secret in (cookie, other, code) if secret in rows]
    assert await tokens.authenticate_cookies([cookie]) == caller
    await tokens.sign_out(cookie)
    with pytest.raises(SignInMissing):
        await tokens.authenticate_cookies([cookie])
    assert await tokens.authenticate_cookies([other]) == caller
    # A code is no cookie, and works once.
    with pytest.raises(SignInMissing):
        await tokens.authenticate_cookies([code])
    assert await tokens.use_code(code) == caller
    for spent in (code, cookie, other, "", "unknown"):
        with pytest.raises(SignInMissing):
            await tokens.use_code(spent)


async def test_sign_ins_and_codes_end_with_their_time(tokens, database):
    caller = await tokens.authenticate((await tokens.create("ada", CallerRole.USER)).token)
    cookie, code = await tokens.sign_in(caller), await tokens.sign_in_code(caller)
    await execute(database, "UPDATE sign_ins SET expires_at = now() - interval '1 second'")
    with pytest.raises(SignInMissing):
        await tokens.authenticate_cookies([cookie])
    with pytest.raises(SignInMissing):
        await tokens.use_code(code)
    await tokens.sign_in(caller)
    async with database.transaction() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM sign_ins"))).scalar_one() == 1


async def test_a_cookie_that_another_page_has_added_signs_in_no_other_user(tokens):
    callers = [await tokens.authenticate((await tokens.create(name, CallerRole.USER)).token) for name in ("ada", "bob")]
    mine, theirs = [await tokens.sign_in(caller) for caller in callers]
    for cookies in ([mine, theirs], [theirs, mine]):
        with pytest.raises(SignInMissing):
            await tokens.authenticate_cookies(cookies)
    for cookies in ([mine, "forged"], ["forged", mine], [mine, mine]):
        assert await tokens.authenticate_cookies(cookies) == callers[0]


async def test_tokens_that_are_valid_now(tokens, database):
    made = [await tokens.create(name, CallerRole.USER) for name in ("ada", "bob", "cyd")]
    ids = {token.record.token_id for token in made}
    assert await tokens.valid([*((each, None) for each in ids), (uuid4(), None)]) == {(each, None) for each in ids}
    await tokens.revoke(made[0].record.token_id)
    await execute(
        database,
        "UPDATE api_tokens SET expires_at = now() - interval '1 second' WHERE token_id = :id",
        id=made[1].record.token_id,
    )
    assert await tokens.valid([(each, None) for each in ids]) == {(made[2].record.token_id, None)}


async def test_a_credential_of_a_browser_ends_when_it_signs_out(tokens):
    caller = await tokens.authenticate((await tokens.create("ada", CallerRole.USER)).token)
    cookies = [await tokens.sign_in(caller) for _ in range(2)]
    browsers = [await tokens.authenticate_cookies([cookie]) for cookie in cookies]
    credentials = [(UUID(each.token_id), each.sign_in) for each in (caller, *browsers)]
    assert await tokens.valid(credentials) == set(credentials)
    await tokens.sign_out(cookies[0])
    assert await tokens.valid(credentials) == {credentials[0], credentials[2]}


async def test_cached_token_needs_no_query(tokens, database):
    made = await tokens.create("ada", CallerRole.ADMIN)
    await tokens.authenticate(made.token)
    await execute(database, "ALTER TABLE api_tokens RENAME TO gone")
    assert (await tokens.authenticate(made.token)).is_admin


async def test_database_that_does_not_answer_is_not_an_unknown_token():
    away = Database("postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(DatabaseUnavailable):
        await TokenService(away).authenticate("sbx_whatever")
    await away.close()


async def test_tokens_are_listed_newest_first_page_by_page(tokens):
    made = [(await tokens.create(f"user{number}", CallerRole.USER)).record for number in range(5)]
    await tokens.revoke(made[0].token_id)
    seen, before = [], None
    while page := await tokens.list(2, before):
        seen += page
        before = page[-1].created_at, page[-1].token_id
    assert [record.user_id for record in seen] == ["user4", "user3", "user2", "user1", "user0"]
    assert seen[-1].revoked_at is not None


@pytest.mark.parametrize(
    ("user_id", "seconds"), [("", None), ("a b", None), ("a\n", None), ("x" * 101, None), ("a", 0)]
)
async def test_invalid_input_creates_no_token(tokens, user_id, seconds):
    with pytest.raises(InvalidInput):
        await tokens.create(user_id, CallerRole.USER, seconds)
    assert await tokens.list(10) == []


async def test_first_admin_token_is_generated_once_with_private_mode(database, tokens, tmp_path):
    settings = Settings(home=tmp_path / "home")
    first, *others = await asyncio.gather(*(ensure_admin(database, settings) for _ in range(4)))
    assert others == [first] * 3
    path = admin_token_path(settings.home)
    assert path.read_text().strip() == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in settings.home.iterdir()] == ["admin-token"]
    caller = await tokens.authenticate(first)
    assert (caller.user_id, caller.role) == ("admin", CallerRole.ADMIN)


async def test_admin_token_of_the_environment_replaces_the_previous_one(database, tmp_path):
    made = await ensure_admin(database, Settings(home=tmp_path))
    assert await ensure_admin(database, Settings(home=tmp_path, admin_token="first-of-the-environment"))
    assert not admin_token_path(tmp_path).exists()
    given = await ensure_admin(database, Settings(home=tmp_path, admin_token="second-of-the-environment"))
    assert given == "second-of-the-environment"
    tokens = TokenService(database)
    assert (await tokens.authenticate(given)).is_admin
    assert made is not None
    for old in (made, "first-of-the-environment"):
        with pytest.raises(TokenUnknown):
            await tokens.authenticate(old)


async def test_admin_token_of_another_data_folder_is_not_replaced(database, tokens, tmp_path):
    given = await ensure_admin(database, Settings(home=tmp_path / "one", admin_token="of-the-environment"))
    assert await ensure_admin(database, Settings(home=tmp_path / "two")) is None
    assert (await tokens.authenticate(given)).is_admin


async def test_revoked_admin_token_stays_revoked_until_another_is_set(database, tokens, tmp_path):
    given = Settings(home=tmp_path, admin_token="of-the-environment")
    assert await ensure_admin(database, given)
    await tokens.revoke(FIRST_ADMIN_TOKEN_ID)
    assert await ensure_admin(database, given) is None
    assert await ensure_admin(database, Settings(home=tmp_path, admin_token="another-of-the-environment"))
    assert (await TokenService(database).authenticate("another-of-the-environment")).is_admin


async def test_admin_token_of_another_user_is_refused(database, tokens, tmp_path):
    made = await tokens.create("ada", CallerRole.USER)
    with pytest.raises(InvalidInput) as refused:
        await ensure_admin(database, Settings(home=tmp_path, admin_token=made.token))
    assert refused.value.code == "admin_token_taken"
    assert not (await tokens.authenticate(made.token)).is_admin


def test_hash_is_sha256():
    assert hash_token("abc").hex().startswith("ba7816bf8f01cfea")
