"""docker-compose.yml publishes the edge on loopback only, and gives its services no more rights than they need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

FILE = Path(__file__).resolve().parents[3] / "docker-compose.yml"


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return yaml.safe_load(FILE.read_text())["services"]


def test_only_the_edge_is_published_and_on_loopback_only(services: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert set(published) == {"edge"}
    assert all(port.startswith("127.0.0.1:") for port in published["edge"])


def test_only_the_service_has_the_engine_socket(services: dict[str, Any]) -> None:
    holders = [name for name, s in services.items() if any("docker.sock" in str(v) for v in s.get("volumes", []))]
    assert holders == ["service"]


@pytest.mark.parametrize(("name", "capabilities"), [("service", None), ("edge", ["NET_BIND_SERVICE"])])
def test_service_and_edge_have_few_rights(services: dict[str, Any], name: str, capabilities: list[str] | None) -> None:
    assert services[name]["cap_drop"] == ["ALL"]
    assert services[name].get("cap_add") == capabilities
    assert services[name]["security_opt"] == ["no-new-privileges:true"]
    assert services[name]["read_only"] is True
    assert "privileged" not in services[name]


def test_the_edge_has_nothing_but_its_folder(services: dict[str, Any]) -> None:
    folder = f"{services['service']['environment']['SANDBOX_HOME']}/edge-8000"
    assert services["edge"]["volumes"] == [f"{folder}:{folder}"]
    assert services["edge"]["working_dir"] == folder


def test_the_data_folder_has_the_same_path_inside_and_outside_the_container(services: dict[str, Any]) -> None:
    home = services["service"]["environment"]["SANDBOX_HOME"]
    assert f"{home}:{home}" in services["service"]["volumes"]


def test_the_password_comes_from_the_environment(services: dict[str, Any]) -> None:
    assert services["database"]["environment"]["POSTGRES_PASSWORD"].startswith("${POSTGRES_PASSWORD:?")


def test_the_service_is_installed_from_the_lock(services: dict[str, Any]) -> None:
    steps = services["service"]["build"]["dockerfile_inline"]
    assert "uv sync --frozen --no-dev --no-editable" in steps
    assert steps.startswith("FROM python:3.12-slim-bookworm\n")
