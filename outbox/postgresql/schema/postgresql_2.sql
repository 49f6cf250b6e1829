-- Ferry's tables in a PostgreSQL database, from schema version 1 to 2: rows that bring their own transaction id are
-- refused. Made by ferry_migrate() and `ferry outbox init`, in one transaction. To change them: add postgresql_3.sql
-- with the steps from 2 to 3, never edit this file.

-- The relay reads what was committed since it last looked, by xid: a row with an older one, as one copied from a
-- backup by SELECT *, would count as published and go with its leaf. AFTER and not BEFORE, so that COPY goes on
-- writing many rows at once.
CREATE FUNCTION "ferry".refuse_xid() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a row of % brings an xid of its own (%), and would count as published', TG_TABLE_NAME, NEW.xid
        USING ERRCODE = 'check_violation', HINT = 'Name topic, mkey, headers_json and payload, and nothing else.';
END $$;
CREATE TRIGGER outbox_own_xid AFTER INSERT ON "ferry".outbox
    FOR EACH ROW WHEN (NEW.xid <> pg_current_xact_id()) EXECUTE FUNCTION "ferry".refuse_xid();

UPDATE "ferry".meta SET value = '2' WHERE name = 'schema_version';
