"""Kept installs on disk: what is found again, what is removed, and what damage and interruptions leave."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandbox.errors import Unavailable
from sandbox.installs.archives import Contents, Kept, KeptInstalls, NotKept

LIMIT = 1000
CONTENTS = Contents("install", "shop", "backend", "python312", "npm ci", 2, ("/workspace/node_modules",))


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece


@pytest.fixture
def kept(tmp_path: Path) -> KeptInstalls:
    return KeptInstalls(tmp_path / "installs", LIMIT)


async def write(kept: KeptInstalls, owner: str, key: str, size: int, used_at: float | None = None) -> Kept:
    written = await kept.write(owner, key, CONTENTS, pieces(b"x" * (size - 1), b"y"))
    if used_at is not None:
        (description,) = kept_files(kept, f"{key}.json")
        os.utime(description, (used_at, used_at))
    return written


def kept_files(kept: KeptInstalls, pattern: str = "*") -> list[Path]:
    return [path for path in kept._folder.rglob(pattern) if path.is_file()]


async def content(kept: KeptInstalls, entry: Kept) -> bytes:
    return b"".join([piece async for piece in kept.read(entry)])


async def keys(kept: KeptInstalls, owner: str | None = None) -> list[str]:
    return [entry.key for entry in await kept.entries(owner)]


async def test_what_was_written_is_found_by_its_owner_only(kept: KeptInstalls) -> None:
    await kept.write("ada", "k", CONTENTS, pieces(b"first, ", b"second"))
    found = await kept.find("ada", "k")
    assert found is not None
    assert (found.contents, found.size_bytes) == (CONTENTS, 13)
    assert await content(kept, found) == b"first, second"
    assert await kept.find("ada", "other") is None
    assert await kept.find("eve", "k") is None
    assert all(path.stat().st_mode & 0o077 == 0 for path in kept_files(kept, "*.tar"))


async def test_a_later_archive_with_the_same_key_replaces_the_earlier_one(kept: KeptInstalls) -> None:
    await kept.write("ada", "k", CONTENTS, pieces(b"old"))
    await kept.write("ada", "k", CONTENTS, pieces(b"new"))
    (entry,) = await kept.entries("ada")
    assert await content(kept, entry) == b"new"
    assert len(kept_files(kept)) == 2


@pytest.mark.parametrize("damage", ["flipped", "truncated", "gone", "description"])
async def test_a_damaged_archive_is_removed_and_not_given(kept: KeptInstalls, damage: str) -> None:
    await write(kept, "ada", "k", 100)
    (tar,), (description,) = kept_files(kept, "*.tar"), kept_files(kept, "*.json")
    match damage:
        case "flipped":
            tar.write_bytes(b"z" + tar.read_bytes()[1:])
        case "truncated":
            tar.write_bytes(tar.read_bytes()[:-1])
        case "gone":
            tar.unlink()
        case "description":
            description.write_text('{"key":')
    assert await kept.find("ada", "k") is None
    assert await keys(kept) == []


async def test_an_interrupted_write_leaves_what_was_there(kept: KeptInstalls) -> None:
    await kept.write("ada", "k", CONTENTS, pieces(b"whole"))

    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        raise ConnectionError("the container is gone")

    with pytest.raises(ConnectionError):
        await kept.write("ada", "k", CONTENTS, broken())
    (entry,) = await kept.entries()
    assert await content(kept, entry) == b"whole"
    assert len(kept_files(kept)) == 2


async def test_what_a_killed_process_left_is_removed_later(kept: KeptInstalls) -> None:
    await write(kept, "ada", "k", 10)
    (tar,) = kept_files(kept, "*.tar")
    for name in ("half.0011.part", "without-description.tar"):
        (tar.parent / name).write_bytes(b"left")
    old = tar.parent / "older.2233.part"
    old.write_bytes(b"left")
    os.utime(old, (1, 1))
    os.utime(tar.parent / "without-description.tar", (1, 1))
    await write(kept, "ada", "k2", 10)
    names = [path.name for path in kept_files(kept)]
    assert "half.0011.part" in names  # its writer may still be there
    assert len(names) == 5
    assert await keys(kept) == ["k2", "k"]


async def test_an_owner_has_half_of_the_space_and_loses_what_was_used_least_recently(kept: KeptInstalls) -> None:
    await write(kept, "eve", "hers", 100, used_at=1)
    for number, key in enumerate(("a", "b", "c")):
        await write(kept, "ada", key, 160, used_at=10 + number)
    assert await kept.find("ada", "a") is not None  # it is used now
    await write(kept, "ada", "d", 160)
    assert await keys(kept, "ada") == ["d", "a", "c"]
    assert await keys(kept, "eve") == ["hers"]


async def test_all_owners_together_stay_below_the_limit(kept: KeptInstalls) -> None:
    for number, owner in enumerate(("ada", "bob", "cyd")):
        await write(kept, owner, owner, 400, used_at=10 + number)
    assert sorted(await keys(kept)) == ["bob", "cyd"]


async def test_too_large_archives_are_refused(kept: KeptInstalls) -> None:
    with pytest.raises(NotKept):
        await write(kept, "ada", "k", LIMIT)
    assert kept_files(kept) == []


async def test_nothing_is_written_while_the_disk_is_low(tmp_path: Path) -> None:
    def no_room() -> None:
        raise Unavailable("The disk is nearly full", hint="Free some.", code="disk_low")

    kept = KeptInstalls(tmp_path, LIMIT, require_room=no_room)
    with pytest.raises(Unavailable):
        await write(kept, "ada", "k", 10)
    assert kept_files(kept) == []


async def test_clearing_is_for_one_owner_or_for_all(kept: KeptInstalls) -> None:
    for owner in ("ada", "bob"):
        await write(kept, owner, "k", 10)
    assert [entry.owner for entry in await kept.clear("ada")] == ["ada"]
    assert [entry.owner for entry in await kept.entries()] == ["bob"]
    await kept.clear()
    assert kept_files(kept) == []


async def test_several_writers_at_once_leave_one_whole_archive(kept: KeptInstalls) -> None:
    await asyncio.gather(*(kept.write("ada", "k", CONTENTS, pieces(bytes([n]) * 40)) for n in range(8)))
    found = await kept.find("ada", "k")
    assert found is not None
    assert len(set(await content(kept, found))) == 1
