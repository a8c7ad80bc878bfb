-- Values that users keep by name, encrypted with a key that is not in the database.
CREATE TABLE secrets (
    user_id    VARCHAR(100) NOT NULL,
    -- Empty: for all projects of the user.
    project_id VARCHAR(255) NOT NULL DEFAULT '',
    name       VARCHAR(100) NOT NULL,
    sealed     BYTEA NOT NULL,
    created_at TIMESTAMP NOT NULL DEFAULT NOW(),
    updated_at TIMESTAMP NOT NULL DEFAULT NOW(),
    PRIMARY KEY (user_id, project_id, name)
);
