-- Who may see a session's preview from a browser, or with a token. The key is in the visitor's cookie and in the name of
-- the socket that the proxy in front connects to.
CREATE TABLE preview_grants (
    key        TEXT PRIMARY KEY,
    session_id UUID NOT NULL REFERENCES sandbox_sessions (session_id) ON DELETE CASCADE,
    user_id    VARCHAR(100) NOT NULL,
    -- The token that the visitor signed in with; the grant ends with it.
    token_id   UUID REFERENCES api_tokens (token_id) ON DELETE CASCADE,
    created_at TIMESTAMP NOT NULL DEFAULT NOW(),
    expires_at TIMESTAMP NOT NULL
);
CREATE INDEX preview_grants_session_idx ON preview_grants (session_id);
CREATE INDEX preview_grants_expires_idx ON preview_grants (expires_at);
