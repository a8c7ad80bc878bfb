"""A real app behind a real edge: an app on loopback, the service that the edge asks, and the edge between them."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, UUID, uuid4, uuid5

import httpx
import pytest_asyncio
import uvicorn
from itsdangerous import BadSignature, URLSafeTimedSerializer

from sandbox.domain.caller import Caller, CallerRole, SignedInBy
from sandbox.domain.session import SessionStatus
from sandbox.edge.configuration import edge_configuration
from sandbox.edge.folder import EdgeFolder
from sandbox.edge.grants import Grants
from sandbox.edge.process import EdgeProcess
from sandbox.edge.store import GrantState
from sandbox.errors import GuestError, Kind, SandboxError
from sandbox.preview.app import PreviewApp
from sandbox.preview.router import HostRouter
from sandbox.preview.target import Grant, PreviewTarget
from sandbox.settings import Settings
from tests.integration.preview.upstream import Upstream
from tests.ports import reserve_port
from tests.waiting import WAIT_SECONDS

DOMAIN = "preview.localhost"


class TcpAgent:
    """The calls of a guest agent that a preview makes. It is of an earlier release and has no sockets to ports."""

    def __init__(self, addresses: dict[int, str]) -> None:
        self.addresses = addresses
        self.hangs = False

    async def tunnel(self, port: int) -> socket.socket:
        if self.hangs:
            await asyncio.sleep(3600)
        if port not in self.addresses:
            raise GuestError(f"nothing listens on port {port}", code="port_not_open")
        address = self.addresses[port]
        connected = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        connected.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(connected, (address, port))
        except OSError as error:
            connected.close()
            raise GuestError(str(error), code="port_not_open") from error
        return connected

    async def port_sockets(self, **_: Any) -> dict[str, Any]:
        if self.hangs:
            await asyncio.sleep(3600)
        raise GuestError("there is no function port_sockets", code="agent_refused")


@dataclass
class Sessions:
    """The sessions of the service, and the engine with their guest agents."""

    targets: dict[UUID, PreviewTarget] = field(default_factory=dict)
    agents: dict[tuple[UUID, str], TcpAgent] = field(default_factory=dict)
    resolved: int = 0
    failure: Exception | None = None

    async def resolve(self, session_id: UUID) -> PreviewTarget | None:
        self.resolved += 1
        await asyncio.sleep(0)
        if self.failure:
            raise self.failure
        return self.targets.get(session_id)

    def guest(self, session_id: UUID, role: str) -> Any:
        return self.agents[session_id, role]

    def port_socket(self, session_id: UUID, role: str, name: str) -> Path:
        raise AssertionError("its guest agents have no sockets")

    def add(self, **changes: Any) -> UUID:
        """A session of user `ann`; `changes` are fields of its target."""
        session_id = uuid4()
        fields: dict[str, Any] = {
            "session_id": session_id,
            "user_id": "ann",
            "status": SessionStatus.RUNNING,
            "preview_port": None,
            "roles": ("main",),
        }
        self.targets[session_id] = PreviewTarget(**(fields | changes))
        return session_id


class Signer:
    """Links, really signed."""

    def __init__(self) -> None:
        self.link_seconds = 300
        self._link = URLSafeTimedSerializer("a secret of this test", salt="link")

    def sign_preview(self, session_id: UUID, by: SignedInBy) -> str:
        return str(self._link.dumps([str(session_id), by.user_id]))

    def read_preview(self, value: str, session_id: UUID) -> SignedInBy:
        try:
            bound_to, user_id = self._link.loads(value, max_age=self.link_seconds)
        except BadSignature as error:
            raise SandboxError("not signed here, or expired", kind=Kind.UNAUTHENTICATED) from error
        if bound_to != str(session_id):
            raise SandboxError("signed for another session", kind=Kind.UNAUTHENTICATED)
        return SignedInBy(str(user_id))


class Store:
    """Implements the calls of `edge.store.GrantStore`. Those in `ended` are no longer good."""

    def __init__(self) -> None:
        self.grants: dict[str, Grant] = {}
        self.ended: set[str] = set()
        #: Whether what new grants are made with is no longer good.
        self.refuses = False

    async def insert(self, grant: Grant, lifetime_seconds: int) -> bool:
        if self.refuses:
            return False
        self.grants[grant.key] = grant
        return True

    async def find(self, key: str, session_id: UUID) -> Grant | None:
        grant = self.grants.get(key)
        return grant if grant and grant.session_id == session_id and key not in self.ended else None

    async def find_by_address(self, session_id: UUID, address: str) -> Grant | None:
        found = [grant for key, grant in self.grants.items() if key not in self.ended]
        return next((g for g in found if (g.session_id, g.address) == (session_id, address)), None)

    async def states(self, keys: Any) -> dict[str, GrantState]:
        found = {key: self.grants[key] for key in keys if key in self.grants}
        return {key: GrantState(grant, key not in self.ended, ("main",)) for key, grant in found.items()}


class Callers:
    """Tokens of the API: `sbx_NAME` is NAME's, `operator-secret` the admin's."""

    async def caller(self, headers: Any) -> Caller | None:
        token = headers.get("x-api-key") or headers.get("authorization", "").partition(" ")[2]
        if token == "operator-secret":
            return Caller("operator", CallerRole.ADMIN, str(uuid5(NAMESPACE_OID, token)))
        if token.startswith("sbx_"):
            return Caller(token.removeprefix("sbx_"), CallerRole.USER, str(uuid5(NAMESPACE_OID, token)))
        return None


async def _main_app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"the service itself"})


@contextlib.asynccontextmanager
async def serve(app: Any, host: str = "127.0.0.1", behind: socket.socket | None = None) -> AsyncIterator[int]:
    """A uvicorn server on a free port of that address alone, or on the socket behind the edge. Gives the port."""
    config = uvicorn.Config(
        app,
        host=host,
        port=0,
        log_level="warning",
        lifespan="off",
        proxy_headers=behind is not None,
        forwarded_allow_ips="*",
        ws_max_size=64 << 20,
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    task = asyncio.create_task(server.serve(sockets=[behind] if behind else None))
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield 0 if behind else server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        server.force_exit = True
        await task


@dataclass
class World:
    """Everything that a test of previews needs."""

    port: int
    app_port: int
    app6_port: int
    app: Upstream
    sessions: Sessions
    signer: Signer
    store: Store
    preview: PreviewApp

    async def eventually(self, condition: Callable[[], bool]) -> None:
        """Return once the condition holds; TimeoutError if it never does."""
        async with asyncio.timeout(WAIT_SECONDS):
            while not condition():
                await asyncio.sleep(0.01)

    def session(self, **changes: Any) -> UUID:
        """A running session whose preview is the app on 127.0.0.1."""
        fields: dict[str, Any] = {"preview_port": self.app_port, "port_roles": {self.app_port: "main"}}
        session_id = self.sessions.add(**(fields | changes))
        for role in self.sessions.targets[session_id].roles:
            self.sessions.agents[session_id, role] = TcpAgent(
                {self.app_port: "127.0.0.1", self.app6_port: "::1"} if role == "main" else {}
            )
        return session_id

    def host(self, session_id: UUID, port: int | None = None) -> str:
        return f"{f'{port}-' if port else ''}{session_id}.{DOMAIN}:{self.port}"

    def cookie(self, session_id: UUID, port: int | None = None, user_id: str = "ann") -> str:
        """The cookie of a browser that has signed in."""
        key = secrets.token_urlsafe(16)
        self.store.grants[key] = Grant(key, session_id, SignedInBy(user_id))
        return f"__sbx_preview={port or self.sessions.targets[session_id].preview_port or 0}.{key}"

    def headers(self, session_id: UUID, port: int | None = None, **more: str) -> dict[str, str]:
        """Host and a valid cookie."""
        named = {name.replace("_", "-"): value for name, value in more.items()}
        return {"host": self.host(session_id, port), "cookie": self.cookie(session_id, port)} | named


class Switch:
    """Passes on to the application of the test that runs, so that the servers start once for all of them."""

    app: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


@dataclass
class Servers:
    app: Switch
    front: Switch
    app_port: int
    app6_port: int
    port: int
    folder: EdgeFolder


@pytest_asyncio.fixture(scope="session")
async def servers() -> AsyncIterator[Servers]:
    port = reserve_port()
    home = Path(tempfile.mkdtemp(prefix="sbx-"))
    settings = Settings(home=home, port=port, preview_domain=DOMAIN)
    edge = EdgeProcess(settings)
    app, front = Switch(), Switch()
    async with serve(app) as app_port, serve(app, "::1") as app6_port, serve(front, behind=edge.folder.listen()):
        await asyncio.to_thread(edge.ensure, edge_configuration(settings))
        yield Servers(app, front, app_port, app6_port, port, edge.folder)
        await asyncio.to_thread(edge.stop)
    shutil.rmtree(home)


@pytest_asyncio.fixture
async def world(servers: Servers) -> AsyncIterator[World]:
    app, sessions, signer, store = Upstream(), Sessions(), Signer(), Store()
    grants = Grants(servers.folder, store, sessions, lambda _: None)  # type: ignore[arg-type]
    await grants.start()
    preview = PreviewApp(
        sessions,
        signer,
        DOMAIN,
        authenticator=Callers(),
        grants=grants,
        by_address=True,
        remember_seconds=0.05,
        connect_seconds=1.0,
    )
    servers.app.app, servers.front.app = app, HostRouter(_main_app, preview, DOMAIN)
    yield World(servers.port, servers.app_port, servers.app6_port, app, sessions, signer, store, preview)
    app.gate.set()
    await preview.aclose()
    await grants.close()


@pytest_asyncio.fixture
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{world.port}", trust_env=False, timeout=30) as opened:
        yield opened
