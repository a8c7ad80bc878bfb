"""Kills the service hundreds of times during launches (`make soak`) and prints the counts.

SOAK_KILLS sets the number of kills, SOAK_SEED the seed of their random times.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable

import docker
import pytest

from tests.acceptance.api import Api
from tests.acceptance.crashed_launches import PROJECT, Viewer, assert_complete, assert_nothing_left, create_with_retries
from tests.acceptance.service import ADMIN_TOKEN, Service

KILLS = int(os.environ.get("SOAK_KILLS", "200"))
SEED = int(os.environ.get("SOAK_SEED", "1"))
SESSIONS_AT_ONCE = 3


@pytest.mark.timeout(0)
def test_nothing_is_lost_over_hundreds_of_kills(
    make_service: Callable[..., Service], docker_client: docker.DockerClient
) -> None:
    chance = random.Random(SEED)
    service = make_service()
    service.start()
    api = Api(service.url, ADMIN_TOKEN)
    api.upload("mortal", PROJECT)
    kills = launches = events = 0
    began = time.monotonic()
    while kills < KILLS:
        sessions = [create_with_retries(api, project_id="mortal") for _ in range(SESSIONS_AT_ONCE)]
        viewers = [Viewer(api, session_id) for session_id in sessions]
        while not all(viewer.ended for viewer in viewers):
            # A kill may also come during the start, because the service claims its runs before it is ready.
            time.sleep(chance.uniform(0, 2))
            service.kill()
            service.spawn()
            kills += 1
        service.wait_ready()
        for session_id, viewer in zip(sessions, viewers, strict=True):
            assert_complete(api, session_id, viewer.finish())
            events += len(viewer.events)
            api.end(session_id)
            assert_nothing_left(docker_client, session_id)
        launches += len(sessions)
        print(f"{kills} kills, {launches} launches, {events} events, {time.monotonic() - began:.0f} s", flush=True)
    api.http.close()
    print(
        f"seed {SEED}: {kills} kills; of {launches} launches 0 lost, of {events} events 0 missing or doubled, 0 leaked"
    )
