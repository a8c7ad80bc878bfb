"""Deployments for single tests on the real Docker engine. Their resources are removed after the test."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from sandbox.engine.base import ContainerSpec, Limits
from sandbox.engine.docker.engine import DockerEngine
from sandbox.engine.guest_client.client import GuestClient
from sandbox.engine.runtimes import RuntimeCatalog
from sandbox.images.runtime_images import RuntimeImages
from sandbox.settings import Settings
from tests.firewall import remove_rules
from tests.integration.engine.isolated_world import SECRET, World, world_of

MakeEngine = Callable[..., DockerEngine]


@pytest.fixture(scope="session")
async def image() -> str:
    """The image of the Python runtime, built if it is missing."""
    return await RuntimeImages(RuntimeCatalog()).ensure("python312")


@pytest.fixture
async def make_engine(tmp_path: Path) -> AsyncIterator[MakeEngine]:
    """`make_engine(deployment_id=..., **settings)` creates an engine, whose resources are removed after the test."""
    made: list[DockerEngine] = []

    def make(deployment_id: UUID | None = None, **settings: Any) -> DockerEngine:
        settings = {"home": tmp_path / "home", **settings}
        engine = DockerEngine(Settings(**settings), deployment_id or uuid4(), guest_factory=GuestClient)
        made.append(engine)
        return engine

    yield make
    for engine in made:
        await empty(engine)
        await engine.aclose()


async def empty(engine: DockerEngine) -> None:
    left = await engine.list_resources()
    for session_id in {resource.session_id for resource in left if resource.session_id is not None}:
        await engine.remove_session(session_id)
    for resource in left:
        if resource.session_id is None:
            await engine.remove(resource)
    remove_rules(engine._deployment_id)


@pytest.fixture
def engine(make_engine: MakeEngine) -> DockerEngine:
    return make_engine()


@pytest.fixture
def make_spec(image: str) -> Callable[..., ContainerSpec]:
    def make(session_id: UUID, role: str = "main", **changes: Any) -> ContainerSpec:
        given: dict[str, Any] = {
            "image": image,
            "runtime": "python312",
            "network": None,
            "limits": Limits(memory_bytes=256 << 20, cpus=1.0, pids=64),
        }
        return ContainerSpec(session_id=session_id, role=role, **(given | changes))

    return make


@pytest.fixture(scope="module")
async def world(image: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    with pytest.MonkeyPatch.context() as patch:
        # The service, too, has secrets in its environment when it creates containers.
        patch.setenv("SANDBOX_ADMIN_TOKEN", SECRET)
        patch.setenv("DATABASE_URL", f"postgresql://user:{SECRET}@localhost/db")
        engine = DockerEngine(
            Settings(home=tmp_path_factory.mktemp("home")), uuid4(), guest_factory=GuestClient, environment={}
        )
        async with world_of(engine, image) as made:
            yield made
