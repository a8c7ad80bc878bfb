"""Everything that the console does beyond following a launch, in a real browser against real containers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import urlsplit

import docker
import pytest
from playwright.async_api import Browser, Page, expect

from tests.acceptance.api import Api
from tests.acceptance.console import LAUNCH_MS, NewPage, new_context, preview, sign_in, status_of, visit
from tests.acceptance.service import ADMIN_TOKEN, Service

APP = {
    "sandbox.toml": """
[web]
runtime = "python312"
start = "echo $GREETING; python3 -u serve.py"
port = 8000
""",
    # Answers with the file as it is now, so that an edited file is seen after a reload.
    "serve.py": """
import http.server
import sys

print("\\x1b[32mgreen\\x1b[0m line of the app", flush=True)
print("10%\\r100% done", file=sys.stderr, flush=True)
http.server.ThreadingHTTPServer(("", 8000), http.server.SimpleHTTPRequestHandler).serve_forever()
""",
    "index.html": "<h1>first</h1>",
}


@pytest.fixture(scope="module")
async def session_id(admin: Api) -> AsyncIterator[str]:
    """A running session of APP."""
    await asyncio.to_thread(admin.upload, "console-app", APP)
    session, _ = await asyncio.to_thread(lambda: admin.launch(project_id="console-app"))
    assert session["status"] == "running", session
    yield session["session_id"]
    await asyncio.to_thread(admin.end, session["session_id"])


@pytest.fixture
async def page(new_page: NewPage, service: Service) -> Page:
    """A page of the console in which the admin is signed in."""
    opened = await new_page()
    await sign_in(opened, service)
    return opened


async def test_a_folder_becomes_a_session(page: Page, admin: Api, tmp_path: Path) -> None:
    folder = tmp_path / "Dropped App"
    (folder / "node_modules").mkdir(parents=True)
    (folder / "node_modules" / "big.js").write_text("x")
    for name, content in APP.items():
        (folder / name).write_text(content)
    (folder / "secret.log").write_text("x")
    (folder / ".gitignore").write_text("*.log\n")

    await page.get_by_role("link", name="New session").first.click()
    await page.get_by_label("Folder", exact=True).set_input_files(folder)
    await expect(page.get_by_label("Start command")).to_have_value("echo $GREETING; python3 -u serve.py")
    await expect(page.locator("main")).to_contain_text("dropped-app: 4 files")
    await page.get_by_label("Start command").fill("echo the plan was edited; echo $GREETING; python3 -u serve.py")
    await page.get_by_role("button", name="Add a variable").click()
    await page.get_by_label("Name of variable 1").fill("GREETING")
    await page.get_by_label("Secret").check()
    value = page.get_by_label("Value of variable 1")
    await value.fill("hello from the form")
    assert await value.get_attribute("type") == "password"
    await page.get_by_role("button", name="Launch", exact=True).click()
    await expect(status_of(page)).to_have_text("running", timeout=LAUNCH_MS)
    await expect(preview(page).locator("h1")).to_have_text("first")
    await page.get_by_role("tab", name="Output").click()
    await expect(page.get_by_role("log")).to_contain_text("the plan was edited")
    await expect(page.get_by_role("log")).to_contain_text("[secret GREETING]")
    await expect(page.get_by_role("log")).not_to_contain_text("hello from the form")

    session_id = urlsplit(page.url).path.split("/")[2]
    files = await asyncio.to_thread(admin.exec, session_id, "ls -A")
    told = await asyncio.to_thread(admin.exec, session_id, "echo $GREETING | rev")
    assert told["stdout"].strip() == "hello from the form"[::-1]
    assert "hello from the form" not in str(await asyncio.to_thread(admin.get, session_id))
    assert {*files["stdout"].split()} >= {"serve.py", ".gitignore"}
    assert "secret.log" not in files["stdout"]
    assert "node_modules" not in files["stdout"]
    await page.get_by_role("button", name="End", exact=True).click()
    await page.get_by_role("dialog").get_by_role("button", name="End", exact=True).click()
    await expect(status_of(page)).to_have_text("terminated", timeout=LAUNCH_MS)


async def test_a_failure_is_explained_and_leads_to_the_line(page: Page, service: Service, admin: Api) -> None:
    broken = {**APP, "serve.py": "import sys\n\n\nraise SystemError('broken on purpose')\n"}
    await asyncio.to_thread(admin.upload, "broken-app", broken)
    session, _ = await asyncio.to_thread(lambda: admin.launch(project_id="broken-app"))
    assert session["status"] == "error"
    await visit(page, f"{service.url}/sessions/{session['session_id']}")
    problem = page.get_by_test_id("problem")
    await expect(problem).to_contain_text(session["error"]["code"])
    await expect(problem).to_contain_text("SystemError: broken on purpose")
    await problem.get_by_role("link", name="Open serve.py, line 4").click()
    editor = page.get_by_role("textbox", name="serve.py")
    await expect(editor.locator(".cm-activeLine")).to_have_text("raise SystemError('broken on purpose')")
    await editor.fill(APP["serve.py"])
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_text("Saved", exact=True)).to_be_visible()

    await problem.get_by_role("link", name="Edit the plan").click()
    await expect(page.get_by_label("Project", exact=True)).to_have_value("broken-app")
    await expect(page.get_by_label("Start command")).to_have_value("echo $GREETING; python3 -u serve.py")
    await asyncio.to_thread(admin.end, session["session_id"])


async def test_the_list_is_live(page: Page, admin: Api) -> None:
    await expect(page.get_by_role("heading", name="Sessions")).to_be_visible()
    session = await asyncio.to_thread(admin.create)
    row = page.get_by_role("row").filter(has_text=session["session_id"][:8])
    await expect(row).to_contain_text("ready", timeout=LAUNCH_MS)
    await page.get_by_label("Search sessions").fill(session["session_id"])
    await page.get_by_label("Choose all").check()
    await page.get_by_role("button", name="End 1 session").click()
    await page.get_by_role("dialog").get_by_role("button", name="End", exact=True).click()
    await expect(row).to_contain_text("terminated", timeout=LAUNCH_MS)


async def test_output_has_colours_and_overwritten_lines(page: Page, service: Service, session_id: str) -> None:
    await visit(page, f"{service.url}/sessions/{session_id}/output")
    log = page.get_by_role("log")
    await expect(log.locator(".ansi-green")).to_have_text("green")
    await expect(log.locator(".stderr").filter(has_text="100% done")).not_to_contain_text("10%\r")
    assert await log.get_attribute("aria-live") == "off"
    await page.get_by_label("Search the log").fill("line of the")
    await expect(log.locator(".log-line")).to_have_count(1)
    await log.locator(".log-time").click()
    linked = page.url
    assert "#a-" in linked
    await page.goto("about:blank")
    await visit(page, linked)
    await expect(log.locator(".log-line[aria-current]")).to_contain_text("green line of the app")


async def test_an_edited_file_is_in_the_preview(page: Page, service: Service, session_id: str) -> None:
    await visit(page, f"{service.url}/sessions/{session_id}/files")
    await page.get_by_role("navigation", name="Files").get_by_role("button", name="index.html").click()
    editor = page.get_by_role("textbox", name="index.html")
    await expect(editor).to_contain_text("first")
    await editor.fill("<h1>edited</h1>")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_text("Saved", exact=True)).to_be_visible()
    await page.get_by_role("button", name="Reload the preview").click()
    await expect(preview(page).locator("h1")).to_have_text("edited")

    await page.get_by_role("button", name="Rename").click()
    await page.get_by_label("New path").fill("pages/other.html")
    await page.get_by_role("button", name="OK").click()
    await page.get_by_role("button", name="pages").click()
    await page.get_by_role("button", name="other.html").click()
    await page.get_by_label("Address in the preview").fill("/pages/other.html")
    await page.get_by_label("Address in the preview").press("Enter")
    await expect(preview(page).locator("h1")).to_have_text("edited")
    await page.get_by_label("Files to upload").set_input_files(
        {"name": "index.html", "mimeType": "text/html", "buffer": b"<h1>uploaded</h1>"}
    )
    await page.get_by_label("Address in the preview").fill("/pages/")
    await page.get_by_label("Address in the preview").press("Enter")
    await expect(preview(page).locator("h1")).to_have_text("uploaded")
    await page.get_by_role("button", name="Remove", exact=True).click()
    await page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    await expect(page.get_by_role("button", name="other.html")).to_be_hidden()


async def test_a_file_that_changes_on_disk_is_noticed(
    page: Page, service: Service, admin: Api, session_id: str
) -> None:
    await asyncio.to_thread(admin.exec, session_id, "echo one > watched.txt")
    await visit(page, f"{service.url}/sessions/{session_id}/files")
    await page.get_by_role("button", name="watched.txt").click()
    editor = page.get_by_role("textbox", name="watched.txt")
    await expect(editor).to_contain_text("one")
    await asyncio.to_thread(admin.exec, session_id, "echo two > watched.txt")
    await expect(editor).to_contain_text("two")
    await editor.fill("mine")
    await asyncio.to_thread(admin.exec, session_id, "echo three > watched.txt")
    await expect(page.get_by_text("The file has changed on disk")).to_be_visible(timeout=30_000)
    await expect(editor).to_contain_text("mine")


async def test_a_terminal(page: Page, service: Service, session_id: str) -> None:
    await visit(page, f"{service.url}/sessions/{session_id}/terminal")
    terminal = page.get_by_test_id("terminal-web")
    await expect(terminal).to_contain_text("$")
    await terminal.locator("textarea").focus()
    await page.keyboard.type("printf '\\033[38;2;1;200;3mco%s\\033[0m\\n' lour\n")
    coloured = terminal.locator(".xterm-rows span").filter(has_text="colour").last
    await expect(coloured).to_have_css("color", "rgb(1, 200, 3)")
    await page.get_by_role("button", name="New terminal").click()
    await expect(page.get_by_role("tab", name="web 2")).to_have_attribute("aria-selected", "true")
    await page.get_by_role("button", name="Close terminal").click()
    await expect(page.get_by_role("tab", name="web 2")).to_be_hidden()


async def test_a_terminal_goes_on_after_the_service_was_killed(
    make_service: Callable[..., Service], new_page: NewPage
) -> None:
    own = make_service()
    await asyncio.to_thread(own.start)
    api = Api(own.url, ADMIN_TOKEN)
    session, _ = await asyncio.to_thread(api.launch)
    page = await new_page()
    await sign_in(page, own)
    await visit(page, f"{own.url}/sessions/{session['session_id']}/terminal")
    terminal = page.get_by_test_id("terminal-main")
    await expect(terminal).to_contain_text("$")
    await terminal.locator("textarea").focus()
    await page.keyboard.type("word=kept; while [ ! -e back ]; do sleep 0.1; done; echo for''eground\n")
    await expect(terminal).to_contain_text("echo for''eground")
    own.kill()
    await expect(terminal).to_contain_text("[disconnected; trying again]")
    await asyncio.to_thread(own.start)
    await expect(terminal).to_contain_text("[connected again]", timeout=60_000)
    await asyncio.to_thread(api.exec, session["session_id"], "touch back")
    await expect(terminal).to_contain_text("foreground")
    await terminal.locator("textarea").focus()
    await page.keyboard.type("echo it is $word\n")
    await expect(terminal).to_contain_text("it is kept")
    await page.reload()
    await expect(terminal).to_contain_text("foreground")
    await expect(terminal).to_contain_text("it is kept")
    api.http.close()


async def test_usage_over_time(page: Page, service: Service, session_id: str) -> None:
    await visit(page, f"{service.url}/sessions/{session_id}/usage")
    await expect(page.get_by_role("img", name="Memory of web")).to_be_visible(timeout=30_000)
    await expect(page.get_by_label("Usage of web")).to_contain_text("MB")


async def test_an_admin_recovers_a_session_whose_container_was_removed(
    page: Page, service: Service, admin: Api, docker_client: docker.DockerClient
) -> None:
    await asyncio.to_thread(admin.upload, "recovered-app", APP)
    session, _ = await asyncio.to_thread(lambda: admin.launch(project_id="recovered-app"))
    container = docker_client.containers.get(session["containers"]["web"]["id"])
    await asyncio.to_thread(lambda: container.remove(force=True))
    await visit(page, f"{service.url}/recovery")
    found = page.locator(f"[data-item='{session['session_id']}']")
    await expect(found).to_be_visible(timeout=LAUNCH_MS)
    await found.get_by_role("checkbox").check()
    await page.get_by_role("button", name="Repair chosen").click()
    await page.get_by_role("dialog").get_by_role("button", name="Repair").click()
    await expect(page.get_by_label("What was done")).to_contain_text("recovered-app")
    await visit(page, f"{service.url}/sessions/{session['session_id']}")
    await expect(status_of(page)).to_have_text("running", timeout=LAUNCH_MS)
    await expect(preview(page).locator("h1")).to_have_text("first")
    await asyncio.to_thread(admin.end, session["session_id"])


async def test_an_alert_is_acknowledged(page: Page, service: Service, admin: Api) -> None:
    alert = {"severity": "warning", "title": "Disk <b>almost</b> full", "message": "92 %", "source": "console-test"}
    assert (await asyncio.to_thread(lambda: admin.http.post("/api/v1/alerts", json=alert))).is_success
    await visit(page, f"{service.url}/platform/alerts")
    row = page.get_by_role("row").filter(has_text="Disk <b>almost</b> full")
    await row.get_by_role("button", name="Acknowledge").click()
    await expect(row).to_contain_text("acknowledged")
    await row.get_by_role("button", name="Resolve").click()
    await expect(row).to_contain_text("resolved")
    rules = page.get_by_label("Alert rules")
    await rules.get_by_role("button", name="Switch off").first.click()
    await rules.get_by_role("button", name="Switch on").click()
    await expect(rules.get_by_role("button", name="Switch on")).to_have_count(0)


async def test_a_user_sees_no_page_of_admins(
    new_page: NewPage, service: Service, make_user: Callable[[], Api], session_id: str
) -> None:
    page = await new_page()
    await sign_in(page, service, make_user().token)
    await expect(page.get_by_text("No sessions yet")).to_be_visible()
    for name in ("Recovery", "Tokens"):
        await expect(page.get_by_role("link", name=name)).to_be_hidden()
    await visit(page, f"{service.url}/recovery")
    await expect(page.get_by_role("heading", name="There is no such page")).to_be_visible()
    await visit(page, f"{service.url}/platform/tokens")
    await expect(page.get_by_text("Only an admin may see this")).to_be_visible()
    await visit(page, f"{service.url}/sessions/{session_id}")
    await expect(page.get_by_role("heading", name="There is no such session")).to_be_visible()


async def test_the_keyboard_reaches_pages_and_search(page: Page) -> None:
    await expect(page.get_by_role("heading", name="Sessions")).to_be_visible()
    await page.keyboard.press("/")
    await expect(page.get_by_label("Search sessions")).to_be_focused()
    await page.keyboard.press("Escape")
    await page.locator("main").focus()
    await page.keyboard.press("Shift+?")
    await expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    await page.keyboard.press("Escape")
    await page.keyboard.press("Control+k")
    await page.get_by_label("Find a page or session").fill("traces")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="Traces")).to_be_visible()


SESSION_PARTS = ("log", "output", "terminal", "files", "usage", "events", "lessons", "details")
PLATFORM = (
    "agents",
    "tests",
    "logs",
    "traces",
    "coverage",
    "alerts",
    "lessons",
    "documents",
    "memory",
    "queries",
    "secrets",
    "tokens",
    "audit",
)
AXE = Path(__file__).parents[2] / "console" / "node_modules" / "axe-core" / "axe.min.js"


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_page_is_accessible_and_keeps_to_its_policy(
    browser: Browser, service: Service, session_id: str, scheme: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    context = await new_context(browser, color_scheme=scheme)
    page = await context.new_page()
    refused: list[str] = []
    page.on("console", lambda message: refused.append(message.text) if "Security Policy" in message.text else None)
    page.on("pageerror", lambda error: refused.append(str(error)))
    await sign_in(page, service)
    screenshots = tmp_path_factory.getbasetemp() / "screenshots"
    paths = ["/", "/new", "/recovery", *(f"/sessions/{session_id}/{part}" for part in SESSION_PARTS)]
    # Only colours differ between the two.
    rules = ", runOnly: ['color-contrast']" if scheme == "dark" else ""
    faults = []
    for path in [*paths, *(f"/platform/{part}" for part in PLATFORM)]:
        await visit(page, service.url + path)
        await expect(page.get_by_role("heading", level=1)).to_be_visible()
        await expect(page.get_by_role("status", name="Loading")).to_have_count(0)
        await page.evaluate(AXE.read_text("utf-8"))
        found = await page.evaluate(f"axe.run(document, {{ iframes: false, resultTypes: ['violations']{rules} }})")
        faults += [
            (path, fault["id"], fault["nodes"][0]["html"][:200])
            for fault in found["violations"]
            if fault["impact"] in ("serious", "critical")
        ]
        name = path.replace(session_id, "session").strip("/").replace("/", "-") or "sessions"
        await page.screenshot(path=screenshots / f"{name}-{scheme}.png")
    assert faults == []
    assert refused == []
    await context.close()
