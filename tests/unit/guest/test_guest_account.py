"""The account of a container gets its number."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandbox.guest.account import take_account

UID = 1_300_123
PASSWD = "root:x:0:0:root:/root:/bin/bash\nsandbox:x:1000:1000::/home/sandbox:/bin/bash\n"
GROUP = "root:x:0:\nsandbox:x:1000:\nusers:x:100:sandbox\n"

pytestmark = pytest.mark.root


@pytest.fixture
def container(tmp_path: Path) -> Path:
    """The folders of a container: `etc`, `home` and `workspace`, of user 1000."""
    for name in ("etc", "home", "workspace"):
        (tmp_path / name).mkdir()
    (tmp_path / "etc/passwd").write_text(PASSWD)
    (tmp_path / "etc/group").write_text(GROUP)
    (tmp_path / "uid_map").write_text("         0          0 4294967295\n")
    (tmp_path / "workspace/src").mkdir()
    (tmp_path / "workspace/src/app.py").write_text("")
    (tmp_path / "workspace/link").symlink_to("/etc/hostname")
    for path in (tmp_path / "home", tmp_path / "workspace", *(tmp_path / "workspace").rglob("*")):
        os.lchown(path, 1000, 1000)
    return tmp_path


def take(container: Path, uid: int = UID) -> int:
    return take_account(
        uid,
        str(container / "workspace"),
        etc=str(container / "etc"),
        home=str(container / "home"),
        uid_map=str(container / "uid_map"),
    )


def test_account_group_and_files_get_the_number(container: Path) -> None:
    outside = os.stat("/etc/hostname").st_uid
    assert take(container) == UID
    assert (container / "etc/passwd").read_text() == PASSWD.replace("1000", str(UID))
    assert (container / "etc/group").read_text() == GROUP.replace("1000", str(UID))
    for path in (container / "home", container / "workspace", *(container / "workspace").rglob("*")):
        assert (path.lstat().st_uid, path.lstat().st_gid) == (UID, UID), path
    assert os.stat("/etc/hostname").st_uid == outside
    assert take(container) == UID


def test_a_change_that_was_interrupted_is_completed(container: Path) -> None:
    take(container)
    for path in (container / "workspace/src/app.py", container / "workspace"):
        os.lchown(path, 1000, 1000)
    assert take(container) == UID
    assert (container / "workspace/src/app.py").stat().st_uid == UID


def test_a_number_outside_of_the_user_namespace_is_not_taken(container: Path) -> None:
    (container / "uid_map").write_text("0 100000 65536\n")
    assert take(container) == 1000
    assert (container / "etc/passwd").read_text() == PASSWD


def test_an_image_without_the_account_is_left_alone(container: Path) -> None:
    (container / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/bash\n")
    assert take(container) == UID
    assert (container / "etc/passwd").read_text() == "root:x:0:0:root:/root:/bin/bash\n"
    assert (container / "workspace").stat().st_uid == UID
