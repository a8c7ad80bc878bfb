"""How many records a session may send, and which replica fetches them."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from sandbox.records.otlp.receiver import Limited
from sandbox.sessions.exports.allowance import Allowance, Allowances, BatchTooLarge
from sandbox.sessions.exports.collector import share
from sandbox.sessions.exports.store import Source

SESSION, OTHER = uuid4(), uuid4()


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def send(allowance: Allowance, records: int, body_bytes: int = 0) -> None:
    most = allowance.admit(body_bytes)
    if records > most:
        raise allowance.exceeded(records)
    allowance.charge(body_bytes, records)


def test_what_is_refused_is_taken_when_the_time_said_is_over(clock: Clock) -> None:
    allowances = Allowances(600, clock=clock)
    allowance = allowances.of(SESSION)
    send(allowance, 590)
    with pytest.raises(Limited) as refused:
        send(allowance, 54)  # of which one is counted before it is read
    assert refused.value.retry_after_seconds == 5
    clock.now += 4.4
    with pytest.raises(Limited):
        allowance.check()
    send(allowances.of(OTHER), 600)
    clock.now += 0.2
    allowance.check()
    send(allowances.of(SESSION), 54)


def test_over_any_time_no_more_than_the_rate_and_one_minute_at_once(clock: Clock) -> None:
    allowance = Allowances(600, clock=clock).of(SESSION)
    taken = 0
    for _ in range(1_000):
        clock.now += 0.6
        try:
            send(allowance, 37)
            taken += 37
        except Limited:
            pass
    assert 600 * 10 * 0.9 <= taken <= 600 + 600 * 10


def test_long_requests_count_by_their_length_before_they_are_read(clock: Clock) -> None:
    allowances = Allowances(600, clock=clock)
    send(allowances.of(SESSION), 100, 300 * 1024)
    send(allowances.of(SESSION), 299, 100 * 1024)
    with pytest.raises(Limited):
        allowances.of(SESSION).admit(2 * 1024)
    # Those of nothing at all count too.
    for _ in range(600):
        send(allowances.of(OTHER), 0)
    with pytest.raises(Limited):
        allowances.of(OTHER).admit(0)


def test_a_batch_that_never_fits_is_said_to_be_too_large(clock: Clock) -> None:
    allowance = Allowances(600, clock=clock).of(SESSION)
    with pytest.raises(BatchTooLarge):
        send(allowance, 601, 1024)
    with pytest.raises(BatchTooLarge):
        allowance.admit(601 * 1024)
    send(allowance, 599)


def test_sessions_with_their_whole_allowance_are_forgotten_and_others_are_not(clock: Clock) -> None:
    allowances = Allowances(600, clock=clock)
    for _ in range(1_200):
        send(allowances.of(uuid4()), 600)
        clock.now += 0.01
    send(allowances.of(SESSION), 600)
    for _ in range(1_200):
        clock.now += 0.01
        send(allowances.of(uuid4()), 1)
    with pytest.raises(Limited):
        send(allowances.of(SESSION), 600)
    clock.now += 60
    allowances.of(uuid4())
    assert len(allowances._sessions) < 10


def sources(count: int) -> set[Source]:
    return {Source(UUID(int=number), "ada", UUID(int=1), "main", "c") for number in range(count)}


def test_each_container_falls_to_one_of_the_living() -> None:
    everything = sources(600)
    shares = {number: share(everything, {3, 5, 9}, number) for number in (3, 5, 9)}
    assert set.union(*shares.values()) == everything
    assert sum(map(len, shares.values())) == 600
    assert min(map(len, shares.values())) > 100
    assert share(everything, {3, 5, 9}, 4) == set()


def test_when_a_replica_goes_the_others_keep_what_they_have() -> None:
    everything = sources(300)
    for number in (3, 5):
        assert share(everything, {3, 5, 9}, number) < share(everything, {3, 5}, number)
    assert share(everything, {3}, 3) == everything


def test_roles_of_a_session_are_fetched_by_the_same_replica() -> None:
    """So that its allowance is one."""
    session = {Source(SESSION, "ada", UUID(int=1), role, "c") for role in ("frontend", "backend", "worker")}
    assert {len(share(session, {1, 2, 3, 4}, number)) for number in (1, 2, 3, 4)} == {0, 3}
