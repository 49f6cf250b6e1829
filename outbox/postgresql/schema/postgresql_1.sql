-- Ferry's tables in a PostgreSQL database (13 or later), schema version 1. Made by ferry_migrate() and
-- `ferry outbox init`, in one transaction. To change them: add postgresql_2.sql with the steps from 1 to 2, never
-- edit this file. The schema's name in double quotes is replaced where another one is configured.
--
-- An application's role needs:
--     GRANT USAGE ON SCHEMA ferry TO app;
--     GRANT SELECT ON ferry.meta TO app;
--     GRANT INSERT (lane, topic, mkey, msg_id, headers, headers_json, payload, created_ms) ON ferry.outbox TO app;
--     GRANT USAGE ON SEQUENCE ferry.outbox_seq TO app;
-- and no more of that table: a row with an xid of its own, as one copied from a backup by SELECT *, would count as
-- published. With SELECT (msg_id) ON ferry.outbox where it calls ferry.put(), which returns the id; and, for inboxes and sagas,
-- SELECT, INSERT, UPDATE, DELETE on the inbox_* and saga* tables and USAGE on the sequence
-- ferry.inbox_dead_number_seq. The relay's role needs:
--     GRANT USAGE ON SCHEMA ferry TO relay;
--     GRANT SELECT ON ALL TABLES IN SCHEMA ferry TO relay;  GRANT SELECT ON SEQUENCE ferry.outbox_seq TO relay;
--     GRANT INSERT ON ferry.outbox_dead TO relay;  GRANT INSERT, UPDATE ON ferry.parked_key TO relay;
--     GRANT TRUNCATE ON ferry.outbox_0, ferry.outbox_1, ferry.outbox_2, ferry.outbox_3 TO relay;
-- (and pg_read_all_stats to know the longest open transaction); one that only asks for the status, the first two lines.

CREATE SCHEMA IF NOT EXISTS "ferry";

CREATE TABLE "ferry".meta (
    name  text PRIMARY KEY,
    value text NOT NULL
);
-- source_uuid: who this outbox is to the brokers; the cursors in the partitions are kept under this name. A copy
-- of the database that is to publish on its own needs another one.
INSERT INTO "ferry".meta (name, value) VALUES
    ('schema_version', '1'),
    ('source_uuid', gen_random_uuid()::text),
    ('lanes', '1'),
    ('paused', '0');

CREATE FUNCTION "ferry".now_ms() RETURNS bigint LANGUAGE sql VOLATILE AS
    $$SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint$$;

-- The timeline of the write-ahead log: it changes when a standby takes over, and the standby may then use
-- transaction ids again that the old primary had used.
CREATE FUNCTION "ferry".tli() RETURNS integer LANGUAGE sql VOLATILE AS
    $$SELECT ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::integer$$;

-- Which lane rows of a key belong to. With more than one lane whoever inserts rows by hand must set `lane` to it.
CREATE FUNCTION "ferry".lane_of(key bytea) RETURNS smallint LANGUAGE sql STABLE AS
    $$SELECT CASE WHEN m.value = '1' OR key IS NULL THEN 0
                  ELSE ('x' || left(md5(key), 7))::bit(28)::integer % m.value::integer END::smallint
      FROM "ferry".meta m WHERE m.name = 'lanes'$$;

-- CACHE 1: a block of numbers handed to each session would turn the order of a key around.
CREATE SEQUENCE "ferry".outbox_seq CACHE 1;

-- Domains and no CHECK of the table: that is read and planned anew by every statement, 10 to 15 us each; these
-- cost 5. (And not {0,199}: that costs 12 us a row more.)
CREATE DOMAIN "ferry".topic_name AS text COLLATE "C"
    CHECK (octet_length(VALUE) <= 200 AND VALUE ~ '^[A-Za-z0-9][A-Za-z0-9._-]*$');
CREATE DOMAIN "ferry".header_map AS jsonb CHECK (jsonb_typeof(VALUE) = 'object');

-- Messages that the business transaction has put. Only topic and payload are needed:
--     INSERT INTO ferry.outbox (topic, mkey, payload) VALUES ('orders', 'customer-7', '\x7b7d');
-- or ferry.put() below. Append only: nothing is updated or deleted here. The four leaves are a ring of a million
-- numbers each; the relay empties one by TRUNCATE when all of it is published.
CREATE TABLE "ferry".outbox (
    seq          bigint   NOT NULL DEFAULT nextval('"ferry".outbox_seq'),
    xid          xid8     NOT NULL DEFAULT pg_current_xact_id(),
    created_ms   bigint   NOT NULL DEFAULT "ferry".now_ms(),
    msg_id       uuid     NOT NULL DEFAULT gen_random_uuid(),
    tli          integer  NOT NULL DEFAULT "ferry".tli(),
    lane         smallint NOT NULL DEFAULT 0,
    topic        "ferry".topic_name NOT NULL,
    mkey         bytea,
    headers      bytea,   -- The msgpack map that ferry_outbox_put() writes,
    headers_json "ferry".header_map, -- or an object of strings, for everybody else.
    payload      bytea    NOT NULL
) PARTITION BY LIST (((seq >> 20) & 3));

-- Vacuum would find nothing to do: rows go by TRUNCATE.
CREATE TABLE "ferry".outbox_0 PARTITION OF "ferry".outbox FOR VALUES IN (0) WITH (autovacuum_enabled = off);
CREATE TABLE "ferry".outbox_1 PARTITION OF "ferry".outbox FOR VALUES IN (1) WITH (autovacuum_enabled = off);
CREATE TABLE "ferry".outbox_2 PARTITION OF "ferry".outbox FOR VALUES IN (2) WITH (autovacuum_enabled = off);
CREATE TABLE "ferry".outbox_3 PARTITION OF "ferry".outbox FOR VALUES IN (3) WITH (autovacuum_enabled = off);

CREATE INDEX outbox_lane_xid ON "ferry".outbox (lane, xid);
-- For a backlog, which is read in windows of numbers, in their order and without a look at other rows. (A BRIN
-- index would be smaller and is no help: nobody summarizes what was put since the last vacuum.)
CREATE INDEX outbox_lane_seq ON "ferry".outbox (lane, seq);

-- One message from any language: SELECT ferry.put('orders', 'customer-7', '{"total":12}', '{"traceparent":"00-…"}').
-- Returns its id.
CREATE FUNCTION "ferry".put(topic text, key bytea, payload bytea, headers jsonb DEFAULT NULL)
    RETURNS uuid LANGUAGE sql VOLATILE AS
    $$INSERT INTO "ferry".outbox (lane, topic, mkey, payload, headers_json)
      VALUES ("ferry".lane_of($2), $1, $2, $3, $4) RETURNING msg_id$$;
CREATE FUNCTION "ferry".put(topic text, key text, payload text, headers jsonb DEFAULT NULL)
    RETURNS uuid LANGUAGE sql VOLATILE AS
    $$SELECT "ferry".put($1, convert_to($2, 'UTF8'), convert_to($3, 'UTF8'), $4)$$;

-- Announces new rows to a relay that listens (source.notify), at most once in 5 ms and session. NOTIFY makes
-- commits of the whole database wait for each other, so no trigger is made here. To have it nevertheless:
--     CREATE TRIGGER outbox_notify AFTER INSERT ON ferry.outbox FOR EACH STATEMENT EXECUTE FUNCTION ferry.notify();
CREATE FUNCTION "ferry".notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF "ferry".now_ms() - coalesce(nullif(current_setting('ferry.notified_ms', true), ''), '0')::bigint >= 5 THEN
        PERFORM pg_notify(TG_TABLE_SCHEMA || '_outbox', '');
        PERFORM set_config('ferry.notified_ms', "ferry".now_ms()::text, false);
    END IF;
    RETURN NULL;
END $$;

-- Rows that were set aside: a broker refused them (relay.poison), a person skipped them, or their key is parked.
CREATE TABLE "ferry".outbox_dead (
    seq          bigint   PRIMARY KEY, -- Its number in outbox.
    lane         smallint NOT NULL DEFAULT 0,
    topic        text     COLLATE "C" NOT NULL,
    mkey         bytea,
    msg_id       uuid     NOT NULL,
    headers      bytea,
    headers_json jsonb,
    payload      bytea    NOT NULL,
    created_ms   bigint   NOT NULL,
    reason       text     NOT NULL,
    dead_ms      bigint   NOT NULL DEFAULT "ferry".now_ms(),
    parked       boolean  NOT NULL DEFAULT false -- Nothing is wrong with it but that its key is parked.
);

-- Keys of a topic whose rows are set aside. until_no 0: parked; else the key is free, and rows of it below this number
-- may have been put anew behind it: those are gone. Longer keys cannot be parked.
CREATE TABLE "ferry".parked_key (
    lane     smallint NOT NULL,
    topic    text     COLLATE "C" NOT NULL,
    mkey     bytea    NOT NULL CHECK (octet_length(mkey) <= 1024),
    since_ms bigint   NOT NULL DEFAULT "ferry".now_ms(),
    until_no bigint   NOT NULL DEFAULT 0,
    PRIMARY KEY (lane, topic, mkey)
);

-- What a group has done of one partition: intervals [start_off, end_off), each beginning where the one before it
-- ended; the first begins at -1. Insert only; all but the newest 64 are trimmed. Two consumers that extend the
-- same end collide on the key.
CREATE TABLE "ferry".inbox_chain (
    grp       text    COLLATE "C" NOT NULL CHECK (length(grp) BETWEEN 1 AND 200),
    topic_id  uuid    NOT NULL,
    part      integer NOT NULL CHECK (part >= 0),
    start_off bigint  NOT NULL CHECK (start_off >= -1),
    end_off   bigint  NOT NULL CHECK (end_off > start_off),
    done_ms   bigint  NOT NULL DEFAULT "ferry".now_ms(),
    PRIMARY KEY (grp, topic_id, part, start_off)
);

-- Ids of messages that a group has done, where offsets do not tell: queues, keyed subscriptions, records that may
-- be in a log twice. `day` (since 1970) is that of the record; old ones are trimmed by it.
CREATE TABLE "ferry".inbox_id (
    grp    text    COLLATE "C" NOT NULL CHECK (length(grp) BETWEEN 1 AND 200),
    msg_id uuid    NOT NULL,
    day    integer NOT NULL,
    PRIMARY KEY (grp, msg_id)
);
CREATE INDEX inbox_id_day ON "ferry".inbox_id (grp, day);

-- Records that the handler gave up, and those of their keys that follow them (parked).
CREATE TABLE "ferry".inbox_dead (
    number   bigint  GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    grp      text    COLLATE "C" NOT NULL CHECK (length(grp) BETWEEN 1 AND 200),
    topic_id uuid    NOT NULL,
    part     integer NOT NULL,
    off      bigint  NOT NULL,
    msg_id   uuid    NOT NULL, -- Zero: it has none.
    reason   text    NOT NULL,
    parked   boolean NOT NULL DEFAULT false,
    requeued boolean NOT NULL DEFAULT false, -- A person wants it handled again.
    mkey     bytea,
    headers  bytea,
    payload  bytea   NOT NULL,
    ts_ms    bigint  NOT NULL,
    at_ms    bigint  NOT NULL DEFAULT "ferry".now_ms(),
    UNIQUE (grp, topic_id, part, off)
);
CREATE INDEX inbox_dead_key ON "ferry".inbox_dead (grp, topic_id, md5(mkey));
CREATE INDEX inbox_dead_requeued ON "ferry".inbox_dead (grp, topic_id, number) WHERE requeued;

-- An operator's decisions to go on although something was not applied, with their reasons.
CREATE TABLE "ferry".inbox_skip (
    id         bigint  GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    grp        text    COLLATE "C" NOT NULL,
    topic_id   uuid    NOT NULL,
    part       integer NOT NULL,
    from_off   bigint  NOT NULL, -- -1: the group had done nothing.
    to_off     bigint  NOT NULL CHECK (to_off > from_off),
    reason     text    NOT NULL,
    created_ms bigint  NOT NULL DEFAULT "ferry".now_ms()
);

-- Sagas that began in this database.
CREATE TABLE "ferry".saga (
    saga_id     uuid     PRIMARY KEY,
    type        text     COLLATE "C" NOT NULL,
    state       smallint NOT NULL, -- enum ferry_saga_state
    step        integer  NOT NULL,
    ver         bigint   NOT NULL, -- Rises with each change.
    deadline_ms bigint   NOT NULL DEFAULT 0,
    reason      text     NOT NULL DEFAULT '',
    data        bytea    NOT NULL,
    created_ms  bigint   NOT NULL DEFAULT "ferry".now_ms(),
    changed_ms  bigint   NOT NULL DEFAULT "ferry".now_ms()
);
CREATE INDEX saga_state ON "ferry".saga (state, created_ms);

-- What sagas have done here: a row for each (saga, step, do or undo), written with its effect.
CREATE TABLE "ferry".saga_barrier (
    saga_id uuid     NOT NULL,
    step    integer  NOT NULL,
    op      smallint NOT NULL,
    why     smallint NOT NULL,
    PRIMARY KEY (saga_id, step, op)
);
