"""Copying bytes between two connections.

All bytes of previews pass here, so each piece costs two system calls and one callback of the event loop: no task, no
stream, and one buffer that all relays share. A piece that its target does not take at once is kept, and its source is
not read until the rest is sent.
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable

#: After one side has ended and the other has been silent for this long, the connection is considered dead.
HALF_CLOSED_SECONDS = 300.0
#: What is read at once. Callbacks run one after the other, so one buffer is enough.
_BUFFER = memoryview(bytearray(256 * 1024))


#: Called with a piece; what is sent of it.
Change = Callable[[memoryview], memoryview | bytes]


async def relay(
    one: socket.socket,
    other: socket.socket,
    note_use: Callable[[], None] | None = None,
    change: Change | None = None,
) -> bool:
    """Copy both ways until both sides have ended; each end is passed on when it comes. `note_use` is called when `one`
    has sent something, and what `other` sends passes through `change`. Both sockets must be non-blocking.

    False if a side broke, closed both directions at once, or was silent for too long after the other had ended.
    """
    return await _Relay(one, other, note_use, change).run()


class _Relay:
    """Two directions, and what becomes of them."""

    def __init__(
        self,
        one: socket.socket,
        other: socket.socket,
        note_use: Callable[[], None] | None,
        change: Change | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._result: asyncio.Future[bool] = loop.create_future()
        self._directions = (
            _Direction(loop, one, other, self._note_end, note_use, None),
            _Direction(loop, other, one, self._note_end, None, change),
        )
        self._timer: asyncio.TimerHandle | None = None

    async def run(self) -> bool:
        try:
            for direction in self._directions:
                direction.start()
            return await self._result
        finally:
            if self._timer is not None:
                self._timer.cancel()
            for direction in self._directions:
                direction.stop()

    def _note_end(self, ended: _Direction) -> None:
        """A direction has come to its end, or a side of it broke."""
        rest = next(each for each in self._directions if each is not ended)
        if not ended.clean or (not rest.ended and _closed(ended.source)):
            self._finish(clean=False)
        elif rest.ended:
            self._finish(clean=True)
        else:
            self._check_silence()

    def _check_silence(self) -> None:
        """Wait for the second direction as long as there is something to copy."""
        silent_since = max(each.active_at for each in self._directions)
        if self._loop.time() - silent_since >= HALF_CLOSED_SECONDS:
            self._finish(clean=False)
        else:
            self._timer = self._loop.call_at(silent_since + HALF_CLOSED_SECONDS, self._check_silence)

    def _finish(self, *, clean: bool) -> None:
        if not self._result.done():
            self._result.set_result(clean)


class _Direction:
    """One direction of a relay."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        source: socket.socket,
        target: socket.socket,
        note_end: Callable[[_Direction], None],
        note_use: Callable[[], None] | None,
        change: Change | None,
    ) -> None:
        self.source = source
        self._target = target
        self._note_end = note_end
        self._note_use = note_use
        self._change = change
        self._loop = loop
        self._rest = memoryview(b"")
        self.ended = False
        #: Not broken.
        self.clean = True
        #: When it last copied something or the end, by the loop's clock.
        self.active_at = loop.time()

    def start(self) -> None:
        self._loop.add_reader(self.source.fileno(), self._copy)

    def stop(self) -> None:
        """Copy nothing from now on. Repeating this is harmless."""
        self._loop.remove_reader(self.source.fileno())
        self._loop.remove_writer(self._target.fileno())

    def _copy(self) -> None:
        try:
            count = self.source.recv_into(_BUFFER)
            if count == 0:
                self._target.shutdown(socket.SHUT_WR)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._end(clean=False)
            return
        self.active_at = self._loop.time()
        if count == 0:
            self._end(clean=True)
            return
        if self._note_use is not None:
            self._note_use()
        piece = _BUFFER[:count]
        if self._change is not None:
            piece = memoryview(self._change(piece))
        rest = self._send(piece)
        if rest:
            self._rest = memoryview(bytes(rest))
            self._loop.remove_reader(self.source.fileno())
            self._loop.add_writer(self._target.fileno(), self._send_rest)

    def _send_rest(self) -> None:
        self._rest = self._send(self._rest)
        if not self._rest and not self.ended:
            self.active_at = self._loop.time()
            self._loop.remove_writer(self._target.fileno())
            self.start()

    def _send(self, data: memoryview) -> memoryview:
        """Send what the target takes now; the rest of it."""
        if not data:
            return data
        try:
            return data[self._target.send(data) :]
        except (BlockingIOError, InterruptedError):
            return data
        except OSError:
            self._end(clean=False)
            return data[:0]

    def _end(self, *, clean: bool) -> None:
        self.stop()
        self.ended = True
        self.clean = clean
        self._note_end(self)


def _closed(sock: socket.socket) -> bool:
    """Whether the peer has closed both directions, not only its own."""
    poller = select.poll()
    poller.register(sock, 0)
    return bool(poller.poll(0))
