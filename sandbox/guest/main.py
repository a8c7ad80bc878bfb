"""The agent's command line.

    serve   --socket PATH [--workspace DIR] [--user-uid N] [--spool DIR] [--exports-port N]
            answer on a unix socket until SIGTERM, and take what apps report on that port of the loopback
    connect --socket PATH
            bridge stdin and stdout to that socket

`serve` runs as root with SETUID, SETGID, KILL, CHOWN, DAC_OVERRIDE and FOWNER, and needs none of them for more than
switching to the sandbox's user, signalling what runs as that user and giving the workspace to it.
"""

from __future__ import annotations

import os
import sys

from .options import parse


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
