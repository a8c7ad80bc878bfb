"""The file tree of an uploaded archive. Validates names and links, and drops files that a project does not need."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, replace
from enum import StrEnum

from sandbox.errors import InvalidInput, Kind

MAX_PATH_BYTES = 1024
MAX_NAME_BYTES = 255
#: The number of links that the kernel follows in one path.
MAX_LINK_HOPS = 40

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DRIVE = re.compile(r"^[A-Za-z]:[\\/]")
#: Files and folders that are generated from the rest, or that make sense on the uploader's machine only.
_JUNK = frozenset(
    {
        "node_modules",
        ".git",
        ".hg",
        ".svn",
        ".venv",
        "__pycache__",
        ".mypy_cache",
        ".pytest_cache",
        ".ruff_cache",
        ".tox",
        "__MACOSX",
        ".DS_Store",
        "Thumbs.db",
        "Icon\r",
    }
)


class ArchiveRefused(InvalidInput):
    """An uploaded archive is not accepted. Nothing of it is stored. `code` is one of the `archive_*` codes."""

    _TOO_LARGE = frozenset({"archive_too_large", "archive_too_many_files"})

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        kind = Kind.TOO_LARGE if code in self._TOO_LARGE else Kind.INVALID
        super().__init__(message, hint=hint, code=code, kind=kind)


class NodeType(StrEnum):
    FILE = "file"
    FOLDER = "folder"
    LINK = "link"


@dataclass(frozen=True, slots=True)
class Node:
    """A file, folder or link in the tree."""

    path: str
    type: NodeType
    size: int = 0
    executable: bool = False
    #: Target of a symbolic link.
    target: str = ""
    #: Index of the member with the content. A hard link has the index of its original.
    member: int = -1


def shown(name: str) -> str:
    """Return a name in quotes for a message, with control characters escaped and its middle cut out if it is long."""
    text = name.encode("utf-8", "backslashreplace").decode("utf-8")
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text[:200])
    return f"'{text}'" if len(text) <= 120 else f"'{text[:80]}…{text[-30:]}'"


def clean_path(name: str) -> str:
    """Return a member's path relative to the project's folder, "" for the folder itself.

    Raises ArchiveRefused for a name that is invalid or leads out of the folder.
    """
    if is_platform_junk(name):
        return ""
    try:
        encoded = name.encode("utf-8")
    except UnicodeEncodeError:
        raise ArchiveRefused(
            "archive_bad_name", f"the name {shown(name)} is not UTF-8", "Rename the file and pack again."
        ) from None
    if _CONTROL.search(name):
        raise ArchiveRefused(
            "archive_bad_name", f"the name {shown(name)} has a control character", "Rename the file and pack again."
        )
    if name.startswith(("/", "\\")) or _DRIVE.match(name):
        raise ArchiveRefused(
            "archive_path_escapes",
            f"{shown(name)} is an absolute path",
            "Pack from within the project's folder, so that all names are relative to it.",
        )
    if ".." in re.split(r"[\\/]", name):
        raise ArchiveRefused(
            "archive_path_escapes",
            f"{shown(name)} contains '..'",
            "Pack from within the project's folder, so that all names are relative to it.",
        )
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if len(encoded) > MAX_PATH_BYTES or any(len(part.encode()) > MAX_NAME_BYTES for part in parts):
        raise ArchiveRefused(
            "archive_bad_name",
            f"the name {shown(name)} is too long",
            f"A path may have {MAX_PATH_BYTES} bytes, each name in it {MAX_NAME_BYTES}.",
        )
    return "/".join(parts)


def is_platform_junk(name: str) -> bool:
    """Return whether this is a metadata file of macOS or Windows."""
    base = name.rstrip("/").rsplit("/", 1)[-1]
    return base in ("Icon\r", ".DS_Store", "Thumbs.db") or base.startswith("._")


def is_within(path: str, folders: Collection[str]) -> bool:
    """Return whether the path is below one of the folders, which should be a set."""
    end = path.find("/")
    while end >= 0:
        if path[:end] in folders:
            return True
        end = path.find("/", end + 1)
    return False


class Tree:
    """Collects the members of one archive while they are read."""

    def __init__(self, max_members: int) -> None:
        self._max_members = max_members
        self._count = 0
        self.nodes: dict[str, Node] = {}

    def count(self, name: str) -> None:
        """Count a member. Raises ArchiveRefused if there are more than `max_members`."""
        self._count += 1
        if self._count > self._max_members:
            raise ArchiveRefused(
                "archive_too_many_files",
                f"there are more than {self._max_members} members (exceeded at {shown(name)})",
                "Leave out generated files: node_modules, .git, virtual environments, build output.",
            )

    def add(self, node: Node) -> None:
        """Add a member. Raises ArchiveRefused if its path exists already, unless both are folders."""
        existing = self.nodes.get(node.path)
        if existing is not None and not (existing.type is node.type is NodeType.FOLDER):
            raise ArchiveRefused(
                "archive_duplicate",
                f"{shown(node.path)} is in the archive twice, as a {existing.type} and as a {node.type}",
                "Pack again with each path once.",
            )
        self.nodes[node.path] = node

    def project_nodes(self) -> dict[str, Node]:
        """Return the nodes of the project, sorted by path.

        Unneeded files are dropped, a single top folder is removed from the paths, and links are checked. Raises
        ArchiveRefused.
        """
        nodes = _without_junk(self.nodes)
        nodes = _with_parents(nodes)
        nodes = _without_top_folder(nodes)
        _check_links(nodes)
        return dict(sorted(nodes.items()))


def _without_junk(nodes: dict[str, Node]) -> dict[str, Node]:
    environments = {path.removesuffix("/pyvenv.cfg") for path in nodes if path.endswith("/pyvenv.cfg")}
    return {
        path: node
        for path, node in nodes.items()
        if _JUNK.isdisjoint(path.split("/")) and path not in environments and not is_within(path, environments)
    }


def _with_parents(nodes: dict[str, Node]) -> dict[str, Node]:
    """Add the missing parent folders, so that the same project gives the same tree however it was packed."""
    complete = dict(nodes)
    for path in nodes:
        parent = path.rpartition("/")[0]
        while parent:
            existing = complete.get(parent)
            if existing is None:
                complete[parent] = Node(parent, NodeType.FOLDER)
            elif existing.type is NodeType.LINK:
                raise ArchiveRefused(
                    "archive_link_escapes",
                    f"{shown(path)} is below {shown(parent)}, which is a link",
                    "Pack the folder itself instead of a link to it.",
                )
            elif existing.type is NodeType.FILE:
                raise ArchiveRefused(
                    "archive_duplicate",
                    f"{shown(parent)} is a file, and {shown(path)} is below it",
                    "Pack again with each path once.",
                )
            else:
                break
            parent = parent.rpartition("/")[0]
    return complete


def _without_top_folder(nodes: dict[str, Node]) -> dict[str, Node]:
    """Remove a single folder that contains everything else, as in downloads of repositories, unless it is a package."""
    children = defaultdict[str, list[str]](list)
    for path in nodes:
        children[path.rpartition("/")[0]].append(path)
    top = ""
    while len(children[top]) == 1:
        (only,) = children[top]
        if nodes[only].type is not NodeType.FOLDER or f"{only}/__init__.py" in nodes:
            break
        top = only
    cut = len(top) + 1 if top else 0
    return {path[cut:]: replace(node, path=path[cut:]) for path, node in nodes.items() if len(path) > cut}


def _check_links(nodes: dict[str, Node]) -> None:
    for node in nodes.values():
        if node.type is NodeType.LINK:
            _follow(nodes, node)


def _follow(nodes: dict[str, Node], link: Node) -> None:
    """Follow a link as the kernel does, through other links, too. Raises ArchiveRefused if it leaves the project."""
    position = link.path.split("/")[:-1]
    remaining = _target_parts(link, link)
    hops = 1
    while remaining:
        part = remaining.pop()
        if part == "..":
            if not position:
                raise _escapes(link, "leads out of the project")
            position.pop()
            continue
        node = nodes.get("/".join([*position, part]))
        if node is None or node.type is not NodeType.LINK:
            position.append(part)
            continue
        hops += 1
        if hops > MAX_LINK_HOPS:
            raise _escapes(link, "is circular")
        remaining.extend(_target_parts(node, link))


def _target_parts(node: Node, link: Node) -> list[str]:
    """Return the parts of a link's target, the last one first."""
    if node.target.startswith(("/", "\\")) or _DRIVE.match(node.target):
        raise _escapes(link, "is absolute")
    if _CONTROL.search(node.target) or not 0 < len(node.target) <= MAX_PATH_BYTES:
        raise _escapes(link, "has an invalid target")
    return [part for part in reversed(node.target.split("/")) if part not in ("", ".")]


def _escapes(link: Node, reason: str) -> ArchiveRefused:
    return ArchiveRefused(
        "archive_link_escapes",
        f"the link {shown(link.path)} to {shown(link.target)} {reason}",
        "Links may only point to relative paths inside the project.",
    )
