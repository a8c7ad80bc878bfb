"""What the database has of the keys: which they are, and the signing key that earlier releases kept there."""

from __future__ import annotations

from sqlalchemy import text

from sandbox.db.connection import Database
from sandbox.secrets.keys import KeyRing, KeysUnusable

_PLACE = "deployment.telemetry_key"
_READ = text("SELECT key_check, signing_key, telemetry_key FROM deployment FOR UPDATE")
_WRITE = text("UPDATE deployment SET key_check = :check, signing_key = NULL, telemetry_key = :telemetry_key")
_HAS_SESSIONS = text("SELECT EXISTS (SELECT FROM sandbox_sessions WHERE status <> 'terminated')")


async def adopt_keys(db: Database, keys: KeyRing) -> bytes | None:
    """Make sure that these are the keys of this deployment, and take the signing key of earlier releases away.

    Containers that an earlier release made hold telemetry tokens that are signed with that key. It is kept encrypted
    while there are sessions, and verifies nothing else. Returns it, or None if it is not needed.

    Raises KeysUnusable if the database was used with other keys.
    """
    checks = keys.checks()
    async with db.transaction() as connection:
        row = (await connection.execute(_READ)).one()
        if row.key_check is not None and row.key_check not in checks:
            raise KeysUnusable(
                "The database was used with another key than the service has now.",
                hint="Replicas need the same keys: copy the file `keys` of SANDBOX_HOME, or set SANDBOX_KEYS. If the "
                "key is lost, so is what it encrypted: see `A lost key` in README.",
            )
        earlier: bytes | None = None
        if (await connection.execute(_HAS_SESSIONS)).scalar_one():
            if row.telemetry_key is not None:
                earlier = keys.open(bytes(row.telemetry_key), _PLACE)
            elif row.signing_key is not None:
                earlier = row.signing_key.encode()
        sealed = keys.seal(earlier, _PLACE) if earlier is not None else None
        await connection.execute(_WRITE, {"check": checks[0], "telemetry_key": sealed})
    return earlier
