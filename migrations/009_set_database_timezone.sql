-- TIMESTAMP columns hold UTC, whoever connects. The service's own connections set it in any case.
DO $$
BEGIN
    EXECUTE format('ALTER DATABASE %I SET timezone TO %L', current_database(), 'UTC');
EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'only the owner may set the timezone of database %', current_database();
END
$$;
