-- How much each role's app had printed when it was last looked at, and when that was: output is activity.
ALTER TABLE sandbox_sessions
    ADD COLUMN output_seen JSONB NOT NULL DEFAULT '{}',
    ADD COLUMN output_seen_at TIMESTAMP;
