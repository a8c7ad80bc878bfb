"""Invalid input is refused with a stable code and a clear cause, and none of it is stored."""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import uuid
import zipfile
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.acceptance.api import SESSIONS, Api, problem, tar_of
from tests.acceptance.service import SESSIONS_PER_USER


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
    refusal = problem(user.http.post(SESSIONS, json=body), 422, "invalid_input")
    (error,) = refusal["errors"]
    assert error["field"] == field_name
    assert message in error["message"]
    assert field_name in refusal["detail"]
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
def test_a_body_that_is_not_json(new_user: Callable[[], Api], content: bytes, status: int, code: str) -> None:
    headers = {"Content-Type": "application/json"}
    problem(new_user().http.post(SESSIONS, content=content, headers=headers), status, code)


def test_a_large_body_in_chunks_is_refused(new_user: Callable[[], Api]) -> None:
    pieces = (b'{"project_id": "', *(b"x" * 1024 for _ in range(200)), b'"}')
    headers = {"Content-Type": "application/json"}
    refusal = new_user().http.post(SESSIONS, content=iter(pieces), headers=headers)
    assert "65,536 bytes" in problem(refusal, 413, "body_too_large")["detail"]


def test_unknown_projects_runtimes_and_sessions(new_user: Callable[[], Api]) -> None:
    user = new_user()
    refusal = problem(user.http.post(SESSIONS, json={"project_id": "nowhere"}), 404, "project_not_found")
    assert "'nowhere'" in refusal["detail"]
    refusal = problem(user.http.post(SESSIONS, json={"runtime_type": "cobol85"}), 422, "runtime_unknown")
    assert "node20" in refusal["hint"]
    unknown_id = uuid.uuid4()
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/relaunch"), ("GET", "/events"), ("GET", "/logs")):
        answer = user.http.request(method, f"{SESSIONS}/{unknown_id}{path}")
        assert str(unknown_id) in problem(answer, 404, "session_not_found")["detail"]
    assert problem(user.http.get(f"{SESSIONS}/not-a-uuid"), 422, "invalid_input")["errors"][0]["field"] == "session_id"
    problem(user.http.get("/api/v1/nothing"), 404, "route_not_found")
    problem(user.http.patch(SESSIONS), 405, "method_not_allowed")
    with httpx.Client(base_url=user.url, trust_env=False) as stranger:
        problem(stranger.post(SESSIONS, json={}), 401, "token_missing")


def test_the_number_of_sessions_per_user_is_limited(new_user: Callable[[], Api]) -> None:
    user = new_user()
    made = [user.create()["session_id"] for _ in range(SESSIONS_PER_USER)]
    refusal = problem(user.http.post(SESSIONS, json={}), 429, "too_many_sessions")
    assert f"{SESSIONS_PER_USER} sessions" in refusal["detail"]
    user.end(made.pop())
    made.append(user.create()["session_id"])
    for session_id in made:
        user.end(session_id)


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
}
#: The files of projects that are stored although their plan is not known, and the code of the problem.
UNPLANNED = {
    "no plan": ({"README.md": "what is this?"}, "plan_undetected"),
    "bad plan": ({"sandbox.toml": "[web]\nport = 'eighty'\n"}, "plan_invalid"),
    "bad runtime": ({"sandbox.toml": "[web]\nruntime = 'ruby'\nstart = 'x'\n"}, "plan_invalid"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused_and_not_stored(new_user: Callable[[], Api], name: str) -> None:
    user = new_user()
    content_type, archive, status, code = HOSTILE[name]
    answer = user.http.put("/api/v1/projects/p", content=archive, headers={"Content-Type": content_type})
    problem(answer, status, code)
    assert user.http.get("/api/v1/projects").json()["items"] == []
    problem(user.http.post(SESSIONS, json={"project_id": "p"}), 404, "project_not_found")


@pytest.mark.parametrize("name", UNPLANNED)
def test_a_project_without_a_known_plan_is_stored_and_not_launched(new_user: Callable[[], Api], name: str) -> None:
    user = new_user()
    files, code = UNPLANNED[name]
    answer = user.http.put("/api/v1/projects/p", content=tar_of(files), headers={"Content-Type": GZIP})
    assert answer.status_code == 201, answer.text
    assert (answer.json()["plan"], answer.json()["plan_problem"]["code"]) == (None, code)
    problem(user.http.post(SESSIONS, json={"project_id": "p"}), 422, code)


def test_a_refused_archive_does_not_change_the_project(new_user: Callable[[], Api]) -> None:
    user = new_user()
    before = user.upload("unchanged", {"index.html": "<h1>unchanged</h1>"})
    content_type, archive, status, code = HOSTILE["above"]
    answer = user.http.put("/api/v1/projects/unchanged", content=archive, headers={"Content-Type": content_type})
    problem(answer, status, code)
    assert user.http.get("/api/v1/projects/unchanged").json() == before
