"""The shortest way through the service: POST, events, a container that runs commands, and its removal."""

from __future__ import annotations

import socket

import docker
import pytest

from tests.acceptance.api import Api, problem

CONNECT = """python3 - <<'END'
import socket, struct
rows = [row.split() for row in open("/proc/net/route")][1:]
gateway = next(socket.inet_ntoa(struct.pack("<I", int(row[2], 16))) for row in rows if row[1] == "00000000")
try:
    print(socket.create_connection((gateway, %d), 5).recv(9))
except OSError as error:
    print(type(error).__name__)
END
"""


def test_blank_session_from_post_to_removal(admin: Api, docker_client: docker.DockerClient) -> None:
    session, events = admin.launch(runtime_type="python312")
    session_id = session["session_id"]
    label = {"label": f"sandbox.session_id={session_id}"}

    assert session["status"] == "ready"
    assert session["pipeline_stage"] == "workspace"
    assert [int(event.id or 0) for event in events] == list(range(1, len(events) + 1))
    assert events[-1].event == "end"
    stages = [(e.data["stage"], e.data["state"]) for e in events if e.event == "stage"]
    assert stages == [
        ("plan", "started"),
        ("plan", "completed"),
        ("network", "started"),
        ("network", "skipped"),
        ("containers", "started"),
        ("containers", "completed"),
        ("workspace", "started"),
        ("workspace", "skipped"),
    ]
    assert len(docker_client.containers.list(filters=label)) == 1

    result = admin.exec(session_id, "id -u; python3 --version; pwd")
    assert result["exit_code"] == 0
    user, program, version, folder = result["stdout"].split()
    assert (int(user) > 65_535, program, folder) == (True, "Python", "/workspace")
    assert version.startswith("3.12.")

    admin.end(session_id)
    assert docker_client.containers.list(all=True, filters=label) == []
    assert docker_client.volumes.list(filters=label) == []
    assert docker_client.networks.list(filters=label) == []
    assert list(admin.events(session_id, last_event_id=10_000)) == []


@pytest.mark.parametrize("egress", ["all", "none", ["198.51.100.0/24"]])
def test_the_host_is_not_reached_whatever_the_egress(admin: Api, egress: str | list[str]) -> None:
    session, _ = admin.launch(network={"egress": egress})
    assert (session["status"], session["network"]) == ("ready", {"egress": egress})
    with socket.create_server(("0.0.0.0", 0)) as listener:
        printed = admin.exec(session["session_id"], CONNECT % listener.getsockname()[1])["stdout"]
    assert printed.strip() in ("OSError", "ConnectionRefusedError", "TimeoutError")
    admin.end(session["session_id"])


def test_an_egress_that_means_nothing_is_refused(admin: Api) -> None:
    for egress in ("some", [], ["*.example.com"]):
        answer = admin.http.post("/api/v1/sessions", json={"network": {"egress": egress}})
        assert "egress" in problem(answer, 422, "invalid_input")["detail"]
