/* Sagas that began in this database: the list, and what a person decides. */
#include <string.h>

#include "outbox/app/db.h"
#include "outbox/app/saga.h"
#include "outbox/sqlite/admin_sqlite.h"

static int32_t steps_of(struct bytes data)
{
    struct saga_plan plan;
    struct err_text ignored;
    return saga_plan_decode(data, &plan, &ignored) == FERRY_OK ? (int32_t)plan.count : 0;
}

static struct outbox_saga saga_of(sqlite3_stmt *stmt)
{
    struct outbox_saga saga = {
        .type = (const char *)sqlite3_column_text(stmt, 1),
        .state = ferry_saga_state_name((enum ferry_saga_state)sqlite3_column_int(stmt, 2)),
        .step = sqlite3_column_int(stmt, 3),
        .version = sqlite3_column_int64(stmt, 4),
        .deadline_known = sqlite3_column_int64(stmt, 5) > 0,
        .deadline_ms = sqlite3_column_int64(stmt, 5),
        .reason = (const char *)sqlite3_column_text(stmt, 6),
        .data = admin_sqlite_bytes(stmt, 7),
        .created_ms = sqlite3_column_int64(stmt, 8),
        .changed_ms = sqlite3_column_int64(stmt, 9),
    };
    admin_sqlite_id(stmt, 0, &saga.id);
    saga.steps = steps_of(saga.data);
    return saga;
}

enum ferry_err admin_sqlite_sagas(const char *url, const struct ferry_id *only, const char *state,
                                  outbox_saga_cb *callback, void *arg, struct err_text *e)
{
    static const char sql[] =
        "SELECT saga_id, type, state, step, ver, deadline_ms, reason, data, created_ms, changed_ms "
        "FROM ferry_saga WHERE ?1 IS NULL OR saga_id = ?1 ORDER BY created_ms, saga_id";
    struct admin_file f;
    sqlite3_stmt *stmt = NULL;
    bool more = true;
    enum ferry_err err = admin_sqlite_open_reading(&f, url, true, e);
    if (err != FERRY_OK) {
        return err;
    }
    err = admin_sqlite_prepare(&f, sql, &stmt, e);
    if (err == FERRY_OK) {
        admin_sqlite_bind_id(stmt, 1, only);
    }
    while (more && err == FERRY_OK && (err = admin_sqlite_step(&f, stmt, &more, e)) == FERRY_OK &&
           more) {
        struct outbox_saga saga = saga_of(stmt);
        if (state == NULL || strcmp(saga.state, state) == 0) {
            more = callback(&saga, arg);
        }
    }
    sqlite3_finalize(stmt);
    admin_sqlite_close(&f);
    return err;
}

/* `reason` NULL: retry. */
static enum ferry_err decide(const char *url, const struct ferry_id *id, const char *reason,
                             struct err_text *e)
{
    struct admin_file f;
    struct ferry_db *db = NULL;
    enum ferry_err err = admin_sqlite_open_writing(&f, url, e);
    if (err != FERRY_OK) {
        return err;
    }
    err = ferry_db_sqlite(&db, f.connection);
    if (err == FERRY_OK) {
        err = reason == NULL ? saga_operator_retry(db, id, e)
                             : saga_operator_abort(db, id, reason, e);
    }
    err = admin_sqlite_end(&f, err, e);
    if (err == FERRY_OK) {
        ferry_outbox_committed(db);
    }
    ferry_db_free(&db);
    admin_sqlite_close(&f);
    return err;
}

enum ferry_err admin_sqlite_saga_retry(const char *url, const struct ferry_id *id,
                                       struct err_text *e)
{
    return decide(url, id, NULL, e);
}

enum ferry_err admin_sqlite_saga_abort(const char *url, const struct ferry_id *id,
                                       const char *reason, struct err_text *e)
{
    return decide(url, id, reason, e);
}
