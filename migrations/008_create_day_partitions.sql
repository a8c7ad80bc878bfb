-- Day partitions of logs and traces: made ahead, dropped whole when they are too old. Days are UTC.

-- Make the partitions of today and the days ahead that are missing, for both tables; answers how many it made. Cheap when
-- there is nothing to do. Rows of such a day that went to the default partition move to the new one.
CREATE FUNCTION ensure_day_partitions(days_ahead INTEGER DEFAULT 7) RETURNS INTEGER LANGUAGE plpgsql
    SET timezone = 'UTC' AS $$
DECLARE
    parent TEXT;
    part   TEXT;
    key    TEXT;
    day    DATE;
    made   INTEGER := 0;
BEGIN
    -- Several services do this at once.
    PERFORM pg_advisory_xact_lock(hashtext('ensure_day_partitions'));
    FOREACH parent IN ARRAY ARRAY['logs', 'traces'] LOOP
        key := CASE parent WHEN 'logs' THEN 'timestamp' ELSE 'start_time' END;
        FOR offset_days IN 0..days_ahead LOOP
            day := CURRENT_DATE + offset_days;
            part := format('%s_p%s', parent, to_char(day, 'YYYYMMDD'));
            CONTINUE WHEN to_regclass(part) IS NOT NULL;
            -- ATTACH, unlike CREATE ... PARTITION OF, lets others write to the parent's other partitions meanwhile.
            EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', part, parent);
            EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', parent || '_default');
            EXECUTE format('WITH moved AS (DELETE FROM %1$I WHERE %2$I >= %3$L AND %2$I < %4$L RETURNING *)'
                           ' INSERT INTO %5$I SELECT * FROM moved',
                           parent || '_default', key, day, day + 1, part);
            EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                           parent, part, day, day + 1);
            made := made + 1;
        END LOOP;
    END LOOP;
    RETURN made;
END
$$;

-- Drop the day partitions of `parent` that hold nothing younger than keep_days, and such rows of its default partition;
-- answers the names of what it dropped. Gives up rather than hold up writers for more than two seconds; ask again later.
CREATE FUNCTION drop_day_partitions(parent TEXT, keep_days INTEGER) RETURNS SETOF TEXT LANGUAGE plpgsql
    SET timezone = 'UTC' SET lock_timeout = '2s' AS $$
DECLARE
    part TEXT;
    key  TEXT := CASE parent WHEN 'logs' THEN 'timestamp' WHEN 'traces' THEN 'start_time' END;
BEGIN
    IF key IS NULL THEN
        RAISE EXCEPTION '% is not partitioned by day', parent USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR part IN
        SELECT child.relname
          FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid
         WHERE inhparent = to_regclass(parent) AND child.relname ~ ('^' || parent || '_p[0-9]{8}$')
           AND to_date(right(child.relname, 8), 'YYYYMMDD') < CURRENT_DATE - keep_days
         ORDER BY child.relname
    LOOP
        EXECUTE format('DROP TABLE %I', part);
        RETURN NEXT part;
    END LOOP;
    EXECUTE format('DELETE FROM %I WHERE %I < %L', parent || '_default', key, CURRENT_DATE - keep_days);
END
$$;

SELECT ensure_day_partitions();
