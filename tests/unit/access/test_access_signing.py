"""Signed values are valid for one purpose, one session and a limited time only."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from sandbox.access import signing
from sandbox.access.signing import SignatureRefused, Signer
from sandbox.domain.caller import Caller, CallerRole, SignedInBy
from tests.fakes.secrets import signer as signer_of

SESSION = UUID("11111111-2222-4333-8444-555555555555")
TOKEN_ID = UUID("99999999-2222-4333-8444-555555555555")
CALLER = Caller("ada", CallerRole.USER, str(TOKEN_ID))


@pytest.fixture
def signer() -> Signer:
    return signer_of(b"a")


def test_signed_values_can_be_read(signer):
    browser = replace(CALLER, sign_in=bytes(range(32))).signed_in_by
    for by in (CALLER.signed_in_by, browser, SignedInBy("ada")):
        for reader in (signer, signer_of(b"a")):
            assert reader.read_preview(signer.sign_preview(SESSION, by), SESSION) == by


def test_a_value_is_refused_for_another_purpose(signer):
    with pytest.raises(SignatureRefused):
        signer.read_preview(signer.sign_exports(SESSION, "ada").removeprefix("sbxs_"), SESSION)


def test_a_sessions_token_is_stable_and_names_session_and_user(signer):
    token = signer.sign_exports(SESSION, "ada")
    assert signer.read_exports(token) == (SESSION, "ada")
    assert token == signer_of(b"a").sign_exports(SESSION, "ada")
    # It needs no quoting in the environment variable that carries it.
    assert re.fullmatch(r"sbxs_[A-Za-z0-9._-]+", token)


@pytest.mark.parametrize("change", ["", "x", "sbx_{}", "{}x", "sbxs_", "sbxs_{}", "sbxs_" + "x" * 5_000])
def test_other_values_are_refused_as_session_token(signer, change):
    good = signer.sign_exports(SESSION, "ada")
    for value in (change.format(good), change.format(good.removeprefix("sbxs_")), good.removeprefix("sbxs_")):
        if value != good:
            with pytest.raises(SignatureRefused):
                signer.read_exports(value)
    for other in (
        signer.sign_preview(SESSION, CALLER.signed_in_by),
        signer_of(b"b").sign_exports(SESSION, "ada"),
    ):
        with pytest.raises(SignatureRefused):
            signer.read_exports(other if other.startswith("sbxs_") else f"sbxs_{other}")


def test_preview_of_another_session_is_refused(signer):
    with pytest.raises(SignatureRefused, match="another session"):
        signer.read_preview(signer.sign_preview(SESSION, CALLER.signed_in_by), uuid4())


def test_expired_links_are_refused(signer, monkeypatch):
    value, now = signer.sign_preview(SESSION, CALLER.signed_in_by), time.time()
    monkeypatch.setattr(time, "time", lambda: now + signing.PREVIEW_LINK_SECONDS - 5)
    signer.read_preview(value, SESSION)
    monkeypatch.setattr(time, "time", lambda: now + signing.PREVIEW_LINK_SECONDS + 5)
    with pytest.raises(SignatureRefused, match="over"):
        signer.read_preview(value, SESSION)


@pytest.mark.parametrize(
    "change", [lambda v: v[:-2], lambda v: "x" + v, lambda v: "", lambda v: "ü", lambda v: v * 100]
)
def test_changed_values_are_refused(signer, change):
    with pytest.raises(SignatureRefused):
        signer.read_preview(change(signer.sign_preview(SESSION, CALLER.signed_in_by)), SESSION)


def test_another_key_is_refused(signer):
    with pytest.raises(SignatureRefused):
        signer_of(b"b").read_preview(signer.sign_preview(SESSION, CALLER.signed_in_by), SESSION)
