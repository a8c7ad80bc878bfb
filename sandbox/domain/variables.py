"""The environment of a session: variables that its request gives, and variables that refer to stored values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from sandbox.domain.redaction import Redactor

ENV_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")
MAX_VALUE = 32_768
SECRET_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"  # noqa: S105 - a pattern of names
#: Before the references of values that a request gives for a role of its plan. No name of a secret has a slash.
_REQUESTED = "request/"


class FromSecret(BaseModel):
    """A reference to a stored secret, in place of a variable's value."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    from_secret: str = Field(min_length=1, max_length=500, description="Name of a secret of the user or the project")


EnvValue = str | FromSecret


def check_text(value: str) -> str:
    """Refuse what can be neither a command's text nor stored: NUL and lone surrogates."""
    if "\0" in value:
        raise ValueError("has a NUL")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("is not Unicode text") from None
    return value


def _check_names(env: dict[str, Any]) -> None:
    for name in env:
        if not ENV_NAME.match(name):
            raise ValueError(f"{name[:50]!r} cannot be the name of an environment variable")


def _check_environment(env: dict[str, str]) -> dict[str, str]:
    _check_names(env)
    for name, value in env.items():
        if len(value) > MAX_VALUE:
            raise ValueError(f"the value of {name} is longer than {MAX_VALUE:,} characters")
        try:
            check_text(value)
        except ValueError as error:
            raise ValueError(f"the value of {name} {error}") from None
    return env


def _as_references(env: Any) -> Any:
    """Read tables `{from_secret = NAME}` as references, also where a model takes nothing but its own types."""
    if not isinstance(env, dict):
        return env
    return {
        name: FromSecret(**it) if isinstance(it, dict) and set(it) == {"from_secret"} else it
        for name, it in env.items()
    }


def _check_variables(env: dict[str, EnvValue]) -> dict[str, EnvValue]:
    _check_names(env)
    _check_environment({name: value for name, value in env.items() if isinstance(value, str)})
    return env


def _check_requested(env: dict[str, EnvValue]) -> dict[str, EnvValue]:
    for name, value in _check_variables(env).items():
        if isinstance(value, FromSecret) and not re.match(SECRET_NAME, value.from_secret):
            raise ValueError(f"{name}: {value.from_secret[:50]!r} cannot be the name of a secret")
    return env


#: Environment variables with valid names and values.
Environment = Annotated[dict[str, str], AfterValidator(_check_environment)]
#: The same, where a value may be a reference.
Variables = Annotated[dict[str, EnvValue], BeforeValidator(_as_references), AfterValidator(_check_variables)]
#: The same, in requests and manifests.
RequestedVariables = Annotated[dict[str, EnvValue], BeforeValidator(_as_references), AfterValidator(_check_requested)]


def referred(env: Mapping[str, EnvValue]) -> set[str]:
    """The references in these variables."""
    return {value.from_secret for value in env.values() if isinstance(value, FromSecret)}


def withhold(role: str, env: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Replace the values that a request gives for a role by references.

    Returns the variables, as JSON, and the values by reference.
    """
    names = {name: f"{_REQUESTED}{role}/{name}" for name, value in env.items() if isinstance(value, str)}
    variables = {name: {"from_secret": names[name]} if name in names else value for name, value in env.items()}
    return variables, {reference: env[name] for name, reference in names.items()}


@dataclass(frozen=True, slots=True)
class SessionValues:
    """The variables of a session, and the values to which they and its plan refer. Stored encrypted."""

    env: Mapping[str, EnvValue] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict, repr=False)

    def resolve(self, env: Mapping[str, EnvValue]) -> dict[str, str]:
        """The variables with all references replaced. Those of a value that is not there are left out."""
        found = {
            name: self.values.get(it.from_secret) if isinstance(it, FromSecret) else it for name, it in env.items()
        }
        return {name: value for name, value in found.items() if value is not None}

    def redactor(self) -> Redactor:
        """What hides the values of secrets in output."""
        return Redactor(self.secrets)

    @property
    def secrets(self) -> dict[str, str]:
        """The values of secrets by name, without those that the request itself gave."""
        return {name: value for name, value in self.values.items() if not name.startswith(_REQUESTED)}

    def to_json(self) -> dict[str, Any]:
        env = {name: value if isinstance(value, str) else value.model_dump() for name, value in self.env.items()}
        return {"env": env, "values": dict(self.values)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SessionValues:
        env = {name: it if isinstance(it, str) else FromSecret(**it) for name, it in value["env"].items()}
        return cls(env, value["values"])
