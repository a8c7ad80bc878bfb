"""SQL of alerts and of their deliveries to the webhook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from psycopg.types.json import Jsonb
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from sandbox.db.connection import Database
from sandbox.db.tables import Row, Table
from sandbox.errors import Conflict, NotFound

Event = Literal["opened", "acknowledged", "resolved"]

ALERTS = Table(
    "alerts",
    (
        "alert_id",
        "timestamp",
        "severity",
        "title",
        "message",
        "source",
        "status",
        "resolved_at",
        "metadata",
    ),
    time="timestamp",
    keys={"alert_id": "bigint"},
)
_COLUMNS = ", ".join(ALERTS.columns)

#: When several transactions open an alert for the same cause at once, one of them succeeds.
_OPEN = text(f"""
    INSERT INTO alerts (severity, title, message, source, metadata)
    VALUES (:severity, :title, :message, :source, :metadata)
        ON CONFLICT ((metadata->>'cause')) WHERE status <> 'resolved' AND metadata->>'cause' IS NOT NULL DO NOTHING
    RETURNING {_COLUMNS}
""")
_OPEN_OF_CAUSE = text(f"SELECT {_COLUMNS} FROM alerts WHERE metadata->>'cause' = :cause AND status <> 'resolved'")
_ACKNOWLEDGE = text(f"""
    UPDATE alerts SET status = 'acknowledged',
           metadata = coalesce(metadata, '{{}}') || jsonb_build_object('acknowledged_by', CAST(:by AS text))
     WHERE alert_id = :alert_id AND status = 'active'
    RETURNING {_COLUMNS}
""")
_RESOLVE = text(f"""
    UPDATE alerts SET status = 'resolved', resolved_at = NOW(),
           metadata = coalesce(metadata, '{{}}') || jsonb_build_object('resolved_by', CAST(:by AS text))
     WHERE alert_id = :alert_id AND status <> 'resolved'
    RETURNING {_COLUMNS}
""")
_ENQUEUE = text("INSERT INTO alert_deliveries (alert_id, event, payload) VALUES (:alert_id, :event, :payload)")
_DUE = text("""
    SELECT delivery_id, event, payload, attempts FROM alert_deliveries AS due
     WHERE delivered_at IS NULL AND given_up_at IS NULL AND next_attempt_at <= NOW()
       AND NOT EXISTS (SELECT 1 FROM alert_deliveries AS earlier
                        WHERE earlier.alert_id = due.alert_id AND earlier.delivery_id < due.delivery_id
                          AND earlier.delivered_at IS NULL AND earlier.given_up_at IS NULL)
     ORDER BY next_attempt_at, delivery_id LIMIT :limit
""")
_DELIVERED = text("UPDATE alert_deliveries SET delivered_at = NOW(), attempts = attempts + 1 WHERE delivery_id = :id")
_NOT_DELIVERED = text("""
    UPDATE alert_deliveries
       SET attempts = attempts + 1, last_error = :error,
           next_attempt_at = NOW() + make_interval(secs => :wait),
           given_up_at = CASE WHEN :give_up THEN NOW() END
     WHERE delivery_id = :id
""")


class Alerts:
    """Opens, acknowledges and resolves alerts, and queues each change for the webhook if there is one."""

    def __init__(self, *, notify: bool) -> None:
        """`notify`: queue changes for the webhook."""
        self._notify = notify

    async def open(self, connection: AsyncConnection, values: Mapping[str, Any]) -> tuple[Row, bool]:
        """Open an alert from severity, title, message, source and metadata; the alert, and whether it is new.

        If `metadata.cause` has an open alert already, that alert is returned.
        """
        bound = dict(values) | {"metadata": Jsonb(values["metadata"]) if values.get("metadata") else None}
        cause = (values.get("metadata") or {}).get("cause")
        while True:
            row = (await connection.execute(_OPEN, bound)).mappings().first()
            if row is not None:
                await self._enqueue(connection, "opened", dict(row))
                return dict(row), True
            known = (await connection.execute(_OPEN_OF_CAUSE, {"cause": cause})).mappings().first()
            if known is not None:
                return dict(known), False

    async def acknowledge(self, connection: AsyncConnection, alert_id: int, by: str) -> Row:
        """Mark an alert as acknowledged. Idempotent. Raises NotFound, and Conflict if it is resolved."""
        row = (await connection.execute(_ACKNOWLEDGE, {"alert_id": alert_id, "by": by})).mappings().first()
        if row is not None:
            await self._enqueue(connection, "acknowledged", dict(row))
            return dict(row)
        known = await _alert(connection, alert_id)
        if known["status"] == "resolved":
            raise Conflict(f"Alert {alert_id} is resolved.", code="alert_resolved", hint="There is nothing to do.")
        return known

    async def resolve(self, connection: AsyncConnection, alert_id: int, by: str) -> Row:
        """Mark an alert as resolved. Idempotent. Raises NotFound."""
        row = (await connection.execute(_RESOLVE, {"alert_id": alert_id, "by": by})).mappings().first()
        if row is None:
            return await _alert(connection, alert_id)
        await self._enqueue(connection, "resolved", dict(row))
        return dict(row)

    async def resolve_cause(self, connection: AsyncConnection, cause: str, by: str) -> Row | None:
        """Resolve the open alert of a cause; None if there is none."""
        row = (await connection.execute(_OPEN_OF_CAUSE, {"cause": cause})).mappings().first()
        return await self.resolve(connection, row["alert_id"], by) if row else None

    async def _enqueue(self, connection: AsyncConnection, event: Event, row: Row) -> None:
        if self._notify:
            payload = {key: value.isoformat() if hasattr(value, "isoformat") else value for key, value in row.items()}
            await connection.execute(_ENQUEUE, {"alert_id": row["alert_id"], "event": event, "payload": Jsonb(payload)})


async def _alert(connection: AsyncConnection, alert_id: int) -> Row:
    statement = text(f"SELECT {_COLUMNS} FROM alerts WHERE alert_id = :alert_id")
    row = (await connection.execute(statement, {"alert_id": alert_id})).mappings().first()
    if row is None:
        raise NotFound(f"There is no alert {alert_id}.", code="alert_not_found", hint="List them: GET /api/v1/alerts.")
    return dict(row)


async def due_deliveries(db: Database, limit: int) -> list[Row]:
    """Deliveries that are due, the most overdue first. Those of one alert keep their order."""
    async with db.read() as connection:
        return [dict(row) for row in (await connection.execute(_DUE, {"limit": limit})).mappings()]


async def delivered(db: Database, delivery_id: int) -> None:
    """Record that the webhook accepted a delivery."""
    async with db.transaction() as connection:
        await connection.execute(_DELIVERED, {"id": delivery_id})


async def not_delivered(db: Database, delivery_id: int, error: str, wait_seconds: float, *, give_up: bool) -> None:
    """Record a failed delivery: it is tried again after `wait_seconds`, or never if `give_up`."""
    values = {"id": delivery_id, "error": error[:1000], "wait": wait_seconds, "give_up": give_up}
    async with db.transaction() as connection:
        await connection.execute(_NOT_DELIVERED, values)
