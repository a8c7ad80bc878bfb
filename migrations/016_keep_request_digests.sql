-- What a session was asked for with: an Idempotency-Key that comes again with anything else is refused. NULL in sessions
-- made before.
ALTER TABLE sandbox_sessions ADD COLUMN request_digest VARCHAR(64);
