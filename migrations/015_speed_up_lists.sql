-- Lists filtered by two values at once that are each common and seldom or never come together: a service's errors, its
-- DEBUG lines. Partial, because nearly all rows are of the level and the status left out: they cost intake little.
CREATE INDEX logs_service_level_idx ON logs (service, level, timestamp DESC, log_id DESC) WHERE level <> 'INFO';
CREATE INDEX traces_service_status_idx ON traces (service_name, status, start_time DESC) WHERE status <> 'success';

-- Of an expression PostgreSQL knows how common its values are only by an index of all rows: without that it took every
-- user for one of a few spans, and read all spans of one who has most of them.
DROP INDEX traces_user_idx;
CREATE INDEX traces_user_idx ON traces ((tags->>'user_id'), start_time DESC);
