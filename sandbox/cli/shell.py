"""`sandbox shell`: an interactive shell in a sandbox."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import termios
import tty
from codecs import getincrementaldecoder
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from sandbox.cli import output
from sandbox.cli.sanitise import Sanitiser
from sandbox.cli.sessions import Role, Session, find
from sandbox.client import SandboxError, Terminal

RawTerminal = Annotated[bool, typer.Option("--raw", help="Print everything that programs print, as it is.")]


def shell(ctx: typer.Context, session: Session, role: Role = None, raw: RawTerminal = False) -> None:
    """Open an interactive shell in a sandbox. Leave it with exit or Ctrl-D.

    What programs print may move the cursor and clear the screen. Titles, the clipboard and requests that the terminal
    answers are removed, unless --raw is given.

    Example: sandbox shell 3f2a --role frontend
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise SandboxError(
            "A shell needs a terminal",
            hint="To run a command from a script: sandbox exec ID -- COMMAND",
            code="not_a_tty",
        )

    async def work() -> None:
        sandbox = await find(output.config_of(ctx), session)
        size = shutil.get_terminal_size()
        async with sandbox.terminal(role, columns=size.columns, rows=size.lines) as terminal:
            with _raw(sys.stdin.fileno()):
                await _connect(terminal, raw=raw)

    output.run(work())


async def _connect(terminal: Terminal, *, raw: bool) -> None:
    """Copy input and output between this terminal and the shell, and pass on changes of its size, until it ends."""
    loop = asyncio.get_running_loop()
    decode = getincrementaldecoder("utf-8")("replace").decode
    sanitise = Sanitiser(interactive=True)
    keys: asyncio.Queue[bytes] = asyncio.Queue()
    resized = asyncio.Event()
    source = sys.stdin.fileno()

    def typed() -> None:
        data = os.read(source, 65_536)
        keys.put_nowait(data)
        if not data:
            loop.remove_reader(source)

    async def send_keys() -> None:
        while data := await keys.get():
            await terminal.send(data)

    async def send_sizes() -> None:
        while True:
            await resized.wait()
            resized.clear()
            size = shutil.get_terminal_size()
            await terminal.resize(size.columns, size.lines)

    loop.add_reader(source, typed)
    loop.add_signal_handler(signal.SIGWINCH, resized.set)
    senders = [asyncio.create_task(send_keys()), asyncio.create_task(send_sizes())]
    try:
        async for data in terminal:
            _write_all(sys.stdout.fileno(), data if raw else sanitise(decode(data)).encode())
    finally:
        loop.remove_reader(source)
        loop.remove_signal_handler(signal.SIGWINCH)
        for sender in senders:
            sender.cancel()
        await asyncio.gather(*senders, return_exceptions=True)


def _write_all(target: int, data: bytes) -> None:
    while data:
        data = data[os.write(target, data) :]


@contextmanager
def _raw(source: int) -> Iterator[None]:
    """Put the terminal into raw mode for the block, and restore it afterwards."""
    before = termios.tcgetattr(source)
    tty.setraw(source, termios.TCSADRAIN)  # TCSADRAIN keeps input that is already typed.
    try:
        yield
    finally:
        termios.tcsetattr(source, termios.TCSADRAIN, before)
