-- What is known of a run's failure (its file, module, port, …), and what the launch noticed of the running apps: its
-- warnings, the path at which the preview opens, and the ports that speak TLS.
ALTER TABLE session_runs ADD COLUMN evidence JSONB, ADD COLUMN observations JSONB;
