"""The lifetimes of sessions: the operator's are maxima, and a renewal never shortens one."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import cast

import pytest

from sandbox.projects.service import ProjectService
from sandbox.sessions.create_request import CreateRequest
from sandbox.sessions.limits import SessionLimits
from sandbox.sessions.service import SessionService
from tests.fakes.world import CALLER, World

HOUR, DAY = 3600, 86_400


def service(world: World, idle: int, lifetime: int) -> SessionService:
    limits = SessionLimits(idle, lifetime, sessions_per_user=1000)
    projects = cast("ProjectService", world.projects)
    parts = (world.db, world.engine, projects, limits, ["python312"])
    return SessionService(*parts, environments=world.environments)


@pytest.mark.parametrize(
    ("most", "requested", "expected"),
    [
        (HOUR, None, HOUR),
        (HOUR, 60, 60),
        (HOUR, DAY, HOUR),
        (HOUR, 0, HOUR),
        (0, None, 0),
        (0, DAY, DAY),
        (0, 0, 0),
    ],
)
async def test_the_operators_times_are_maxima(world: World, most: int, requested: int | None, expected: int) -> None:
    request = CreateRequest(idle_timeout_seconds=requested, max_lifetime_seconds=requested)
    session, _ = await service(world, most, most).create(CALLER, request, None)
    assert (session.idle_timeout_seconds, session.max_lifetime_seconds) == (expected, expected)


def seconds_from(start: datetime, end: datetime | None) -> float:
    assert end is not None
    return (end - start).total_seconds()


async def test_a_renewal_postpones_within_the_maximum_and_never_shortens(world: World) -> None:
    sessions = service(world, 0, DAY)
    session, _ = await sessions.create(CALLER, CreateRequest(max_lifetime_seconds=HOUR), None)
    shorter = await sessions.renew(CALLER, session.session_id, 100)
    assert shorter.expires_at == session.expires_at
    longer = await sessions.renew(CALLER, session.session_id, 2 * HOUR)
    assert seconds_from(longer.last_active, longer.expires_at) == pytest.approx(2 * HOUR, abs=1)
    longest = await sessions.renew(CALLER, session.session_id, 30 * DAY)
    assert seconds_from(session.created_at, longest.expires_at) == pytest.approx(DAY, abs=1)


async def test_what_never_expires_does_not_after_a_renewal(world: World) -> None:
    sessions = service(world, 0, 0)
    session, _ = await sessions.create(CALLER, CreateRequest(), None)
    assert session.expires_at is None
    assert (await sessions.renew(CALLER, session.session_id, HOUR)).expires_at is None
    limited, _ = await sessions.create(CALLER, CreateRequest(max_lifetime_seconds=HOUR), None)
    renewed = await sessions.renew(CALLER, limited.session_id, 30 * DAY)
    assert renewed.expires_at is not None
    assert renewed.expires_at > datetime.now(renewed.expires_at.tzinfo) + timedelta(days=29)
