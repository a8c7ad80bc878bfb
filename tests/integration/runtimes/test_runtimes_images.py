"""Runtime images on a real engine: their content, installation of packages in them, and when they are rebuilt."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
from pathlib import Path

import docker
import pytest

from sandbox.engine.docker.build_context import digest_tree
from sandbox.engine.docker.image_builder import ImageBuildFailed
from sandbox.engine.host_environment import HostPassthrough, container_environment
from sandbox.engine.runtimes import RuntimeCatalog, RuntimeUnknown, default_folder
from sandbox.errors import EngineError
from sandbox.images.runtime_images import RuntimeImages
from sandbox.provision.local_bases import BaseUnavailable
from tests.integration.runtimes.runtimes_registry import registry
from tests.integration.runtimes.runtimes_support import Run, image_exists

RUNTIMES = ("python312", "node20")

MANIFEST = """
name = "{name}"
description = "A third runtime"
language = "any"
[base]
image = "{image}"
"""
LOCAL = """
[base.local]
packages = ["ca-certificates"]
"""
UNKNOWN_IMAGE = "registry.invalid/nothing:1"


def add_runtime(folder: Path, name: str, *, image: str = UNKNOWN_IMAGE, local: str = LOCAL, steps: str = "") -> Path:
    runtime = folder / name
    runtime.mkdir()
    (runtime / "runtime.toml").write_text(MANIFEST.format(name=name, image=image) + local)
    (runtime / "Dockerfile").write_text(f"ARG BASE\nFROM ${{BASE}}\nCOPY agent/ /opt/sandbox-agent/\n{steps}")
    return runtime


@pytest.mark.parametrize("name", RUNTIMES)
async def test_an_image_passes_the_checks_of_its_manifest(
    name: str, images: RuntimeImages, catalog: RuntimeCatalog, run: Run
) -> None:
    image = await images.ensure(name)
    checks = catalog.get(name).verify
    assert checks
    for command, pattern in checks.items():
        printed = run(image, command)
        assert re.search(pattern, printed, re.MULTILINE), f"{command} printed {printed!r}"


@pytest.mark.parametrize("name", RUNTIMES)
async def test_an_image_has_no_setuid_programs_and_no_writable_system_files(
    name: str, images: RuntimeImages, run: Run
) -> None:
    image = await images.ensure(name)
    as_root = {"user": "0:0", "cap_drop": []}
    assert run(image, "find / -xdev -type f -perm /6000", **as_root) == ""
    assert run(image, "stat -c '%u:%g %a' /workspace", **as_root) == "1000:1000 755"
    assert run(image, "find /opt -writable 2>/dev/null; find /usr -xdev -writable ! -type l 2>/dev/null; true") == ""
    assert run(image, "getent passwd 1000 | cut -d: -f1,6,7") == "sandbox:/home/sandbox:/bin/bash"


@pytest.mark.parametrize("name", RUNTIMES)
async def test_the_guest_agent_in_the_image_answers(
    name: str, images: RuntimeImages, engine: docker.DockerClient
) -> None:
    image = await images.ensure(name)
    # The request is sent with the image's own Python, because the image has no other client.
    ask = (
        "import socket, time\n"
        "for _ in range(100):\n"
        "    try:\n"
        "        s = socket.socket(socket.AF_UNIX); s.connect('/run/sandbox-agent/agent.sock'); break\n"
        "    except OSError: time.sleep(0.1)\n"
        "s.sendall(b'GET /nothing-here HTTP/1.1\\r\\nHost: agent\\r\\nConnection: close\\r\\n\\r\\n')\n"
        "print(s.recv(64).split()[0].decode())"
    )
    container = engine.containers.run(
        image, detach=True, init=True, tmpfs={"/run/sandbox-agent": "mode=0700"}, network_mode="none"
    )
    try:
        done = container.exec_run(["python3", "-c", ask])
        assert done.output.decode().strip() == "HTTP/1.1", container.logs().decode()
    finally:
        container.remove(force=True)


async def test_python_packages_install_as_the_unprivileged_user(
    images: RuntimeImages, catalog: RuntimeCatalog, run: Run
) -> None:
    image = await images.ensure("python312")
    install = catalog.get("python312").install_command({"requirements.txt"})
    use = ".venv/bin/python -c 'import six; print(six.__version__)'"
    printed = run(image, f"echo six==1.17.0 > requirements.txt && {install} && {install} && {use}")
    assert printed.endswith("1.17.0")
    printed = run(image, "python -m venv v && v/bin/pip install --no-deps six==1.17.0 && v/bin/python -c 'import six'")
    assert "Successfully installed six-1.17.0" in printed


@pytest.mark.parametrize(
    ("lock", "make_lock"),
    [
        ("package-lock.json", "npm install --package-lock-only"),
        ("pnpm-lock.yaml", "pnpm install --lockfile-only"),
        ("yarn.lock", "yarn install --non-interactive && rm -rf node_modules"),
    ],
)
async def test_node_packages_install_as_the_unprivileged_user(
    lock: str, make_lock: str, images: RuntimeImages, catalog: RuntimeCatalog, run: Run
) -> None:
    image = await images.ensure("node20")
    install = catalog.get("node20").install_command({"package.json", lock})
    manifest = '{"name":"x","version":"1.0.0","dependencies":{"is-number":"7.0.0"}}'
    use = "node -p 'require(\"is-number\")(5)'"
    printed = run(image, f"echo '{manifest}' > package.json && {make_lock} && {install} && {use}")
    assert printed.endswith("true")


@pytest.mark.parametrize("name", RUNTIMES)
async def test_an_image_contains_no_settings_of_this_machine_except_certificates(
    name: str, images: RuntimeImages, engine: docker.DockerClient
) -> None:
    image = engine.images.get(await images.ensure(name))
    names = {entry.partition("=")[0] for entry in image.attrs["Config"]["Env"]}
    passed = container_environment().env
    assert not names & set(passed)
    history = " ".join(step["CreatedBy"] for step in image.history())
    assert not [v for v in passed.values() if "://" in v and v in history]


async def test_adding_a_folder_adds_a_runtime(
    runtimes_folder: Path, new_name: str, run: Run, engine: docker.DockerClient
) -> None:
    third = add_runtime(runtimes_folder, new_name, steps="RUN echo third > /third\n")
    catalog = RuntimeCatalog(runtimes_folder)
    assert [runtime.name for runtime in catalog.list()] == [new_name]
    images = RuntimeImages(catalog)
    assert await images.reference(new_name) is None

    lines: list[str] = []
    built = await images.ensure(new_name, lines.append)
    await asyncio.sleep(0)
    assert run(built, "cat /third && ls /opt/sandbox-agent/__main__.py") == "third\n/opt/sandbox-agent/__main__.py"
    assert [line for line in lines if f"No image registry provides {UNKNOWN_IMAGE}" in line]
    assert await images.reference(new_name) == built
    assert engine.images.get(built).labels["sandbox.runtime"] == new_name

    lines.clear()
    assert await RuntimeImages(RuntimeCatalog(runtimes_folder)).ensure(new_name, lines.append) == built
    assert lines == []

    (third / "Dockerfile").write_text((third / "Dockerfile").read_text().replace("third >", "fourth >"))
    changed = await images.ensure(new_name)
    assert changed != built
    assert run(changed, "cat /third") == "fourth"


async def test_a_changed_guest_agent_or_certificate_leads_to_a_new_image(
    runtimes_folder: Path, new_name: str, tmp_path: Path, run: Run
) -> None:
    add_runtime(runtimes_folder, new_name)
    guest = tmp_path / "agent"
    guest.mkdir()
    (guest / "__main__.py").write_text("print(1)\n")
    catalog = RuntimeCatalog(runtimes_folder)
    plain = RuntimeImages(catalog, guest_folder=guest, host=HostPassthrough())
    first = await plain.ensure(new_name)
    assert "host" not in run(first, "ls /usr/local/share", environment={})
    certificate = b"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"
    trusting = RuntimeImages(catalog, guest_folder=guest, host=HostPassthrough(ca_bundle=certificate))
    assert await trusting.reference(new_name) is None
    second = await trusting.ensure(new_name)
    assert run(second, "cat /usr/local/share/ca-certificates-host.crt", environment={}) == certificate.decode().strip()
    (guest / "__main__.py").write_text("print(2)\n")
    assert await plain.reference(new_name) is None
    assert len({first, second, await plain.ensure(new_name)}) == 3


async def test_a_superseded_image_is_removed_once_no_container_uses_it(
    runtimes_folder: Path, new_name: str, engine: docker.DockerClient
) -> None:
    runtime = add_runtime(runtimes_folder, new_name)
    catalog = RuntimeCatalog(runtimes_folder)

    async def change(images: RuntimeImages, content: str) -> str:
        (runtime / "Dockerfile").write_text(f"ARG BASE\nFROM ${{BASE}}\nLABEL content={content}\n")
        return await images.ensure(new_name)

    at_once = RuntimeImages(catalog, min_age_seconds=0)
    used = await change(at_once, "first")
    container = engine.containers.create(used, ["x"])
    try:
        young = await change(RuntimeImages(catalog), "second")
        assert image_exists(engine, young)
        third = await change(at_once, "third")
        assert [image_exists(engine, tag) for tag in (used, young, third)] == [True, False, True]
    finally:
        container.remove()
    fourth = await change(at_once, "fourth")
    assert [image_exists(engine, tag) for tag in (used, third, fourth)] == [False, False, True]


async def test_concurrent_calls_build_once(runtimes_folder: Path, new_name: str) -> None:
    add_runtime(runtimes_folder, new_name)
    images = RuntimeImages(RuntimeCatalog(runtimes_folder))
    lines: list[str] = []
    references = await asyncio.gather(*(images.ensure(new_name, lines.append) for _ in range(4)))
    assert len(set(references)) == 1
    assert len([line for line in lines if line.startswith("Built ")]) == 1


async def test_a_base_is_pulled_if_a_registry_answers(
    runtimes_folder: Path, new_name: str, engine: docker.DockerClient
) -> None:
    with registry({"from-registry": b"yes"}) as reference:
        add_runtime(runtimes_folder, new_name, image=reference, local="")
        try:
            built = await RuntimeImages(RuntimeCatalog(runtimes_folder)).ensure(new_name)
            assert engine.images.get(built).labels["sandbox.base"] == "registry"
            container = engine.containers.create(built, ["x"])
            try:
                container.get_archive("/from-registry")
            finally:
                container.remove()
        finally:
            engine.images.remove(reference, force=True)


async def test_a_registry_without_the_image_is_asked_again_for_others(
    runtimes_folder: Path, tmp_path: Path, new_name: str, engine: docker.DockerClient
) -> None:
    with registry({"from-registry": b"yes"}) as reference:
        add_runtime(runtimes_folder, new_name, image=reference.replace("tiny:1", "unknown:1"), local="")
        other = f"{new_name}-b"
        add_runtime(runtimes_folder, other, image=reference, local="")
        images = RuntimeImages(RuntimeCatalog(runtimes_folder))
        with pytest.raises(BaseUnavailable, match="unknown:1"):
            await images.ensure(new_name)
        try:
            assert image_exists(engine, await images.ensure(other))
        finally:
            engine.images.remove(reference, force=True)


async def test_a_registry_that_does_not_answer_times_out(runtimes_folder: Path, new_name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        image = f"127.0.0.1:{silent.getsockname()[1]}/tiny:1"
        add_runtime(runtimes_folder, new_name, image=image, local="")
        with pytest.raises(BaseUnavailable) as raised:
            await RuntimeImages(RuntimeCatalog(runtimes_folder)).ensure(new_name)
    assert raised.value.code == "base_image_unavailable"
    assert image in raised.value.message
    assert "base.local" in raised.value.hint


async def test_the_error_of_a_failed_build_contains_its_output(runtimes_folder: Path, new_name: str) -> None:
    add_runtime(runtimes_folder, new_name, steps="RUN echo the-cause-is-this && exit 3\n")
    images = RuntimeImages(RuntimeCatalog(runtimes_folder))
    with pytest.raises(ImageBuildFailed, match="the-cause-is-this") as raised:
        await images.ensure(new_name)
    assert raised.value.code == "image_build_failed"
    assert await images.reference(new_name) is None


async def test_unknown_runtimes_are_errors(catalog: RuntimeCatalog) -> None:
    with pytest.raises(RuntimeUnknown):
        await RuntimeImages(catalog).ensure("cobol74")
    with pytest.raises(EngineError) as raised:
        await RuntimeImages(catalog, "unix:///nowhere/docker.sock").ensure("python312")
    assert raised.value.code == "engine_unreachable"


def test_the_digest_does_not_depend_on_the_folders_path(tmp_path: Path) -> None:
    for name in RUNTIMES:
        shutil.copytree(default_folder() / name, tmp_path / name)
        assert digest_tree(tmp_path / name) == digest_tree(default_folder() / name)
