/* What the relay writes to a SQLite outbox, and what people have decided there. */
#include <sqlite3.h>

#include "outbox/sqlite/source_sqlite.h"
#include "outbox/sqlite/sqlite_error.h"

static enum ferry_err write_step(struct source_sqlite *s, enum source_statement which,
                                 struct err_text *e)
{
    int code = sqlite3_step(s->statements[which]);
    enum ferry_err err = code == SQLITE_DONE ? FERRY_OK : sqlite_error(s->writer, code, s->path, e);
    sqlite3_reset(s->statements[which]);
    return err;
}

static enum ferry_err write_end(struct source_sqlite *s, enum ferry_err err, struct err_text *e)
{
    if (err == FERRY_OK) {
        err = write_step(s, STATEMENT_COMMIT, e);
    }
    if (err != FERRY_OK && sqlite3_get_autocommit(s->writer) == 0) {
        sqlite3_exec(s->writer, "ROLLBACK", NULL, NULL, NULL);
    }
    return err;
}

static enum ferry_err remove_slice(struct source_sqlite *s, int64_t through, size_t rows_max,
                                   size_t *removed, struct err_text *e)
{
    sqlite3_bind_int64(s->statements[STATEMENT_SLICE_END], 1, through);
    sqlite3_bind_int64(s->statements[STATEMENT_SLICE_END], 2, (int64_t)rows_max);
    bool found = false;
    int64_t slice_end = 0;
    enum ferry_err err = source_sqlite_number(s, STATEMENT_SLICE_END, &found, &slice_end, e);
    if (err != FERRY_OK || !found) {
        return err;
    }
    must(slice_end <= through);
    sqlite3_bind_int64(s->statements[STATEMENT_REMOVE], 1, slice_end);
    err = write_step(s, STATEMENT_REMOVE, e);
    if (err == FERRY_OK) {
        *removed = (size_t)sqlite3_changes64(s->writer);
    }
    return err;
}

/* Published rows wait for a quiet moment, unless there are many. */
static bool tidy_is_due(const struct source_sqlite *s, const struct source_progress *progress)
{
    return s->options.tidy && progress->settled > s->deleted &&
           (progress->quiet || progress->stopping ||
            progress->settled - s->deleted > s->options.delete_backlog_rows);
}

enum ferry_err source_sqlite_tidy(void *driver, const struct source_progress *progress,
                                  size_t *removed, bool *again, struct err_text *e)
{
    struct source_sqlite *s = driver;
    size_t slice = (size_t)s->options.delete_rows;
    if (!tidy_is_due(s, progress)) {
        return FERRY_OK;
    }
    enum ferry_err err = write_step(s, STATEMENT_BEGIN, e);
    if (err == FERRY_OK) {
        err = write_end(s, remove_slice(s, progress->settled, slice, removed, e), e);
    }
    if (err != FERRY_OK) {
        *removed = 0;
        return err;
    }
    *again = *removed == slice;
    s->deleted = *again ? s->deleted + (int64_t)*removed : progress->settled;
    return FERRY_OK;
}

/* ---- Setting aside. */

static void bind_key(const struct source_sqlite *s, sqlite3_stmt *stmt,
                     const struct source_row *row)
{
    sqlite3_bind_int64(stmt, 1, s->options.lane);
    sqlite3_bind_text(stmt, 2, row->message.topic, -1, SQLITE_STATIC);
    if (row->message.key_bytes == 0) {
        sqlite3_bind_zeroblob(stmt, 3, 0); /* Without memory it would be NULL. */
    } else {
        sqlite3_bind_blob64(stmt, 3, row->message.key, row->message.key_bytes, SQLITE_STATIC);
    }
}

static enum ferry_err park(struct source_sqlite *s, const struct source_row *row,
                           struct err_text *e)
{
    sqlite3_stmt *stmt = s->statements[STATEMENT_PARK];
    bind_key(s, stmt, row);
    enum ferry_err err = write_step(s, STATEMENT_PARK, e);
    sqlite3_clear_bindings(stmt);
    return err;
}

/* Or gone: moved when its key was freed, or taken out. */
static enum ferry_err is_parked(struct source_sqlite *s, const struct source_row *row, bool *parked,
                                struct err_text *e)
{
    sqlite3_stmt *stmt = s->statements[STATEMENT_IS_PARKED];
    int64_t one = 0;
    bind_key(s, stmt, row);
    sqlite3_bind_int64(stmt, 4, row->number);
    enum ferry_err err = source_sqlite_number(s, STATEMENT_IS_PARKED, parked, &one, e);
    sqlite3_clear_bindings(stmt);
    return err;
}

static enum ferry_err move_to_dead(struct source_sqlite *s, const struct source_row *row,
                                   enum source_aside why, const char *reason, struct err_text *e)
{
    sqlite3_stmt *copy = s->statements[STATEMENT_COPY_DEAD];
    sqlite3_bind_int64(copy, 1, row->number);
    sqlite3_bind_text(copy, 2, reason, -1, SQLITE_STATIC);
    sqlite3_bind_int(copy, 3, why == SOURCE_ASIDE_PARKED);
    enum ferry_err err = write_step(s, STATEMENT_COPY_DEAD, e);
    sqlite3_clear_bindings(copy);
    if (err == FERRY_OK) {
        sqlite3_bind_int64(s->statements[STATEMENT_REMOVE_ONE], 1, row->number);
        err = write_step(s, STATEMENT_REMOVE_ONE, e);
    }
    return err;
}

static enum ferry_err set_aside(struct source_sqlite *s, const struct source_row *row,
                                enum source_aside why, const char *reason, bool *done,
                                struct err_text *e)
{
    enum ferry_err err = FERRY_OK;
    *done = true;
    if (why == SOURCE_ASIDE_PARK) {
        err = park(s, row, e);
    } else if (why == SOURCE_ASIDE_PARKED) {
        err = is_parked(s, row, done, e);
    }
    return err == FERRY_OK && *done ? move_to_dead(s, row, why, reason, e) : err;
}

enum ferry_err source_sqlite_set_aside(void *driver, const struct source_row *row,
                                       enum source_aside why, const char *reason, bool *done,
                                       struct err_text *e)
{
    struct source_sqlite *s = driver;
    enum ferry_err err = write_step(s, STATEMENT_BEGIN, e);
    return err != FERRY_OK ? err : write_end(s, set_aside(s, row, why, reason, done, e), e);
}

/* ---- What people have decided. */

enum ferry_err source_sqlite_decided(void *driver, int64_t number, bool *decided,
                                     struct err_text *e)
{
    struct source_sqlite *s = driver;
    int64_t there = 0;
    bool found = false;
    sqlite3_bind_int64(s->statements[STATEMENT_DECIDED], 1, number);
    enum ferry_err err = source_sqlite_number(s, STATEMENT_DECIDED, &found, &there, e);
    *decided = found && there == 0; /* Skipped, or deleted by hand. */
    return err;
}

enum ferry_err source_sqlite_parked(void *driver, source_parked_cb *callback, void *arg,
                                    struct err_text *e)
{
    struct source_sqlite *s = driver;
    sqlite3_stmt *stmt = s->statements[STATEMENT_PARKED];
    int code = SQLITE_ROW;
    sqlite3_bind_int64(stmt, 1, s->options.lane);
    while ((code = sqlite3_step(stmt)) == SQLITE_ROW) {
        callback((const char *)sqlite3_column_text(stmt, 0), source_sqlite_column(stmt, 1),
                 sqlite3_column_int64(stmt, 2), arg);
    }
    enum ferry_err err = code == SQLITE_DONE ? FERRY_OK : sqlite_error(s->reader, code, s->path, e);
    sqlite3_reset(stmt);
    return err;
}

enum ferry_err source_sqlite_paused(void *driver, bool *paused, struct err_text *e)
{
    bool found = false;
    int64_t value = 0;
    enum ferry_err err = source_sqlite_number(driver, STATEMENT_PAUSED, &found, &value, e);
    *paused = found && value != 0;
    return err;
}
