#include "outbox/sqlite/admin_sqlite.h"

#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/id.h"
#include "ferry_outbox.h"
#include "outbox/sqlite/relay_lock.h"
#include "outbox/sqlite/sqlite_error.h"

#define ADMIN_BUSY_MS 5000

static enum ferry_err open_file(const char *path, int flags, sqlite3 **connection,
                                struct err_text *e)
{
    int code = sqlite3_open_v2(path, connection, flags | SQLITE_OPEN_NOMUTEX, NULL);
    if (code != SQLITE_OK) {
        enum ferry_err err = err_set(e, FERRY_ERR_IO, "%s: %s", path, sqlite3_errmsg(*connection));
        sqlite3_close(*connection);
        *connection = NULL;
        return err;
    }
    sqlite3_busy_timeout(*connection, ADMIN_BUSY_MS);
    return FERRY_OK;
}

/* Opens for reading, checks the schema and begins a transaction, so that all figures are of one
 * moment. */
static enum ferry_err open_reading(const char *path, sqlite3 **connection, struct err_text *e)
{
    struct stat st;
    if (stat(path, &st) != 0) {
        return err_set(e, FERRY_ERR_IO, "%s: %s", path, strerror(errno));
    }
    enum ferry_err err = open_file(path, SQLITE_OPEN_READONLY, connection, e);
    if (err != FERRY_OK) {
        return err;
    }
    err = sqlite_schema_check(*connection, path, e);
    if (err == FERRY_OK) {
        int code = sqlite3_exec(*connection, "BEGIN", NULL, NULL, NULL);
        err = code == SQLITE_OK ? FERRY_OK : sqlite_error(*connection, code, path, e);
    }
    if (err != FERRY_OK) {
        sqlite3_close(*connection);
        *connection = NULL;
    }
    return err;
}

/* ---- Outbox status. */

/* One number; the parameter is bound where the statement has one. *found: there is one, not NULL.
 */
static enum ferry_err read_number(sqlite3 *connection, const char *sql, int64_t parameter,
                                  bool *found, int64_t *number, struct err_text *e)
{
    sqlite3_stmt *stmt = NULL;
    int code = sqlite3_prepare_v2(connection, sql, -1, &stmt, NULL);
    if (code == SQLITE_OK && sqlite3_bind_parameter_count(stmt) > 0) {
        code = sqlite3_bind_int64(stmt, 1, parameter);
    }
    if (code == SQLITE_OK) {
        code = sqlite3_step(stmt);
    }
    enum ferry_err err = FERRY_OK;
    *found = false;
    if (code == SQLITE_ROW) {
        *found = sqlite3_column_type(stmt, 0) != SQLITE_NULL;
        *number = sqlite3_column_int64(stmt, 0);
    } else if (code != SQLITE_DONE) {
        err = sqlite_error(connection, code, "reading the outbox", e);
    }
    sqlite3_finalize(stmt);
    return err;
}

static enum ferry_err read_source_id(sqlite3 *connection, struct ferry_id *id, struct err_text *e)
{
    sqlite3_stmt *stmt = NULL;
    int code = sqlite3_prepare_v2(
        connection, "SELECT value FROM ferry_meta WHERE name = 'source_uuid'", -1, &stmt, NULL);
    if (code == SQLITE_OK) {
        code = sqlite3_step(stmt);
    }
    enum ferry_err err = FERRY_OK;
    if (code == SQLITE_ROW && sqlite3_column_bytes(stmt, 0) == (int)sizeof(id->bytes)) {
        memcpy(id->bytes, sqlite3_column_blob(stmt, 0), sizeof(id->bytes));
    } else {
        err = err_set(e, FERRY_ERR_DB_SCHEMA, "ferry_meta has no source_uuid of 16 bytes");
    }
    sqlite3_finalize(stmt);
    return err;
}

static void read_word(const char *path, struct outbox_status *status)
{
    char *resolved = realpath(path, NULL);
    const char *name = resolved == NULL ? path : resolved;
    struct source_word word;
    status->relay_known = relay_lock_ask(name, &status->relay_running);
    status->beat_known = relay_lock_read(name, &word);
    if (status->beat_known) {
        status->beat_ms = word.beat_ms;
        status->relay_pid = word.pid;
        status->published_id = word.published_id;
        snprintf(status->relay_state, sizeof(status->relay_state), "%s", word.state);
    }
    free(resolved);
}

static enum ferry_err read_counts(sqlite3 *connection, struct outbox_status *status,
                                  struct err_text *e)
{
    const struct {
        const char *sql;
        int64_t *number;
    } questions[] = {
        {"SELECT value FROM ferry_meta WHERE name = 'schema_version'", &status->schema_version},
        {"SELECT max(coalesce((SELECT max(id) FROM ferry_outbox), 0), coalesce((SELECT seq FROM "
         "sqlite_sequence WHERE name = 'ferry_outbox'), 0))",
         &status->last_id},
        {"SELECT count(*) FROM ferry_outbox", &status->stored_rows},
        {"SELECT count(*) FROM ferry_outbox_dead", &status->dead_rows},
    };
    enum ferry_err err = FERRY_OK;
    for (size_t i = 0; err == FERRY_OK && i < sizeof(questions) / sizeof(questions[0]); i++) {
        bool found = false;
        err = read_number(connection, questions[i].sql, 0, &found, questions[i].number, e);
    }
    return err;
}

static enum ferry_err read_pending(sqlite3 *connection, struct outbox_status *status,
                                   struct err_text *e)
{
    /* A word from before the file was set back in time says nothing about these rows. */
    int64_t after =
        status->beat_known && status->published_id <= status->last_id ? status->published_id : 0;
    bool found = false;
    int64_t created_ms = 0;
    enum ferry_err err = read_number(connection, "SELECT count(*) FROM ferry_outbox WHERE id > ?1",
                                     after, &found, &status->pending_rows, e);
    if (err == FERRY_OK) {
        err = read_number(connection,
                          "SELECT created_ms FROM ferry_outbox WHERE id > ?1 ORDER BY id LIMIT 1",
                          after, &status->oldest_known, &created_ms, e);
    }
    if (err == FERRY_OK && status->oldest_known) {
        int64_t now_ms = clock_wall_ms();
        status->oldest_pending_ms = now_ms > created_ms ? now_ms - created_ms : 0;
    }
    return err;
}

enum ferry_err admin_sqlite_status(const char *path, struct outbox_status *status,
                                   struct err_text *e)
{
    sqlite3 *connection = NULL;
    struct outbox_status read = {0};
    enum ferry_err err = open_reading(path, &connection, e);
    if (err != FERRY_OK) {
        return err;
    }
    /* The word first: rows that are published after it count as pending, never the other way. */
    read_word(path, &read);
    err = read_counts(connection, &read, e);
    if (err == FERRY_OK) {
        err = read_source_id(connection, &read.source_id, e);
    }
    if (err == FERRY_OK) {
        err = read_pending(connection, &read, e);
    }
    if (err == FERRY_OK) {
        *status = read;
    }
    sqlite3_close(connection);
    return err;
}

/* ---- Inbox status. */

enum ferry_err admin_sqlite_inbox(const char *path, inbox_status_cb *callback, void *arg,
                                  struct err_text *e)
{
    static const char sql[] =
        "SELECT grp, topic_id, part, max(end_off), count(*), "
        "sum(before IS NOT NULL AND before <> start_off), "
        "(SELECT count(*) FROM ferry_inbox_skip s WHERE s.grp = c.grp AND s.topic_id = c.topic_id "
        "AND s.part = c.part) "
        "FROM (SELECT *, lag(end_off) OVER (PARTITION BY grp, topic_id, part ORDER BY start_off) "
        "AS before FROM ferry_inbox_chain) c GROUP BY grp, topic_id, part ORDER BY grp, topic_id, "
        "part";
    sqlite3 *connection = NULL;
    sqlite3_stmt *stmt = NULL;
    enum ferry_err err = open_reading(path, &connection, e);
    if (err != FERRY_OK) {
        return err;
    }
    int code = sqlite3_prepare_v2(connection, sql, -1, &stmt, NULL);
    bool more = true;
    while (more && code == SQLITE_OK && (code = sqlite3_step(stmt)) == SQLITE_ROW) {
        struct inbox_status status = {
            .group = (const char *)sqlite3_column_text(stmt, 0),
            .partition = sqlite3_column_int(stmt, 2),
            .position = sqlite3_column_int64(stmt, 3),
            .rows = sqlite3_column_int64(stmt, 4),
            .holes = sqlite3_column_int64(stmt, 5),
            .skips = sqlite3_column_int64(stmt, 6),
        };
        if (sqlite3_column_bytes(stmt, 1) == (int)sizeof(status.topic_id.bytes)) {
            memcpy(status.topic_id.bytes, sqlite3_column_blob(stmt, 1),
                   sizeof(status.topic_id.bytes));
        }
        more = callback(&status, arg);
        code = SQLITE_OK;
    }
    if (code != SQLITE_OK && code != SQLITE_DONE) {
        err = sqlite_error(connection, code, "reading ferry_inbox_chain", e);
    }
    sqlite3_finalize(stmt);
    sqlite3_close(connection);
    return err;
}

/* ---- Init. */

enum ferry_err admin_sqlite_init(const char *path, bool *created, struct err_text *e)
{
    sqlite3 *connection = NULL;
    struct ferry_db *db = NULL;
    struct stat st;
    bool missing = stat(path, &st) != 0;
    enum ferry_err err =
        open_file(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, &connection, e);
    if (err != FERRY_OK) {
        return err;
    }
    err = ferry_db_sqlite(&db, connection);
    if (err == FERRY_OK) {
        err = ferry_migrate(db);
        if (err != FERRY_OK) {
            err_set(e, err, "%s: %s", path, ferry_db_detail(db));
        }
    }
    if (err == FERRY_OK && created != NULL) {
        *created = missing;
    }
    ferry_db_free(&db);
    sqlite3_close(connection);
    return err;
}

/* ---- Ids. */

static bool column_id(sqlite3_stmt *stmt, struct ferry_id *id)
{
    if (sqlite3_column_type(stmt, 0) == SQLITE_TEXT) {
        return id_parse((const char *)sqlite3_column_text(stmt, 0), id);
    }
    if (sqlite3_column_type(stmt, 0) != SQLITE_BLOB ||
        sqlite3_column_bytes(stmt, 0) != (int)sizeof(id->bytes)) {
        return false;
    }
    memcpy(id->bytes, sqlite3_column_blob(stmt, 0), sizeof(id->bytes));
    return true;
}

static enum ferry_err prepare_select(sqlite3 *connection, const char *sql, sqlite3_stmt **stmt,
                                     struct err_text *e)
{
    const char *rest = NULL;
    if (sqlite3_prepare_v2(connection, sql, -1, stmt, &rest) != SQLITE_OK) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT, "the query: %s", sqlite3_errmsg(connection));
    }
    if (*stmt == NULL || sqlite3_column_count(*stmt) == 0 || !sqlite3_stmt_readonly(*stmt) ||
        rest[strspn(rest, " \t\r\n;")] != '\0') {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT,
                       "the query must be one SELECT whose first column is a message id");
    }
    return FERRY_OK;
}

static enum ferry_err each_id(sqlite3 *connection, sqlite3_stmt *stmt, outbox_ids_cb *callback,
                              void *arg, struct err_text *e)
{
    int code = SQLITE_ROW;
    for (int64_t row = 1; (code = sqlite3_step(stmt)) == SQLITE_ROW; row++) {
        struct ferry_id id;
        if (!column_id(stmt, &id)) {
            return err_set(e, FERRY_ERR_INVALID_ARGUMENT,
                           "row %lld of the query: its first column is no message id (16 bytes, or "
                           "a UUID as text)",
                           (long long)row);
        }
        if (!callback(&id, arg)) {
            return FERRY_OK;
        }
    }
    return code == SQLITE_DONE ? FERRY_OK : sqlite_error(connection, code, "the query", e);
}

/* Without the check of the schema: the ids may lie in a database of effects that has no Ferry
 * tables. */
enum ferry_err admin_sqlite_ids(const char *path, const char *sql, outbox_ids_cb *callback,
                                void *arg, struct err_text *e)
{
    sqlite3 *connection = NULL;
    sqlite3_stmt *stmt = NULL;
    enum ferry_err err = open_file(path, SQLITE_OPEN_READONLY, &connection, e);
    if (err != FERRY_OK) {
        return err;
    }
    err = prepare_select(connection, sql, &stmt, e);
    if (err == FERRY_OK) {
        err = each_id(connection, stmt, callback, arg, e);
    }
    sqlite3_finalize(stmt);
    sqlite3_close(connection);
    return err;
}
