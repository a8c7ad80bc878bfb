"""Which headers pass, and how."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.errors import InvalidInput
from sandbox.preview.headers import (
    Framing,
    HeadersTooLarge,
    check_size,
    cookie_values,
    framing,
    handshake_headers,
    request_headers,
    response_headers,
    strip_cookie,
)

TOKEN_BYTES = st.binary(max_size=30).map(lambda raw: raw.translate(None, b";\r\n\0"))
NAMES = st.sampled_from([b"a", b"session", b"__sbx_preview", b"__sbx_preview2", b"x__sbx_preview", b""])
PAIRS = st.lists(st.tuples(NAMES, TOKEN_BYTES))


def scope(*headers: tuple[bytes, bytes], scheme: str = "http", client: object = ("10.0.0.7", 5)) -> dict[str, object]:
    return {"scheme": scheme, "client": client, "headers": [(b"host", b"h.preview.localhost:1"), *headers]}


def passed(*headers: tuple[bytes, bytes], consumed: frozenset[bytes] = frozenset()) -> list[tuple[bytes, bytes]]:
    return request_headers(scope(*headers), Framing(False, None), consumed=consumed, request_id="r1")


@given(PAIRS)
def test_our_cookie_is_taken_out_and_every_other_stays_as_it_was(pairs):
    header = b"; ".join(name + b"=" + value for name, value in pairs)
    left = strip_cookie(header)
    kept = [part.strip() for part in left.split(b";")] if left else []
    expected = [part.strip() for part in header.split(b";") if part.partition(b"=")[0].strip() != b"__sbx_preview"]
    assert [part for part in kept if part] == [part for part in expected if part]
    values = [value.strip() for name, value in pairs if name == b"__sbx_preview"]
    assert [value.encode("latin-1") for value in cookie_values([(b"cookie", header)])] == values


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"__sbx_preview=x", b""),
        (b"a=1; __sbx_preview=x; b=2", b"a=1; b=2"),
        (b"__sbx_preview=x; a=1", b"a=1"),
        (b"a=1;__sbx_preview=x", b"a=1"),
        (b"a=1; __sbx_preview = x; __sbx_preview=y", b"a=1"),
        (b'a="__sbx_preview=x"', b'a="__sbx_preview=x"'),
        (b"__sbx_preview", b""),
    ],
)
def test_cookie_stripping(before, after):
    assert strip_cookie(before) == after


def test_a_cookie_header_with_nothing_left_is_not_sent():
    assert not [name for name, _ in passed((b"cookie", b"__sbx_preview=x")) if name == b"cookie"]


def test_names_are_case_blind_and_order_and_repeats_stay():
    kept = passed((b"X-A", b"1"), (b"Connection", b"x-b"), (b"X-B", b"2"), (b"X-A", b"3"), (b"Transfer-Encoding", b"x"))
    assert kept[:3] == [(b"host", b"h.preview.localhost:1"), (b"X-A", b"1"), (b"X-A", b"3")]
    assert {name for name, _ in kept[3:]} == {
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
        b"x-request-id",
    }


@pytest.mark.parametrize(
    ("name", "value", "stays"),
    [
        (b"authorization", b"Bearer sbx_abc", False),
        (b"Authorization", b"bearer  sbx_abc", False),
        (b"authorization", b"Bearer abc", True),
        (b"authorization", b"Basic sbx_abc", True),
        (b"x-api-key", b"sbx_abc", False),
        (b"X-Api-Key", b" sbx_abc", False),
        (b"x-api-key", b"abc", True),
    ],
)
def test_our_tokens_stay_here(name, value, stays):
    assert ((name, value) in passed((name, value))) is stays


def test_credentials_that_were_used_here_stay_here():
    assert (b"x-api-key", b"abc") not in passed((b"x-api-key", b"abc"), consumed=frozenset({b"x-api-key"}))


@pytest.mark.parametrize(
    ("scheme", "proto"), [("http", b"http"), ("https", b"https"), ("ws", b"http"), ("wss", b"https")]
)
def test_forwarded_headers(scheme, proto):
    kept = dict(request_headers(scope(scheme=scheme), Framing(False, None), consumed=frozenset(), request_id="r1"))
    assert kept[b"x-forwarded-proto"] == proto
    assert kept[b"x-forwarded-for"] == b"10.0.0.7"
    assert kept[b"x-forwarded-host"] == kept[b"host"]
    assert kept[b"x-request-id"] == b"r1"


def test_a_client_without_an_address_is_unknown():
    kept = dict(request_headers(scope(client=None), Framing(False, None), consumed=frozenset(), request_id="r1"))
    assert kept[b"x-forwarded-for"] == b"unknown"


def test_a_handshake_leaves_what_the_websocket_client_writes():
    written = [(b"sec-websocket-key", b"k"), (b"sec-websocket-version", b"13"), (b"sec-websocket-extensions", b"e")]
    written += [(b"sec-websocket-protocol", b"p"), (b"origin", b"o"), (b"upgrade", b"websocket"), (b"connection", b"u")]
    kept = handshake_headers(scope(*written, (b"user-agent", b"ua")), consumed=frozenset(), request_id="r1")
    assert (b"user-agent", b"ua") in kept
    assert not {name for name, _ in kept} & {name for name, _ in [*written, (b"host", b"")]}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], Framing(False, None)),
        ([(b"content-length", b"0")], Framing(False, (b"content-length", b"0"))),
        ([(b"Content-Length", b"12")], Framing(True, (b"content-length", b"12"))),
        ([(b"transfer-encoding", b"Chunked")], Framing(True, (b"transfer-encoding", b"chunked"))),
    ],
)
def test_framing(headers, expected):
    assert framing(headers) == expected


@pytest.mark.parametrize(
    "headers",
    [
        [(b"content-length", b"1"), (b"transfer-encoding", b"chunked")],
        [(b"content-length", b"1"), (b"content-length", b"1")],
        [(b"content-length", b"-1")],
        [(b"content-length", b"1,1")],
        [(b"content-length", b"")],
        [(b"content-length", "\xb2".encode("latin-1"))],
        [(b"transfer-encoding", b"gzip, chunked")],
        [(b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"chunked")],
        [(b"transfer-encoding", b"\x0bchunked, x")],
    ],
)
def test_ambiguous_framing_is_refused(headers):
    with pytest.raises(InvalidInput) as refused:
        framing(headers)
    assert refused.value.code == "bad_request_framing"


def test_answers_lose_what_belongs_to_one_connection():
    headers = [(b"Connection", b"close, X-Hop"), (b"X-Hop", b"1"), (b"Transfer-Encoding", b"chunked"), (b"X-App", b"1")]
    assert response_headers(headers, status=200, request_id="r1") == [(b"X-App", b"1"), (b"x-request-id", b"r1")]


def test_the_apps_own_request_id_stays():
    assert response_headers([(b"X-Request-ID", b"a")], status=200, request_id="r1") == [(b"X-Request-ID", b"a")]


@pytest.mark.parametrize(("status", "stays"), [(200, True), (204, False), (304, False), (404, True)])
def test_a_length_without_a_body_is_not_promised(status, stays):
    kept = response_headers([(b"content-length", b"5")], status=status, request_id="r1")
    assert ((b"content-length", b"5") in kept) is stays


def test_header_size_counts_names_and_values():
    check_size([(b"ab", b"cd")], 4)
    with pytest.raises(HeadersTooLarge):
        check_size([(b"ab", b"cd")], 3)
