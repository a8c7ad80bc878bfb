-- Signing keys are derived from a key that is not in the database. The one that was here signs nothing any more; encrypted,
-- it verifies telemetry tokens of containers that the previous release made. A process of the previous release refuses to
-- start without it. `key_check` recognises the key that this database is used with.
ALTER TABLE deployment ALTER COLUMN signing_key DROP NOT NULL;
ALTER TABLE deployment ALTER COLUMN signing_key DROP DEFAULT;
ALTER TABLE deployment ADD COLUMN telemetry_key BYTEA, ADD COLUMN key_check TEXT;
