-- Who did what: one row for each request that changes a session, project, token or secret, or uses a sandbox.
CREATE TABLE audit_log (
    entry_id      BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    time          TIMESTAMP NOT NULL DEFAULT NOW(),
    user_id       VARCHAR(100) NOT NULL,
    role          VARCHAR(20) NOT NULL,
    token_id      UUID,
    action        VARCHAR(50) NOT NULL,
    resource_kind VARCHAR(50) NOT NULL,
    -- The resource's id or name; null if none was made.
    resource      VARCHAR(300),
    outcome       VARCHAR(20) NOT NULL CHECK (outcome IN ('succeeded', 'refused', 'failed')),
    status        INTEGER,
    request_id    VARCHAR(100),
    address       VARCHAR(100)
);
CREATE INDEX audit_log_time_idx ON audit_log (time DESC, entry_id DESC);
CREATE INDEX audit_log_user_idx ON audit_log (user_id, time DESC, entry_id DESC);
CREATE INDEX audit_log_resource_idx ON audit_log (resource, time DESC, entry_id DESC);
