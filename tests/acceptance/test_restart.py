"""The service is killed during launches: the same run continues and ends as it would have without the kill."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator

import docker
import pytest

from sandbox.domain.stages import PROJECT_STAGES
from tests.acceptance.api import Api
from tests.acceptance.crashed_launches import (
    PROJECT,
    ROLES,
    TICKS,
    Viewer,
    assert_complete,
    assert_nothing_left,
    create_with_retries,
)
from tests.acceptance.service import ADMIN_TOKEN, Service
from tests.waiting import wait_until

#: Every named crash point of a launch, in order. Each stage is started with the checkpoint of the one before it.
POINTS = [
    "plan:before-start",
    *(f"{stage}:{point}" for stage in PROJECT_STAGES for point in ("before-act", "after-act", "after-checkpoint")),
    "end:before-checkpoint",
    "end:after-checkpoint",
]


@pytest.fixture(scope="module")
def mortal(make_service: Callable[..., Service]) -> Iterator[Service]:
    """A service of this module, which tests may kill and must leave running."""
    service = make_service()
    service.start()
    yield service
    service.stop()


@pytest.fixture(scope="module")
def api(mortal: Service) -> Iterator[Api]:
    api = Api(mortal.url, ADMIN_TOKEN)
    api.upload("mortal", PROJECT)
    yield api
    api.http.close()


def test_one_launch_is_killed_at_every_crash_point(
    mortal: Service, api: Api, docker_client: docker.DockerClient
) -> None:
    mortal.stop()
    mortal.start(SANDBOX_CRASH_AT=POINTS[0])
    session_id = api.create(project_id="mortal")["session_id"]
    viewer = Viewer(api, session_id)
    died = []
    for following in [*POINTS[1:], None]:
        assert mortal.wait_dead() == -signal.SIGKILL, mortal.tail()
        died.append(following)
        if following:
            mortal.spawn(SANDBOX_CRASH_AT=following)
    assert len(died) == len(POINTS)
    mortal.start()
    assert_complete(api, session_id, viewer.finish())
    api.end(session_id)
    assert_nothing_left(docker_client, session_id)


#: The project, whose installs wait after the second tick until there is a file `go`.
HELD = PROJECT | {
    "sandbox.toml": PROJECT["sandbox.toml"].replace(
        "sleep 0.1;", "test $i -ne 2 || until test -e go; do sleep 0.1; done;"
    )
}


def test_an_install_continues_while_the_service_is_down(
    mortal: Service, api: Api, docker_client: docker.DockerClient
) -> None:
    api.upload("held", HELD)
    session_id = api.create(project_id="held")["session_id"]
    viewer = Viewer(api, session_id)

    def held() -> set[str]:
        lines = [event.data for event in list(viewer.events) if event.event == "log"]
        return {data["role"] for data in lines if data["line"] == "tick 2"}

    wait_until(lambda: held() == set(ROLES))
    mortal.kill()
    containers = docker_client.containers.list(filters={"label": f"sandbox.session_id={session_id}"})
    for container in containers:
        assert container.exec_run(["touch", "/workspace/go"]).exit_code == 0

    def ticks() -> set[bytes]:
        return {container.exec_run("tail -n 1 /workspace/ticks").output.strip() for container in containers}

    wait_until(lambda: ticks() == {str(TICKS).encode()})
    mortal.start()
    assert_complete(api, session_id, viewer.finish())
    api.end(session_id)
    assert_nothing_left(docker_client, session_id)


def test_kills_at_random_times(mortal: Service, api: Api, docker_client: docker.DockerClient) -> None:
    chance = random.Random(3)
    sessions = [create_with_retries(api, project_id="mortal") for _ in range(2)]
    viewers = [Viewer(api, session_id) for session_id in sessions]
    for _ in range(4):
        time.sleep(chance.uniform(0, 1.5))
        mortal.kill()
        mortal.start()
    for session_id, viewer in zip(sessions, viewers, strict=True):
        assert_complete(api, session_id, viewer.finish())
        api.end(session_id)
        assert_nothing_left(docker_client, session_id)


def test_an_interrupted_termination_is_finished(mortal: Service, api: Api, docker_client: docker.DockerClient) -> None:
    session_id = api.create()["session_id"]
    Viewer(api, session_id).finish()
    assert api.http.delete(f"/api/v1/sessions/{session_id}").status_code == 202
    mortal.kill()
    mortal.start()
    wait_until(lambda: api.get(session_id)["status"] == "terminated")
    assert_nothing_left(docker_client, session_id)


def test_a_create_repeated_after_a_crash_makes_one_session(mortal: Service, api: Api) -> None:
    first = create_with_retries(api, key="once")
    mortal.kill()
    mortal.start()
    assert create_with_retries(api, key="once") == first
    Viewer(api, first).finish()
    api.end(first)
