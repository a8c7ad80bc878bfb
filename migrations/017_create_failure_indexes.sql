-- What is asked for by two common values at once that seldom or never come together: a service's errors, its DEBUG lines.
-- Partial, because nearly all rows are of the level and the status left out: they cost intake little.
CREATE INDEX logs_service_level_idx ON logs (service, level, timestamp DESC, log_id DESC) WHERE level <> 'INFO';
CREATE INDEX traces_service_status_idx ON traces (service_name, status, start_time DESC) WHERE status <> 'success';
