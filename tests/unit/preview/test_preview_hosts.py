"""Names of preview hosts, as hostile as can be."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sandbox.domain.hosts import PreviewHost, host_name, is_below, parse_preview_host

DOMAIN = "preview.localhost"
ID = UUID("0b5e1c9e-7d2f-4a57-9d1c-3f9a6f1e2b44")


@given(st.uuids(), st.none() | st.integers(1, 65535), st.booleans(), st.none() | st.integers(0, 99999))
def test_what_is_made_is_read_back(session_id, port, upper, service_port):
    name = PreviewHost(session_id, port).name(DOMAIN)
    assert max(map(len, name.split("."))) <= 63
    authority = (name.upper() if upper else name) + (f":{service_port}" if service_port is not None else "")
    host = host_name(authority)
    assert host is not None
    assert parse_preview_host(host, DOMAIN) == PreviewHost(session_id, port)


@given(st.uuids(), st.none() | st.integers(1, 65535))
def test_the_hex_form_is_the_same_session(session_id, port):
    label = session_id.hex if port is None else f"{port}-{session_id.hex}"
    assert parse_preview_host(f"{label}.{DOMAIN}", DOMAIN) == PreviewHost(session_id, port)


@given(st.text(max_size=80) | st.from_regex(r"[0-9a-f.:-]{0,60}(\.preview\.localhost)?", fullmatch=True))
@example(f"{ID}.preview.localhost\n")
@example(f"{ID}.preview.localhost\0")
@example("\u0661-" + str(ID) + ".preview.localhost")
@example("K" * 300)
def test_anything_else_is_read_as_nothing_or_as_what_it_names(authority):
    name = host_name(authority)
    if name is None:
        return
    assert name.isascii()
    assert not set(name) & set("\r\n\0 /\\@?#%:")
    host = parse_preview_host(name, DOMAIN)
    if host is not None:
        assert is_below(name, DOMAIN)
        assert name.replace("-", "") == host.name(DOMAIN).replace("-", "")


@pytest.mark.parametrize(
    "authority",
    [
        "",
        "a b.preview.localhost",
        f"{ID}.preview.localhost:port",
        f"{ID}.preview.localhost:",
        f"{ID}.preview.localhost:80:80",
        f"user@{ID}.preview.localhost",
        f"{ID}.preview.localhost/path",
        f"{ID}.preview.localhost, other",
        f"{ID}.preview.localhost\r\nx: y",
        "[::1]:8000",
        "é.preview.localhost",
    ],
)
def test_what_is_no_host_name_is_none(authority):
    assert host_name(authority) is None


@pytest.mark.parametrize(
    "label",
    [
        "0-{id}",
        "00080-{id}",
        "65536-{id}",
        "99999-{id}",
        "123456-{id}",
        "-{id}",
        "80--{id}",
        "{id}-80",
        "a.{id}",
        "{id}.",
        "{id}{id}",
        "{{{id}}}",
        "{id}x",
        "",
        "preview",
    ],
)
def test_labels_that_name_no_session(label):
    assert parse_preview_host(f"{label.format(id=ID)}.{DOMAIN}", DOMAIN) is None


@pytest.mark.parametrize(
    "name", ["preview.localhost", "localhost", f"{ID}.xpreview.localhost", f"{ID}.preview.localhost.evil"]
)
def test_names_beside_the_domain_are_not_below_it(name):
    assert not is_below(name, DOMAIN)
    assert parse_preview_host(name, DOMAIN) is None


def test_the_domain_is_matched_whole_and_not_as_a_pattern():
    assert parse_preview_host(f"{uuid4()}.previewxlocalhost", DOMAIN) is None
