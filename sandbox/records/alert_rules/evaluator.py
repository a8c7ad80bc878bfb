"""Evaluates the alert rules: opens an alert when a condition has held for long enough, resolves it afterwards."""

from __future__ import annotations

import logging
import operator
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from sandbox.db.connection import Database
from sandbox.db.tables import Row
from sandbox.errors import DatabaseUnavailable
from sandbox.records.alert_rules import store
from sandbox.records.alerts.store import Alerts
from sandbox.telemetry.rows import clean_text

logger = logging.getLogger(__name__)

#: `resolved_by` of alerts that the rules resolved.
BY_RULES = "rules"
_COMPARE: Final[Mapping[str, Callable[[float, float], bool]]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_MAX_SUBJECT = 200

#: Measures something in this process; (subject, value) pairs.
Gauge = Callable[[], Awaitable[list[tuple[str, float]]]]


class Evaluator:
    """Evaluates all rules. Several replicas may do so at once: each cause has at most one open alert."""

    def __init__(self, db: Database, alerts: Alerts, gauges: Mapping[str, Gauge]) -> None:
        self._db = db
        self._alerts = alerts
        self._gauges = gauges

    async def evaluate(self) -> None:
        """Open and resolve alerts that are due. A rule that cannot be measured leaves its alerts unchanged."""
        rules = await store.enabled_rules(self._db)
        holding: set[str] = set()
        unknown: set[str] = set()
        for rule in rules:
            try:
                firing = await self._firing(rule)
            except DatabaseUnavailable:
                raise
            except Exception as error:  # noqa: BLE001 - the other rules are evaluated all the same
                logger.warning("alert rule %s cannot be measured: %s", rule["name"], error)
                unknown.add(rule["name"])
                continue
            async with self._db.transaction() as connection:
                holding |= await self._open(connection, rule, firing)
        async with self._db.transaction() as connection:
            for alert in await store.open_alerts(connection):
                if alert.cause not in holding and alert.rule not in unknown:
                    await self._alerts.resolve(connection, alert.alert_id, BY_RULES)

    async def _firing(self, rule: Row) -> dict[str, float]:
        gauge = self._gauges.get(rule["measure"])
        if gauge is not None:
            values = await gauge()
        else:
            values = await store.measured(self._db, rule["measure"], timedelta(seconds=rule["window_seconds"]))
        compare = _COMPARE[rule["comparison"]]
        firing = [(subject, value) for subject, value in values if compare(value, rule["threshold"])]
        firing.sort(key=lambda pair: pair[1], reverse=rule["comparison"].startswith(">"))
        return {clean_text(subject, _MAX_SUBJECT): value for subject, value in firing[: store.MAX_SUBJECTS]}

    async def _open(self, connection: AsyncConnection, rule: Row, firing: Mapping[str, float]) -> set[str]:
        """Open the rule's alerts that are due; all its causes that hold, including those too recent for an alert."""
        held = await store.hold(connection, rule["name"], list(firing), rule["for_seconds"], rule["resolve_seconds"])
        for condition in held:
            if not condition.due:
                continue
            subject, value = condition.subject, firing[condition.subject]
            await self._alerts.open(
                connection,
                {
                    "severity": rule["severity"],
                    "title": clean_text(f"{rule['name']}: {subject}", 200),
                    "message": f"{rule['description']} {subject}: {rule['measure']} is {value:g}, the alert is at "
                    f"{rule['comparison']} {rule['threshold']:g}.".strip(),
                    "source": "rules",
                    "metadata": {
                        "cause": _cause(rule, subject),
                        "rule": rule["name"],
                        "subject": subject,
                        "metric": rule["measure"],
                        "threshold": rule["threshold"],
                        "current_value": value,
                        "duration_seconds": round(condition.seconds),
                    },
                },
            )
        return {_cause(rule, condition.subject) for condition in held}


def _cause(rule: Row, subject: str) -> str:
    return f"rule:{rule['name']}:{subject}"
