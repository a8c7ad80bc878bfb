-- no-transaction
-- Order and position of the followers of the logs. Partial, because lines from before 018 have no transaction.
CREATE INDEX IF NOT EXISTS logs_transaction_idx ON ONLY logs (transaction_id, log_id) WHERE transaction_id IS NOT NULL;

SELECT unnest(ARRAY[
           format('CREATE INDEX CONCURRENTLY IF NOT EXISTS %I ON %I (transaction_id, log_id)'
                  ' WHERE transaction_id IS NOT NULL', relname || '_transaction_idx', relname),
           format('ALTER INDEX logs_transaction_idx ATTACH PARTITION %I', relname || '_transaction_idx')])
  FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
 WHERE inhparent = 'logs'::regclass
   AND NOT EXISTS (SELECT FROM pg_index JOIN pg_inherits AS attached ON attached.inhrelid = indexrelid
                    WHERE indrelid = pg_class.oid AND attached.inhparent = 'logs_transaction_idx'::regclass);
