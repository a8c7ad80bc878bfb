"""The web console in a browser: size of the first load, time to a usable page, frames in a burst, memory of the tab.

The references are the same tab at rest: the frames without output, and the memory with a thousand lines.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import CDPSession, Page, sync_playwright

from scripts.console import FIRST_LOAD_LIMIT, first_load
from tests.acceptance.api import Api
from tests.acceptance.browsers import FLAGS, program
from tests.acceptance.service import ADMIN_TOKEN, Service
from tests.bench.measure import p50, p95, print_durations, print_ratio

OPENINGS = 10
BURST_LINES = 40_000
MOST_LINES = 1_000_000
WAIT_MS = 120_000
FRAMES_SECONDS = 3
#: Prints as many lines as a request asks for, as fast as it can.
APP = """
import http.server
import sys

printed = 0


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def do_POST(self):
        global printed
        last = printed + int(self.path[1:])
        sys.stdout.write("".join(f"{number:08} a line\\n" for number in range(printed, last)))
        sys.stdout.flush()
        printed = last
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass  # nothing besides the lines


http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"""
PROJECT = {
    "sandbox.toml": '[web]\nruntime = "python312"\nstart = "exec python3 -u app.py"\nport = 8000\n',
    "app.py": APP,
}
#: Collects the times between frames, in milliseconds, until it is stopped.
FRAMES = """
(seconds) => new Promise((resolve) => {
  const times = [];
  let last = performance.now();
  const end = last + seconds * 1000;
  function frame(now) {
    times.push(now - last);
    last = now;
    if (now < end) requestAnimationFrame(frame);
    else resolve(times);
  }
  requestAnimationFrame(frame);
})
"""


def main() -> None:
    home = Path(tempfile.mkdtemp(prefix="sbx-bench-"))
    home.chmod(0o711)
    service = Service(home, env={"SANDBOX_LOG_LEVEL": "WARNING"})
    service.start()
    api = Api(service.url, ADMIN_TOKEN)
    session_id = ""
    try:
        api.upload("bench-console", PROJECT)
        session, _ = api.launch(project_id="bench-console")
        assert session["status"] == "running", session
        session_id = session["session_id"]
        print_ratio("first load, compressed kB / limit", first_load() / FIRST_LOAD_LIMIT, "below 1")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=program(), args=FLAGS)
            page = browser.new_page()
            page.set_default_timeout(WAIT_MS)
            page.goto(f"{service.url}/?token={ADMIN_TOKEN}")
            _measure_opening(page, session_id)
            _measure_output(page, api, service, session_id)
            browser.close()
    finally:
        if session_id:
            api.end(session_id)
        api.http.close()
        service.stop()
        service.stop_edge()
        service.stop_database()
        shutil.rmtree(home, ignore_errors=True)


def _measure_opening(page: Page, session_id: str) -> None:
    """From the click on a session in the list until its log and its stages are there."""
    taken = []
    for _ in range(OPENINGS):
        page.get_by_role("link", name="Sessions", exact=True).first.click()
        link = page.locator(f"a[href='/sessions/{session_id}']").first
        link.wait_for()
        started = time.perf_counter()
        link.click()
        page.locator("[data-stage='preview'][data-state='completed']").wait_for()
        page.get_by_role("log").locator(".log-line").first.wait_for()
        taken.append(time.perf_counter() - started)
    print_durations("click to usable session page", sorted(taken))


def _measure_output(page: Page, api: Api, service: Service, session_id: str) -> None:
    page.goto(f"{service.url}/sessions/{session_id}/output")
    page.get_by_role("log").wait_for()
    tab = page.context.new_cdp_session(page)
    tab.send("Performance.enable")
    _print_lines(api, session_id, 1_000)
    _await_line(page, 999)
    at_rest, small = _frames(page), _heap(tab)
    _print_lines(api, session_id, BURST_LINES)
    in_burst = _frames(page)
    _await_line(page, 1_000 + BURST_LINES - 1)
    print_ratio("frame p95 during 40,000 lines / at rest", p95(in_burst) / p95(at_rest), "below 4")
    print(f"  frames in ms: p50 {p50(in_burst):.0f}, p95 {p95(in_burst):.0f}, longest {in_burst[-1]:.0f}", flush=True)
    while (printed := _printed(api, session_id)) < MOST_LINES:
        _print_lines(api, session_id, min(100_000, MOST_LINES - printed))
    _await_line(page, MOST_LINES - 1)
    large = _heap(tab)
    print_ratio("memory at 1,000,000 lines / at 1,000", large / small, "below 4")
    print(f"  memory of the tab at 1,000,000 lines: {large / 1e6:.0f} MB", flush=True)


def _print_lines(api: Api, session_id: str, count: int) -> None:
    command = f"curl -sS -X POST http://127.0.0.1:8000/{count}"
    done = api.exec(session_id, command, timeout_seconds=60)
    assert done["exit_code"] == 0, done


def _printed(api: Api, session_id: str) -> int:
    """The number of lines so far, from the last of them."""
    page: dict[str, Any] = api.http.get(f"/api/v1/sessions/{session_id}/lines?source=output&limit=1").json()
    return int(page["items"][-1]["text"].split()[0]) + 1


def _await_line(page: Page, number: int) -> None:
    page.get_by_role("log").get_by_text(f"{number:08} a line").wait_for()


def _frames(page: Page) -> list[float]:
    """The times between frames, the shortest first."""
    return sorted(page.evaluate(FRAMES, FRAMES_SECONDS))


def _heap(tab: CDPSession) -> float:
    tab.send("HeapProfiler.collectGarbage")
    metrics = {each["name"]: each["value"] for each in tab.send("Performance.getMetrics")["metrics"]}
    return float(metrics["JSHeapUsedSize"])
