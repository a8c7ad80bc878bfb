"""The headers by which the edge and the service agree about requests for previews, and the visitor's cookie."""

from __future__ import annotations

from collections.abc import Iterable

Headers = list[tuple[bytes, bytes]]

#: The cookie of one preview host: the name of the visitor's grant for a port, as `target.grant_name` makes it.
COOKIE_NAME = "__sbx_preview"
#: Every token this service makes starts with this, so apps never see one, whoever sent it.
TOKEN_PREFIX = "sbx_"  # noqa: S105

#: What the edge adds to its question whether a request may pass: the request's method, followed by a protocol if the
#: request wants to change to one (`GET websocket`); and why the app could not be reached.
METHOD_HEADER = "x-sandbox-method"
FAILURE_HEADER = "x-sandbox-failure"
#: And the visitor's IP address.
ADDRESS_HEADER = "x-sandbox-address"
#: What the service answers it with: the name of the grant, the port it leads to, the port that the host without one
#: stands for, `PUBLIC_NAMES` or nothing, and the header that held a credential of ours.
GRANT_HEADER = "x-sandbox-grant"
PORT_HEADER = "x-sandbox-port"
MAIN_PORT_HEADER = "x-sandbox-main-port"
NAMES_HEADER = "x-sandbox-names"
CONSUMED_HEADER = "x-sandbox-consumed"

#: The end of a grant's name if the app is to be asked by the public host names, and not as `localhost:PORT`.
PUBLIC_NAMES = ".public"

_COOKIE = COOKIE_NAME.encode()


def values(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[str]:
    """All values of a header, in order."""
    return [value.decode("latin-1") for key, value in headers if key.lower() == name]


def cookie_values(headers: Headers) -> list[str]:
    """Every value sent for our cookie. More than one: an app on a sibling host can set one for the whole domain."""
    parts = (part.partition(b"=") for k, v in headers if k.lower() == b"cookie" for part in v.split(b";"))
    return [value.strip().decode("latin-1") for name, _, value in parts if name.strip() == _COOKIE]
