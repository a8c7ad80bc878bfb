"""Free subnets of an address range, and the routing table."""

from ipaddress import IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.engine.docker.host_network import default_route_mtu, routed_networks
from sandbox.engine.docker.subnets import free_subnets

POOL = IPv4Network("10.213.0.0/24")


def test_an_unused_pool_yields_every_subnet_once():
    found = list(free_subnets(POOL, 28, []))
    assert sorted(found) == list(POOL.subnets(new_prefix=28))


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(20, 32)), max_size=8))
def test_no_free_subnet_overlaps_a_used_network(taken_blocks):
    taken = [IPv4Network((int(POOL.network_address) + offset, prefix), strict=False) for offset, prefix in taken_blocks]
    counted = [network for network in taken if not POOL.subnet_of(network)]
    found = list(free_subnets(POOL, 28, taken))
    free = [b for b in POOL.subnets(new_prefix=28) if not any(b.overlaps(t) for t in counted)]
    assert sorted(found) == free


def test_a_route_that_covers_the_whole_pool_is_ignored():
    assert len(list(free_subnets(POOL, 28, [IPv4Network("10.0.0.0/8"), POOL]))) == 16


def test_networks_outside_of_the_pool_are_ignored():
    assert len(list(free_subnets(POOL, 28, [IPv4Network("172.17.0.0/16")]))) == 16


@pytest.fixture
def routes(tmp_path: Path) -> Path:
    table = tmp_path / "route"
    table.write_text(
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n"
    )
    return table


def test_routes_are_read_in_host_byte_order(routes: Path):
    assert routed_networks(routes) == [IPv4Network("172.17.0.0/16")]


def test_the_mtu_is_that_of_the_default_routes_interface(routes: Path, tmp_path: Path):
    (tmp_path / "eth0").mkdir()
    (tmp_path / "eth0" / "mtu").write_text("1400\n")
    assert default_route_mtu(routes, tmp_path) == 1400


def test_without_a_routing_table_there_are_no_routes(tmp_path: Path):
    assert routed_networks(tmp_path / "none") == []
    assert default_route_mtu(tmp_path / "none", tmp_path) is None
