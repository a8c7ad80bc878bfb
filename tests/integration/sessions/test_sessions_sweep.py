"""The sweep: strays that are old enough, of this deployment alone, and nothing at all when a side cannot be read."""

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import docker
import pytest
from sqlalchemy import text

from sandbox.db.connection import Database
from sandbox.engine import labels
from sandbox.engine.docker.engine import DockerEngine
from sandbox.engine.guest_client.client import GuestClient
from sandbox.errors import DatabaseUnavailable, EngineError
from sandbox.records.alerts.store import Alerts
from sandbox.sessions.recovery.service import RecoveryService
from sandbox.sessions.service import new_origin
from sandbox.settings import Settings
from sandbox.telemetry.metrics.collectors import REGISTRY

NO_GRACE = timedelta(seconds=-5)
SEEN = "sandbox_stray_resources"


@pytest.fixture
def client() -> Iterator[docker.APIClient]:
    client = docker.APIClient()
    yield client
    client.close()


@pytest.fixture
def deployment_id() -> UUID:
    return uuid4()


@pytest.fixture
async def engine(tmp_path: Path, deployment_id: UUID) -> AsyncIterator[DockerEngine]:
    engine = DockerEngine(Settings(home=tmp_path), deployment_id, guest_factory=GuestClient)
    yield engine
    for resource in await engine.list_resources():
        await engine.remove(resource)
    await engine.aclose()


def make_volume(client: docker.APIClient, deployment_id: UUID, session_id: UUID) -> str:
    name = labels.container_name(session_id, "main")
    client.create_volume(name, labels=labels.resource_labels(deployment_id, session_id, "main"))
    return name


async def names(engine: DockerEngine) -> list[str]:
    return [resource.name for resource in await engine.list_resources()]


def figure(name: str, kind: str) -> float | None:
    return REGISTRY.get_sample_value(name, {"kind": kind})


def service(db: Database, engine: DockerEngine) -> RecoveryService:
    return RecoveryService(db, engine, Alerts(tell=False), new_origin)


async def test_strays_are_removed_after_a_grace_period(
    database: Database, engine: DockerEngine, client: docker.APIClient, deployment_id: UUID
) -> None:
    recovery = service(database, engine)
    stray = make_volume(client, deployment_id, uuid4())
    removed_before = figure("sandbox_stray_resources_removed_total", "volume") or 0
    assert await recovery.sweep(timedelta(hours=1)) == 0
    assert await names(engine) == [stray]
    assert (figure(SEEN, "volume"), figure(SEEN, "container")) == (1, 0)
    assert await recovery.sweep(NO_GRACE) == 1
    assert await names(engine) == []
    assert await recovery.sweep(NO_GRACE) == 0
    assert figure(SEEN, "volume") == 0
    assert figure("sandbox_stray_resources_removed_total", "volume") == removed_before + 1


async def test_what_a_living_session_has_is_no_stray(
    database: Database, engine: DockerEngine, client: docker.APIClient, deployment_id: UUID
) -> None:
    session_id = uuid4()
    async with database.transaction() as conn:
        await conn.execute(
            text(
                "INSERT INTO sandbox_sessions (session_id, user_id, runtime_type, pipeline_run_id)"
                " VALUES (:session_id, 'u', 'python312', 'r')"
            ),
            {"session_id": session_id},
        )
    volume = make_volume(client, deployment_id, session_id)
    assert await service(database, engine).sweep(NO_GRACE) == 0
    assert await names(engine) == [volume]
    async with database.transaction() as conn:
        await conn.execute(text("UPDATE sandbox_sessions SET status = 'terminated', terminated_at = NOW()"))
    assert await service(database, engine).sweep(NO_GRACE) == 1


async def test_a_database_that_cannot_be_read_is_not_an_empty_one(
    engine: DockerEngine, client: docker.APIClient, deployment_id: UUID
) -> None:
    away = Database("postgresql://nobody@127.0.0.1:9/nothing")
    stray = make_volume(client, deployment_id, uuid4())
    with pytest.raises(DatabaseUnavailable):
        await service(away, engine).sweep(NO_GRACE)
    assert await names(engine) == [stray]
    await away.close()


async def test_an_engine_that_cannot_be_asked_is_not_an_empty_one(
    database: Database, tmp_path: Path, deployment_id: UUID
) -> None:
    settings = Settings(home=tmp_path, docker_host=f"unix://{tmp_path}/none.sock")
    away = DockerEngine(settings, deployment_id, guest_factory=GuestClient)
    with pytest.raises(EngineError):
        await service(database, away).findings()
    await away.aclose()
