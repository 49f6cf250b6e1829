/* db_sqlite: the application's side of outbox and inbox on a SQLite connection that the caller
 * owns. */
#include <sqlite3.h>
#include <string.h>

#include "base/mem.h"
#include "outbox/app/db.h"
#include "outbox/sqlite/schema_sqlite.h"
#include "outbox/sqlite/sqlite_error.h"

enum statement {
    STATEMENT_PUT,
    STATEMENT_CHAIN_END,
    STATEMENT_CHAIN_EXTEND,
    STATEMENT_CHAIN_TRIM,
    STATEMENT_SKIP_ADD,
    STATEMENT_BEGIN,
    STATEMENT_COMMIT,
    STATEMENT_COUNT
};

#define CHAIN_WHERE " grp = ?1 AND topic_id = ?2 AND part = ?3 "

static const char *statement_text(enum statement which)
{
    switch (which) {
    case STATEMENT_PUT:
        return "INSERT INTO main.ferry_outbox (topic, mkey, msg_id, headers, payload, created_ms) "
               "VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    case STATEMENT_CHAIN_END:
        return "SELECT end_off FROM main.ferry_inbox_chain WHERE" CHAIN_WHERE
               "ORDER BY start_off DESC LIMIT 1";
    case STATEMENT_CHAIN_EXTEND:
        return "INSERT INTO main.ferry_inbox_chain (grp, topic_id, part, start_off, end_off) "
               "VALUES (?1, ?2, ?3, ?4, ?5)";
    case STATEMENT_CHAIN_TRIM:
        return "DELETE FROM main.ferry_inbox_chain WHERE" CHAIN_WHERE
               "AND start_off < (SELECT start_off FROM main.ferry_inbox_chain WHERE" CHAIN_WHERE
               "ORDER BY start_off DESC LIMIT 1 OFFSET ?4)";
    case STATEMENT_SKIP_ADD:
        return "INSERT INTO main.ferry_inbox_skip (grp, topic_id, part, from_off, to_off, reason) "
               "VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    case STATEMENT_BEGIN:
        return "BEGIN IMMEDIATE";
    case STATEMENT_COMMIT:
        return "COMMIT";
    case STATEMENT_COUNT:
        break;
    }
    must(false);
    return NULL;
}

struct db_sqlite {
    sqlite3 *connection;                       /* The caller's. */
    bool schema_checked;                       /* The version was right when last looked at. */
    sqlite3_stmt *statements[STATEMENT_COUNT]; /* Prepared on first use. */
};

static void driver_close(void *driver)
{
    struct db_sqlite *d = driver;
    for (size_t i = 0; i < STATEMENT_COUNT; i++) {
        sqlite3_finalize(d->statements[i]);
    }
    mem_free(d);
}

static bool driver_in_transaction(void *driver)
{
    const struct db_sqlite *d = driver;
    return sqlite3_get_autocommit(d->connection) == 0;
}

static const char *driver_path(void *driver)
{
    const struct db_sqlite *d = driver;
    const char *path = sqlite3_db_filename(d->connection, "main");
    return path == NULL || path[0] == '\0' ? NULL : path;
}

/* The statement, ready to bind. A statement is only prepared on tables of our version. */
static enum ferry_err statement_get(struct db_sqlite *d, enum statement which, sqlite3_stmt **stmt,
                                    struct err_text *e)
{
    if (!d->schema_checked && which != STATEMENT_BEGIN && which != STATEMENT_COMMIT) {
        const char *path = driver_path(d);
        enum ferry_err err =
            sqlite_schema_check(d->connection, path == NULL ? "the database" : path, e);
        if (err != FERRY_OK) {
            return err;
        }
        d->schema_checked = true;
    }
    if (d->statements[which] == NULL) {
        int code = sqlite3_prepare_v3(d->connection, statement_text(which), -1,
                                      SQLITE_PREPARE_PERSISTENT, &d->statements[which], NULL);
        if (code != SQLITE_OK) {
            return sqlite_error(d->connection, code, "preparing a statement", e);
        }
    }
    *stmt = d->statements[which];
    return FERRY_OK;
}

/* Runs a bound statement that returns no rows, and resets it. Bound bytes are the caller's, so they
 * must not stay bound. */
static enum ferry_err statement_run(struct db_sqlite *d, sqlite3_stmt *stmt, const char *doing,
                                    struct err_text *e)
{
    int code = sqlite3_step(stmt);
    enum ferry_err err = FERRY_OK;
    if (code != SQLITE_DONE) {
        err = sqlite_error(d->connection, code, doing, e);
    }
    sqlite3_reset(stmt);
    sqlite3_clear_bindings(stmt);
    return err;
}

/* Binding fails only for lack of memory and for sizes past SQLite's limit. */
static int bind_blob(sqlite3_stmt *stmt, int at, struct bytes value)
{
    return sqlite3_bind_blob64(stmt, at, value.size == 0 ? "" : (const void *)value.data,
                               value.size, SQLITE_STATIC);
}

static int bind_chain(sqlite3_stmt *stmt, const struct db_chain *chain)
{
    int code = sqlite3_bind_text(stmt, 1, chain->group, -1, SQLITE_STATIC);
    if (code == SQLITE_OK) {
        code = bind_blob(stmt, 2, bytes_of(chain->topic_id->bytes, sizeof(chain->topic_id->bytes)));
    }
    return code == SQLITE_OK ? sqlite3_bind_int(stmt, 3, chain->partition) : code;
}

static enum ferry_err bind_failed(struct db_sqlite *d, sqlite3_stmt *stmt, int code,
                                  struct err_text *e)
{
    sqlite3_clear_bindings(stmt);
    return sqlite_error(d->connection, code, "binding a value", e);
}

static int bind_row(sqlite3_stmt *stmt, const struct db_row *row)
{
    int code = sqlite3_bind_text64(stmt, 1, (const char *)row->topic.data, row->topic.size,
                                   SQLITE_STATIC, SQLITE_UTF8);
    if (code == SQLITE_OK && row->has_key) {
        code = bind_blob(stmt, 2, row->key);
    }
    if (code == SQLITE_OK) {
        code = bind_blob(stmt, 3, bytes_of(row->id.bytes, sizeof(row->id.bytes)));
    }
    if (code == SQLITE_OK && row->headers.size > 0) {
        code = bind_blob(stmt, 4, row->headers);
    }
    if (code == SQLITE_OK) {
        code = bind_blob(stmt, 5, row->payload);
    }
    return code == SQLITE_OK ? sqlite3_bind_int64(stmt, 6, row->created_ms) : code;
}

static enum ferry_err driver_put(void *driver, const struct db_row *row, struct err_text *e)
{
    struct db_sqlite *d = driver;
    sqlite3_stmt *stmt = NULL;
    enum ferry_err err = statement_get(d, STATEMENT_PUT, &stmt, e);
    if (err != FERRY_OK) {
        return err;
    }
    int code = bind_row(stmt, row);
    if (code != SQLITE_OK) {
        return bind_failed(d, stmt, code, e);
    }
    return statement_run(d, stmt, "inserting into ferry_outbox", e);
}

static enum ferry_err driver_chain_end(void *driver, const struct db_chain *chain, bool *found,
                                       int64_t *end, struct err_text *e)
{
    struct db_sqlite *d = driver;
    sqlite3_stmt *stmt = NULL;
    enum ferry_err err = statement_get(d, STATEMENT_CHAIN_END, &stmt, e);
    if (err != FERRY_OK) {
        return err;
    }
    int code = bind_chain(stmt, chain);
    if (code != SQLITE_OK) {
        return bind_failed(d, stmt, code, e);
    }
    code = sqlite3_step(stmt);
    if (code == SQLITE_ROW) {
        *found = true;
        *end = sqlite3_column_int64(stmt, 0);
    } else if (code == SQLITE_DONE) {
        *found = false;
    } else {
        err = sqlite_error(d->connection, code, "reading ferry_inbox_chain", e);
    }
    sqlite3_reset(stmt);
    sqlite3_clear_bindings(stmt);
    return err;
}

static enum ferry_err chain_insert(struct db_sqlite *d, const struct db_chain *chain, int64_t start,
                                   int64_t end, struct err_text *e)
{
    sqlite3_stmt *stmt = NULL;
    enum ferry_err err = statement_get(d, STATEMENT_CHAIN_EXTEND, &stmt, e);
    if (err != FERRY_OK) {
        return err;
    }
    int code = bind_chain(stmt, chain);
    if (code != SQLITE_OK) {
        return bind_failed(d, stmt, code, e);
    }
    sqlite3_bind_int64(stmt, 4, start);
    sqlite3_bind_int64(stmt, 5, end);
    code = sqlite3_step(stmt);
    if (code == SQLITE_CONSTRAINT) {
        err = err_set(e, FERRY_ERR_DB_RETRY,
                      "another consumer has done offset %lld already: roll back and fetch again",
                      (long long)start);
    } else if (code != SQLITE_DONE) {
        err = sqlite_error(d->connection, code, "inserting into ferry_inbox_chain", e);
    }
    sqlite3_reset(stmt);
    sqlite3_clear_bindings(stmt);
    return err;
}

static enum ferry_err chain_trim(struct db_sqlite *d, const struct db_chain *chain,
                                 struct err_text *e)
{
    sqlite3_stmt *stmt = NULL;
    enum ferry_err err = statement_get(d, STATEMENT_CHAIN_TRIM, &stmt, e);
    if (err != FERRY_OK) {
        return err;
    }
    int code = bind_chain(stmt, chain);
    if (code != SQLITE_OK) {
        return bind_failed(d, stmt, code, e);
    }
    sqlite3_bind_int(stmt, 4, DB_CHAIN_ROWS_MAX - 1);
    return statement_run(d, stmt, "trimming ferry_inbox_chain", e);
}

static enum ferry_err driver_chain_extend(void *driver, const struct db_chain *chain, int64_t start,
                                          int64_t end, struct err_text *e)
{
    enum ferry_err err = chain_insert(driver, chain, start, end, e);
    return err == FERRY_OK ? chain_trim(driver, chain, e) : err;
}

static enum ferry_err driver_skip_add(void *driver, const struct db_chain *chain, int64_t from,
                                      int64_t to, const char *reason, struct err_text *e)
{
    struct db_sqlite *d = driver;
    sqlite3_stmt *stmt = NULL;
    enum ferry_err err = statement_get(d, STATEMENT_SKIP_ADD, &stmt, e);
    if (err != FERRY_OK) {
        return err;
    }
    int code = bind_chain(stmt, chain);
    if (code == SQLITE_OK) {
        code = sqlite3_bind_text(stmt, 6, reason, -1, SQLITE_STATIC);
    }
    if (code != SQLITE_OK) {
        return bind_failed(d, stmt, code, e);
    }
    sqlite3_bind_int64(stmt, 4, from);
    sqlite3_bind_int64(stmt, 5, to);
    return statement_run(d, stmt, "inserting into ferry_inbox_skip", e);
}

static enum ferry_err driver_begin(void *driver, struct err_text *e)
{
    struct db_sqlite *d = driver;
    sqlite3_stmt *stmt = NULL;
    enum ferry_err err = statement_get(d, STATEMENT_BEGIN, &stmt, e);
    return err == FERRY_OK ? statement_run(d, stmt, "BEGIN IMMEDIATE", e) : err;
}

static enum ferry_err driver_commit(void *driver, struct err_text *e)
{
    struct db_sqlite *d = driver;
    sqlite3_stmt *stmt = NULL;
    enum ferry_err err = statement_get(d, STATEMENT_COMMIT, &stmt, e);
    return err == FERRY_OK ? statement_run(d, stmt, "COMMIT", e) : err;
}

static void driver_rollback(void *driver)
{
    struct db_sqlite *d = driver;
    if (driver_in_transaction(d)) {
        sqlite3_exec(d->connection, "ROLLBACK", NULL, NULL, NULL);
    }
}

static enum ferry_err exec(struct db_sqlite *d, const char *sql, const char *doing,
                           struct err_text *e)
{
    int code = sqlite3_exec(d->connection, sql, NULL, NULL, NULL);
    return code == SQLITE_OK ? FERRY_OK : sqlite_error(d->connection, code, doing, e);
}

/* WAL lets the relay read while the application writes. A database in memory answers "memory": it
 * has no relay, and the inbox works there as well. */
static enum ferry_err set_journal(struct db_sqlite *d, struct err_text *e)
{
    sqlite3_stmt *stmt = NULL;
    int code = sqlite3_prepare_v2(d->connection, "PRAGMA main.journal_mode = WAL", -1, &stmt, NULL);
    if (code == SQLITE_OK) {
        code = sqlite3_step(stmt);
    }
    enum ferry_err err = FERRY_OK;
    if (code != SQLITE_ROW) {
        err = sqlite_error(d->connection, code, "setting the journal to WAL", e);
    } else {
        const char *mode = (const char *)sqlite3_column_text(stmt, 0);
        if (mode == NULL || (strcmp(mode, "wal") != 0 && strcmp(mode, "memory") != 0)) {
            err =
                err_set(e, FERRY_ERR_DB,
                        "the journal stays \"%s\": the file system or another connection does not "
                        "allow WAL",
                        mode == NULL ? "?" : mode);
        }
    }
    sqlite3_finalize(stmt);
    return err;
}

/* In the transaction: looks again, because another process may have been faster. */
static enum ferry_err migrate_steps(struct db_sqlite *d, struct err_text *e)
{
    int64_t version = 0;
    enum ferry_err err = sqlite_schema_version(d->connection, &version, e);
    for (int step = (int)version + 1; err == FERRY_OK && step <= SCHEMA_SQLITE_VERSION; step++) {
        const char *sql = schema_sqlite_step(step);
        must(sql != NULL);
        err = exec(d, sql, "making Ferry's tables", e);
    }
    return err;
}

static enum ferry_err driver_migrate(void *driver, struct err_text *e)
{
    struct db_sqlite *d = driver;
    int64_t version = 0;
    enum ferry_err err = sqlite_schema_version(d->connection, &version, e);
    if (err != FERRY_OK) {
        return err;
    }
    if (version > SCHEMA_SQLITE_VERSION) {
        return err_set(e, FERRY_ERR_NEWER_FORMAT,
                       "the Ferry tables have version %lld, this library knows %d: use a newer one",
                       (long long)version, SCHEMA_SQLITE_VERSION);
    }
    err = set_journal(d, e);
    if (err != FERRY_OK || version == SCHEMA_SQLITE_VERSION) {
        return err;
    }
    err = driver_begin(d, e);
    if (err == FERRY_OK) {
        err = migrate_steps(d, e);
    }
    if (err == FERRY_OK) {
        err = driver_commit(d, e);
    }
    if (err != FERRY_OK) {
        driver_rollback(d);
    }
    return err;
}

static const struct db_ops sqlite_ops = {
    .close = driver_close,
    .in_transaction = driver_in_transaction,
    .path = driver_path,
    .migrate = driver_migrate,
    .put = driver_put,
    .chain_end = driver_chain_end,
    .chain_extend = driver_chain_extend,
    .skip_add = driver_skip_add,
    .begin = driver_begin,
    .commit = driver_commit,
    .rollback = driver_rollback,
};

enum ferry_err ferry_db_sqlite(struct ferry_db **db, struct sqlite3 *connection)
{
    if (connection == NULL) {
        return FERRY_ERR_DB;
    }
    struct db_sqlite *d = mem_zalloc(1, sizeof(*d));
    if (d == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    d->connection = connection;
    enum ferry_err err = db_new(db, &sqlite_ops, d);
    if (err != FERRY_OK) {
        driver_close(d);
    }
    return err;
}
