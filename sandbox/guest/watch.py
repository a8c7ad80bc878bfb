"""Changes below a folder, found by looking at it again and again.

Not inotify: its instances are counted per user over all containers of the host, and the sandboxed dev servers need
them.

watch {path}    a stream of lines {"type": "created"|"modified"|"removed", "path": ...}; an empty line now and then
"""

from __future__ import annotations

import json
import os
import select
import time

from .wire import Refused, Request
from .workspace import Workspace

SECONDS = 0.25
#: A large folder is looked at less often: at most a tenth of the time is spent on it.
SHARE = 9
HEARTBEAT_SECONDS = 10.0
ENTRIES_LIMIT = 100_000
#: Folders that tools fill with what nobody edits.
SKIPPED = frozenset({".git", "node_modules", "__pycache__", ".venv", ".next", ".cache"})

Snapshot = dict[str, tuple[int, int, int]]


def watch(workspace: Workspace, request: Request) -> None:
    folder = workspace.path(request.args)
    before = snapshot(folder, must_exist=True)
    stream = request.stream()
    stream.write(b"\n")
    poller = select.poll()
    poller.register(request.connection.sock, select.POLLRDHUP)
    said = time.monotonic()
    pause = SECONDS
    while not poller.poll(pause * 1000):
        began = time.monotonic()
        after = snapshot(folder)
        lines = [
            json.dumps({"type": kind, "path": workspace.shown(path)}, separators=(",", ":")).encode("ascii") + b"\n"
            for kind, path in changes(before, after)
        ]
        before = after
        now = time.monotonic()
        if lines or now - said > HEARTBEAT_SECONDS:
            stream.write(b"".join(lines) or b"\n")
            said = now
        pause = max(SECONDS, SHARE * (now - began))


def snapshot(folder: str, *, must_exist: bool = False) -> Snapshot:
    """Kind, size and time of everything below the folder, without what is in the skipped ones."""
    seen: Snapshot = {}
    pending = [folder]
    while pending:
        current = pending.pop()
        try:
            with os.scandir(current) as entries:
                for entry in entries:
                    try:
                        facts = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    is_folder = entry.is_dir(follow_symlinks=False)
                    # A folder changes whenever something in it does, which is told of that thing.
                    seen[entry.path] = (facts.st_ino, 0, 0) if is_folder else (0, facts.st_size, facts.st_mtime_ns)
                    if is_folder and entry.name not in SKIPPED:
                        pending.append(entry.path)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            if must_exist and current == folder:
                raise
        if len(seen) > ENTRIES_LIMIT:
            raise Refused("file_refused", f"{folder}: more than {ENTRIES_LIMIT} entries cannot be watched", 413)
    return seen


def changes(before: Snapshot, after: Snapshot) -> list[tuple[str, str]]:
    """What became of each path, parents before what is in them."""
    found = [("removed", path) for path in before.keys() - after.keys()]
    found += [("created", path) for path in after.keys() - before.keys()]
    found += [("modified", path) for path in before.keys() & after.keys() if before[path] != after[path]]
    return sorted(found, key=lambda change: change[1])
