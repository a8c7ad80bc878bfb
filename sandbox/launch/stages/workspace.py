"""Stage `workspace`: the project's files in every role's `/workspace`.

The volume remembers which source it holds: a relaunch or a recovery with the same source leaves the user's edited
files alone; a replaced project is laid over them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from sandbox.concurrency import for_each
from sandbox.domain.stages import StageName
from sandbox.engine.base import Guest
from sandbox.errors import GuestError, StageFailed
from sandbox.launch.stage import StageContext, StageResult

#: Holds the digest of the source that was unpacked here.
MARKER = "/workspace/.sandbox/source"


class Archives(Protocol):
    """Where a stored archive's bytes come from (`projects/`)."""

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
            if await _read(guest, MARKER) == digest:
                await context.journal.say("the files are there already and are left as they are", role=role)
                return
            try:
                await guest.put_tar("/workspace", archive)
            except GuestError as error:
                if error.code == "agent_unreachable":
                    raise
                raise StageFailed(
                    "workspace_failed", f"the project could not be unpacked: {error}", error.hint
                ) from error
            await guest.write_file(MARKER, digest.encode())

        await for_each(context.plan.roles, unpack)
        return StageResult()


async def _read(guest: Guest, path: str) -> str | None:
    if await guest.stat(path) is None:
        return None
    chunks: AsyncIterator[bytes] = await guest.read_file(path)
    return b"".join([chunk async for chunk in chunks]).decode("utf-8", "replace")
