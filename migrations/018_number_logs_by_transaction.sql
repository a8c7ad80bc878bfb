-- The transaction that wrote a log line. Whoever follows logs reads them in the order (transaction_id, log_id): ids alone
-- are taken before they are committed, so their order does not tell which lines are new. Lines from before have NULL.

SET LOCAL lock_timeout = '5s';

-- Column first, default second: a column that is added with a default has the value for all rows that are there.
ALTER TABLE logs ADD COLUMN transaction_id xid8;
ALTER TABLE logs ALTER COLUMN transaction_id SET DEFAULT pg_current_xact_id();

-- Partitions get the index when they are attached. Of those that are there only the ones that new lines may go to need
-- it; to index the others would read all logs while nobody can write any.
CREATE INDEX logs_transaction_idx ON ONLY logs (transaction_id, log_id) WHERE transaction_id IS NOT NULL;
DO $$
DECLARE
    part TEXT;
BEGIN
    FOR part IN
        SELECT child.relname FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid
         WHERE inhparent = 'logs'::regclass
           AND (child.relname = 'logs_default'
                OR child.relname ~ '^logs_p[0-9]{8}$' AND to_date(right(child.relname, 8), 'YYYYMMDD') >= CURRENT_DATE - 1)
    LOOP
        EXECUTE format('CREATE INDEX %I ON %I (transaction_id, log_id) WHERE transaction_id IS NOT NULL',
                       part || '_transaction_idx', part);
        EXECUTE format('ALTER INDEX logs_transaction_idx ATTACH PARTITION %I', part || '_transaction_idx');
    END LOOP;
END
$$;
