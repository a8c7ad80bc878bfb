"""Keys: where they come from, what they encrypt, and how one replaces another."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

import pytest

from sandbox.secrets.keys import KeyRing, KeysUnusable, SealBroken, add_key, key_path, load_keys, parse_keys
from sandbox.settings import Settings

OLD, NEW = b"o" * 32, b"n" * 32


def test_a_value_can_be_read_at_its_own_place_only() -> None:
    keys = KeyRing([OLD])
    sealed = keys.seal(b"hush", "session 1")
    assert b"hush" not in sealed
    assert keys.open(sealed, "session 1") == b"hush"
    with pytest.raises(SealBroken):
        keys.open(sealed, "session 2")
    with pytest.raises(SealBroken):
        keys.open(sealed[:-1] + bytes([sealed[-1] ^ 1]), "session 1")
    assert keys.seal(b"hush", "session 1") != sealed


def test_an_earlier_key_still_decrypts_and_verifies() -> None:
    sealed = KeyRing([OLD]).seal(b"hush", "here")
    both = KeyRing([NEW, OLD])
    assert both.open(sealed, "here") == b"hush"
    assert not sealed.startswith(both.current_head)
    assert both.seal(b"hush", "here").startswith(both.current_head)
    old, new = (KeyRing([key]).signing_keys("signing") for key in (OLD, NEW))
    assert both.signing_keys("signing") == [*old, *new]
    with pytest.raises(SealBroken, match="key that is not here"):
        KeyRing([NEW]).open(sealed, "here")


def test_derived_keys_do_not_give_the_key_away() -> None:
    keys = KeyRing([OLD])
    derived = [*keys.signing_keys("signing"), *keys.signing_keys("other"), bytes.fromhex(keys.checks()[0])]
    assert len({OLD, *derived}) == 4


async def test_the_first_start_makes_a_file_that_only_the_service_can_read(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    first = await load_keys(settings)
    path = key_path(settings.home)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (await load_keys(settings)).checks() == first.checks()
    path.chmod(0o640)
    with pytest.raises(KeysUnusable, match="read by others"):
        await load_keys(settings)


async def test_a_key_is_replaced(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    sealed = (await load_keys(settings)).seal(b"hush", "here")
    add_key(tmp_path)
    keys = await load_keys(settings)
    assert keys.open(sealed, "here") == b"hush"
    assert not sealed.startswith(keys.current_head)
    assert stat.S_IMODE(key_path(tmp_path).stat().st_mode) == 0o600


async def test_keys_can_be_given(tmp_path: Path) -> None:
    given = ",".join(base64.b64encode(key).decode() for key in (NEW, OLD))
    settings = Settings(home=tmp_path, keys=given)
    assert (await load_keys(settings)).checks() == KeyRing([NEW, OLD]).checks()
    assert not key_path(tmp_path).exists()
    assert given not in repr(settings)


@pytest.mark.parametrize("content", ["", "short", "a" * 44, "!" * 44])
def test_malformed_keys_are_refused(content: str) -> None:
    with pytest.raises(KeysUnusable):
        parse_keys(content, "SANDBOX_KEYS")
