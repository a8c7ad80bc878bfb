"""Everything that the guest agent keeps between requests."""

from __future__ import annotations

import os

from .children import Children
from .export_queue import ExportQueue
from .launcher import Launcher
from .options import Options
from .otlp_server import OtlpServer
from .port_forwarding import PortForwarder
from .port_sockets import PortSockets
from .processes import Processes
from .terminals import Terminals
from .usage_history import UsageHistory
from .user import User
from .variables import Variables


class GuestState:
    """What the functions of `routes.py` work on. Made, and used, on the event loop."""

    def __init__(self, options: Options) -> None:
        self.user = User(options.user_uid, options.workspace, Variables(options.spool))
        self.children = Children(self.user.become)
        self.launcher = Launcher(self.children, self.user)
        self.processes = Processes(self.launcher, options.spool)
        self.terminals = Terminals(self.children, self.launcher, self.user)
        self.usage = UsageHistory(options.workspace)
        self.exports = ExportQueue()
        self.otlp = OtlpServer(self.exports, options.exports_port)
        self.ports = PortForwarder()
        self.port_sockets = PortSockets(os.path.dirname(options.socket), self.processes.note)
