"""Files and archives, and that links in the workspace give no access to anything else."""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from sandbox.engine.guest_client.client import GuestClient
from sandbox.errors import GuestError
from tests.integration.guest.running_guests import RunningGuest


@pytest.fixture
async def folder(client: GuestClient) -> AsyncIterator[str]:
    name = f"files-{uuid4().hex[:8]}"
    await client.make_directory(name)
    yield name
    assert await client.remove(name)


async def content(client: GuestClient, path: str) -> bytes:
    return b"".join([part async for part in await client.read_file(path)])


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def archive(*members: tuple[tarfile.TarInfo | str, bytes], mode: str = "w:gz") -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode=mode) as tar:  # type: ignore[call-overload]
        for given, data in members:
            member = tarfile.TarInfo(given) if isinstance(given, str) else given
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return target.getvalue()


async def refused(call: object) -> GuestError:
    with pytest.raises(GuestError) as refusal:
        await call  # type: ignore[misc]
    return refusal.value


async def test_write_and_read_back(client: GuestClient, folder: str) -> None:
    data = os.urandom(3_000_000)
    info = await client.write_file(f"{folder}/new/deep/file.bin", data, mode=0o640)
    assert (info.path, info.type, info.size, info.mode) == (f"{folder}/new/deep/file.bin", "file", 3_000_000, 0o640)
    assert await content(client, info.path) == data
    owner = await client.exec(["stat", "-c", "%u:%g", info.path])
    assert owner.stdout == b"1000:1000\n"
    assert await content(client, f"{(await client.exec('pwd')).stdout.decode().strip()}/{info.path}") == data


async def test_a_file_that_is_written_again_keeps_its_mode(client: GuestClient, folder: str) -> None:
    await client.write_file(f"{folder}/script", pieces(b"#!/bin/sh\n", b"", b"echo ran\n"), mode=0o755)
    await client.write_file(f"{folder}/script", pieces(b"#!/bin/sh\n", b"echo again\n"))
    assert (await client.exec([f"./{folder}/script"])).stdout == b"again\n"
    empty = await client.write_file(f"{folder}/empty", b"")
    assert empty.size == 0
    assert await content(client, f"{folder}/empty") == b""


async def test_an_upload_that_breaks_off_leaves_nothing(client: GuestClient, folder: str) -> None:
    await client.write_file(f"{folder}/kept", b"old")

    async def broken() -> AsyncIterator[bytes]:
        yield b"new"
        raise OSError("the source broke")

    with pytest.raises(OSError, match="the source broke"):
        await client.write_file(f"{folder}/kept", broken())
    for _ in range(1200):
        if [info.path for info in await client.list_files(folder)] == [f"{folder}/kept"]:
            break
        await asyncio.sleep(0.05)
    assert [info.path for info in await client.list_files(folder)] == [f"{folder}/kept"]
    assert await content(client, f"{folder}/kept") == b"old"


async def test_stat_list_move_remove(client: GuestClient, folder: str) -> None:
    await client.write_file(f"{folder}/a/b/c", b"123")
    await client.exec(["ln", "-s", "nowhere", f"{folder}/a/link"])
    assert await client.stat(f"{folder}/none") is None
    assert await client.stat(f"{folder}/a/b/c/beyond") is None
    listed = {info.path.removeprefix(f"{folder}/"): info.type for info in await client.list_files(folder, depth=3)}
    assert listed == {"a": "directory", "a/b": "directory", "a/b/c": "file", "a/link": "symlink"}
    assert [info.path for info in await client.list_files(folder)] == [f"{folder}/a"]
    await client.move(f"{folder}/a/b/c", f"{folder}/x/y")
    assert await content(client, f"{folder}/x/y") == b"123"
    assert await client.remove(f"{folder}/a")
    assert not await client.remove(f"{folder}/a")
    assert [info.path for info in await client.list_files(folder)] == [f"{folder}/x"]


async def test_a_write_to_a_link_writes_its_target(client: GuestClient, folder: str) -> None:
    await client.write_file(f"{folder}/data/real.json", b"old", mode=0o600)
    await client.exec(f"cd {folder} && ln -s data/real.json link && ln -s data/new.json dangling")
    info = await client.write_file(f"{folder}/link", b"new")
    assert (info.path, info.type, info.mode) == (f"{folder}/link", "file", 0o600)
    assert await content(client, f"{folder}/data/real.json") == b"new"
    await client.write_file(f"{folder}/dangling", b"made")
    assert await content(client, f"{folder}/data/new.json") == b"made"
    kinds = {info.path.rpartition("/")[2]: info.type for info in await client.list_files(folder)}
    assert kinds == {"data": "directory", "link": "symlink", "dangling": "symlink"}


@pytest.mark.parametrize("target", ["/etc/hostname", "../../../../tmp/x", "out"])
async def test_a_link_that_leads_out_of_the_workspace_or_to_itself_is_not_written(
    client: GuestClient, folder: str, target: str
) -> None:
    await client.exec(["ln", "-s", target, f"{folder}/out"])
    with pytest.raises(GuestError) as refused:
        await client.write_file(f"{folder}/out", b"x")
    assert refused.value.code == "file_refused"
    assert "link" in refused.value.message


async def test_names_that_are_not_utf8(client: GuestClient, folder: str) -> None:
    await client.exec(f"printf data > {folder}/$(printf 'bad\\377name')")
    (info,) = await client.list_files(folder)
    assert await content(client, info.path) == b"data"


async def test_errors_of_the_file_system_have_codes(client: GuestClient, folder: str) -> None:
    await client.exec(["mkfifo", f"{folder}/pipe"])
    assert (await refused(client.read_file(f"{folder}/none"))).code == "file_not_found"
    assert (await refused(client.read_file(folder))).code == "file_refused"
    assert (await refused(client.read_file(f"{folder}/pipe"))).code == "file_refused"
    assert (await refused(client.read_file("/dev/zero"))).code == "file_refused"
    assert (await refused(client.list_files(f"{folder}/none"))).code == "file_not_found"
    assert (await refused(client.move(f"{folder}/none", f"{folder}/other"))).code == "file_not_found"
    assert (await refused(client.write_file(folder, b""))).code == "file_refused"
    assert (await refused(client.write_file("/etc/from-the-sandbox", b""))).code == "file_refused"
    assert (await refused(client.remove("."))).code == "file_refused"
    assert (await refused(client.read_file("a\0b"))).code == "agent_refused"


async def test_links_do_not_give_access_to_files_of_root(
    client: GuestClient, folder: str, running_guest: RunningGuest, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("root's own")
    secret.chmod(0o600)
    pid = running_guest.process.pid
    targets = {
        "secret": str(secret),
        "shadow": "/etc/shadow",
        "environ": f"/proc/{pid}/environ",
        "self": "/proc/self/environ",
        "init": "/proc/1/environ",
        "memory": "/proc/self/mem",
        "spool": str(running_guest.spool),
        "sockets": str(running_guest.socket.parent),
    }
    for name, target in targets.items():
        await client.exec(["ln", "-s", target, f"{folder}/{name}"])
        assert (await refused(client.read_file(f"{folder}/{name}"))).code == "file_refused"
    assert (await refused(client.list_files(f"{folder}/sockets"))).code == "file_refused"
    assert (await refused(client.write_file(f"{folder}/sockets/agent.sock", b""))).code == "file_refused"
    assert (await refused(client.remove(f"{folder}/sockets/agent.sock"))).code == "file_refused"
    assert (await refused(client.put_tar(f"{folder}/sockets", archive(("x", b"x"))))).code == "file_refused"
    # A link out of the workspace is not followed for writing.
    assert (await refused(client.write_file(f"{folder}/secret", b"the user's"))).code == "file_refused"
    assert secret.read_text() == "root's own"
    # No descriptor of the guest agent can be reached through /proc/self.
    numbers = [f"/proc/self/fd/{number}" for number in range(3, 40)]
    errors = [await refused(client.read_file(path)) for path in numbers]
    assert {error.code for error in errors} <= {"file_not_found", "file_refused"}


async def test_a_folder_is_unpacked_and_packed(client: GuestClient, folder: str) -> None:
    script = tarfile.TarInfo("bin/run")
    script.mode = 0o6755
    hidden = tarfile.TarInfo("private")
    hidden.mode = 0o000
    empty = tarfile.TarInfo("empty")
    empty.type = tarfile.DIRTYPE
    await client.put_tar(folder, archive((script, b"#!/bin/sh\n"), ("./a/b", b"b"), (hidden, b"p"), (empty, b"")))
    modes = {info.path.removeprefix(f"{folder}/"): info.mode for info in await client.list_files(folder, depth=4)}
    assert modes == {"bin": 0o755, "bin/run": 0o755, "a": 0o755, "a/b": 0o644, "private": 0o600, "empty": 0o755}
    await client.put_tar(folder, pieces(archive(("a/b", b"new"), mode="w")))
    packed = b"".join([part async for part in await client.get_tar(folder)])
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as tar:
        assert sorted(tar.getnames()) == ["a", "a/b", "bin", "bin/run", "empty", "private"]
        member = tar.extractfile("a/b")
        assert member is not None
        assert member.read() == b"new"
        assert {info.uid for info in tar} == {0}


async def test_a_folder_is_packed_that_changes_meanwhile(client: GuestClient, folder: str) -> None:
    """A file that shrinks, one that disappears, links of both kinds, a pipe and what may not be read."""
    script = """
        mkdir -p "$0/a/b" && cd "$0" && seq 1 200000 > shrinks && ln shrinks again && ln -s /etc/passwd away
        mkfifo pipe && echo x > unreadable && chmod 000 unreadable && echo y > a/b/zz
        for i in $(seq 300); do head -c 9999 /dev/urandom > a/$i; done
    """
    assert (await client.exec(["bash", "-c", script, folder])).exit_code == 0
    change = 'cd "$0"; while :; do rm -f a/$((n += 1)); : > shrinks; seq 1 200000 > shrinks; done'
    await client.start(folder, ["bash", "-c", change, folder])
    packed = b"".join([part async for part in await client.get_tar(folder)])
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as tar:
        found = {member.name: member for member in tar}
    assert {"shrinks", "again", "away", "a", "a/b", "a/b/zz"} <= set(found)
    assert not {"pipe", "unreadable"} & set(found)
    assert found["away"].issym()
    assert found["again"].isreg()
    await client.forget(folder)


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    member.linkname = target
    return member


@pytest.mark.parametrize(
    "hostile",
    [
        tarfile.TarInfo("../outside"),
        tarfile.TarInfo("/tmp/absolute"),
        tarfile.TarInfo("a/../../outside"),
        link("out", "/etc"),
        link("hard", "/etc/passwd", tarfile.LNKTYPE),
        link("device", "", tarfile.CHRTYPE),
        link("pipe", "", tarfile.FIFOTYPE),
        tarfile.TarInfo("planted/file"),
    ],
    ids=lambda member: member.name,
)
async def test_hostile_archives_are_refused_whole(client: GuestClient, folder: str, hostile: tarfile.TarInfo) -> None:
    await client.exec(["ln", "-s", "/tmp", f"{folder}/planted"])
    error = await refused(client.put_tar(folder, archive(("good", b"x"), (hostile, b""))))
    assert error.code == "file_refused"
    assert hostile.name in error.message
    assert [info.path for info in await client.list_files(folder)] == [f"{folder}/planted"]


@pytest.mark.parametrize("data", [b"", b"not a tar at all", archive(("big", os.urandom(200_000)))[:100_000]])
async def test_broken_archives_are_refused(client: GuestClient, folder: str, data: bytes) -> None:
    assert (await refused(client.put_tar(folder, data))).code == "file_refused"
    assert await client.list_files(folder) == []


async def test_one_page_of_a_large_folder_is_bounded_by_count_and_by_bytes(client: GuestClient, folder: str) -> None:
    for name, many in (("f", 1_500), ("long" * 60, 1_200)):
        await client.exec(["python3", "-c", f"import os; os.makedirs({folder + '/' + name[:4]!r})"])
        make = f"for n in range({many}): open(f'{folder}/{name[:4]}/{name}{{n}}', 'w').close()"
        await client.exec(["python3", "-c", make])
        page = await client.list_files(f"{folder}/{name[:4]}")
        assert 0 < len(page) <= 1_000
        assert sum(len(info.path) for info in page) < 300 * 1024
