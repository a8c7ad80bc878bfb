"""Compares previews through the edge with the app's own address, the API through the edge with its socket, and both
with and without clients that hold connections.

One client, one app and one run for all; the sides alternate, so that other load of the machine affects them alike.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import docker

from tests.acceptance.api import Api
from tests.acceptance.previews import page, preview
from tests.acceptance.service import ADMIN_TOKEN, Service
from tests.acceptance.test_edge_bounds import HALF_BODY, HALF_HEAD, HALF_SENT, IDLE, MIB, connections, memory
from tests.bench import load
from tests.bench.measure import p50, p99, print_durations, print_ratio

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
        direct = _direct(engine, session["containers"]["frontend"]["id"])
        through, grant = _preview(api, session, service)
        targets: Mapping[str, Target] = {"preview": through, "direct": direct}
        for count in (8, 1):
            _compare(targets, count, "preview / direct", "0.5 or more")
        # The guest agent's relay alone: the socket of the visitor's grant, without the edge.
        _compare({"relay": (grant, direct[1]), "direct": direct}, 8, "relay / direct", "(comparison)")
        request = load.get("/api/v1/sessions?limit=1", Host="localhost", Authorization=f"Bearer {ADMIN_TOKEN}")
        edge = ("127.0.0.1", service.port)
        socket_path = service.edge().folder.path / "service.sock"
        _compare({"edge": (edge, request), "socket": (socket_path, request)}, 1, "API: edge / socket", "(comparison)")
        _hold(service, {"API": (edge, request), "preview": through})
    finally:
        if session is not None:
            api.end(session["session_id"])
        api.http.close()
        engine.close()
        service.stop()
        service.stop_edge()
        service.stop_database()
        shutil.rmtree(home, ignore_errors=True)


def _preview(api: Api, session: dict[str, str], service: Service) -> tuple[Target, Path]:
    """The preview through the edge, and the socket of the visitor's grant."""
    with preview(api, session) as browser:
        page(browser)  # signs in, and makes the grant's socket
        host = urlsplit(session["preview_url"]).netloc
        ((name, value),) = browser.cookies.items()
        grant = service.edge().folder.path / "grants" / session["session_id"][-12:] / f"{value}.sock"
        return (("127.0.0.1", service.port), load.get("/", Host=host, Cookie=f"{name}={value}")), grant


def _direct(engine: docker.APIClient, container: str) -> Target:
    networks = engine.inspect_container(container)["NetworkSettings"]["Networks"]
    address = next(each["IPAddress"] for each in networks.values() if each["IPAddress"])
    return (address, PORT), load.get("/", Host=f"localhost:{PORT}")


def _hold(service: Service, targets: Mapping[str, Target]) -> None:
    """Measure the targets while clients without a token hold connections, and without them."""
    durations: dict[tuple[str, bool], list[float]] = {(name, held): [] for name in targets for held in (True, False)}
    before, grown = memory(service), 0
    for _ in range(ROUNDS):
        for held in (True, False):
            with contextlib.ExitStack() as stack:
                if held:
                    stack.enter_context(connections(service, IDLE))
                    stack.enter_context(connections(service, HALF_SENT // 2, HALF_BODY))
                    stack.enter_context(connections(service, HALF_SENT // 2, HALF_HEAD))
                for name, (address, request) in targets.items():
                    measured = load.run(address, request, connections=1, seconds=SECONDS / 2)
                    durations[name, held] += measured.durations
                grown = max(grown, memory(service) - before)
    print(
        f"  {IDLE} idle and {HALF_SENT} half-sent connections: {grown / MIB:.0f} MiB more (wanted: below 100)",
        flush=True,
    )
    for name in targets:
        with_them, without = (p99(sorted(durations[name, held])) for held in (True, False))
        print_ratio(f"{name}: p99 with them / without", with_them / without, "below 2")


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
