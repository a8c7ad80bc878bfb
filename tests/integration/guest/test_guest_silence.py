"""A guest agent that stops answering in the middle of a request ends the request; one that is only busy does not."""

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandbox.engine.guest_client.client import GuestClient
from sandbox.engine.guest_client.http import UnixConnector
from sandbox.errors import GuestError
from tests.integration.guest.running_guests import RunningGuest, start_guest


@pytest.fixture
async def own() -> AsyncIterator[tuple[RunningGuest, GuestClient]]:
    """A guest agent that the test may stop, and its client."""
    folder = Path(tempfile.mkdtemp(prefix="sandbox-guest-test-", dir="/tmp"))
    folder.chmod(0o755)
    guest = start_guest(folder)
    client = GuestClient(UnixConnector(guest.socket))
    try:
        await client.wait_ready(60)
        yield guest, client
    finally:
        guest.process.send_signal(signal.SIGCONT)
        guest.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(guest.process.wait, 60)
        await client.aclose()
        shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.engine.guest_client.http.QUIET_SECONDS", 0.2)
    monkeypatch.setattr("sandbox.engine.guest_client.http.ALIVE_SECONDS", 30.0)


@pytest.mark.root
async def test_a_command_ends_when_its_guest_agent_is_silent(
    own: tuple[RunningGuest, GuestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    guest, client = own
    command = asyncio.create_task(client.exec("touch begun; sleep 600"))
    while not await client.stat("begun"):
        await asyncio.sleep(0.02)
    monkeypatch.setattr("sandbox.engine.guest_client.http.ALIVE_SECONDS", 1.0)
    guest.process.send_signal(signal.SIGSTOP)
    async with asyncio.timeout(60):
        with pytest.raises(GuestError, match="may be paused") as silent:
            await command
    assert silent.value.code == "agent_unreachable"
    monkeypatch.setattr("sandbox.engine.guest_client.http.ALIVE_SECONDS", 30.0)
    guest.process.send_signal(signal.SIGCONT)
    await client.wait_ready(60)
    assert (await client.exec("echo again")).stdout == b"again\n"


@pytest.mark.root
async def test_a_command_that_prints_nothing_for_long_is_left_alone(own: tuple[RunningGuest, GuestClient]) -> None:
    _, client = own
    result = await client.exec("sleep 3; echo done")
    assert (result.exit_code, result.stdout) == (0, b"done\n")
