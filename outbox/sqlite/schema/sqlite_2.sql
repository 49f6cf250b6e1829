-- Ferry's tables in a SQLite database, from schema version 1 to 2: parked keys, pause, ids and dead letters of the
-- inbox, sagas. Made by ferry_migrate() and `ferry outbox init`, in one transaction. To change them: add
-- sqlite_3.sql with the steps from 2 to 3, never edit this file.

INSERT INTO ferry_meta (name, value) VALUES ('lanes', 1);
INSERT INTO ferry_meta (name, value) VALUES ('paused', 0);

-- 1: nothing is wrong with the row but that its key is parked.
ALTER TABLE ferry_outbox_dead ADD COLUMN parked INTEGER NOT NULL DEFAULT 0;

-- Keys of a topic whose rows are set aside. until_no 0: parked; else the key is free, and rows of it below this number
-- may have been put anew behind it: those are gone. Longer keys cannot be parked.
CREATE TABLE ferry_parked_key (
    lane     INTEGER NOT NULL,
    topic    TEXT NOT NULL,
    mkey     BLOB NOT NULL CHECK (length(mkey) <= 1024),
    since_ms INTEGER NOT NULL DEFAULT (CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER)),
    until_no INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (lane, topic, mkey)
) STRICT, WITHOUT ROWID;

-- When the interval was done; NULL: before version 2.
ALTER TABLE ferry_inbox_chain ADD COLUMN done_ms INTEGER;

-- Ids of messages that a group has done, where offsets do not tell: queues, keyed subscriptions, records that may
-- be in a log twice. `day` (since 1970) is that of the record; old ones are trimmed by it.
CREATE TABLE ferry_inbox_id (
    grp    TEXT NOT NULL CHECK (length(grp) BETWEEN 1 AND 200),
    msg_id BLOB NOT NULL CHECK (length(msg_id) = 16),
    day    INTEGER NOT NULL,
    PRIMARY KEY (grp, msg_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX ferry_inbox_id_day ON ferry_inbox_id (grp, day);

-- Records that the handler gave up, and those of their keys that follow them (parked).
CREATE TABLE ferry_inbox_dead (
    number   INTEGER PRIMARY KEY AUTOINCREMENT,
    grp      TEXT NOT NULL CHECK (length(grp) BETWEEN 1 AND 200),
    topic_id BLOB NOT NULL CHECK (length(topic_id) = 16),
    part     INTEGER NOT NULL,
    off      INTEGER NOT NULL,
    msg_id   BLOB NOT NULL CHECK (length(msg_id) = 16), -- Zero: it has none.
    reason   TEXT NOT NULL,
    parked   INTEGER NOT NULL DEFAULT 0,
    requeued INTEGER NOT NULL DEFAULT 0, -- A person wants it handled again.
    mkey     BLOB,
    headers  BLOB,
    payload  BLOB NOT NULL,
    ts_ms    INTEGER NOT NULL,
    at_ms    INTEGER NOT NULL DEFAULT (CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER)),
    UNIQUE (grp, topic_id, part, off)
) STRICT;
CREATE INDEX ferry_inbox_dead_key ON ferry_inbox_dead (grp, topic_id, mkey);
CREATE INDEX ferry_inbox_dead_requeued ON ferry_inbox_dead (grp, topic_id, number) WHERE requeued = 1;

-- Sagas that began in this database.
CREATE TABLE ferry_saga (
    saga_id     BLOB NOT NULL PRIMARY KEY CHECK (length(saga_id) = 16),
    type        TEXT NOT NULL,
    state       INTEGER NOT NULL, -- enum ferry_saga_state
    step        INTEGER NOT NULL,
    ver         INTEGER NOT NULL, -- Rises with each change.
    deadline_ms INTEGER NOT NULL DEFAULT 0,
    reason      TEXT NOT NULL DEFAULT '',
    data        BLOB NOT NULL,
    created_ms  INTEGER NOT NULL DEFAULT (CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER)),
    changed_ms  INTEGER NOT NULL DEFAULT (CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER))
) STRICT;
CREATE INDEX ferry_saga_state ON ferry_saga (state, created_ms);

-- What sagas have done here: a row for each (saga, step, do or undo), written with its effect.
CREATE TABLE ferry_saga_barrier (
    saga_id BLOB NOT NULL CHECK (length(saga_id) = 16),
    step    INTEGER NOT NULL,
    op      INTEGER NOT NULL,
    why     INTEGER NOT NULL,
    PRIMARY KEY (saga_id, step, op)
) STRICT, WITHOUT ROWID;

UPDATE ferry_meta SET value = 2 WHERE name = 'schema_version';
