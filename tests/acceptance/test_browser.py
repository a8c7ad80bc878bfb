"""The console and previews in a real browser: following a launch, hot reload, restarts, and access of strangers."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Locator, Page, expect

from tests.acceptance.api import Api
from tests.acceptance.console import LAUNCH_MS, NewPage, new_context, preview, sign_in_by_link, status_of, visit
from tests.acceptance.service import ADMIN_TOKEN, Service

STAGES = ["plan", "network", "containers", "workspace", "dependencies", "services", "health", "preview"]

#: Each of the two servers listens on a single loopback address of its container.
HOT = {
    "sandbox.toml": """
[frontend]
runtime = "node20"
root = "frontend"
install = "npm install"
start = "npx vite --host ::1 --port 5173 --strictPort"
port = 5173
health = "/"

[backend]
runtime = "python312"
root = "backend"
start = "python3 -m http.server 8000 --bind 127.0.0.1"
port = 8000
health = "/"
""",
    "frontend/package.json": '{"name": "hot", "private": true, "type": "module", "devDependencies": {"vite": "6.4.6"}}',
    # Vite may report the connection before the page listens for it.
    "frontend/vite.config.js": """
const answering = { name: "answering", configureServer(server) {
  server.ws.on("question", (_, client) => client.send("answer"));
} };
export default { plugins: [answering] };
""",
    "frontend/index.html": '<!doctype html><h1></h1><p></p><script type="module" src="/main.js"></script>',
    "frontend/main.js": """
import { text } from "./text.js";
const show = (text) => { document.querySelector("h1").textContent = text; };
show(text);
import.meta.hot.on("answer", () => { document.querySelector("p").textContent = "connected"; });
import.meta.hot.send("question");
import.meta.hot.accept("./text.js", (module) => show(module.text));
""",
    "frontend/text.js": 'export const text = "first";\n',
    "backend/index.html": "<h1>from 127.0.0.1</h1>",
}

#: Its installation prints a line and then waits until the test writes a file.
GATED = {
    "sandbox.toml": """
[backend]
runtime = "python312"
install = "echo waiting for the gate; until [ -e gate ]; do sleep 0.1; done; echo through the gate"
start = "python3 -m http.server 8000"
port = 8000
health = "/"
""",
    "index.html": "<h1>after the gate</h1>",
}

#: A script that records every change of state of the stages in the list.
NOTE_STATES = """
window.states = [];
new MutationObserver((changes) => {
  for (const { target } of changes) window.states.push([target.dataset.stage, target.dataset.state]);
}).observe(document, { subtree: true, attributeFilter: ["data-state"] });
"""


@dataclass
class Watched:
    """A launch and the states that the console showed."""

    session_id: str
    states: list[list[str]]
    log: str


async def _launch_in_console(page: Page, service: Service, project_id: str) -> str:
    await sign_in_by_link(page, service)
    await page.get_by_role("link", name="New session").first.click()
    await page.get_by_role("tab", name="Existing project").click()
    project = page.get_by_label("Project", exact=True)
    await expect(project.locator(f"option[value={project_id}]")).to_be_attached()
    await project.select_option(project_id)
    await page.get_by_role("button", name="Launch", exact=True).click()
    await expect(_stage(page, "plan")).to_have_attribute("data-state", "completed", timeout=LAUNCH_MS)
    return urlsplit(page.url).path.split("/")[2]


def _stage(page: Page, name: str) -> Locator:
    return page.locator(f"[data-stage={name}]")


async def _running(page: Page) -> None:
    """Wait until the launch has ended, and check that it succeeded."""
    await expect(status_of(page)).not_to_have_text("creating", timeout=LAUNCH_MS)
    assert await status_of(page).inner_text() == "running", await page.locator("main").inner_text()


@pytest.fixture(scope="module")
async def watched(browser: Browser, service: Service, admin: Api) -> AsyncIterator[Watched]:
    """The project HOT, launched in the console and followed there."""
    await asyncio.to_thread(admin.upload, "hot", HOT)
    context = await new_context(browser)
    page = await context.new_page()
    await page.add_init_script(NOTE_STATES)
    session_id = await _launch_in_console(page, service, "hot")
    await _running(page)
    await expect(_stage(page, "preview")).to_have_attribute("data-state", "completed")
    yield Watched(session_id, await page.evaluate("window.states"), await _whole_log(page))
    await context.close()
    await asyncio.to_thread(admin.end, session_id)


async def test_the_console_shows_every_stage_as_it_happens(watched: Watched) -> None:
    # Changes that arrive together are shown together, so a short state may be left out. None is shown in another order.
    shown = [tuple(state) for state in watched.states if state[0]]
    order = [(stage, state) for stage in STAGES for state in ("started", "completed")]
    assert shown == [state for state in order if state in shown]
    assert {("dependencies", "started"), ("dependencies", "completed"), ("health", "started")} <= {*shown}
    assert "$ npm install" in watched.log
    assert "added" in watched.log


async def test_preview_in_the_console_and_in_another_tab(watched: Watched, service: Service, new_page: NewPage) -> None:
    page = await new_page()
    await sign_in_by_link(page, service)
    assert "code" not in page.url
    await page.get_by_role("link", name="hot").first.click()
    await expect(preview(page).locator("h1")).to_have_text("first")

    async with page.expect_popup() as opening:
        await page.get_by_role("link", name="Open in a new tab").click()
    tab = await opening.value
    await expect(tab.locator("h1")).to_have_text("first")
    assert tab.url == f"http://{watched.session_id}.preview.localhost:{service.port}/"
    answer = await tab.reload()
    assert answer is not None
    assert answer.status == 200
    address = await answer.server_addr()
    assert address is not None
    assert ipaddress.ip_address(address["ipAddress"].strip("[]")).is_loopback


async def test_a_changed_file_reaches_the_page_without_a_reload(
    watched: Watched, service: Service, admin: Api, new_page: NewPage
) -> None:
    console = await new_page()
    await sign_in_by_link(console, service)
    await visit(console, f"{service.url}/sessions/{watched.session_id}")
    tab = await new_page()
    await visit(tab, admin.get(watched.session_id)["preview_url"])
    shown = [tab.locator("body"), preview(console).locator("body")]
    for body in shown:
        await expect(body.locator("p")).to_have_text("connected")
        await body.evaluate("() => { window.marker = 'as it was'; }")

    files_path = f"/api/v1/sessions/{watched.session_id}/files"
    params = {"path": "frontend/text.js", "role": "frontend"}
    try:
        assert admin.http.put(files_path, params=params, content='export const text = "second";\n').is_success
        for body in shown:
            await expect(body.locator("h1")).to_have_text("second")
            assert await body.evaluate("() => window.marker") == "as it was"
    finally:
        admin.http.put(files_path, params=params, content=HOT["frontend/text.js"])


async def test_previews_of_servers_that_listen_on_one_loopback_address(
    watched: Watched, service: Service, admin: Api
) -> None:
    listening = {
        role: admin.exec(watched.session_id, "cat /proc/net/tcp /proc/net/tcp6", role=role)["stdout"]
        for role in ("frontend", "backend")
    }
    assert f"{'0' * 24}01000000:{5173:04X} " in listening["frontend"]
    assert f" 0100007F:{8000:04X} " in listening["backend"]
    assert f"00000000:{8000:04X} " not in listening["backend"]
    assert f"{'0' * 32}:{5173:04X} " not in listening["frontend"]
    for host, text in ((watched.session_id, "/main.js"), (f"8000-{watched.session_id}", "from 127.0.0.1")):
        answer = admin.http.get("/", headers={"Host": f"{host}.preview.localhost:{service.port}"})
        assert answer.status_code == 200
        assert text in answer.text


async def test_a_preview_is_not_found_without_a_valid_link(
    watched: Watched, service: Service, admin: Api, new_page: NewPage
) -> None:
    page = await new_page()
    there = f"http://{watched.session_id}.preview.localhost:{service.port}"
    nowhere = f"http://{'0' * 8}-0000-4000-8000-{'0' * 12}.preview.localhost:{service.port}"
    signed = admin.get(watched.session_id)["preview_url"]
    for address in (f"{there}/", f"{there}/text.js", f"{signed[:-4]}AAAA", f"{nowhere}/", f"{nowhere}/?x={signed}"):
        answer = await visit(page, address)
        assert answer.status == 404, address
        assert "first" not in await page.content()


async def test_a_wrong_token_leads_to_the_login_form(service: Service, new_page: NewPage) -> None:
    page = await new_page()
    answer = await visit(page, f"{service.url}/sign-in?code=mistyped")
    assert answer.status == 401
    await expect(page.get_by_role("alert")).to_contain_text("This link has been used already")
    await page.get_by_label("Access token").fill("mistyped again")
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("alert")).to_contain_text("This token is not known here")

    await page.get_by_label("Access token").fill(ADMIN_TOKEN)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("heading", name="Sessions")).to_be_visible()
    assert page.url == f"{service.url}/"
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_label("Access token")).to_be_visible()


async def test_following_a_launch_goes_on_across_a_restart_of_the_service(
    make_service: Callable[..., Service],
    new_page: NewPage,
) -> None:
    own = make_service()
    await asyncio.to_thread(own.start)
    api = Api(own.url, ADMIN_TOKEN)
    await asyncio.to_thread(api.upload, "gated", GATED)
    watching, reloading = await new_page(), await new_page()
    await watching.add_init_script(NOTE_STATES)
    session_id = await _launch_in_console(watching, own, "gated")
    await sign_in_by_link(reloading, own)
    await visit(reloading, f"{own.url}/sessions/{session_id}")
    for page in (watching, reloading):
        await expect(_printed(page, "waiting for the gate")).to_be_visible(timeout=LAUNCH_MS)

    own.kill()
    await expect(watching.get_by_role("status").first).to_contain_text("does not answer")
    await asyncio.to_thread(own.start)
    await reloading.reload()
    await expect(_stage(reloading, "workspace")).to_have_attribute("data-state", "completed")
    await expect(_stage(reloading, "dependencies")).to_have_attribute("data-state", "started")
    await expect(_stage(reloading, "services")).not_to_have_attribute("data-state", "started")
    gate = {"path": "gate"}
    answer = await asyncio.to_thread(api.http.put, f"/api/v1/sessions/{session_id}/files", params=gate)
    assert answer.is_success, answer.text
    api.http.close()

    for page in (watching, reloading):
        await _running(page)
        await expect(preview(page).locator("h1")).to_have_text("after the gate")
        await expect(_printed(page, "waiting for the gate")).to_have_count(1)
        await expect(_printed(page, "through the gate")).to_have_count(1)
        for stage in STAGES:
            ended = "skipped" if stage == "network" else "completed"
            await expect(_stage(page, stage)).to_have_attribute("data-state", ended)
    states = [tuple(state) for state in await watching.evaluate("window.states") if state[0]]
    assert states == list(dict.fromkeys(states)), "a state was shown twice"


async def test_an_app_that_exits_is_shown_and_recovered(service: Service, admin: Api, new_page: NewPage) -> None:
    start = 'start = "echo $$ > pid; exec python3 -m http.server 8000"'
    files = {"sandbox.toml": f'[backend]\nruntime = "python312"\n{start}\nport = 8000\n', "index.html": "<h1>up</h1>"}
    await asyncio.to_thread(admin.upload, "ends-later", files)
    page = await new_page()
    session_id = await _launch_in_console(page, service, "ends-later")
    await _running(page)
    await expect(page.get_by_test_id("problem")).to_be_hidden()
    killed = await asyncio.to_thread(admin.exec, session_id, "kill -9 $(cat pid)")
    assert killed["exit_code"] == 0, killed

    problem = page.get_by_test_id("problem")
    await expect(status_of(page)).to_have_text("error", timeout=LAUNCH_MS)
    await expect(problem.locator("code")).to_have_text("app_exited")
    await expect(problem).to_contain_text("was killed by signal 9 after")
    await expect(problem).to_contain_text(f"sandbox recover {session_id[:8]}")
    await expect(page.locator("iframe")).to_be_hidden()
    await page.get_by_role("tab", name="Details").click()
    await expect(page.get_by_label("Containers")).to_contain_text("running, its app exited with 137")
    await page.get_by_role("button", name="Recover").click()
    await expect(status_of(page)).to_have_text("running", timeout=LAUNCH_MS)
    await expect(preview(page).locator("h1")).to_have_text("up")
    await expect(problem).to_be_hidden()
    await asyncio.to_thread(admin.end, session_id)


def _printed(page: Page, line: str) -> Locator:
    """Locate a line that the project printed in the launch log, not the command that contains the same text."""
    return page.get_by_role("log").locator(".log-line.stdout").filter(has_text=line)


async def _whole_log(page: Page) -> str:
    """The launch log as it is downloaded; the page itself has only the rows that can be seen."""
    async with page.expect_download() as started:
        await page.get_by_role("link", name="Download").click()
    return Path(await (await started.value).path()).read_text("utf-8")
