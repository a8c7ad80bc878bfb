"""Faults while previews are open in a real browser: the service, the edge, or one of two replicas is killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest
from playwright.async_api import Page, expect

from sandbox.edge.program import find_program
from sandbox.settings import Settings
from tests.acceptance.api import Api
from tests.acceptance.browsers import NETWORK_CHANGED
from tests.acceptance.console import NewPage
from tests.acceptance.previews import page as page_of
from tests.acceptance.previews import preview
from tests.acceptance.service import ADMIN_TOKEN, Service
from tests.acceptance.test_edge import answers, launch
from tests.ports import reserve_port
from tests.waiting import wait_until

#: A page whose second module is held back by the dev server until there is a file `gate`.
GATED_PAGE = {
    "sandbox.toml": """
[frontend]
runtime = "node20"
install = "npm install"
start = "npx vite --host 127.0.0.1 --port 5173 --strictPort"
port = 5173
""",
    "package.json": '{"name": "gated", "private": true, "type": "module", "devDependencies": {"vite": "6.4.6"}}',
    "vite.config.js": """
import { existsSync } from "node:fs";
const gate = { name: "gate", configureServer(server) {
  server.middlewares.use((request, answer, next) => {
    if (!request.url.startsWith("/gated.js")) return next();
    const wait = () => existsSync("gate") ? next() : setTimeout(wait, 20);
    wait();
  });
  server.ws.on("question", (_, client) => client.send("answer"));
} };
export default { plugins: [gate] };
""",
    "index.html": '<!doctype html><h1></h1><p></p><script type="module" src="/gated.js"></script>',
    "gated.js": 'import("/main.js");\n',
    "main.js": """
import { text } from "./text.js";
const show = (text) => { document.querySelector("h1").textContent = text; };
show(text);
import.meta.hot.on("answer", () => { document.querySelector("p").textContent = "connected"; });
import.meta.hot.send("question");
import.meta.hot.accept("./text.js", (module) => show(module.text));
""",
    "text.js": 'export const text = "first";\n',
}


@pytest.fixture
def own(make_service: Callable[..., Service]) -> Service:
    made = make_service()
    made.start()
    return made


def write(client: docker.DockerClient, session: dict[str, Any], path: str, text: str) -> None:
    """Write a file of the project, past the service."""
    container = client.containers.get(session["containers"]["frontend"]["id"])
    command = ["sh", "-c", 'printf %s "$1" > "$0"', path, text]
    code, output = container.exec_run(command, workdir="/workspace")
    assert code == 0, output


async def shown(page: Page, text: str, failures: list[str]) -> None:
    """Wait until the page shows the text. It is loaded again if a change of the machine's network interrupted it."""
    while True:
        try:
            await expect(page.locator("h1")).to_have_text(text)
        except AssertionError:
            if NETWORK_CHANGED not in failures:
                raise
            failures.clear()
            await page.reload()
        else:
            return


def counted(api: Api, session: dict[str, Any]) -> int:
    """The requests of the session's preview in the service's metrics."""
    pattern = rf'^sandbox_preview_requests_total{{code="[0-9]+",session="{session["session_id"]}"}} (\S+)$'
    text = api.http.get("/metrics").raise_for_status().text
    return sum(int(float(count)) for count in re.findall(pattern, text, re.MULTILINE))


async def test_a_page_that_is_loading_and_hot_reload_go_on_without_the_service(
    own: Service, new_page: NewPage, docker_client: docker.DockerClient
) -> None:
    api = Api(own.url, ADMIN_TOKEN)
    api.upload("gated-page", GATED_PAGE)
    session, _ = api.launch(project_id="gated-page")
    assert session["status"] == "running", session
    page, failures, finished = await new_page(), [], []
    page.on("requestfailed", lambda request: failures.append(request.failure))
    page.on("requestfinished", lambda request: finished.append(request.url))
    async with page.expect_request("**/gated.js"):
        await page.goto(session["preview_url"], wait_until="commit")
    own.kill()
    before = len(finished)
    write(docker_client, session, "gate", "")
    await shown(page, "first", failures)
    assert len(finished) > before
    await expect(page.locator("p")).to_have_text("connected")
    await page.evaluate("window.marker = 'as it was'")
    write(docker_client, session, "text.js", 'export const text = "second";\n')
    await shown(page, "second", failures)
    assert api.http.get("/api/v1/sessions").status_code == 503

    modules = len(finished) - before
    own.start()
    # Requests that were made without the service are counted by it later.
    await asyncio.to_thread(wait_until, lambda: counted(api, session) >= modules)

    killed = own.edge().pid()
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    write(docker_client, session, "text.js", 'export const text = "third";\n')
    await shown(page, "third", failures)  # Vite's client connects again, and loads the page again
    api.end(session["session_id"])
    api.http.close()


@pytest.fixture
def balancer(tmp_path: Path) -> Iterator[Callable[[int, list[Service]], None]]:
    """Return a function that starts a load balancer at this port in front of these replicas' edges."""
    started: list[subprocess.Popen[bytes]] = []

    def start(port: int, replicas: list[Service]) -> None:
        proxy = {
            "handler": "reverse_proxy",
            "upstreams": [{"dial": f"127.0.0.1:{each.port}"} for each in replicas],
            "load_balancing": {"selection_policy": {"policy": "first"}, "try_duration": "5s", "try_interval": "100ms"},
            "health_checks": {"active": {"uri": "/readyz", "interval": "200ms", "expect_status": 200}},
        }
        server = {
            "listen": [f"127.0.0.1:{port}"],
            "automatic_https": {"disable": True},
            "routes": [{"handle": [proxy]}],
        }
        configuration = {"admin": {"disabled": True}, "apps": {"http": {"servers": {"balancer": server}}}}
        file = tmp_path / "balancer.json"
        file.write_text(json.dumps(configuration))
        program, _ = find_program(Settings())
        with (tmp_path / "balancer.log").open("wb") as log:
            command = [str(program), "run", "--config", str(file)]
            started.append(subprocess.Popen(command, stdout=log, stderr=log, env={"HOME": str(tmp_path)}))

    yield start
    for process in started:
        process.kill()
        process.wait()


def soon(get: Callable[[], httpx.Response]) -> None:
    """Wait until the answer is 200."""
    wait_until(lambda: answers(get), lambda: get().text)


def assert_any_edge_serves_any_session(replicas: list[Service], session: dict[str, Any]) -> None:
    """Both edges show a session of each replica, to visitors who signed in at either. When the visitor's token is
    revoked at one replica, both edges refuse the visitor."""
    admins = [Api(each.url, ADMIN_TOKEN) for each in replicas]
    issued = admins[0].http.post("/api/v1/tokens", json={"user_id": session["user_id"], "role": "user"}).json()
    visitors = [Api(each.url, issued["token"]) for each in replicas]
    sessions = [session, launch(admins[1])]
    with contextlib.ExitStack() as stack:
        seen = []
        for each in sessions:
            for visitor in visitors:
                browser = stack.enter_context(preview(visitor, visitor.get(each["session_id"])))
                seen += [partial(browser.get, f"{edge.url}/") for edge in replicas]
        assert [get().status_code for get in seen] == [200] * 8
        admins[0].http.delete(f"/api/v1/tokens/{issued['token_id']}").raise_for_status()
        wait_until(lambda: {get().status_code for get in seen} == {404})
    admins[0].end(sessions[1]["session_id"])
    for api in (*admins, *visitors):
        api.http.close()


def test_one_address_before_all_replicas_serves_previews_while_one_is_there(
    make_service: Callable[..., Service], balancer: Callable[[int, list[Service]], None]
) -> None:
    port = reserve_port()
    environment = {"SANDBOX_PUBLIC_PORT": str(port), "SANDBOX_TRUSTED_PROXIES": "127.0.0.1/32"}
    first = make_service(**environment)
    second = make_service(first.home, **environment)
    first.start()
    second.start()
    balancer(port, [first, second])
    api = Api(f"http://127.0.0.1:{port}", ADMIN_TOKEN)
    soon(lambda: api.http.get("/readyz"))
    session = launch(api)
    assert_any_edge_serves_any_session([first, second], session)
    with preview(api, session) as browser:
        page_of(browser)
        first.kill()  # its edge answers 503, which the load balancer reacts to
        soon(lambda: api.http.get("/api/v1/sessions"))
        page_of(browser)
        first.stop_edge()
        page_of(browser)
        first.start()
        second.kill()
        second.stop_edge()
        soon(lambda: browser.get("/"))
        api.end(session["session_id"])
    api.http.close()
