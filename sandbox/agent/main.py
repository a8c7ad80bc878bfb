"""The agent's command line.

    serve   --socket PATH [--workspace DIR] [--user-uid N] [--spool DIR]    answer on a unix socket until SIGTERM
    connect --socket PATH                                                   bridge stdin and stdout to that socket

`serve` runs as root with SETUID, SETGID, KILL, CHOWN, DAC_OVERRIDE and FOWNER, and needs none of them for more than
switching to the sandbox's user, signalling what runs as that user and giving the workspace to it.
"""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

USAGE = "usage: serve|connect --socket PATH [--workspace DIR] [--user-uid N] [--spool DIR]"


class Options(NamedTuple):
    """What the command line said."""

    command: str
    socket: str = "/run/sandbox-agent/agent.sock"
    workspace: str = "/workspace"
    user_uid: int = 1000
    #: Folder for the output of named processes; emptied at the start, readable by root alone.
    spool: str = "/var/lib/sandbox-agent"


def parse(arguments: list[str]) -> Options:
    """The options, or SystemExit with what is wrong."""
    if not arguments or arguments[0] not in ("serve", "connect"):
        raise SystemExit(USAGE)
    given: dict[str, str] = {}
    rest = iter(arguments[1:])
    for flag in rest:
        name = flag.removeprefix("--").replace("-", "_")
        value = next(rest, None)
        if not flag.startswith("--") or value is None or name not in ("socket", "workspace", "user_uid", "spool"):
            raise SystemExit(f"not understood: {flag}\n{USAGE}")
        given[name] = value
    uid = given.pop("user_uid", "1000")
    if not uid.isdecimal() or int(uid) == 0:
        raise SystemExit(f"--user-uid must be a number above 0, not {uid}")
    return Options(arguments[0], user_uid=int(uid), **given)


def main(arguments: list[str]) -> int:
    """Run the command; the exit status."""
    options = parse(arguments)
    if options.command == "connect":
        from .tunnel import bridge

        return bridge(options.socket)
    if os.geteuid() != 0:
        print("the agent must run as root: it starts commands as another user", file=sys.stderr)
        return 1
    from .server import serve

    return serve(options)
