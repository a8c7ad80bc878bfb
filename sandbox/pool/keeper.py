"""Keeps the pool filled: makes containers ahead of time, and removes those that are broken, out of date or too many.

One replica at a time does it. Everything that is left to do follows from the rows and from the engine, so a replica
that dies in the middle leaves nothing: a container that it was making is removed by the next pass of any replica.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID, uuid4

from sandbox.concurrency import for_each
from sandbox.crashpoints import crash_point
from sandbox.db.connection import Database
from sandbox.db.notifications import listen
from sandbox.db.periodic import exclusive
from sandbox.engine.base import ContainerSpec, Engine, Limits
from sandbox.engine.labels import POOL_ROLE
from sandbox.errors import GuestError, SandboxError
from sandbox.pool import store
from sandbox.pool.store import Member, MemberState

log = logging.getLogger(__name__)

#: How often everything is checked when nothing is claimed.
CHECK_SECONDS = 15.0
#: The pool is as large as the demand of the busiest minute of these, so it shrinks when that was as long ago.
DEMAND_MINUTES = 10
#: The least time from the start of one container to that of the next: launches come first.
PAUSE_SECONDS = 0.25
#: While containers are left, they are not replaced until nothing was claimed for this long, for the same reason.
QUIET_SECONDS = 0.5
#: How long a new container may take to answer, and one that waits.
START_SECONDS = 30.0
ANSWER_SECONDS = 2.0
_NOBODY = UUID(int=0)


class Images(Protocol):
    """The images of runtimes (`images/runtime_images.py`)."""

    async def reference(self, name: str) -> str | None: ...


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a container of a runtime is to be now."""

    image: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class PoolSize:
    """How many containers of each runtime wait."""

    least: int
    most: int

    def for_demand(self, needed: int) -> int:
        """How many are to wait if this many were needed at once lately."""
        return min(self.most, max(self.least, needed))


class PoolKeeper:
    """Keeps the pool in the background. Containers that wait stay there when the service stops. Not thread-safe."""

    def __init__(
        self,
        db: Database,
        engine: Engine,
        images: Images,
        runtimes: Sequence[str],
        limits: Limits,
        size: PoolSize,
        *,
        require_room: Callable[[], None] = lambda: None,
    ) -> None:
        """`require_room` raises `disk_low` while there is too little disk space for something new."""
        self._db = db
        self._engine = engine
        self._images = images
        self._runtimes = runtimes
        self._limits = limits
        self._size = size
        self._require_room = require_room
        self._wake = asyncio.Event()
        self._claimed_at = 0.0
        self._check_at = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._keep(), name="pool"),
            asyncio.create_task(listen(self._db, store.CHANNEL, self._on_claim), name="pool-listener"),
        ]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def once(self) -> bool:
        """Check the pool, unless that was done just now, and fill it; False if another replica is doing it."""
        async with exclusive(self._db, "pool") as acquired:
            if acquired:
                wanted = await self._wanted()
                if time.monotonic() >= self._check_at:
                    await self._check(wanted)
                    self._check_at = time.monotonic() + CHECK_SECONDS
                await self._fill(wanted)
            return acquired

    def _on_claim(self, payload: str | None) -> None:
        if payload is not None:
            self._claimed_at = time.monotonic()
        self._wake.set()

    async def _keep(self) -> None:
        failure = ""
        while True:
            self._wake.clear()
            try:
                await self.once()
                failure = ""
            except SandboxError as error:
                if error.message != failure:
                    log.warning("the pool cannot be kept now: %s", error, extra={"code": error.code})
                failure = error.message
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHECK_SECONDS):
                    await self._wake.wait()

    async def _wanted(self) -> dict[str, _Wanted]:
        """What is to wait, by runtime; nothing of runtimes that have no image yet, and nothing if the pool is off."""
        wanted = {}
        for name in self._runtimes if self._size.most else ():
            image = await self._images.reference(name)
            if image is not None:
                fingerprint = await self._engine.fingerprint(ContainerSpec.of_pool(_NOBODY, image, name, self._limits))
                wanted[name] = _Wanted(image, fingerprint)
        return wanted

    async def _check(self, wanted: Mapping[str, _Wanted]) -> None:
        """Remove what an interrupted pass has left, what does not answer, what is out of date and what is too much."""
        async with self._db.read() as conn:
            found = await store.members(conn)
            needed = await store.demand(conn, DEMAND_MINUTES)
        ready = {str(member.member_id): member for member in found if member.state is MemberState.READY}
        answers = await for_each(ready, lambda key: self._answers(ready[key].member_id))
        retired = [member for member in found if member.state is not MemberState.READY]
        usable: dict[str, list[Member]] = defaultdict(list)
        for key, member in ready.items():
            spec = wanted.get(member.runtime)
            if answers[key] and spec is not None and spec.fingerprint == member.fingerprint:
                usable[member.runtime].append(member)
            else:
                retired.append(member)
        for runtime, members in usable.items():
            retired += members[: max(0, len(members) - self._size.for_demand(needed.get(runtime, 0)))]
        await self._remove([member.member_id for member in retired])

    async def _answers(self, member: UUID) -> bool:
        try:
            await self._engine.guest(member, POOL_ROLE).wait_ready(ANSWER_SECONDS)
        except GuestError as error:
            log.info("container %s of the pool does not answer and is replaced: %s", member, error)
            return False
        return True

    async def _remove(self, members: Sequence[UUID]) -> None:
        """Remove containers that no session has. One that is claimed at that moment stays."""
        async with self._db.transaction() as conn:
            retired = await store.retire(conn, members)
        for member in retired:
            await self._engine.remove_session(member)
            async with self._db.transaction() as conn:
                await store.delete(conn, member)

    async def _fill(self, wanted: Mapping[str, _Wanted]) -> None:
        """Make what is missing, one container after the other, until nothing is."""
        while True:
            async with self._db.read() as conn:
                ready = Counter(m.runtime for m in await store.members(conn) if m.state is MemberState.READY)
                needed = await store.demand(conn, DEMAND_MINUTES)
            missing = [name for name in wanted if ready[name] < self._size.for_demand(needed.get(name, 0))]
            if not missing:
                return
            name = min(missing, key=lambda one: ready[one])
            quiet_in = self._claimed_at + QUIET_SECONDS - time.monotonic()
            if ready[name] and quiet_in > 0:
                await asyncio.sleep(quiet_in)
                continue
            self._require_room()
            await self._make(name, wanted[name])
            await asyncio.sleep(PAUSE_SECONDS)

    async def _make(self, runtime: str, wanted: _Wanted) -> None:
        """Make one container. If that fails, the next check removes what there is of it."""
        member = Member(uuid4(), runtime, wanted.fingerprint, MemberState.MAKING)
        async with self._db.transaction() as conn:
            await store.add(conn, member)
        crash_point("pool:recorded")
        await self._engine.ensure_container(
            ContainerSpec.of_pool(member.member_id, wanted.image, runtime, self._limits)
        )
        crash_point("pool:made")
        guest = self._engine.guest(member.member_id, POOL_ROLE)
        await guest.wait_ready(START_SECONDS)
        # The first command takes longer than those after it.
        await guest.exec(["true"], timeout_seconds=START_SECONDS)
        async with self._db.transaction() as conn:
            ready = await store.mark_ready(conn, member.member_id)
        crash_point("pool:ready")
        if not ready:
            await self._remove([member.member_id])
