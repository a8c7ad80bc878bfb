"""Compares the time from POST to `ready` of a blank session with the container engine alone: create and start.

With the pool, one after another and eight at once; then with the pool empty. Each is measured alternately with its
reference in the same run.
"""

from __future__ import annotations

import shutil
import tempfile
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import docker

from tests.acceptance.api import Api
from tests.acceptance.service import ADMIN_TOKEN, Service
from tests.bench.measure import p50, p95, print_durations, print_ratio

IN_A_ROW = 20
AT_ONCE = 8
ROUNDS = 2
RUNTIME = "python312"
#: The runtimes that have an image; of each, that many containers wait.
RUNTIMES = 2
POOL = {"SANDBOX_POOL_MIN": str(IN_A_ROW), "SANDBOX_POOL_MAX": str(IN_A_ROW), "SANDBOX_LOG_LEVEL": "WARNING"}


def main() -> None:
    home = Path(tempfile.mkdtemp(prefix="sbx-bench-"))
    home.chmod(0o711)
    service = Service(home, env={"SANDBOX_MAX_SESSIONS_PER_USER": "500", "SANDBOX_LAUNCHES_PER_USER": str(AT_ONCE)})
    bench = Bench(service)
    try:
        service.start(**POOL)
        bench.measure("pool, one after another", IN_A_ROW, 1, ("p50 under 0.25", "p95 under 0.5"))
        bench.measure("pool, eight at once", AT_ONCE, AT_ONCE, ("p50 under 0.25", "p95 under 0.5"))
        bench.clear()
        service.stop()
        service.start(SANDBOX_POOL_MAX="0", SANDBOX_LOG_LEVEL="WARNING")
        bench.measure("no pool, one after another", IN_A_ROW, 1, ("p50 under 1.3", "for comparison"))
        bench.measure("no pool, eight at once", AT_ONCE, AT_ONCE, ("for comparison", "for comparison"))
    finally:
        bench.clear()
        # Without a pool, what waits is removed.
        service.stop()
        service.start(SANDBOX_POOL_MAX="0")
        bench.until_waiting(0)
        bench.close()
        service.stop()
        service.stop_edge()
        service.stop_database()
        shutil.rmtree(home, ignore_errors=True)


class Bench:
    """Sessions of one service, and containers of the engine itself."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._engine = docker.APIClient()
        self._containers: list[str] = []
        self._sessions: list[str] = []
        self._image = ""
        self._clients: SimpleQueue[Api] = SimpleQueue()

    def launch(self) -> None:
        """Make a blank session and wait until it is ready."""
        api = self._clients.get_nowait()
        session_id = api.create(runtime_type=RUNTIME)["session_id"]
        for event in api.events(session_id):
            last = event
        assert last.data["status"] == "ready", last
        self._sessions.append(session_id)
        self._clients.put(api)

    def raw(self) -> None:
        """Create and start a container of the same image."""
        name = f"bench-{uuid.uuid4().hex}"
        made = self._engine.create_container(self._image, name=name, labels={"sandbox.bench": "1"})
        self._containers.append(made["Id"])
        self._engine.start(made["Id"])

    def repeat(self, times: int, call: Callable[[], None], at_once: int = 1) -> list[float]:
        """Call this many times, as many at once, and return the durations in seconds."""

        def timed(_turn: int) -> float:
            start = time.perf_counter()
            call()
            return time.perf_counter() - start

        with ThreadPoolExecutor(at_once) as threads:
            return list(threads.map(timed, range(times)))

    def measure(self, what: str, times: int, at_once: int, wanted: tuple[str, str]) -> None:
        launches: list[float] = []
        raw: list[float] = []
        # A new client takes 20 ms to read the certificates that this machine trusts.
        for _ in range(at_once):
            self._clients.put(Api(self._service.url, ADMIN_TOKEN))
        self._find_image()
        for _ in range(ROUNDS):
            self.clear()
            if what.startswith("pool"):
                self.until_waiting(RUNTIMES * IN_A_ROW)
            launches += self.repeat(times, self.launch, at_once)
            self.clear()
            raw += self.repeat(times, self.raw, at_once)
        self.clear()
        while not self._clients.empty():
            self._clients.get_nowait().http.close()
        launches.sort()
        raw.sort()
        print_durations(f"POST to ready, {what}", launches)
        print_durations("docker create + start", raw)
        print_ratio("p50 / p50", p50(launches) / p50(raw), wanted[0])
        print_ratio("p95 / p95", p95(launches) / p95(raw), wanted[1])

    def until_waiting(self, count: int) -> None:
        """Wait until this many containers of the pool are ready."""
        api = Api(self._service.url, ADMIN_TOKEN)
        deadline = time.monotonic() + 300
        while True:
            metrics = api.http.get("/metrics").text.splitlines()
            series = 'sandbox_pool_containers{state="ready"} '
            ready = sum(float(line.split()[-1]) for line in metrics if line.startswith(series))
            if ready == count:
                break
            assert time.monotonic() < deadline, ready
            time.sleep(0.5)
        api.http.close()

    def clear(self) -> None:
        """Remove all sessions and containers, and let the engine come to rest."""
        api = Api(self._service.url, ADMIN_TOKEN)
        while self._sessions:
            api.end(self._sessions.pop())
        api.http.close()
        while self._containers:
            self._engine.remove_container(self._containers.pop(), force=True)
        time.sleep(1)

    def close(self) -> None:
        self._engine.close()

    def _find_image(self) -> None:
        """The image of sessions, from one of them."""
        if not self._image:
            if not self._sessions:
                self.launch()
            api = Api(self._service.url, ADMIN_TOKEN)
            container = api.get(self._sessions[-1])["containers"]["main"]["id"]
            self._image = self._engine.inspect_container(container)["Config"]["Image"]
            api.http.close()
