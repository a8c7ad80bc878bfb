"""An edge that the service does not start: a container of its own, run as docker-compose.yml says."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
import yaml
from docker.models.containers import Container

from sandbox.edge.folder import EdgeFolder
from sandbox.edge.program import find_program
from sandbox.settings import Settings
from tests.acceptance.api import Api
from tests.acceptance.previews import page, preview
from tests.acceptance.service import ADMIN_TOKEN, Service
from tests.acceptance.test_edge import answers, cookie_of, is_open, launch, open_websocket
from tests.waiting import wait_until

COMPOSE = yaml.safe_load((Path(__file__).resolve().parents[2] / "docker-compose.yml").read_text())["services"]
IN_COMPOSE = "/var/lib/purple8-sandbox/edge-8000"


@pytest.fixture(scope="module")
def own(make_service: Callable[..., Service]) -> Service:
    environment = COMPOSE["service"]["environment"]
    names = ("SANDBOX_EDGE", "SANDBOX_HOST")
    return make_service(**{name: environment[name] for name in names})


def folder_of(service: Service) -> EdgeFolder:
    return EdgeFolder.of(Settings(home=service.home, port=service.port))


@pytest.fixture(scope="module")
def edge(own: Service, docker_client: docker.DockerClient) -> Iterator[Container]:
    """The edge's container, not started. Its image is one that is here, with Caddy's program put in."""
    path, entry = str(folder_of(own).path), COMPOSE["edge"]
    program, _ = find_program(Settings())
    image = docker_client.images.list(name="purple8/python312")[0]
    made = docker_client.containers.create(
        image,
        entrypoint=entry["command"],
        working_dir=entry["working_dir"].replace(IN_COMPOSE, path),
        environment={name: value.replace(IN_COMPOSE, path) for name, value in entry["environment"].items()},
        volumes=[
            *(volume.replace(IN_COMPOSE, path) for volume in entry["volumes"]),
            f"{program.resolve()}:/usr/bin/caddy:ro",
        ],
        ports={f"{own.port}/tcp": ("127.0.0.1", own.port)},
        cap_drop=entry["cap_drop"],
        cap_add=entry["cap_add"],
        security_opt=entry["security_opt"],
        read_only=entry["read_only"],
        tmpfs=dict.fromkeys(entry["tmpfs"], ""),
        user="root",  # as in the official image
    )
    yield made
    made.remove(force=True)


@pytest.fixture(scope="module")
def api(own: Service, edge: Container) -> Iterator[Api]:
    """A service that was started before its edge."""
    own.spawn()
    wait_until(lambda: own.log.exists() and "No edge answers" in own.log.read_text())
    edge.start()
    own.wait_ready()
    made = Api(own.url, ADMIN_TOKEN)
    yield made
    made.http.close()


@pytest.fixture(scope="module")
def session(api: Api) -> Iterator[dict[str, Any]]:
    made = launch(api)
    yield made
    api.end(made["session_id"])


def test_the_service_passes_its_own_checks(own: Service, api: Api) -> None:
    found = own.command("doctor")
    assert f"an external one at {folder_of(own).path}" in found.stdout + found.stderr


async def test_previews_outlive_the_service(own: Service, api: Api, session: dict[str, Any]) -> None:
    with preview(api, session) as browser:
        page(browser)
        websocket = await open_websocket(api, session, cookie_of(browser))
        assert await websocket.recv() == "hello"
        own.kill()
        page(browser)
        assert api.http.get("/api/v1/sessions").status_code == 503
        own.start()
        page(browser)
        assert await is_open(websocket)
        await websocket.close()


def test_an_edge_that_was_killed_continues_with_what_it_had(
    own: Service, api: Api, edge: Container, session: dict[str, Any]
) -> None:
    with preview(api, session) as browser:
        page(browser)
        own.kill()
        edge.kill()
        edge.start()
        wait_until(lambda: answers(lambda: browser.get("/")), edge.logs)
        own.start()


def test_an_edge_that_lost_everything_is_given_it_again(
    own: Service, api: Api, edge: Container, session: dict[str, Any]
) -> None:
    with preview(api, session) as browser:
        page(browser)
        edge.kill()
        shutil.rmtree(folder_of(own).path / "caddy")
        shutil.rmtree(folder_of(own).path / "grants" / session["session_id"][-12:])
        edge.start()
        wait_until(lambda: answers(lambda: browser.get("/")), edge.logs)
