"""What the console shows of an app that runs and of which a visitor would notice something."""

from __future__ import annotations

import asyncio

from playwright.async_api import expect

from tests.acceptance.api import Api
from tests.acceptance.console import NewPage, sign_in, visit
from tests.acceptance.service import Service

#: It has no page at `/`, and forbids frames.
APP = {
    "sandbox.toml": '[backend]\nruntime = "python312"\nstart = "python3 -u serve.py"\nport = 8000\n',
    "serve.py": """
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"<h1>out of order</h1>"
        self.send_response(500)
        self.send_header("X-Frame-Options", "DENY")
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
""",
}


async def test_warnings_and_a_forbidden_frame_are_explained(new_page: NewPage, service: Service, admin: Api) -> None:
    await asyncio.to_thread(admin.upload, "out-of-order", APP)
    session, _ = await asyncio.to_thread(lambda: admin.launch(project_id="out-of-order"))
    assert session["status"] == "running"
    page = await new_page()
    await sign_in(page, service)
    await visit(page, f"{service.url}/sessions/{session['session_id']}")
    await expect(page.get_by_test_id("warning")).to_contain_text("server_error")
    await expect(page.get_by_label("Preview", exact=True)).to_contain_text("X-Frame-Options: DENY")
    await expect(page.locator("iframe")).to_have_count(0)
    link = await page.get_by_role("link", name="Open in a new tab").get_attribute("href")
    tab = await new_page()
    await visit(tab, link or "")
    await expect(tab.locator("h1")).to_have_text("out of order")
    await asyncio.to_thread(admin.end, session["session_id"])


FAULTY = {
    "sandbox.toml": '[web]\nruntime = "python312"\nstart = "python3 -u serve.py"\nport = 8000\n',
    "serve.py": """
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PAGE = b'''<h1>faulty</h1><script>
addEventListener("error", (event) => parent.postMessage({ type: "sandbox-error", message: event.message }, "*"));
fetch("/missing?token=hidden").then(() => nothing.of.that.name);
addEventListener("unhandledrejection", ({ reason }) =>
  parent.postMessage({ type: "sandbox-error", message: `<b>${reason}</b>` }, "*"));
</script>'''


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        is_page = self.path.partition("?")[0] == "/"
        if not is_page:
            print("ERROR no such page: <i>", self.path, flush=True)
        self.send_response(200 if is_page else 404)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(PAGE if is_page else b"nothing here")


ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
""",
}


async def test_errors_of_the_previewed_page_are_beside_it(new_page: NewPage, service: Service, admin: Api) -> None:
    await asyncio.to_thread(admin.upload, "faulty", FAULTY)
    session, _ = await asyncio.to_thread(lambda: admin.launch(project_id="faulty"))
    assert session["status"] == "running"
    page = await new_page()
    await sign_in(page, service)
    await visit(page, f"{service.url}/sessions/{session['session_id']}")
    errors = page.get_by_role("list", name="Errors of the preview")
    await expect(errors).to_contain_text("page: <b>ReferenceError: nothing is not defined</b>")
    await expect(errors).to_contain_text("404 GET /missing")
    await expect(errors).not_to_contain_text("404 GET /missing?")
    await expect(errors).to_contain_text("ERROR no such page: <i>")
    await asyncio.to_thread(admin.end, session["session_id"])
