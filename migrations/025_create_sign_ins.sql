-- Browsers that are signed in, and links that sign one in once. Only hashes of their secrets are stored, so that a copy of
-- the database signs no one in.
CREATE TABLE sign_ins (
    secret_hash BYTEA PRIMARY KEY,
    kind        TEXT NOT NULL CHECK (kind IN ('browser', 'link')),
    -- The token that it stands for, and ends with.
    token_id    UUID NOT NULL REFERENCES api_tokens (token_id) ON DELETE CASCADE,
    created_at  TIMESTAMP NOT NULL DEFAULT NOW(),
    expires_at  TIMESTAMP NOT NULL
);
CREATE INDEX sign_ins_expires_idx ON sign_ins (expires_at);
