"""Packing of folders for upload."""

from __future__ import annotations

import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from sandbox.client import PackingFailed
from sandbox.client.packing import default_project_id, pack


def _make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def _names(root: Path) -> set[str]:
    packed = pack(root)
    try:
        with tarfile.open(packed.path) as archive:
            return {member.name for member in archive if not member.isdir()}
    finally:
        packed.remove()


def test_generated_files_are_not_packed(tmp_path: Path) -> None:
    _make(tmp_path, "a.py", "src/b.js", "node_modules/x/i.js", ".git/HEAD", "src/__pycache__/a.pyc", ".venv/pyvenv.cfg")
    _make(tmp_path, "my-env/pyvenv.cfg", "my-env/lib/x.py", ".next/x", "dist/index.html")
    assert _names(tmp_path) == {"a.py", "src/b.js", "dist/index.html"}


def test_gitignore_files_apply_at_every_level_as_in_git(tmp_path: Path) -> None:
    _make(
        tmp_path,
        "a.log",
        "keep.log",
        "build/x",
        "sub/a.log",
        "sub/keep.log",
        "sub/deep/y.tmp",
        "sub/only-here",
        "only-here",
    )
    (tmp_path / ".gitignore").write_text("*.log\n!keep.log\n/build/\n")
    (tmp_path / "sub/.gitignore").write_text("!a.log\n*.tmp\n/only-here\n")
    assert _names(tmp_path) == {".gitignore", "keep.log", "sub/.gitignore", "sub/a.log", "sub/keep.log", "only-here"}


def test_an_unchanged_folder_gives_the_same_bytes(tmp_path: Path) -> None:
    _make(tmp_path, "b", "a", "c/d")
    first, second = pack(tmp_path), pack(tmp_path)
    assert first.path != second.path
    assert first.path.read_bytes() == second.path.read_bytes()
    assert (first.files, first.size_bytes) == (3, first.path.stat().st_size)
    for packed in (first, second):
        packed.remove()
        assert not packed.path.exists()


def test_only_links_with_a_target_inside_the_folder_are_packed(tmp_path: Path) -> None:
    project = tmp_path / "project"
    _make(project, "src/a.py")
    _make(tmp_path, "secret")
    (project / "inside").symlink_to("src/a.py")
    (project / "src/absolute").symlink_to(project / "src/a.py")
    (project / "outside").symlink_to("../secret")
    (project / "etc").symlink_to("/etc")
    (project / "dangling").symlink_to("nothing")
    (project / "loop").symlink_to(project)
    os.mkfifo(project / "pipe")
    packed = pack(project)
    with tarfile.open(packed.path) as archive:
        links = {member.name: member.linkname for member in archive if member.issym()}
        assert {m.name for m in archive if m.isfile()} == {"src/a.py"}
    packed.remove()
    assert links == {"inside": "src/a.py", "src/absolute": "a.py", "loop": "."}
    assert set(packed.skipped) == {"outside", "etc", "dangling", "pipe"}


def test_hard_links_are_two_files(tmp_path: Path) -> None:
    _make(tmp_path, "a")
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    packed = pack(tmp_path)
    with tarfile.open(packed.path) as archive:
        assert [(m.name, m.isreg(), m.size) for m in archive] == [("a", True, 1), ("b", True, 1)]
    packed.remove()


def test_a_folder_that_is_too_large_is_refused_with_its_largest_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    project = tmp_path / "project"
    _make(project, "a.py")
    (project / "video.bin").write_bytes(os.urandom(300_000))
    with pytest.raises(PackingFailed) as refused:
        pack(project, max_bytes=100_000)
    assert "100,000 bytes" in refused.value.message
    assert "video.bin (300,000 bytes)" in refused.value.hint
    with pytest.raises(PackingFailed, match="more than 1 files"):
        pack(project, max_files=1)
    assert list(temporary.iterdir()) == []


def test_an_archive_is_not_repacked(tmp_path: Path) -> None:
    archive = tmp_path / "p.zip"
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("a", "b")
    packed = pack(archive)
    assert (packed.path, packed.content_type) == (archive, "application/zip")
    packed.remove()
    assert archive.exists()
    with pytest.raises(PackingFailed, match="the maximum is 10"):
        pack(archive, max_bytes=10)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PackingFailed, match="neither a folder nor a file"):
        pack(tmp_path / "nothing")
    _make(tmp_path, "notes.txt")
    with pytest.raises(PackingFailed, match=r"neither a folder nor a \.zip"):
        pack(tmp_path / "notes.txt")


def test_project_ids_are_stable_and_distinct(tmp_path: Path) -> None:
    one, two = tmp_path / "x/My App!", tmp_path / "y/My App!"
    one.mkdir(parents=True)
    two.mkdir(parents=True)
    assert default_project_id(one) == default_project_id(one)
    assert default_project_id(one) != default_project_id(two)
    assert default_project_id(one).startswith("my-app-")
    assert default_project_id(tmp_path / "###").startswith("project-")
