"""The real engine and images, and containers that run one command with the restrictions of a sandbox."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.errors import ContainerError

from sandbox.engine.host_environment import container_environment
from sandbox.engine.runtimes import RuntimeCatalog
from sandbox.images.runtime_images import RuntimeImages
from tests.integration.runtimes.runtimes_support import Run


@pytest.fixture(scope="session")
def catalog() -> RuntimeCatalog:
    return RuntimeCatalog()


@pytest.fixture(scope="session")
def images(catalog: RuntimeCatalog) -> RuntimeImages:
    return RuntimeImages(catalog)


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    client = docker.from_env(timeout=300)
    yield client
    client.close()


@pytest.fixture(scope="session")
def run(engine: docker.DockerClient) -> Run:
    """`run(image, shell command)` returns the output of the command, or fails if the command does."""

    def run(image: str, command: str, **options: object) -> str:
        settings: dict[str, object] = {
            "user": "1000:1000",
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
            "environment": {**container_environment().env, "HOME": "/home/sandbox"},
        }
        try:
            printed = engine.containers.run(
                image,
                ["-c", command],
                entrypoint="/bin/sh",
                remove=True,
                stderr=True,
                init=True,
                **(settings | options),
            )
        except ContainerError as error:
            pytest.fail(f"{command!r} ended with {error.exit_status}: {error.stderr.decode()}")
        return printed.decode().strip()

    return run


@pytest.fixture
def runtimes_folder(tmp_path: Path, engine: docker.DockerClient) -> Iterator[Path]:
    """An empty folder of runtimes. Images built from it are removed."""
    folder = tmp_path / "runtimes"
    folder.mkdir()
    yield folder
    for runtime in folder.iterdir():
        for image in engine.images.list(f"purple8/{runtime.name}"):
            for tag in image.tags:
                engine.images.remove(tag, force=True)


@pytest.fixture
def new_name() -> str:
    """A unique name for a runtime."""
    return f"test-{uuid.uuid4().hex[:12]}"
