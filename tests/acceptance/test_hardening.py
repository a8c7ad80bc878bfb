"""What one user or sandbox does to itself, to others or to the host, with the right outcome of each.

Each test is a kind of attack that was once possible. The measurements of what others notice are in
`tests/bench/bench_hardening.py`; attacks on the edge are in `test_edge_bounds.py`, on sign-in and cookies in
`test_access.py` and `test_console.py`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from tests.acceptance.api import SESSIONS, Api, problem
from tests.acceptance.service import Service


@pytest.fixture(scope="module")
def tenant(service: Service, admin: Api) -> Iterator[Api]:
    """A user with whom the tests of this file act."""
    token = admin.http.post("/api/v1/tokens", json={"user_id": "tenant", "role": "user"}).json()["token"]
    api = Api(service.url, token)
    yield api
    api.http.close()


@pytest.fixture(scope="module")
def ident(tenant: Api) -> Iterator[str]:
    session, _ = tenant.launch()
    assert session["status"] == "ready", session
    yield session["session_id"]
    tenant.end(session["session_id"])


#: Starts processes until the container's limit, in all of them, and ignores the signals that it can.
FORK_BOMB = """
import os, signal, time
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
while True:
    try:
        os.fork()
    except OSError:
        time.sleep(1)
"""


def test_processes_are_listed_and_signalled(tenant: Api, user: Api, ident: str) -> None:
    processes = f"{SESSIONS}/{ident}/processes"
    tenant.exec(ident, "sleep 4321 > /dev/null 2>&1 &")
    (found,) = (it for it in tenant.http.get(processes).json()["items"] if it["command"] == "sleep 4321")
    assert (found["role"], found["ppid"] > 0, found["started_at"][-1]) == ("main", True, "Z")
    signalled = f"{processes}/{found['pid']}/signal"
    problem(user.http.post(signalled, json={"signal": "KILL"}), 404, "session_not_found")
    problem(tenant.http.post(signalled, json={"signal": "NONE"}), 422, "invalid_input")
    assert tenant.http.post(signalled, json={"signal": "KILL"}).status_code == 204
    problem(tenant.http.post(signalled, json={"signal": "KILL"}), 404, "process_not_found")
    problem(tenant.http.post(f"{processes}/1/signal", json={}), 404, "process_not_found")


def test_the_command_line_lists_and_signals_processes(service: Service, tenant: Api, ident: str) -> None:
    tenant.exec(ident, "sleep 4322 > /dev/null 2>&1 &")
    listed = json.loads(service.command("ps", ident, "--json").stdout)
    (pid,) = (it["pid"] for it in listed if it["command"] == "sleep 4322")
    assert "sleep 4322" in service.command("ps", ident).stdout
    assert service.command("signal", ident, str(pid), "SIGKILL").returncode == 0
    again = service.command("signal", ident, str(pid))
    assert (again.returncode, "process_not_found" in again.stderr) == (3, True)


def test_a_fork_bomb_is_seen_and_ended_by_a_relaunch(tenant: Api, ident: str) -> None:
    processes = f"{SESSIONS}/{ident}/processes"
    tenant.http.put(f"{SESSIONS}/{ident}/files", params={"path": "bomb.py"}, content=FORK_BOMB.encode())
    tenant.exec(ident, "python3 bomb.py > /dev/null 2>&1 &")
    deadline = time.monotonic() + 60
    while len(tenant.http.get(processes).json()["items"]) < 450:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert tenant.http.post(f"{SESSIONS}/{ident}/relaunch").status_code == 202
    list(tenant.events(ident))
    assert tenant.get(ident)["status"] == "ready"
    assert tenant.exec(ident, "echo runs")["stdout"] == "runs\n"
    left = [it["command"] for it in tenant.http.get(processes).json()["items"]]
    assert "python3 bomb.py" not in left
