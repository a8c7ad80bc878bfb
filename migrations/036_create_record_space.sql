-- Bytes of records and reports that each user has sent, by day, to limit them.
CREATE TABLE record_space (
    user_id VARCHAR(100) NOT NULL,
    day     DATE NOT NULL DEFAULT CURRENT_DATE,
    bytes   BIGINT NOT NULL,
    PRIMARY KEY (user_id, day)
);
