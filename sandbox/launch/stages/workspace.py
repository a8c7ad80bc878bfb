"""Stage `workspace`: puts the project's files into every role's `/workspace`.

A marker on the volume names the source that was unpacked there. A relaunch or a recovery with the same source leaves
the files as they are, with the user's edits; a replaced project is unpacked over them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from sandbox.concurrency import for_each
from sandbox.domain.stages import StageName
from sandbox.engine.guest import Guest
from sandbox.errors import GuestError, StageFailed
from sandbox.launch.environment import UNPACKED
from sandbox.launch.stage import StageContext, StageResult

#: This file holds the digest of the source that was unpacked.
MARKER = "/workspace/.sandbox/source"


class Archives(Protocol):
    """The stored project archives (`projects/service.py`)."""

    async def archive(self, digest: str) -> bytes: ...


class WorkspaceStage:
    name = StageName.WORKSPACE

    def __init__(self, archives: Archives) -> None:
        self._archives = archives

    async def run(self, context: StageContext) -> StageResult:
        digest = context.session.project_digest
        if digest is None:
            return StageResult(skipped=True)
        archive = await self._archives.archive(digest)

        async def unpack(role: str) -> None:
            guest = context.engine.guest(context.session.session_id, role)
            present = await _read(guest, MARKER)
            if present == digest:
                await context.journal.log_line("the files are already there and are left as they are", role=role)
                return
            try:
                await guest.put_tar("/workspace", archive)
            except GuestError as error:
                if error.code in ("agent_unreachable", "disk_full"):
                    raise
                raise StageFailed(
                    "workspace_failed", f"the project could not be unpacked: {error}", error.hint
                ) from error
            if present is None:
                await guest.write_file(UNPACKED, b"")
            await guest.write_file(MARKER, digest.encode())

        await for_each(context.plan.roles, unpack)
        return StageResult()


async def _read(guest: Guest, path: str) -> str | None:
    if await guest.stat(path) is None:
        return None
    chunks: AsyncIterator[bytes] = await guest.read_file(path)
    return b"".join([chunk async for chunk in chunks]).decode("utf-8", "replace")
