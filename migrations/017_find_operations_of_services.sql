-- A service's spans of one operation: told by the index itself, so that no other span of the service is fetched. The order
-- by time stays, which lists of all operations need.
DROP INDEX traces_service_idx;
CREATE INDEX traces_service_idx ON traces (service_name, start_time DESC, operation_name);
