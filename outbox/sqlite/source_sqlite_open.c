/* Opening the outbox of a SQLite file: is it one that can be served, and is another relay here. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/mem.h"
#include "outbox/app/wake.h"
#include "outbox/sqlite/open_sqlite.h"
#include "outbox/sqlite/source_sqlite.h"
#include "outbox/sqlite/sqlite_error.h"

/* How long a write waits for the application's own. Short, because nothing else of this relay
 * happens meanwhile, its lease's renewal included; what could not be written is tried again later.
 */
#define WRITER_BUSY_MS 500
#define READER_BUSY_MS 500

_Static_assert(SOURCE_PARKED_KEY_MAX == 1024, "as in STATEMENT_READ_BARE");

static const char *const statement_texts[STATEMENT_COUNT] = {
    [STATEMENT_READ] = "SELECT id, topic, mkey, msg_id, headers, payload, created_ms "
                       "FROM ferry_outbox WHERE id > ?1 ORDER BY id LIMIT ?2",
    [STATEMENT_READ_BARE] = "SELECT id, topic, substr(mkey, 1, 1025), "
                            "msg_id, NULL, NULL, created_ms "
                            "FROM ferry_outbox WHERE id > ?1 ORDER BY id LIMIT ?2",
    [STATEMENT_HEADERS] = "SELECT key, value, type FROM json_each(?1)",
    [STATEMENT_CHANGED] = "PRAGMA data_version",
    [STATEMENT_LAST] = "SELECT max(coalesce((SELECT max(id) FROM ferry_outbox), 0), coalesce("
                       "(SELECT seq FROM sqlite_sequence WHERE name = 'ferry_outbox'), 0))",
    [STATEMENT_ID_AT] = "SELECT msg_id FROM ferry_outbox WHERE id = ?1",
    [STATEMENT_OLDEST] = "SELECT CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS "
                         "INTEGER) - created_ms FROM ferry_outbox WHERE id > ?1 "
                         "ORDER BY id LIMIT 1",
    [STATEMENT_SOURCE_ID] = "SELECT value FROM ferry_meta WHERE name = 'source_uuid'",
    [STATEMENT_DECIDED] = "SELECT count(*) FROM ferry_outbox WHERE id = ?1",
    [STATEMENT_PARKED] = "SELECT topic, mkey, until_no FROM ferry_parked_key WHERE lane = ?1",
    [STATEMENT_PAUSED] = "SELECT value FROM ferry_meta WHERE name = 'paused'",
    [STATEMENT_BEGIN] = "BEGIN IMMEDIATE",
    [STATEMENT_COMMIT] = "COMMIT",
    [STATEMENT_SLICE_END] = "SELECT max(id) FROM (SELECT id FROM ferry_outbox WHERE id <= ?1 "
                            "ORDER BY id LIMIT ?2)",
    [STATEMENT_REMOVE] = "DELETE FROM ferry_outbox WHERE id <= ?1",
    [STATEMENT_COPY_DEAD] =
        "INSERT OR REPLACE INTO ferry_outbox_dead (id, topic, mkey, msg_id, headers, payload, "
        "created_ms, reason, dead_ms, parked) SELECT id, topic, mkey, msg_id, headers, payload, "
        "created_ms, "
        "?2, CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER), ?3 "
        "FROM ferry_outbox WHERE id = ?1",
    [STATEMENT_REMOVE_ONE] = "DELETE FROM ferry_outbox WHERE id = ?1",
    [STATEMENT_PARK] = "INSERT INTO ferry_parked_key (lane, topic, mkey) SELECT ?1, ?2, ?3 WHERE "
                       "length(?3) <= 1024 "
                       "ON CONFLICT (lane, topic, mkey) DO UPDATE SET until_no = 0, "
                       "since_ms = excluded.since_ms WHERE until_no <> 0",
    [STATEMENT_IS_PARKED] = "SELECT 1 WHERE EXISTS (SELECT 1 FROM ferry_parked_key WHERE lane = ?1 "
                            "AND topic = ?2 AND mkey = ?3 AND until_no = 0) OR NOT EXISTS (SELECT "
                            "1 FROM ferry_outbox WHERE id = ?4)",
};

/* WAL's shared memory does not work between machines, and half of the file systems that pretend
 * otherwise lose locks. */
static enum ferry_err check_file_system(const struct source_sqlite *s, struct err_text *e)
{
    static const struct {
        long magic;
        const char *name;
    } refused[] = {
        {0x6969, "NFS"}, {0x517b, "SMB"}, {(long)0xff534d42u, "CIFS"}, {(long)0xfe534d42u, "SMB2"}};
    struct statfs fs;
    if (statfs(s->path, &fs) != 0) {
        return err_set(e, FERRY_ERR_IO, "%s: statfs: %s", s->path, strerror(errno));
    }
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        if ((long)fs.f_type == refused[i].magic) {
            return err_set(e, FERRY_ERR_DB,
                           "%s lies on %s, where SQLite's WAL loses data: move it to a local disk",
                           s->path, refused[i].name);
        }
    }
    return FERRY_OK;
}

static enum ferry_err open_connection(struct source_sqlite *s, int flags, int busy_ms,
                                      sqlite3 **connection, struct err_text *e)
{
    int code = sqlite3_open_v2(s->path, connection, flags | SQLITE_OPEN_NOMUTEX, NULL);
    if (code != SQLITE_OK) {
        return sqlite_error(*connection, code, s->path, e);
    }
    sqlite3_busy_timeout(*connection, busy_ms);
    return FERRY_OK;
}

static enum ferry_err check_journal(struct source_sqlite *s, struct err_text *e)
{
    sqlite3_stmt *stmt = NULL;
    int code = sqlite3_prepare_v2(s->writer, "PRAGMA journal_mode", -1, &stmt, NULL);
    if (code == SQLITE_OK) {
        code = sqlite3_step(stmt);
    }
    enum ferry_err err = FERRY_OK;
    if (code != SQLITE_ROW) {
        err = sqlite_error(s->writer, code, s->path, e);
    } else if (strcmp((const char *)sqlite3_column_text(stmt, 0), "wal") != 0) {
        err =
            err_set(e, FERRY_ERR_DB_SCHEMA,
                    "%s: its journal is not WAL, so reading it would stop its writers: run `ferry "
                    "outbox init sqlite:%s`",
                    s->path, s->path);
    }
    sqlite3_finalize(stmt);
    return err;
}

static enum ferry_err prepare_all(struct source_sqlite *s, struct err_text *e)
{
    for (size_t i = 0; i < STATEMENT_COUNT; i++) {
        sqlite3 *connection = i < STATEMENT_READER_COUNT ? s->reader : s->writer;
        int code = sqlite3_prepare_v3(connection, statement_texts[i], -1, SQLITE_PREPARE_PERSISTENT,
                                      &s->statements[i], NULL);
        if (code != SQLITE_OK) {
            return sqlite_error(connection, code, s->path, e);
        }
    }
    return FERRY_OK;
}

static enum ferry_err read_source_id(struct source_sqlite *s, struct err_text *e)
{
    sqlite3_stmt *stmt = NULL;
    int code = sqlite3_prepare_v2(
        s->reader, "SELECT value FROM ferry_meta WHERE name = 'source_uuid'", -1, &stmt, NULL);
    if (code == SQLITE_OK) {
        code = sqlite3_step(stmt);
    }
    struct bytes id = code == SQLITE_ROW ? source_sqlite_column(stmt, 0) : bytes_of(NULL, 0);
    enum ferry_err err = FERRY_OK;
    if (id.size == sizeof(s->id.bytes)) {
        memcpy(s->id.bytes, id.data, id.size);
    } else {
        err = err_set(e, FERRY_ERR_DB_SCHEMA, "%s: ferry_meta has no source_uuid of 16 bytes",
                      s->path);
    }
    sqlite3_finalize(stmt);
    return err;
}

static enum ferry_err open_barrier(struct source_sqlite *s, struct err_text *e)
{
    char path[PATH_MAX + 8];
    snprintf(path, sizeof(path), "%s-wal", s->path);
    /* Closing this descriptor drops no lock of SQLite's: it locks the -shm file, never the WAL. */
    s->wal_fd = open(path, O_RDONLY | O_CLOEXEC);
    if (s->wal_fd < 0) {
        return err_set(e, FERRY_ERR_IO, "%s: %s", path, strerror(errno));
    }
    return FERRY_OK;
}

static enum ferry_err open_file(struct source_sqlite *s, const char *path, struct err_text *e)
{
    struct stat st;
    s->path = realpath(path, NULL);
    if (s->path == NULL || stat(s->path, &st) != 0) {
        return err_set(e, FERRY_ERR_IO, "%s: %s: `ferry outbox init sqlite:%s` makes it", path,
                       strerror(errno), path);
    }
    s->device = st.st_dev;
    s->inode = st.st_ino;
    enum ferry_err err = check_file_system(s, e);
    if (err == FERRY_OK) {
        err = open_connection(s, SQLITE_OPEN_READWRITE, WRITER_BUSY_MS, &s->writer, e);
    }
    if (err == FERRY_OK) {
        err = sqlite_schema_check(s->writer, s->path, e);
    }
    return err == FERRY_OK ? check_journal(s, e) : err;
}

static enum ferry_err take_lock(struct source_sqlite *s, struct err_text *e)
{
    enum ferry_err err = relay_lock_open(s->path, &s->lock_fd, e);
    if (err != FERRY_OK) {
        return err;
    }
    s->first = relay_lock_try(s->lock_fd);
    if (s->first || s->options.stand_by) {
        return FERRY_OK;
    }
    return err_set(e, FERRY_ERR_LOCKED, "another ferry-outbox serves %s: stop it or let it work",
                   s->path);
}

static enum ferry_err open_all(struct source_sqlite *s, const char *path, struct err_text *e)
{
    enum ferry_err err = open_file(s, path, e);
    if (err == FERRY_OK) {
        err = take_lock(s, e);
    }
    if (err == FERRY_OK) {
        /* A delete that a power failure takes back is simply done again. */
        sqlite3_exec(s->writer, "PRAGMA synchronous = NORMAL", NULL, NULL, NULL);
        err = open_connection(s, SQLITE_OPEN_READONLY, READER_BUSY_MS, &s->reader, e);
    }
    if (err == FERRY_OK) {
        err = prepare_all(s, e);
    }
    if (err == FERRY_OK) {
        err = read_source_id(s, e);
    }
    if (err == FERRY_OK && s->options.barrier) {
        err = open_barrier(s, e);
    }
    return err == FERRY_OK && s->first ? wake_listen(s->path, &s->wake_fd, e) : err;
}

enum ferry_err source_sqlite_open(struct source *source, const char *url,
                                  const struct source_options *options, struct err_text *e)
{
    static const char scheme[] = "sqlite:";
    if (strncmp(url, scheme, sizeof(scheme) - 1) != 0) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT, "%.100s: write sqlite:PATH", url);
    }
    struct source_sqlite *s = mem_zalloc(1, sizeof(*s));
    if (s == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    s->options = *options;
    s->lock_fd = -1;
    s->wake_fd = -1;
    s->wal_fd = -1;
    s->data_version = -1;
    enum ferry_err err = open_all(s, url + sizeof(scheme) - 1, e);
    if (err != FERRY_OK) {
        source_sqlite_ops.close(s);
        return err;
    }
    *source = (struct source){&source_sqlite_ops, s};
    return FERRY_OK;
}
