-- Whether lessons may change the launches of a session: a caller can go without them.
ALTER TABLE sandbox_sessions ADD COLUMN lessons BOOLEAN NOT NULL DEFAULT TRUE;
