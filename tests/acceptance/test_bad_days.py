"""Bad input and bad days: a clear cause with a stable code, nothing half-made, and a service that goes on."""

from __future__ import annotations

import gzip
import io
import json
import re
import stat
import tarfile
import uuid
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import docker
import httpx
import pytest

from tests.acceptance.api import Api, SseEvent, tar_of
from tests.acceptance.previews import page, preview
from tests.acceptance.service import ADMIN_TOKEN, Service

SESSIONS_EACH = 3


@pytest.fixture(scope="module")
def strict_service(make_service: Callable[..., Service]) -> Service:
    """A service that waits for little and gives little."""
    running = make_service(
        SANDBOX_INSTALL_TIMEOUT_SECONDS="30",
        SANDBOX_HEALTH_TIMEOUT_SECONDS="30",
        SANDBOX_MEMORY_MB="256",
        SANDBOX_MAX_UPLOAD_MB="1",
        SANDBOX_MAX_PROJECT_MB="8",
        SANDBOX_MAX_PROJECT_FILES="200",
        SANDBOX_MAX_BODY_KB="64",
        SANDBOX_MAX_SESSIONS_PER_USER=str(SESSIONS_EACH),
    )
    running.start()
    return running


@pytest.fixture(scope="module")
def strict_admin(strict_service: Service) -> Iterator[Api]:
    api = Api(strict_service.url, ADMIN_TOKEN)
    yield api
    api.http.close()


@pytest.fixture(scope="module")
def new_user(strict_admin: Api) -> Iterator[Callable[[], Api]]:
    made: list[Api] = []

    def make() -> Api:
        body = {"user_id": f"user-{uuid.uuid4().hex[:8]}", "role": "user"}
        made.append(Api(strict_admin.url, strict_admin.http.post("/api/v1/tokens", json=body).json()["token"]))
        return made[-1]

    yield make
    for api in made:
        api.http.close()


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The body of a refusal, which must be a problem with a cause and the request's id."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    body: dict[str, Any] = answer.json()
    assert (body["code"], body["status"]) == (code, status), body
    assert body["detail"]
    assert body["hint"]
    assert body["request_id"] == answer.headers["x-request-id"]
    return body


# --- Bad input -------------------------------------------------------------------------------------------------------

SESSIONS = "/api/v1/sessions"


@pytest.mark.parametrize(
    ("body", "field_name", "message"),
    [
        ({"projectid": "x"}, "projectid", "Extra inputs are not permitted"),
        ({"project_id": 7}, "project_id", "valid string"),
        ({"project_id": ""}, "project_id", "at least 1 character"),
        ({"env": ["A=1"]}, "env", "valid dictionary"),
        ({"env": {"NOT A NAME": "x"}}, "env", "cannot be the name of an environment variable"),
        ({"env": {"A": "nul \0"}}, "env", "NUL"),
        ({"idle_timeout_seconds": -1}, "idle_timeout_seconds", "greater than or equal to 0"),
        ({"max_lifetime_seconds": "soon"}, "max_lifetime_seconds", "valid integer"),
        ({"agents": [{"name": "x"}]}, "agents.0", "valid string"),
        ([], "body", "valid dictionary"),
    ],
)
def test_a_wrong_field_is_named(new_user: Callable[[], Api], body: Any, field_name: str, message: str) -> None:
    user = new_user()
    told = problem(user.http.post(SESSIONS, json=body), 422, "invalid_input")
    (error,) = told["errors"]
    assert error["field"] == field_name
    assert message in error["message"]
    assert field_name in told["detail"]
    assert user.http.get(SESSIONS).json()["items"] == []


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b'{"project_id": "x"', 400, "malformed_json"),
        (b"", 422, "invalid_input"),
        (b"\xff\xfe", 400, "malformed_json"),
        (b'{"env": {"A": "' + b"x" * 70_000 + b'"}}', 413, "body_too_large"),
        (b"[" * 60_000, 400, "malformed_request"),
    ],
)
def test_a_body_that_is_none(new_user: Callable[[], Api], content: bytes, status: int, code: str) -> None:
    headers = {"Content-Type": "application/json"}
    problem(new_user().http.post(SESSIONS, content=content, headers=headers), status, code)


def test_a_large_body_in_pieces_is_cut_off(new_user: Callable[[], Api]) -> None:
    pieces = (b'{"project_id": "', *(b"x" * 1024 for _ in range(200)), b'"}')
    headers = {"Content-Type": "application/json"}
    told = new_user().http.post(SESSIONS, content=iter(pieces), headers=headers)
    assert "65,536 bytes" in problem(told, 413, "body_too_large")["detail"]


def test_what_does_not_exist(new_user: Callable[[], Api]) -> None:
    user = new_user()
    told = problem(user.http.post(SESSIONS, json={"project_id": "nowhere"}), 404, "project_not_found")
    assert "'nowhere'" in told["detail"]
    told = problem(user.http.post(SESSIONS, json={"runtime_type": "cobol85"}), 422, "runtime_unknown")
    assert "node20" in told["hint"]
    nobody = uuid.uuid4()
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/relaunch"), ("GET", "/events"), ("GET", "/logs")):
        answer = user.http.request(method, f"{SESSIONS}/{nobody}{path}")
        assert str(nobody) in problem(answer, 404, "session_not_found")["detail"]
    assert problem(user.http.get(f"{SESSIONS}/not-a-uuid"), 422, "invalid_input")["errors"][0]["field"] == "session_id"
    problem(user.http.get("/api/v1/nothing"), 404, "route_not_found")
    problem(user.http.patch(SESSIONS), 405, "method_not_allowed")
    with httpx.Client(base_url=user.url, trust_env=False) as stranger:
        problem(stranger.post(SESSIONS, json={}), 401, "token_missing")


def test_a_user_has_so_many_sessions_and_no_more(new_user: Callable[[], Api]) -> None:
    user = new_user()
    made = [user.create()["session_id"] for _ in range(SESSIONS_EACH)]
    told = problem(user.http.post(SESSIONS, json={}), 429, "too_many_sessions")
    assert f"{SESSIONS_EACH} sessions" in told["detail"]
    user.end(made.pop())
    made.append(user.create()["session_id"])
    for session_id in made:
        user.end(session_id)


# --- Hostile archives ------------------------------------------------------------------------------------------------


def tar_with(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for member, content in members:
            member.size = len(content) if member.isreg() else 0
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zip_with(name: str, content: bytes, mode: int = stat.S_IFREG | 0o644) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        packed.writestr(info, content, zipfile.ZIP_DEFLATED)
    return out.getvalue()


GZIP, ZIP = "application/gzip", "application/zip"
INDEX = (member("index.html"), b"<h1>as if it were harmless</h1>")
HOSTILE = {
    "above": (GZIP, tar_with(INDEX, (member("../../etc/cron.d/x"), b"x")), 422, "archive_path_escapes"),
    "absolute": (GZIP, tar_with(INDEX, (member("/etc/passwd"), b"x")), 422, "archive_path_escapes"),
    "zip above": (ZIP, zip_with("a/../../x", b"x"), 422, "archive_path_escapes"),
    "link out": (GZIP, tar_with(INDEX, (member("l", tarfile.SYMTYPE, "../../etc"), b"")), 422, "archive_link_escapes"),
    "zip link out": (ZIP, zip_with("l", b"/etc/shadow", stat.S_IFLNK | 0o777), 422, "archive_link_escapes"),
    "hard link out": (
        GZIP,
        tar_with(INDEX, (member("l", tarfile.LNKTYPE, "/etc/shadow"), b"")),
        422,
        "archive_path_escapes",
    ),
    "device": (GZIP, tar_with(INDEX, (member("d", tarfile.BLKTYPE), b"")), 422, "archive_special_file"),
    "pipe": (GZIP, tar_with(INDEX, (member("p", tarfile.FIFOTYPE), b"")), 422, "archive_special_file"),
    "bomb": (GZIP, tar_with(INDEX, (member("zeros"), bytes(20_000_000))), 413, "archive_too_large"),
    "zip bomb": (ZIP, zip_with("zeros", bytes(20_000_000)), 413, "archive_too_large"),
    "so many": (GZIP, tar_of({f"{n}.html": "" for n in range(300)}), 413, "archive_too_many_files"),
    "cut off": (GZIP, tar_of({"index.html": b"<h1>" + uuid.uuid4().bytes * 200})[:-100], 422, "archive_unreadable"),
    "no gzip": (GZIP, b"this is text", 422, "archive_unreadable"),
    "no tar": (GZIP, gzip.compress(b"this is text"), 422, "archive_unreadable"),
    "no zip": (ZIP, b"PK\x03\x04 and nothing more", 422, "archive_unreadable"),
    "nothing": (GZIP, tar_with(), 422, "project_empty"),
    "too many bytes": (GZIP, bytes(1_100_000), 413, "upload_too_large"),
    "another type": ("application/x-7z-compressed", b"7z", 415, "archive_unsupported"),
    "no plan": (GZIP, tar_of({"README.md": "what is this?"}), 422, "plan_undetected"),
    "bad plan": (GZIP, tar_of({"sandbox.toml": "[web]\nport = 'eighty'\n"}), 422, "plan_invalid"),
    "bad runtime": (GZIP, tar_of({"sandbox.toml": "[web]\nruntime = 'ruby'\nstart = 'x'\n"}), 422, "plan_invalid"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused_and_nothing_of_it_kept(new_user: Callable[[], Api], name: str) -> None:
    user = new_user()
    content_type, archive, status, code = HOSTILE[name]
    answer = user.http.put("/api/v1/projects/p", content=archive, headers={"Content-Type": content_type})
    problem(answer, status, code)
    assert user.http.get("/api/v1/projects").json()["items"] == []
    problem(user.http.post(SESSIONS, json={"project_id": "p"}), 404, "project_not_found")


def test_a_refused_archive_leaves_the_project_as_it_was(new_user: Callable[[], Api]) -> None:
    user = new_user()
    before = user.upload("kept", {"index.html": "<h1>kept</h1>"})
    content_type, archive, status, code = HOSTILE["above"]
    answer = user.http.put("/api/v1/projects/kept", content=archive, headers={"Content-Type": content_type})
    problem(answer, status, code)
    assert user.http.get("/api/v1/projects/kept").json() == before


# --- Bad days --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BadDay:
    """A project whose launch cannot succeed, and what is said of it."""

    files: dict[str, str | bytes]
    code: str
    stage: str
    #: Patterns that the message matches.
    says: tuple[str, ...]
    hint: str
    #: A line that the launch told before it failed.
    line: str | None = None
    never: tuple[str, ...] = field(default=())


def python(start: str, install: str = "", **files: str) -> dict[str, str | bytes]:
    """A project of one role on port 8000."""
    plan = {"runtime": "python312", "install": install, "start": start}
    lines = [f"{key} = {json.dumps(value)}" for key, value in plan.items()]
    named = {f"{name}.py": text for name, text in files.items()}
    return {"sandbox.toml": "\n".join(["[app]", *lines, "port = 8000\n"]), **named}


HOG = "held = []\nwhile True:\n    held.append(bytearray(10_000_000))\n"
EXPRESS = {"server.js": "require('express')().listen(3000)"}
BAD_DAYS = {
    "a Python package that is not there": BadDay(
        {
            "main.py": "from fastapi import FastAPI\n\napp = FastAPI()\n",
            "requirements.txt": "fastapi\nno-such-package-of-anybody==9.9\n",
        },
        "dependency_install_failed",
        "dependencies",
        (r"backend: `uv venv .*` ended with exit code 1", r"Because no-such-package-of-anybody was not found"),
        "Correct what these lines name",
    ),
    "an npm package that is not there": BadDay(
        {"package.json": '{"dependencies": {"no-such-package-of-anybody": "1.0.0", "express": "4"}}', **EXPRESS},
        "dependency_install_failed",
        "dependencies",
        (r"`npm install` ended with exit code 1", r"404 .*no-such-package-of-anybody@1\.0\.0"),
        "Correct what these lines name",
        never=("A complete log of this run",),
    ),
    "a lock file that does not fit": BadDay(
        {
            "package.json": '{"name": "a", "version": "1.0.0", "dependencies": {"express": "4.18.2"}}',
            "package-lock.json": '{"name": "a", "version": "1.0.0", "lockfileVersion": 3, "packages": {"": {}}}',
            **EXPRESS,
        },
        "dependency_install_failed",
        "dependencies",
        (r"`npm ci` ended", r"in sync", r"Missing: express@4\.18\.2 from lock file"),
        "Correct what these lines name",
        never=("npm help", "--workspace"),
    ),
    "an install that hangs": BadDay(
        python("true", install="echo downloading the moon; sleep 3600"),
        "dependency_install_timeout",
        "dependencies",
        (r"not done after 30 s", r"downloading the moon"),
        "SANDBOX_INSTALL_TIMEOUT_SECONDS",
        line="downloading the moon",
    ),
    "an install that needs too much memory": BadDay(
        python("true", install="python3 hog.py", hog=HOG),
        "out_of_memory",
        "dependencies",
        (r"`python3 hog\.py` was killed because the container ran out of memory",),
        "SANDBOX_MEMORY_MB",
    ),
    "an app that exits at once": BadDay(
        python("python3 app.py", app="import nothing_of_that_name\n"),
        "app_exited",
        "health",
        (r"`python3 app\.py` ended with exit code 1 before it answered", r"No module named 'nothing_of_that_name'"),
        "Correct the app",
        line="ModuleNotFoundError: No module named 'nothing_of_that_name'",
    ),
    "an app that comes to its end": BadDay(
        python("true"),
        "app_exited",
        "health",
        (r"`true` ended with exit code 0 before it answered and printed nothing",),
        "in the foreground",
    ),
    "a program that is not installed": BadDay(
        python("gunicorn app:app"),
        "app_exited",
        "health",
        (r"gunicorn: command not found",),
        "Add the missing program",
    ),
    "an app that fails under a reloader": BadDay(
        {
            "main.py": "import os\nfrom fastapi import FastAPI\n\napp = FastAPI()\nURL = os.environ['NOT_SET']\n",
            "requirements.txt": "fastapi\n",
        },
        "app_exited",
        "health",
        (r"waits for its code to change", r"KeyError: 'NOT_SET'"),
        "Correct the app",
    ),
    "an app that never opens its port": BadDay(
        python("echo thinking about it; sleep 3600"),
        "port_not_opened",
        "health",
        (r"nothing listened on port 8000 within 30 s", r"thinking about it"),
        "Have the app listen on $PORT",
        line="thinking about it",
    ),
    "an app that opens another port": BadDay(
        python("python3 -m http.server 9123"),
        "other_port_opened",
        "health",
        (r"^app: the plan says port 8000, but the app listens on port 9123$",),
        "set port=9123 for [app]",
        line="waiting for port 8000; open so far: 9123",
    ),
    "an app that answers with errors only": BadDay(
        python(
            "python3 app.py",
            app="from http.server import *\n\n\nclass H(BaseHTTPRequestHandler):\n    def do_GET(self):\n"
            "        self.send_error(503, 'no such table')\n\n\nHTTPServer(('', 8000), H).serve_forever()\n",
        ),
        "health_check_failed",
        "health",
        (r"GET / on port 8000 failed for 30 s: status 503",),
        "another `health` path",
    ),
    "an app that needs too much memory": BadDay(
        python("python3 hog.py", hog=HOG),
        "out_of_memory",
        "health",
        (r"`python3 hog\.py` was killed because the container ran out of memory",),
        "SANDBOX_MEMORY_MB",
    ),
}

SERVE = "HTTPServer(('127.0.0.1', 8000), SimpleHTTPRequestHandler).serve_forever()\n"
TALKATIVE = {
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
class Under:
    """A launch under way, and who asked for it."""

    user: Api
    session_id: str

    def follow(self) -> tuple[dict[str, Any], list[SseEvent]]:
        """Wait for its end; the session then, and all events."""
        events = list(self.user.events(self.session_id))
        return self.user.get(self.session_id), events


@pytest.fixture(scope="module")
def launched(new_user: Callable[[], Api], request: pytest.FixtureRequest) -> Iterator[dict[str, Under]]:
    """The selected projects, all on their way at once, each of a user of its own."""
    here = [item for item in request.session.items if item.path == request.path and hasattr(item, "callspec")]
    days = {day for item in here if (day := item.callspec.params.get("day"))}
    projects = {day: BAD_DAYS[day].files if day in BAD_DAYS else TALKATIVE[day] for day in sorted(days)}
    under: dict[str, Under] = {}
    for day, files in projects.items():
        user = new_user()
        user.upload("bad-day", files)
        under[day] = Under(user, user.create(project_id="bad-day")["session_id"])
    yield under
    for each in under.values():
        each.user.end(each.session_id)


@pytest.mark.parametrize("day", BAD_DAYS)
def test_a_bad_day_names_its_cause_and_leaves_nothing(
    launched: dict[str, Under], docker_client: docker.DockerClient, day: str
) -> None:
    expected = BAD_DAYS[day]
    session, events = launched[day].follow()
    error = session["error"]
    assert session["status"] == "error", events[-5:]
    assert (error["code"], error["stage"]) == (expected.code, expected.stage), error
    for pattern in expected.says:
        assert re.search(pattern, error["message"], re.MULTILINE), error["message"]
    assert expected.hint in error["hint"]
    assert all(words not in error["message"] for words in expected.never), error["message"]
    assert len(error["message"]) < 5000

    told, end = events[-3], events[-1]
    assert (told.event, {key: told.data[key] for key in error}) == ("problem", error)
    assert (end.event, end.data["status"]) == ("end", "error")
    failed = [event.data for event in events if event.event == "stage" and event.data["state"] == "failed"]
    assert [data["stage"] for data in failed] == [expected.stage]
    lines = [event.data["line"] for event in events if event.event == "log"]
    assert expected.line is None or expected.line in lines
    log = launched[day].user.http.get(f"{SESSIONS}/{session['session_id']}/pipeline-log").text
    assert f"problem: {expected.code}: " in log

    launched[day].user.end(session["session_id"])
    label = {"label": f"sandbox.session_id={session['session_id']}"}
    assert docker_client.containers.list(all=True, filters=label) == []
    assert docker_client.volumes.list(filters=label) == []


@pytest.mark.parametrize("day", TALKATIVE)
def test_an_app_may_print_what_it_likes(launched: dict[str, Under], day: str) -> None:
    user = launched[day].user
    session, events = launched[day].follow()
    assert session["status"] == "running", session["error"]
    app = [event.data for event in events if event.event == "log" and event.data["stage"] == "health"]
    printed = [data["line"] for data in app if data["stream"] == "stdout"]
    if day == "100,000 lines":
        # Of each command the first 5,000, then a word that there is more.
        assert printed == [f"line {number}" for number in range(5000)]
        assert "more output than is shown here" in next(data["line"] for data in app if data["stream"] == "system")
        install = [e.data["line"] for e in events if e.event == "log" and e.data["stage"] == "dependencies"]
        assert install[1:5001] == [str(number) for number in range(1, 5001)]
    else:
        assert printed == ["A" * 4096 + " … (line cut)", "after it"]
    assert [int(event.id or 0) for event in events] == list(range(1, len(events) + 1))
    with preview(user, session) as client:
        assert "Directory listing" in page(client)
    user.end(session["session_id"])


def test_after_all_that_the_service_goes_on(
    launched: dict[str, Under], new_user: Callable[[], Api], strict_service: Service
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
