-- How people find their own records, and words in log messages.

-- Users see what is theirs.
CREATE INDEX logs_user_idx ON logs (user_id, timestamp DESC, log_id DESC) WHERE user_id IS NOT NULL;
CREATE INDEX traces_user_idx ON traces ((tags->>'user_id'), start_time DESC) WHERE tags->>'user_id' IS NOT NULL;

-- Words as they are, no language's stems: messages hold names and codes. A message's first 4000 characters are enough,
-- and keep the cost of a row bounded; new rows wait in the index's pending list and are sorted in many at a time.
CREATE INDEX logs_message_idx ON logs USING gin (to_tsvector('simple', left(message, 4000)));
