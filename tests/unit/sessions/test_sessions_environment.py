"""The environment of a session: encrypted in the database, redacted in output, and gone when the session is over."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text

from sandbox.domain.events import EventType
from sandbox.domain.plan import LaunchPlan, RolePlan
from sandbox.domain.session import Session, SessionStatus
from sandbox.domain.variables import FromSecret
from sandbox.errors import InvalidInput
from sandbox.launch.environment import role_environment
from sandbox.secrets.keys import KEY_BYTES, KeyRing, SealBroken
from sandbox.sessions.create_request import CreateRequest
from sandbox.sessions.housekeeping.encryption import encrypt_sessions
from tests.fakes.processes import Script
from tests.fakes.secrets import environments
from tests.fakes.world import CALLER, START, World, one_role

VALUE = "s3cret-of-the-app"
OTHER = "another-value-of-it"


async def stored(world: World, session: Session) -> str:
    """Everything that the database has of a session, as text."""
    tables = ("sandbox_sessions", "session_runs", "session_events", "session_stages")
    found: list[str] = []
    async with world.db.read() as conn:
        for table in tables:
            where = "session_id = :id"
            if table == "session_stages":
                where = "run_id IN (SELECT run_id FROM session_runs WHERE session_id = :id)"
            rows = await conn.execute(text(f"SELECT t::text FROM {table} t WHERE {where}"), {"id": session.session_id})
            found += rows.scalars()
    assert found
    return "\n".join(found)


async def environment(world: World, session: Session) -> dict[str, str]:
    _, env, _ = await world.sessions.commands(CALLER, session.session_id, None)
    return env


async def execute(world: World, statement: str, **values: Any) -> None:
    async with world.db.transaction() as conn:
        await conn.execute(text(statement), values)


async def test_values_reach_commands_and_are_not_readable_in_the_database(world: World) -> None:
    session = await world.create_project(one_role(), env={"API_KEY": VALUE})
    assert VALUE not in repr(session)
    assert await world.launch(session) is SessionStatus.RUNNING
    assert (await environment(world, session))["API_KEY"] == VALUE
    assert VALUE not in await stored(world, session)
    with pytest.raises(RuntimeError, match="not been decrypted"):
        role_environment(await world.read(session), one_role(), "main")


async def test_values_are_gone_when_the_session_is_over(world: World) -> None:
    await world.secrets.put(CALLER, "key", VALUE)
    session = await world.create_project(one_role(env={"KEY": {"from_secret": "key"}}), env={"A": "1"})
    async with world.reconciling():
        await world.terminate(session)
        ended = await world.until(session, lambda it: it.status is SessionStatus.TERMINATED)
    assert ended.sealed is None
    columns = "env, sealed, requested_plan"
    async with world.db.read() as conn:
        found = await conn.execute(
            text(f"SELECT {columns} FROM sandbox_sessions WHERE session_id = :id"), {"id": session.session_id}
        )
        row = found.one()
    assert (row.env, row.sealed, row.requested_plan) == ({}, None, None)


async def test_a_project_and_a_request_refer_to_secrets(world: World) -> None:
    await world.secrets.put(CALLER, "key", VALUE)
    session = await world.create_project(
        one_role(env={"OF_PLAN": {"from_secret": "key"}}), env={"OF_REQUEST": FromSecret(from_secret="key")}
    )
    await world.launch(session)
    env = await environment(world, session)
    assert (env["OF_PLAN"], env["OF_REQUEST"]) == (VALUE, VALUE)
    assert VALUE not in await stored(world, session)


async def test_a_secret_that_is_not_there_is_refused(world: World) -> None:
    with pytest.raises(InvalidInput, match="no secret missing") as refused:
        await world.sessions.create(CALLER, CreateRequest(env={"A": FromSecret(from_secret="missing")}), None)
    assert refused.value.code == "secret_unknown"
    await world.secrets.put(replace(CALLER, user_id="bob"), "missing", VALUE)
    with pytest.raises(InvalidInput):
        await world.sessions.create(CALLER, CreateRequest(env={"A": FromSecret(from_secret="missing")}), None)


async def test_a_relaunch_uses_the_current_value_and_a_removed_one_stays(world: World) -> None:
    await world.secrets.put(CALLER, "changed", VALUE)
    await world.secrets.put(CALLER, "removed", VALUE)
    env = {"CHANGED": FromSecret(from_secret="changed"), "REMOVED": FromSecret(from_secret="removed")}
    session = await world.create_project(one_role(), env=env)
    await world.launch(session)
    await world.secrets.put(CALLER, "changed", OTHER)
    await world.secrets.delete(CALLER, "removed")
    await world.relaunch(session)
    await world.launch(session)
    world.sessions.forget(session.session_id)
    found = await environment(world, session)
    assert (found["CHANGED"], found["REMOVED"]) == (OTHER, VALUE)


async def test_secrets_are_redacted_where_apps_print_them(world: World) -> None:
    await world.secrets.put(CALLER, "key", VALUE)
    session = await world.create_project(one_role(), env={"KEY": FromSecret(from_secret="key"), "MODE": "production"})
    guest = world.guest(session)
    guest.script("install", Script(f"installing with {VALUE} for production\n".encode()))
    guest.script("app", Script(f"Error: login with {VALUE} failed\n".encode(), exit_code=1))
    assert await world.launch(session) is SessionStatus.ERROR
    lines = [event.data["line"] for event in await world.events(session) if event.type is EventType.LOG]
    assert "installing with [secret key] for production" in lines
    error = (await world.read(session)).error
    assert error is not None
    assert "[secret key]" in error.message
    assert VALUE not in await stored(world, session)
    lines_of_app = [line async for line in await world.sessions.app_lines(
        CALLER, session.session_id, [], follow=False, resume=None)]  # fmt: skip
    assert VALUE not in str(lines_of_app)
    assert "[secret key]" in str(lines_of_app)


async def test_values_of_a_requested_plan_are_encrypted_too(world: World) -> None:
    session = await world.launched(one_role())
    plan = {"main": {"runtime": "python312", "start": START, "port": 8000, "env": {"KEY": VALUE}}}
    withheld, values = CreateRequest(plan=plan).withheld()
    assert VALUE not in str(withheld)
    assert withheld is not None
    assert list(values.values()) == [VALUE]
    made, _ = await world.sessions.create(CALLER, CreateRequest(project_id=session.project_id, plan=plan), None)
    assert VALUE not in await stored(world, made)
    opened = world.environments.opened(await world.read(made))
    requested = LaunchPlan(roles={"main": RolePlan.model_validate(withheld["main"])})
    assert role_environment(opened, requested, "main")["KEY"] == VALUE


async def test_what_an_earlier_release_stored_is_encrypted(world: World) -> None:
    session = await world.launched(one_role(env={"KEY": VALUE}))
    requested = json.dumps({"main": {"env": {"KEY": VALUE}}})
    await execute(
        world,
        "UPDATE sandbox_sessions SET env = CAST(:env AS jsonb), requested_plan = CAST(:requested AS jsonb) "
        "WHERE session_id = :id",
        env=json.dumps({"API_KEY": OTHER}), requested=requested, id=session.session_id,
    )  # fmt: skip
    assert await encrypt_sessions(world.db, world.environments) == 1
    assert await encrypt_sessions(world.db, world.environments) == 0
    row = await stored(world, session)
    assert VALUE not in row
    assert OTHER not in row
    env = await environment(world, session)
    assert (env["API_KEY"], env["KEY"]) == (OTHER, VALUE)


async def test_a_new_key_encrypts_everything_again(world: World) -> None:
    await world.secrets.put(CALLER, "key", VALUE)
    session = await world.create_project(one_role(), env={"KEY": FromSecret(from_secret="key")})
    new = environments(world.db, KeyRing([b"n" * KEY_BYTES, b"k" * KEY_BYTES]))
    await encrypt_sessions(world.db, new)
    assert await new.secrets.renew_seals() >= 1
    alone = environments(world.db, KeyRing([b"n" * KEY_BYTES]))
    assert alone.opened(await world.read(session)).values.values == {"key": VALUE}
    assert await alone.secrets.values(CALLER.user_id, None, ["key"]) == {"key": VALUE}
    with pytest.raises(SealBroken):
        world.environments.opened(await world.read(session))
    # Back to the key of the other tests, which share the database.
    back = environments(world.db, KeyRing([b"k" * KEY_BYTES, b"n" * KEY_BYTES]))
    await encrypt_sessions(world.db, back)
    await back.secrets.renew_seals()


async def test_a_request_with_variables_is_recognised_by_a_keyed_digest(world: World) -> None:
    first, other = (KeyRing([key * KEY_BYTES]) for key in (b"1", b"2"))
    request = CreateRequest(env={"PIN": "1234"})
    assert request.digest(first) == CreateRequest(env={"PIN": "1234"}).digest(first)
    assert len({request.digest(first), request.digest(other), CreateRequest(env={"PIN": "1235"}).digest(first)}) == 3
    assert CreateRequest().digest(first) == CreateRequest().digest(other)
