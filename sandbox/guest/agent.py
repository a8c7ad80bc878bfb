"""All that the agent keeps between requests."""

from __future__ import annotations

from .children import Children, User
from .exporters import Exporters
from .exports import Exports
from .hub import Hub
from .launcher import Launcher
from .options import Options
from .port_forwarding import Neighbours
from .processes import Processes


class Agent:
    """What the functions of `routes.py` work on."""

    def __init__(self, options: Options) -> None:
        self.hub = Hub()
        self.children = Children(self.hub.call)
        self.user = User(options.user_uid, options.workspace)
        self.launcher = Launcher(self.children, self.user)
        self.processes = Processes(self.hub, self.launcher, options.spool)
        self.exports = Exports()
        self.exporters = Exporters(self.exports, options.exports_port)
        self.neighbours = Neighbours()
