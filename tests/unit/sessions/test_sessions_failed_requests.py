from __future__ import annotations

from uuid import uuid4

from sandbox.sessions.failed_requests import MOST_REQUESTS, FailedRequests


def test_the_latest_failed_requests_of_each_session_are_kept() -> None:
    failed, session, other = FailedRequests(), uuid4(), uuid4()
    for number in range(2 * MOST_REQUESTS):
        failed.note(session, "GET", f"/{number}", 500)
        failed.note(session, "GET", "/fine", 302)
        failed.note(session, "GET", "/given-up", 499)
    failed.note(other, "POST", "/x" * 1000, 404)
    kept = failed.of(session)
    assert [each.path for each in kept] == [f"/{99 - number}" for number in range(MOST_REQUESTS)]
    (only,) = failed.of(other)
    assert (only.method, only.status, len(only.path)) == ("POST", 404, 500)
    assert failed.of(uuid4()) == []
