"""`sandbox down`: sandboxes go on running and are counted, or are terminated first with `--sandboxes`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import docker
import httpx
import pytest

from tests.acceptance.api import Api
from tests.acceptance.crashed_launches import assert_nothing_left
from tests.acceptance.service import ADMIN_TOKEN, Service


def down(service: Service, *options: str) -> dict[str, Any]:
    done = service.command("down", "--json", *options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def networks(client: docker.DockerClient, deployment_id: str) -> list[Any]:
    return client.networks.list(filters={"label": f"sandbox.deployment_id={deployment_id}"})


def test_down_leaves_sandboxes_running_unless_it_is_asked_to_end_them(
    make_service: Callable[..., Service], docker_client: docker.DockerClient
) -> None:
    service = make_service(quick=False)
    service.start()
    api = Api(service.url, ADMIN_TOKEN)
    session, _ = api.launch()
    session_id = session["session_id"]
    (container,) = docker_client.containers.list(filters={"label": f"sandbox.session_id={session_id}"})
    deployment_id = container.labels["sandbox.deployment_id"]

    stopped = service.command("down")
    assert stopped.returncode == 0
    assert "1 sandbox left running" in stopped.stderr
    with pytest.raises(httpx.TransportError):
        api.http.get("/healthz")
    container.reload()
    assert container.status == "running"
    refused = service.command("down", "--sandboxes")
    assert refused.returncode == 1
    assert "not_running" in refused.stderr
    assert down(service) == {"stopped": [], "sandboxes": None}

    service.stop()
    service.start()
    assert api.exec(session_id, "echo still here")["stdout"] == "still here\n"
    assert networks(docker_client, deployment_id)
    assert down(service, "--sandboxes")["sandboxes"] == 0
    assert_nothing_left(docker_client, session_id)
    assert networks(docker_client, deployment_id) == []
    service.stop()
    api.http.close()
