-- When the events, runs and resource rows of a session that ended long ago were dropped; the row itself stays.
ALTER TABLE sandbox_sessions ADD COLUMN history_dropped_at TIMESTAMP;
CREATE INDEX sandbox_sessions_history_idx ON sandbox_sessions (terminated_at)
    WHERE status = 'terminated' AND history_dropped_at IS NULL;
