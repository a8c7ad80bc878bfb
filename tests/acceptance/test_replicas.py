"""Several replicas on one database and engine: what one leaves undone, by death or by freezing, another does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest

from tests.acceptance.api import Api
from tests.acceptance.launches import PROJECT, Viewer, assert_nothing_left, assert_whole
from tests.acceptance.service import ADMIN_TOKEN, Service

Replicas = tuple[Service, Service]


@pytest.fixture(scope="module")
def home(make_service: Callable[..., Service]) -> Path:
    """The data folder of these tests' deployment."""
    return make_service().home


@pytest.fixture
def make_replicas(make_service: Callable[..., Service], home: Path) -> Iterator[Callable[[int], Replicas]]:
    """Two replicas of one deployment with this lease, in seconds."""
    made: list[Service] = []

    def make(lease: int) -> Replicas:
        first = make_service(home, SANDBOX_REPLICA_LEASE_SECONDS=str(lease))
        first.start()
        second = make_service(home, SANDBOX_REPLICA_LEASE_SECONDS=str(lease))
        second.start()
        made.extend((first, second))
        return first, second

    yield make
    for service in made:
        service.stop()


def launch_on(first: Service, second: Service) -> tuple[str, Viewer]:
    """A launch that the first replica works on, watched at the second; returns in the middle of its install."""
    api = Api(first.url, ADMIN_TOKEN)
    api.upload("mortal", PROJECT)
    second.freeze()
    session_id = api.create(project_id="mortal")["session_id"]
    # Its first event of a stage shows that it has taken the launch.
    next(event for event in api.events(session_id) if event.event == "stage")
    second.thaw()
    api.http.close()
    viewer = Viewer(Api(second.url, ADMIN_TOKEN), session_id)
    viewer.wait_for("tick 2")
    return session_id, viewer


def test_a_killed_replicas_launch_goes_on_elsewhere_long_before_its_lease_ends(
    make_replicas: Callable[[int], Replicas], docker_client: docker.DockerClient
) -> None:
    first, second = make_replicas(3600)
    session_id, viewer = launch_on(first, second)
    first.kill()
    api = Api(second.url, ADMIN_TOKEN)
    assert_whole(api, session_id, viewer.finish())
    api.end(session_id)
    assert_nothing_left(docker_client, session_id)
    api.http.close()


def test_a_frozen_replicas_launch_goes_on_elsewhere_and_it_writes_nothing_when_it_wakes(
    make_replicas: Callable[[int], Replicas], docker_client: docker.DockerClient
) -> None:
    first, second = make_replicas(3)
    session_id, viewer = launch_on(first, second)
    first.freeze()
    seen = viewer.finish()
    first.thaw()
    first.wait_ready()
    deadline = time.monotonic() + 30
    while "not this replica's any more" not in first.log.read_text():
        assert time.monotonic() < deadline, first.tail()
        time.sleep(0.05)
    for service in (first, second):
        api = Api(service.url, ADMIN_TOKEN)
        assert_whole(api, session_id, seen)
        api.http.close()
    api = Api(first.url, ADMIN_TOKEN)
    api.end(session_id)
    assert_nothing_left(docker_client, session_id)
    api.http.close()


def test_any_replica_serves_any_session(
    make_replicas: Callable[[int], Replicas], docker_client: docker.DockerClient
) -> None:
    first, second = (Api(service.url, ADMIN_TOKEN) for service in make_replicas(15))
    session, seen = first.launch()
    session_id = session["session_id"]
    assert [event.data for event in second.events(session_id, last_event_id=0)] == [event.data for event in seen]
    assert second.exec(session_id, "echo here")["stdout"] == "here\n"
    second.end(session_id)
    assert first.get(session_id)["status"] == "terminated"
    assert_nothing_left(docker_client, session_id)
    first.http.close()
    second.http.close()
