"""The service of a fault run, with an engine, a data folder on a small disk and a network namespace of its own."""

from __future__ import annotations

import asyncio
import fcntl
import shutil
import socket
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import httpx
import psutil
from docker.models.containers import Container

from sandbox.db.embedded import EmbeddedPostgres
from sandbox.engine.runtimes import RuntimeCatalog
from sandbox.images.runtime_images import RuntimeImages
from tests.acceptance.api import Api
from tests.acceptance.service import ADMIN_TOKEN, QuickService
from tests.own_engine import OwnEngine
from tests.small_disk import SmallDisk, small_disk

#: Of the data folder, MiB. PostgreSQL's log (WAL) takes most of it.
DISK_MB = 1024
#: An answer that has not come by then never will.
PATIENCE_SECONDS = 180.0
_PASSING = (429, 502, 503, 504)
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1


class Impatience(Exception):
    """The service did not answer a request for `PATIENCE_SECONDS`."""


@dataclass
class World:
    """All parts that faults happen to."""

    engine: OwnEngine
    disk: SmallDisk
    service: QuickService
    api: Api
    #: Answers with status 500, in words.
    mistakes: list[str] = field(default_factory=list)
    #: Every session that was created, and those that were deleted and are not checked yet.
    created: set[str] = field(default_factory=set)
    ended: list[str] = field(default_factory=list)

    def take_mistakes(self) -> list[str]:
        """The mistakes since the last call."""
        taken, self.mistakes = self.mistakes, []
        return taken

    def take_ended(self) -> list[str]:
        """The sessions that were deleted since the last call."""
        taken, self.ended = self.ended, []
        return taken

    def start_service(self) -> None:
        """Start the service until it stays: it ends if the database or the disk does not let it start."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            self.service.spawn()
            try:
                self.service.wait_ready()
            except AssertionError:
                if time.monotonic() > deadline:
                    raise
                self.service.kill()
            else:
                return

    def call(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Make a request and repeat it while the service is away or asks to. Raises Impatience."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        last = "no answer"
        while time.monotonic() < deadline:
            try:
                answer = self.api.http.request(method, path, timeout=30, **more)
            except httpx.TransportError as error:
                last = repr(error)
            else:
                if answer.status_code == 500:
                    self.mistakes.append(f"{method} {path}: {answer.text[:300]}")
                elif answer.status_code not in _PASSING:
                    return answer
                last = answer.text[:300]
            time.sleep(0.2)
        raise Impatience(f"{method} {path}: {last}")

    @contextmanager
    def engine_client(self) -> Iterator[docker.DockerClient]:
        """A client of the engine."""
        with closing(docker.DockerClient(self.engine.host)) as client:
            yield client

    @staticmethod
    def containers(client: docker.DockerClient, session_id: str) -> list[Container]:
        """The containers of a session. Those that are removed while the list is made are left out."""
        label = {"label": f"sandbox.session_id={session_id}"}
        return list(client.containers.list(all=True, filters=label, ignore_removed=True))

    def resources(self) -> dict[str, list[str]]:
        """The names of the engine's resources that belong to sessions, by session."""
        found: dict[str, list[str]] = {}
        label = {"label": "sandbox.session_id"}
        with self.engine_client() as client:
            api = client.api
            listed = [
                *((item["Labels"], item["Id"][:12]) for item in api.containers(all=True, filters=label)),
                *((item["Labels"], item["Name"]) for item in api.networks(filters=label)),
                *((item["Labels"], item["Name"]) for item in api.volumes(filters=label)["Volumes"] or []),
            ]
        for labels, name in listed:
            found.setdefault(labels["sandbox.session_id"], []).append(name)
        return found

    def database_processes(self) -> list[psutil.Process]:
        """The postmaster and its children; empty if it does not run."""
        pid = asyncio.run(EmbeddedPostgres(self.service.home).status()).pid
        if pid is None:
            return []
        try:
            postmaster = psutil.Process(pid)
            return [postmaster, *postmaster.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


@contextmanager
def own_world() -> Iterator[World]:
    """Start everything for the block, and remove it afterwards. Needs a network and a mount namespace of its own."""
    _raise_loopback()
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="sbx-chaos-"))
        folder.chmod(0o711)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        engine = OwnEngine(folder / "engine")
        engine.home.mkdir()
        image = _save_image(folder / "image.tar")
        engine.start()
        stack.callback(engine.end_everything)
        _load_image(engine, folder / "image.tar", image)
        disk = stack.enter_context(small_disk(folder / "home", DISK_MB))
        service = QuickService(
            disk.folder,
            env={
                "DOCKER_HOST": engine.host,
                "SANDBOX_DISK_RESERVE": "64M",
                # The least with which containers come from the pool.
                "SANDBOX_MEMORY_MB": "512",
                "SANDBOX_POOL_MAX": "4",
                "SANDBOX_RECOVER_AT_START": "true",
                # The rules of the host's network would be those of another namespace than the engine's.
                "SANDBOX_EGRESS_GUARD": "off",
                "SANDBOX_MAX_SESSIONS_PER_USER": "1000",
            },
        )
        service.start()
        stack.callback(service.stop_database)
        stack.callback(service.stop_edge)
        stack.callback(service.stop)
        api = Api(service.url, ADMIN_TOKEN)
        stack.callback(api.http.close)
        yield World(engine, disk, service, api)


def _save_image(file: Path) -> str:
    """Write the image of the Python runtime to a file; its reference."""
    reference = asyncio.run(RuntimeImages(RuntimeCatalog()).ensure("python312"))
    with closing(docker.from_env()) as client, file.open("wb") as out:
        for chunk in client.images.get(reference).save(named=reference):
            out.write(chunk)
    return reference


def _load_image(engine: OwnEngine, file: Path, reference: str) -> None:
    with closing(docker.DockerClient(engine.host, timeout=300)) as client:
        with file.open("rb") as image:
            client.images.load(image)
        client.images.get(reference)
    file.unlink()


def _raise_loopback() -> None:
    """Make the loopback device of a new network namespace usable."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", 0)
        _, flags = struct.unpack("16sh14x", fcntl.ioctl(control, _SIOCGIFFLAGS, request))
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))
