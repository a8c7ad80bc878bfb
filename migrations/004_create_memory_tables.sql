-- Shared memory of the agents: a value under (namespace, key), with an optional end of life and a version that rises by
-- one with each write, for compare-and-set (UPDATE ... WHERE version = the one that was read).

CREATE TABLE agent_memory (
    namespace  VARCHAR(100) NOT NULL,
    key        VARCHAR(255) NOT NULL,
    -- A tsvector holds at most 1 MB.
    value      JSONB NOT NULL CHECK (octet_length(value::text) <= 262144),
    version    BIGINT NOT NULL DEFAULT 1,
    -- The agent that wrote it last.
    agent_name VARCHAR(100),
    -- From then on the entry does not exist for readers; it is removed some time later.
    expires_at TIMESTAMP,
    created_at TIMESTAMP NOT NULL DEFAULT NOW(),
    updated_at TIMESTAMP NOT NULL DEFAULT NOW(),
    search     TSVECTOR NOT NULL GENERATED ALWAYS AS (
                   setweight(to_tsvector('simple', regexp_replace(key, '[^[:alnum:]]+', ' ', 'g')), 'A')
                   || setweight(jsonb_to_tsvector('english', value, '["all"]'), 'B')) STORED,
    PRIMARY KEY (namespace, key)
);
CREATE INDEX agent_memory_updated_idx ON agent_memory (namespace, updated_at DESC, key DESC);
CREATE INDEX agent_memory_expires_idx ON agent_memory (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX agent_memory_search_idx ON agent_memory USING gin (search);
CREATE TRIGGER agent_memory_touch BEFORE UPDATE ON agent_memory FOR EACH ROW EXECUTE FUNCTION touch_updated_at();
