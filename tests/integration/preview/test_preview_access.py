"""Who may look, and what everybody else is told."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from sandbox.domain.caller import SignedInBy
from sandbox.domain.session import SessionError, SessionStatus
from sandbox.errors import DatabaseUnavailable

HTML = "text/html,application/xhtml+xml,*/*;q=0.8"


def told(answer):
    """An answer without what differs each time."""
    body = answer.json()
    body.pop("request_id")
    headers = {name: value for name, value in answer.headers.items() if name not in ("date", "x-request-id", "server")}
    return answer.status_code, body, headers


async def test_a_link_becomes_a_cookie_and_leaves_the_address(world, client):
    session_id = world.session()
    link = world.signer.sign_preview(session_id, SignedInBy("ann"))
    first = await client.get(f"/page?a=1&_sbx={link}&b=2", headers={"host": world.host(session_id)})
    assert (first.status_code, first.headers["location"]) == (302, "/page?a=1&b=2")
    assert first.headers["cache-control"] == "no-store"
    cookie, *attributes = first.headers["set-cookie"].split("; ")
    assert attributes == ["Path=/", "HttpOnly", "SameSite=Lax"]
    second = await client.get("/page?a=1&b=2", headers={"host": world.host(session_id), "cookie": f"app=1; {cookie}"})
    assert second.text == "hello from the app"
    assert dict(world.app.seen[0]["headers"])[b"cookie"] == b"app=1"


async def test_a_link_or_token_that_has_ended_opens_nothing(world, client):
    session_id = world.session()
    host = {"host": world.host(session_id)}
    world.store.refuses = True
    link = world.signer.sign_preview(session_id, SignedInBy("ann"))
    for method in ("GET", "POST"):
        answer = await client.request(method, f"/?_sbx={link}", headers=host)
        assert answer.status_code == 404
        assert "set-cookie" not in answer.headers
    assert world.app.seen == []


async def test_in_a_frame_of_the_console_the_cookie_is_partitioned(world, client):
    session_id = world.session()
    link = world.signer.sign_preview(session_id, SignedInBy("ann"))
    framed = {"sec-fetch-dest": "iframe", "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    answer = await client.get(f"/?_sbx={link}", headers={"host": world.host(session_id)} | framed)
    assert answer.headers["set-cookie"].endswith("; Path=/; HttpOnly; SameSite=None; Secure; Partitioned")


@pytest.mark.parametrize("path", ["//evil.example/x", "/\\evil.example/x", "///evil.example"])
async def test_the_redirect_never_leaves_the_host(world, path):
    session_id = world.session()
    link = world.signer.sign_preview(session_id, SignedInBy("ann"))
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    writer.write(f"GET {path}?_sbx={link} HTTP/1.1\r\nhost: {world.host(session_id)}\r\n\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    writer.close()
    location = next(line for line in head.splitlines() if line.lower().startswith("location:")).split(": ")[1]
    assert location.startswith("/")
    assert not location.startswith(("//", "/\\"))


async def test_a_post_with_a_link_passes_without_it(world, client):
    session_id = world.session()
    link = world.signer.sign_preview(session_id, SignedInBy("ann"))
    answer = await client.post(f"/echo?_sbx={link}", content=b"body", headers={"host": world.host(session_id)})
    assert answer.text == "POST 4 body"
    assert world.app.seen[0]["query_string"] == b""


async def test_an_old_link_with_a_good_cookie_still_opens(world, client):
    session_id = world.session()
    answer = await client.get("/page?_sbx=expired", headers=world.headers(session_id))
    assert (answer.status_code, answer.headers["location"]) == (302, "/page")
    assert "set-cookie" not in answer.headers


async def test_whatever_is_not_yours_looks_like_nothing(world, client):
    """No session, somebody else's, no credentials, forged or expired ones: one and the same answer."""
    session_id = world.session(user_id="bob")
    over = world.session(user_id="bob", status=SessionStatus.TERMINATED)
    failed = world.session(user_id="bob", status=SessionStatus.ERROR)
    mine = world.session()
    nothing = told(await client.get("/", headers={"host": world.host(uuid4())}))
    assert nothing[0] == 404
    assert nothing[1]["code"] == "not_found"
    for wanted in (session_id, over, failed, uuid4()):
        for headers in (
            {},
            {"cookie": world.cookie(mine)},
            {"cookie": "__sbx_preview=forged"},
            {"authorization": "Bearer sbx_ann"},
            {"x-api-key": "sbx_ann"},
            {"x-api-key": "sbx_nobody"},
            {"authorization": "Basic eDp5"},
        ):
            answer = await client.get("/", headers={"host": world.host(wanted)} | headers)
            assert told(answer) == nothing
        for link in (world.signer.sign_preview(mine, SignedInBy("ann")), "forged", ""):
            assert told(await client.get(f"/?_sbx={link}", headers={"host": world.host(wanted)})) == nothing
    assert world.app.seen == []


async def test_an_expired_link_looks_like_nothing_and_says_how_to_go_on(world, client):
    session_id = world.session()
    link = world.signer.sign_preview(session_id, SignedInBy("ann"))
    world.signer.link_seconds = -1
    answer = await client.get(f"/?_sbx={link}", headers={"host": world.host(session_id), "accept": HTML})
    assert answer.status_code == 404
    assert "Open the preview again from the console" in answer.text


@pytest.mark.parametrize("name", ["x", "0-{id}", "65536-{id}", "{id}x", "a.{id}", "-{id}", "80-80-{id}", "{id}-80"])
async def test_hosts_that_name_no_preview_look_like_nothing(world, client, name):
    session_id = world.session()
    host = name.format(id=session_id) + ".preview.localhost"
    answer = await client.get("/", headers=world.headers(session_id) | {"host": host})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("credential", [{"x-api-key": "sbx_ann"}, {"authorization": "bearer sbx_ann"}])
async def test_a_token_of_the_api_opens_a_preview_and_stays_here(world, client, credential):
    session_id = world.session()
    answer = await client.get("/", headers={"host": world.host(session_id)} | credential)
    assert answer.text == "hello from the app"
    assert not {b"authorization", b"x-api-key"} & set(dict(world.app.seen[0]["headers"]))


async def test_a_token_of_any_form_that_opens_a_preview_stays_here(world, client):
    session_id = world.session()
    await client.get("/", headers={"host": world.host(session_id), "authorization": "Bearer operator-secret"})
    assert b"authorization" not in dict(world.app.seen[0]["headers"])


async def test_the_apps_own_credentials_pass_and_ours_never_do(world, client):
    headers = world.headers(world.session())
    own = {"authorization": "Bearer of-the-app", "x-api-key": "of-the-app"}
    await client.get("/", headers=headers | own)
    await client.get("/", headers=headers | {"authorization": "Bearer sbx_ann", "x-api-key": "sbx_ann"})
    first, second = (dict(scope["headers"]) for scope in world.app.seen)
    assert (first[b"authorization"], first[b"x-api-key"]) == (b"Bearer of-the-app", b"of-the-app")
    assert not {b"authorization", b"x-api-key"} & set(second)


async def test_both_kinds_of_credentials_ours_and_the_apps_in_one_request(world, client):
    session_id = world.session()
    both = {"x-api-key": "sbx_ann", "authorization": "Bearer of-the-app"}
    await client.get("/", headers={"host": world.host(session_id)} | both)
    seen = dict(world.app.seen[0]["headers"])
    assert seen[b"authorization"] == b"Bearer of-the-app"
    assert b"x-api-key" not in seen


async def test_a_cookie_tossed_by_a_sibling_does_not_lock_out(world, client):
    session_id, sibling = world.session(), world.session(user_id="eve")
    tossed = f"{world.cookie(sibling)}; __sbx_preview=junk; {world.cookie(session_id)}; app=1"
    answer = await client.get("/", headers={"host": world.host(session_id), "cookie": tossed})
    assert answer.text == "hello from the app"
    assert dict(world.app.seen[0]["headers"])[b"cookie"] == b"app=1"


async def test_the_app_cannot_set_our_cookie(world, client):
    answer = await client.get("/theft", headers=world.headers(world.session()))
    assert answer.headers.get_list("set-cookie") == ["app_preview=evil; Path=/", "mine=1"]


async def test_the_cookie_counts_for_the_sessions_own_pages_only(world, client):
    session_id, attacker = world.session(), world.session(user_id="eve")
    own, foreign = f"http://{world.host(session_id)}", f"http://{world.host(attacker)}"
    own_other_port = f"http://{world.host(session_id, 8000)}"
    refused = [
        ("GET", {"origin": foreign}),
        ("POST", {"origin": foreign, "sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors"}),
        ("POST", {"origin": foreign, "sec-fetch-site": "same-site", "sec-fetch-mode": "navigate"}),
        ("GET", {"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "script"}),
        ("GET", {"origin": "null", "sec-fetch-site": "cross-site", "sec-fetch-mode": "cors"}),
        ("POST", {"origin": "http://evil.example"}),
    ]
    allowed = [
        ("POST", {"origin": own}),
        ("POST", {"origin": own, "sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}),
        ("POST", {"origin": own_other_port, "sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}),
        ("GET", {"sec-fetch-site": "same-origin", "sec-fetch-mode": "no-cors"}),
        ("GET", {"sec-fetch-site": "none", "sec-fetch-mode": "navigate"}),
        ("GET", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}),
    ]
    for method, headers in refused:
        answer = await client.request(method, "/echo", headers=world.headers(session_id) | headers)
        assert answer.status_code == 404, (method, headers)
    assert world.app.seen == []
    for method, headers in allowed:
        answer = await client.request(method, "/echo", headers=world.headers(session_id) | headers)
        assert answer.status_code == 200, (method, headers)


async def test_a_session_that_is_over_is_gone(world, client):
    headers = world.headers(world.session(status=SessionStatus.TERMINATED))
    problem = await client.get("/", headers=headers)
    assert (problem.status_code, problem.json()["code"]) == (410, "session_gone")
    assert problem.headers["content-type"] == "application/problem+json"
    page = await client.get("/", headers=headers | {"accept": HTML})
    assert (page.status_code, page.headers["content-type"]) == (410, "text/html; charset=utf-8")
    assert "This session is over" in page.text
    assert "refresh" not in page.text


@pytest.mark.parametrize(
    ("changes", "stage"),
    [
        ({"status": SessionStatus.CREATING, "pipeline_stage": "dependencies"}, "dependencies"),
        ({"status": SessionStatus.READY, "preview_port": None}, None),
        ({"preview_port": 1, "port_roles": {1: "main"}, "pipeline_stage": "preview"}, "preview"),
    ],
)
async def test_an_app_that_is_not_up_says_so_and_retries(world, client, changes, stage):
    headers = world.headers(world.session(**changes))
    problem = await client.get("/", headers=headers)
    assert (problem.status_code, problem.json()["code"]) == (503, "preview_not_ready")
    assert problem.json().get("stage") == stage
    assert problem.headers["retry-after"] == "2"
    page = await client.get("/", headers=headers | {"accept": HTML})
    assert page.status_code == 503
    assert '<meta http-equiv="refresh" content="2">' in page.text
    assert (f"<b>{stage}</b>" in page.text) == (stage is not None)
    assert "default-src 'none'" in page.headers["content-security-policy"]


async def test_an_agent_that_does_not_answer_in_time_is_not_waited_for(world, client):
    session_id = world.session()
    world.sessions.agents[session_id, "main"].hangs = True
    answer = await client.get("/", headers=world.headers(session_id))
    assert (answer.status_code, answer.json()["code"]) == (503, "preview_not_ready")
    assert "within 1 s" in answer.json()["detail"]


async def test_a_blank_session_shows_a_server_started_in_it(world, client):
    session_id = world.session(status=SessionStatus.READY, preview_port=None, port_roles={})
    answer = await client.get("/", headers=world.headers(session_id, world.app_port))
    assert answer.text == "hello from the app"


async def test_a_failed_session_names_the_cause(world, client):
    error = SessionError(
        "dependency_install_failed", "no such package: <b>left-pad</b>", "Fix package.json", "dependencies"
    )
    headers = world.headers(world.session(status=SessionStatus.ERROR, error=error))
    problem = (await client.get("/", headers=headers)).json()
    assert (problem["status"], problem["code"]) == (502, "dependency_install_failed")
    assert (problem["detail"], problem["hint"], problem["stage"]) == (error.message, error.hint, "dependencies")
    page = await client.get("/", headers=headers | {"accept": HTML})
    assert page.status_code == 502
    assert "&lt;b&gt;left-pad&lt;/b&gt;" in page.text
    assert "<b>left-pad" not in page.text


async def test_a_database_that_does_not_answer_is_said_so(world, client):
    session_id = world.session()
    world.sessions.failure = DatabaseUnavailable("PostgreSQL does not answer", hint="Start it.")
    answer = await client.get("/", headers=world.headers(session_id))
    assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
    world.sessions.failure = None
    assert (await client.get("/", headers=world.headers(session_id))).status_code == 200


async def test_the_app_and_the_client_see_one_request_id(world, client):
    headers = world.headers(world.session())
    answer = await client.get("/", headers=headers | {"x-request-id": "claimed"})
    seen = dict(world.app.seen[0]["headers"])[b"x-request-id"].decode()
    assert seen == answer.headers["x-request-id"] != "claimed"
