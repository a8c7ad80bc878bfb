"""Fixtures of the fast tests: the world of fakes, on one database for all of them, and the command line."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import hypothesis
import psycopg
import pytest

from sandbox.db.connection import Database
from tests.fakes.world import QuickAsyncio, World
from tests.postgres import other_database
from tests.unit.command_line import CommandLine

# An example may be slow because the machine is busy; that is no failure.
hypothesis.settings.register_profile("tests", deadline=None)
hypothesis.settings.load_profile("tests")


@pytest.fixture(scope="session")
async def shared_database(postgres: str, migrated_template: str) -> AsyncIterator[Database]:
    """A migrated database for tests that remove their own rows: quicker than a clone for each."""
    name = "shared"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {migrated_template}")
    database = Database(other_database(postgres, name))
    yield database
    await database.close()


@pytest.fixture
def retries(monkeypatch: pytest.MonkeyPatch) -> QuickAsyncio:
    """The pauses between the attempts at a stage, recorded and shortened."""
    quick = QuickAsyncio(longest=4.0)
    monkeypatch.setattr("sandbox.launch.attempts.asyncio", quick)
    return quick


@pytest.fixture
async def world(shared_database: Database, retries: QuickAsyncio) -> AsyncIterator[World]:
    world = World(shared_database)
    yield world
    await world.aclose()


@pytest.fixture(scope="session")
def command_line() -> Iterator[CommandLine]:
    command_line = CommandLine()
    yield command_line
    command_line.close()
