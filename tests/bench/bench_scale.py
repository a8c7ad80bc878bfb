"""Measures one service with more and more blank sessions: how long requests take, and memory and idle processor time.

SESSIONS="10 50 100 200" are the numbers of live sessions at which it measures.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

import psutil

from tests.acceptance.api import Api
from tests.bench.measure import p50
from tests.bench.service import observed_service

T = TypeVar("T")

STEPS = [int(number) for number in os.environ.get("SESSIONS", "10 50 100 200").split()]
AT_ONCE = 4
TIMES = 20
IDLE_SECONDS = 20.0
SETTLE_SECONDS = 5.0
MIB = 1024 * 1024
COLUMNS = ("sessions", "create ms", "list ms", "exec ms", "recover ms", "service MiB", "agent MiB", "idle % of a core")
WIDTHS = [len(column) for column in COLUMNS]


def main() -> None:
    """Print a row for each number of sessions. The first is at rest, the last after all sessions have ended."""
    _print(COLUMNS)
    with observed_service(SANDBOX_LAUNCHES_PER_USER=str(AT_ONCE), SANDBOX_LOG_LEVEL="WARNING") as (api, process):
        _print((0, *[""] * 4, *_rest(process)))
        sessions: list[str] = []
        for count in STEPS:
            created = _create(api, count - len(sessions))
            sessions += [session_id for session_id, _ in created]
            durations = [p50(sorted(seconds for _, seconds in created)), *_requests(api, sessions)]
            _print((count, *[f"{seconds * 1000:.1f}" for seconds in durations], *_rest(process)))
        _parallel(api, lambda one, number: one.end(sessions[number]), len(sessions))
        _print((0, *[""] * 4, *_rest(process)))


def _print(row: tuple[object, ...]) -> None:
    print("  " + "   ".join(f"{value!s:>{width}}" for value, width in zip(row, WIDTHS, strict=True)), flush=True)


def _parallel(api: Api, call: Callable[[Api, int], T], times: int) -> list[T]:
    """Call for each number, AT_ONCE at a time, each with a connection of its own."""
    apis: SimpleQueue[Api] = SimpleQueue()
    for _ in range(AT_ONCE):
        apis.put(Api(api.url, api.token))

    def with_api(number: int) -> T:
        one = apis.get()
        try:
            return call(one, number)
        finally:
            apis.put(one)

    with ThreadPoolExecutor(AT_ONCE) as threads:
        return list(threads.map(with_api, range(times)))


def _create(api: Api, count: int) -> list[tuple[str, float]]:
    """Make blank sessions. Their ids, and the seconds until each was ready."""

    def create(one: Api, _number: int) -> tuple[str, float]:
        began = time.perf_counter()
        session, _ = one.launch()
        assert session["status"] == "ready", session
        return session["session_id"], time.perf_counter() - began

    return _parallel(api, create, count)


def _requests(api: Api, sessions: list[str]) -> list[float]:
    """The p50 in seconds of a list of all sessions, a command in one of them, and the comparison with the engine."""

    def run(number: int) -> None:
        result = api.exec(sessions[number * len(sessions) // TIMES], ["true"])
        assert result["exit_code"] == 0, result

    def compare(_number: int) -> None:
        api.http.get("/api/v1/admin/recovery").raise_for_status()

    def read(_number: int) -> None:
        api.http.get("/api/v1/sessions", params={"limit": 500}).raise_for_status()

    return [_time(read), _time(run), _time(compare)]


def _time(call: Callable[[int], None]) -> float:
    call(0)
    durations = []
    for number in range(TIMES):
        began = time.perf_counter()
        call(number)
        durations.append(time.perf_counter() - began)
    return p50(sorted(durations))


def _rest(process: psutil.Process) -> tuple[str, str, str]:
    """Memory of the service and of a guest agent in MiB, and the service's use of a core while nothing is requested."""
    time.sleep(SETTLE_SECONDS)
    before, began = _processor_seconds(process), time.perf_counter()
    time.sleep(IDLE_SECONDS)
    share = (_processor_seconds(process) - before) / (time.perf_counter() - began)
    agents = _agents()
    memory = f"{sum(agents) / len(agents):.1f}" if agents else ""
    return f"{process.memory_info().rss / MIB:.0f}", memory, f"{share * 100:.1f}"


def _processor_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _agents() -> list[float]:
    """The memory of each guest agent on this machine with its launcher, counting shared pages by share."""
    found: dict[int, float] = {}
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if "/opt/sandbox-agent" in command and command[0].endswith("python3"):
            try:
                parent, used = process.ppid(), process.memory_full_info().pss / MIB
            except psutil.Error:
                continue
            of_agent = parent if parent in found else process.pid
            found[of_agent] = found.get(of_agent, 0.0) + used
    return list(found.values())
