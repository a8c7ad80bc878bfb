"""HTTP that is ordinary and not seen every day, through a preview: it stays what the app and the visitor sent."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.acceptance.api import Api
from tests.acceptance.previews import page, preview

#: A server that is asked as localhost only, as many frameworks check it, and that names its own bind address.
SERVER = """
const crypto = require("node:crypto");
const http = require("node:http");
const zlib = require("node:zlib");
const film = Buffer.alloc(2_000_000, "0123456789"), etag = '"film-1"', port = Number(process.env.PORT);
const text = "row after row\\n".repeat(300), packed = zlib.gzipSync(text);

http.createServer({ maxHeaderSize: 256 * 1024 }, (request, response) => {
  const path = request.url.split("?")[0];
  if (request.headers.host !== `localhost:${port}`) return response.writeHead(400).end("DisallowedHost");
  if (path === "/film") {
    const range = /^bytes=(\\d+)-(\\d+)$/.exec(request.headers.range || "");
    if (request.headers["if-none-match"] === etag) return response.writeHead(304, { ETag: etag }).end();
    if (!range) return response.writeHead(200, { ETag: etag, "Content-Length": film.length }).end(film);
    const [from, to] = [Number(range[1]), Number(range[2])];
    response.writeHead(206, { "Content-Range": `bytes ${from}-${to}/${film.length}`, "Content-Length": to - from + 1 });
    return response.end(film.subarray(from, to + 1));
  }
  if (path === "/upload") {
    const hash = crypto.createHash("sha256");
    let size = 0;
    request.on("data", (piece) => { size += piece.length; hash.update(piece); });
    const framing = request.headers["transfer-encoding"] || "length";
    return request.on("end", () => response.end(`${request.method} ${size} ${hash.digest("hex")} ${framing}`));
  }
  if (path === "/both") {
    // A layer that compresses, and leaves the length of the text where it was.
    const socket = response.socket;
    socket.write(`HTTP/1.1 200 OK\\r\\nContent-Encoding: gzip\\r\\nContent-Length: ${text.length}\\r\\n`);
    socket.write("Transfer-Encoding: chunked\\r\\nConnection: close\\r\\n\\r\\n");
    for (let at = 0; at < packed.length; at += 32) {
      const piece = packed.subarray(at, at + 32);
      socket.write(`${piece.length.toString(16)}\\r\\n`);
      socket.write(piece);
      socket.write("\\r\\n");
    }
    return socket.end("0\\r\\n\\r\\n");
  }
  if (path.startsWith("/to/"))
    return response.writeHead(307, { Location: `http://${path.slice(4)}:${port}/members` }).end();
  if (path === "/cookies") return response.writeHead(200, { "Set-Cookie": ["a=1", "b=2; HttpOnly", "c=3"] }).end();
  if (path === "/early") {
    response.writeEarlyHints({ link: "</a.css>; rel=preload; as=style" });
    return response.end("after a hint");
  }
  if (path === "/head") {
    // Latin-1 text that is written as lines of the head, on a connection that stays open.
    const lines = unescape(request.url.split("?")[1]) + "a".repeat(Number(request.headers["x-more"] || 0));
    return request.socket.write(`HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n${lines}\\r\\n\\r\\nhi`, "latin1");
  }
  if (path === "/ticks") {
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    response.write("data: 1\\n\\n");
    return; // the answer stays open
  }
  response.end(request.url);
}).listen(port);
"""
PROJECT = {
    "package.json": '{"name": "odds", "private": true, "scripts": {"start": "node server.js"}}',
    "server.js": SERVER,
}


@pytest.fixture(scope="module")
def session(admin: Api) -> Iterator[dict[str, Any]]:
    admin.upload("odds", PROJECT)
    made, _ = admin.launch(project_id="odds")
    assert (made["status"], made["warnings"]) == ("running", []), made
    yield made
    admin.end(made["session_id"])


@pytest.fixture
def visitor(admin: Api, session: dict[str, Any]) -> Iterator[httpx.Client]:
    with preview(admin, session) as client:
        yield client


@pytest.mark.parametrize("bound", ["localhost", "0.0.0.0", "127.0.0.1"])
def test_a_redirect_to_the_address_that_the_app_listens_on_leads_to_the_preview(
    visitor: httpx.Client, bound: str
) -> None:
    answer = visitor.get(f"/to/{bound}")
    assert (answer.status_code, answer.headers["location"]) == (307, f"http://{visitor.headers['host']}/members")


def test_a_length_beside_chunks_does_not_reach_the_visitor(visitor: httpx.Client) -> None:
    answer = visitor.get("/both")
    assert answer.text == "row after row\n" * 300
    assert "content-length" not in answer.headers


def test_head_ranges_and_what_is_not_modified(visitor: httpx.Client) -> None:
    head = visitor.head("/film")
    assert (head.status_code, head.headers["content-length"], head.content) == (200, "2000000", b"")
    part = visitor.get("/film", headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.text, part.headers["content-range"]) == (206, "0123456789", "bytes 10-19/2000000")
    same = visitor.get("/film", headers={"If-None-Match": '"film-1"'})
    assert (same.status_code, same.content) == (304, b"")


def test_a_slow_reader_gets_everything(visitor: httpx.Client) -> None:
    size = 0
    with visitor.stream("GET", "/film") as answer:
        for piece in answer.iter_bytes(200_000):
            size += len(piece)
            time.sleep(0.02)
    assert size == 2_000_000


def test_bodies_of_requests_keep_their_framing(visitor: httpx.Client) -> None:
    body = bytes(3_000_000)
    digest = hashlib.sha256(body).hexdigest()
    assert visitor.post("/upload", content=body).text == f"POST 3000000 {digest} length"
    pieces = (body[at : at + 100_000] for at in range(0, len(body), 100_000))
    assert visitor.post("/upload", content=pieces).text == f"POST 3000000 {digest} chunked"
    assert visitor.request("DELETE", "/upload", content=b"gone").text.startswith("DELETE 4 ")


def test_odd_targets_large_headers_several_cookies_and_early_hints(visitor: httpx.Client) -> None:
    target = "/a%2Fb//c;d=e/%E2%98%95?x=%20+&y[]=1"
    assert page(visitor, target) == target
    assert visitor.get("/", headers={"X-Large": "x" * 40_000}).status_code == 200
    assert visitor.get("/cookies").headers.get_list("set-cookie") == ["a=1", "b=2; HttpOnly", "c=3"]
    assert page(visitor, "/early") == "after a hint"


ODD_HEADS = [
    "X-A: a\0b", "X-A: a\x01b", "X-A: a\x1b[0m", "X-A: a\x7f", "X-A: a\rb", ": nameless", "no colon", "X-\xc4: a",
    "X A: a", "X-A: \xe4", "X-A:", "X-A: a\r\n b", "X-A: a\nX-B: b", "x_a: a", "X-A: " + "a" * 60_000,
]  # fmt: skip


def test_an_odd_head_does_not_hide_the_answer(admin: Api, session: dict[str, Any]) -> None:
    with preview(admin, session) as visitor:
        answers = {head: visitor.get(f"/head?{quote(head.encode('latin-1'))}").text for head in ODD_HEADS}
        longer = visitor.get("/head?X-Long:", headers={"X-More": "300000"})
    assert answers == dict.fromkeys(ODD_HEADS, "hi")
    assert (longer.text, "x-long" in longer.headers) == ("hi", False)


def test_an_event_arrives_while_the_answer_goes_on(visitor: httpx.Client) -> None:
    with visitor.stream("GET", "/ticks") as answer:
        assert next(answer.iter_text()) == "data: 1\n\n"
