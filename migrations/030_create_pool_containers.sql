-- Containers that are started before there is a session for them (sandbox/pool/). The row is there before its container
-- and until that is removed. `member_id` stands in names and labels on the engine where a session's id does otherwise.
CREATE TABLE pool_containers (
    member_id   UUID PRIMARY KEY,
    runtime     VARCHAR(50) NOT NULL,
    -- Everything that was fixed when it was made: only a role that needs just that may have it.
    fingerprint TEXT NOT NULL,
    -- making: not usable yet. ready: it waits. claimed: it is a session's, and never returns. removing: no session gets
    -- it any more.
    state       VARCHAR(10) NOT NULL DEFAULT 'making' CHECK (state IN ('making', 'ready', 'claimed', 'removing')),
    created_at  TIMESTAMP NOT NULL DEFAULT NOW(),
    session_id  UUID REFERENCES sandbox_sessions (session_id) ON DELETE CASCADE,
    role        VARCHAR(50),
    UNIQUE (session_id, role),
    CHECK ((state = 'claimed') = (session_id IS NOT NULL AND role IS NOT NULL))
);
CREATE INDEX pool_containers_ready_idx ON pool_containers (fingerprint, created_at) WHERE state = 'ready';
