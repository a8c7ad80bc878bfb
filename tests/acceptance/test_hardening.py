"""What one user or sandbox does to itself, to others or to the host, with the right outcome of each.

Each test is a kind of attack that was once possible. Their effect on others is measured by
`tests/bench/bench_hardening.py`. Bodies that do not end are in `test_edge_bounds.py`, what sandboxed code can reach in
`tests/integration/engine/`, inputs that take long to read in `tests/unit/*/test_*_linear.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError

from sandbox.client import ApiError, Audit
from tests.acceptance.api import SESSIONS, Api, parse_sse, problem, tar_of
from tests.acceptance.service import Service
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def tenant(service: Service, admin: Api) -> Iterator[Api]:
    """A user with whom the tests of this file act."""
    token = admin.http.post("/api/v1/tokens", json={"user_id": "tenant", "role": "user"}).json()["token"]
    api = Api(service.url, token)
    yield api
    api.http.close()


@pytest.fixture(scope="module")
def ident(tenant: Api) -> Iterator[str]:
    assert tenant.http.put("/api/v1/secrets/deploy-key", json={"value": SECRET}).is_success
    session, _ = tenant.launch(env={"DEPLOY_KEY": {"from_secret": "deploy-key"}})
    assert session["status"] == "ready", session
    yield session["session_id"]
    tenant.end(session["session_id"])


SECRET = "a key of this test's own"
#: Takes as many of the user's 128 inotify instances as there are left.
INOTIFY = "import ctypes; held = sum(ctypes.CDLL(None).inotify_init1(0) >= 0 for _ in range(200))"
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


def processes_of(tenant: Api, session_id: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = tenant.http.get(f"{SESSIONS}/{session_id}/processes").json()["items"]
    return items


def started(tenant: Api, session_id: str, command: str) -> dict[str, Any]:
    """Start a command in the background; return its process once the shell has become the program."""
    tenant.exec(session_id, f"{command} > /dev/null 2>&1 &")
    (found,) = wait_until(lambda: [it for it in processes_of(tenant, session_id) if it["command"] == command])
    return found


def until_ended(tenant: Api, session_id: str, pid: int) -> None:
    """Wait until a killed process is gone: it exists until its exit status has been collected."""
    wait_until(lambda: pid not in [it["pid"] for it in processes_of(tenant, session_id)])


def test_processes_are_listed_and_signalled(tenant: Api, user: Api, ident: str) -> None:
    processes = f"{SESSIONS}/{ident}/processes"
    found = started(tenant, ident, "sleep 4321")
    assert (found["role"], found["ppid"] > 0, found["started_at"][-1]) == ("main", True, "Z")
    signalled = f"{processes}/{found['pid']}/signal"
    problem(user.http.post(signalled, json={"signal": "KILL"}), 404, "session_not_found")
    problem(tenant.http.post(signalled, json={"signal": "NONE"}), 422, "invalid_input")
    assert tenant.http.post(signalled, json={"signal": "KILL"}).status_code == 204
    until_ended(tenant, ident, found["pid"])
    problem(tenant.http.post(signalled, json={"signal": "KILL"}), 404, "process_not_found")
    problem(tenant.http.post(f"{processes}/1/signal", json={}), 404, "process_not_found")


def test_the_command_line_lists_and_signals_processes(service: Service, tenant: Api, ident: str) -> None:
    started(tenant, ident, "sleep 4322")
    listed = json.loads(service.command("ps", ident, "--json").stdout)
    (pid,) = (it["pid"] for it in listed if it["command"] == "sleep 4322")
    assert "sleep 4322" in service.command("ps", ident).stdout
    assert service.command("signal", ident, str(pid), "SIGKILL").returncode == 0
    until_ended(tenant, ident, pid)
    again = service.command("signal", ident, str(pid))
    assert (again.returncode, "process_not_found" in again.stderr) == (3, True)


def test_a_listing_of_long_paths_comes_in_small_pages(tenant: Api, ident: str) -> None:
    deep = "/".join(["d" * 250] * 14)
    tenant.exec(ident, f"mkdir -p deep/{deep} && cd deep/{deep} && seq 1000 | xargs touch")
    found: set[str] = set()
    params: dict[str, str | int] = {"path": "deep", "depth": 20}
    while True:
        answer = tenant.http.get(f"{SESSIONS}/{ident}/files", params=params)
        assert len(answer.content) < 4 << 20
        page = answer.json()
        found |= {item["path"] for item in page["items"] if item["type"] == "file"}
        if page["next_cursor"] is None:
            break
        params["cursor"] = page["next_cursor"]
    assert len(found) == 1000


FASTAPI = "from fastapi import FastAPI\napp = FastAPI()\n"
ODD_PROJECTS: dict[str, dict[str, str | bytes]] = {
    "a long elif chain": {"main.py": "if 1:pass\n" + "elif 1:pass\n" * 1500},
    "requirements that include each other": {
        "main.py": FASTAPI,
        "requirements.txt": "-r r0.txt",
        **{f"r{number}.txt": f"-r r{number + 1}.txt" for number in range(1500)},
    },
    "NUL in the manifest": {"sandbox.toml": '[a]\nruntime="python312"\nstart="x\\u0000y"'},
    "a deep key": {"pyproject.toml": "a." * 8000 + "a=1\n", "main.py": FASTAPI},
}


@pytest.mark.parametrize("name", ODD_PROJECTS)
def test_odd_projects_are_kept_or_refused_with_a_code(tenant: Api, name: str) -> None:
    headers = {"Content-Type": "application/gzip"}
    answer = tenant.http.put("/api/v1/projects/odd", content=tar_of(ODD_PROJECTS[name]), headers=headers)
    assert answer.status_code in (200, 201, 422), answer.text
    body = answer.json()
    assert body.get("plan") or body.get("plan_problem") or body["code"] != "internal_error"


def test_secrets_are_not_in_the_output_of_commands(tenant: Api, ident: str) -> None:
    result = tenant.exec(ident, 'echo "1 $DEPLOY_KEY"; echo "2 $DEPLOY_KEY" >&2')
    assert (result["stdout"], result["stderr"]) == ("1 [secret deploy-key]\n", "2 [secret deploy-key]\n")
    in_pieces = 'printf "%.9s" "$DEPLOY_KEY"; sleep 0.2; echo "${DEPLOY_KEY#?????????}"; printf "a key of"'
    body, headers = {"command": in_pieces}, {"Accept": "text/event-stream"}
    with tenant.http.stream("POST", f"{SESSIONS}/{ident}/exec", json=body, headers=headers) as answer:
        printed = [event.data["data"] for event in parse_sse(answer.iter_lines()) if event.event == "stdout"]
    assert "".join(printed) == "[secret deploy-key]\na key of"


def test_the_audit_log_is_read_by_sdk_and_command_line(service: Service, tenant: Api, admin: Api, ident: str) -> None:
    tenant.exec(ident, "true")
    log = Audit(base_url=service.url, token=admin.token)
    found = wait_until(lambda: log.list(resource=ident, action="session.exec", user_id="tenant", limit=1))
    assert [(entry["outcome"], entry["resource"]) for entry in found] == [("succeeded", ident)]
    assert json.loads(service.command("audit", "--resource", ident, "--json").stdout)["items"]
    with pytest.raises(ApiError):
        Audit(base_url=service.url, token=tenant.token).list()


def test_names_that_are_not_utf8_are_listed(tenant: Api, ident: str) -> None:
    tenant.exec(ident, "mkdir -p bytes && touch $'bytes/\\xff'")
    answer = tenant.http.get(f"{SESSIONS}/{ident}/files", params={"path": "bytes"})
    assert [item["path"] for item in answer.json()["items"]] == ["bytes/\ufffdff"]


def test_renewing_does_not_shorten(tenant: Api, ident: str) -> None:
    before = tenant.get(ident)["expires_at"]
    assert tenant.http.post(f"{SESSIONS}/{ident}/renew", json={"seconds": 1}).json()["expires_at"] >= before


async def test_large_terminal_messages_are_refused_and_none_is_inflated(tenant: Api, ident: str) -> None:
    url = f"{tenant.url.replace('http', 'ws')}{SESSIONS}/{ident}/terminal"
    async with connect(url, additional_headers={"Authorization": f"Bearer {tenant.token}"}, proxy=None) as socket:
        assert socket.protocol.extensions == []
        await socket.send(b"x" * 70_000)
        with pytest.raises(ConnectionClosedError):
            await _read_on(socket)
    assert socket.close_code == 1009


async def _read_on(socket: ClientConnection) -> None:
    while True:
        await socket.recv()


def test_what_one_user_takes_of_the_kernel_others_still_have(
    tenant: Api, make_user: Callable[[], Api], ident: str
) -> None:
    other = make_user()
    session, _ = other.launch()
    taken = f"{INOTIFY}; import time; print(held, flush=True); time.sleep(600)"
    tenant.exec(ident, ["sh", "-c", f"python3 -c '{taken}' > held 2>&1 &"])
    wait_until(lambda: tenant.exec(ident, "cat held")["stdout"].strip() != "")
    assert int(tenant.exec(ident, ["python3", "-c", f"{INOTIFY}; print(held)"])["stdout"]) < 5
    assert int(other.exec(session["session_id"], ["python3", "-c", f"{INOTIFY}; print(held)"])["stdout"]) > 50
    other.end(session["session_id"])


def test_a_fork_bomb_is_seen_and_ended_by_a_relaunch(tenant: Api, ident: str) -> None:
    tenant.http.put(f"{SESSIONS}/{ident}/files", params={"path": "bomb.py"}, content=FORK_BOMB.encode())
    tenant.exec(ident, "python3 bomb.py > /dev/null 2>&1 &")

    def is_full() -> bool:
        """The bomb has the processor of the container, so a request may be refused because its agent is late."""
        answer = tenant.http.get(f"{SESSIONS}/{ident}/processes")
        return answer.status_code == 200 and len(answer.json()["items"]) >= 450

    wait_until(is_full, pause=0.5)
    assert tenant.http.post(f"{SESSIONS}/{ident}/relaunch").status_code == 202
    list(tenant.events(ident))
    assert tenant.get(ident)["status"] == "ready"
    assert tenant.exec(ident, "echo runs")["stdout"] == "runs\n"
    left = [it["command"] for it in processes_of(tenant, ident)]
    assert "python3 bomb.py" not in left
