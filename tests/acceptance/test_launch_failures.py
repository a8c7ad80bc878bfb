"""Projects whose launch fails: the error names the cause, nothing is left behind, and the service goes on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import docker
import httpx
import pytest

from tests.acceptance.api import SESSIONS, Api, SseEvent
from tests.acceptance.previews import page, preview
from tests.acceptance.service import Service


@dataclass(frozen=True)
class FailingProject:
    """A project whose launch fails, and the error that is expected."""

    files: dict[str, str | bytes]
    code: str
    stage: str
    #: Regular expressions that the message matches.
    patterns: tuple[str, ...]
    hint: str
    #: A line of output that the launch logged before it failed.
    line: str | None = None
    absent: tuple[str, ...] = field(default=())


def python(start: str, install: str = "", health: str | None = None, **files: str) -> dict[str, str | bytes]:
    """Return the files of a project with one role on port 8000."""
    plan = {"runtime": "python312", "install": install, "start": start} | ({"health": health} if health else {})
    lines = [f"{key} = {json.dumps(value)}" for key, value in plan.items()]
    named = {f"{name}.py": text for name, text in files.items()}
    return {"sandbox.toml": "\n".join(["[app]", *lines, "port = 8000\n"]), **named}


HOG = "held = []\nwhile True:\n    held.append(bytearray(10_000_000))\n"
EXPRESS = {"server.js": "require('express')().listen(3000)"}
FAILING = {
    "a Python package that is not there": FailingProject(
        {
            "main.py": "from fastapi import FastAPI\n\napp = FastAPI()\n",
            "requirements.txt": "fastapi\nno-such-package-of-anybody==9.9\n",
        },
        "dependency_install_failed",
        "dependencies",
        (r"backend: `uv venv .*` ended with exit code 1", r"Because no-such-package-of-anybody was not found"),
        "There is no package no-such-package-of-anybody in the index",
    ),
    "an npm package that is not there": FailingProject(
        {"package.json": '{"dependencies": {"no-such-package-of-anybody": "1.0.0", "express": "4"}}', **EXPRESS},
        "dependency_install_failed",
        "dependencies",
        (r"`npm install` ended with exit code 1", r"404 .*no-such-package-of-anybody@1\.0\.0"),
        "There is no package no-such-package-of-anybody in the registry",
        absent=("A complete log of this run",),
    ),
    "an install that hangs": FailingProject(
        python("true", install="echo downloading the moon; sleep 3600"),
        "dependency_install_timeout",
        "dependencies",
        (r"had not finished after 60 s", r"downloading the moon"),
        "SANDBOX_INSTALL_TIMEOUT_SECONDS",
        line="downloading the moon",
    ),
    "an install that needs too much memory": FailingProject(
        python("true", install="python3 hog.py", hog=HOG),
        "out_of_memory",
        "dependencies",
        (r"`python3 hog\.py` was killed because the container ran out of memory",),
        "--memory",
    ),
    "an app that exits at once": FailingProject(
        python("python3 app.py", app="import nothing_of_that_name\n"),
        "app_exited",
        "health",
        (r"`python3 app\.py` ended with exit code 1 before it answered", r"No module named 'nothing_of_that_name'"),
        "add nothing-of-that-name to the project's dependencies",
        line="ModuleNotFoundError: No module named 'nothing_of_that_name'",
    ),
    "an app that comes to its end": FailingProject(
        python("true"),
        "app_exited",
        "health",
        (r"`true` ended with exit code 0 before it answered and printed nothing",),
        "in the foreground",
    ),
    "a program that is not installed": FailingProject(
        python("gunicorn app:app"),
        "app_exited",
        "health",
        (r"gunicorn: command not found",),
        "The image has no program gunicorn",
    ),
    "an app that fails under a reloader": FailingProject(
        {
            "main.py": "import os\nfrom fastapi import FastAPI\n\napp = FastAPI()\nURL = os.environ['NOT_SET']\n",
            "requirements.txt": "fastapi\n",
        },
        "app_exited",
        "health",
        (r"waits for its code to change", r"KeyError: 'NOT_SET'"),
        "--env NOT_SET=",
    ),
    "an app that never opens its port": FailingProject(
        python("echo thinking about it; sleep 3600"),
        "port_not_opened",
        "health",
        (r"nothing listened on port 8000 within 60 s", r"thinking about it"),
        "Have the app listen on $PORT",
        line="thinking about it",
    ),
    "an app that opens another port": FailingProject(
        python("python3 -m http.server 9123"),
        "other_port_opened",
        "health",
        (r"^app: the plan says port 8000, but the app listens on port 9123$",),
        "set port=9123 for [app]",
        line="waiting for port 8000; open so far: 9123",
    ),
    "an app that answers with errors only": FailingProject(
        python(
            "python3 app.py",
            health="/ready",
            app="from http.server import *\n\n\nclass H(BaseHTTPRequestHandler):\n    def do_GET(self):\n"
            "        self.send_error(503, 'no such table')\n\n\nHTTPServer(('', 8000), H).serve_forever()\n",
        ),
        "health_check_failed",
        "health",
        (r"GET /ready on port 8000 failed for 60 s: status 503",),
        "another `health` path",
    ),
    "an app that needs too much memory": FailingProject(
        python("python3 hog.py", hog=HOG),
        "out_of_memory",
        "health",
        (r"`python3 hog\.py` was killed because the container ran out of memory",),
        "--memory",
    ),
}

SERVE = "HTTPServer(('127.0.0.1', 8000), SimpleHTTPRequestHandler).serve_forever()\n"
VERBOSE = {
    "100,000 lines": python(
        "python3 app.py",
        install="seq 1 100000",
        app="from http.server import *\n\nfor number in range(100_000):\n    print('line', number)\n" + SERVE,
    ),
    "a line of 10 MB": python(
        "python3 app.py",
        app="from http.server import *\n\nprint('A' * 10_000_000)\nprint('after it')\n" + SERVE,
    ),
}


@dataclass(frozen=True)
class Launch:
    """A launch in progress, and the user who started it."""

    user: Api
    session_id: str

    def follow(self) -> tuple[dict[str, Any], list[SseEvent]]:
        """Wait until the launch ends. Return the session as it is then, and all events."""
        events = list(self.user.events(self.session_id))
        return self.user.get(self.session_id), events


@pytest.fixture(scope="module")
def launched(new_user: Callable[[], Api], request: pytest.FixtureRequest) -> Iterator[dict[str, Launch]]:
    """The launches of all selected projects, started at once, each by a user of its own."""
    selected = [item for item in request.session.items if item.path == request.path and hasattr(item, "callspec")]
    cases = {case for item in selected if (case := item.callspec.params.get("case"))}
    projects = {case: FAILING[case].files if case in FAILING else VERBOSE[case] for case in sorted(cases)}
    launches: dict[str, Launch] = {}
    for case, files in projects.items():
        user = new_user()
        user.upload("failing", files)
        launches[case] = Launch(user, user.create(project_id="failing")["session_id"])
    yield launches
    for each in launches.values():
        each.user.end(each.session_id)


@pytest.mark.parametrize("case", FAILING)
def test_a_failed_launch_names_its_cause_and_leaves_nothing(
    launched: dict[str, Launch], docker_client: docker.DockerClient, case: str
) -> None:
    expected = FAILING[case]
    session, events = launched[case].follow()
    error = session["error"]
    assert session["status"] == "error", events[-5:]
    assert (error["code"], error["stage"]) == (expected.code, expected.stage), error
    for pattern in expected.patterns:
        assert re.search(pattern, error["message"], re.MULTILINE), error["message"]
    assert expected.hint in error["hint"]
    assert all(words not in error["message"] for words in expected.absent), error["message"]
    assert len(error["message"]) < 5000

    reported, end = events[-3], events[-1]
    assert (reported.event, {key: reported.data[key] for key in error}) == ("problem", error)
    assert (end.event, end.data["status"]) == ("end", "error")
    failed = [event.data for event in events if event.event == "stage" and event.data["state"] == "failed"]
    assert [data["stage"] for data in failed] == [expected.stage]
    lines = [event.data["line"] for event in events if event.event == "log"]
    assert expected.line is None or expected.line in lines
    log = launched[case].user.http.get(f"{SESSIONS}/{session['session_id']}/pipeline-log").text
    assert f"problem: {expected.code}: " in log

    launched[case].user.end(session["session_id"])
    label = {"label": f"sandbox.session_id={session['session_id']}"}
    assert docker_client.containers.list(all=True, filters=label) == []
    assert docker_client.volumes.list(filters=label) == []


@pytest.mark.parametrize("case", VERBOSE)
def test_an_app_with_much_output_is_launched_and_its_output_is_cut(launched: dict[str, Launch], case: str) -> None:
    user = launched[case].user
    session, events = launched[case].follow()
    assert session["status"] == "running", session["error"]
    app = [event.data for event in events if event.event == "log" and event.data["stage"] == "health"]
    printed = [data["line"] for data in app if data["stream"] == "stdout"]
    if case == "100,000 lines":
        # Of each command the first 5,000 lines are shown, then a line which says that there were more.
        assert printed == [f"line {number}" for number in range(5000)]
        assert "more output than is shown here" in next(data["line"] for data in app if data["stream"] == "system")
        installed = [event.data for event in events if event.event == "log" and event.data["stage"] == "dependencies"]
        install = [data["line"] for data in installed if data["stream"] == "stdout"]
        assert install == [str(number) for number in range(1, 5001)]
    else:
        assert printed == ["A" * 4096 + " … (line cut)", "after it"]
    assert [int(event.id or 0) for event in events] == list(range(1, len(events) + 1))
    with preview(user, session) as client:
        assert "Directory listing" in page(client)
    user.end(session["session_id"])


def test_the_service_goes_on_after_all_failed_launches(
    launched: dict[str, Launch], new_user: Callable[[], Api], strict_service: Service
) -> None:
    for each in launched.values():
        each.follow()
    user = new_user()
    session, _ = user.launch()
    assert session["status"] == "ready", session["error"]
    assert user.exec(session["session_id"], "echo still here")["stdout"] == "still here\n"
    user.end(session["session_id"])
    assert httpx.get(f"{strict_service.url}/readyz", trust_env=False).status_code == 200


def test_a_session_in_error_is_corrected_and_relaunched(new_user: Callable[[], Api]) -> None:
    user = new_user()
    user.upload("mended", python("python3 app.py", app="raise SystemExit('not yet')\n"))
    session, events = user.launch(project_id="mended")
    assert (session["status"], session["error"]["code"]) == ("error", "app_exited")
    assert "not yet" in session["error"]["message"]

    user.upload("mended", python("python3 -m http.server 8000"))
    assert user.http.post(f"{SESSIONS}/{session['session_id']}/relaunch").status_code == 202
    list(user.events(session["session_id"], last_event_id=int(events[-1].id or 0)))
    mended = user.get(session["session_id"])
    assert (mended["status"], mended["error"]) == ("running", None)
    user.end(session["session_id"])
