"""Which name servers containers get."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from sandbox.engine.docker.name_service import name_servers, show_names
from sandbox.errors import EngineError


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


def test_a_container_whose_namespace_cannot_be_entered_is_an_error(tmp_path: Path) -> None:
    container = {
        "ResolvConfPath": str(tmp_path / "resolv.conf"),
        "NetworkSettings": {"SandboxKey": str(tmp_path / "missing")},
    }
    with pytest.raises(EngineError) as raised:
        show_names(container)
    assert raised.value.code == "names_visible"
    assert (tmp_path / "resolv.conf").read_text().startswith("nameserver 127.0.0.11\n")
