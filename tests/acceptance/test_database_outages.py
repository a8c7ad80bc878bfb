"""PostgreSQL is stopped or killed under a running service: sandboxes can be used meanwhile, and it comes back."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from sandbox.db.embedded import EmbeddedPostgres
from tests.acceptance.api import Api, problem
from tests.acceptance.crashed_launches import Viewer
from tests.acceptance.service import ADMIN_TOKEN, Service

DEADLINE_SECONDS = 120


@pytest.fixture(scope="module")
def own(make_service: Callable[..., Service]) -> Iterator[Service]:
    """A service of this module, whose database may be stopped."""
    service = make_service()
    service.start()
    yield service
    service.stop()


@pytest.fixture(scope="module")
def api(own: Service) -> Iterator[Api]:
    api = Api(own.url, ADMIN_TOKEN)
    yield api
    api.http.close()


@pytest.fixture(scope="module")
def session_id(api: Api) -> Iterator[str]:
    session, _ = api.launch()
    assert session["status"] == "ready", session
    yield session["session_id"]
    api.end(session["session_id"])


def use(api: Api, session_id: str) -> None:
    """Run a command, and write and read a file."""
    path = f"/api/v1/sessions/{session_id}/files"
    assert api.exec(session_id, "echo here")["stdout"] == "here\n"
    assert api.http.put(path, params={"path": "note"}, content=b"kept").status_code == 201
    assert api.http.get(path, params={"path": "note"}).content == b"kept"


#: A project whose preview needs nothing but the image.
PROJECT = {
    "sandbox.toml": '[web]\nruntime = "python312"\nstart = "exec python3 -m http.server $PORT"\nport = 8000\n',
    "index.html": "<h1>here</h1>",
}


def test_sandboxes_and_previews_are_used_while_the_database_is_away(own: Service, api: Api, session_id: str) -> None:
    api.upload("page", PROJECT)
    session, _ = api.launch(project_id="page")
    assert session["status"] == "running", session
    # curl and programs send the token with each request, so the service is asked each time.
    headers = {"Host": f"{session['session_id']}.preview.localhost:{own.port}"}
    assert api.http.get("/", headers=headers).text == PROJECT["index.html"]
    use(api, session_id)
    own.stop_database()
    try:
        # Longer than all caches of normal operation last.
        began = time.monotonic()
        while time.monotonic() - began < 8:
            use(api, session_id)
            assert api.http.get("/", headers=headers).text == PROJECT["index.html"]
            time.sleep(0.2)
        problem(api.http.get("/api/v1/sessions"), 503, "database_unavailable")
        stranger = Api(own.url, "sbx_unknown")
        problem(stranger.http.get(f"/api/v1/sessions/{session_id}"), 503, "database_unavailable")
        stranger.http.close()
        assert not asyncio.run(EmbeddedPostgres(own.home).status()).running
    finally:
        asyncio.run(EmbeddedPostgres(own.home).start())
    own.wait_ready()
    use(api, session_id)
    api.end(session["session_id"])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGQUIT], ids=["SIGKILL", "SIGQUIT"])
def test_the_service_starts_a_killed_database_again(
    own: Service, api: Api, session_id: str, number: signal.Signals
) -> None:
    use(api, session_id)
    before = asyncio.run(EmbeddedPostgres(own.home).status()).pid
    assert before is not None
    os.kill(before, number)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while asyncio.run(EmbeddedPostgres(own.home).status()).pid in (None, before):
        use(api, session_id)
        assert time.monotonic() < deadline, own.tail()
    own.wait_ready()
    second = accepted(api, deadline)
    # Connections that were in use break once, so a viewer may have to connect again.
    assert Viewer(api, second).finish()[-1].data["status"] == "ready"
    api.end(second)


def test_a_frozen_database_is_reported_within_seconds(own: Service, api: Api, session_id: str) -> None:
    use(api, session_id)
    pid = asyncio.run(EmbeddedPostgres(own.home).status()).pid
    assert pid is not None
    frozen = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    for process in frozen:
        process.suspend()
    try:
        # The first ones wait until it is noticed; all of them would wait for ever without that.
        with ThreadPoolExecutor(4) as pool:
            lists = [pool.submit(api.http.get, "/api/v1/sessions", timeout=DEADLINE_SECONDS) for _ in range(4)]
        for answer in lists:
            problem(answer.result(), 503, "database_unavailable")
        problem(api.http.post("/api/v1/sessions", json={}), 503, "database_unavailable")
        ready = api.http.get("/readyz")
        assert (ready.status_code, ready.json()["checks"]["database"]) == (503, "database_unavailable")
        use(api, session_id)
    finally:
        for process in frozen:
            process.resume()
    own.wait_ready()
    use(api, session_id)
    assert api.http.get("/api/v1/sessions").status_code == 200


def accepted(api: Api, deadline: float) -> str:
    """The id of a new session, which is requested until the service accepts it."""
    while (answer := api.http.post("/api/v1/sessions", json={})).status_code != 202:
        problem(answer, 503, "database_unavailable")
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return str(answer.json()["session_id"])
