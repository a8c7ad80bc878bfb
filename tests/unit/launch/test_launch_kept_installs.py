"""Launches whose dependencies were installed before."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.domain.events import EventType
from sandbox.domain.session import Session, SessionStatus
from sandbox.installs.archives import KeptInstalls
from tests.fakes.errors import guest_error
from tests.fakes.processes import Script
from tests.fakes.world import Crash, World, crash_at, one_role

COMMAND = "npm ci"
INSTALLED = "node_modules/left-pad/index.js"


@pytest.fixture(autouse=True)
def keeping(world: World, tmp_path: Path) -> None:
    world.installs = KeptInstalls(tmp_path, 1 << 30)


async def project(world: World, *, lock: str = "lock 1", env: dict[str, str] | None = None) -> Session:
    """A session of a project with this lock file, whose install writes a package."""
    session = await world.create_project(one_role(install=COMMAND, runtime="node20"), env=env)
    guest = world.guest(session)
    guest.script("exec", Script(f"{lock}  ./package-lock.json\n--\n--\n".encode()))

    def before(call: str) -> None:
        if call == "main.output" and not guest.files().stat(INSTALLED):
            guest.files().write(INSTALLED, f"package of {lock}".encode())

    world.engine.on_call = before
    return session


async def results(world: World, session: Session) -> list[str]:
    return [
        event.data["install"]["cache"]
        for event in await world.events(session, EventType.LOG)
        if "install" in event.data
    ]


def installs(world: World, session: Session) -> int:
    return sum(name.startswith("install-") for name in world.guest(session).started)


def installed(world: World, session: Session) -> bytes:
    return world.guest(session).files().read(INSTALLED)


async def test_the_second_launch_installs_nothing(world: World) -> None:
    first, second = await project(world), None
    assert await world.launch(first) is SessionStatus.RUNNING
    second = await project(world)
    assert await world.launch(second) is SessionStatus.RUNNING
    assert (await results(world, first), await results(world, second)) == (["miss"], ["hit"])
    assert (installs(world, first), installs(world, second)) == (1, 0)
    assert installed(world, second) == b"package of lock 1"


@pytest.mark.parametrize("change", [{"lock": "lock 2"}, {"env": {"NODE_ENV": "production"}}])
async def test_another_lock_file_or_environment_is_another_install(world: World, change: dict[str, object]) -> None:
    await world.launch(await project(world))
    session = await project(world, **change)  # type: ignore[arg-type]
    assert await world.launch(session) is SessionStatus.RUNNING
    assert await results(world, session) == ["miss"]


async def test_nothing_is_given_to_another_user(world: World) -> None:
    first = await project(world)
    await world.launch(first)
    second = await project(world)
    await world.execute("UPDATE sandbox_sessions SET user_id = 'eve' WHERE session_id = :id", id=second.session_id)
    await world.launch(second)
    assert await results(world, second) == ["miss"]


async def test_a_damaged_archive_is_installed_again(world: World, tmp_path: Path) -> None:
    await world.launch(await project(world))
    (archive,) = tmp_path.rglob("*.tar")
    archive.write_bytes(b"damaged" + archive.read_bytes()[7:])
    session = await project(world)
    assert await world.launch(session) is SessionStatus.RUNNING
    assert await results(world, session) == ["miss"]
    assert len(await world.installs.entries()) == 1


async def test_an_archive_that_cannot_be_unpacked_is_removed_and_its_rests_too(world: World) -> None:
    await world.launch(await project(world))
    session = await project(world)
    world.guest(session).fail("unpack_changes", guest_error("file_refused", "not a tar"))
    assert await world.launch(session) is SessionStatus.RUNNING
    assert await results(world, session) == ["miss"]
    assert installs(world, session) == 1


async def test_a_failed_install_is_not_kept(world: World) -> None:
    session = await project(world)
    world.guest(session).script("install", Script(b"no such package\n", exit_code=1))
    assert await world.launch(session) is SessionStatus.ERROR
    assert await world.installs.entries() == []


async def test_what_is_installed_into_a_used_workspace_is_not_kept(world: World) -> None:
    session = await project(world)
    world.guest(session).script("install", Script(exit_code=1))
    await world.launch(session)
    world.guest(session).files().write("notes.txt", b"written by the app")
    world.guest(session).script("install", Script())
    session = await world.relaunch(session)
    assert await world.launch(session) is SessionStatus.RUNNING
    assert await world.installs.entries() == []
    assert any("the workspace was used before" in line for line in await world.lines(session))


async def test_a_failure_to_keep_does_not_fail_the_launch(world: World) -> None:
    session = await project(world)
    world.guest(session).fail("pack_changes", guest_error("agent_refused", "it changed meanwhile"))
    assert await world.launch(session) is SessionStatus.RUNNING
    assert any(line.startswith("not kept for later launches") for line in await world.lines(session))


@pytest.mark.parametrize("launch", ["miss", "hit"])
async def test_a_killed_service_goes_on_with_what_it_decided(
    world: World, monkeypatch: pytest.MonkeyPatch, launch: str
) -> None:
    if launch == "hit":
        await world.launch(await project(world))
    session = await project(world)
    crash_at(monkeypatch, "dependencies:after-act")
    with pytest.raises(Crash):
        await world.launch(session)
    assert await world.launch(session) is SessionStatus.RUNNING
    assert await results(world, session) == [launch]
    assert installs(world, session) == (1 if launch == "miss" else 0)
    assert len(await world.installs.entries()) == 1
    lines = await world.lines(session)
    assert len(lines) == len(set(lines))


async def test_downloads_are_kept_for_other_lock_files(world: World) -> None:
    first = await project(world)
    store = ".pnpm-store/left-pad.tgz"

    def before(call: str) -> None:
        if call == "main.output":
            world.guest(first).files().write(store, b"downloaded")

    world.engine.on_call = before
    await world.launch(first)
    second = await project(world, lock="lock 2")
    await world.launch(second)
    assert world.guest(second).files().read(store) == b"downloaded"
    kinds = {entry.contents.kind for entry in await world.installs.entries()}
    assert kinds == {"install", "downloads"}


async def test_without_space_nothing_is_kept(world: World, tmp_path: Path) -> None:
    world.installs = KeptInstalls(tmp_path, 0)
    session = await project(world)
    assert await world.launch(session) is SessionStatus.RUNNING
    assert await results(world, session) == ["not_applicable"]
