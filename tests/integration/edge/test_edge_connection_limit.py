"""The limit on connections of one address, with the kernel's rules, in a network namespace of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sandbox.edge.connection_limit import apply_limit
from sandbox.edge.program import EdgeUnavailable
from sandbox.settings import Settings

PORT = 8150
#: Prints how many of 30 connections each address gets, and the first one without the rule.
PROGRAM = f"""
import socket, subprocess, sys
from sandbox.edge.connection_limit import apply_limit, remove_limit
from sandbox.settings import Settings

subprocess.run("ip link set lo up && ip address add 10.9.0.1/32 dev lo && ip address add 10.9.0.2/32 dev lo",
               shell=True, check=True)
apply_limit(Settings(port={PORT}, connections_per_address=20, trusted_proxies="10.9.0.2, 10.9.0.2/31"))
listener = socket.create_server(("0.0.0.0", {PORT}), backlog=200)

def opened(address, count):
    found = []
    for _ in range(count):
        try:
            found.append(socket.create_connection((address, {PORT}), timeout=5, source_address=(address, 0)))
        except ConnectionRefusedError:
            pass
    return found

for address in ("10.9.0.1", "10.9.0.2", "127.0.0.1"):
    print(address, len(opened(address, 30)))
remove_limit({PORT})
print("without", len(opened("10.9.0.1", 30)))
"""


@pytest.mark.root
def test_one_address_has_so_many_connections_and_no_more() -> None:
    command = ["unshare", "--net", sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["10.9.0.1 20", "10.9.0.2 30", "127.0.0.1 30", "without 30"], done.stderr


def test_where_rules_cannot_be_set_the_cause_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(EdgeUnavailable, match="the program nft is missing"):
        apply_limit(Settings(connections_per_address=20))


def test_an_external_edge_is_limited_by_others() -> None:
    with pytest.raises(ValueError, match="connections_per_address"):
        Settings(connections_per_address=20, edge="external")
