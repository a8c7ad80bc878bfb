"""Retention: drops partitions and deletes rows that are older than the settings allow. Agents are never deleted."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import errors
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from sandbox.db.connection import Database
from sandbox.settings import Settings

_BATCH = 20_000


@dataclass(frozen=True, slots=True)
class Step:
    """What one run did to one table, or with `dry_run` would do."""

    table: str
    action: str
    keep_days: int
    rows: int
    partitions: tuple[str, ...] = ()
    #: The table was locked; the next run tries again.
    postponed: bool = False


@dataclass(frozen=True, slots=True)
class _Deletion:
    """Rows of a table that are deleted in batches, by their key."""

    table: str
    action: str
    key: str
    condition: str
    archive: str | None = None


_DELETIONS = {
    "debug_logs": _Deletion(
        "logs",
        "delete DEBUG",
        "log_id, timestamp",
        # Older lines go with the partition of their day.
        "level = 'DEBUG' AND timestamp < NOW() - :keep * INTERVAL '1 day'"
        " AND timestamp >= CURRENT_DATE - CAST(:keep_all AS integer)",
    ),
    "coverage": _Deletion("coverage", "delete", "coverage_id", "timestamp < NOW() - :keep * INTERVAL '1 day'"),
    "test_results": _Deletion(
        "test_results", "archive", "test_id", "timestamp < NOW() - :keep * INTERVAL '1 day'", "test_results_archive"
    ),
    "alerts": _Deletion(
        "alerts",
        "delete resolved",
        "alert_id",
        "status = 'resolved' AND coalesce(resolved_at, timestamp) < NOW() - :keep * INTERVAL '1 day'",
    ),
    "audit": _Deletion("audit_log", "delete", "entry_id", "time < NOW() - :keep * INTERVAL '1 day'"),
    "record_space": _Deletion("record_space", "delete", "user_id, day", "day <= CURRENT_DATE - CAST(:keep AS integer)"),
    "memory": _Deletion("agent_memory", "delete expired", "namespace, key", "expires_at < NOW()"),
    "memory_history": _Deletion(
        "agent_memory_history", "delete", "change_id", "changed_at < NOW() - :keep * INTERVAL '1 day'"
    ),
}

#: Partitions of whole days (UTC) that are older than `:keep` days.
_OLD_PARTITIONS = text("""
    SELECT child.relname FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid
     WHERE inhparent = to_regclass(:parent) AND child.relname ~ ('^' || :parent || '_p[0-9]{8}$')
       AND to_date(right(child.relname, 8), 'YYYYMMDD') < CURRENT_DATE - CAST(:keep AS integer)
     ORDER BY child.relname
""")
#: Rows in those partitions and in the default partition.
_OLD_ROWS = {
    "logs": text("SELECT count(*) FROM logs WHERE timestamp < CURRENT_DATE - CAST(:keep AS integer)"),
    "traces": text("SELECT count(*) FROM traces WHERE start_time < CURRENT_DATE - CAST(:keep AS integer)"),
}


async def run(db: Database, settings: Settings, *, dry_run: bool) -> list[Step]:
    """Create the partitions of the days ahead and remove what is too old; with `dry_run` only count what would go."""
    if not dry_run:
        await ensure_partitions(db)
    steps = [
        await _drop(db, "logs", settings.retention_logs_days, dry_run=dry_run),
        await _drop(db, "traces", settings.retention_traces_days, dry_run=dry_run),
    ]
    for name, keep in (
        ("debug_logs", settings.retention_debug_logs_days),
        ("coverage", settings.retention_coverage_days),
        ("test_results", settings.retention_test_results_days),
        ("alerts", settings.retention_alerts_days),
        ("audit", settings.retention_audit_days),
        ("record_space", settings.retention_logs_days),
        ("memory", 0),
        ("memory_history", settings.retention_memory_history_days),
    ):
        steps.append(await _delete(db, _DELETIONS[name], keep, settings.retention_logs_days, dry_run=dry_run))
    return steps


async def ensure_partitions(db: Database) -> int:
    """Create the missing partitions of today and the week ahead; their number."""
    async with db.transaction() as connection:
        return int((await connection.execute(text("SELECT ensure_day_partitions()"))).scalar_one())


async def _drop(db: Database, parent: str, keep: int, *, dry_run: bool) -> Step:
    async with db.read() as connection:
        old = tuple((await connection.execute(_OLD_PARTITIONS, {"parent": parent, "keep": keep})).scalars())
        rows = (await connection.execute(_OLD_ROWS[parent], {"keep": keep})).scalar_one()
    step = Step(parent, "drop partitions", keep, rows, old)
    if dry_run:
        return step
    try:
        async with db.transaction() as connection:
            dropped = text("SELECT * FROM drop_day_partitions(:parent, :keep)")
            names = tuple((await connection.execute(dropped, {"parent": parent, "keep": keep})).scalars())
    except DBAPIError as error:
        if isinstance(error.orig, errors.LockNotAvailable):
            return Step(parent, step.action, keep, 0, (), postponed=True)
        raise
    return Step(parent, step.action, keep, step.rows, names)


async def _delete(db: Database, deletion: _Deletion, keep: int, keep_logs: int, *, dry_run: bool) -> Step:
    """Delete in batches, one transaction each, so that no lock is held for long."""
    given = {"keep": keep, "keep_all": keep_logs}
    if dry_run:
        count = text(f"SELECT count(*) FROM {deletion.table} WHERE {deletion.condition}")
        async with db.read() as connection:
            return Step(deletion.table, deletion.action, keep, (await connection.execute(count, given)).scalar_one())
    removal = (
        f"DELETE FROM {deletion.table} WHERE ({deletion.key}) IN"
        f" (SELECT {deletion.key} FROM {deletion.table} WHERE {deletion.condition} LIMIT {_BATCH})"
    )
    if deletion.archive:
        # One statement: a row is always in exactly one of the two tables.
        removal = f"WITH moved AS ({removal} RETURNING *) INSERT INTO {deletion.archive} SELECT * FROM moved"
    rows = 0
    while True:
        async with db.transaction() as connection:
            done = (await connection.execute(text(removal), given)).rowcount
        rows += done
        if done < _BATCH:
            return Step(deletion.table, deletion.action, keep, rows)
