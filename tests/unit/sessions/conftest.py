"""What tests of sessions share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from sandbox.sessions.watcher import Watcher
from tests.fakes.world import World


@pytest.fixture
async def watcher(world: World) -> AsyncIterator[Watcher]:
    async with world.watching() as watcher:
        yield watcher
