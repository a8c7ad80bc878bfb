"""The faults. Each happens, is held for a while where it can be, and is taken back before the function returns."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
import uuid
from collections.abc import Callable

import docker.errors
import httpx
import psutil
import requests
from docker.models.containers import Container

from tests.chaos.world import Impatience, World

#: What a fault on the engine raises if the engine is away at the moment, or the container is: then it did not happen.
AWAY = (docker.errors.DockerException, requests.exceptions.RequestException)
#: Allocates more memory than a container may have.
_HOG = "import sys; held = [bytearray(10**7) for _ in range(100)]"
_BURST = 4


class Target:
    """The session that a fault on a container or a network strikes."""

    def __init__(self, session_id: str, chance: random.Random) -> None:
        self.session_id = session_id
        self.chance = chance

    def hold(self, shortest: float, longest: float) -> None:
        time.sleep(self.chance.uniform(shortest, longest))


def service_kill(world: World, target: Target) -> None:
    world.service.kill()
    target.hold(0, 1)
    world.start_service()


def service_freeze(world: World, target: Target) -> None:
    world.service.freeze()
    target.hold(1, 6)
    world.service.thaw()


def postgres_kill(world: World, target: Target) -> None:
    for process in world.database_processes()[:1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(target.chance.choice((signal.SIGKILL, signal.SIGQUIT)))


def postgres_freeze(world: World, target: Target) -> None:
    processes = world.database_processes()
    _signal(processes, signal.SIGSTOP)
    target.hold(1, 6)
    _signal(processes, signal.SIGCONT)


def engine_restart(world: World, target: Target) -> None:
    world.engine.stop()
    target.hold(0, 4)
    world.engine.start()


def engine_kill(world: World, target: Target) -> None:
    world.engine.kill()
    target.hold(0, 4)
    world.engine.start()


def reboot(world: World, target: Target) -> None:
    """Everything ends at once. Then the engine is started, and the service, which starts the rest."""
    world.service.kill()
    world.service.kill_edge()
    _signal(world.database_processes(), signal.SIGKILL)
    world.engine.lose_power()
    target.hold(0, 1)
    world.engine.start()
    world.start_service()


def container_kill(world: World, target: Target) -> None:
    _strike(world, target, lambda container: container.kill())


def container_remove(world: World, target: Target) -> None:
    _strike(world, target, lambda container: container.remove(force=True))


def container_pause(world: World, target: Target) -> None:
    def pause(container: Container) -> None:
        container.pause()
        target.hold(1, 8)
        container.unpause()

    _strike(world, target, pause)


def container_oom(world: World, target: Target) -> None:
    _strike(world, target, lambda container: container.exec_run(["python3", "-c", _HOG]))


def guest_freeze(world: World, target: Target) -> None:
    """The guest agent of a container does not answer, although the container runs."""

    def freeze(container: Container) -> None:
        process = psutil.Process(container.attrs["State"]["Pid"])
        # The container's first process is the engine's own init, which starts the guest agent.
        agents = process.children()
        _signal(agents, signal.SIGSTOP)
        target.hold(1, 20)
        _signal(agents, signal.SIGCONT)

    with contextlib.suppress(psutil.NoSuchProcess, ValueError):
        _strike(world, target, freeze)


def edge_kill(world: World, target: Target) -> None:
    world.service.kill_edge()


def network_detach(world: World, target: Target) -> None:
    def detach(container: Container) -> None:
        for name in container.attrs["NetworkSettings"]["Networks"]:
            container.client.networks.get(name).disconnect(container, force=True)

    _strike(world, target, detach)


def network_remove(world: World, target: Target) -> None:
    with contextlib.suppress(*AWAY), world.engine_client() as client:
        for network in client.networks.list(filters={"label": f"sandbox.session_id={target.session_id}"}):
            network.reload()
            for container in network.containers:
                network.disconnect(container, force=True)
            network.remove()


def disk_full(world: World, target: Target) -> None:
    world.disk.fill(leave=target.chance.choice((0, 100_000, 1_000_000)))
    # Something that wants to write.
    with contextlib.suppress(httpx.TransportError):
        world.api.http.put("/api/v1/memory/chaos/full", json={"value": "x" * 100_000}, timeout=10)
    target.hold(1, 5)
    world.disk.clear()


def create_and_delete(world: World, target: Target) -> None:
    """Several clients create a session each and delete it at once, or soon."""

    def one(seconds: float) -> None:
        with contextlib.suppress(Impatience):
            headers = {"Idempotency-Key": uuid.uuid4().hex}
            answer = world.call("POST", "/api/v1/sessions", json={}, headers=headers)
            session_id = answer.json()["session_id"]
            world.created.add(session_id)
            time.sleep(seconds)
            world.call("DELETE", f"/api/v1/sessions/{session_id}")
            world.ended.append(session_id)

    threads = [threading.Thread(target=one, args=(target.chance.uniform(0, 1.5),)) for _ in range(_BURST)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _strike(world: World, target: Target, action: Callable[[Container], object]) -> None:
    """Do something to one of the session's containers."""
    with contextlib.suppress(*AWAY), world.engine_client() as client:
        containers = world.containers(client, target.session_id)
        if containers:
            action(target.chance.choice(containers))


def _signal(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


Fault = Callable[[World, Target], None]
FAULTS: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (
        service_kill,
        service_freeze,
        postgres_kill,
        postgres_freeze,
        engine_restart,
        engine_kill,
        reboot,
        edge_kill,
        disk_full,
        create_and_delete,
        container_kill,
        container_remove,
        container_pause,
        container_oom,
        guest_freeze,
        network_remove,
        network_detach,
    )
}
#: Faults of one session. All others are of the whole service.
OF_SESSIONS = frozenset(
    {
        "container_kill",
        "container_remove",
        "container_pause",
        "container_oom",
        "guest_freeze",
        "network_remove",
        "network_detach",
    }
)
#: Faults after which an admin recovers the session. After all others it comes back by itself.
BY_ADMIN = frozenset({"container_oom"})
#: Faults that do not happen at the same time as another one: they change the process that the other one needs.
ALONE = frozenset({"service_kill", "service_freeze", "engine_restart", "engine_kill", "reboot"})
