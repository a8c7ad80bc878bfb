"""What containers have for development, and the environment of commands and terminals."""

from __future__ import annotations

import asyncio
import json

import pytest
from websockets.asyncio.client import connect

from tests.acceptance.api import Api

VALUES = "echo $GREETING $BROWSER $HOSTNAME ${TZ} ${CI:-none} $LANG"
EXPECTED = "hello none 0.0.0.0 Etc/UTC none C.UTF-8"


@pytest.mark.parametrize("runtime", ["python312", "node20"])
def test_programs_and_environment_of_a_blank_session(user: Api, runtime: str) -> None:
    session, _ = user.launch(runtime_type=runtime, env={"GREETING": "hello"}, idle_timeout_seconds=600)
    ident = session["session_id"]
    missing = user.exec(
        ident, "for p in ps git curl less g++ make xdg-open; do command -v $p > /dev/null || echo $p; done"
    )
    assert missing["stdout"] == ""
    assert user.exec(ident, VALUES)["stdout"].strip() == EXPECTED
    assert user.exec(ident, VALUES, env={"GREETING": "moin"})["stdout"].startswith("moin ")
    headers = {"Accept": "text/event-stream"}
    streamed = user.http.post(f"/api/v1/sessions/{ident}/exec", json={"command": VALUES}, headers=headers)
    assert EXPECTED in streamed.text
    assert EXPECTED in asyncio.run(typed(user, ident, VALUES))
    megabytes = int(user.exec(ident, "df -m --output=size /dev/shm | tail -1")["stdout"])
    assert megabytes > 64
    user.end(ident)


async def typed(user: Api, session_id: str, command: str) -> str:
    """Return what a terminal shows until the shell has ended."""
    url = f"{user.url.replace('http', 'ws')}/api/v1/sessions/{session_id}/terminal"
    shown = b""
    async with connect(url, additional_headers={"Authorization": f"Bearer {user.token}"}, proxy=None) as socket:
        await socket.send(json.dumps({"resize": [200, 24]}))
        await socket.send(f"{command}; exit\n".encode())
        async for frame in socket:
            shown += frame if isinstance(frame, bytes) else b""
    return shown.decode()


def test_files_with_odd_names_and_links(user: Api) -> None:
    session, _ = user.launch(runtime_type="python312", idle_timeout_seconds=600)
    ident, path = session["session_id"], f"/api/v1/sessions/{session['session_id']}/files"
    user.exec(ident, "mkdir -p bad && printf one > $'bad/caf\\xe9.txt' && ln -s bad/plain.txt link")
    (item,) = user.http.get(path, params={"path": "bad"}).json()["items"]
    assert item["path"] == "bad/caf\ufffde9.txt"
    assert user.http.get(path, params={"path": item["path"]}).content == b"one"
    assert user.http.delete(path, params={"path": item["path"]}).status_code == 204
    assert user.http.put(path, params={"path": "link"}, content=b"through").status_code == 201
    assert user.exec(ident, "ls bad; cat bad/plain.txt; readlink link")["stdout"] == "plain.txt\nthroughbad/plain.txt\n"
    user.end(ident)
