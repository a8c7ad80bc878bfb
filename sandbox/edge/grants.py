"""Grants: which visitors the edge lets through to which ports, without asking the service.

A grant is a hard link in a private folder, `grants/{end of the session's id}/{port}.{key}.sock`, to a unix socket that
leads to the port. The edge takes key and port from the visitor's cookie and connects to the link of that name, so its
configuration never changes. A hard link, not a symbolic one: the guest agent's folder is writable inside the container,
and whatever is put in the socket's place there must not redirect the edge to another socket of this host.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from uuid import UUID

from cachetools import TTLCache

from sandbox.domain.caller import Caller, SignedInBy
from sandbox.edge.folder import EdgeFolder
from sandbox.edge.relays import Relays
from sandbox.edge.store import GrantState, GrantStore
from sandbox.engine.base import Engine
from sandbox.errors import DatabaseUnavailable, GuestError
from sandbox.preview.target import Grant, PreviewTarget

#: How long after a sign-in the visitor has to sign in again.
LIFETIME_SECONDS = 12 * 3600
#: How often the links are compared with the database: so soon after its end a grant is closed.
SYNC_SECONDS = 2.0
ACTIVITY_SECONDS = 15.0
_CLEANUP_SECONDS = 3600.0
_FILE_NAME = re.compile(r"(?P<port>[0-9]{1,5})\.(?P<key>[A-Za-z0-9_-]{22})(?:\.public)?\.sock", re.ASCII)

log = logging.getLogger(__name__)


class Grants:
    """Implements `preview.target.PreviewGrants`. Used from one event loop.

    `touch` is called with each session whose preview has been used lately.
    """

    def __init__(self, folder: EdgeFolder, store: GrantStore, engine: Engine, touch: Callable[[UUID], None]) -> None:
        self._folder = folder.path / "grants"
        self._store = store
        self._engine = engine
        self._touch = touch
        self._relays = Relays(folder.path / "relays")
        self._of_tokens: TTLCache[tuple[UUID, UUID], Grant] = TTLCache(4096, LIFETIME_SECONDS / 2)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to close grants that are no longer good."""
        await asyncio.to_thread(self._prepare)
        self._task = asyncio.create_task(self._maintain(), name="preview grants")

    async def close(self) -> None:
        """Stop. The links stay, and the edge goes on with them."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._relays.aclose()

    async def create(self, session_id: UUID, by: SignedInBy, address: str | None) -> Grant | None:
        """A new grant for a visitor who has signed in, with a browser if there is an IP address; None if what the
        visitor signed in with is not good any more."""
        grant = Grant(secrets.token_urlsafe(16), session_id, by, address)
        return grant if await self._store.insert(grant, LIFETIME_SECONDS) else None

    async def find(self, key: str, session_id: UUID) -> Grant | None:
        """The session's grant with this key; None if there is none, its time is over or its token is not good."""
        return await self._store.find(key, session_id)

    async def of_address(self, session_id: UUID, address: str) -> Grant | None:
        """A grant of the session for a browser that signed in from this IP address, the newest that is good."""
        return await self._store.find_by_address(session_id, address)

    async def of_token(self, session_id: UUID, caller: Caller) -> Grant | None:
        """The grant of a caller who sends a token with each request; None if the token is not good any more."""
        token_id = UUID(caller.token_id)
        known = self._of_tokens.get((session_id, token_id))
        if known is None:
            known = await self.create(session_id, caller.signed_in_by, None)
            if known is not None:
                self._of_tokens[session_id, token_id] = known
        return known

    async def connect(self, grant: Grant, port: int, target: PreviewTarget, *, renew: bool) -> None:
        """Link the grant to the port, in the first of the target's roles where something listens on it.

        If the app uses TLS, the link leads through a relay of this service that connects to it with TLS. A link that
        is there is left as it is, unless `renew` says that it leads nowhere. Raises GuestError: `port_not_open` if
        nothing listens, `agent_unreachable` if a guest agent does not answer.
        """
        name = grant.name(port, public_names=target.public_names)
        link = self._folder / grant.session_id.hex[-12:] / f"{name}.sock"
        if not renew and link.exists():
            return
        failure = GuestError(f"nothing listens on port {port}", code="port_not_open")
        for role in target.candidates(port):
            try:
                path = await self._open(grant, port, role, tls=port in target.tls_ports)
            except GuestError as error:
                if failure.code == "port_not_open":  # says less than a guest agent that does not answer
                    failure = error
                continue
            await asyncio.to_thread(_make_link, path, link)
            return
        raise failure

    async def _open(self, grant: Grant, port: int, role: str, *, tls: bool) -> Path:
        """The socket that leads to the port of this role."""
        guest, name = self._engine.guest(grant.session_id, role), _socket_name(grant.key, port)
        if tls:
            return await self._relays.open(name, guest, port, tls=True)
        try:
            found = await guest.port_sockets(opened={name: port})
        except GuestError as error:
            if error.code != "agent_refused":
                raise
            return await self._relays.open(name, guest, port)
        if name not in found:
            raise GuestError(f"nothing listens on port {port}", code="port_not_open")
        path = self._engine.port_socket(grant.session_id, role, name)
        if not path.exists():  # the engine does not share sockets with this host
            await guest.port_sockets(closed=[name])
            return await self._relays.open(name, guest, port)
        return path

    def _prepare(self) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        # Relays of an earlier run of the service.
        shutil.rmtree(self._folder.parent / "relays", ignore_errors=True)

    async def _maintain(self) -> None:
        active_at = cleaned_at = time.monotonic()
        while True:
            await asyncio.sleep(SYNC_SECONDS)
            now = time.monotonic()
            try:
                good = await self._close_ended()
                if now - active_at >= ACTIVITY_SECONDS:
                    await self._note_activity(good, now - active_at)
                    active_at = now
                if now - cleaned_at >= _CLEANUP_SECONDS:
                    await self._store.drop_expired()
                    cleaned_at = now
            except DatabaseUnavailable as error:
                # Open previews go on while the database is away.
                log.warning("grants of previews could not be checked: %s", error)
            except Exception:
                log.exception("grants of previews could not be checked")

    async def _close_ended(self) -> list[tuple[GrantState, int]]:
        """Close the grants that are no longer good; the others, with their ports."""
        links = await asyncio.to_thread(self._list)
        if not links:
            return []
        states = await self._store.states({key for _, _, key in links})
        good = []
        for path, port, key in links:
            state = states.get(key)
            if state is not None and state.good:
                good.append((state, port))
                continue
            path.unlink(missing_ok=True)
            await self._relays.close(_socket_name(key, port))
            if state is not None:
                await self._close_sockets(state, port)
        return good

    async def _close_sockets(self, state: GrantState, port: int) -> None:
        name = _socket_name(state.grant.key, port)
        for role in state.roles:
            with contextlib.suppress(GuestError):  # its container is gone, and the connections with it
                await self._engine.guest(state.grant.session_id, role).port_sockets(closed=[name])

    async def _note_activity(self, good: Iterable[tuple[GrantState, int]], seconds: float) -> None:
        """Touch the sessions whose previews were used within this time."""
        for session_id, roles in {state.grant.session_id: state.roles for state, _ in good}.items():
            for role in roles:
                with contextlib.suppress(GuestError):
                    found = await self._engine.guest(session_id, role).port_sockets()
                    if any(each.idle_seconds <= seconds for each in found.values()):
                        self._touch(session_id)
        for state, port in good:
            relay = self._relays.describe(_socket_name(state.grant.key, port))
            if relay is not None and relay.idle_seconds <= seconds:
                self._touch(state.grant.session_id)

    def _list(self) -> list[tuple[Path, int, str]]:
        """Every link: its path, its port and its key. Empty folders are removed."""
        found = []
        for folder in self._folder.iterdir():
            links = [(path, match) for path in folder.iterdir() if (match := _FILE_NAME.fullmatch(path.name))]
            found += [(path, int(match["port"]), match["key"]) for path, match in links]
            if not links:
                with contextlib.suppress(OSError):  # one was made just now
                    folder.rmdir()
        return found


def _socket_name(key: str, port: int) -> str:
    """The name of the guest agent's socket. The key itself is not for the container to know."""
    return f"{hashlib.sha256(key.encode()).hexdigest()[:24]}-{port}"


def _make_link(socket_path: Path, link: Path) -> None:
    new = link.with_suffix(".new")
    new.unlink(missing_ok=True)
    link.parent.mkdir(mode=0o700, exist_ok=True)
    try:
        os.link(socket_path, new, follow_symlinks=False)
        if not stat.S_ISSOCK(new.lstat().st_mode):
            raise GuestError(f"{socket_path.name} is not a socket", code="agent_refused")
        new.replace(link)
    except FileNotFoundError as error:
        raise GuestError(f"the socket {socket_path.name} is gone", code="agent_unreachable") from error
    finally:
        # Renaming one link of a file to another link of the same file leaves both.
        new.unlink(missing_ok=True)
