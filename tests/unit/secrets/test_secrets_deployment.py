"""The keys that a database was used with, and the signing key that earlier releases kept in it."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from sandbox.access.signing import SignatureRefused, Signer
from sandbox.domain.caller import SignedInBy
from sandbox.secrets.deployment import adopt_keys
from sandbox.secrets.keys import KEY_BYTES, KeyRing, KeysUnusable
from tests.fakes.world import World, one_role

FIRST, SECOND = (KeyRing([key * KEY_BYTES]) for key in (b"1", b"2"))
BOTH = KeyRing([b"2" * KEY_BYTES, b"1" * KEY_BYTES])
EARLIER = "signing-key-of-an-earlier-release"


async def put(world: World, **columns: Any) -> None:
    changes = ", ".join(f"{name} = :{name}" for name in columns)
    async with world.db.transaction() as conn:
        await conn.execute(text(f"UPDATE deployment SET {changes}"), columns)


async def row(world: World) -> str:
    async with world.db.read() as conn:
        return str((await conn.execute(text("SELECT d::text FROM deployment d"))).scalar_one())


async def test_the_signing_key_of_an_earlier_release_leaves_the_database(world: World) -> None:
    await put(world, signing_key=EARLIER, telemetry_key=None, key_check=None)
    session = await world.create_project(one_role())
    earlier = await adopt_keys(world.db, FIRST)
    assert earlier == EARLIER.encode()
    assert EARLIER not in await row(world)
    assert await adopt_keys(world.db, BOTH) == EARLIER.encode()  # at the next start, with a new key
    assert await adopt_keys(world.db, SECOND) == EARLIER.encode()
    signer = Signer(SECOND.signing_keys("signing"), earlier_exports_key=earlier)
    forger = Signer([EARLIER.encode()])
    # The containers of running sessions have such tokens.
    assert signer.read_exports(forger.sign_exports(session.session_id, "ada")) == (session.session_id, "ada")
    with pytest.raises(SignatureRefused):
        signer.read_preview(forger.sign_preview(session.session_id, SignedInBy("ada")), session.session_id)


async def test_a_database_is_used_with_its_own_keys_only(world: World) -> None:
    await put(world, key_check=None, telemetry_key=None)
    await adopt_keys(world.db, FIRST)
    with pytest.raises(KeysUnusable, match="another key"):
        await adopt_keys(world.db, SECOND)
    await adopt_keys(world.db, BOTH)
    with pytest.raises(KeysUnusable):
        await adopt_keys(world.db, FIRST)
