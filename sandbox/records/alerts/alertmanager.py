"""Opens and resolves alerts from the notifications of Prometheus Alertmanager (webhook, version 4)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from sandbox.db.connection import Database
from sandbox.records.alerts.store import Alerts
from sandbox.telemetry.rows import clean_text

SOURCE = "alertmanager"
_SEVERITIES = {
    "info": "info",
    "none": "info",
    "warning": "warning",
    "warn": "warning",
    "minor": "warning",
    "error": "error",
    "major": "error",
    "high": "error",
    "critical": "critical",
    "page": "critical",
}


@dataclass(frozen=True, slots=True)
class Notice:
    """One alert of a notification."""

    firing: bool
    labels: dict[str, str]
    annotations: dict[str, str]
    fingerprint: str
    generator_url: str
    starts_at: str


async def apply_notices(db: Database, alerts: Alerts, notices: Sequence[Notice]) -> tuple[int, int]:
    """Open alerts that fire and are not open, resolve alerts that have ended; the number of each. Idempotent."""
    opened = resolved = 0
    async with db.transaction() as connection:
        for notice in sorted(notices, key=_cause):  # a common order, so that two notifications at once cannot deadlock
            if notice.firing:
                _, new = await alerts.open(connection, _alert(notice))
                opened += new
            else:
                resolved += await alerts.resolve_cause(connection, _cause(notice), SOURCE) is not None
    return opened, resolved


def _alert(notice: Notice) -> dict[str, object]:
    labels, annotations = notice.labels, notice.annotations
    title = labels.get("alertname", "alert")
    where = labels.get("instance") or labels.get("job")
    metadata: dict[str, object] = {
        "cause": _cause(notice),
        "labels": {clean_text(key, 200): clean_text(value, 1_000) for key, value in labels.items()},
    }
    if annotations.get("runbook_url"):
        metadata["runbook_url"] = clean_text(annotations["runbook_url"], 1_000)
    for name, value in (("generator_url", notice.generator_url), ("starts_at", notice.starts_at)):
        if value:
            metadata[name] = clean_text(value, 1_000)
    return {
        "severity": _SEVERITIES.get(labels.get("severity", "").lower(), "warning"),
        "title": clean_text(annotations.get("summary") or (f"{title}: {where}" if where else title), 200),
        "message": clean_text(annotations.get("description") or annotations.get("message") or title, 65_536),
        "source": SOURCE,
        "metadata": metadata,
    }


def _cause(notice: Notice) -> str:
    labels = json.dumps(sorted(notice.labels.items()))
    return f"{SOURCE}:{clean_text(notice.fingerprint, 100) or sha256(labels.encode()).hexdigest()}"
