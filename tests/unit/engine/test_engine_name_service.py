"""Which name servers containers get."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

from sandbox.engine.docker.name_service import hide_names, name_servers, write_resolver_file


def file(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_the_hosts_name_servers_or_those_behind_the_local_one(tmp_path: Path) -> None:
    behind = file(tmp_path, "systemd", "nameserver 192.0.2.9\nnameserver fe80::1%2\n")
    direct = file(tmp_path, "direct", "# comment\nnameserver 192.0.2.1\nnameserver ::1\nnameserver\n")
    local = file(tmp_path, "local", "nameserver 127.0.0.53\n")
    assert name_servers(direct, behind) == [IPv4Address("192.0.2.1")]
    assert name_servers(local, behind) == [IPv4Address("192.0.2.9")]
    assert name_servers(local, tmp_path / "missing") == []


def test_the_resolver_file_is_rewritten_in_place(tmp_path: Path) -> None:
    host = file(tmp_path, "host", "search example.org\noptions ndots:2\nnameserver 192.0.2.1\n")
    target = tmp_path / "resolv.conf"
    assert write_resolver_file(target, host, tmp_path) == target
    assert target.read_text() == "nameserver 192.0.2.1\nsearch example.org\noptions ndots:2\n"
    inode = target.stat().st_ino
    host.write_text("nameserver 192.0.2.2\n")
    assert write_resolver_file(target, host, tmp_path) == target
    assert (target.read_text(), target.stat().st_ino) == ("nameserver 192.0.2.2\n", inode)
    host.write_text("nameserver 127.0.0.1\n")
    assert write_resolver_file(target, host, tmp_path) is None


def test_a_container_without_a_resolver_file_keeps_its_name_server() -> None:
    hide_names({"Mounts": [{"Destination": "/workspace"}], "NetworkSettings": {"SandboxKey": "/does/not/exist"}})
