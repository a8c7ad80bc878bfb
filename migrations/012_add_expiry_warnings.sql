-- The deadline a session was last warned of: each deadline is warned of once.
ALTER TABLE sandbox_sessions ADD COLUMN warned_for TIMESTAMP;
