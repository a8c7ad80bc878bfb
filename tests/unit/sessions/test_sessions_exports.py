"""The rate limit of a session's records, and the assignment of containers to replicas."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from sandbox.records.otlp.outcome import Refused
from sandbox.sessions.exports.collector import share
from sandbox.sessions.exports.rate_limit import RateLimit, RateLimits
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


def send(limit: RateLimit, records: int, body_bytes: int = 0) -> Refused | None:
    admitted = limit.admit(body_bytes)
    if isinstance(admitted, Refused):
        return admitted
    if records > admitted:
        return limit.exceeded(records)
    limit.charge(body_bytes, records)
    return None


def code(outcome: Refused | int | None) -> str | None:
    return outcome.code if isinstance(outcome, Refused) else None


def test_a_refused_request_is_accepted_after_the_retry_time(clock: Clock) -> None:
    limits = RateLimits(600, clock=clock)
    limit = limits.of(SESSION)
    assert send(limit, 590) is None
    refused = send(limit, 54)  # one of them is charged by `admit`
    assert refused is not None
    assert (refused.code, refused.retry_after_seconds) == ("too_many_records", 5)
    clock.now += 4.4
    assert code(limit.check()) == "too_many_records"
    assert send(limits.of(OTHER), 600) is None
    clock.now += 0.2
    assert limit.check() is None
    assert send(limits.of(SESSION), 54) is None


def test_accepted_records_stay_below_the_rate_plus_one_burst(clock: Clock) -> None:
    limit = RateLimits(600, clock=clock).of(SESSION)
    accepted = 0
    for _ in range(1_000):
        clock.now += 0.6
        if send(limit, 37) is None:
            accepted += 37
    assert 600 * 10 * 0.9 <= accepted <= 600 + 600 * 10


def test_long_bodies_are_charged_by_length_before_they_are_parsed(clock: Clock) -> None:
    limits = RateLimits(600, clock=clock)
    assert send(limits.of(SESSION), 100, 300 * 1024) is None
    assert send(limits.of(SESSION), 299, 100 * 1024) is None
    assert code(limits.of(SESSION).admit(2 * 1024)) == "too_many_records"
    # Requests without records are charged too.
    for _ in range(600):
        assert send(limits.of(OTHER), 0) is None
    assert code(limits.of(OTHER).admit(0)) == "too_many_records"


def test_a_batch_larger_than_the_bucket_is_too_large(clock: Clock) -> None:
    limit = RateLimits(600, clock=clock).of(SESSION)
    assert code(send(limit, 601, 1024)) == "too_many_records_at_once"
    assert code(limit.admit(601 * 1024)) == "too_many_records_at_once"
    assert send(limit, 599) is None


def test_only_full_buckets_are_dropped_from_memory(clock: Clock) -> None:
    limits = RateLimits(600, clock=clock)
    for _ in range(1_200):
        send(limits.of(uuid4()), 600)
        clock.now += 0.01
    send(limits.of(SESSION), 600)
    for _ in range(1_200):
        clock.now += 0.01
        send(limits.of(uuid4()), 1)
    assert code(send(limits.of(SESSION), 600)) == "too_many_records"
    clock.now += 60
    limits.of(uuid4())
    assert len(limits._sessions) < 10


def sources(count: int) -> set[Source]:
    return {Source(UUID(int=number), "ada", UUID(int=1), "main", "c") for number in range(count)}


def test_each_container_is_assigned_to_one_live_replica() -> None:
    everything = sources(600)
    shares = {number: share(everything, {3, 5, 9}, number) for number in (3, 5, 9)}
    assert set.union(*shares.values()) == everything
    assert sum(map(len, shares.values())) == 600
    assert min(map(len, shares.values())) > 100
    assert share(everything, {3, 5, 9}, 4) == set()


def test_the_others_keep_their_containers_when_a_replica_goes() -> None:
    everything = sources(300)
    for number in (3, 5):
        assert share(everything, {3, 5, 9}, number) < share(everything, {3, 5}, number)
    assert share(everything, {3}, 3) == everything


def test_roles_of_a_session_are_fetched_by_the_same_replica() -> None:
    """All of a session's records then count against one rate limit."""
    session = {Source(SESSION, "ada", UUID(int=1), role, "c") for role in ("frontend", "backend", "worker")}
    assert {len(share(session, {1, 2, 3, 4}, number)) for number in (1, 2, 3, 4)} == {0, 3}
