"""Archives that are too large or damaged, or that declare wrong sizes."""

import gzip
import os
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandbox.errors import Kind
from sandbox.projects.archive import ArchiveKind
from sandbox.projects.archive_tree import ArchiveRefused
from tests.unit.projects.hostile_archives import NO_RATIO, listing, refused, run, special, tar_gz, zipped


async def test_too_many_files(tmp_path: Path) -> None:
    data = tar_gz(*((f"f{i}", b"") for i in range(51)))
    await refused(tmp_path, data, ArchiveKind.TAR_GZ, "archive_too_many_files", "50")
    members = tar_gz(*((f"node_modules/f{i}", b"") for i in range(201)))
    await refused(tmp_path, members, ArchiveKind.TAR_GZ, "archive_too_many_files", "node_modules/f200")
    await refused(
        tmp_path, zipped(*((f"f{i}", b"") for i in range(201))), ArchiveKind.ZIP, "archive_too_many_files", "200"
    )


@pytest.mark.parametrize("kind", list(ArchiveKind))
async def test_too_large(tmp_path: Path, kind: ArchiveKind) -> None:
    files = [(f"f{i}", os.urandom(1 << 19)) for i in range(9)]
    data = tar_gz(*files) if kind is ArchiveKind.TAR_GZ else zipped(*files)
    with pytest.raises(ArchiveRefused) as caught:
        await run(tmp_path, data, kind)
    assert (caught.value.code, caught.value.kind) == ("archive_too_large", Kind.TOO_LARGE)
    assert "f8" in caught.value.message


@pytest.mark.parametrize("kind", list(ArchiveKind))
async def test_bombs(tmp_path: Path, kind: ArchiveKind) -> None:
    bomb = bytes(3 << 20)
    data = tar_gz(("bomb", bomb)) if kind is ArchiveKind.TAR_GZ else zipped(("bomb", bomb))
    await refused(tmp_path, data, kind, "archive_ratio", "50 times")


async def test_hard_links_do_not_multiply_a_file_beyond_the_limit(tmp_path: Path) -> None:
    content = os.urandom(1 << 20)
    data = tar_gz(("f", content), *((f"l{i}", special(tarfile.LNKTYPE, "f")) for i in range(5)))
    await refused(tmp_path, data, ArchiveKind.TAR_GZ, "archive_too_large")


async def test_a_tar_header_that_declares_a_gigabyte(tmp_path: Path) -> None:
    info = tarfile.TarInfo("pax")
    info.type = tarfile.XHDTYPE
    info.size = 1 << 30
    data = gzip.compress(info.tobuf() + bytes(1 << 20))
    await refused(tmp_path, data, ArchiveKind.TAR_GZ, "archive_unreadable", "header is too long", limits=NO_RATIO)


async def test_endless_headers(tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type = tarfile.GNUTYPE_LONGNAME
    header.size = 2
    block = header.tobuf() + b"a\0" + bytes(510)
    data = gzip.compress(block * 3000 + bytes(1024))
    await refused(tmp_path, data, ArchiveKind.TAR_GZ, "archive_unreadable", limits=NO_RATIO)


async def test_too_many_global_headers(tmp_path: Path) -> None:
    header = tarfile.TarInfo.create_pax_global_header({f"k{i}": "v" for i in range(100)})
    data = gzip.compress(header + gzip.decompress(tar_gz(("a", b"x"))))
    await refused(tmp_path, data, ArchiveKind.TAR_GZ, "archive_unreadable", "global headers")


async def test_an_encrypted_zip(tmp_path: Path) -> None:
    data = bytearray(zipped(("secret.txt", b"x")))
    for signature, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        data[data.index(signature) + offset] |= 1
    await refused(tmp_path, bytes(data), ArchiveKind.ZIP, "archive_encrypted", "secret.txt")


@pytest.mark.parametrize("claimed", [10, 3000])
async def test_a_zip_that_declares_a_wrong_size(tmp_path: Path, claimed: int) -> None:
    data = bytearray(zipped(("lie.txt", os.urandom(1000))))
    struct.pack_into("<L", data, data.index(b"PK\x01\x02") + 24, claimed)
    await refused(tmp_path, bytes(data), ArchiveKind.ZIP, "archive_unreadable", "lie.txt")


async def test_unsupported_zip_methods(tmp_path: Path) -> None:
    data = zipped(("a", b"x" * 1000), method=zipfile.ZIP_BZIP2)
    await refused(tmp_path, data, ArchiveKind.ZIP, "archive_unreadable", "method")


async def test_a_zip_that_declares_a_huge_directory(tmp_path: Path) -> None:
    data = bytearray(zipped(("a", b"x")))
    struct.pack_into("<L", data, data.index(b"PK\x05\x06") + 12, 0x7FFFFFFF)
    await refused(tmp_path, bytes(data), ArchiveKind.ZIP, "archive_unreadable")


@pytest.mark.parametrize("kind", list(ArchiveKind))
@pytest.mark.parametrize("data", [b"", b"garbage" * 100, b"\x1f\x8b\x08\x00", b"PK\x05\x06"])
async def test_garbage(tmp_path: Path, kind: ArchiveKind, data: bytes) -> None:
    await refused(tmp_path, data, kind, "archive_unreadable")


async def test_a_content_type_that_does_not_match(tmp_path: Path) -> None:
    await refused(tmp_path, zipped(("a", b"")), ArchiveKind.TAR_GZ, "archive_unreadable")
    await refused(tmp_path, tar_gz(("a", b"")), ArchiveKind.ZIP, "archive_unreadable")


@pytest.mark.parametrize(
    "data",
    [tar_gz(), tar_gz(("empty", None)), tar_gz((".git/x", b"x"))],
    ids=["no entry", "a folder", "only what is left out"],
)
async def test_an_empty_archive(tmp_path: Path, data: bytes) -> None:
    await refused(tmp_path, data, ArchiveKind.TAR_GZ, "project_empty")


@given(cut=st.integers(min_value=0, max_value=2000), flip=st.integers(min_value=0, max_value=1999), kind=st.booleans())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_a_damaged_archive_is_refused_or_unchanged(tmp_path: Path, cut: int, flip: int, kind: bool) -> None:
    files = [(f"d/f{i}", bytes([i]) * 50) for i in range(5)]
    data = bytearray(tar_gz(*files) if kind else zipped(*files))
    data[flip % len(data)] ^= 0x55
    damaged = bytes(data[: len(data) - cut % len(data)])
    try:
        result = await run(tmp_path, damaged, ArchiveKind.TAR_GZ if kind else ArchiveKind.ZIP)
    except ArchiveRefused:
        assert not (tmp_path / "project.tar.gz").exists()
    else:
        assert result.files == len([c for c in listing(tmp_path).values() if c is not None])


_names = st.lists(
    st.sampled_from(["a", "b", ".", "..", "/", "/", "\\", "\x00", "~", "é", " ", "\udc80"]), min_size=1
).map("".join)


@given(st.lists(st.tuples(_names, st.sampled_from(["file", "folder", "link", "hard"]), _names), max_size=6))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_every_accepted_archive_unpacks_inside_its_folder(
    tmp_path: Path, members: list[tuple[str, str, str]]
) -> None:
    types = {"folder": tarfile.DIRTYPE, "link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE}
    data = tar_gz(*((n, b"x" if kind == "file" else special(types[kind], t)) for n, kind, t in members))
    try:
        await run(tmp_path, data, ArchiveKind.TAR_GZ)
    except ArchiveRefused:
        return
    with tarfile.open(tmp_path / "project.tar.gz") as tar:
        for member in tar:
            assert tarfile.data_filter(member, "/workspace") is not None


async def test_a_zip_whose_beginning_is_missing(tmp_path: Path) -> None:
    data = zipped(("a.txt", os.urandom(100)), ("b.txt", b"y"))
    await refused(tmp_path, data[20:], ArchiveKind.ZIP, "archive_unreadable")


async def test_a_zip_with_a_name_that_is_no_text(tmp_path: Path) -> None:
    data = bytearray(zipped(("ä.txt", b"x")))
    at = data.index("ä".encode())
    data[at : at + 2] = b"\xff\xfe"
    await refused(tmp_path, bytes(data), ArchiveKind.ZIP, "archive_unreadable")
