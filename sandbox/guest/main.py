"""The command line of the guest agent.

    serve   --socket PATH [--workspace DIR] [--user-uid N] [--account-uid N] [--spool DIR] [--exports-port N]
            serve a unix socket until SIGTERM, and accept OTLP exports of apps on that port of the loopback
    connect --socket PATH
            bridge stdin and stdout to that socket

`serve` runs as root with SETUID, SETGID, KILL, CHOWN, DAC_OVERRIDE and FOWNER. It uses them only to switch to the
sandbox's user, to signal processes of that user and to give the workspace to it.
"""

from __future__ import annotations

import os
import sys

from .options import parse


def main(arguments: list[str]) -> int:
    """Run the command and return its exit status."""
    options = parse(arguments)
    if options.command == "connect":
        from .bridge import bridge

        return bridge(options.socket)
    if os.geteuid() != 0:
        print("the agent must run as root: it starts commands as another user", file=sys.stderr)
        return 1
    from .server import serve

    return serve(options)
