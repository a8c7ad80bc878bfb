-- What the documented sample queries call and no documented migration makes.

-- PostgreSQL rounds to digits only in numeric; three sample queries ask it of double precision.
CREATE FUNCTION round(value DOUBLE PRECISION, digits INTEGER) RETURNS NUMERIC
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN pg_catalog.round(value::numeric, digits);

-- Column by column like test_results, in the same order: rows move with SELECT *.
CREATE TABLE test_results_archive (LIKE test_results INCLUDING DEFAULTS INCLUDING CONSTRAINTS);
ALTER TABLE test_results_archive ADD PRIMARY KEY (test_id);
CREATE INDEX test_results_archive_timestamp_idx ON test_results_archive (timestamp DESC, test_id DESC);
