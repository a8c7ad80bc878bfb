"""Gives the account `sandbox` of the container its number.

The kernel counts some things by user and not by container: inotify instances, keys, pipe buffers, pending signals. With
a number of its own, a sandbox cannot use up what others need.
"""

from __future__ import annotations

import os
import stat

NAME = "sandbox"
HOME = "/home/sandbox"


def take_account(
    uid: int, workspace: str, *, etc: str = "/etc", home: str = HOME, uid_map: str = "/proc/self/uid_map"
) -> int:
    """Make `uid` the number of the account, of its group and of its files, and return the number that is in force.

    Changes `/etc/passwd` and `/etc/group`, so it is only for containers. An image without an account of this name is
    left alone, and the number is used as it is. With a user namespace that does not contain the
    number, the account keeps the one it has. A workspace of another owner, such as one that was made before, is changed
    as a whole; usually it is new and empty. May be repeated: what is done already costs nothing.
    """
    present = _number(os.path.join(etc, "passwd"))
    if present is not None and present != uid and not _mapped(uid, uid_map):
        uid = present
    if present is not None and present != uid:
        for file in ("passwd", "group"):
            _renumber(os.path.join(etc, file), uid)
    for folder in (home, workspace):
        _give(folder, uid)
    return uid


def _number(passwd: str) -> int | None:
    try:
        with open(passwd, encoding="utf-8") as file:
            for line in file:
                fields = line.split(":")
                if fields[0] == NAME and len(fields) > 3:
                    return int(fields[2])
    except FileNotFoundError:
        pass
    return None


def _mapped(uid: int, uid_map: str) -> bool:
    """Whether the user namespace of this container contains the number."""
    with open(uid_map, encoding="ascii") as file:
        ranges = [line.split() for line in file]
    return any(int(inside) <= uid < int(inside) + int(count) for inside, _, count in ranges)


def _renumber(path: str, uid: int) -> None:
    """Change the account's line: `name:password:number:…`, and in passwd the number of its group, the fourth field."""
    with open(path, encoding="utf-8") as file:
        lines = file.readlines()
    for position, line in enumerate(lines):
        fields = line.rstrip("\n").split(":")
        if fields[0] == NAME:
            fields[2] = str(uid)
            if os.path.basename(path) == "passwd":
                fields[3] = str(uid)
            lines[position] = ":".join(fields) + "\n"
    # Written in full beside it and then renamed: a container that is stopped meanwhile keeps a complete file.
    temporary = f"{path}.new"
    with open(temporary, "w", encoding="utf-8") as file:
        file.writelines(lines)
    os.chmod(temporary, stat.S_IMODE(os.stat(path).st_mode))
    os.replace(temporary, path)


def _give(folder: str, uid: int) -> None:
    """Change the owner of a folder and of everything in it, unless the folder has that owner already.

    The folder itself comes last, so that an interrupted change is repeated. Symbolic links are changed, not followed.
    """
    try:
        if os.lstat(folder).st_uid == uid:
            return
    except FileNotFoundError:
        return
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            os.lchown(os.path.join(parent, name), uid, uid)
    os.lchown(folder, uid, uid)
