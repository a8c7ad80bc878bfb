"""SQL of the agents' memory: entries, their history, and who may use a namespace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from psycopg.types.json import Jsonb
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from sandbox.db.connection import Database
from sandbox.db.tables import Condition, Row, Table

MEMORY = Table(
    "agent_memory",
    ("namespace", "key", "value", "version", "agent_name", "written_by", "expires_at", "created_at", "updated_at"),
    time="updated_at",
    keys={"key": "text"},
)
HISTORY = Table(
    "agent_memory_history",
    ("change_id", "namespace", "key", "version", "value", "removed", "agent_name", "written_by", "changed_at"),
    keys={"change_id": "bigint"},
    between="changed_at",
)
NAMESPACES = Table(
    "memory_namespaces",
    ("namespace", "owner", "access", "created_at"),
    keys={"namespace": "text"},
    between="created_at",
)

#: Expired entries do not exist for readers.
NOT_EXPIRED: Condition = ("(expires_at IS NULL OR expires_at > NOW())", {})

#: The namespace is taken once: of two first writers one is the owner.
_CLAIM = text("""
    INSERT INTO memory_namespaces (namespace, owner)
    SELECT CAST(:namespace AS varchar), :owner
     WHERE NOT EXISTS (SELECT FROM agent_memory WHERE namespace = CAST(:namespace AS varchar))
        ON CONFLICT DO NOTHING
""")
_SHARE = text(f"""
    INSERT INTO memory_namespaces (namespace, owner, access) VALUES (:namespace, :owner, :access)
        ON CONFLICT (namespace) DO UPDATE SET owner = excluded.owner, access = excluded.access
    RETURNING {", ".join(NAMESPACES.columns)}
""")
_NAMESPACE = text(f"SELECT {', '.join(NAMESPACES.columns)} FROM memory_namespaces WHERE namespace = :namespace")
_LOCK = text("""
    SELECT CASE WHEN expires_at <= NOW() THEN 0 ELSE version END AS version
      FROM agent_memory WHERE namespace = :namespace AND key = :key FOR UPDATE
""")
#: An expired entry counts as absent: the new one starts at version 1.
_WRITE = text(f"""
    INSERT INTO agent_memory AS memory (namespace, key, value, agent_name, written_by, expires_at)
    VALUES (:namespace, :key, :value, :agent_name, :written_by,
            NOW() + make_interval(secs => CAST(:ttl_seconds AS double precision)))
        ON CONFLICT (namespace, key) DO UPDATE
       SET value = excluded.value, agent_name = excluded.agent_name, written_by = excluded.written_by,
           expires_at = excluded.expires_at,
           version = CASE WHEN memory.expires_at <= NOW() THEN 1 ELSE memory.version + 1 END,
           created_at = CASE WHEN memory.expires_at <= NOW() THEN NOW() ELSE memory.created_at END
     WHERE CAST(:expected AS bigint) IS NULL
        OR :expected = CASE WHEN memory.expires_at <= NOW() THEN 0 ELSE memory.version END
    RETURNING {", ".join(MEMORY.columns)}
""")
#: With what a row itself takes, so that many small values count as well.
SPACE_OF_USER = text("""
    SELECT coalesce(sum(pg_column_size(value) + 100), 0)
      FROM (SELECT namespace, value FROM agent_memory UNION ALL
            SELECT namespace, value FROM agent_memory_history WHERE NOT removed) AS stored
     WHERE namespace IN (SELECT namespace FROM memory_namespaces WHERE owner = :user_id)
""")
_DELETE = text("DELETE FROM agent_memory WHERE namespace = :namespace AND key = :key")


def matching(query: str) -> Condition:
    """The condition for entries whose key or value matches the query."""
    return (
        "search @@ (websearch_to_tsquery('english', :words) || websearch_to_tsquery('simple', :words))",
        {"words": query},
    )


def beginning_with(prefix: str) -> Condition:
    """The condition for entries whose key begins so."""
    return "starts_with(key, :prefix)", {"prefix": prefix}


def usable_by(user_id: str) -> Condition:
    """The condition for namespaces that the user may at least read."""
    return "(owner = :user OR access <> 'none')", {"user": user_id}


async def namespace(conn: AsyncConnection, name: str) -> Row | None:
    """Owner and access of a namespace; None if it belongs to the admins."""
    row = (await conn.execute(_NAMESPACE, {"namespace": name})).mappings().first()
    return dict(row) if row else None


async def claim(conn: AsyncConnection, name: str, owner: str) -> None:
    """Make a user the owner of a namespace that has neither an owner nor entries."""
    await conn.execute(_CLAIM, {"namespace": name, "owner": owner})


async def share(conn: AsyncConnection, name: str, owner: str, access: str) -> Row:
    """Set owner and access of a namespace."""
    values = {"namespace": name, "owner": owner, "access": access}
    return dict((await conn.execute(_SHARE, values)).mappings().one())


async def locked_version(conn: AsyncConnection, name: str, key: str) -> int:
    """The version of an entry, which is locked; 0 if there is none or it has expired."""
    return int((await conn.execute(_LOCK, {"namespace": name, "key": key})).scalar() or 0)


async def write(conn: AsyncConnection, values: Mapping[str, Any], expected: int | None) -> Row | None:
    """Write an entry: namespace, key, value, agent_name, written_by, ttl_seconds; None if it has another version than
    `expected`."""
    bound = dict(values) | {"value": Jsonb(values["value"]), "expected": expected}
    row = (await conn.execute(_WRITE, bound)).mappings().first()
    return dict(row) if row else None


async def remove(conn: AsyncConnection, name: str, key: str) -> None:
    """Remove an entry, expired or not."""
    await conn.execute(_DELETE, {"namespace": name, "key": key})


async def read(db: Database, name: str, key: str) -> Row | None:
    """An entry that has not expired, or None."""
    rows = await MEMORY.page(db, 1, equal={"namespace": name, "key": key}, where=[NOT_EXPIRED])
    return rows[0] if rows else None
