"""A guest agent that does not answer counts as no output, so its session times out."""

from pathlib import Path
from uuid import uuid4

from sqlalchemy import text

from sandbox.db.connection import Database
from sandbox.engine.docker.engine import DockerEngine
from sandbox.engine.guest_client.client import GuestClient
from sandbox.sessions.housekeeping import store as housekeeping
from sandbox.sessions.housekeeping.app_activity import touch_sessions_with_output
from sandbox.settings import Settings


async def test_a_session_whose_guest_agent_does_not_answer_expires(database: Database, tmp_path: Path) -> None:
    engine = DockerEngine(Settings(home=tmp_path), uuid4(), guest_factory=GuestClient)
    containers = {"main": {"id": "none", "ip": None, "runtime": "python312", "status": "running"}}
    async with database.transaction() as conn:
        idle = (
            await conn.execute(
                text(
                    "INSERT INTO sandbox_sessions (user_id, status, runtime_type, pipeline_run_id, containers,"
                    " idle_timeout_seconds, last_active, output_seen)"
                    " VALUES ('u', 'running', 'python312', 'r', :containers, 60, NOW() - INTERVAL '2 minutes', :seen)"
                    " RETURNING session_id"
                ),
                {"containers": containers, "seen": {"main": 7}},
            )
        ).scalar_one()
        assert [session.session_id for session, _ in await housekeeping.sessions_to_check(conn, 10)] == [idle]
        assert await touch_sessions_with_output(conn, engine) == []
        assert await housekeeping.expire(conn) == [idle]
        seen = (await conn.execute(text("SELECT output_seen, output_seen_at IS NOT NULL FROM sandbox_sessions"))).one()
        assert tuple(seen) == ({"main": 7}, True)
    await engine.aclose()
