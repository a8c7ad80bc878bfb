"""The contract of `Guest`, on the fake and on the real one: files, folders, archives and watching."""

from __future__ import annotations

import asyncio
import contextlib
import io
import tarfile
from collections.abc import AsyncIterator, Awaitable
from uuid import uuid4

import pytest

from sandbox.engine.guest import Guest
from sandbox.errors import GuestError
from tests.waiting import WAIT_SECONDS, watch_begins


@pytest.fixture
async def folder(guest: Guest) -> AsyncIterator[str]:
    name = f"files-{uuid4().hex[:8]}"
    await guest.make_directory(name)
    yield name
    assert await guest.remove(name)


async def content(guest: Guest, path: str) -> bytes:
    return b"".join([part async for part in await guest.read_file(path)])


async def pieces(parts: list[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def refusal(call: Awaitable[object]) -> str:
    with pytest.raises(GuestError) as refused:
        await call
    assert refused.value.hint
    return refused.value.code


def archive(**files: bytes) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return target.getvalue()


async def test_a_file_is_written_with_its_folders_and_read_back(guest: Guest, folder: str) -> None:
    data = bytes(range(256)) * 1000
    info = await guest.write_file(f"{folder}/new/deep/file.bin", data, mode=0o640)
    assert (info.path, info.type, info.size, info.mode) == (f"{folder}/new/deep/file.bin", "file", len(data), 0o640)
    assert await content(guest, info.path) == data
    assert await content(guest, f"/workspace/{info.path}") == data
    assert await guest.stat(info.path) == info


async def test_a_file_is_written_from_a_stream_and_its_mode_stays(guest: Guest, folder: str) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"first, "
        yield b"second"

    await guest.write_file(f"{folder}/script", b"old", mode=0o755)
    info = await guest.write_file(f"{folder}/script", pieces())
    assert info.mode == 0o755
    assert await content(guest, f"{folder}/script") == b"first, second"


async def test_listing_moving_and_removing(guest: Guest, folder: str) -> None:
    await guest.write_file(f"{folder}/a/b/c", b"123")
    listed = {info.path.removeprefix(f"{folder}/"): info.type for info in await guest.list_files(folder, depth=3)}
    assert listed == {"a": "directory", "a/b": "directory", "a/b/c": "file"}
    assert [info.path for info in await guest.list_files(folder)] == [f"{folder}/a"]
    await guest.move(f"{folder}/a/b/c", f"{folder}/x/y")
    assert await content(guest, f"{folder}/x/y") == b"123"
    assert await guest.remove(f"{folder}/a") is True
    assert await guest.remove(f"{folder}/a") is False
    assert [info.path for info in await guest.list_files(folder)] == [f"{folder}/x"]
    assert await guest.stat(f"{folder}/none") is None


async def test_a_large_folder_is_listed_in_pages(guest: Guest, folder: str) -> None:
    names = [f"d{number // 8}/f{number}" for number in range(1_200)]
    await guest.put_tar(folder, archive(**dict.fromkeys(names, b"")))
    listed: list[str] = []
    while page := await guest.list_files(folder, depth=2, after=listed[-1] if listed else ""):
        listed += [info.path.removeprefix(f"{folder}/") for info in page]
    folders = {name.partition("/")[0] for name in names}
    assert listed == sorted([*names, *folders], key=lambda name: name.split("/"))


async def test_what_cannot_be_done_with_files(guest: Guest, folder: str) -> None:
    assert await refusal(guest.read_file(f"{folder}/none")) == "file_not_found"
    assert await refusal(guest.read_file(folder)) == "file_refused"
    assert await refusal(guest.list_files(f"{folder}/none")) == "file_not_found"
    assert await refusal(guest.move(f"{folder}/none", f"{folder}/other")) == "file_not_found"
    assert await refusal(guest.write_file(folder, b"")) == "file_refused"
    assert await refusal(guest.write_file("/etc/from-the-sandbox", b"")) == "file_refused"
    assert await refusal(guest.remove(".")) == "file_refused"
    assert await refusal(guest.read_file("a\0b")) == "agent_refused"


async def test_an_archive_in_and_out(guest: Guest, folder: str) -> None:
    await guest.put_tar(folder, archive(**{"a/b": b"b", "c": b"old"}))
    await guest.put_tar(folder, archive(c=b"new"))
    assert await content(guest, f"{folder}/a/b") == b"b"
    packed = b"".join([part async for part in await guest.get_tar(folder)])
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as tar:
        assert sorted(tar.getnames()) == ["a", "a/b", "c"]
        member = tar.extractfile("c")
        assert member is not None
        assert member.read() == b"new"


async def test_names_are_left_out_of_an_archive_at_any_depth(guest: Guest, folder: str) -> None:
    await guest.put_tar(folder, archive(**{"a/b": b"b", "a/modules/c": b"c", "modules/d": b"d", "e": b"e"}))
    packed = b"".join([part async for part in await guest.get_tar(folder, exclude=["modules", "e"])])
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as tar:
        assert sorted(tar.getnames()) == ["a", "a/b"]
    assert await refusal(guest.get_tar(f"{folder}/none")) == "file_not_found"


async def test_what_changed_since_a_file_is_packed_and_put_back(guest: Guest, folder: str) -> None:
    await guest.write_file(f"{folder}/mixed/old", b"old")
    await guest.write_file(f"{folder}/begin", b"")
    await asyncio.sleep(0.02)  # times of change have the resolution of the kernel's clock
    await guest.write_file(f"{folder}/mixed/new", b"new")
    await guest.write_file(f"{folder}/whole/deep/file", b"12345", mode=0o751)
    await guest.write_file(f"{folder}/left/out", b"x")
    place, begin, left = f"/workspace/{folder}", f"/workspace/{folder}/begin", f"/workspace/{folder}/left"
    changes = await guest.changes([place], since=begin, excluded=[left])
    assert (changes.bytes, changes.folders) == (8, (f"{place}/whole",))
    packed = [part async for part in guest.pack_changes([place], since=begin, excluded=[left])]
    with tarfile.open(fileobj=io.BytesIO(b"".join(packed))) as tar:
        files = {member.name for member in tar if member.isfile()}
    assert files == {f"workspace/{folder}/mixed/new", f"workspace/{folder}/whole/deep/file"}

    await guest.remove(f"{folder}/whole")
    await guest.write_file(f"{folder}/mixed/old", b"changed")
    await guest.unpack_changes(pieces(packed))
    assert await content(guest, f"{folder}/whole/deep/file") == b"12345"
    info = await guest.stat(f"{folder}/whole/deep/file")
    assert info is not None
    assert info.mode == 0o751
    assert await content(guest, f"{folder}/mixed/old") == b"changed"


async def test_all_of_a_folder_counts_without_a_beginning_and_a_missing_one_is_empty(guest: Guest, folder: str) -> None:
    await guest.write_file(f"{folder}/file", b"123")
    assert (await guest.changes([f"/workspace/{folder}"])).bytes == 3
    assert (await guest.changes([f"/workspace/{folder}/none"])).files == 0
    assert await refusal(guest.changes([folder], since="none")) == "file_not_found"


async def test_a_broken_archive_of_changes_is_refused(guest: Guest) -> None:
    assert await refusal(guest.unpack_changes(pieces([b"not a tar at all" * 64]))) == "file_refused"


@pytest.mark.parametrize("name", ["../outside", "/tmp/absolute", "a/../../outside"])
async def test_an_archive_that_leads_out_of_the_folder_leaves_nothing(guest: Guest, folder: str, name: str) -> None:
    assert await refusal(guest.put_tar(folder, archive(**{"good": b"x", name: b"x"}))) == "file_refused"
    assert await guest.list_files(folder) == []


@pytest.mark.parametrize("data", [b"", b"not a tar at all"])
async def test_a_broken_archive_is_refused(guest: Guest, folder: str, data: bytes) -> None:
    assert await refusal(guest.put_tar(folder, data)) == "file_refused"
    assert await guest.list_files(folder) == []


async def test_changes_below_a_folder_are_watched(guest: Guest, folder: str) -> None:
    await guest.write_file(f"{folder}/there", b"1")
    async with asyncio.timeout(WAIT_SECONDS), contextlib.aclosing(guest.watch(folder)) as watching:
        await watch_begins(guest, folder, watching)
        await guest.write_file(f"{folder}/new", b"1")
        assert await anext(watching) == {"type": "created", "path": f"{folder}/new"}
        await guest.write_file(f"{folder}/there", b"22")
        assert await anext(watching) == {"type": "modified", "path": f"{folder}/there"}
        await guest.remove(f"{folder}/new")
        assert await anext(watching) == {"type": "removed", "path": f"{folder}/new"}
    assert await refusal(anext(guest.watch(f"{folder}/none"))) == "file_not_found"
