"""A launch that ran out of memory is launched again with more, from the console."""

from __future__ import annotations

import asyncio

from playwright.async_api import expect

from tests.acceptance.api import Api
from tests.acceptance.console import LAUNCH_MS, NewPage, sign_in, status_of, visit
from tests.acceptance.service import Service

APP = {
    "sandbox.toml": '[web]\nruntime = "python312"\nstart = "python3 -u serve.py"\nport = 8000\n',
    "serve.py": """
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

needed = bytearray(160 * 1024 * 1024)
ThreadingHTTPServer(("0.0.0.0", 8000), SimpleHTTPRequestHandler).serve_forever()
""",
}


async def test_out_of_memory_leads_to_a_relaunch_with_more(new_page: NewPage, service: Service, admin: Api) -> None:
    await asyncio.to_thread(admin.upload, "hungry", APP)
    session, _ = await asyncio.to_thread(lambda: admin.launch(project_id="hungry", memory_mb=128))
    assert session["error"]["code"] == "out_of_memory"
    page = await new_page()
    await sign_in(page, service)
    await visit(page, f"{service.url}/sessions/{session['session_id']}")
    await page.get_by_role("button", name="Relaunch with 256 MiB").click()
    await expect(status_of(page)).to_have_text("running", timeout=LAUNCH_MS)
    again = await asyncio.to_thread(admin.get, session["session_id"])
    assert (again["memory_mb"], again["memory_max_mb"]) == (256, 4096)
    await asyncio.to_thread(admin.end, session["session_id"])
