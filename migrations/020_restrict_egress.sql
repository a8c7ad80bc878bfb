-- What the session's containers may reach: "all", "none" or a list of destinations; see sandbox/domain/egress.py. NULL is
-- a session of an earlier release: "all".
ALTER TABLE sandbox_sessions ADD COLUMN egress JSONB;
