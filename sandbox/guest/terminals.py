"""The terminals of the container: those that have a name outlive their connections (`terminal.py`)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from .children import Children
from .command import shell, to_argv
from .errors import Refused
from .launcher import Launcher
from .request import Request, argument
from .user import User

if TYPE_CHECKING:
    from .terminal import Terminal

#: How long a named terminal is kept without a connection.
KEPT_SECONDS = 600.0
#: How many named terminals there may be.
MOST_TERMINALS = 32


class Terminals:
    """Opens terminals, and finds those that are kept. To be used on the event loop only."""

    def __init__(self, children: Children, launcher: Launcher, user: User) -> None:
        self._children = children
        self._launcher = launcher
        self._user = user
        self._named: dict[str, Terminal] = {}

    async def serve(self, request: Request, command: str | list[str] | None, cwd: str, env: dict[str, str]) -> None:
        """Run the command, or an interactive shell, on a new terminal, or go on with the terminal of that name."""
        size = argument(request.args, "columns", int), argument(request.args, "rows", int)
        name = argument(request.args, "terminal", str, None)
        after = argument(request.args, "after", int, 0)
        terminal = self._named.get(name) if name else None
        if terminal is None:
            if name:
                self._make_room()
            terminal = await self._start(command, size, cwd, env)
        if name and self._named.setdefault(name, terminal) is not terminal:
            await terminal.close()
            raise Refused("agent_refused", "another connection is opening this terminal")
        if name:
            terminal.kept_seconds = KEPT_SECONDS
            terminal.on_close = partial(self._named.pop, name, None)
        try:
            await terminal.serve(request, after)
        finally:
            terminal.left()

    async def _start(
        self, command: str | list[str] | None, size: tuple[int, int], cwd: str, env: dict[str, str]
    ) -> Terminal:
        # Imported when it is needed: most containers never have a terminal.
        from .terminal import start_terminal

        # A login shell would set PATH anew.
        argv = [shell(), "-i"] if command is None else to_argv(command)
        return await start_terminal(self._children, self._launcher, self._user.uid, argv, size, cwd, env)

    def _make_room(self) -> None:
        """Close the terminal that has been without a connection for longest if there are as many as there may be."""
        if len(self._named) < MOST_TERMINALS:
            return
        left = [terminal for terminal in self._named.values() if terminal.expires is not None]
        if not left:
            raise Refused("agent_refused", f"there are {MOST_TERMINALS} open terminals, more are not possible")
        min(left, key=lambda terminal: terminal.expires or 0.0).expire()
