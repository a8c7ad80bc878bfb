"""Builds malformed archives, and normalises them."""

import io
import stat
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.projects.archive import ArchiveKind, NormalisedProject, normalise
from sandbox.projects.archive_readers import ArchiveLimits
from sandbox.projects.archive_tree import ArchiveRefused

LIMITS = ArchiveLimits(max_bytes=4 << 20, max_files=50, max_members=200, max_ratio=50, ratio_floor_bytes=1 << 20)
NO_RATIO = replace(LIMITS, ratio_floor_bytes=1 << 40)


def tar_gz(*members: tuple[str, object]) -> bytes:
    """Pack members: (name, bytes) is a file, (name, None) a folder, and (name, TarInfo) any other member."""
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
    return normalise(source, kind, limits, tmp_path / "project.tar.gz")


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
