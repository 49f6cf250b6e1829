-- Ferry's tables in a SQLite database, schema version 1. Made by ferry_migrate() and `ferry outbox init`,
-- in one transaction. To change them: add sqlite_2.sql with the steps from 1 to 2, never edit this file.

CREATE TABLE ferry_meta (
    name  TEXT NOT NULL PRIMARY KEY,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO ferry_meta (name, value) VALUES ('schema_version', 1);
-- Who this outbox is to the brokers: the cursors in the partitions are kept under this name. A copy of the
-- file that is to publish on its own needs another one.
INSERT INTO ferry_meta (name, value) VALUES ('source_uuid', randomblob(16));

-- Messages that the business transaction has put. Only topic and payload are needed:
--     INSERT INTO ferry_outbox (topic, mkey, payload) VALUES ('orders', 'customer-7', '{"total":12}');
-- AUTOINCREMENT: an id is never used twice, which the relay's cursor stands on.
CREATE TABLE ferry_outbox (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    topic      TEXT NOT NULL
               CHECK (length(topic) BETWEEN 1 AND 200 AND topic GLOB '[A-Za-z0-9]*'
                      AND topic NOT GLOB '*[^A-Za-z0-9._-]*'),
    mkey       ANY CHECK (typeof(mkey) IN ('null', 'text', 'blob')),
    msg_id     BLOB NOT NULL DEFAULT (randomblob(16)) CHECK (length(msg_id) = 16),
    -- A JSON object of strings as TEXT, or the msgpack map that ferry_outbox_put() writes as BLOB.
    headers    ANY CHECK (CASE typeof(headers) WHEN 'null' THEN 1 WHEN 'blob' THEN 1
                          WHEN 'text' THEN json_type(headers) = 'object' ELSE 0 END),
    payload    ANY NOT NULL CHECK (typeof(payload) IN ('text', 'blob')),
    created_ms INTEGER NOT NULL
               DEFAULT (CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER))
) STRICT;

-- Rows that a broker refused for what they are, set aside by the relay (relay.poison = dead).
CREATE TABLE ferry_outbox_dead (
    id         INTEGER PRIMARY KEY, -- Its id in ferry_outbox.
    topic      TEXT NOT NULL,
    mkey       ANY,
    msg_id     BLOB NOT NULL,
    headers    ANY,
    payload    ANY NOT NULL,
    created_ms INTEGER NOT NULL,
    reason     TEXT NOT NULL,
    dead_ms    INTEGER NOT NULL
) STRICT;

-- What a group has done of one partition: intervals [start_off, end_off), each beginning where the one
-- before it ended; the first begins at -1. Insert only; all but the newest 64 are trimmed. Two consumers that
-- extend the same end collide on the key.
CREATE TABLE ferry_inbox_chain (
    grp       TEXT NOT NULL CHECK (length(grp) BETWEEN 1 AND 200),
    topic_id  BLOB NOT NULL CHECK (length(topic_id) = 16),
    part      INTEGER NOT NULL CHECK (part >= 0),
    start_off INTEGER NOT NULL CHECK (start_off >= -1),
    end_off   INTEGER NOT NULL CHECK (end_off > start_off),
    PRIMARY KEY (grp, topic_id, part, start_off)
) STRICT, WITHOUT ROWID;

-- An operator's decisions to go on although something was not applied, with their reasons.
CREATE TABLE ferry_inbox_skip (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    grp        TEXT NOT NULL,
    topic_id   BLOB NOT NULL CHECK (length(topic_id) = 16),
    part       INTEGER NOT NULL,
    from_off   INTEGER NOT NULL, -- -1: the group had done nothing.
    to_off     INTEGER NOT NULL CHECK (to_off > from_off),
    reason     TEXT NOT NULL,
    created_ms INTEGER NOT NULL
               DEFAULT (CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER))
) STRICT;
