"""Installs that are kept: a role whose dependencies were installed before by the same owner gets them as a copy.

What an install adds to the workspace and to the home is kept once the command has succeeded, before the app starts. It
is given to the later launches of its owner with equal inputs (`installs/inputs.py`). Downloaded packages are kept apart
from it, for launches whose inputs differ. Both are archives on the service's disk: no container can write to them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Protocol

from sandbox.domain.events import EventType, NewEvent
from sandbox.domain.stages import StageName
from sandbox.engine.guest import Guest
from sandbox.engine.guest_data import Changes
from sandbox.errors import GuestError, SandboxError
from sandbox.installs.archives import Contents, Kept, KeptInstalls
from sandbox.installs.inputs import key_content, read_inputs
from sandbox.launch.environment import UNPACKED, WORKSPACE, role_root
from sandbox.launch.otel_environment import given_variables
from sandbox.launch.stage import StageContext

log = logging.getLogger(__name__)

HOME = "/home/sandbox"
#: Written just before an install: what changes afterwards is the install's.
BEGIN = f"{WORKSPACE}/.sandbox/install"
#: Where package managers keep what they have downloaded.
DOWNLOADS = (
    f"{HOME}/.npm/_cacache",
    f"{HOME}/.cache/pip",
    f"{HOME}/.cache/pnpm",
    f"{HOME}/.cache/uv",
    f"{HOME}/.cache/yarn",
    f"{HOME}/.local/share/pnpm/store",
    f"{HOME}/.yarn/berry/cache",
    f"{WORKSPACE}/.pnpm-store",
)
_OWN = (f"{WORKSPACE}/.sandbox", f"{HOME}/.npm/_logs")
_REMOVE_SECONDS = 120.0
#: Errors after which the stage is tried again; after others, the dependencies are installed.
_PASSING = frozenset({"agent_unreachable", "disk_full"})


class Images(Protocol):
    """The images of runtimes (`images/runtime_images.py`)."""

    async def reference(self, name: str) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Recalled:
    """What was decided about an install before its command runs. It is stored with the stage's progress, so that the
    decision is the same after a restart of the service."""

    #: None if installs like this one are not kept.
    key: str | None
    #: Why, as part of a sentence; empty if there is nothing to say.
    reason: str
    #: hit, miss or not_applicable; empty until it is in the log.
    result: str = ""
    #: Whether what the command installs is kept.
    keeps: bool = False


class InstallKeeper:
    """Gives launches what was installed before, and keeps what they install. Has no state of a run."""

    def __init__(self, archives: KeptInstalls, images: Images, digest: Callable[[bytes], str]) -> None:
        """`digest` needs a key of the deployment: the keys of installs are public, and values of variables, which they
        depend on, must not be found by trying."""
        self._archives = archives
        self._images = images
        self._digest = digest

    async def recall(self, context: StageContext, role: str, command: str) -> Recalled:
        """Put the role's dependencies in place if they are kept, else prepare the install; say which in the log.

        To be called before this run has started the command. Raises GuestError if the guest agent does not answer.
        """
        recalled = self.recalled(context, role)
        if recalled is None:
            recalled = Recalled(*await self._key(context, role, command))
            # Before anything changes in the workspace, which the key depends on.
            await context.journal.write([], progress={_progress(role): asdict(recalled)})
        if recalled.key is None:
            return await self._say(context, role, recalled, "not_applicable", "what is installed is not kept")
        if await self._restore(context, role, recalled.key):
            return await self._say(context, role, recalled, "hit", "the dependencies were installed before")
        recalled = replace(
            recalled,
            reason=recalled.reason or await self._earlier(context, role),
            keeps=await self._prepare(context, role),
        )
        line = "the dependencies are installed"
        if not recalled.keeps:
            line += "; they are not kept: the workspace was used before"
        return await self._say(context, role, recalled, "miss", line)

    def recalled(self, context: StageContext, role: str) -> Recalled | None:
        """What was decided earlier in this run; None if nothing was."""
        stored = context.journal.progress.get(_progress(role))
        return Recalled(**stored) if stored else None

    async def keep(self, context: StageContext, role: str, recalled: Recalled) -> None:
        """Keep what the command has installed, and the packages that it has downloaded. Failures are lines of the
        log."""
        if recalled.key is None or not recalled.keeps:
            return
        try:
            kept = await self._keep(context, role, recalled.key)
            line = f"kept for later launches: {kept.contents.files} files and folders, {kept.size_bytes >> 20} MiB"
        except (SandboxError, OSError) as error:
            log.info("an install is not kept: %s", error)
            line = f"not kept for later launches: {error}"
        await context.journal.log_line(line, role=role)

    async def _key(self, context: StageContext, role: str, command: str) -> tuple[str | None, str]:
        if self._archives.limit_bytes == 0:
            return None, "SANDBOX_INSTALLS_MB is 0"
        session, root = context.session, role_root(context.plan, role)
        env = given_variables(session, context.plan, role)
        if "HOME" in env:
            return None, "HOME is set, and what package managers write there would be missing"
        image = await self._images.reference(context.plan.roles[role].runtime)
        try:
            inputs = await read_inputs(context.engine.guest(session.session_id, role), WORKSPACE, root, command)
        except GuestError as error:
            if error.code in _PASSING:
                raise
            inputs = None
        if image is None or inputs is None:
            return None, "the files that the install reads are unknown"
        reason = f"all files of the project count, because {inputs.whole_project}" if inputs.whole_project else ""
        return self._digest(key_content(session.user_id, image, root, command, env, inputs)), reason

    async def _earlier(self, context: StageContext, role: str) -> str:
        """Why there is no such install."""
        session = context.session
        installs = [one for one in await self._archives.entries(session.user_id) if one.contents.kind == "install"]
        if any((one.contents.project_id, one.contents.role) == (session.project_id, role) for one in installs):
            return "manifest, lock file, command, variables or image differ from earlier installs"
        return "nothing is kept of this role"

    async def _restore(self, context: StageContext, role: str, key: str) -> bool:
        """Unpack the archive with this key into the container. False if there is none that can be."""
        kept = await self._archives.find(context.session.user_id, key)
        if kept is None:
            return False
        guest = context.engine.guest(context.session.session_id, role)
        # Of an earlier run there may be other packages in these folders.
        await _remove(guest, kept.contents.folders)
        try:
            await guest.unpack_changes(self._archives.read(kept))
        except (GuestError, OSError) as error:
            if isinstance(error, GuestError) and error.code in _PASSING:
                raise
            log.warning("a kept install could not be unpacked and is removed: %s", error)
            await self._archives.remove(kept)
            await _remove(guest, kept.contents.folders)
            return False
        return True

    async def _prepare(self, context: StageContext, role: str) -> bool:
        """Give the install the packages that were downloaded before. Return whether what it installs can be kept: only
        if the workspace is as it was unpacked."""
        guest = context.engine.guest(context.session.session_id, role)
        try:
            changed = await guest.changes((WORKSPACE, HOME), since=UNPACKED, excluded=(*_OWN, *DOWNLOADS))
            await self._restore(context, role, _downloads_key(context, role))
            await guest.write_file(BEGIN, str(context.session.run_id).encode())
        except GuestError as error:
            if error.code in _PASSING:
                raise
            log.info("an install will not be kept: %s", error)
            return False
        return changed.files == 0

    async def _keep(self, context: StageContext, role: str, key: str) -> Kept:
        guest = context.engine.guest(context.session.session_id, role)
        excluded = (*_OWN, *DOWNLOADS)
        changes = await guest.changes((WORKSPACE, HOME), since=BEGIN, excluded=excluded)
        packed = guest.pack_changes((WORKSPACE, HOME), since=BEGIN, excluded=excluded)
        kept = await self._archives.write(
            context.session.user_id, key, _contents(context, role, "install", changes), packed
        )
        if (await guest.changes(DOWNLOADS, since=BEGIN)).files:
            downloads = _contents(context, role, "downloads", await guest.changes(DOWNLOADS))
            key = _downloads_key(context, role)
            await self._archives.write(context.session.user_id, key, downloads, guest.pack_changes(DOWNLOADS))
        return kept

    async def _say(self, context: StageContext, role: str, recalled: Recalled, result: str, line: str) -> Recalled:
        """One line of the log, with the result for programs. It is not repeated when the stage is tried again."""
        if recalled.result == result:
            return recalled
        recalled = replace(recalled, result=result)
        data = {
            "stage": StageName.DEPENDENCIES.value,
            "role": role,
            "stream": "system",
            "line": f"{line} ({recalled.reason})" if recalled.reason else line,
            "install": {"cache": result, "reason": recalled.reason},
        }
        await context.journal.write([NewEvent(EventType.LOG, data)], progress={_progress(role): asdict(recalled)})
        return recalled


def _progress(role: str) -> str:
    """The entry of the stage's progress. What is stored for a role goes when its container is lost."""
    return f"kept:{role}"


def _downloads_key(context: StageContext, role: str) -> str:
    return f"downloads-{context.plan.roles[role].runtime}"


def _contents(context: StageContext, role: str, kind: str, changes: Changes) -> Contents:
    plan = context.plan.roles[role]
    project = context.session.project_id or ""
    return Contents(kind, project, role, plan.runtime, plan.install or "", changes.files, changes.folders)


async def _remove(guest: Guest, folders: Sequence[str]) -> None:
    names = "\0".join(folders).encode("utf-8", "surrogateescape")
    if names:
        await guest.exec(["xargs", "-0", "rm", "-rf", "--"], stdin=names, timeout_seconds=_REMOVE_SECONDS)
