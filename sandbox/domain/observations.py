"""What a launch noticed of the running apps: not failures, but what a visitor of the preview should know or needs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class WarningCode(StrEnum):
    """The kinds of warnings. The values are stable."""

    #: The page that the preview opens answers with a status of 500 or above.
    SERVER_ERROR = "server_error"
    #: The page that the preview opens answers with a status of 400 or above, and no other page was found.
    NO_PAGE = "no_page"
    #: The app refuses the host name under which it is asked.
    HOST_REFUSED = "host_refused"
    #: The preview's port does not speak HTTP.
    NOT_HTTP = "not_http"
    #: The app answers in the container, and the preview shows something else.
    PREVIEW_DIFFERS = "preview_differs"
    #: The page's code names an address on localhost, which is another machine in a visitor's browser.
    LOCAL_ADDRESS = "local_address"


@dataclass(frozen=True, slots=True)
class LaunchWarning:
    """Something that is wrong with an app that runs."""

    role: str
    code: WarningCode
    message: str
    hint: str

    def to_json(self) -> dict[str, str]:
        return {"role": self.role, "code": self.code.value, "message": self.message, "hint": self.hint}


@dataclass(frozen=True, slots=True)
class Observations:
    """What the health stage of one run found out."""

    warnings: tuple[LaunchWarning, ...] = ()
    #: The path at which the preview opens.
    preview_path: str = "/"
    #: The ports whose apps speak TLS.
    tls_ports: tuple[int, ...] = ()
    #: The header with which the app forbids other pages to show it in a frame; None if it does not.
    frame_refusal: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "warnings": [warning.to_json() for warning in self.warnings]}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Observations:
        """The observations of a stored row. Warnings that this release does not know are left out."""
        known = [each for each in value.get("warnings", ()) if each.get("code") in _CODES]
        return cls(
            tuple(LaunchWarning(w["role"], WarningCode(w["code"]), w["message"], w["hint"]) for w in known),
            value.get("preview_path", "/"),
            tuple(value.get("tls_ports", ())),
            value.get("frame_refusal"),
        )


_CODES = frozenset(code.value for code in WarningCode)
