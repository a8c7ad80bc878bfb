"""SQL of agents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from sandbox.db.connection import Database
from sandbox.db.tables import Row, Table
from sandbox.errors import NotFound

AGENTS = Table(
    "agents",
    (
        "agent_id",
        "name",
        "category",
        "status",
        "uptime",
        "avg_response_time",
        "success_rate",
        "last_active",
        "metadata",
        "created_at",
        "updated_at",
    ),
    keys={"agent_id": "bigint"},
    between="last_active",
)

#: Values that a heartbeat leaves out stay as they were; metadata is merged.
_HEARTBEAT = text(f"""
    UPDATE agents
       SET status = :status,
           uptime = coalesce(CAST(:uptime AS double precision), uptime),
           avg_response_time = coalesce(CAST(:avg_response_time AS integer), avg_response_time),
           success_rate = coalesce(CAST(:success_rate AS double precision), success_rate),
           metadata = coalesce(metadata, '{{}}') || coalesce(CAST(:metadata AS jsonb), '{{}}'),
           last_active = NOW()
     WHERE name = :name
    RETURNING {", ".join(AGENTS.columns)}
""")

_REGISTER = text("""
    INSERT INTO agents (name, category) VALUES (:name, :category) ON CONFLICT (name) DO NOTHING
""")

#: Agents that never sent a heartbeat are left out.
_SILENT = text("""
    UPDATE agents
       SET status = CASE WHEN last_active < NOW() - make_interval(secs => :error_after) THEN 'error' ELSE 'warning' END
     WHERE last_active < NOW() - make_interval(secs => :warning_after)
       AND (status IN ('healthy', 'unknown')
            OR (status = 'warning' AND last_active < NOW() - make_interval(secs => :error_after)))
    RETURNING name, status
""")


async def heartbeat(db: Database, name: str, category: str | None, values: Mapping[str, Any]) -> Row:
    """Store the values of an agent's heartbeat; the agent afterwards.

    With a `category` an unknown agent is added; without one it raises NotFound.
    """
    bound = {"uptime": None, "avg_response_time": None, "success_rate": None, "metadata": None, **values, "name": name}
    async with db.transaction() as connection:
        row = await _beat(connection, bound)
        if row is None and category is not None:
            await connection.execute(_REGISTER, {"name": name, "category": category})
            row = await _beat(connection, bound)
        if row is None:
            raise NotFound(
                f"There is no agent {name}.", code="agent_not_found", hint="Send `category` to have it added."
            )
        return row


async def mark_silent(db: Database, warning_after: int, error_after: int) -> dict[str, str]:
    """Set agents whose last heartbeat is too old (in seconds) to `warning`, then to `error`.

    Returns the new status of each agent that changed, by name.
    """
    async with db.transaction() as connection:
        result = await connection.execute(_SILENT, {"warning_after": warning_after, "error_after": error_after})
        return {row.name: row.status for row in result}


async def _beat(connection: AsyncConnection, bound: Mapping[str, Any]) -> Row | None:
    row = (await connection.execute(_HEARTBEAT, bound)).mappings().first()
    return dict(row) if row else None
