"""The output of a session's apps as server-sent events that can be resumed.

An event's id holds the run and, for each role, the offset after the event in the role's output:
`run=5f0c3b0a1111&backend=120&frontend=77`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from urllib.parse import parse_qsl, urlencode

from sandbox.domain.processes import ProcessKind, process_name
from sandbox.domain.session import Session
from sandbox.engine.guest import Guest
from sandbox.engine.guest_data import OutputChunk, Stream
from sandbox.errors import GuestError
from sandbox.events.sse import encode_event
from sandbox.launch.output import LineAssembler

#: Chunks that may wait to be sent to a client that reads slowly.
QUEUE_CHUNKS = 256


def read_resume(session: Session, resume: str | None) -> dict[str, int]:
    """The offsets, by role, in the event id `resume`. Empty, so from the beginning, if the id names another run or is
    malformed."""
    values = dict(parse_qsl(resume or ""))
    if values.pop("run", None) != session.run_id.hex[:12]:
        return {}
    return {role: int(text) for role, text in values.items() if text.isascii() and text.isdigit() and len(text) < 16}


async def app_lines(
    session: Session, guests: dict[str, Guest], offsets: dict[str, int], *, follow: bool
) -> AsyncIterator[bytes]:
    """Encoded `log` events `{role, stream, line, end, time}` of the given roles, as they are read, and a final `end`.

    With `follow` the stream ends when the apps have exited, else at the end of the output so far. The values of the
    session are decrypted, so that secrets are redacted.
    """
    queue: asyncio.Queue[tuple[str, OutputChunk] | None] = asyncio.Queue(QUEUE_CHUNKS)
    tasks = [
        asyncio.create_task(
            _read(
                queue, role, guest, process_name(ProcessKind.APP, session.run_id), offsets.get(role, 0), follow=follow
            )
        )
        for role, guest in guests.items()
    ]
    done, hide = dict(offsets), session.values.redactor()
    lines = {(role, stream): LineAssembler(offsets.get(role, 0)) for role in guests for stream in Stream}
    try:
        open_roles = len(tasks)
        while open_roles:
            item = await queue.get()
            if item is None:
                open_roles -= 1
                continue
            role, chunk = item
            completed = lines[role, chunk.stream].feed(chunk)
            other = lines[role, Stream.STDERR if chunk.stream is Stream.STDOUT else Stream.STDOUT]
            # Resuming may repeat a line of the other stream, but does not lose one.
            unfinished = other.resume_offset(chunk.offset)
            pieces = []
            origin = {"role": role, "stream": chunk.stream.value, "time": _rfc3339(chunk.time)}
            for end, line in completed:
                done[role] = min(end, unfinished) if unfinished < chunk.offset else end
                event = {**origin, "line": hide.text(line), "end": end}
                pieces.append(encode_event("log", event, event_id=_ident(session, done)))
            if pieces:
                yield b"".join(pieces)
        yield encode_event("end", {}, event_id=_ident(session, done))
    finally:
        for task in tasks:
            task.cancel()


async def _read(
    queue: asyncio.Queue[tuple[str, OutputChunk] | None],
    role: str,
    guest: Guest,
    name: str,
    offset: int,
    *,
    follow: bool,
) -> None:
    try:
        async for chunk in guest.output(name, offset=offset, follow=follow):
            await queue.put((role, chunk))
    except GuestError as error:
        if error.code != "process_not_found":
            message = f"output of {role} is not available: {error}".encode()
            await queue.put((role, OutputChunk(Stream.STDERR, offset, message + b"\n")))
    finally:
        await queue.put(None)


def _ident(session: Session, done: dict[str, int]) -> str:
    return urlencode({"run": session.run_id.hex[:12], **done})


def _rfc3339(time: float | None) -> str | None:
    if time is None:
        return None
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
