"""The shortest way through the service: POST, events, a container that runs commands, and its removal."""

from __future__ import annotations

import docker

from tests.acceptance.api import Api


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
    assert result["stdout"].split() == ["1000", "Python", result["stdout"].split()[2], "/workspace"]
    assert result["stdout"].split()[2].startswith("3.12.")

    admin.end(session_id)
    assert docker_client.containers.list(all=True, filters=label) == []
    assert docker_client.volumes.list(filters=label) == []
    assert docker_client.networks.list(filters=label) == []
    assert list(admin.events(session_id, last_event_id=10_000)) == []
