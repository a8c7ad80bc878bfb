"""The migrated schema matches its documentation, on the embedded PostgreSQL and on the distribution's."""

import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from sandbox.db.connection import Database
from sandbox.db.migrations import migrate, status

CHECK = Path(__file__).parents[2] / "spec" / "check_schema.py"

#: Redundant indexes: another index of the same table begins with their columns, in the same order and direction.
REDUNDANT = """
    SELECT small.indexrelid::regclass::text, large.indexrelid::regclass::text
      FROM pg_index AS small
      JOIN pg_index AS large ON large.indrelid = small.indrelid AND large.indexrelid <> small.indexrelid
      JOIN pg_class AS small_class ON small_class.oid = small.indexrelid
      JOIN pg_class AS large_class ON large_class.oid = large.indexrelid AND large_class.relam = small_class.relam
     WHERE small.indrelid::regclass::text NOT LIKE 'pg_%' AND NOT small.indisunique
       AND small.indpred IS NOT DISTINCT FROM large.indpred
       AND large.indkey::text || ' ' LIKE small.indkey::text || ' %'
       AND large.indoption::text || ' ' LIKE small.indoption::text || ' %'
       AND small.indrelid NOT IN (SELECT inhrelid FROM pg_inherits)
"""

#: Queries of the lists of the API.
PAGED = [
    "SELECT * FROM logs WHERE (timestamp, log_id) < (NOW()::timestamp, 9) ORDER BY timestamp DESC, log_id DESC LIMIT 9",
    "SELECT * FROM logs WHERE level = 'ERROR' ORDER BY timestamp DESC, log_id DESC LIMIT 9",
    "SELECT * FROM logs WHERE service = 's' ORDER BY timestamp DESC, log_id DESC LIMIT 9",
    "SELECT * FROM logs WHERE request_id = 'r' ORDER BY timestamp DESC, log_id DESC LIMIT 9",
    "SELECT * FROM traces ORDER BY start_time DESC, trace_id DESC, span_id DESC LIMIT 9",
    "SELECT * FROM traces WHERE service_name = 's' ORDER BY start_time DESC LIMIT 9",
    "SELECT * FROM traces WHERE duration_ms > 1000 ORDER BY duration_ms DESC LIMIT 20",
    "SELECT * FROM test_results ORDER BY timestamp DESC, test_id DESC LIMIT 9",
    "SELECT * FROM test_results WHERE test_type = 'unit' ORDER BY timestamp DESC, test_id DESC LIMIT 9",
    "SELECT * FROM test_results WHERE status = 'failed' ORDER BY timestamp DESC, test_id DESC LIMIT 9",
    "SELECT * FROM coverage WHERE component = 'c' ORDER BY timestamp DESC, coverage_id DESC LIMIT 9",
    "SELECT * FROM alerts WHERE status = 'active' ORDER BY timestamp DESC, alert_id DESC LIMIT 9",
    "SELECT * FROM agent_lessons WHERE agent_name = 'a' ORDER BY created_at DESC, id DESC LIMIT 9",
    "SELECT * FROM agent_lesson_applications WHERE pipeline_run_id = 'r' ORDER BY id DESC LIMIT 9",
    "SELECT * FROM documents ORDER BY created_at DESC, document_id DESC LIMIT 9",
    "SELECT * FROM agent_memory WHERE namespace = 'n' ORDER BY updated_at DESC, key DESC LIMIT 9",
]


def assert_documented(dsn: str) -> None:
    done = subprocess.run([sys.executable, str(CHECK), dsn], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0 differences\n", "")


def test_schema_on_the_embedded_postgresql(dsn: str) -> None:
    assert_documented(dsn)


async def test_schema_on_the_distributions_postgresql(debian_dsn: str) -> None:
    applied = await migrate(debian_dsn)
    assert len(applied) >= 9
    assert_documented(debian_dsn)
    assert (await status(debian_dsn)).pending == []


async def test_no_index_is_redundant(database: Database) -> None:
    async with database.transaction() as connection:
        assert (await connection.execute(text(REDUNDANT))).all() == []


@pytest.mark.parametrize("query", PAGED)
def test_a_page_is_read_from_an_index_in_order(dsn: str, query: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("SET LOCAL enable_seqscan = off")
        connection.execute("SET LOCAL enable_bitmapscan = off")
        plan = "\n".join(row[0] for row in connection.execute(f"EXPLAIN {query}"))
    assert "Index" in plan
    assert "Sort  (" not in plan


async def test_naive_times_are_utc_for_every_client(empty_dsn: str) -> None:
    await migrate(empty_dsn)
    with psycopg.connect(empty_dsn) as connection:
        assert connection.execute("SHOW timezone").fetchone() == ("UTC",)


def test_embeddings_where_the_extension_exists(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute(
            "INSERT INTO documents (document_id, title, content, content_hash)"
            " VALUES ('00000000-0000-0000-0000-000000000001', 't', 'c', 'h')"
        )
        connection.execute(
            "INSERT INTO document_chunks (document_id, position, heading, content, embedding)"
            " VALUES ('00000000-0000-0000-0000-000000000001', 0, 'Pinned versions', 'Install them', '[1,0]'),"
            " ('00000000-0000-0000-0000-000000000001', 1, NULL, 'Something else', '[0,1]')"
        )
        by_words = connection.execute(
            "SELECT position FROM document_chunks WHERE search @@ websearch_to_tsquery('english', 'pin installation')"
        ).fetchall()
        nearest = connection.execute("SELECT position FROM document_chunks ORDER BY embedding <-> '[0,2]' LIMIT 1")
        assert by_words == [(0,)]
        assert nearest.fetchone() == (1,)
