"""An in-memory `/workspace`: files, folders and tar archives, with the errors of the real guest agent."""

from __future__ import annotations

import asyncio
import io
import itertools
import posixpath
import tarfile
import time
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sandbox.engine.guest_data import Changes, FileInfo
from tests.fakes.errors import guest_error

WORKSPACE = "/workspace"
_PIECE = 64 * 1024


@dataclass
class _Node:
    """A file, or a folder if `data` is None."""

    data: bytes | None
    mode: int
    modified_at: float = field(default_factory=time.time)
    #: Counts up over all changes, as times of change do.
    changed: int = field(default_factory=itertools.count().__next__)

    @property
    def kind(self) -> str:
        return "directory" if self.data is None else "file"


class FakeFiles:
    """The files of one volume. Not thread-safe."""

    def __init__(self) -> None:
        self._nodes: dict[str, _Node] = {WORKSPACE: _Node(None, 0o755)}
        self._watchers: dict[asyncio.Queue[dict[str, Any]], str] = {}

    def read(self, path: str) -> bytes:
        node = self._existing(path)
        if node.data is None:
            raise guest_error("file_refused", f"{path}: is a directory")
        return node.data

    def write(self, path: str, data: bytes, mode: int | None = None) -> FileInfo:
        full = _normalised(path)
        if not full.startswith(f"{WORKSPACE}/"):
            raise guest_error("file_refused", f"{path}: permission denied")
        present = self._nodes.get(full)
        if present is not None and present.data is None:
            raise guest_error("file_refused", f"{path}: is a directory")
        self.make_directory(posixpath.dirname(full))
        self._nodes[full] = _Node(data, mode if mode is not None else present.mode if present else 0o644)
        self._notify("created" if present is None else "modified", full)
        return self._info(full)

    def stat(self, path: str) -> FileInfo | None:
        full = _normalised(path)
        return self._info(full) if full in self._nodes else None

    def list(self, path: str, depth: int) -> list[FileInfo]:
        folder = _normalised(path)
        if self._existing(path).data is not None:
            raise guest_error("file_refused", f"{path}: is not a directory")
        below = (name for name in sorted(self._nodes) if name.startswith(f"{folder}/"))
        return [self._info(name) for name in below if name.removeprefix(folder).count("/") <= depth]

    def make_directory(self, path: str) -> None:
        full = _normalised(path)
        for end in range(len(full)):
            if full[end] == "/" and end:
                self._make_one(full[:end])
        self._make_one(full)

    def move(self, source: str, target: str) -> None:
        old, new = _normalised(source), _normalised(target)
        self._existing(source)
        self.make_directory(posixpath.dirname(new))
        for name in [name for name in self._nodes if name == old or name.startswith(f"{old}/")]:
            self._nodes[new + name.removeprefix(old)] = self._nodes.pop(name)
        self._notify("removed", old)
        self._notify("created", new)

    def remove(self, path: str) -> bool:
        full = _normalised(path)
        if full == WORKSPACE:
            raise guest_error("file_refused", "the workspace itself cannot be removed")
        gone = [name for name in self._nodes if name == full or name.startswith(f"{full}/")]
        for name in gone:
            del self._nodes[name]
            self._notify("removed", name)
        return bool(gone)

    def put_tar(self, path: str, data: bytes) -> None:
        """Unpack an archive. Nothing is written if one of its members is refused."""
        folder = _normalised(path).rstrip("/")
        members: list[tuple[str, bytes | None, int]] = []
        try:
            with tarfile.open(fileobj=io.BytesIO(data)) as tar:
                for member in tar:
                    if member.name.startswith("/") or ".." in member.name.split("/"):
                        raise guest_error("file_refused", f"{member.name}: a path out of the folder")
                    if not (member.isreg() or member.isdir()):
                        raise guest_error("file_refused", f"{member.name}: a link or device")
                    file = tar.extractfile(member)
                    members.append((member.name, file.read() if file else None, member.mode & 0o777))
        except (tarfile.TarError, EOFError) as error:
            raise guest_error("file_refused", f"not a readable tar archive: {error}") from None
        for name, content, mode in members:
            if content is None:
                self.make_directory(f"{folder}/{name}")
            else:
                self.write(f"{folder}/{name}", content, mode)

    def get_tar(self, path: str, exclude: Collection[str]) -> bytes:
        folder = _normalised(path)
        self._existing(path)
        inside = (name for name in sorted(self._nodes) if name.startswith(f"{folder}/"))
        kept = [name for name in inside if set(exclude).isdisjoint(name.removeprefix(f"{folder}/").split("/"))]
        return self._packed(folder, kept, "w:gz")

    def _packed(self, folder: str, names: Sequence[str], mode: Literal["w", "w:gz"] = "w") -> bytes:
        target = io.BytesIO()
        with tarfile.open(fileobj=target, mode=mode) as tar:
            for name in names:
                node = self._nodes[name]
                member = tarfile.TarInfo(name.removeprefix(f"{folder}/"))
                member.mode = node.mode
                member.type = tarfile.DIRTYPE if node.data is None else tarfile.REGTYPE
                member.size = len(node.data or b"")
                tar.addfile(member, io.BytesIO(node.data or b""))
        return target.getvalue()

    async def watch(self, path: str) -> AsyncIterator[dict[str, Any]]:
        """Changes below a folder from the first iteration on."""
        self._existing(path)
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._watchers[queue] = _normalised(path)
        try:
            while True:
                yield await queue.get()
        finally:
            del self._watchers[queue]

    def changes(self, folders: Sequence[str], since: str | None, excluded: Sequence[str]) -> Changes:
        names = self._changed(folders, since, excluded)
        new = [name for name in names if self._nodes[name].data is None and self._is_new(name, names)]
        whole = tuple(name for name in new if posixpath.dirname(name) not in new)
        return Changes(len(names), sum(len(self._nodes[name].data or b"") for name in names), whole)

    def pack_changes(self, folders: Sequence[str], since: str | None, excluded: Sequence[str]) -> bytes:
        return self._packed("", self._changed(folders, since, excluded))

    def _changed(self, folders: Sequence[str], since: str | None, excluded: Sequence[str]) -> Sequence[str]:
        moment = -1 if since is None else self._existing(since).changed
        return [
            name
            for name in sorted(self._nodes)
            if any(name.startswith(f"{folder}/") for folder in folders)
            and not any(name == left or name.startswith(f"{left}/") for left in excluded)
            and self._nodes[name].changed > moment
        ]

    def _is_new(self, folder: str, names: Sequence[str]) -> bool:
        return all(name in names for name in self._nodes if name == folder or name.startswith(f"{folder}/"))

    def _existing(self, path: str) -> _Node:
        node = self._nodes.get(_normalised(path))
        if node is None:
            raise guest_error("file_not_found", f"{path}: no such file or folder")
        return node

    def _make_one(self, full: str) -> None:
        node = self._nodes.get(full)
        if node is None:
            self._nodes[full] = _Node(None, 0o755)
            self._notify("created", full)
        elif node.data is not None:
            raise guest_error("file_refused", f"{full}: is not a directory")

    def _info(self, full: str) -> FileInfo:
        node = self._nodes[full]
        return FileInfo(_shown(full), node.kind, len(node.data or b""), node.mode, node.modified_at)

    def _notify(self, kind: str, full: str) -> None:
        for queue, folder in self._watchers.items():
            if full.startswith(f"{folder}/"):
                queue.put_nowait({"type": kind, "path": _shown(full)})


async def collect(data: AsyncIterator[bytes] | bytes) -> bytes:
    """All bytes of what a caller gives as bytes or as a stream."""
    return data if isinstance(data, bytes) else b"".join([piece async for piece in data])


async def in_pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), _PIECE):
        yield data[start : start + _PIECE]


def _normalised(path: str) -> str:
    if "\0" in path:
        raise guest_error("agent_refused", "a path must not have a NUL in it")
    return posixpath.normpath(posixpath.join(WORKSPACE, path))


def _shown(full: str) -> str:
    return "." if full == WORKSPACE else full.removeprefix(f"{WORKSPACE}/")
