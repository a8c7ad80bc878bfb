"""Options of the command line. Parsed by hand: argparse would add to the start time of every container."""

from __future__ import annotations

from typing import NamedTuple

USAGE = (
    "usage: serve|connect --socket PATH [--workspace DIR] [--user-uid N] [--account-uid N] [--spool DIR]"
    " [--exports-port N]"
)
_FLAGS = ("socket", "workspace", "user_uid", "account_uid", "spool", "exports_port")


class Options(NamedTuple):
    """The command and its options."""

    command: str
    socket: str = "/run/sandbox-agent/agent.sock"
    workspace: str = "/workspace"
    #: The user that commands run as.
    user_uid: int = 1000
    #: If given, the container's account gets this number, which replaces `user_uid`. See `account.py`.
    account_uid: int | None = None
    #: Folder for the output of named processes, readable by root only.
    spool: str = "/var/lib/sandbox-agent"
    #: Port of the loopback that accepts OTLP exports. Not OTLP's default 4318, which an app's own collector may need,
    #: and not one that the kernel assigns to outgoing connections.
    exports_port: int = 14318


def parse(arguments: list[str]) -> Options:
    """Parse the command line. Raises SystemExit with what is wrong."""
    if not arguments or arguments[0] not in ("serve", "connect"):
        raise SystemExit(USAGE)
    given: dict[str, str] = {}
    rest = iter(arguments[1:])
    for flag in rest:
        name = flag.removeprefix("--").replace("-", "_")
        value = next(rest, None)
        if not flag.startswith("--") or value is None or name not in _FLAGS:
            raise SystemExit(f"not understood: {flag}\n{USAGE}")
        given[name] = value
    user, account = (_uid(given.pop(name, None), name) for name in ("user_uid", "account_uid"))
    port = given.pop("exports_port", "14318")
    if not port.isdecimal() or int(port) > 65_535:
        raise SystemExit(f"--exports-port must be a port, or 0 for any, not {port}")
    return Options(arguments[0], user_uid=user or 1000, account_uid=account, exports_port=int(port), **given)


def _uid(value: str | None, name: str) -> int | None:
    if value is not None and (not value.isdecimal() or not 0 < int(value) < 2**32 - 1):
        raise SystemExit(f"--{name.replace('_', '-')} must be a number above 0, not {value}")
    return None if value is None else int(value)
