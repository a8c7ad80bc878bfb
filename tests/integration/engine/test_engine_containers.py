"""Containers, volumes and their removal on a real engine, beyond the contract that tests/contract checks."""

import asyncio
import subprocess
from uuid import uuid4

import pytest

from sandbox.engine import labels
from sandbox.engine.base import ResourceKind
from sandbox.engine.docker.engine import DockerEngine
from sandbox.engine.guest_client.client import GuestClient
from sandbox.errors import EngineError
from sandbox.settings import Settings


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout.strip()


async def test_ping_returns_the_version(engine):
    assert (await engine.ping())["version"] == docker("version", "--format", "{{.Server.Version}}")


async def test_concurrent_ensures_create_one_container(make_engine, make_spec):
    deployment_id, spec = uuid4(), make_spec(uuid4())
    engines = [make_engine(deployment_id) for _ in range(2)]
    states = await asyncio.gather(*(engine.ensure_container(spec) for engine in engines * 3))
    assert len({state.id for state in states}) == 1
    kinds = [r.kind for r in await engines[0].list_resources()]
    assert sorted(kinds) == [ResourceKind.CONTAINER, ResourceKind.NETWORK, ResourceKind.VOLUME]


async def test_a_container_that_was_only_created_is_started(engine, make_spec):
    spec = make_spec(uuid4())
    first = await engine.ensure_container(spec)
    docker("rm", "-f", first.id)
    marks = labels.resource_labels(engine._deployment_id, spec.session_id, "main")
    flags = [flag for key, value in marks.items() for flag in ("--label", f"{key}={value}")]
    network = labels.shared_network_name(engine._deployment_id)
    memory = str(spec.limits.memory_bytes)
    created = docker("create", "--name", first.name, "--network", network, "--memory", memory, *flags, spec.image)
    state = await engine.ensure_container(spec)
    assert (state.id, state.status) == (created, "running")


async def test_a_paused_container_is_resumed(engine, make_spec):
    spec = make_spec(uuid4())
    first = await engine.ensure_container(spec)
    # While the guest agent starts, it starts processes, and the kernel may fail to freeze them.
    await engine.guest(spec.session_id, "main").wait_ready(60)
    docker("pause", first.id)
    assert (await engine.ensure_container(spec)).status == "running"
    await engine.guest(spec.session_id, "main").wait_ready(60)


async def test_logs_contain_the_containers_output(engine, make_spec):
    spec = make_spec(uuid4())
    state = await engine.ensure_container(spec)
    assert await engine.container_logs(spec.session_id, "main") == docker("logs", state.id)


async def test_two_deployments_do_not_see_each_other(make_engine, make_spec, tmp_path):
    ours, theirs = make_engine(), make_engine(home=tmp_path / "theirs")
    spec = make_spec(uuid4())
    state = await ours.ensure_container(spec)
    assert await theirs.list_resources() == []
    assert await theirs.remove_session(spec.session_id) == []
    for resource in await ours.list_resources():
        assert await theirs.remove(resource) is False
    assert (await ours.inspect_container(spec.session_id, "main")) == state
    with pytest.raises(EngineError) as refused:
        await theirs.ensure_container(spec)
    assert refused.value.code == "container_mismatch"
    await ours.guest(spec.session_id, "main").wait_ready(60)


async def test_remove_session_removes_everything(make_engine, make_spec, tmp_path):
    engine = make_engine(agent_transport="socket")
    session_id, other = uuid4(), uuid4()
    network = await engine.ensure_network(session_id)
    roles = ("backend", "frontend")
    await asyncio.gather(*(engine.ensure_container(make_spec(session_id, role, network=network)) for role in roles))
    kept = await engine.ensure_container(make_spec(other))
    # Resources of the session that no database knows are removed, too.
    mark = f"{labels.SESSION}={session_id}", f"{labels.DEPLOYMENT}={engine._deployment_id}"
    docker("volume", "create", "--label", mark[0], "--label", mark[1], f"sbx-test-stray-{session_id.hex}")
    docker("network", "connect", network, kept.id)

    removed = await engine.remove_session(session_id)

    names = [labels.container_name(session_id, role) for role in roles]
    assert sorted((r.kind, r.name) for r in removed) == sorted(
        [(ResourceKind.CONTAINER, name) for name in names]
        + [(ResourceKind.NETWORK, network)]
        + [(ResourceKind.VOLUME, name) for name in (*names, f"sbx-test-stray-{session_id.hex}")]
    )
    assert {r.session_id for r in await engine.list_resources()} == {other, None}
    assert await engine.remove_session(session_id) == []
    folders = [path.name for path in (tmp_path / "home" / "run").iterdir()]
    assert folders == [other.hex[-12:]]
    assert (await engine.inspect_container(other, "main")).status == "running"


async def test_removing_a_container_does_not_remove_its_volume(make_engine, make_spec, tmp_path):
    engine = make_engine(agent_transport="socket")
    spec = make_spec(uuid4())
    await engine.ensure_container(spec)
    resources = {r.kind: r for r in await engine.list_resources()}
    assert await engine.remove(resources[ResourceKind.CONTAINER]) is True
    assert await engine.remove(resources[ResourceKind.CONTAINER]) is False
    assert ResourceKind.VOLUME in {r.kind for r in await engine.list_resources()}
    assert list((tmp_path / "home" / "run").iterdir()) == []


async def test_the_socket_folder_is_private_and_recreated(make_engine, make_spec, tmp_path):
    engine = make_engine(agent_transport="socket")
    spec = make_spec(uuid4())
    state = await engine.ensure_container(spec)
    folder = tmp_path / "home" / "run" / spec.session_id.hex[-12:] / "main"
    assert [path.stat().st_mode & 0o777 for path in (folder.parent.parent, folder.parent, folder)] == [0o700] * 3
    docker("kill", state.id)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    assert (await engine.ensure_container(spec)).status == "running"
    await engine.guest(spec.session_id, "main").wait_ready(60)
    assert [path.name for path in folder.iterdir()] == ["agent.sock"]


async def test_a_removed_shared_network_is_recreated_with_the_container(engine, make_spec):
    spec = make_spec(uuid4())
    state = await engine.ensure_container(spec)
    docker("exec", state.id, "touch", "/workspace/kept")
    docker("kill", state.id)
    docker("network", "rm", labels.shared_network_name(engine._deployment_id))
    again = await engine.ensure_container(spec)
    assert again.status == "running"
    assert docker("exec", again.id, "ls", "/workspace") == "kept"


async def test_an_unreachable_engine_is_an_error(make_spec, tmp_path):
    for host in (f"unix://{tmp_path}/nothing.sock", "tcp://127.0.0.1:9"):
        engine = DockerEngine(Settings(home=tmp_path, docker_host=host), uuid4(), guest_factory=GuestClient)
        for call in (engine.ping(), engine.ensure_container(make_spec(uuid4())), engine.list_resources()):
            with pytest.raises(EngineError) as refused:
                await call
            assert refused.value.code == "engine_unreachable"
            assert "doctor" in refused.value.hint
        with pytest.raises(EngineError):
            await anext(engine.events())
        await engine.aclose()
