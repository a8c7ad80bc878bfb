"""Claiming work: never more than was asked for, whatever plan PostgreSQL chooses."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from sandbox.domain.session import Work
from sandbox.sessions import store
from tests.fakes.world import LEASE_SECONDS, OWNER, World

JOINS = ("hashjoin", "mergejoin", "nestloop")


@pytest.mark.parametrize("join", JOINS)
async def test_no_more_is_claimed_than_the_limit(world: World, join: str) -> None:
    for _ in range(6):
        await world.create_blank()
    async with world.db.transaction() as conn:
        for setting in ("hashagg", "sort", "material", *(other for other in JOINS if other != join)):
            await conn.execute(text(f"SET LOCAL enable_{setting} = off"))
        claimed = await store.claim(conn, OWNER, Work.LAUNCH, running=[], limit=2, lease=LEASE_SECONDS)
    assert len(claimed) == 2
