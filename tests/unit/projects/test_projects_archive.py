"""Normalisation of archives: equal projects give equal results, and hostile archives are refused."""

import gzip
import hashlib
import os
import stat
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from sandbox.errors import InvalidInput, Kind
from sandbox.projects.archive import ArchiveKind
from sandbox.projects.archive_tree import ArchiveRefused
from tests.unit.projects.hostile_archives import listing, refused, run, special, tar_gz, zip_link, zipped


async def test_the_result_is_deterministic(tmp_path: Path) -> None:
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


async def test_of_the_mode_only_the_executable_bit_is_preserved(tmp_path: Path) -> None:
    info = zip_link("run.sh", stat.S_IFREG | 0o4711)
    await run(tmp_path, zipped((info, b"x"), ("plain", b"y")), ArchiveKind.ZIP)
    with tarfile.open(tmp_path / "project.tar.gz") as tar:
        assert {m.name: m.mode for m in tar} == {"run.sh": 0o755, "plain": 0o644}


async def test_tar_and_zip_of_the_same_project_have_the_same_digest(tmp_path: Path) -> None:
    files = {"main.py": b"print(1)\n", "pkg/a.py": b"", "pkg/data/ä.json": b"{}"}
    first = await run(tmp_path, tar_gz(*files.items()), ArchiveKind.TAR_GZ)
    second = await run(tmp_path, zipped(*reversed(files.items())), ArchiveKind.ZIP)
    third = await run(tmp_path, tar_gz(("top", None), *((f"top/{n}", c) for n, c in files.items())), ArchiveKind.TAR_GZ)
    assert first == second == third


async def test_archives_of_system_tools_are_read(tmp_path: Path) -> None:
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


async def test_unneeded_files_are_dropped_even_if_invalid(tmp_path: Path) -> None:
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


async def test_a_single_top_folder_is_removed_unless_it_is_a_python_package(tmp_path: Path) -> None:
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
async def test_invalid_names(tmp_path: Path, name: str) -> None:
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
        ({"a": "b", "b": "a"}, "circular"),
        ({"l": "l"}, "circular"),
        ({"l": ""}, "an invalid target"),
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


async def test_links_inside_the_project_are_preserved(tmp_path: Path) -> None:
    links = {"d/up": "../main.py", "again": "d/up", "dangling": "not/there", "d/here": "."}
    data = tar_gz(("main.py", b""), *((n, special(tarfile.SYMTYPE, t)) for n, t in links.items()))
    result = await run(tmp_path, data, ArchiveKind.TAR_GZ)
    assert result.files == 5
    assert {n: t for n, t in listing(tmp_path).items() if isinstance(t, str)} == links


async def test_a_member_below_a_link(tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    ("content_type", "kind"),
    [
        ("application/gzip", ArchiveKind.TAR_GZ),
        ("Application/X-GZIP; charset=binary", ArchiveKind.TAR_GZ),
        ("application/zip", ArchiveKind.ZIP),
    ],
)
def test_the_content_type_decides_the_format(content_type: str, kind: ArchiveKind) -> None:
    assert ArchiveKind.of(content_type) is kind


@pytest.mark.parametrize("content_type", ["", "application/json", "application/x-7z-compressed"])
def test_other_content_types(content_type: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        ArchiveKind.of(content_type)
    assert (caught.value.code, caught.value.kind) == ("archive_unsupported", Kind.UNSUPPORTED)


async def test_backslashes_in_the_names_of_a_zip_of_windows_are_separators(tmp_path: Path) -> None:
    """As PowerShell's Compress-Archive and older versions of .NET write them."""
    files = {"tram\\README.md": b"# Tram\r\n", "tram\\backend\\main.py": b"", "tram\\backend\\static\\a.txt": b"a"}
    entries = []
    for name, content in files.items():
        info = zipfile.ZipInfo("placeholder")
        info.filename = info.orig_filename = name
        info.create_system = 0
        entries.append((info, content))
    result = await run(tmp_path, zipped(*entries), ArchiveKind.ZIP)
    slashes = {name.replace("\\", "/").removeprefix("tram/"): content for name, content in files.items()}
    assert result == await run(tmp_path, tar_gz(*slashes.items()), ArchiveKind.TAR_GZ)
    with tarfile.open(tmp_path / "project.tar.gz") as tar:
        assert [member.name for member in tar if member.isfile()] == [
            "README.md",
            "backend/main.py",
            "backend/static/a.txt",
        ]
