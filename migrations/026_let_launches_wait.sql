-- Why a launch is not being carried out just now: {for, since, until}; NULL if it does not wait.
ALTER TABLE sandbox_sessions ADD COLUMN waiting JSONB;
-- How often a run has replaced containers that were lost while it was carried out.
ALTER TABLE session_runs ADD COLUMN container_losses INTEGER NOT NULL DEFAULT 0;
