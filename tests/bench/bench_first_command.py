"""Measures POST to the end of the first command of a blank session, in the three ways of computesdk's benchmarks.

Sessions are made one after another, one every 200 ms, and all at once. The share that worked is a result as well.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import httpx

from tests.acceptance.api import Api
from tests.bench.bench_sessions import RUNTIMES
from tests.bench.measure import p99, print_durations, print_ratio
from tests.bench.service import launching_service

SESSIONS = 20
STAGGER_SECONDS = 0.2


def main() -> None:
    env = {"SANDBOX_POOL_MIN": str(SESSIONS), "SANDBOX_POOL_MAX": str(SESSIONS), "SANDBOX_LOG_LEVEL": "WARNING"}
    with launching_service(SANDBOX_LAUNCHES_PER_USER=str(SESSIONS), **env) as api:
        for what, at_once, pause in (
            ("one after another", 1, 0.0),
            ("every 200 ms", SESSIONS, STAGGER_SECONDS),
            ("all at once", SESSIONS, 0.0),
        ):
            _until_full(api)
            _measure(api, what, at_once, pause)


def _measure(api: Api, what: str, at_once: int, pause: float) -> None:
    apis: SimpleQueue[Api] = SimpleQueue()
    for _ in range(at_once):
        apis.put(Api(api.url, api.token))
    made: SimpleQueue[str] = SimpleQueue()
    begin = time.perf_counter()

    def first_command(number: int) -> float | None:
        time.sleep(max(0.0, begin + number * pause - time.perf_counter()))
        one = apis.get()
        try:
            return _first_command(one, made)
        except (AssertionError, httpx.HTTPError) as error:
            print(f"  failed: {error}", flush=True)
            return None
        finally:
            apis.put(one)

    with ThreadPoolExecutor(at_once) as threads:
        found = list(threads.map(first_command, range(SESSIONS)))
    durations = sorted(seconds for seconds in found if seconds is not None)
    print_ratio(f"share that worked, {what}", len(durations) / SESSIONS, "1")
    if durations:
        print_durations(f"POST to the first command's end, {what}", durations)
        print_ratio("p99, ms", p99(durations) * 1000, "(for comparison)")
    while not made.empty():
        api.end(made.get())
    while not apis.empty():
        apis.get().http.close()


def _first_command(api: Api, made: SimpleQueue[str]) -> float:
    began = time.perf_counter()
    session_id = api.create(runtime_type="python312")["session_id"]
    made.put(session_id)
    *_, last = api.events(session_id)
    assert last.data["status"] == "ready", last
    result = api.exec(session_id, ["echo", "hello"])
    assert result["stdout"] == "hello\n", result
    return time.perf_counter() - began


def _until_full(api: Api) -> None:
    """Wait until the pool has what it is to have of the runtime."""
    series = 'sandbox_pool_containers{state="ready"} '
    deadline = time.monotonic() + 300
    while True:
        metrics = api.http.get("/metrics").text.splitlines()
        if sum(float(line.split()[-1]) for line in metrics if line.startswith(series)) >= RUNTIMES * SESSIONS:
            return
        assert time.monotonic() < deadline, "the pool is not full after 300 s"
        time.sleep(0.5)
