"""The build context of an image, and the digest of its sources."""

from __future__ import annotations

import tarfile
from pathlib import Path

from sandbox.engine.docker.build_context import BuildContext, digest_tree, is_source


def make(folder: Path) -> Path:
    (folder / "sub").mkdir(parents=True)
    (folder / "Dockerfile").write_text("FROM scratch\n")
    (folder / "sub" / "run.sh").write_text("#!/bin/sh\n")
    (folder / "sub" / "run.sh").chmod(0o700)
    return folder


def test_the_digest_depends_on_content_only(tmp_path: Path) -> None:
    first, second = make(tmp_path / "a"), make(tmp_path / "b")
    assert digest_tree(first) == digest_tree(second)
    (second / "__pycache__").mkdir()
    (second / "__pycache__" / "x.pyc").write_bytes(b"cache")
    (second / ".DS_Store").write_bytes(b"hidden")
    assert digest_tree(first) == digest_tree(second)


def test_every_change_of_content_changes_the_digest(tmp_path: Path) -> None:
    folder = make(tmp_path / "a")
    seen = {digest_tree(folder)}
    (folder / "Dockerfile").write_text("FROM scratch\n#\n")
    seen.add(digest_tree(folder))
    (folder / "sub" / "run.sh").chmod(0o600)
    seen.add(digest_tree(folder))
    (folder / "Dockerfile").rename(folder / "Dockerfile2")
    seen.add(digest_tree(folder))
    (folder / "new").touch()
    seen.add(digest_tree(folder))
    assert len(seen) == 5


def test_a_context_does_not_reveal_owner_or_time(tmp_path: Path) -> None:
    folder = make(tmp_path / "a")
    (folder / "sub" / "__pycache__").mkdir()
    context = BuildContext()
    context.add_tree(".", folder, is_source)
    context.add_bytes("extra", b"12")
    with context.finish() as file, tarfile.open(fileobj=file) as tar:
        members = {member.name: member for member in tar.getmembers()}
    assert {"Dockerfile", "sub", "sub/run.sh", "extra"} == {name.removeprefix("./") for name in members} - {"."}
    assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in members.values()} == {(0, 0, "root", "root", 0)}
    modes = {name.removeprefix("./"): member.mode for name, member in members.items()}
    assert (modes["sub/run.sh"], modes["Dockerfile"]) == (0o755, 0o644)
