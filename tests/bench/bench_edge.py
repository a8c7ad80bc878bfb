"""Compares previews through the edge with the app's own address, and the API through the edge with its socket.

One client, one app and one run for all; the sides alternate, so that other load of the machine affects them alike.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import docker

from tests.acceptance.api import Api
from tests.acceptance.previews import page, preview
from tests.acceptance.service import ADMIN_TOKEN, Service
from tests.bench import load
from tests.bench.measure import p50, print_durations, print_ratio

ROUNDS = 3
SECONDS = 3.0
PORT = 3000
#: Answers 2 KB to every request.
APP = """
const body = "x".repeat(2048);
require("node:http").createServer((request, answer) => {
  answer.writeHead(200, { "Content-Type": "text/plain", "Content-Length": body.length });
  answer.end(body);
}).listen(process.env.PORT, "0.0.0.0");
"""
PROJECT = {
    "sandbox.toml": f'[frontend]\nruntime = "node20"\nstart = "exec node app.js"\nport = {PORT}\n',
    "package.json": '{"name": "bench-edge", "private": true}',
    "app.js": APP,
}
Target = tuple[load.Address, bytes]


def main() -> None:
    home = Path(tempfile.mkdtemp(prefix="sbx-bench-"))
    home.chmod(0o711)
    service = Service(home, env={"SANDBOX_LOG_LEVEL": "WARNING"})
    service.start()
    api, engine = Api(service.url, ADMIN_TOKEN), docker.APIClient()
    session = None
    try:
        api.upload("bench-edge", PROJECT)
        session, _ = api.launch(project_id="bench-edge")
        assert session["status"] == "running", session
        targets: Mapping[str, Target] = {
            "preview": _preview(api, session, service),
            "direct": _direct(engine, session["containers"]["frontend"]["id"]),
        }
        for connections in (8, 1):
            _compare(targets, connections, "preview / direct", "0.5 or more")
        request = load.get("/api/v1/sessions?limit=1", Host="localhost", Authorization=f"Bearer {ADMIN_TOKEN}")
        edge = ("127.0.0.1", service.port)
        socket_path = service.edge().folder.path / "service.sock"
        _compare({"edge": (edge, request), "socket": (socket_path, request)}, 1, "API: edge / socket", "(comparison)")
    finally:
        if session is not None:
            api.end(session["session_id"])
        api.http.close()
        engine.close()
        service.stop()
        service.stop_edge()
        service.stop_database()
        shutil.rmtree(home, ignore_errors=True)


def _preview(api: Api, session: dict[str, str], service: Service) -> Target:
    with preview(api, session) as browser:
        page(browser)  # signs in, and makes the grant's socket
        host = urlsplit(session["preview_url"]).netloc
        cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
        return ("127.0.0.1", service.port), load.get("/", Host=host, Cookie=cookies)


def _direct(engine: docker.APIClient, container: str) -> Target:
    networks = engine.inspect_container(container)["NetworkSettings"]["Networks"]
    address = next(each["IPAddress"] for each in networks.values() if each["IPAddress"])
    return (address, PORT), load.get("/", Host=f"localhost:{PORT}")


def _compare(targets: Mapping[str, Target], connections: int, what: str, wanted: str) -> None:
    """Measure both targets; the ratio is that of the first to the second."""
    rates: dict[str, list[float]] = {name: [] for name in targets}
    durations: dict[str, list[float]] = {name: [] for name in targets}
    for address, request in targets.values():
        load.run(address, request, connections=connections, seconds=1)  # opens connections and fills caches
    for _ in range(ROUNDS):
        for name, (address, request) in targets.items():
            measured = load.run(address, request, connections=connections, seconds=SECONDS)
            rates[name].append(measured.per_second)
            durations[name] += measured.durations
    for name in targets:
        rate = sorted(rates[name])[ROUNDS // 2]
        print_durations(f"{name}, {connections} connections: {rate:,.0f} requests/s", sorted(durations[name]))
    one, other = (sorted(rates[name])[ROUNDS // 2] for name in targets)
    print_ratio(f"{what}, {connections} connections", one / other, wanted)
    one, other = (p50(sorted(durations[name])) for name in targets)
    print(f"  {'added to each request':<44} p50 {(one - other) * 1000:8.2f} ms", flush=True)
