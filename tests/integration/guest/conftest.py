"""Fixtures with real guest agents, as a process of this machine and in a container."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import docker
import pytest

from sandbox.engine.guest_client.client import GuestClient
from sandbox.engine.guest_client.http import UnixConnector
from sandbox.engine.runtimes import RuntimeCatalog
from sandbox.images.runtime_images import RuntimeImages
from tests.integration.guest.running_guests import (
    CAPABILITIES,
    GUEST,
    MEMORY,
    PIDS,
    BridgeConnector,
    GuestContainer,
    RunningGuest,
    start_guest,
)
from tests.waiting import WAIT_SECONDS


@pytest.fixture(scope="session")
def running_guest() -> Iterator[RunningGuest]:
    # Below /tmp and readable by all, because commands run as another user.
    folder = Path(tempfile.mkdtemp(prefix="sandbox-guest-test-", dir="/tmp"))
    folder.chmod(0o755)
    guest = start_guest(folder)
    yield guest
    guest.process.send_signal(signal.SIGTERM)
    try:
        assert guest.process.wait(WAIT_SECONDS) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            guest.process.kill()
        shutil.rmtree(folder)


@pytest.fixture
async def client(running_guest: RunningGuest) -> AsyncIterator[GuestClient]:
    guest = GuestClient(UnixConnector(running_guest.socket))
    await guest.wait_ready(WAIT_SECONDS)
    yield guest
    await guest.aclose()


@pytest.fixture
async def bridged(running_guest: RunningGuest, client: GuestClient) -> AsyncIterator[GuestClient]:
    connector = BridgeConnector(running_guest.socket)
    guest = GuestClient(connector)
    await guest.wait_ready(60)
    yield guest
    await guest.aclose()
    for bridge in connector.bridges:
        assert await asyncio.to_thread(bridge.wait, 10) == 0


@pytest.fixture(scope="session")
async def guest_image() -> str:
    """The project's own runtime, whose Python runs the guest agent; built if it does not exist."""
    return await RuntimeImages(RuntimeCatalog()).ensure("python312")


@pytest.fixture
async def contained(guest_image: str) -> AsyncIterator[GuestContainer]:
    engine = docker.from_env()
    folder = Path(tempfile.mkdtemp(prefix="sandbox-guest-test-", dir="/tmp"))
    container = await asyncio.to_thread(
        engine.containers.run,
        guest_image,
        entrypoint=["python3", "-I", "-S", "/opt/sandbox-agent", "serve", "--socket", "/run/sandbox-agent/agent.sock"],
        name=f"sbx-test-guest-{uuid4().hex[:12]}",
        detach=True,
        init=True,
        network_mode="none",
        cap_drop=["ALL"],
        cap_add=CAPABILITIES,
        security_opt=["no-new-privileges"],
        pids_limit=PIDS,
        mem_limit=MEMORY,
        memswap_limit=MEMORY,
        volumes={
            str(GUEST): {"bind": "/opt/sandbox-agent", "mode": "ro"},
            str(folder): {"bind": "/run/sandbox-agent", "mode": "rw"},
        },
    )
    guest = GuestClient(UnixConnector(folder / "agent.sock"))
    try:
        await guest.wait_ready(30)
        yield GuestContainer(container, guest)
    finally:
        await guest.aclose()
        await asyncio.to_thread(container.remove, force=True, v=True)
        engine.close()
        shutil.rmtree(folder)
