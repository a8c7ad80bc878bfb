"""The answer to a scrape: the metrics of this process, its queues and pool, and the state of the deployment."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.pool import QueuePool

from sandbox.db.connection import Database
from sandbox.errors import DatabaseUnavailable
from sandbox.telemetry.metrics import store
from sandbox.telemetry.metrics.collectors import REGISTRY
from sandbox.telemetry.recorder import Recorder

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

_STATES: Final = {
    "sessions": ("sandbox_sessions", "Sessions of the deployment by status.", "status"),
    "resources": ("sandbox_resources", "Containers, networks and volumes on record as made and not removed.", "kind"),
    "leaked": ("sandbox_leaked_resources", "Resources of sessions that ended ten minutes ago or more.", "kind"),
    "pool": ("sandbox_pool_containers", "Containers of the pool that no session has, by state.", "state"),
    "alerts": ("sandbox_alerts_open", "Alerts that are not resolved.", "severity"),
    "agents": ("sandbox_agents", "Agents and components by status.", "status"),
    "replicas": ("sandbox_replicas", "Running replicas of the service.", None),
    "deliveries": (
        "sandbox_alert_deliveries_waiting",
        "Alert changes not delivered to the webhook yet.",
        None,
    ),
    "database_bytes": ("sandbox_database_size_bytes", "Size of the database.", None),
}
#: Label values that are present with 0 even when there are none, so that queries find them.
_ALWAYS: Final = {
    "sessions": ("creating", "ready", "running", "terminated", "error"),
    "resources": ("container", "network", "volume"),
    "leaked": ("container", "network", "volume"),
    "pool": ("making", "ready", "removing"),
}


async def exposition(db: Database, recorder: Recorder, intake_waiting_bytes: int) -> bytes:
    """All metrics in Prometheus's text format. While the database is down, those of the process, and
    `sandbox_database_up` 0.
    """
    try:
        values, up = await store.state(db), True
    except DatabaseUnavailable:
        values, up = [], False
    now = CollectorRegistry()
    now.register(_Families([*_deployment(values, up=up), *_process(db, recorder, intake_waiting_bytes)]))
    return generate_latest(REGISTRY) + generate_latest(now)


class _Families(Collector):
    """A collector of metric families that are complete already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def _deployment(values: Iterable[store.StateValue], *, up: bool) -> Iterable[Metric]:
    yield GaugeMetricFamily("sandbox_database_up", "Whether PostgreSQL answered this scrape.", value=float(up))
    by_name = defaultdict[str, dict[str, float]](dict)
    for value in values:
        by_name[value.name][value.label] = value.value
    if up:
        for name, labels in _ALWAYS.items():
            by_name[name] = dict.fromkeys(labels, 0.0) | by_name[name]
    for name, by_label in by_name.items():
        if name == "events":
            yield CounterMetricFamily("sandbox_events", "Launch events written, ever.", value=by_label[""])
            continue
        metric, documentation, label = _STATES[name]
        family = GaugeMetricFamily(metric, documentation, labels=[label] if label else [])
        for label_value, number in by_label.items():
            family.add_metric([label_value] if label else [], number)
        yield family


def _process(db: Database, recorder: Recorder, intake_waiting_bytes: int) -> Iterable[Metric]:
    waiting = GaugeMetricFamily("sandbox_recorder_waiting_rows", "Own rows not written yet.", labels=["kind"])
    dropped = CounterMetricFamily("sandbox_recorder_dropped_rows", "Own rows never written.", labels=["kind"])
    written = CounterMetricFamily("sandbox_recorder_written_rows", "Own rows written.", labels=["kind"])
    for kind, count in recorder.counts.items():
        waiting.add_metric([kind], count.waiting)
        dropped.add_metric([kind], count.dropped)
        written.add_metric([kind], count.written)
    yield from (waiting, dropped, written)
    yield GaugeMetricFamily(
        "sandbox_intake_waiting_bytes",
        "Bodies of export requests not written yet.",
        value=intake_waiting_bytes,
    )
    pool = db.engine.pool
    if isinstance(pool, QueuePool):
        connections = GaugeMetricFamily(
            "sandbox_database_pool_connections", "Connections of this process's database pool.", labels=["state"]
        )
        connections.add_metric(["in_use"], pool.checkedout())
        connections.add_metric(["idle"], pool.checkedin())
        yield connections
        yield GaugeMetricFamily(
            "sandbox_database_pool_max_connections",
            "Most connections of the pool; requests beyond that wait.",
            value=db.max_connections,
        )
