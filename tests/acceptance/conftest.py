"""One running service for all acceptance tests; tests that kill it start their own."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import docker
import psycopg
import pytest

from sandbox.db.embedded import EmbeddedPostgres
from sandbox.engine import labels
from tests.acceptance.api import Api
from tests.acceptance.service import ADMIN_TOKEN, SESSIONS_EACH, QuickService, Service


@pytest.fixture(scope="session")
def docker_client() -> Iterator[docker.DockerClient]:
    client = docker.from_env()
    yield client
    client.close()


@pytest.fixture(scope="session")
def make_service() -> Iterator[Callable[..., Service]]:
    """Services with a (short) data folder of their own; everything of theirs is removed at the end."""
    made: list[Service] = []

    def make(home: Path | None = None, *, quick: bool = False, **env: str) -> Service:
        if home is None:
            home = Path(tempfile.mkdtemp(prefix="sbx-"))
            home.chmod(0o711)  # else the database, whose user is another, goes elsewhere
        service = (QuickService if quick else Service)(home, env=env)
        made.append(service)
        return service

    yield make
    for service in made:
        service.stop()
    for home in {service.home for service in made}:
        _remove_everything(home)


def _remove_everything(home: Path) -> None:
    """End the sessions that tests left; remove the deployment's network, its database and its folder."""
    if (home / "postgres").exists():
        with psycopg.connect(asyncio.run(EmbeddedPostgres(home).start())) as connection:
            left = connection.execute("SELECT 1 FROM sandbox_sessions WHERE status <> 'terminated'").fetchone()
            (deployment_id,) = connection.execute("SELECT deployment_id FROM deployment").fetchone() or (None,)
        if left:
            _end_sessions(home)
        with closing(docker.from_env()) as client:
            for network in client.networks.list(filters={"label": f"{labels.DEPLOYMENT}={deployment_id}"}):
                network.remove()
        asyncio.run(EmbeddedPostgres(home).stop())
    shutil.rmtree(home, ignore_errors=True)


def _end_sessions(home: Path) -> None:
    cleaner = Service(home)
    cleaner.start()
    api = Api(cleaner.url, ADMIN_TOKEN)
    for session in api.http.get("/api/v1/sessions", params={"limit": 500}).json()["items"]:
        if session["status"] != "terminated":
            api.end(session["session_id"])
    api.http.close()
    cleaner.stop()


@pytest.fixture(scope="session")
def service(make_service: Callable[..., Service]) -> Service:
    running = make_service()
    running.start()
    return running


@pytest.fixture(scope="session")
def admin(service: Service) -> Iterator[Api]:
    api = Api(service.url, ADMIN_TOKEN)
    yield api
    api.http.close()


@pytest.fixture
def make_user(admin: Api, service: Service) -> Iterator[Callable[[], Api]]:
    """Callers of role `user`, each somebody new."""
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
    """A blank Python session that many tests share."""
    session, _ = admin.launch()
    assert session["status"] == "ready", session
    yield session["session_id"]
    admin.end(session["session_id"])


@pytest.fixture(scope="session")
def strict_service(make_service: Callable[..., Service]) -> Service:
    """A service that waits for little and gives little."""
    running = make_service(
        SANDBOX_INSTALL_TIMEOUT_SECONDS="30",
        SANDBOX_HEALTH_TIMEOUT_SECONDS="30",
        SANDBOX_MEMORY_MB="256",
        SANDBOX_MAX_UPLOAD_MB="1",
        SANDBOX_MAX_PROJECT_MB="8",
        SANDBOX_MAX_PROJECT_FILES="200",
        SANDBOX_MAX_BODY_KB="64",
        SANDBOX_MAX_SESSIONS_PER_USER=str(SESSIONS_EACH),
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
    made: list[Api] = []

    def make() -> Api:
        body = {"user_id": f"user-{uuid.uuid4().hex[:8]}", "role": "user"}
        made.append(Api(strict_admin.url, strict_admin.http.post("/api/v1/tokens", json=body).json()["token"]))
        return made[-1]

    yield make
    for api in made:
        api.http.close()
