"""The service's settings, for the commands that run on the same machine."""

from __future__ import annotations

from pydantic import ValidationError

from sandbox.client.config import TOKEN_FILE
from sandbox.errors import InvalidInput
from sandbox.settings import Settings


def load_settings() -> Settings:
    """Read the settings from the environment. Raises InvalidInput, which names each invalid variable."""
    try:
        return Settings()
    except ValidationError as error:
        wrong = "; ".join(f"{_variable(found['loc'])}: {found['msg']}" for found in error.errors())
        raise InvalidInput(
            f"The settings are invalid: {wrong}",
            hint="The README lists all settings.",
            code="settings_invalid",
        ) from error


def _variable(location: tuple[int | str, ...]) -> str:
    name = str(location[0]) if location else "settings"
    return name if name.isupper() else f"SANDBOX_{name.upper()}"


def admin_token(settings: Settings) -> str | None:
    """Return the first admin's token, from the settings or the data folder, or None if it cannot be read."""
    if settings.admin_token:
        return settings.admin_token
    try:
        return (settings.home / TOKEN_FILE).read_text(encoding="utf-8").strip()
    except OSError:
        return None
