-- Ferry's tables in a SQLite database, from schema version 2 to 3: rows that bring an id which was given out before
-- are refused. Made by ferry_migrate() and `ferry outbox init`, in one transaction. To change them: add sqlite_4.sql
-- with the steps from 3 to 4, never edit this file.

-- The relay goes by ids: one that it has passed, as of a row copied from a backup by SELECT *, would count as
-- published, and the row be deleted. (sqlite_sequence moves when the statement ends, so new ids are above it.)
CREATE TRIGGER ferry_outbox_own_id AFTER INSERT ON ferry_outbox
WHEN NEW.id <= (SELECT seq FROM sqlite_sequence WHERE name = 'ferry_outbox')
BEGIN
    SELECT RAISE(ABORT, 'a row of ferry_outbox brings an id that was given out before, and would count as published: leave the id out');
END;

UPDATE ferry_meta SET value = 3 WHERE name = 'schema_version';
