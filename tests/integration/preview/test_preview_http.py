"""HTTP through the proxy, between real servers."""

from __future__ import annotations


async def test_the_app_answers_on_the_host_of_its_session(world, client):
    session_id = world.session()
    answer = await client.get("/?a=1&b=%2F", headers=world.headers(session_id))
    assert (answer.status_code, answer.text) == (200, "hello from the app")
    assert answer.headers["x-app"] == "1"
    assert world.app.seen[0]["query_string"] == b"a=1&b=%2F"
    seen = dict(world.app.seen[0]["headers"])
    assert seen[b"host"] == world.host(session_id).encode()
    assert seen[b"x-forwarded-host"] == world.host(session_id).encode()
    assert seen[b"x-forwarded-for"] == b"127.0.0.1"
    assert seen[b"x-forwarded-proto"] == b"http"
    assert b"cookie" not in seen


async def test_first_half_arrives_before_the_second_is_sent(world, client):
    session_id = world.session()
    async with client.stream("GET", "/two-halves", headers=world.headers(session_id)) as answer:
        chunks = answer.aiter_bytes()
        assert await anext(chunks) == b"first"
        world.app.gate.set()
        assert await anext(chunks) == b"second"
