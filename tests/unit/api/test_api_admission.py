"""Admission: what is refused before a body is read, and what ends with its token."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID, uuid4

import pytest
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sandbox.access.tokens import Credential, TokenUnknown
from sandbox.api.http.admission import UNKNOWN_BODY_BYTES, Admission
from sandbox.api.http.auth import require_caller
from sandbox.api.http.live import OpenConnections
from sandbox.domain.caller import Caller, CallerRole
from sandbox.settings import Settings
from tests.fakes.secrets import signer as signer_of

SESSIONS = "/api/v1/sessions"
A_SESSION = f"{SESSIONS}/3f0f3b52-9f6c-4bb8-8a4b-2b8d6f4c7d10"


@dataclass
class Tokens:
    """Callers by token; `ended` are the ids of those that are not valid any more."""

    callers: dict[str, Caller] = field(default_factory=dict)
    ended: set[UUID] = field(default_factory=set)
    signed_out: set[bytes | None] = field(default_factory=set)

    async def authenticate(self, token: str) -> Caller:
        if token not in self.callers:
            raise TokenUnknown("not known", hint="none")
        return self.callers[token]

    async def authenticate_cookies(self, cookies: Sequence[str]) -> Caller:
        return await self.authenticate(cookies[0])

    async def valid(self, credentials: Collection[Credential]) -> set[Credential]:
        return {each for each in credentials if each[0] not in self.ended and each[1] not in self.signed_out}


@dataclass
class Client:
    """One request to the application under test."""

    app: ASGIApp
    path: str
    method: str = "POST"
    token: str | None = "ann"
    headers: dict[str, str] = field(default_factory=dict)
    kind: str = "http"
    address: str = "192.0.2.1"
    pieces: list[bytes] = field(default_factory=list)
    sent: list[Message] = field(default_factory=list)
    reads: int = 0

    async def _receive(self) -> Message:
        self.reads += 1
        if self.kind == "websocket":
            return {"type": "websocket.connect"}
        if self.pieces:
            return {"type": "http.request", "body": self.pieces.pop(0), "more_body": bool(self.pieces)}
        await asyncio.Event().wait()
        raise AssertionError

    async def _send(self, message: Message) -> None:
        self.sent.append(message)

    async def run(self) -> Client:
        given = {"host": "localhost"} | self.headers
        if self.token:
            given["authorization"] = f"Bearer {self.token}"
        scope: Scope = {
            "type": self.kind,
            "method": self.method,
            "path": self.path,
            "scheme": "http",
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
            "client": (self.address, 1),
            "extensions": {"websocket.http.response": {}},
        }
        await self.app(scope, self._receive, self._send)
        return self

    @property
    def status(self) -> int:
        return int(next(message["status"] for message in self.sent if "status" in message))

    @property
    def problem(self) -> Any:
        return json.loads(b"".join(message.get("body", b"") for message in self.sent))

    @property
    def retry_after(self) -> str:
        start = next(message for message in self.sent if "status" in message)
        return str(dict(start["headers"]).get(b"retry-after", b"").decode())


class Backend:
    """The application behind admission: reads bodies, and holds requests until they are released."""

    def __init__(self) -> None:
        self.released = asyncio.Event()
        self.entered = 0
        self.bodies: list[bytes] = []
        self.callers: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.callers.append((await require_caller(HTTPConnection(scope))).user_id)
        body, more = b"", scope["type"] == "http"
        while more:
            message = await receive()
            body += message["body"]
            more = message["more_body"]
        self.bodies.append(body)
        self.entered += 1
        kind = b"text/event-stream" if scope["path"].endswith("/events") else b"application/json"
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
        else:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        await self.released.wait()
        if scope["type"] == "http":
            await send({"type": "http.response.body", "body": b""})


@dataclass
class World:
    tokens: Tokens
    backend: Backend
    connections: OpenConnections
    make: Callable[..., Admission]
    app: Admission


@pytest.fixture
async def world() -> AsyncIterator[World]:
    tokens, backend = Tokens(), Backend()
    for name, role in (("ann", CallerRole.USER), ("bob", CallerRole.USER), ("root", CallerRole.ADMIN)):
        tokens.callers[name] = Caller(name, role, str(uuid4()))
    connections = OpenConnections(tokens, check_seconds=0.01)
    await connections.start()

    def make(**settings: Any) -> Admission:
        return Admission(backend, Settings(**settings), tokens, signer_of(b"k"), connections)

    yield World(tokens, backend, connections, make, make(requests_per_user=3, streams_per_user=2, terminals_per_user=1))
    await connections.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


async def held(world: World, clients: list[Client]) -> list[asyncio.Task[Client]]:
    """Start the requests and wait until all are answered or held by the backend."""
    before = world.backend.entered
    tasks = [asyncio.create_task(client.run()) for client in clients]
    await until(lambda: world.backend.entered - before + sum(task.done() for task in tasks) >= len(tasks))
    return tasks


async def test_a_body_without_a_credential_is_not_read(world: World) -> None:
    for token in (None, "unknown"):
        client = Client(world.app, SESSIONS, token=token, headers={"content-length": "1000000"}, pieces=[b"x"])
        with pytest.raises(Exception, match=r"token|known"):
            await client.run()
        assert client.reads == 0
    chunked = Client(world.app, SESSIONS, token=None, headers={"transfer-encoding": "chunked"}, pieces=[b"x"])
    with pytest.raises(Exception, match="token"):
        await chunked.run()
    assert chunked.reads == 0


async def test_a_sign_in_form_is_read() -> None:
    bodies: list[bytes] = []

    async def form(_scope: Scope, receive: Receive, _send: Send) -> None:
        bodies.append((await receive())["body"])

    tokens = Tokens()
    app = Admission(form, Settings(), tokens, signer_of(b"k"), OpenConnections(tokens))
    for length in (5, UNKNOWN_BODY_BYTES + 1):
        headers = {"content-length": str(length)}
        await Client(app, "/", token=None, headers=headers, pieces=[b"token"]).run()
    assert bodies == [b"token", b""]


async def test_requests_of_one_user_are_bounded_and_others_are_not_affected(world: World) -> None:
    tasks = await held(world, [Client(world.app, SESSIONS, pieces=[b"{}"]) for _ in range(4)])
    refused = [task.result() for task in tasks if task.done()]
    assert [(client.status, client.problem["code"]) for client in refused] == [(429, "too_many_requests")]
    assert int(refused[0].retry_after) > 0
    assert refused[0].reads == 0
    others = await held(world, [Client(world.app, SESSIONS, token=name, pieces=[b"{}"]) for name in ("bob", "root")])
    assert not any(task.done() for task in others)
    world.backend.released.set()
    await asyncio.gather(*tasks, *others)
    # What has ended counts no more.
    assert (await Client(world.app, SESSIONS, pieces=[b"{}"]).run()).status == 200


async def test_all_users_together_are_bounded(world: World) -> None:
    app = world.make(requests_per_user=1)
    for number in range(9):
        world.tokens.callers[f"u{number}"] = Caller(f"u{number}", CallerRole.USER, str(uuid4()))
    tasks = await held(world, [Client(app, SESSIONS, token=f"u{number}", pieces=[b""]) for number in range(9)])
    refused = [task.result() for task in tasks if task.done()]
    assert [(client.status, client.problem["code"]) for client in refused] == [(503, "service_busy")]
    assert int(refused[0].retry_after) > 0
    world.backend.released.set()
    await asyncio.gather(*tasks)


@pytest.mark.parametrize(
    ("path", "method", "kind", "headers", "most"),
    [
        (f"{A_SESSION}/events", "GET", "http", {}, 2),
        (f"{A_SESSION}/logs", "GET", "http", {}, 2),
        ("/api/v1/logs/tail", "GET", "http", {}, 2),
        (f"{A_SESSION}/exec", "POST", "http", {"accept": "text/event-stream"}, 2),
        (f"{A_SESSION}/exec", "POST", "http", {}, 3),
        (f"{A_SESSION}/terminal", "GET", "websocket", {}, 1),
    ],
)
async def test_streams_and_terminals_have_bounds_of_their_own(
    world: World, path: str, method: str, kind: str, headers: dict[str, str], most: int
) -> None:
    clients = [
        Client(world.app, path, method=method, kind=kind, headers=headers, pieces=[b""]) for _ in range(most + 1)
    ]
    tasks = await held(world, clients)
    assert [task.result().status for task in tasks if task.done()] == [429]
    other = await held(world, [Client(world.app, SESSIONS if most != 3 else A_SESSION, token="bob", pieces=[b""])])
    assert not other[0].done()
    world.backend.released.set()
    await asyncio.gather(*tasks, *other)


async def test_bytes_of_one_user_are_bounded(world: World) -> None:
    app = world.make(max_intake_mb=1, max_body_kb=8 * 1024)
    large = {"content-length": str(8 * 1024 * 1024)}
    tasks = await held(world, [Client(app, SESSIONS, headers=large, pieces=[b""]) for _ in range(4)])
    refused = [task.result() for task in tasks if task.done()]
    assert [(client.status, client.problem["code"], client.reads) for client in refused] == [
        (429, "too_many_requests", 0)
    ]
    world.backend.released.set()
    await asyncio.gather(*tasks)


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_larger_than_its_route_takes_is_refused(world: World, declared: bool) -> None:
    app = world.make(max_body_kb=1, max_file_mb=1)
    for method, path, size in (("POST", SESSIONS, 1025), ("PUT", f"{A_SESSION}/files", 1024 * 1024 + 1)):
        headers = {"content-length": str(size)} if declared else {"transfer-encoding": "chunked"}
        client = Client(app, path, method=method, headers=headers, pieces=[b"x" * size])
        if declared:
            await client.run()
            assert (client.status, client.problem["code"], client.reads) == (413, "body_too_large", 0)
        else:
            with pytest.raises(Exception, match="larger than"):
                await client.run()


async def _wait_for(task: Awaitable[Client]) -> Client:
    async with asyncio.timeout(30):
        return await task


async def test_streams_and_terminals_end_with_their_token(world: World) -> None:
    stream = Client(world.app, f"{A_SESSION}/events", method="GET", pieces=[b""])
    terminal = Client(world.app, f"{A_SESSION}/terminal", method="GET", kind="websocket")
    other = Client(world.app, f"{A_SESSION}/events", method="GET", token="bob", pieces=[b""])
    tasks = await held(world, [stream, terminal, other])
    world.tokens.ended.add(UUID(world.tokens.callers["ann"].token_id))
    assert (await _wait_for(tasks[0])).sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
    closing = (await _wait_for(tasks[1])).sent[-1]
    assert (closing["type"], closing["code"]) == ("websocket.close", 1008)
    assert not tasks[2].done()
    world.backend.released.set()
    await tasks[2]


async def test_streams_of_a_browser_end_when_it_signs_out(world: World) -> None:
    ann = world.tokens.callers["ann"]
    world.tokens.callers["ann's browser"] = replace(ann, sign_in=b"sign-in")
    browser = Client(world.app, f"{A_SESSION}/events", method="GET", token="ann's browser", pieces=[b""])
    other = Client(world.app, f"{A_SESSION}/events", method="GET", pieces=[b""])
    tasks = await held(world, [browser, other])
    world.tokens.signed_out.add(b"sign-in")
    assert (await _wait_for(tasks[0])).sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
    assert not tasks[1].done()
    world.backend.released.set()
    await tasks[1]


async def test_a_download_of_an_ended_token_breaks_off(world: World) -> None:
    tasks = await held(world, [Client(world.app, f"{A_SESSION}/files", method="GET", pieces=[b""])])
    world.tokens.ended.add(UUID(world.tokens.callers["ann"].token_id))
    with pytest.raises(Exception, match="revoked"):
        await _wait_for(tasks[0])


@pytest.mark.parametrize(
    ("host", "accepted"),
    [
        ("127.0.0.1:8000", True),
        ("[::1]:8000", True),
        ("localhost", True),
        ("sandbox:8000", True),
        ("console.example.com", True),
        ("example.com:443", True),
        ("given.example.org", True),
        ("evil.example", False),
        ("example.com.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("a b", False),
        ("", False),
    ],
)
async def test_only_names_of_the_service_are_answered(world: World, host: str, accepted: bool) -> None:
    app = world.make(preview_domain="preview.example.com", hosts="given.example.org, other.example.org")
    world.backend.released.set()
    client = await Client(app, SESSIONS, headers={"host": host}, pieces=[b""]).run()
    assert client.status == (200 if accepted else 421)
    if not accepted:
        assert client.problem["code"] == "host_unknown"
