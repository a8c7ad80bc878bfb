-- What a session was asked for with: an Idempotency-Key that comes again with anything else is refused. NULL in sessions
-- made before.
ALTER TABLE sandbox_sessions ADD COLUMN request_digest VARCHAR(64);

-- A condition that comes and goes is one alert: it is over once the condition has been gone for a while.
ALTER TABLE alert_rules
    ADD COLUMN resolve_seconds INTEGER NOT NULL DEFAULT 60 CHECK (resolve_seconds BETWEEN 0 AND 86400);
ALTER TABLE alert_conditions ADD COLUMN gone_since TIMESTAMP;
