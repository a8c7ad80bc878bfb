"""The sweep removes old strays of this deployment, and nothing if the database or the engine cannot be read."""

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
from sandbox.sessions.run_origin import new_origin
from sandbox.settings import Settings
from sandbox.telemetry.metrics.collectors import REGISTRY

NO_GRACE = timedelta(seconds=-5)
STRAYS = "sandbox_stray_resources"


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


def metric(name: str, kind: str) -> float | None:
    return REGISTRY.get_sample_value(name, {"kind": kind})


def service(db: Database, engine: DockerEngine) -> RecoveryService:
    return RecoveryService(db, engine, Alerts(notify=False), new_origin)


async def test_strays_are_removed_after_a_grace_period(
    database: Database, engine: DockerEngine, client: docker.APIClient, deployment_id: UUID
) -> None:
    recovery = service(database, engine)
    stray = make_volume(client, deployment_id, uuid4())
    removed_before = metric("sandbox_stray_resources_removed_total", "volume") or 0
    assert await recovery.sweep(timedelta(hours=1)) == 0
    assert await names(engine) == [stray]
    assert (metric(STRAYS, "volume"), metric(STRAYS, "container")) == (1, 0)
    assert await recovery.sweep(NO_GRACE) == 1
    assert await names(engine) == []
    assert await recovery.sweep(NO_GRACE) == 0
    assert metric(STRAYS, "volume") == 0
    assert metric("sandbox_stray_resources_removed_total", "volume") == removed_before + 1


async def test_resources_of_a_session_are_not_strays(
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


async def test_nothing_is_removed_if_the_database_cannot_be_read(
    engine: DockerEngine, client: docker.APIClient, deployment_id: UUID
) -> None:
    unreachable = Database("postgresql://nobody@127.0.0.1:9/nothing")
    stray = make_volume(client, deployment_id, uuid4())
    with pytest.raises(DatabaseUnavailable):
        await service(unreachable, engine).sweep(NO_GRACE)
    assert await names(engine) == [stray]
    await unreachable.close()


async def test_nothing_is_found_if_the_engine_cannot_be_read(
    database: Database, tmp_path: Path, deployment_id: UUID
) -> None:
    settings = Settings(home=tmp_path, docker_host=f"unix://{tmp_path}/none.sock")
    unreachable = DockerEngine(settings, deployment_id, guest_factory=GuestClient)
    with pytest.raises(EngineError):
        await service(database, unreachable).findings()
    await unreachable.aclose()
