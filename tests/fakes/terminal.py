"""A terminal of the fake guest agent: what the program on it prints, and what was typed."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator

from sandbox.engine.guest_data import OutputChunk
from sandbox.errors import GuestError
from tests.fakes.errors import guest_error
from tests.fakes.processes import FakeProcess


class FakePty:
    """Implements `base.PtySession`."""

    def __init__(self, process: FakeProcess, columns: int, rows: int, *, after: int = 0, is_kept: bool = False) -> None:
        """`is_kept` says that the terminal goes on when its connection is lost."""
        if not (0 < columns < 65_536 and 0 < rows < 65_536):
            process.kill()
            raise guest_error("agent_refused", "a terminal has from 1 to 65,535 columns and rows")
        self._process = process
        self._is_kept = is_kept
        self._output: AsyncIterator[OutputChunk] = process.output(after, follow=True)
        self.position = after
        self.exit_code: int | None = None
        self.is_taken_over = False
        self.size = (columns, rows)
        #: All that was typed.
        self.typed = b""

    async def read(self) -> bytes:
        chunk = await anext(self._output, None)
        if chunk is None:
            self.exit_code = self._process.info.exit_code
        return chunk.data if chunk is not None else b""

    async def write(self, data: bytes) -> None:
        self.typed += data
        try:
            self._process.write_stdin(data, close=False)
        except GuestError:
            raise guest_error("agent_unreachable", "the terminal is closed") from None

    async def resize(self, columns: int, rows: int) -> None:
        self.size = (columns, rows)

    async def close(self) -> None:
        self._process.kill(signal.SIGHUP)

    async def leave(self) -> None:
        if not self._is_kept:
            await self.close()
