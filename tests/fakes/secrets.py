"""Keys that are the same in every test."""

from __future__ import annotations

from sandbox.access.signing import Signer
from sandbox.db.connection import Database
from sandbox.secrets.environments import Environments
from sandbox.secrets.keys import KEY_BYTES, KeyRing
from sandbox.secrets.service import SecretService

KEYS = KeyRing([b"k" * KEY_BYTES])


def signer(key: bytes = b"k") -> Signer:
    """A signer; two with the same key accept each other's signatures."""
    return Signer(KeyRing([key * KEY_BYTES]).signing_keys("signing"))


def environments(db: Database, keys: KeyRing = KEYS) -> Environments:
    return Environments(keys, SecretService(db, keys))
