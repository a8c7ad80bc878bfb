"""Refused connections in the events of the sessions that tried them."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID, uuid4

from sandbox.domain.events import NewEvent
from sandbox.engine.base import Refusal
from sandbox.sessions.housekeeping.housekeeper import Housekeeper
from sandbox.sessions.housekeeping.refusals import MAX_LINES, REPORT_SECONDS, RefusalReports
from tests.fakes.world import World, one_role

SESSION = uuid4()


def refusal(attempts: int = 1, port: int = 22, session_id: UUID = SESSION) -> Refusal:
    return Refusal(session_id, "main", "10.0.0.5", port, "udp" if port == 53 else "tcp", attempts)


def lines(events: Sequence[NewEvent]) -> list[str]:
    return [event.data["line"] for event in events]


def test_a_first_refusal_is_reported_at_once_and_later_ones_are_added_up() -> None:
    reports = RefusalReports()
    first = reports.due([refusal()], 0.0)
    assert lines(first[SESSION]) == [
        "network: refused 10.0.0.5:22 (tcp), 1 attempt; the session's egress does not permit it"
    ]
    for second in range(1, 38):
        assert reports.due([refusal()], float(second)) == {}
    assert lines(reports.due([], REPORT_SECONDS)[SESSION]) == [
        "network: refused 10.0.0.5:22 (tcp), 37 attempts; the session's egress does not permit it"
    ]
    assert reports.due([], 10 * REPORT_SECONDS) == {}


def test_a_scan_of_ports_is_summed_up() -> None:
    events = RefusalReports().due([refusal(port=port) for port in range(100, 200)], 0.0)[SESSION]
    assert len(events) == MAX_LINES + 1
    assert lines(events)[-1] == "network: refused 90 more destinations, 90 attempts"


def test_sessions_are_reported_apart() -> None:
    other = uuid4()
    reports = RefusalReports()
    reports.due([refusal()], 0.0)
    assert set(reports.due([refusal(), refusal(port=53, session_id=other)], 1.0)) == {other}


async def test_a_refusal_is_an_event_of_its_session(world: World) -> None:
    session, gone = await world.launched(one_role()), uuid4()
    before = (await world.events(session))[-1].seq
    world.engine.refusals = [refusal(3, 53, session.session_id), refusal(session_id=gone)]
    await Housekeeper(world.db, world.engine, world.recovery(), world.environments, history_days=1)._report_refusals()
    added = (await world.events(session))[before:]
    assert [event.data for event in added] == [
        {
            "stage": "egress",
            "role": "main",
            "stream": "system",
            "line": "network: refused 10.0.0.5:53 (udp, name lookups), 3 attempts; "
            "the session's egress does not permit it",
        }
    ]
