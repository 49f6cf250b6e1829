/* Sagas that began in this database: the list, and what a person decides. */
#include <string.h>

#include "outbox/app/db.h"
#include "outbox/app/saga.h"
#include "outbox/mariadb/admin_mariadb.h"

static int32_t steps_of(struct bytes data)
{
    struct saga_plan plan;
    struct err_text ignored;
    return saga_plan_decode(data, &plan, &ignored) == FERRY_OK ? (int32_t)plan.count : 0;
}

static struct outbox_saga saga_of(MYSQL_RES *result, MYSQL_ROW row)
{
    struct outbox_saga saga = {
        .type = row[1],
        .state = ferry_saga_state_name((enum ferry_saga_state)admin_maria_int(row, 2)),
        .step = (int32_t)admin_maria_int(row, 3),
        .version = admin_maria_int(row, 4),
        .deadline_known = admin_maria_int(row, 5) > 0,
        .deadline_ms = admin_maria_int(row, 5),
        .reason = row[6],
        .data = admin_maria_column(result, row, 7),
        .created_ms = admin_maria_int(row, 8),
        .changed_ms = admin_maria_int(row, 9),
    };
    admin_maria_column_id(result, row, 0, &saga.id);
    saga.steps = steps_of(saga.data);
    return saga;
}

enum ferry_err admin_maria_sagas(const char *url, const struct ferry_id *only, const char *state,
                                 outbox_saga_cb *callback, void *arg, struct err_text *e)
{
    struct admin_maria a;
    MYSQL_RES *result = NULL;
    MYSQL_ROW row = NULL;
    enum ferry_err err = admin_maria_read(&a, url, true, e);
    if (err != FERRY_OK) {
        return err;
    }
    buf_printf(admin_maria_sql(&a), "SELECT saga_id, type, state, step, ver, deadline_ms, reason, "
                                    "data, created_ms, changed_ms FROM ferry_saga");
    if (only != NULL) {
        buf_printf(&a.sql, " WHERE saga_id = ");
        admin_maria_id(&a, only);
    }
    buf_printf(&a.sql, " ORDER BY created_ms, saga_id");
    err = admin_maria_query(&a, &result, e);
    bool more = true;
    while (more && err == FERRY_OK && (err = admin_maria_next(&a, result, &row, e)) == FERRY_OK &&
           row != NULL) {
        struct outbox_saga saga = saga_of(result, row);
        if (state == NULL || strcmp(saga.state, state) == 0) {
            more = callback(&saga, arg);
        }
    }
    mysql_free_result(result);
    return admin_maria_end(&a, err, e);
}

/* `reason` NULL: retry. */
static enum ferry_err decide(const char *url, const struct ferry_id *id, const char *reason,
                             struct err_text *e)
{
    struct admin_maria a;
    struct ferry_db *db = NULL;
    enum ferry_err err = admin_maria_write(&a, url, e);
    if (err != FERRY_OK) {
        return err;
    }
    err = ferry_db_mariadb(&db, a.connection);
    if (err == FERRY_OK) {
        err = reason == NULL ? saga_operator_retry(db, id, e)
                             : saga_operator_abort(db, id, reason, e);
    }
    if (err == FERRY_OK) {
        buf_printf(admin_maria_sql(&a), "COMMIT");
        err = admin_maria_run(&a, NULL, e);
    }
    if (err == FERRY_OK) {
        ferry_outbox_committed(db);
    }
    ferry_db_free(&db);
    return admin_maria_end(&a, err, e);
}

enum ferry_err admin_maria_saga_retry(const char *url, const struct ferry_id *id,
                                      struct err_text *e)
{
    return decide(url, id, NULL, e);
}

enum ferry_err admin_maria_saga_abort(const char *url, const struct ferry_id *id,
                                      const char *reason, struct err_text *e)
{
    return decide(url, id, reason, e);
}
