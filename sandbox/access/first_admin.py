"""The first admin's token: given by `SANDBOX_ADMIN_TOKEN`, else made at the first start and kept in the data folder."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from pathlib import Path
from uuid import UUID

from sandbox.access.store import TokenStore
from sandbox.access.tokens import generate_token, hash_token
from sandbox.db.connection import Database
from sandbox.domain.caller import CallerRole
from sandbox.errors import SandboxError
from sandbox.settings import Settings

#: The row of the first admin's token, the same in every deployment, so that it can be replaced.
FIRST_ADMIN_TOKEN_ID = UUID("00000000-0000-4000-8000-000000000001")
FIRST_ADMIN_USER_ID = "admin"


class AdminTokenFileError(SandboxError):
    """The file with the first admin's token cannot be read or written."""

    code = "admin_token_file"


def admin_token_path(home: Path) -> Path:
    return home / "admin-token"


async def ensure_admin(db: Database, settings: Settings) -> str | None:
    """See to it that the first admin has a token, and give it back for `sandbox up` to show.

    `SANDBOX_ADMIN_TOKEN`, where set, replaces the one there was; one that was revoked stays so until another is set.
    Otherwise the first start, of however many at once in one data folder, makes one and keeps it in `admin-token`, mode
    0600. None if the token in force is known to its holder only (it came from the environment, another data folder
    has it, or it was revoked): then set SANDBOX_ADMIN_TOKEN to choose a new one.

    Raises TokenTaken and AdminTokenFileError.
    """
    store, path = TokenStore(db), admin_token_path(settings.home)
    given = settings.admin_token
    token = given if given is not None else await asyncio.to_thread(_read_or_make, path)
    record = await store.put(
        FIRST_ADMIN_TOKEN_ID, hash_token(token), FIRST_ADMIN_USER_ID, CallerRole.ADMIN, replace=given is not None
    )
    if given is not None:
        await asyncio.to_thread(_forget_other, path, given)
    if record.token_hash != hash_token(token) or record.revoked_at is not None:
        return None
    return token


def _read_or_make(path: Path) -> str:
    try:
        try:
            return _read(path)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
        # Written whole beside it, then linked: of several makers one wins, and nobody reads half a token.
        unique = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(unique, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(generate_token() + "\n")
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(unique, path)
        finally:
            unique.unlink()
        return _read(path)
    except OSError as error:
        raise AdminTokenFileError(
            f"{path} cannot be used: {error.strerror}.", hint="Make SANDBOX_HOME a folder this user may write to."
        ) from error


def _read(path: Path) -> str:
    token = path.read_text(encoding="utf-8").strip()
    if len(token) < 16:
        raise AdminTokenFileError(f"{path} holds no token.", hint="Remove the file, or set SANDBOX_ADMIN_TOKEN.")
    return token


def _forget_other(path: Path, token: str) -> None:
    """A kept token that is no longer the first admin's would only mislead whoever reads the file."""
    try:
        if path.read_text(encoding="utf-8").strip() != token:
            path.unlink()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise AdminTokenFileError(f"{path} cannot be used: {error.strerror}.", hint="Remove the file.") from error
