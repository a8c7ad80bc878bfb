"""Names of files as text that any client can read and send back."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.api.http.file_names import meant_name, shown_name


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"caf\xc3\xa9.txt", "caf\xe9.txt"),
        (b"caf\xe9.txt", "caf\ufffde9.txt"),
        ("\ufffd".encode(), "\ufffd\ufffd"),
        ("\ufffde9".encode(), "\ufffd\ufffde9"),
        (b"\xff\xfe", "\ufffdff\ufffdfe"),
    ],
)
def test_names(name: bytes, shown: str) -> None:
    assert shown_name(os.fsdecode(name)) == shown
    assert os.fsencode(meant_name(shown)) == name


@given(st.binary(max_size=60))
def test_every_name_leads_back_to_its_file(name: bytes) -> None:
    shown = shown_name(os.fsdecode(name))
    assert shown.encode().decode() == shown
    assert os.fsencode(meant_name(shown)) == name


def test_a_replacement_character_that_a_client_made_itself_stays() -> None:
    assert meant_name("a\ufffd.txt") == "a\ufffd.txt"
