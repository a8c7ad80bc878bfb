"""The keys of a deployment, which are not in its database: a copy of the database opens and signs nothing.

They come from `SANDBOX_KEYS` or from the file `keys` of the data folder, which the first start makes. All replicas need
the same ones. The first key encrypts and signs; the others only decrypt and verify, so that a key can be replaced while
values of the earlier one are still stored.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import secrets
import stat
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sandbox.errors import SandboxError
from sandbox.secrets import files
from sandbox.settings import Settings

KEY_BYTES = 32
#: First byte of what is sealed; another form of it would begin with another one.
_VERSION = b"\x01"
_ID_BYTES = 4
_NONCE_BYTES = 12
_HEAD = len(_VERSION) + _ID_BYTES + _NONCE_BYTES


class KeysUnusable(SandboxError):
    """The keys of the deployment cannot be read, are malformed, or are not those of its database."""

    code = "keys_unusable"


class SealBroken(SandboxError):
    """A stored value cannot be decrypted: its key is not here, or it was changed or moved."""

    code = "value_unreadable"


class KeyRing:
    """Encrypts values and derives keys for signatures. Does no I/O; safe to share between threads."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """`keys` are of `KEY_BYTES` each, the current one first."""
        self._keys = list(keys)
        ids = [self._derive(key, "id")[:_ID_BYTES] for key in self._keys]
        ciphers = (AESGCM(self._derive(key, "encryption")) for key in self._keys)
        self._ciphers = dict(zip(ids, ciphers, strict=True))
        #: The beginning of what the current key seals.
        self.current_head = _VERSION + ids[0]

    def seal(self, content: bytes, place: str) -> bytes:
        """Encrypt a value. It can be decrypted only for the same `place`, such as the row that holds it."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        cipher = self._ciphers[self.current_head[len(_VERSION) :]]
        return self.current_head + nonce + cipher.encrypt(nonce, content, place.encode())

    def open(self, sealed: bytes, place: str) -> bytes:
        """Decrypt a value. Raises SealBroken."""
        cipher = self._ciphers.get(sealed[len(_VERSION) : len(_VERSION) + _ID_BYTES])
        if cipher is None or not sealed.startswith(_VERSION):
            raise SealBroken(
                "A stored value was encrypted with a key that is not here.",
                hint="Give the service all keys that it has had: SANDBOX_KEYS, or the file `keys` in SANDBOX_HOME.",
            )
        try:
            return cipher.decrypt(sealed[_HEAD - _NONCE_BYTES : _HEAD], sealed[_HEAD:], place.encode())
        except InvalidTag as error:
            raise SealBroken(
                "A stored value was changed in the database, or moved there.", hint="Store the value again."
            ) from error

    def digest(self, content: bytes, purpose: str) -> str:
        """A digest that cannot be computed without the current key."""
        return hmac.digest(self._derive(self._keys[0], purpose), content, "sha256").hex()

    def signing_keys(self, purpose: str) -> list[bytes]:
        """Keys for signatures, those of earlier keys first, the one to sign with last."""
        return [self._derive(key, purpose) for key in reversed(self._keys)]

    def checks(self) -> list[str]:
        """For each key, the current one first, a text by which it is recognised and from which it cannot be learned."""
        return [self._derive(key, "check").hex() for key in self._keys]

    @staticmethod
    def _derive(key: bytes, purpose: str) -> bytes:
        info = f"purple8-sandbox.{purpose}".encode()
        return HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=None, info=info).derive(key)


def key_path(home: Path) -> Path:
    """The file that holds the keys."""
    return home / "keys"


def generate_key() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(KEY_BYTES)).decode()


def parse_keys(content: str, source: str) -> KeyRing:
    """The keys in a text, separated by commas or white space, the current one first. Raises KeysUnusable."""
    try:
        keys = [base64.b64decode(word, altchars=b"-_", validate=True) for word in content.replace(",", " ").split()]
    except (binascii.Error, ValueError) as error:
        raise KeysUnusable(f"{source} has a key that is not base64.", hint=_FORM) from error
    if not keys or any(len(key) != KEY_BYTES for key in keys):
        raise KeysUnusable(f"{source} must hold keys of {KEY_BYTES} bytes in base64, at least one.", hint=_FORM)
    return KeyRing(keys)


_FORM = "Make one: head -c 32 /dev/urandom | base64"


async def load_keys(settings: Settings) -> KeyRing:
    """The keys of `SANDBOX_KEYS`, or else of the file, which is made if it is missing. Raises KeysUnusable."""
    if settings.keys is not None:
        return parse_keys(settings.keys, "SANDBOX_KEYS")
    return await asyncio.to_thread(_from_file, key_path(settings.home))


def add_key(home: Path) -> None:
    """Put a new key before those of the file; the service uses it from its next start. Blocks. Raises KeysUnusable."""
    path = key_path(home)
    try:
        earlier = path.read_text(encoding="utf-8") if path.exists() else ""
        files.replace(path, f"{generate_key()}\n{earlier}")
    except OSError as error:
        raise _unusable(path, error) from error


def _from_file(path: Path) -> KeyRing:
    try:
        content = files.read_or_generate(path, lambda: generate_key() + "\n")
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise _unusable(path, error) from error
    if mode & 0o077:
        raise KeysUnusable(f"{path} can be read by others (mode {mode:o}).", hint=f"chmod 600 {path}")
    return parse_keys(content, str(path))


def _unusable(path: Path, error: OSError) -> KeysUnusable:
    return KeysUnusable(
        f"{path} cannot be used: {error.strerror}.", hint="Make SANDBOX_HOME a folder this user may write to."
    )
