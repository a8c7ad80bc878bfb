-- no-transaction
-- The transaction that wrote a log line. Followers of the logs read them in the order (transaction_id, log_id): the order
-- of ids alone does not tell which lines are new, because ids are assigned before the commit. Older lines have NULL.

-- First the column, then the default: a column that is added with a default has its value in all existing rows.
ALTER TABLE logs ADD COLUMN IF NOT EXISTS transaction_id xid8;
ALTER TABLE logs ALTER COLUMN transaction_id SET DEFAULT pg_current_xact_id();

-- Partial, because older lines have no transaction.
CREATE INDEX IF NOT EXISTS logs_transaction_idx ON ONLY logs (transaction_id, log_id) WHERE transaction_id IS NOT NULL;

SELECT unnest(ARRAY[
           format('CREATE INDEX CONCURRENTLY IF NOT EXISTS %I ON %I (transaction_id, log_id)'
                  ' WHERE transaction_id IS NOT NULL', relname || '_transaction_idx', relname),
           format('ALTER INDEX logs_transaction_idx ATTACH PARTITION %I', relname || '_transaction_idx')])
  FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
 WHERE inhparent = 'logs'::regclass
   AND NOT EXISTS (SELECT FROM pg_index JOIN pg_inherits AS attached ON attached.inhrelid = indexrelid
                    WHERE indrelid = pg_class.oid AND attached.inhparent = 'logs_transaction_idx'::regclass);
