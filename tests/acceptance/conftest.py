"""Fixtures of the acceptance tests: a running service that they share, and a factory for services of their own.

With pytest-xdist every worker has a shared service, a strict service and a blank session of its own.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import docker
import psycopg
import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from sandbox.db.embedded import EmbeddedPostgres
from sandbox.engine import labels
from tests.acceptance.api import Api
from tests.acceptance.browsers import FLAGS, program
from tests.acceptance.console import EXPECT_MS, NewPage, new_context
from tests.acceptance.service import ADMIN_TOKEN, SESSIONS_PER_USER, QuickService, Service
from tests.firewall import remove_rules

MakeService = Callable[..., Service]


@pytest.fixture(scope="session")
def docker_client() -> Iterator[docker.DockerClient]:
    client = docker.from_env()
    yield client
    client.close()


@pytest.fixture(scope="module")
def make_service() -> Iterator[MakeService]:
    """Return a function that makes a service, not started, with these environment variables.

    Without `home` it gets a new data folder; two services of one `home` are replicas of one deployment. With
    `quick=False` it is started by the command that users type instead of being forked. At the end of the module every
    service is stopped and all that it made is removed.
    """
    with _services() as make:
        yield make


@pytest.fixture(scope="session")
def make_shared_service() -> Iterator[MakeService]:
    """The same as `make_service`, for services that the tests of several modules use."""
    with _services() as make:
        yield make


@contextmanager
def _services() -> Iterator[MakeService]:
    made: list[Service] = []

    def make(home: Path | None = None, *, quick: bool = True, **env: str) -> Service:
        if home is None:
            home = Path(tempfile.mkdtemp(prefix="sbx-"))
            # PostgreSQL runs as another user, which must be able to pass through; otherwise its data is put elsewhere.
            home.chmod(0o711)
        service = (QuickService if quick else Service)(home, env=env)
        made.append(service)
        return service

    yield make
    for service in made:
        service.stop()
        service.stop_edge()
    for home in {service.home for service in made}:
        _remove_everything(home)


def _remove_everything(home: Path) -> None:
    """Remove what the deployment has on the engine, its firewall rules, its database and its data folder."""
    if (home / "postgres").exists():
        with psycopg.connect(asyncio.run(EmbeddedPostgres(home).start())) as connection:
            (deployment_id,) = connection.execute("SELECT deployment_id FROM deployment").fetchone() or (None,)
        with closing(docker.from_env()) as client:
            label = {"label": f"{labels.DEPLOYMENT}={deployment_id}"}
            for container in client.containers.list(all=True, filters=label, ignore_removed=True):
                container.remove(force=True)
            for resource in (*client.volumes.list(filters=label), *client.networks.list(filters=label)):
                resource.remove()
        if deployment_id is not None:
            remove_rules(deployment_id)
        asyncio.run(EmbeddedPostgres(home).stop())
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def service(make_shared_service: MakeService) -> Service:
    """A running service with the default settings, which no test may stop."""
    running = make_shared_service(quick=False)
    running.start()
    return running


@pytest.fixture(scope="session")
def admin(service: Service) -> Iterator[Api]:
    api = Api(service.url, ADMIN_TOKEN)
    yield api
    api.http.close()


@pytest.fixture
def make_user(admin: Api, service: Service) -> Iterator[Callable[[], Api]]:
    """Return a function that makes a client with the token of a new user, who is not an admin."""
    made: list[Api] = []

    def make() -> Api:
        body = {"user_id": f"user-{uuid.uuid4().hex[:8]}", "role": "user"}
        made.append(Api(service.url, admin.http.post("/api/v1/tokens", json=body).json()["token"]))
        return made[-1]

    yield make
    for api in made:
        api.http.close()


@pytest.fixture
def user(make_user: Callable[[], Api]) -> Api:
    return make_user()


@pytest.fixture(scope="session")
def blank(admin: Api) -> Iterator[str]:
    """The id of a blank Python session that many tests share."""
    session, _ = admin.launch()
    assert session["status"] == "ready", session
    yield session["session_id"]
    admin.end(session["session_id"])


@pytest.fixture(scope="session")
def strict_service(make_shared_service: MakeService) -> Service:
    """A running service with short timeouts and small limits."""
    running = make_shared_service(
        SANDBOX_INSTALL_TIMEOUT_SECONDS="60",
        SANDBOX_HEALTH_TIMEOUT_SECONDS="60",
        SANDBOX_MEMORY_MB="256",
        SANDBOX_MAX_UPLOAD_MB="1",
        SANDBOX_MAX_PROJECT_MB="8",
        SANDBOX_MAX_PROJECT_FILES="200",
        SANDBOX_MAX_BODY_KB="64",
        SANDBOX_MAX_SESSIONS_PER_USER=str(SESSIONS_PER_USER),
    )
    running.start()
    return running


@pytest.fixture(scope="session")
def strict_admin(strict_service: Service) -> Iterator[Api]:
    api = Api(strict_service.url, ADMIN_TOKEN)
    yield api
    api.http.close()


@pytest.fixture(scope="session")
def new_user(strict_admin: Api) -> Iterator[Callable[[], Api]]:
    """The same as `make_user`, for the strict service."""
    made: list[Api] = []

    def make() -> Api:
        body = {"user_id": f"user-{uuid.uuid4().hex[:8]}", "role": "user"}
        made.append(Api(strict_admin.url, strict_admin.http.post("/api/v1/tokens", json=body).json()["token"]))
        return made[-1]

    yield make
    for api in made:
        api.http.close()


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    """A Chromium in which expectations have time on a busy machine."""
    expect.set_options(timeout=EXPECT_MS)
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=program(), args=FLAGS)
        yield running
        await running.close()


@pytest.fixture
async def new_page(browser: Browser) -> AsyncIterator[NewPage]:
    """Return a function that opens a page in a new browser context, without cookies."""
    contexts = []

    async def make() -> Page:
        contexts.append(await new_context(browser))
        return await contexts[-1].new_page()

    yield make
    for context in contexts:
        await context.close()
