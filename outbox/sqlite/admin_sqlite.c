/* Opening and statements, and init, status and inbox status. */
#include "outbox/sqlite/admin_sqlite.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "ferry_outbox.h"
#include "outbox/sqlite/relay_lock.h"
#include "outbox/sqlite/schema_sqlite.h"
#include "outbox/sqlite/sqlite_error.h"

#define ADMIN_BUSY_MS 5000

/* ---- Opening -------------------------------------------------------------------------------- */

enum ferry_err admin_sqlite_path(const char *url, const char **path, struct err_text *e)
{
    static const char scheme[] = "sqlite:";
    if (strncmp(url, scheme, sizeof(scheme) - 1) != 0 || url[sizeof(scheme) - 1] == '\0' ||
        strlen(url) > OUTBOX_URL_MAX) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT,
                       "\"%.100s\" is not the URL of a SQLite file: write sqlite:PATH", url);
    }
    *path = url + sizeof(scheme) - 1;
    return FERRY_OK;
}

static enum ferry_err file_error(const struct admin_file *f, int code, struct err_text *e)
{
    return sqlite_error(f->connection, code, f->path, e);
}

static enum ferry_err file_open(struct admin_file *f, const char *url, int flags,
                                struct err_text *e)
{
    struct stat st;
    *f = (struct admin_file){0};
    enum ferry_err err = admin_sqlite_path(url, &f->path, e);
    if (err != FERRY_OK) {
        return err;
    }
    must(f->path != NULL);
    bool there = stat(f->path, &st) == 0;
    if ((flags & SQLITE_OPEN_CREATE) == 0 && !there) {
        return err_set(e, FERRY_ERR_IO, "%s: %s", f->path, strerror(errno));
    }
    if (there && S_ISDIR(st.st_mode)) { /* SQLite would say "disk I/O error". */
        return err_set(e, FERRY_ERR_IO, "%s: it is a folder: name the file in it", f->path);
    }
    int code = sqlite3_open_v2(f->path, &f->connection, flags | SQLITE_OPEN_NOMUTEX, NULL);
    if (code != SQLITE_OK) {
        err = err_set(e, FERRY_ERR_IO, "%s: %s", f->path, sqlite3_errmsg(f->connection));
        admin_sqlite_close(f);
        return err;
    }
    sqlite3_busy_timeout(f->connection, ADMIN_BUSY_MS);
    return FERRY_OK;
}

static enum ferry_err file_begin(struct admin_file *f, bool checked, const char *begin,
                                 struct err_text *e)
{
    enum ferry_err err = checked ? sqlite_schema_check(f->connection, f->path, e) : FERRY_OK;
    if (err == FERRY_OK) {
        int code = sqlite3_exec(f->connection, begin, NULL, NULL, NULL);
        err = code == SQLITE_OK ? FERRY_OK : file_error(f, code, e);
    }
    if (err != FERRY_OK) {
        admin_sqlite_close(f);
    }
    return err;
}

enum ferry_err admin_sqlite_open_reading(struct admin_file *f, const char *url, bool checked,
                                         struct err_text *e)
{
    enum ferry_err err = file_open(f, url, SQLITE_OPEN_READONLY, e);
    return err == FERRY_OK ? file_begin(f, checked, "BEGIN", e) : err;
}

enum ferry_err admin_sqlite_open_writing(struct admin_file *f, const char *url, struct err_text *e)
{
    enum ferry_err err = file_open(f, url, SQLITE_OPEN_READWRITE, e);
    return err == FERRY_OK ? file_begin(f, true, "BEGIN IMMEDIATE", e) : err;
}

enum ferry_err admin_sqlite_end(struct admin_file *f, enum ferry_err err, struct err_text *e)
{
    if (err == FERRY_OK) {
        int code = sqlite3_exec(f->connection, "COMMIT", NULL, NULL, NULL);
        err = code == SQLITE_OK ? FERRY_OK : file_error(f, code, e);
    }
    if (err != FERRY_OK && sqlite3_get_autocommit(f->connection) == 0) {
        sqlite3_exec(f->connection, "ROLLBACK", NULL, NULL, NULL);
    }
    return err;
}

void admin_sqlite_close(struct admin_file *f)
{
    sqlite3_close(f->connection);
    f->connection = NULL;
}

/* ---- Statements ----------------------------------------------------------------------------- */

enum ferry_err admin_sqlite_prepare(struct admin_file *f, const char *sql, sqlite3_stmt **stmt,
                                    struct err_text *e)
{
    int code = sqlite3_prepare_v2(f->connection, sql, -1, stmt, NULL);
    return code == SQLITE_OK ? FERRY_OK : file_error(f, code, e);
}

enum ferry_err admin_sqlite_run(struct admin_file *f, sqlite3_stmt *stmt, int64_t *changed,
                                struct err_text *e)
{
    int code = sqlite3_step(stmt);
    enum ferry_err err = code == SQLITE_DONE ? FERRY_OK : file_error(f, code, e);
    if (err == FERRY_OK && changed != NULL) {
        *changed = sqlite3_changes64(f->connection);
    }
    sqlite3_finalize(stmt);
    return err;
}

enum ferry_err admin_sqlite_step(struct admin_file *f, sqlite3_stmt *stmt, bool *row,
                                 struct err_text *e)
{
    int code = sqlite3_step(stmt);
    *row = code == SQLITE_ROW;
    return code == SQLITE_ROW || code == SQLITE_DONE ? FERRY_OK : file_error(f, code, e);
}

enum ferry_err admin_sqlite_number(struct admin_file *f, const char *sql, int64_t parameter,
                                   bool *found, int64_t *number, struct err_text *e)
{
    sqlite3_stmt *stmt = NULL;
    enum ferry_err err = admin_sqlite_prepare(f, sql, &stmt, e);
    *found = false;
    if (err != FERRY_OK) {
        return err;
    }
    if (sqlite3_bind_parameter_count(stmt) > 0) {
        sqlite3_bind_int64(stmt, 1, parameter);
    }
    err = admin_sqlite_step(f, stmt, found, e);
    if (err == FERRY_OK && *found) {
        *found = sqlite3_column_type(stmt, 0) != SQLITE_NULL;
        *number = sqlite3_column_int64(stmt, 0);
    }
    sqlite3_finalize(stmt);
    return err;
}

struct bytes admin_sqlite_bytes(sqlite3_stmt *stmt, int column)
{
    const void *data = sqlite3_column_blob(stmt, column);
    return bytes_of(data, (size_t)sqlite3_column_bytes(stmt, column));
}

void admin_sqlite_id(sqlite3_stmt *stmt, int column, struct ferry_id *id)
{
    struct bytes bytes = admin_sqlite_bytes(stmt, column);
    *id = (struct ferry_id){{0}};
    if (bytes.size == sizeof(id->bytes)) {
        memcpy(id->bytes, bytes.data, sizeof(id->bytes));
    }
}

void admin_sqlite_bind_id(sqlite3_stmt *stmt, int parameter, const struct ferry_id *id)
{
    if (id != NULL) {
        sqlite3_bind_blob(stmt, parameter, id->bytes, sizeof(id->bytes), SQLITE_TRANSIENT);
    }
}

void admin_sqlite_bind_bytes(sqlite3_stmt *stmt, int parameter, struct bytes bytes)
{
    if (bytes.data != NULL) {
        sqlite3_bind_blob64(stmt, parameter, bytes.data, bytes.size, SQLITE_TRANSIENT);
    }
}

enum ferry_err admin_sqlite_last_id(struct admin_file *f, int64_t *last, struct err_text *e)
{
    bool found = false;
    *last = 0;
    return admin_sqlite_number(f,
                               "SELECT max(coalesce((SELECT max(id) FROM ferry_outbox), 0), "
                               "coalesce((SELECT seq FROM sqlite_sequence WHERE name = "
                               "'ferry_outbox'), 0))",
                               0, &found, last, e);
}

/* ---- Outbox status -------------------------------------------------------------------------- */

void admin_sqlite_word(const struct admin_file *f, struct outbox_status *status)
{
    char *resolved = realpath(f->path, NULL);
    const char *name = resolved == NULL ? f->path : resolved;
    status->relay_known = relay_lock_ask(name, &status->relay_running);
    status->word_known = relay_lock_read(name, &status->word);
    free(resolved);
}

static enum ferry_err read_source_id(struct admin_file *f, struct ferry_id *id, struct err_text *e)
{
    sqlite3_stmt *stmt = NULL;
    bool row = false;
    enum ferry_err err = admin_sqlite_prepare(
        f, "SELECT value FROM ferry_meta WHERE name = 'source_uuid'", &stmt, e);
    if (err == FERRY_OK) {
        err = admin_sqlite_step(f, stmt, &row, e);
    }
    if (err == FERRY_OK && (!row || sqlite3_column_bytes(stmt, 0) != (int)sizeof(id->bytes))) {
        err = err_set(e, FERRY_ERR_DB_SCHEMA, "%s: ferry_meta has no source_uuid of 16 bytes",
                      f->path);
    } else if (err == FERRY_OK) {
        admin_sqlite_id(stmt, 0, id);
    }
    sqlite3_finalize(stmt);
    return err;
}

static enum ferry_err read_counts(struct admin_file *f, struct outbox_status *status,
                                  struct err_text *e)
{
    int64_t paused = 0;
    const struct {
        const char *sql;
        int64_t *number;
    } questions[] = {
        {"SELECT value FROM ferry_meta WHERE name = 'schema_version'", &status->schema_version},
        {"SELECT count(*) FROM ferry_outbox", &status->stored_rows},
        {"SELECT count(*) FROM ferry_outbox_dead WHERE parked = 0", &status->dead_rows},
        {"SELECT count(*) FROM ferry_outbox_dead WHERE parked <> 0", &status->parked_rows},
        {"SELECT count(*) FROM ferry_parked_key WHERE until_no = 0", &status->parked_keys},
        {"SELECT value FROM ferry_meta WHERE name = 'paused'", &paused},
    };
    enum ferry_err err = FERRY_OK;
    for (size_t i = 0; err == FERRY_OK && i < sizeof(questions) / sizeof(questions[0]); i++) {
        bool found = false;
        err = admin_sqlite_number(f, questions[i].sql, 0, &found, questions[i].number, e);
    }
    status->stored_known = true;
    status->paused = paused != 0;
    return err == FERRY_OK ? admin_sqlite_last_id(f, &status->last_id, e) : err;
}

static enum ferry_err read_pending(struct admin_file *f, struct outbox_status *status,
                                   struct err_text *e)
{
    int64_t after = admin_sqlite_published(status);
    int64_t created_ms = 0;
    bool found = false;
    enum ferry_err err = admin_sqlite_number(f, "SELECT count(*) FROM ferry_outbox WHERE id > ?1",
                                             after, &found, &status->pending_rows, e);
    status->pending_known = true;
    if (err == FERRY_OK) {
        err = admin_sqlite_number(
            f, "SELECT created_ms FROM ferry_outbox WHERE id > ?1 ORDER BY id LIMIT 1", after,
            &status->oldest_known, &created_ms, e);
    }
    if (err == FERRY_OK && status->oldest_known) {
        int64_t now_ms = clock_wall_ms();
        status->oldest_pending_ms = now_ms > created_ms ? now_ms - created_ms : 0;
    }
    return err;
}

/* A word from before the file was set back in time says nothing about these rows; without a word
 * every row counts as pending. */
int64_t admin_sqlite_published(const struct outbox_status *status)
{
    return status->word_known && status->word.published_id <= status->last_id
               ? status->word.published_id
               : 0;
}

static enum ferry_err admin_status(const char *url, const struct bytes *checkpoints,
                                   size_t checkpoint_count, struct outbox_status *status,
                                   struct err_text *e)
{
    (void)checkpoints; /* The word beside the file says the same without a broker. */
    (void)checkpoint_count;
    struct outbox_status read = {.lanes = 1};
    struct admin_file f;
    enum ferry_err err = admin_sqlite_open_reading(&f, url, true, e);
    if (err != FERRY_OK) {
        return err;
    }
    /* The word first: rows that are published after it count as pending, never the other way. */
    admin_sqlite_word(&f, &read);
    err = read_counts(&f, &read, e);
    if (err == FERRY_OK) {
        err = read_source_id(&f, &read.source_id, e);
    }
    if (err == FERRY_OK) {
        err = read_pending(&f, &read, e);
    }
    if (err == FERRY_OK) {
        *status = read;
    }
    admin_sqlite_close(&f);
    return err;
}

/* ---- Inbox status --------------------------------------------------------------------------- */

static enum ferry_err each_chain(struct admin_file *f, inbox_status_cb *callback, void *arg,
                                 bool *more, struct err_text *e)
{
    static const char sql[] =
        "SELECT grp, topic_id, part, max(end_off), count(*), "
        "sum(before IS NOT NULL AND before <> start_off), "
        "(SELECT count(*) FROM ferry_inbox_skip s WHERE s.grp = c.grp AND s.topic_id = c.topic_id "
        "AND s.part = c.part), "
        "(SELECT count(*) FROM ferry_inbox_dead d WHERE d.grp = c.grp AND d.topic_id = c.topic_id "
        "AND d.part = c.part) "
        "FROM (SELECT *, lag(end_off) OVER (PARTITION BY grp, topic_id, part ORDER BY start_off) "
        "AS before FROM ferry_inbox_chain) c GROUP BY grp, topic_id, part ORDER BY grp, topic_id, "
        "part";
    sqlite3_stmt *stmt = NULL;
    bool row = false;
    enum ferry_err err = admin_sqlite_prepare(f, sql, &stmt, e);
    while (*more && err == FERRY_OK && (err = admin_sqlite_step(f, stmt, &row, e)) == FERRY_OK &&
           row) {
        struct inbox_status status = {
            .group = (const char *)sqlite3_column_text(stmt, 0),
            .partition = sqlite3_column_int(stmt, 2),
            .position = sqlite3_column_int64(stmt, 3),
            .rows = sqlite3_column_int64(stmt, 4),
            .holes = sqlite3_column_int64(stmt, 5),
            .skips = sqlite3_column_int64(stmt, 6),
            .dead = sqlite3_column_int64(stmt, 7),
        };
        admin_sqlite_id(stmt, 1, &status.topic_id);
        *more = callback(&status, arg);
    }
    sqlite3_finalize(stmt);
    return err;
}

static enum ferry_err each_id_group(struct admin_file *f, inbox_status_cb *callback, void *arg,
                                    struct err_text *e)
{
    sqlite3_stmt *stmt = NULL;
    bool row = false;
    enum ferry_err err = admin_sqlite_prepare(
        f, "SELECT grp, count(*) FROM ferry_inbox_id GROUP BY grp ORDER BY grp", &stmt, e);
    while (err == FERRY_OK && (err = admin_sqlite_step(f, stmt, &row, e)) == FERRY_OK && row) {
        struct inbox_status status = {
            .group = (const char *)sqlite3_column_text(stmt, 0),
            .by_id = true,
            .rows = sqlite3_column_int64(stmt, 1),
        };
        if (!callback(&status, arg)) {
            break;
        }
    }
    sqlite3_finalize(stmt);
    return err;
}

static enum ferry_err admin_inbox(const char *url, inbox_status_cb *callback, void *arg,
                                  struct err_text *e)
{
    struct admin_file f;
    bool more = true;
    enum ferry_err err = admin_sqlite_open_reading(&f, url, true, e);
    if (err != FERRY_OK) {
        return err;
    }
    err = each_chain(&f, callback, arg, &more, e);
    if (err == FERRY_OK && more) {
        err = each_id_group(&f, callback, arg, e);
    }
    admin_sqlite_close(&f);
    return err;
}

/* ---- Init ----------------------------------------------------------------------------------- */

static enum ferry_err admin_init(const char *url, bool *created, struct err_text *e)
{
    struct admin_file f;
    struct ferry_db *db = NULL;
    bool found = false;
    int64_t tables = 0; /* Of Ferry: the file may be the application's, and older. */
    enum ferry_err err = file_open(&f, url, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, e);
    if (err != FERRY_OK) {
        return err;
    }
    err = admin_sqlite_number(&f, "SELECT count(*) FROM sqlite_master WHERE name = 'ferry_meta'", 0,
                              &found, &tables, e);
    if (err == FERRY_OK) {
        err = ferry_db_sqlite(&db, f.connection);
    }
    if (err == FERRY_OK) {
        err = ferry_migrate(db);
        if (err != FERRY_OK) {
            err_set(e, err, "%s: %s", f.path, ferry_db_detail(db));
        }
    }
    if (err == FERRY_OK && created != NULL) {
        *created = tables == 0;
    }
    ferry_db_free(&db);
    admin_sqlite_close(&f);
    return err;
}

static enum ferry_err admin_print_sql(const char *url, int from, FILE *out, struct err_text *e)
{
    const char *text;
    (void)url;
    if (from < 0 || from > SCHEMA_SQLITE_VERSION) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT, "the schema has versions 0 to %d",
                       SCHEMA_SQLITE_VERSION);
    }
    fputs("PRAGMA journal_mode = WAL;\nBEGIN IMMEDIATE;\n", out);
    for (int version = from + 1; (text = schema_sqlite_step(version)) != NULL; version++) {
        fprintf(out, "\n%s", text);
    }
    fputs("\nCOMMIT;\n", out);
    return ferror(out) ? err_set(e, FERRY_ERR_IO, "writing: %s", strerror(errno)) : FERRY_OK;
}

const struct outbox_admin_ops admin_sqlite_ops = {
    .init = admin_init,
    .print_sql = admin_print_sql,
    .status = admin_status,
    .rows = admin_sqlite_rows,
    .requeue = admin_sqlite_requeue,
    .skip = admin_sqlite_skip,
    .parked = admin_sqlite_parked,
    .park = admin_sqlite_park,
    .unpark = admin_sqlite_unpark,
    .set_paused = admin_sqlite_set_paused,
    .set_lanes = admin_sqlite_set_lanes,
    .rebase = admin_sqlite_rebase,
    .inbox = admin_inbox,
    .inbox_trace = admin_sqlite_inbox_trace,
    .inbox_requeue = admin_sqlite_inbox_requeue,
    .sagas = admin_sqlite_sagas,
    .saga_retry = admin_sqlite_saga_retry,
    .saga_abort = admin_sqlite_saga_abort,
    .figures = admin_sqlite_figures,
    .ids = admin_sqlite_ids,
    .bench_put = admin_sqlite_bench_put,
};
