"""Previews in use: large bodies, many WebSockets, many apps at once, and what the service knows of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import docker
import psutil
import pytest

from tests.acceptance.api import Api
from tests.acceptance.previews import page, preview
from tests.acceptance.service import Service
from tests.acceptance.test_edge import cookie_of, open_websocket
from tests.waiting import wait_until

MIB = 1024 * 1024
BODY_BYTES = 1024 * MIB
WEBSOCKETS = 500
DEV_SERVERS = 10
#: Of one process, whatever passes it.
MAX_GROWTH = 48 * MIB
#: Listens on the loopback only. Sends and counts bodies, and echoes what WebSockets send.
APP = """
const crypto = require("node:crypto"), http = require("node:http");
const block = Buffer.alloc(256 * 1024, "x");
const server = http.createServer((request, answer) => {
  if (request.url.startsWith("/large/")) {
    let left = Number(request.url.slice(7));
    answer.writeHead(200, { "Content-Length": left });
    const more = () => {
      while (left > 0) {
        const piece = block.subarray(0, Math.min(left, block.length));
        left -= piece.length;
        if (!answer.write(piece)) return answer.once("drain", more);
      }
      answer.end();
    };
    return more();
  }
  let size = 0;
  request.on("data", (piece) => (size += piece.length));
  request.on("end", () => answer.end(`${process.env.SANDBOX_ROLE} ${size}`));
});
server.on("upgrade", (request, socket) => {
  const key = request.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
  const accept = crypto.createHash("sha1").update(key).digest("base64");
  socket.write("HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n" +
    `Sec-WebSocket-Accept: ${accept}\\r\\n\\r\\n`);
  const send = (text) => socket.write(Buffer.from([0x81, text.length, ...text]));
  send(Buffer.from("hello"));
  socket.on("data", (frame) => {
    const text = Buffer.from(frame.subarray(6, 6 + (frame[1] & 127)));
    if ((frame[0] & 15) === 8) return socket.end();
    send(text.map((byte, index) => byte ^ frame[2 + (index & 3)]));
  });
  socket.on("error", () => {});
});
server.listen(process.env.PORT, "127.0.0.1");
"""


def project(more: str = "") -> dict[str, str]:
    manifest = '[main]\nruntime = "node20"\nstart = "exec node app.js"\nport = 3000\n'
    return {"sandbox.toml": manifest + more, "package.json": '{"private": true}', "app.js": APP}


@pytest.fixture(scope="module")
def session(admin: Api) -> Iterator[dict[str, Any]]:
    admin.upload("traffic", project())
    made, _ = admin.launch(project_id="traffic")
    assert made["status"] == "running", made
    yield made
    admin.end(made["session_id"])


def memory(service: Service, guest: int) -> dict[str, int]:
    """Bytes of memory of the service, its edge and the guest agent with this process id."""
    edge = service.edge().pid()
    assert service.process is not None
    assert edge is not None
    pids = {"service": service.process.pid, "edge": edge, "guest agent": guest}
    return {name: int(psutil.Process(pid).memory_info().rss) for name, pid in pids.items()}


def test_large_bodies_pass_with_flat_memory(
    service: Service, admin: Api, session: dict[str, Any], docker_client: docker.DockerClient
) -> None:
    guest = docker_client.containers.get(session["containers"]["main"]["id"]).attrs["State"]["Pid"]

    def assert_flat(before: dict[str, int]) -> None:
        grown = {name: now - before[name] for name, now in memory(service, guest).items()}
        assert max(grown.values()) < MAX_GROWTH, grown

    def pieces() -> Iterator[bytes]:
        for number in range(BODY_BYTES // MIB):
            if number % 128 == 127:
                assert_flat(before)
            yield bytes(MIB)

    with preview(admin, session) as browser:
        page(browser)
        before = memory(service, guest)
        with browser.stream("GET", f"/large/{BODY_BYTES}") as answer:
            received = 0
            for piece in answer.iter_raw(MIB):
                received += len(piece)
                if received % (128 * MIB) == 0:
                    assert_flat(before)
        assert received == BODY_BYTES
        assert browser.post("/upload", content=pieces()).text == f"main {BODY_BYTES}"
        assert_flat(before)


async def test_many_websockets_are_open_at_once(admin: Api, session: dict[str, Any]) -> None:
    with preview(admin, session) as browser:
        page(browser)
        opened = await asyncio.gather(*(open_websocket(admin, session, cookie_of(browser)) for _ in range(WEBSOCKETS)))
        assert await asyncio.gather(*(each.recv() for each in opened)) == ["hello"] * WEBSOCKETS
        await asyncio.gather(*(each.send(f"echo {number}") for number, each in enumerate(opened)))
        echoed = await asyncio.gather(*(each.recv() for each in opened))
        assert echoed == [f"echo {number}" for number in range(WEBSOCKETS)]
        assert page(browser) == "main 0"
        await asyncio.gather(*(each.close() for each in opened), return_exceptions=True)


def test_ten_dev_servers_answer_at_once(admin: Api) -> None:
    made = []
    for _ in range(DEV_SERVERS):
        admin.upload("traffic", project())
        made.append(admin.create(project_id="traffic"))
    for each in made:
        list(admin.events(each["session_id"]))
    sessions = [admin.get(each["session_id"]) for each in made]
    assert {each["status"] for each in sessions} == {"running"}
    for each in sessions:
        with preview(admin, each) as browser:
            assert page(browser) == "main 0"
    for each in sessions:
        admin.end(each["session_id"])


def metrics(api: Api) -> str:
    return api.http.get("/metrics").raise_for_status().text


def test_requests_are_counted_and_are_no_rows(admin: Api, session: dict[str, Any]) -> None:
    session_id = session["session_id"]
    with preview(admin, session) as browser:
        for _ in range(5):
            page(browser, "/counted-and-not-logged")
    counted = f'sandbox_preview_requests_total{{code="200",session="{session_id}"}}'
    wait_until(lambda: any(line.startswith(counted) for line in metrics(admin).splitlines()))
    rows = admin.http.get("/api/v1/logs", params={"limit": 500}).json()["items"]
    assert "counted-and-not-logged" not in str(rows)


def test_a_session_that_is_used_by_its_preview_only_does_not_expire(admin: Api) -> None:
    admin.upload("traffic", project())
    unused, _ = admin.launch(project_id="traffic", idle_timeout_seconds=12)
    used, _ = admin.launch(project_id="traffic", idle_timeout_seconds=12)
    would_end = datetime.fromisoformat(used["expires_at"])
    with preview(admin, used) as browser:

        def unused_is_over() -> bool:
            page(browser)
            over = admin.get(unused["session_id"])["status"] == "terminated"
            return over and datetime.fromisoformat(admin.get(used["session_id"])["expires_at"]) > would_end

        wait_until(unused_is_over, pause=0.5)
        wait_until(lambda: page(browser) and datetime.now(UTC) > would_end, pause=0.5)
    assert admin.get(used["session_id"])["status"] == "running"
    admin.end(used["session_id"])


def test_a_session_that_asks_for_it_has_its_requests_in_its_logs(admin: Api) -> None:
    admin.upload("traffic-logged", project("[preview]\nlog = true\n"))
    logged, _ = admin.launch(project_id="traffic-logged")
    session_id = logged["session_id"]
    with preview(admin, logged) as browser:
        page(browser, "/seen-in-logs?secret=1")

    def logged_rows() -> list[dict[str, Any]]:
        items = admin.http.get("/api/v1/logs", params={"limit": 500}).json()["items"]
        return [row for row in items if "/seen-in-logs" in row["message"]]

    rows = wait_until(logged_rows)
    assert "secret" not in str(rows)
    assert session_id in str(rows[0])
    admin.end(session_id)
