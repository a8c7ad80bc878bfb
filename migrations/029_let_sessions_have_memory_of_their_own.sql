-- The memory of each container of a session in MiB, where a request has asked for another limit than the setting's.
ALTER TABLE sandbox_sessions ADD COLUMN memory_mb INTEGER;
