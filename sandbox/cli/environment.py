"""The service's settings, for the commands that run on its machine."""

from __future__ import annotations

from pydantic import ValidationError

from sandbox.client.config import TOKEN_FILE
from sandbox.errors import InvalidInput
from sandbox.settings import Settings


def load_settings() -> Settings:
    """The settings of the environment. Raises InvalidInput that names each variable that is wrong."""
    try:
        return Settings()
    except ValidationError as error:
        wrong = "; ".join(f"{_variable(found['loc'])}: {found['msg']}" for found in error.errors())
        raise InvalidInput(
            f"The settings are not right: {wrong}",
            hint="The README's table has every setting.",
            code="settings_invalid",
        ) from error


def _variable(location: tuple[int | str, ...]) -> str:
    name = str(location[0]) if location else "settings"
    return name if name.isupper() else f"SANDBOX_{name.upper()}"


def admin_token(settings: Settings) -> str | None:
    """The first admin's token as this machine knows it; None if it cannot be read."""
    if settings.admin_token:
        return settings.admin_token
    try:
        return (settings.home / TOKEN_FILE).read_text(encoding="utf-8").strip()
    except OSError:
        return None
