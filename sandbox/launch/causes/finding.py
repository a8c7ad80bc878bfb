"""Finds causes in worker processes: an output is what an app printed, and may be made to be slow to read."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from sandbox.domain.evidence import FailureCause
from sandbox.engine.guest import Guest
from sandbox.errors import GuestError
from sandbox.launch.causes.cause import Cause
from sandbox.launch.causes.reading import end_of, find_cause
from sandbox.launch.causes.shell import windows_line_ends
from sandbox.workers import InputTooComplex, Workers, WorkersBusy, WorkerTimeout, WorkLimits

#: The longest outputs take some milliseconds.
LIMITS = WorkLimits(cpu_seconds=2, memory_bytes=256 * 1024 * 1024, deadline_seconds=8)
_FIRST_BYTES = 256


class Causes:
    """Finds causes. Used from one event loop."""

    def __init__(self, workers: Workers) -> None:
        """`workers` should be shared with nothing that takes long: failed launches wait for them."""
        self._workers = workers

    async def find(self, session_id: UUID, output: Sequence[str], root: str) -> Cause:
        """As `find_cause`. The end of an output that is too intricate to be read is its cause."""
        try:
            return await self._workers.run(f"session {session_id}", LIMITS, find_cause, list(output), root)
        except (InputTooComplex, WorkersBusy, WorkerTimeout):
            return end_of(output)

    async def explain(self, session_id: UUID, guest: Guest, output: Sequence[str], root: str) -> Cause:
        """As `find`. A script that a shell cannot find although it is there is looked into: its first line may name a
        program that does not exist, because of the line ends of Windows. Raises GuestError `agent_unreachable`."""
        cause = await self.find(session_id, output, root)
        file = cause.evidence.file
        if cause.evidence.cause is not FailureCause.MISSING_FILE or file is None or cause.evidence.tool != "shell":
            return cause
        beginning = await _beginning(guest, posixpath.join(root, file))
        if beginning is None:
            return cause if cause.hint else replace(cause, hint=f"Upload {file}, or correct its name.")
        first = beginning.split(b"\n")[0]
        if first.endswith(b"\r"):
            evidence, hint = windows_line_ends(file)
            return replace(cause, evidence=evidence, hint=hint)
        if first.startswith(b"#!"):
            program = first[2:].strip().decode("utf-8", "replace").split(" ")[0]
            evidence = replace(cause.evidence, cause=FailureCause.MISSING_PROGRAM, program=program)
            return replace(
                cause, evidence=evidence, hint=f"{file} begins with #!{program}, which the image does not have."
            )
        return cause


async def _beginning(guest: Guest, path: str) -> bytes | None:
    """The first bytes of a file; None if it cannot be read."""
    content = b""
    try:
        async for piece in await guest.read_file(path):
            content += piece
            if len(content) >= _FIRST_BYTES:
                break
    except GuestError as error:
        if error.code == "agent_unreachable":
            raise
        return None
    return content
