"""Conversion of the engine's answers."""

from datetime import UTC, datetime
from uuid import UUID

from sandbox.engine.docker.states import container_state, parse_time, session_of
from sandbox.engine.labels import POOL_ROLE, container_name, container_owner

SESSION = UUID(int=7)
NAME = container_name(SESSION, "main")


def inspected(**state):
    return {
        "Id": "abc",
        "Name": f"/{NAME}",
        "State": {"Status": "running", "ExitCode": 0, "OOMKilled": False, "StartedAt": "0001-01-01T00:00:00Z"} | state,
        "Config": {"Labels": {}},
        "NetworkSettings": {"Networks": {"n": {"IPAddress": "10.0.0.2"}}},
    }


def test_a_running_container_has_no_exit_code():
    state = container_state(inspected())
    assert (state.name, state.status, state.exit_code, state.ip) == (NAME, "running", None, "10.0.0.2")
    assert (state.session_id, state.role, state.started_at) == (SESSION, "main", None)


def test_an_exited_container_has_exit_code_and_reason():
    found = inspected(Status="exited", ExitCode=137, OOMKilled=True)
    found["NetworkSettings"]["Networks"]["n"]["IPAddress"] = ""
    state = container_state(found)
    assert (state.exit_code, state.out_of_memory, state.ip) == (137, True, None)


def test_times_are_parsed_with_nanoseconds_and_time_zone():
    assert parse_time("2026-11-23T16:49:16.599067123Z") == datetime(2026, 11, 23, 16, 49, 16, 599067, UTC)
    assert parse_time("2026-11-23T18:49:16+02:00") == datetime(2026, 11, 23, 16, 49, 16, tzinfo=UTC)
    assert parse_time(None) is None


def test_a_label_that_is_no_uuid_gives_no_session():
    assert session_of({"sandbox.session_id": "nonsense"}) is None
    assert session_of(None) is None


def test_the_name_of_a_container_says_whose_it_is():
    assert container_owner(NAME) == (SESSION, "main")
    assert container_owner(container_name(SESSION, "front-end")) == (SESSION, "front-end")
    assert container_owner(container_name(SESSION, POOL_ROLE)) == (SESSION, POOL_ROLE)
    for other in (
        "",
        "sbx",
        f"sbx-{SESSION.hex}",
        f"sbx-{SESSION.hex}-",
        f"sbx-{SESSION}-main",
        f"x-{SESSION.hex}-main",
    ):
        assert container_owner(other) is None
