-- Ferry's tables in a MariaDB database (10.6 or later), schema version 1. Made by ferry_migrate() and `ferry outbox
-- init`. MariaDB commits after each of these statements; so they can be run again after a failure, and the schema
-- version comes last. To change them: add mariadb_2.sql with the steps from 1 to 2, never edit this file.
--
-- An application's user needs:
--     GRANT SELECT ON ferry_meta TO app;  GRANT INSERT ON ferry_outbox TO app;
-- with SELECT, INSERT, UPDATE on ferry_key where it calls ferry_outbox_lock_key(); and, for inboxes and sagas,
-- SELECT, INSERT, UPDATE, DELETE on the ferry_inbox_* and ferry_saga* tables. The relay's user needs:
--     GRANT SELECT ON shop.* TO relay;  GRANT DELETE ON ferry_outbox TO relay;
--     GRANT INSERT ON ferry_outbox_dead TO relay;  GRANT INSERT, UPDATE ON ferry_parked_key TO relay;
--     GRANT INSERT, UPDATE ON ferry_meta TO relay;
-- (and PROCESS ON *.* to know the longest open transaction); one that only asks for the status, SELECT.

CREATE TABLE IF NOT EXISTS ferry_meta (
    name  VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    value VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL
) ENGINE = InnoDB;

-- source_uuid: who this outbox is to the brokers; the cursors in the partitions are kept under this name. A copy
-- of the database that is to publish on its own needs another one. delete_stamp: rises with each deletion of
-- published rows, so that a database that was set back is noticed.
INSERT IGNORE INTO ferry_meta (name, value) VALUES
    ('source_uuid', UUID()), ('lanes', '1'), ('paused', '0'), ('delete_stamp', '0');

-- Messages that the business transaction has put. Only topic and payload are needed:
--     INSERT INTO ferry_outbox (topic, mkey, payload) VALUES ('orders', 'customer-7', '{"total":12}');
-- The relay deletes what is published. There is no index but the primary key, so that it locks nothing else.
CREATE TABLE IF NOT EXISTS ferry_outbox (
    id         BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    -- Where there are several lanes: COALESCE(MOD(CONV(LEFT(MD5(mkey), 7), 16, 10), lanes), 0).
    lane       SMALLINT NOT NULL DEFAULT 0,
    topic      VARCHAR(200) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    mkey       MEDIUMBLOB,
    msg_id     BINARY(16) NOT NULL DEFAULT (UNHEX(REPLACE(UUID(), '-', ''))),
    -- The msgpack map that ferry_outbox_put() writes, or a JSON object of strings as text.
    headers    MEDIUMBLOB,
    payload    LONGBLOB NOT NULL,
    created_ms BIGINT NOT NULL DEFAULT (CAST(UNIX_TIMESTAMP(SYSDATE(3)) * 1000 AS SIGNED)),
    CONSTRAINT ferry_outbox_topic CHECK (topic REGEXP '^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$'),
    CONSTRAINT ferry_outbox_headers CHECK (headers IS NULL OR ORD(headers) >= 128
        OR ORD(headers) = 123 AND JSON_VALID(CONVERT(headers USING utf8mb4)))
) ENGINE = InnoDB;

-- Locks for ferry_outbox_lock_key(): a row for each of 65,536 hashes of a key, made on first use.
CREATE TABLE IF NOT EXISTS ferry_key (
    k BINARY(8) NOT NULL PRIMARY KEY
) ENGINE = InnoDB;

-- Rows that were set aside: a broker refused them (relay.poison), a person skipped them, or their key is parked.
CREATE TABLE IF NOT EXISTS ferry_outbox_dead (
    id         BIGINT UNSIGNED NOT NULL PRIMARY KEY, -- Its id in ferry_outbox.
    lane       SMALLINT NOT NULL DEFAULT 0,
    topic      VARCHAR(200) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    mkey       MEDIUMBLOB,
    msg_id     BINARY(16) NOT NULL,
    headers    MEDIUMBLOB,
    payload    LONGBLOB NOT NULL,
    created_ms BIGINT NOT NULL,
    reason     TEXT CHARACTER SET utf8mb4 NOT NULL,
    dead_ms    BIGINT NOT NULL DEFAULT (CAST(UNIX_TIMESTAMP(SYSDATE(3)) * 1000 AS SIGNED)),
    parked     BOOLEAN NOT NULL DEFAULT FALSE -- Nothing is wrong with it but that its key is parked.
) ENGINE = InnoDB;

-- Keys of a topic whose rows are set aside. until_no 0: parked; else the key is free, and rows of it below this number
-- may have been put anew behind it: those are gone. Longer keys cannot be parked.
CREATE TABLE IF NOT EXISTS ferry_parked_key (
    lane     SMALLINT NOT NULL,
    topic    VARCHAR(200) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    mkey     VARBINARY(1024) NOT NULL,
    since_ms BIGINT NOT NULL DEFAULT (CAST(UNIX_TIMESTAMP(SYSDATE(3)) * 1000 AS SIGNED)),
    until_no BIGINT UNSIGNED NOT NULL DEFAULT 0,
    PRIMARY KEY (lane, topic, mkey)
) ENGINE = InnoDB;

-- What a group has done of one partition: intervals [start_off, end_off), each beginning where the one before it
-- ended; the first begins at -1. Insert only; all but the newest 64 are trimmed. Two consumers that extend the
-- same end collide on the key.
CREATE TABLE IF NOT EXISTS ferry_inbox_chain (
    grp       VARCHAR(200) CHARACTER SET ascii COLLATE ascii_bin NOT NULL CHECK (LENGTH(grp) > 0),
    topic_id  BINARY(16) NOT NULL,
    part      INT NOT NULL CHECK (part >= 0),
    start_off BIGINT NOT NULL CHECK (start_off >= -1),
    end_off   BIGINT NOT NULL,
    done_ms   BIGINT NOT NULL DEFAULT (CAST(UNIX_TIMESTAMP(SYSDATE(3)) * 1000 AS SIGNED)),
    PRIMARY KEY (grp, topic_id, part, start_off),
    CONSTRAINT ferry_inbox_chain_rises CHECK (end_off > start_off)
) ENGINE = InnoDB;

-- Ids of messages that a group has done, where offsets do not tell: queues, keyed subscriptions, records that may
-- be in a log twice. `day` (since 1970) is that of the record; old ones are trimmed by it.
CREATE TABLE IF NOT EXISTS ferry_inbox_id (
    grp    VARCHAR(200) CHARACTER SET ascii COLLATE ascii_bin NOT NULL CHECK (LENGTH(grp) > 0),
    msg_id BINARY(16) NOT NULL,
    day    INT NOT NULL,
    PRIMARY KEY (grp, msg_id),
    KEY ferry_inbox_id_day (grp, day)
) ENGINE = InnoDB;

-- Records that the handler gave up, and those of their keys that follow them (parked).
CREATE TABLE IF NOT EXISTS ferry_inbox_dead (
    number   BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    grp      VARCHAR(200) CHARACTER SET ascii COLLATE ascii_bin NOT NULL CHECK (LENGTH(grp) > 0),
    topic_id BINARY(16) NOT NULL,
    part     INT NOT NULL,
    off      BIGINT NOT NULL,
    msg_id   BINARY(16) NOT NULL, -- Zero: it has none.
    reason   TEXT CHARACTER SET utf8mb4 NOT NULL,
    parked   BOOLEAN NOT NULL DEFAULT FALSE,
    requeued BOOLEAN NOT NULL DEFAULT FALSE, -- A person wants it handled again.
    mkey     MEDIUMBLOB,
    headers  MEDIUMBLOB,
    payload  LONGBLOB NOT NULL,
    ts_ms    BIGINT NOT NULL,
    at_ms    BIGINT NOT NULL DEFAULT (CAST(UNIX_TIMESTAMP(SYSDATE(3)) * 1000 AS SIGNED)),
    UNIQUE KEY ferry_inbox_dead_offset (grp, topic_id, part, off),
    KEY ferry_inbox_dead_key (grp, topic_id, mkey(255)),
    KEY ferry_inbox_dead_requeued (grp, topic_id, requeued, number)
) ENGINE = InnoDB;

-- An operator's decisions to go on although something was not applied, with their reasons.
CREATE TABLE IF NOT EXISTS ferry_inbox_skip (
    id         BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    grp        VARCHAR(200) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    topic_id   BINARY(16) NOT NULL,
    part       INT NOT NULL,
    from_off   BIGINT NOT NULL, -- -1: the group had done nothing.
    to_off     BIGINT NOT NULL,
    reason     TEXT CHARACTER SET utf8mb4 NOT NULL,
    created_ms BIGINT NOT NULL DEFAULT (CAST(UNIX_TIMESTAMP(SYSDATE(3)) * 1000 AS SIGNED)),
    CONSTRAINT ferry_inbox_skip_rises CHECK (to_off > from_off)
) ENGINE = InnoDB;

-- Sagas that began in this database.
CREATE TABLE IF NOT EXISTS ferry_saga (
    saga_id     BINARY(16) NOT NULL PRIMARY KEY,
    type        VARCHAR(200) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    state       SMALLINT NOT NULL, -- enum ferry_saga_state
    step        INT NOT NULL,
    ver         BIGINT NOT NULL, -- Rises with each change.
    deadline_ms BIGINT NOT NULL DEFAULT 0,
    reason      TEXT CHARACTER SET utf8mb4 NOT NULL,
    data        MEDIUMBLOB NOT NULL,
    created_ms  BIGINT NOT NULL DEFAULT (CAST(UNIX_TIMESTAMP(SYSDATE(3)) * 1000 AS SIGNED)),
    changed_ms  BIGINT NOT NULL DEFAULT (CAST(UNIX_TIMESTAMP(SYSDATE(3)) * 1000 AS SIGNED)),
    KEY ferry_saga_state (state, created_ms)
) ENGINE = InnoDB;

-- What sagas have done here: a row for each (saga, step, do or undo), written with its effect.
CREATE TABLE IF NOT EXISTS ferry_saga_barrier (
    saga_id BINARY(16) NOT NULL,
    step    INT NOT NULL,
    op      SMALLINT NOT NULL,
    why     SMALLINT NOT NULL,
    PRIMARY KEY (saga_id, step, op)
) ENGINE = InnoDB;

INSERT IGNORE INTO ferry_meta (name, value) VALUES ('schema_version', '1');
