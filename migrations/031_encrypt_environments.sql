-- The values of a session's environment, encrypted with a key that is not in the database. The service encrypts those of
-- sessions that exist when it starts and empties `env`. Replicas of the previous release, which read `env`, do not see
-- the variables of sessions that are created from now on: end them before sessions with variables are created.
ALTER TABLE sandbox_sessions ADD COLUMN sealed BYTEA;
