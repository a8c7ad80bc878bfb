"""Rows that tests of learning insert, and the recount of what the triggers keep."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

from sqlalchemy import text

from sandbox.db.connection import Database

SIGNATURE = "ModuleNotFoundError: No module named <module>"

#: Rows in which a documented column differs from what it is documented to be.
DIFFERENCES = """
    WITH lessons AS (
        SELECT lesson.id, times_applied, effectiveness_score, count(application.id) AS applied,
               avg(application.prevented_issue::int)::float8 AS score
          FROM agent_lessons AS lesson LEFT JOIN agent_lesson_applications AS application
               ON application.lesson_id = lesson.id
         GROUP BY lesson.id),
    agents AS (
        SELECT agent_name, total_lessons_learned, active_lessons, total_applications, successful_preventions,
               overall_effectiveness,
               (SELECT count(*) FROM agent_lessons AS l WHERE l.agent_name = stats.agent_name) AS lessons,
               (SELECT count(*) FROM agent_lessons AS l WHERE l.agent_name = stats.agent_name AND is_active) AS active,
               (SELECT count(*) FROM agent_lesson_applications AS a WHERE a.agent_name = stats.agent_name) AS applied,
               (SELECT count(*) FROM agent_lesson_applications AS a
                 WHERE a.agent_name = stats.agent_name AND prevented_issue) AS prevented
          FROM agent_learning_stats AS stats)
    SELECT id::text FROM lessons
     WHERE times_applied <> applied OR abs(coalesce(effectiveness_score, -1) - coalesce(score, -1)) > 1e-9
     UNION ALL
    SELECT agent_name FROM agents
     WHERE (total_lessons_learned, active_lessons, total_applications, successful_preventions)
           <> (lessons, active, applied, prevented)
        OR abs(overall_effectiveness - coalesce(prevented::float8 / nullif(applied, 0), 0)) > 1e-9
"""


async def rows(database: Database, query: str, **values: Any) -> list[Any]:
    async with database.transaction() as connection:
        result = await connection.execute(text(query), values)
        return list(result) if result.returns_rows else []


async def add_failure(database: Database, **changed: Any) -> None:
    """A failed launch of ada's project `shop`."""
    values = {
        "run_id": uuid4(),
        "pipeline_run_id": "run",
        "user_id": "ada",
        "project_id": "shop",
        "agents": "[]",
        "stage": "health",
        "code": "app_exited",
        "role": "main",
        "runtime": "python312",
        "framework": "flask",
        "family": "python_module_missing",
        "signature": SIGNATURE,
        "particulars": json.dumps({"module": "yaml"}),
    } | changed
    await rows(
        database,
        f"INSERT INTO launch_failures ({', '.join(values)}) VALUES ({', '.join(f':{name}' for name in values)})",
        **values,
    )


async def add_lesson(database: Database, agent: str = "Backend") -> int:
    """A lesson that the rules wrote."""
    ((lesson_id,),) = await rows(
        database,
        "INSERT INTO agent_lessons (agent_name, lesson_text, severity, category, source_issue_type, expires_at)"
        " VALUES (:agent, 'text', 'high', 'correctness', 'app_exited', NOW() + INTERVAL '10 days') RETURNING id",
        agent=agent,
    )
    await rows(
        database,
        "INSERT INTO lesson_triggers (lesson_id, agent_name, signature, written_by)"
        " VALUES (:lesson_id, :agent, :signature, 'rules')",
        lesson_id=lesson_id,
        agent=agent,
        signature=f"{SIGNATURE} {lesson_id}",
    )
    return int(lesson_id)
