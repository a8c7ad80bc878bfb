"""Changes below a folder, found by scanning it again and again.

Not by inotify: the kernel limits its instances per user over all containers of a host, and the development servers in
the sandboxes need them.

watch {path}    a stream of lines {"type": "created"|"modified"|"removed", "path": ...}; an empty line now and then
"""

from __future__ import annotations

import json
import os
import re
import select
import time

from .errors import Refused
from .worker import WorkerRequest
from .workspace import Workspace

INTERVAL_SECONDS = 0.25
#: The pause is at least this many times the duration of a scan, so a large folder takes at most a tenth of the time.
PAUSE_FACTOR = 9
HEARTBEAT_SECONDS = 10.0
ENTRIES_LIMIT = 100_000
#: Folders that tools fill, and that no one edits.
SKIPPED = frozenset({".git", "node_modules", "__pycache__", ".venv", ".next", ".cache"})

#: Files that are being written (`files.py`), which are reported under their name once they are complete.
_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{12}\.tmp")

#: What is compared of each path.
Snapshot = dict[str, tuple[int, int, int]]


def watch(workspace: Workspace, request: WorkerRequest) -> None:
    """Stream the changes until the client is gone."""
    folder = workspace.path(request.args)
    before = snapshot(folder, must_exist=True)
    stream = request.stream()
    stream.write(b"\n")
    poller = select.poll()
    poller.register(request.sock, select.POLLRDHUP)
    written_at = time.monotonic()
    pause = INTERVAL_SECONDS
    while not poller.poll(pause * 1000):
        began = time.monotonic()
        after = snapshot(folder)
        lines = [
            json.dumps({"type": kind, "path": workspace.shown(path)}, separators=(",", ":")).encode("ascii") + b"\n"
            for kind, path in changes(before, after)
        ]
        before = after
        now = time.monotonic()
        if lines or now - written_at > HEARTBEAT_SECONDS:
            stream.write(b"".join(lines) or b"\n")
            written_at = now
        pause = max(INTERVAL_SECONDS, PAUSE_FACTOR * (now - began))


def snapshot(folder: str, *, must_exist: bool = False) -> Snapshot:
    """Kind, size and time of everything below the folder, without the contents of skipped folders."""
    found: Snapshot = {}
    pending = [folder]
    while pending:
        current = pending.pop()
        try:
            with os.scandir(current) as entries:
                for entry in entries:
                    if _UNFINISHED.fullmatch(entry.name):
                        continue
                    try:
                        facts = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    is_folder = entry.is_dir(follow_symlinks=False)
                    # The time of a folder changes with every entry in it, which is reported for that entry.
                    found[entry.path] = (facts.st_ino, 0, 0) if is_folder else (0, facts.st_size, facts.st_mtime_ns)
                    if is_folder and entry.name not in SKIPPED:
                        pending.append(entry.path)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            if must_exist and current == folder:
                raise
        if len(found) > ENTRIES_LIMIT:
            raise Refused("file_refused", f"{folder}: more than {ENTRIES_LIMIT} entries cannot be watched", 413)
    return found


def changes(before: Snapshot, after: Snapshot) -> list[tuple[str, str]]:
    """(type, path) of each difference, parents before their contents."""
    found = [("removed", path) for path in before.keys() - after.keys()]
    found += [("created", path) for path in after.keys() - before.keys()]
    found += [("modified", path) for path in before.keys() & after.keys() if before[path] != after[path]]
    return sorted(found, key=lambda change: change[1])
