"""Several replicas with one database and engine: when one is killed or hangs, another continues its work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest

from tests.acceptance.api import Api
from tests.acceptance.crashed_launches import PROJECT, Viewer, assert_complete, assert_nothing_left
from tests.acceptance.service import ADMIN_TOKEN, Service
from tests.waiting import wait_until

Replicas = tuple[Service, Service]


@pytest.fixture(scope="module")
def home(make_service: Callable[..., Service]) -> Path:
    """The data folder of the deployment of this module."""
    return make_service().home


@pytest.fixture
def make_replicas(make_service: Callable[..., Service], home: Path) -> Iterator[Callable[[int], Replicas]]:
    """Return a function that starts two replicas of one deployment with this lease in seconds."""
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
    """Start a launch on the first replica, followed by a viewer at the second. Return during its install."""
    api = Api(first.url, ADMIN_TOKEN)
    api.upload("mortal", PROJECT)
    second.freeze()
    session_id = api.create(project_id="mortal")["session_id"]
    # The first event of a stage shows that this replica has claimed the launch.
    next(event for event in api.events(session_id) if event.event == "stage")
    second.thaw()
    api.http.close()
    viewer = Viewer(Api(second.url, ADMIN_TOKEN), session_id)
    viewer.wait_for("tick 2")
    return session_id, viewer


def test_the_launch_of_a_killed_replica_is_taken_over_before_its_lease_ends(
    make_replicas: Callable[[int], Replicas], docker_client: docker.DockerClient
) -> None:
    first, second = make_replicas(3600)
    session_id, viewer = launch_on(first, second)
    first.kill()
    api = Api(second.url, ADMIN_TOKEN)
    assert_complete(api, session_id, viewer.finish())
    api.end(session_id)
    assert_nothing_left(docker_client, session_id)
    api.http.close()


def test_the_launch_of_a_hung_replica_is_taken_over_and_it_writes_nothing_afterwards(
    make_replicas: Callable[[int], Replicas], docker_client: docker.DockerClient
) -> None:
    first, second = make_replicas(3)
    session_id, viewer = launch_on(first, second)
    first.freeze()
    events = viewer.finish()
    first.thaw()
    first.wait_ready()
    wait_until(lambda: "does not own the launch of session" in first.log.read_text(), first.tail)
    for service in (first, second):
        api = Api(service.url, ADMIN_TOKEN)
        assert_complete(api, session_id, events)
        api.http.close()
    api = Api(first.url, ADMIN_TOKEN)
    api.end(session_id)
    assert_nothing_left(docker_client, session_id)
    api.http.close()


def test_any_replica_serves_any_session(
    make_replicas: Callable[[int], Replicas], docker_client: docker.DockerClient
) -> None:
    first, second = (Api(service.url, ADMIN_TOKEN) for service in make_replicas(15))
    session, events = first.launch()
    session_id = session["session_id"]
    assert [event.data for event in second.events(session_id, last_event_id=0)] == [event.data for event in events]
    assert second.exec(session_id, "echo here")["stdout"] == "here\n"
    second.end(session_id)
    assert first.get(session_id)["status"] == "terminated"
    assert_nothing_left(docker_client, session_id)
    first.http.close()
    second.http.close()
