"""Links, pages and where to look for a port."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.domain.session import SessionError, SessionStatus
from sandbox.errors import GuestError, InvalidInput
from sandbox.preview import pages
from sandbox.preview.access import link_token, same_address, without_link
from sandbox.preview.router import HostRouter
from sandbox.preview.target import PreviewTarget

ID = UUID("0b5e1c9e-7d2f-4a57-9d1c-3f9a6f1e2b44")


def target(**changes: Any) -> PreviewTarget:
    fields: dict[str, Any] = {
        "session_id": ID,
        "user_id": "ann",
        "status": SessionStatus.RUNNING,
        "preview_port": 3000,
        "roles": ("backend", "frontend"),
        "port_roles": {3000: "frontend", 8000: "backend"},
    }
    return PreviewTarget(**(fields | changes))


@pytest.mark.parametrize(
    ("query", "token", "rest"),
    [
        (b"", None, b""),
        (b"_sbx=abc", "abc", b""),
        (b"a=1&_sbx=a%2Eb&b=%20", "a.b", b"a=1&b=%20"),
        (b"x_sbx=1&_sbxx=2", None, b"x_sbx=1&_sbxx=2"),
        (b"_sbx=1&_sbx=2", "1", b""),
        (b"_sbx", "", b""),
        (b"a;_sbx=1", None, b"a;_sbx=1"),
        (b"&&a", None, b"&&a"),
    ],
)
def test_the_link_in_a_query(query, token, rest):
    assert link_token(query) == token
    assert without_link(query) == rest


@given(st.binary(max_size=60))
def test_no_link_is_left_in_what_the_app_sees(query):
    assert link_token(without_link(query)) is None
    if link_token(query) is None:
        assert without_link(query) == query


@given(st.binary(min_size=1, max_size=60), st.binary(max_size=60))
def test_a_request_target_is_printable_ascii(path, query):
    made = same_address({"raw_path": b"/" + path, "path": "", "query_string": query})
    assert made.startswith(b"/")
    assert all(0x21 <= byte <= 0x7E for byte in made)


def test_a_target_stays_as_the_browser_sent_it():
    scope = {"raw_path": b"/a%20b/%2e%2e/;x=1/@!$'()*+,", "path": "", "query_string": b"q=%C3%BC&r[]=1|2"}
    assert same_address(scope) == b"/a%20b/%2e%2e/;x=1/@!$'()*+,?q=%C3%BC&r[]=1|2"


def test_a_planned_port_is_looked_for_in_its_role():
    assert target().candidates(8000) == ("backend",)


def test_another_port_is_looked_for_in_the_previewed_role_first():
    assert target().candidates(5173) == ("frontend", "backend")


def test_without_a_preview_the_order_of_the_plan_holds():
    assert target(preview_port=None, port_roles={}).candidates(5173) == ("backend", "frontend")


def render(answer: pages.Answer, accept: bytes) -> tuple[dict[str, str], str]:
    headers, body = answer.render({"headers": [(b"accept", accept)] if accept else []}, "r<1>")
    return {name.decode(): value.decode() for name, value in headers}, body.decode()


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        (b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True),
        (b"application/json, Text/HTML;q=0.5", True),
        (b"application/json", False),
        (b"*/*", False),
        (b"", False),
    ],
)
def test_browsers_get_a_page_and_others_a_problem(accept, html):
    headers, body = render(pages.not_found(), accept)
    assert headers["content-type"].startswith("text/html" if html else "application/problem+json")
    assert int(headers["content-length"]) == len(body.encode())
    if not html:
        assert json.loads(body)["request_id"] == "r<1>"


HOSTILE = st.text(alphabet=st.characters(codec="utf-8"), max_size=40).map(lambda text: text + "<script>\"'&$title")


@given(HOSTILE, HOSTILE, HOSTILE)
def test_nothing_in_a_page_is_markup_but_its_own(message, hint, stage):
    answer = pages.of_status(target(status=SessionStatus.ERROR, error=SessionError("c", message, hint, stage)))
    assert answer is not None
    _, body = render(answer, b"text/html")
    assert "<script" not in body
    assert body.count("$title") == 3


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (SessionStatus.TERMINATED, (410, "session_gone")),
        (SessionStatus.ERROR, (502, "session_error")),
        (SessionStatus.CREATING, (503, "preview_not_ready")),
    ],
)
def test_answers_by_status(status, expected):
    answer = pages.of_status(target(status=status))
    assert answer is not None
    assert (answer.status, answer.code) == expected


@pytest.mark.parametrize("status", [SessionStatus.READY, SessionStatus.RUNNING])
def test_a_session_that_is_up_says_nothing_itself(status):
    assert pages.of_status(target(status=status)) is None


def test_an_agent_out_of_reach_differs_from_a_closed_port():
    closed = pages.port_silent(target(), 3000, GuestError("x", code="port_not_open"))
    away = pages.port_silent(target(), 3000, GuestError("the socket is gone", hint="Recover it."))
    assert "3000" in closed.message
    assert "the socket is gone" in away.message
    assert away.hint == "Recover it."


def test_errors_keep_their_code_and_hint():
    answer = pages.of_error(InvalidInput("bad", code="bad_host", hint="Send one."))
    assert (answer.status, answer.code, answer.message, answer.hint) == (400, "bad_host", "bad", "Send one.")


@pytest.mark.parametrize(
    ("hosts", "to"),
    [
        ([], "main"),
        (["localhost:8000"], "main"),
        (["preview.localhost"], "main"),
        (["junk.preview.localhost"], "preview"),
        (["JUNK.PREVIEW.LOCALHOST.:80"], "preview"),
        (["localhost", "junk.preview.localhost"], "preview"),
        (["a b.preview.localhost"], "main"),
    ],
)
async def test_the_router_keeps_the_service_off_preview_hosts(hosts, to):
    called = []

    def app(name):
        async def run(scope, receive, send):
            called.append(name)

        return run

    async def unused(*_):
        raise AssertionError("the router itself neither receives nor sends")

    router = HostRouter(app("main"), app("preview"), "Preview.Localhost")
    headers = [(b"host", host.encode()) for host in hosts]
    for kind in ("http", "websocket"):
        await router({"type": kind, "headers": headers}, unused, unused)
    await router({"type": "lifespan"}, unused, unused)
    assert called == [to, to, "main"]
