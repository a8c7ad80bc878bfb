"""The pool of the running service: containers that wait, sessions that get them, and replicas that die meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta

import docker
import psycopg
import pytest

from sandbox.db.embedded import EmbeddedPostgres
from sandbox.engine import labels
from tests.acceptance.api import Api
from tests.acceptance.service import ADMIN_TOKEN, Service

SIZE = 2
WAIT = timedelta(seconds=120)
POOL = {"SANDBOX_POOL_MIN": str(SIZE), "SANDBOX_POOL_MAX": str(SIZE)}
TWO_ROLES = {
    "sandbox.toml": "".join(
        f'[{role}]\nruntime = "python312"\nstart = "exec python3 -m http.server $PORT"\nport = {port}\n'
        for role, port in (("frontend", 8001), ("backend", 8002))
    ),
    "index.html": "<h1>here</h1>",
}


class Pool:
    """What the database and the engine have of one deployment's pool."""

    def __init__(self, service: Service, client: docker.DockerClient) -> None:
        self.service = service
        self._client = client
        self._dsn = asyncio.run(EmbeddedPostgres(service.home).start())

    def rows(self, state: str) -> set[str]:
        """The names of the containers that wait, by the rows in this state."""
        query = "SELECT member_id FROM pool_containers WHERE state = %s"
        with psycopg.connect(self._dsn) as connection:
            ids = connection.execute(query, [state]).fetchall()
        return {labels.container_name(member, labels.POOL_ROLE) for (member,) in ids}

    def containers(self) -> set[str]:
        """The names of the containers of the deployment that wait on the engine."""
        with psycopg.connect(self._dsn) as connection:
            (deployment,) = connection.execute("SELECT deployment_id FROM deployment").fetchone() or ("",)
        label = {"label": f"{labels.DEPLOYMENT}={deployment}"}
        found = self._client.containers.list(all=True, filters=label, ignore_removed=True)
        return {name for name in (one.name for one in found) if name and name.endswith(labels.POOL_ROLE)}

    def python(self) -> int:
        with psycopg.connect(self._dsn) as connection:
            query = "SELECT count(*) FROM pool_containers WHERE state = 'ready' AND runtime = 'python312'"
            (count,) = connection.execute(query).fetchone() or (0,)
        return int(count)

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT.total_seconds()
        while not condition():
            assert time.monotonic() < deadline, f"rows {self.rows('ready')}, containers {self.containers()}"
            time.sleep(0.1)

    def until_full(self) -> None:
        self.until(lambda: self.python() == SIZE and self.rows("ready") == self.containers())


@pytest.fixture(scope="module")
def service(make_service: Callable[..., Service]) -> Iterator[Service]:
    """A service of this module, which tests may kill and must leave running."""
    service = make_service(**POOL)
    service.start()
    yield service
    service.stop()


@contextmanager
def client(service: Service) -> Iterator[Api]:
    api = Api(service.url, ADMIN_TOKEN)
    try:
        yield api
    finally:
        api.http.close()


@pytest.fixture
def api(service: Service) -> Iterator[Api]:
    with client(service) as api:
        yield api


@pytest.fixture
def pool(service: Service, docker_client: docker.DockerClient) -> Pool:
    pool = Pool(service, docker_client)
    pool.until_full()
    return pool


def hits(api: Api) -> float:
    lines = [line for line in api.http.get("/metrics").text.splitlines() if line.startswith("sandbox_pool_hits_total{")]
    return sum(float(line.split()[-1]) for line in lines)


def test_a_session_gets_a_container_with_its_environment_for_good(
    pool: Pool, api: Api, docker_client: docker.DockerClient
) -> None:
    waited, before = pool.containers(), hits(api)
    session, _ = api.launch()
    session_id = session["session_id"]
    assert hits(api) == before + 1
    assert api.exec(session_id, "echo $SANDBOX_PREVIEW_URL; hostname; touch kept")["stdout"].split()[1] == "main"
    assert session_id in api.exec(session_id, "echo $SANDBOX_PREVIEW_URL")["stdout"]
    container = docker_client.containers.get(session["containers"]["main"]["id"])
    assert container.name == f"sbx-{session_id.replace('-', '')}-main"

    container.kill()
    pool.until(lambda: api.get(session_id)["status"] == "error")
    api.http.post(f"/api/v1/sessions/{session_id}/relaunch").raise_for_status()
    list(api.events(session_id))
    after = api.exec(session_id, "echo $SANDBOX_PREVIEW_URL; ls")["stdout"]
    assert session_id in after
    assert "kept" in after

    api.end(session_id)
    names = {one.name for one in docker_client.containers.list(all=True, ignore_removed=True)}
    volumes = {volume.name for volume in docker_client.volumes.list()}
    assert container.name not in names
    assert not (waited - pool.containers()) & volumes


def test_roles_from_the_pool_find_each_other_and_nobody_else(pool: Pool, api: Api) -> None:
    before = hits(api)
    api.upload("pooled", TWO_ROLES)
    session, _ = api.launch(project_id="pooled")
    assert session["status"] == "running"
    assert hits(api) == before + 2
    ask = "python3 -c \"import urllib.request as r; print(r.urlopen('http://backend:8002').status)\""
    assert api.exec(session["session_id"], ask, role="frontend")["stdout"].strip() == "200"
    networks = api.exec(session["session_id"], "ls /sys/class/net | sort | xargs", role="frontend")["stdout"]
    assert len(networks.split()) == 2  # its own network, and the loopback
    api.end(session["session_id"])


@pytest.mark.parametrize("point", ["pool:recorded", "pool:made", "pool:ready", "containers:claimed"])
def test_a_service_that_is_killed_leaves_nothing_half_made(pool: Pool, point: str) -> None:
    service = pool.service
    service.stop()
    service.start(SANDBOX_CRASH_AT=point)
    with client(service) as api:
        session_id = api.create()["session_id"]
    service.wait_dead()
    service.start()
    with client(service) as api:
        list(api.events(session_id))
        assert api.get(session_id)["status"] == "ready"
        assert api.exec(session_id, "echo works")["stdout"] == "works\n"
        pool.until_full()
        assert pool.rows("making") == pool.rows("removing") == set()
        api.end(session_id)
    pool.until_full()


def test_two_replicas_give_no_container_to_two_sessions(pool: Pool, make_service: Callable[..., Service]) -> None:
    second = make_service(pool.service.home, **POOL)
    second.start()
    with client(pool.service) as api, client(second) as other:
        before = hits(api)
        with ThreadPoolExecutor(6) as threads:
            launches = list(threads.map(lambda turn: (api, other)[turn % 2].launch()[0], range(6)))
        assert {session["status"] for session in launches} == {"ready"}
        assert len({session["containers"]["main"]["id"] for session in launches}) == 6
        assert hits(api) + hits(other) >= before + SIZE
        for session in launches:
            api.end(session["session_id"])
    second.stop()
    pool.until_full()
