"""Networks in the configured address range on a real engine."""

import asyncio
import json
import subprocess
from ipaddress import IPv4Network
from typing import Any
from uuid import uuid4

import pytest

from sandbox.engine import labels
from sandbox.engine.docker.host_network import default_route_mtu
from sandbox.errors import EngineError


def inspect(name: str) -> dict[str, Any]:
    printed = subprocess.run(["docker", "network", "inspect", name], check=True, capture_output=True, text=True).stdout
    return json.loads(printed)[0]


def subnet(name: str) -> IPv4Network:
    return IPv4Network(inspect(name)["IPAM"]["Config"][0]["Subnet"])


async def test_ensure_creates_a_network_once(engine):
    session_id = uuid4()
    name = await engine.ensure_network(session_id)
    made = inspect(name)
    assert await engine.ensure_network(session_id) == name
    assert inspect(name)["Id"] == made["Id"]
    assert made["Labels"] == labels.resource_labels(engine._deployment_id, session_id)
    assert made["EnableIPv6"] is False
    mtu = default_route_mtu()
    assert mtu is not None
    assert made["Options"]["com.docker.network.driver.mtu"] == str(mtu)


async def test_concurrent_replicas_use_subnets_that_do_not_overlap(make_engine):
    pool = IPv4Network("10.214.0.0/25")
    deployment_id = uuid4()
    replicas = [make_engine(deployment_id, subnet_pool=str(pool)) for _ in range(2)]
    sessions = [uuid4() for _ in range(8)]
    names = await asyncio.gather(*(replicas[i % 2].ensure_network(session) for i, session in enumerate(sessions)))
    assert {subnet(name) for name in names} == set(pool.subnets(new_prefix=28))
    with pytest.raises(EngineError, match=r"10\.214\.0\.0/25") as refused:
        await replicas[0].ensure_network(uuid4())
    assert refused.value.code == "subnet_pool_exhausted"
    await replicas[0].remove_session(sessions[3])
    name = await replicas[1].ensure_network(uuid4())
    assert subnet(name).subnet_of(pool)


async def test_concurrent_ensures_create_one_network(make_engine):
    deployment_id, session_id = uuid4(), uuid4()
    replicas = [make_engine(deployment_id) for _ in range(2)]
    names = await asyncio.gather(*(engine.ensure_network(session_id) for engine in replicas * 2))
    assert len(set(names)) == 1
    assert len(await replicas[0].list_resources()) == 1


async def test_the_shared_network_is_in_the_pool_and_isolates_containers(make_engine, make_spec):
    deployment_id = uuid4()
    replicas = [make_engine(deployment_id, subnet_pool="10.215.0.0/20") for _ in range(2)]
    await asyncio.gather(*(engine.ensure_container(make_spec(uuid4())) for engine in replicas * 2))
    shared = [r for r in await replicas[0].list_resources() if r.session_id is None]
    assert [r.name for r in shared] == [labels.shared_network_name(deployment_id)]
    found = inspect(shared[0].name)
    assert found["Options"]["com.docker.network.bridge.enable_icc"] == "false"
    assert IPv4Network(found["IPAM"]["Config"][0]["Subnet"]).prefixlen == 22
    assert subnet(shared[0].name).subnet_of(IPv4Network("10.215.0.0/20"))
    assert len(found["Containers"]) == 4


async def test_a_network_of_that_name_without_our_label_is_refused(make_engine):
    ours, theirs = make_engine(), make_engine()
    session_id = uuid4()
    await theirs.ensure_network(session_id)
    with pytest.raises(EngineError) as refused:
        await ours.ensure_network(session_id)
    assert refused.value.code == "network_mismatch"
