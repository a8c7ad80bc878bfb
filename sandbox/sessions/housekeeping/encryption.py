"""Encrypts environments that an earlier release stored in plain text, and again those that an earlier key encrypts."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import text

from sandbox.db.connection import Database
from sandbox.domain.variables import SessionValues, withhold
from sandbox.secrets.environments import Environments

_BATCH = 50
#: Sessions that are over need no environment.
_FORGET = text("""
    UPDATE sandbox_sessions SET env = '{}', sealed = NULL, requested_plan = NULL
     WHERE status = 'terminated' AND (env <> '{}' OR sealed IS NOT NULL OR requested_plan IS NOT NULL)
""")
_PLAIN = text("""
    SELECT session_id, env, sealed, requested_plan, plan FROM sandbox_sessions
     WHERE status <> 'terminated'
       AND (env <> '{}' OR jsonb_path_exists(requested_plan, '$.*.env.* ? (@.type() == "string")')
            OR substring(sealed FROM 1 FOR :length) <> :head)
     LIMIT :limit FOR UPDATE SKIP LOCKED
""")
_SEAL = text("""
    UPDATE sandbox_sessions
       SET env = '{}', sealed = :sealed, requested_plan = CAST(:requested_plan AS jsonb), plan = CAST(:plan AS jsonb)
     WHERE session_id = :session_id
""")


async def encrypt_sessions(db: Database, environments: Environments) -> int:
    """Encrypt with the current key what is not; the number of sessions."""
    async with db.transaction() as conn:
        await conn.execute(_FORGET)
    head = environments.keys.current_head
    done = 0
    while True:
        async with db.transaction() as conn:
            rows = (await conn.execute(_PLAIN, {"head": head, "length": len(head), "limit": _BATCH})).all()
            for row in rows:
                await conn.execute(_SEAL, _sealed(row, environments))
        done += len(rows)
        if len(rows) < _BATCH:
            return done


def _sealed(row: Any, environments: Environments) -> dict[str, Any]:
    """The new values of a row's columns. Values of the requested plan are withheld from the plan that contains them."""
    requested, plan = row.requested_plan, row.plan
    values: dict[str, str] = {}
    for role, table in (requested or {}).items():
        if not table or not table.get("env"):
            continue
        table["env"], withheld = withhold(role, table["env"])
        values |= withheld
        for roles in ((plan or {}).get("roles", {}), (plan or {}).get("planned", {})):
            if role in roles:
                roles[role]["env"] = {**roles[role].get("env", {}), **table["env"]}
    if row.sealed is not None:
        sealed: bytes | None = environments.resealed(row.session_id, bytes(row.sealed))
    else:
        sealed = environments.seal(row.session_id, SessionValues(row.env, values))
    return {
        "session_id": row.session_id,
        "sealed": sealed,
        "requested_plan": json.dumps(requested) if requested is not None else None,
        "plan": json.dumps(plan) if plan is not None else None,
    }
