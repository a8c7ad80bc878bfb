"""Commands and terminals of a session: background processes, bytes that are no UTF-8, the end of a terminal."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.acceptance.api import Api, parse_sse

#: A timeout that a command which waits for its background processes would reach.
LONG = 100


def streamed(api: Api, session_id: str, command: str) -> list[tuple[str, Any]]:
    """The events of a command's output, without `started`."""
    body = {"command": command, "timeout_seconds": LONG}
    headers = {"Accept": "text/event-stream"}
    with api.http.stream("POST", f"/api/v1/sessions/{session_id}/exec", json=body, headers=headers) as answer:
        return [(event.event, event.data) for event in parse_sse(answer.iter_lines()) if event.event != "started"]


def test_a_server_in_the_background_does_not_hold_up_its_command(admin: Api, blank: str) -> None:
    began = time.monotonic()
    started = admin.exec(blank, "python3 -m http.server 9000 & echo started", timeout_seconds=LONG)
    assert (started["stdout"], started["exit_code"], started["timed_out"]) == ("started\n", 0, False)
    ask = "until curl -fsSo /dev/null -w '%{http_code}' http://127.0.0.1:9000/; do sleep 0.1; done"
    assert admin.exec(blank, ask)["stdout"].endswith("200")
    assert streamed(admin, blank, "sleep 300 & echo started")[-1][1]["exit_code"] == 0
    assert time.monotonic() - began < LONG


@pytest.mark.parametrize(
    ("command", "output"),
    [
        ("python3 -c \"print('ä' * 100001, end='')\"", "ä" * 100_001),
        ("printf 'a\\377b'", "a\ufffdb"),
    ],
)
def test_output_is_read_as_utf8_as_a_whole(admin: Api, blank: str, command: str, output: str) -> None:
    assert admin.exec(blank, command)["stdout"] == output


def test_a_character_in_two_pieces_of_a_stream_is_one_character(admin: Api, blank: str) -> None:
    events = streamed(admin, blank, "for i in 1 2 3; do printf '\\303'; sleep 0.1; printf '\\244'; sleep 0.1; done")
    assert "".join(data["data"] for name, data in events if name == "stdout") == "äää"


class Screen:
    """What a terminal shows, read up to marks."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._seen = b""

    async def until(self, mark: bytes) -> str:
        async with asyncio.timeout(60):
            while mark not in self._seen:
                frame = await self._socket.recv()
                assert isinstance(frame, bytes), "text frames could not carry half a character"
                self._seen += frame
        before, _, self._seen = self._seen.partition(mark)
        return before.decode()

    async def run(self, text: str) -> str:
        """Type a command line. What it shows until it has ended."""
        await self.type(f"{text}; echo d''one\n")
        return await self.until(b"done\r\n")

    async def type(self, text: str) -> None:
        await self._socket.send(text.encode())

    async def rest(self) -> tuple[str, int | None]:
        """What is shown until the terminal is closed, and the code with which it is closed."""
        try:
            async with asyncio.timeout(60):
                while True:
                    frame = await self._socket.recv()
                    self._seen += frame if isinstance(frame, bytes) else b""
        except ConnectionClosed as closed:
            return self._seen.decode(), closed.rcvd.code if closed.rcvd else None


@asynccontextmanager
async def terminal(api: Api, session_id: str) -> AsyncIterator[tuple[ClientConnection, Screen]]:
    url = f"{api.url.replace('http', 'ws')}/api/v1/sessions/{session_id}/terminal"
    async with connect(url, additional_headers={"Authorization": f"Bearer {api.token}"}, proxy=None) as socket:
        screen = Screen(socket)
        await socket.send(json.dumps({"resize": [132, 43]}))
        await screen.type("bind 'set enable-bracketed-paste off'; stty -echo; PS1=; echo re''ady\n")
        await screen.until(b"ready\r\n")
        yield socket, screen


async def test_a_terminal_has_its_size_whole_characters_and_an_end(admin: Api, blank: str) -> None:
    async with terminal(admin, blank) as (socket, screen):
        assert (await screen.run("stty size")).split() == ["43", "132"]
        await socket.send(json.dumps({"resize": [80, 24]}))
        assert (await screen.run("stty size")).split() == ["24", "80"]
        shown = await screen.run("python3 -c \"print('─│é漢☕' * 20000)\"")
        assert (shown.count("─│é漢☕"), shown.count("\ufffd")) == (20_000, 0)
        # The interrupt is sent when the program itself runs: a shell that is about to start one may drop it.
        await screen.type("sh -c \"echo be''gun; exec sleep 600\"\n")
        await screen.until(b"begun\r\n")
        await screen.type("\x03")
        assert "130" in await screen.run("echo $?")
        await screen.type("echo last words; exit 3\n")
        assert await screen.rest() == ("last words\r\nexit\r\n", 1000)


async def test_pasted_lines_reach_a_program_as_they_are(admin: Api, blank: str) -> None:
    async with terminal(admin, blank) as (_, screen):
        await screen.type("echo be''gun; cat > pasted.txt\n")
        await screen.until(b"begun\r\n")
        await screen.type("\x1b[200~first\nsecond\n\x1b[201~\n\x04")
        assert (await screen.run("cat -v pasted.txt")).split() == ["^[[200~first", "second", "^[[201~"]
