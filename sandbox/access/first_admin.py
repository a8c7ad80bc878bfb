"""The first admin's token: `SANDBOX_ADMIN_TOKEN`, or one that the first start generates into the data folder."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import UUID

from sandbox.access.store import TokenStore
from sandbox.access.tokens import generate_token, hash_token
from sandbox.db.connection import Database
from sandbox.domain.caller import CallerRole
from sandbox.errors import SandboxError
from sandbox.secrets import files
from sandbox.settings import Settings

#: The id of the first admin's token, the same in every deployment, so that the token can be replaced.
FIRST_ADMIN_TOKEN_ID = UUID("00000000-0000-4000-8000-000000000001")
FIRST_ADMIN_USER_ID = "admin"


class AdminTokenFileError(SandboxError):
    """The file with the first admin's token cannot be read or written."""

    code = "admin_token_file"


def admin_token_path(home: Path) -> Path:
    """The file that holds a generated token."""
    return home / "admin-token"


async def ensure_admin(db: Database, settings: Settings) -> str | None:
    """Make sure that the first admin has a token, and return it so that `sandbox up` can show it.

    `SANDBOX_ADMIN_TOKEN`, if set, replaces the previous token; a revoked token stays revoked until another one is set.
    Otherwise the first start generates a token and stores it in `admin-token`, mode 0600; of several processes that
    start at once in one data folder, one does. Returns None if the valid token is not known here: it came from an
    earlier environment, is in another data folder, or was revoked. Set SANDBOX_ADMIN_TOKEN to choose a new one.

    Raises TokenInUse and AdminTokenFileError.
    """
    store, path = TokenStore(db), admin_token_path(settings.home)
    given = settings.admin_token
    token = given if given is not None else await asyncio.to_thread(_read_or_generate, path)
    record = await store.put(
        FIRST_ADMIN_TOKEN_ID, hash_token(token), FIRST_ADMIN_USER_ID, CallerRole.ADMIN, replace=given is not None
    )
    if given is not None:
        await asyncio.to_thread(_remove_stale, path, given)
    if record.token_hash != hash_token(token) or record.revoked_at is not None:
        return None
    return token


def _read_or_generate(path: Path) -> str:
    try:
        token = files.read_or_generate(path, lambda: generate_token() + "\n").strip()
    except OSError as error:
        raise AdminTokenFileError(
            f"{path} cannot be used: {error.strerror}.", hint="Make SANDBOX_HOME a folder this user may write to."
        ) from error
    if len(token) < 16:
        raise AdminTokenFileError(f"{path} holds no token.", hint="Remove the file, or set SANDBOX_ADMIN_TOKEN.")
    return token


def _remove_stale(path: Path, token: str) -> None:
    """Remove the file if it has another token, which is no longer valid and would mislead its reader."""
    try:
        if path.read_text(encoding="utf-8").strip() != token:
            path.unlink()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise AdminTokenFileError(f"{path} cannot be used: {error.strerror}.", hint="Remove the file.") from error
