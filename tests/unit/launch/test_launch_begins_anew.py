"""A run begins in containers in which nothing runs and a command can run."""

from __future__ import annotations

from sandbox.domain.session import SessionStatus
from sandbox.engine.guest_client.errors import guest_error
from tests.fakes.processes import Script
from tests.fakes.world import World

ENDLESS = Script(exit_code=None)


async def test_a_relaunch_ends_what_runs(world: World) -> None:
    session = await world.create_blank()
    assert await world.launch(session) is SessionStatus.READY
    guest = world.guest(session)
    guest.script("bomb", ENDLESS)
    await guest.start("bomb", "bomb")
    await world.relaunch(session)
    assert await world.launch(session) is SessionStatus.READY
    assert [info.name for info in await guest.processes() if info.running] == []


async def test_a_session_in_which_no_command_can_run_is_not_ready(world: World) -> None:
    session = await world.create_blank()
    for _ in range(10):
        world.guest(session).fail("exec", guest_error("agent_refused", "the container is at its limit"))
    assert await world.launch(session) is SessionStatus.ERROR
    after = await world.read(session)
    assert after.error is not None
    assert "limit" in after.error.message
