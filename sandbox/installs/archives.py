"""Kept installs: archives on the service's disk, by owner and key.

Each owner has a folder. `KEY.json` describes an archive, which is `KEY.DIGEST.tar` beside it. The description is
written last, so an archive without it does not exist; its time is that of the last use. Both are written beside their
names and renamed, so that a process may be killed at any moment, and several replicas may share the folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO

from sandbox.errors import SandboxError

log = logging.getLogger(__name__)

PIECE = 1024 * 1024
#: An owner may fill this part of the space, so that one cannot displace what all others keep.
OWNERS_SHARE = 0.5
#: Files of interrupted writes are removed after this time.
_ABANDONED_SECONDS = 3600.0


class NotKept(SandboxError):
    """An archive is not stored, for the reason that the message gives."""

    code = "install_not_kept"


@dataclass(frozen=True, slots=True)
class Contents:
    """What an archive holds. `folders` are those in a container in which everything is the archive's."""

    #: install or downloads
    kind: str
    project_id: str
    role: str
    runtime: str
    command: str
    files: int
    folders: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Kept:
    """One archive."""

    owner: str
    key: str
    contents: Contents
    size_bytes: int
    digest: str
    #: Unix times.
    created_at: float
    used_at: float


class KeptInstalls:
    """The archives of all owners in one folder. Any number of tasks and processes may use it at once."""

    def __init__(self, folder: Path, limit_bytes: int, *, require_room: Callable[[], None] = lambda: None) -> None:
        """`require_room` raises an error while there is too little disk space for something new."""
        self._folder = folder
        self._require_room = require_room
        self.limit_bytes = limit_bytes

    @property
    def largest_bytes(self) -> int:
        """The size of the largest archive that is kept."""
        return int(self.limit_bytes * OWNERS_SHARE)

    async def entries(self, owner: str | None = None) -> list[Kept]:
        """The archives of an owner or of all, the last used first."""
        return await asyncio.to_thread(self._entries, owner)

    async def find(self, owner: str, key: str) -> Kept | None:
        """The archive with this key, if it is there and undamaged. A damaged one is removed."""
        return await asyncio.to_thread(self._find, owner, key)

    async def read(self, kept: Kept) -> AsyncIterator[bytes]:
        """The bytes of an archive. Ends early if it is removed meanwhile by something else than this class."""
        with await asyncio.to_thread(self._tar(kept).open, "rb") as file:
            while data := await asyncio.to_thread(file.read, PIECE):
                yield data

    async def write(self, owner: str, key: str, contents: Contents, data: AsyncIterator[bytes]) -> Kept:
        """Store an archive instead of any earlier one with this key, then remove what is in excess of the limits.

        Raises NotKept if it is too large, DiskLow, and what `data` raises; nothing is stored then.
        """
        self._require_room()
        partial = self._folder_of(owner) / f"{key}.{secrets.token_hex(6)}.part"
        try:
            with await asyncio.to_thread(_create, partial) as file:
                size, digest = await self._copy(data, file)
            now = time.time()
            kept = Kept(owner, key, contents, size, digest, now, now)
            await asyncio.to_thread(self._commit, partial, kept)
        finally:
            await asyncio.to_thread(partial.unlink, missing_ok=True)
        return kept

    async def remove(self, kept: Kept) -> None:
        await asyncio.to_thread(self._remove, kept)

    async def clear(self, owner: str | None = None) -> list[Kept]:
        """Remove the archives of an owner or of all, and return them."""
        return await asyncio.to_thread(self._clear, owner)

    async def _copy(self, data: AsyncIterator[bytes], file: IO[bytes]) -> tuple[int, str]:
        digest = hashlib.blake2b()
        size = 0
        buffer = bytearray()

        def write(piece: bytes) -> None:
            digest.update(piece)
            file.write(piece)

        async for part in data:
            buffer += part
            size += len(part)
            if size > self.largest_bytes:
                raise NotKept(f"it is larger than {self.largest_bytes >> 20} MiB, half of SANDBOX_INSTALLS_MB")
            if len(buffer) >= PIECE:
                await asyncio.to_thread(write, bytes(buffer))
                buffer.clear()
        await asyncio.to_thread(write, bytes(buffer))
        return size, digest.hexdigest()

    def _commit(self, partial: Path, kept: Kept) -> None:
        path = self._description(kept.owner, kept.key)
        replaced = _read_description(path)
        description = partial.with_suffix(".json.part")
        try:
            os.replace(partial, self._tar(kept))
            description.write_text(json.dumps(asdict(kept)), encoding="utf-8")
            os.replace(description, path)
        finally:
            description.unlink(missing_ok=True)
        if replaced is not None and replaced.digest != kept.digest:
            self._tar(replaced).unlink(missing_ok=True)
        self._trim(kept.owner)

    def _find(self, owner: str, key: str) -> Kept | None:
        path = self._description(owner, key)
        kept = _read_description(path)
        if kept is None:
            return None
        try:
            with self._tar(kept).open("rb") as file:
                whole = os.fstat(file.fileno()).st_size == kept.size_bytes and _digest(file) == kept.digest
        except OSError as error:
            log.warning("a kept install cannot be read: %s", error)
            whole = False
        if not whole or (kept.owner, kept.key) != (owner, key):
            log.warning("a kept install was damaged and is removed: %s", path)
            self._remove(kept)
            return None
        now = time.time()
        with contextlib.suppress(FileNotFoundError):
            os.utime(path, (now, now))
        return replace(kept, used_at=now)

    def _entries(self, owner: str | None) -> list[Kept]:
        found = (_read_description(path) for path in self._folder_of(owner).glob("*.json" if owner else "*/*.json"))
        return sorted((kept for kept in found if kept is not None), key=lambda kept: kept.used_at, reverse=True)

    def _clear(self, owner: str | None) -> list[Kept]:
        found = self._entries(owner)
        for kept in found:
            self._remove(kept)
        if owner is not None:
            shutil.rmtree(self._folder_of(owner), ignore_errors=True)
        return found

    def _remove(self, kept: Kept) -> None:
        self._description(kept.owner, kept.key).unlink(missing_ok=True)
        self._tar(kept).unlink(missing_ok=True)

    def _trim(self, owner: str) -> None:
        """Remove the least recently used archives until the owner has no more than a share and all no more than the
        limit, and what interrupted writes have left."""
        own = self._entries(owner)
        self._remove_excess(own, self.largest_bytes)
        self._remove_excess(self._entries(None), self.limit_bytes)
        before = time.time() - _ABANDONED_SECONDS
        for path in self._leftovers():
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < before:
                    path.unlink()

    def _remove_excess(self, last_used_first: list[Kept], limit: int) -> None:
        size = sum(kept.size_bytes for kept in last_used_first)
        while size > limit and last_used_first:
            kept = last_used_first.pop()
            self._remove(kept)
            size -= kept.size_bytes

    def _leftovers(self) -> Iterator[Path]:
        yield from self._folder.glob("*/*.part")
        described = {self._tar(kept) for kept in self._entries(None)}
        yield from (tar for tar in self._folder.glob("*/*.tar") if tar not in described)

    def _folder_of(self, owner: str | None) -> Path:
        if owner is None:
            return self._folder
        return self._folder / hashlib.sha256(owner.encode()).hexdigest()[:32]

    def _tar(self, kept: Kept) -> Path:
        return self._folder_of(kept.owner) / f"{kept.key}.{kept.digest[:16]}.tar"

    def _description(self, owner: str, key: str) -> Path:
        return self._folder_of(owner) / f"{key}.json"


def _create(path: Path) -> IO[bytes]:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb", buffering=0)


def _digest(file: IO[bytes]) -> str:
    digest = hashlib.blake2b()
    while data := file.read(PIECE):
        digest.update(data)
    return digest.hexdigest()


def _read_description(path: Path) -> Kept | None:
    """The archive that a file describes; None if it is gone or makes no sense."""
    try:
        found = json.loads(path.read_bytes())
        contents = Contents(**found["contents"] | {"folders": tuple(found["contents"]["folders"])})
        return Kept(**found | {"contents": contents, "used_at": path.stat().st_mtime})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        log.warning("the description of a kept install is not understood and is removed: %s: %s", path, error)
        path.unlink(missing_ok=True)
        return None
