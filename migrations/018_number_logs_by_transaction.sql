-- The transaction that wrote a log line. Followers of the logs read them in the order (transaction_id, log_id): the order
-- of ids alone does not tell which lines are new, because ids are assigned before the commit. Older lines have NULL.

-- First the column, then the default: a column that is added with a default has its value in all existing rows.
ALTER TABLE logs ADD COLUMN transaction_id xid8;
ALTER TABLE logs ALTER COLUMN transaction_id SET DEFAULT pg_current_xact_id();
