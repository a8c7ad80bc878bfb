"""The service on a small disk: nothing new is begun below the reserve, what runs goes on, and room is noticed."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.api import Api, problem
from tests.acceptance.service import ADMIN_TOKEN, Service
from tests.small_disk import SmallDisk, small_disk

DEADLINE_SECONDS = 120
MIB = 1 << 20


@pytest.fixture
def disk(short_folder: Path) -> Iterator[SmallDisk]:
    """The disk of a service's data folder."""
    with small_disk(short_folder / "full", 220) as disk:
        yield disk


def readiness(api: Api, status: int, disk: str) -> None:
    """Wait until the readiness probe answers with this status and this state of the disk."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        answer = api.http.get("/readyz")
        if (answer.status_code, answer.json()["checks"]["disk"]) == (status, disk):
            return
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.2)


def test_a_small_disk(disk: SmallDisk, make_service: Callable[..., Service]) -> None:
    service = make_service(disk.folder, SANDBOX_DISK_RESERVE="64M")
    service.start()
    api = Api(service.url, ADMIN_TOKEN)
    session, _ = api.launch()
    assert session["status"] == "ready", session
    session_id = session["session_id"]
    readiness(api, 200, "ok")

    disk.fill(leave=40 * MIB)
    readiness(api, 200, "disk_low")
    refused = api.http.post("/api/v1/sessions", json={})
    problem(refused, 503, "disk_low")
    assert int(refused.headers["Retry-After"]) > 0
    problem(api.http.post(f"/api/v1/sessions/{session_id}/relaunch"), 503, "disk_low")
    assert api.exec(session_id, "echo here")["stdout"] == "here\n"

    disk.fill(leave=2 * MIB)
    readiness(api, 503, "disk_full")
    assert api.exec(session_id, "echo here")["stdout"] == "here\n"

    disk.clear()
    readiness(api, 200, "ok")
    second, _ = api.launch()
    assert second["status"] == "ready", second
    alerts = api.http.get("/api/v1/alerts").json()["items"]
    kinds = {alert["metadata"]["cause"].partition(":")[0] for alert in alerts if alert["source"] == "disk space"}
    assert kinds == {"disk_low", "disk_full"}
    for made in (session_id, second["session_id"]):
        api.end(made)
    api.http.close()
    service.stop()
    service.stop_edge()
    service.stop_database()
    shutil.rmtree(disk.folder / "postgres")
