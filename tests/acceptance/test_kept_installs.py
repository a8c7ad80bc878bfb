"""Dependencies of an earlier launch on the real engine: the copy is what an install gives; the cache is shown and
cleared."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from sandbox.client import Cache, ClientConfig, Sandbox
from sandbox.domain.events import EventType
from tests.acceptance.api import Api
from tests.acceptance.service import ADMIN_TOKEN, Service

MANIFEST = """
[backend]
runtime = "python312"
install = "uv venv .venv && pip install --no-index --quiet -r requirements.txt"
start = ".venv/bin/python -u -m http.server 8000"
port = 8000
"""
#: Everything of a tree but its owner: path, type, mode, target of a link, size, seconds of the change.
LISTING = "find . -path ./.sandbox -prune -o -printf '%p %y %m %l %s %Ts\\n' | grep -v '^. d' | sort"


@pytest.fixture(scope="module")
def service(make_service: Callable[..., Service]) -> Iterator[Service]:
    service = make_service(SANDBOX_INSTALLS_MB="512")
    service.start()
    yield service
    service.stop()


@pytest.fixture(scope="module")
def admin(service: Service) -> Iterator[Api]:
    api = Api(service.url, ADMIN_TOKEN)
    yield api
    api.http.close()


@pytest.fixture(scope="module")
def config(service: Service) -> ClientConfig:
    return ClientConfig(service.url, ADMIN_TOKEN)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("kept")
    (made / "sandbox.toml").write_text(MANIFEST)
    (made / "requirements.txt").write_text(f"# {made}\n")
    (made / "page.html").write_text("1")
    return made


@pytest.fixture(scope="module")
def launches(config: ClientConfig, project: Path, admin: Api) -> Iterator[list[tuple[Sandbox, list[str]]]]:
    """Launches of the project, the second with another page, the third with other requirements, and what each did with
    its dependencies."""
    made = []
    for file, content in (("page.html", "1"), ("page.html", "2"), ("requirements.txt", "# others\n")):
        (project / file).write_text(content)
        results: list[str] = []
        sandbox = Sandbox.create(project, config=config, wait=False)
        for event in sandbox.events():
            if event.type is EventType.LOG and "install" in event.data:
                results.append(event.data["install"]["cache"])
        made.append((sandbox, results))
    yield made
    for sandbox, _ in made:
        admin.end(sandbox.session_id)
        sandbox.close()


def test_the_second_launch_gets_a_copy_of_what_the_first_one_installed(
    launches: list[tuple[Sandbox, list[str]]],
) -> None:
    (first, missed), (second, hit), (_, missed_again) = launches
    assert (missed, hit, missed_again) == (["miss"], ["hit"], ["miss"])
    assert second.commands.run(".venv/bin/python -c 'import sys; print(sys.prefix)'").stdout == "/workspace/.venv\n"
    assert second.commands.run(f"{LISTING} | grep .venv").stdout == first.commands.run(f"{LISTING} | grep .venv").stdout
    assert second.files.read("page.html") == "2"
    # The copy is the session's own: it may change it, and no one else sees that.
    assert second.commands.run("echo changed > .venv/pyvenv.cfg").ok
    assert "changed" not in first.files.read(".venv/pyvenv.cfg")


def test_the_cache_is_listed_and_cleared_by_its_owner(
    launches: list[tuple[Sandbox, list[str]]], config: ClientConfig, service: Service, admin: Api
) -> None:
    project_id = launches[0][0].info.project_id
    found = [entry for entry in Cache(config=config).list() if entry.project_id == project_id]
    kept, _ = (entry for entry in found if entry.kind == "install")
    assert (kept.role, kept.runtime) == ("backend", "python312")
    made = admin.http.post("/api/v1/tokens", json={"user_id": "cache-user", "role": "user"}).json()
    other = ClientConfig(service.url, made["token"])
    assert Cache(config=other).list() == []
    assert Cache(config=other).clear() == 0
    listed = json.loads(service.command("cache", "list", "--json").stdout)
    assert kept.key in [item["key"] for item in listed["items"]]
    assert listed["limit_bytes"] > listed["size_bytes"] > 0
    page = admin.http.get("/api/v1/cache", params={"limit": 1}).json()
    following = admin.http.get("/api/v1/cache", params={"limit": 500, "cursor": page["next_cursor"]}).json()
    assert page["items"][0]["key"] not in [item["key"] for item in following["items"]]
    cleared = service.command("cache", "clear")
    assert cleared.stdout.startswith("removed ")
    assert Cache(config=config).list() == []


def test_the_cache_needs_a_token(service: Service) -> None:
    assert httpx.get(f"{service.url}/api/v1/cache", trust_env=False).status_code == 401
