"""Archives are hostile input: what is taken comes out the same however it was packed, the rest leaves nothing."""

import gzip
import hashlib
import io
import os
import stat
import struct
import subprocess
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandbox.errors import InvalidInput, Kind
from sandbox.projects.archive import ArchiveKind, NormalisedProject, normalise
from sandbox.projects.archive_readers import ArchiveLimits
from sandbox.projects.archive_tree import ArchiveRefused

LIMITS = ArchiveLimits(max_bytes=4 << 20, max_files=50, max_members=200, max_ratio=50, ratio_floor_bytes=1 << 20)
NO_RATIO = replace(LIMITS, ratio_floor_bytes=1 << 40)


def tar_gz(*members: tuple[str, object]) -> bytes:
    """(name, bytes) is a file, (name, None) a folder, (name, TarInfo) whatever that says."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in members:
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.name = name
            if content is None:
                info.type = tarfile.DIRTYPE
            if isinstance(content, bytes):
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                tar.addfile(info)
    return out.getvalue()


def special(kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo()
    info.type = kind
    info.linkname = target
    return info


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return out.getvalue()


def zip_link(name: str, mode: int = stat.S_IFLNK | 0o777) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = mode << 16
    return info


async def run(tmp_path: Path, data: bytes, kind: ArchiveKind, limits: ArchiveLimits = LIMITS) -> NormalisedProject:
    source = tmp_path / "upload"
    source.write_bytes(data)
    (tmp_path / "project.tar.gz").unlink(missing_ok=True)
    return await normalise(source, kind, limits, tmp_path / "project.tar.gz")


def listing(tmp_path: Path) -> dict[str, bytes | str | None]:
    found: dict[str, bytes | str | None] = {}
    with tarfile.open(tmp_path / "project.tar.gz") as tar:
        for member in tar:
            opened = tar.extractfile(member) if member.isreg() else None
            found[member.name] = opened.read() if opened else (member.linkname if member.issym() else None)
    return found


async def refused(tmp_path: Path, data: bytes, kind: ArchiveKind, code: str, *named: str, limits=LIMITS) -> None:
    with pytest.raises(ArchiveRefused) as caught:
        await run(tmp_path, data, kind, limits)
    assert caught.value.code == code, caught.value
    assert caught.value.hint
    assert caught.value.message.isprintable()
    for text in named:
        assert text in caught.value.message
    assert [path.name for path in tmp_path.iterdir()] == ["upload"]


async def test_the_result_is_canonical(tmp_path: Path) -> None:
    data = tar_gz(("b/z.txt", b"z"), ("b", None), ("a.sh", b"#!/bin/sh\n"))
    result = await run(tmp_path, data, ArchiveKind.TAR_GZ)
    assert result.files == 2
    assert result.size_bytes == 11
    packed = (tmp_path / "project.tar.gz").read_bytes()
    assert result.digest == f"sha256:{hashlib.sha256(gzip.decompress(packed)).hexdigest()}"
    with tarfile.open(tmp_path / "project.tar.gz") as tar:
        members = tar.getmembers()
    assert [m.name for m in members] == ["a.sh", "b", "b/z.txt"]
    assert {(m.uid, m.gid, m.uname, m.mtime) for m in members} == {(1000, 1000, "", 946_684_800)}
    assert [m.mode for m in members] == [0o644, 0o755, 0o644]


async def test_the_executable_bit_survives_and_nothing_else_of_the_mode(tmp_path: Path) -> None:
    info = zip_link("run.sh", stat.S_IFREG | 0o4711)
    await run(tmp_path, zipped((info, b"x"), ("plain", b"y")), ArchiveKind.ZIP)
    with tarfile.open(tmp_path / "project.tar.gz") as tar:
        assert {m.name: m.mode for m in tar} == {"run.sh": 0o755, "plain": 0o644}


async def test_tar_and_zip_of_one_project_are_one_digest(tmp_path: Path) -> None:
    files = {"main.py": b"print(1)\n", "pkg/a.py": b"", "pkg/data/ä.json": b"{}"}
    first = await run(tmp_path, tar_gz(*files.items()), ArchiveKind.TAR_GZ)
    second = await run(tmp_path, zipped(*reversed(files.items())), ArchiveKind.ZIP)
    third = await run(tmp_path, tar_gz(("top", None), *((f"top/{n}", c) for n, c in files.items())), ArchiveKind.TAR_GZ)
    assert first == second == third


async def test_what_system_tools_pack_is_read(tmp_path: Path) -> None:
    project = tmp_path / "src" / "my project"
    (project / "deep" / ("x" * 90)).mkdir(parents=True)
    (project / "deep" / ("x" * 90) / ("y" * 90)).write_text("long")
    (project / "link").symlink_to("deep")
    os.link(project / "deep" / ("x" * 90) / ("y" * 90), project / "hard")
    (project / ("z" * 200)).write_text("")
    for flavour in ("gnu", "pax"):
        archive = tmp_path / f"{flavour}.tar.gz"
        subprocess.run(
            ["tar", f"--format={flavour}", "-czf", str(archive), "-C", str(project.parent), "my project"], check=True
        )
        work = tmp_path / flavour
        work.mkdir()
        await run(work, archive.read_bytes(), ArchiveKind.TAR_GZ)
        assert listing(work) == {
            "deep": None,
            "deep/" + "x" * 90: None,
            "deep/" + "x" * 90 + "/" + "y" * 90: b"long",
            "hard": b"long",
            "link": "deep",
            "z" * 200: b"",
        }


async def test_junk_is_dropped_even_where_it_would_be_refused(tmp_path: Path) -> None:
    data = tar_gz(
        ("main.py", b""),
        ("node_modules/a/index.js", b"x"),
        (".venv/bin/python", special(tarfile.SYMTYPE, "/usr/bin/python3")),
        ("env/pyvenv.cfg", b""),
        ("env/bin/python", special(tarfile.SYMTYPE, "/usr/bin/python3")),
        ("pkg/__pycache__/a.pyc", b"x"),
        ("._main.py", b"x"),
        (".DS_Store", b"x"),
        (".git/config", b"x"),
        (".gitignore", b"y"),
    )
    await run(tmp_path, data, ArchiveKind.TAR_GZ)
    assert listing(tmp_path) == {".gitignore": b"y", "main.py": b""}


async def test_one_common_folder_is_stripped_but_no_python_package(tmp_path: Path) -> None:
    await run(tmp_path, tar_gz(("a/b/main.py", b"")), ArchiveKind.TAR_GZ)
    assert listing(tmp_path) == {"main.py": b""}
    await run(tmp_path, tar_gz(("app/main.py", b""), ("app/__init__.py", b"")), ArchiveKind.TAR_GZ)
    assert list(listing(tmp_path)) == ["app", "app/__init__.py", "app/main.py"]


@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "a/..", "/etc/passwd", "\\windows\\x", "..\\x", "C:\\x", "c:/x", "a/../b"]
)
@pytest.mark.parametrize("kind", list(ArchiveKind))
async def test_paths_that_leave_the_project(tmp_path: Path, name: str, kind: ArchiveKind) -> None:
    data = tar_gz(("ok", b""), (name, b"x")) if kind is ArchiveKind.TAR_GZ else zipped(("ok", b""), (name, b"x"))
    await refused(tmp_path, data, kind, "archive_path_escapes", name.replace("\\", "/" if kind == "zip" else "\\"))


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31mb", "n" * 256, "/".join(["d" * 200] * 6), "\udcff"])
async def test_names_that_are_none(tmp_path: Path, name: str) -> None:
    await refused(tmp_path, tar_gz((name, b"x")), ArchiveKind.TAR_GZ, "archive_bad_name")


async def test_a_nul_in_a_name(tmp_path: Path) -> None:
    data = zipped(("aXb", b"x")).replace(b"aXb", b"a\0b")
    await refused(tmp_path, data, ArchiveKind.ZIP, "archive_bad_name", "\\x00")
    info = tarfile.TarInfo()
    info.pax_headers = {"path": "a\0b"}
    await refused(tmp_path, tar_gz(("placeholder", info)), ArchiveKind.TAR_GZ, "archive_bad_name", "\\x00")


@pytest.mark.parametrize(
    ("links", "named"),
    [
        ({"l": "/etc/passwd"}, "absolute"),
        ({"l": "../x"}, "out of the project"),
        ({"d/l": "../../x"}, "out of the project"),
        ({"d/e/x": "../..", "y": "d/e/x/.."}, "out of the project"),
        ({"a": "b", "b": "a"}, "circles"),
        ({"l": "l"}, "circles"),
        ({"l": ""}, "no sane target"),
    ],
)
@pytest.mark.parametrize("kind", list(ArchiveKind))
async def test_links_that_leave_the_project(
    tmp_path: Path, links: dict[str, str], named: str, kind: ArchiveKind
) -> None:
    if kind is ArchiveKind.TAR_GZ:
        data = tar_gz(("main.py", b""), *((n, special(tarfile.SYMTYPE, t)) for n, t in links.items()))
    else:
        data = zipped(("main.py", b""), *((zip_link(n), t.encode()) for n, t in links.items()))
    await refused(tmp_path, data, kind, "archive_link_escapes", named)


async def test_links_inside_stay(tmp_path: Path) -> None:
    links = {"d/up": "../main.py", "again": "d/up", "dangling": "not/there", "d/here": "."}
    data = tar_gz(("main.py", b""), *((n, special(tarfile.SYMTYPE, t)) for n, t in links.items()))
    result = await run(tmp_path, data, ArchiveKind.TAR_GZ)
    assert result.files == 5
    assert {n: t for n, t in listing(tmp_path).items() if isinstance(t, str)} == links


async def test_a_member_beneath_a_link(tmp_path: Path) -> None:
    data = tar_gz(("d", special(tarfile.SYMTYPE, "other")), ("d/x", b"x"))
    await refused(tmp_path, data, ArchiveKind.TAR_GZ, "archive_link_escapes", "d/x")


@pytest.mark.parametrize("target", ["/etc/passwd", "../x", "later", "folder"])
async def test_hard_links_to_anything_but_an_earlier_file(tmp_path: Path, target: str) -> None:
    data = tar_gz(("folder", None), ("l", special(tarfile.LNKTYPE, target)), ("later", b"x"))
    with pytest.raises(ArchiveRefused) as caught:
        await run(tmp_path, data, ArchiveKind.TAR_GZ)
    assert caught.value.code in ("archive_link_escapes", "archive_path_escapes")


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
async def test_special_files(tmp_path: Path, kind: bytes) -> None:
    data = tar_gz(("ok", b""), ("dev/x", special(kind)))
    await refused(tmp_path, data, ArchiveKind.TAR_GZ, "archive_special_file", "dev/x")


async def test_special_files_in_a_zip(tmp_path: Path) -> None:
    data = zipped((zip_link("pipe", stat.S_IFIFO | 0o644), b""))
    await refused(tmp_path, data, ArchiveKind.ZIP, "archive_special_file", "pipe")


@pytest.mark.parametrize("names", [("a", "a"), ("a", "./a"), ("a/b", "a//b"), ("a", "a/b"), ("a/b", "a")], ids="-".join)
async def test_conflicting_members(tmp_path: Path, names: tuple[str, str]) -> None:
    data = tar_gz(*((name, b"x") for name in names))
    await refused(tmp_path, data, ArchiveKind.TAR_GZ, "archive_duplicate", "a")


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


async def test_a_tar_header_that_claims_a_gigabyte(tmp_path: Path) -> None:
    info = tarfile.TarInfo("pax")
    info.type = tarfile.XHDTYPE
    info.size = 1 << 30
    data = gzip.compress(info.tobuf() + bytes(1 << 20))
    await refused(tmp_path, data, ArchiveKind.TAR_GZ, "archive_unreadable", "header is too long", limits=NO_RATIO)


async def test_headers_without_end(tmp_path: Path) -> None:
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
async def test_a_zip_that_lies_about_a_size(tmp_path: Path, claimed: int) -> None:
    data = bytearray(zipped(("lie.txt", os.urandom(1000))))
    struct.pack_into("<L", data, data.index(b"PK\x01\x02") + 24, claimed)
    await refused(tmp_path, bytes(data), ArchiveKind.ZIP, "archive_unreadable", "lie.txt")


async def test_zip_methods_that_cannot_be_bounded(tmp_path: Path) -> None:
    data = zipped(("a", b"x" * 1000), method=zipfile.ZIP_BZIP2)
    await refused(tmp_path, data, ArchiveKind.ZIP, "archive_unreadable", "method")


async def test_a_zip_whose_directory_claims_to_be_vast(tmp_path: Path) -> None:
    data = bytearray(zipped(("a", b"x")))
    struct.pack_into("<L", data, data.index(b"PK\x05\x06") + 12, 0x7FFFFFFF)
    await refused(tmp_path, bytes(data), ArchiveKind.ZIP, "archive_unreadable")


@pytest.mark.parametrize("kind", list(ArchiveKind))
@pytest.mark.parametrize("data", [b"", b"garbage" * 100, b"\x1f\x8b\x08\x00", b"PK\x05\x06"])
async def test_garbage(tmp_path: Path, kind: ArchiveKind, data: bytes) -> None:
    await refused(tmp_path, data, kind, "archive_unreadable")


async def test_one_kind_under_the_name_of_the_other(tmp_path: Path) -> None:
    await refused(tmp_path, zipped(("a", b"")), ArchiveKind.TAR_GZ, "archive_unreadable")
    await refused(tmp_path, tar_gz(("a", b"")), ArchiveKind.ZIP, "archive_unreadable")


@pytest.mark.parametrize("data", [tar_gz(), tar_gz(("empty", None)), tar_gz((".git/x", b"x"))])
async def test_nothing_in_it(tmp_path: Path, data: bytes) -> None:
    await refused(tmp_path, data, ArchiveKind.TAR_GZ, "project_empty")


@given(cut=st.integers(min_value=0, max_value=2000), flip=st.integers(min_value=0, max_value=1999), kind=st.booleans())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_damaged_archives_are_refused_or_whole(tmp_path: Path, cut: int, flip: int, kind: bool) -> None:
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
async def test_whatever_is_taken_unpacks_inside(tmp_path: Path, members: list[tuple[str, str, str]]) -> None:
    types = {"folder": tarfile.DIRTYPE, "link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE}
    data = tar_gz(*((n, b"x" if kind == "file" else special(types[kind], t)) for n, kind, t in members))
    try:
        await run(tmp_path, data, ArchiveKind.TAR_GZ)
    except ArchiveRefused:
        return
    with tarfile.open(tmp_path / "project.tar.gz") as tar:
        for member in tar:
            assert tarfile.data_filter(member, "/workspace") is not None


@pytest.mark.parametrize(
    ("content_type", "kind"),
    [
        ("application/gzip", ArchiveKind.TAR_GZ),
        ("Application/X-GZIP; charset=binary", ArchiveKind.TAR_GZ),
        ("application/zip", ArchiveKind.ZIP),
    ],
)
def test_the_kind_follows_the_content_type(content_type: str, kind: ArchiveKind) -> None:
    assert ArchiveKind.of(content_type) is kind


@pytest.mark.parametrize("content_type", ["", "application/json", "application/x-7z-compressed"])
def test_other_content_types(content_type: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        ArchiveKind.of(content_type)
    assert (caught.value.code, caught.value.kind) == ("archive_unsupported", Kind.UNSUPPORTED)
