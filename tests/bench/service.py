"""A service for a benchmark that launches sessions, with everything that it made removed at the end."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.acceptance.api import Api
from tests.acceptance.service import ADMIN_TOKEN, Service


@contextmanager
def launching_service(**env: str) -> Iterator[Api]:
    """Start a service with these environment variables, for the block."""
    with observed_service(**env) as (api, _):
        yield api


@contextmanager
def observed_service(**env: str) -> Iterator[tuple[Api, psutil.Process]]:
    """Like `launching_service`, and the service's process."""
    home = Path(tempfile.mkdtemp(prefix="sbx-bench-"))
    home.chmod(0o711)  # PostgreSQL's user must be able to pass through; otherwise its data is put elsewhere
    service = Service(home)
    service.start(SANDBOX_MAX_SESSIONS_PER_USER="500", **env)
    api = Api(service.url, ADMIN_TOKEN)
    try:
        assert service.process is not None
        yield api, psutil.Process(service.process.pid)
    finally:
        for session in api.http.get("/api/v1/sessions", params={"limit": 500}).json()["items"]:
            if session["status"] != "terminated":
                api.end(session["session_id"])
        api.http.close()
        service.stop()
        service.stop_edge()
        service.stop_database()
        shutil.rmtree(home, ignore_errors=True)
