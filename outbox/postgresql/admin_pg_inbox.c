/* The inbox, one message in it, and sagas that began in this database. */
#include <string.h>

#include "ferry_outbox.h"
#include "outbox/app/saga.h"
#include "outbox/postgresql/admin_pg.h"

enum ferry_err admin_pg_inbox(const char *url, inbox_status_cb *callback, void *arg,
                              struct err_text *e)
{
    static const char sql[] =
        "SELECT grp, topic_id, part, max(end_off), count(*), "
        "count(*) FILTER (WHERE before IS NOT NULL AND before <> start_off), "
        "(SELECT count(*) FROM @.inbox_skip s WHERE s.grp = c.grp AND s.topic_id = c.topic_id AND "
        "s.part = c.part), "
        "(SELECT count(*) FROM @.inbox_dead d WHERE d.grp = c.grp AND d.topic_id = c.topic_id AND "
        "d.part = c.part), false "
        "FROM (SELECT *, lag(end_off) OVER (PARTITION BY grp, topic_id, part ORDER BY start_off) "
        "AS "
        "before FROM @.inbox_chain) c GROUP BY grp, topic_id, part "
        "UNION ALL SELECT grp, '00000000-0000-0000-0000-000000000000', 0, 0, count(*), 0, 0, 0, "
        "true FROM @.inbox_id GROUP BY grp ORDER BY 9, 1, 2, 3";
    struct admin_pg a;
    PGresult *r = NULL;
    enum ferry_err err = admin_pg_open(&a, url, ADMIN_PG_READING, e);
    if (err != FERRY_OK) {
        return err;
    }
    err = admin_pg_ask(&a, sql, NULL, &r, e);
    for (int i = 0; err == FERRY_OK && i < PQntuples(r); i++) {
        struct inbox_status status = {
            .group = PQgetvalue(r, i, 0),
            .topic_id = admin_pg_id(r, i, 1),
            .partition = (int32_t)admin_pg_int(r, i, 2),
            .position = admin_pg_int(r, i, 3),
            .rows = admin_pg_int(r, i, 4),
            .holes = admin_pg_int(r, i, 5),
            .skips = admin_pg_int(r, i, 6),
            .dead = admin_pg_int(r, i, 7),
            .by_id = admin_pg_bool(r, i, 8),
        };
        if (!callback(&status, arg)) {
            break;
        }
    }
    PQclear(r);
    return admin_pg_end(&a, err, e);
}

/* ---- One message ---------------------------------------------------------------------------- */

/* A chain says of every offset before its end that it is done, and of those in the intervals that
 * are still kept, when. */
static enum ferry_err trace_chains(struct admin_pg *a, const struct ferry_id *topic_id,
                                   int32_t partition, int64_t offset, inbox_trace_cb *callback,
                                   void *arg, bool *more, struct err_text *e)
{
    static const char sql[] =
        "SELECT grp, max(end_off) > $3::bigint, (SELECT done_ms FROM @.inbox_chain i WHERE i.grp = "
        "c.grp AND i.topic_id = $1::uuid AND i.part = $2::int AND i.start_off <= $3 AND i.end_off "
        "> "
        "$3 AND i.start_off >= 0) FROM @.inbox_chain c WHERE topic_id = $1 AND part = $2 GROUP BY "
        "grp ORDER BY grp";
    struct admin_pg_params p = {0};
    PGresult *r = NULL;
    admin_pg_add_id(&p, topic_id);
    admin_pg_add_int(&p, partition);
    admin_pg_add_int(&p, offset);
    enum ferry_err err = admin_pg_ask(a, sql, &p, &r, e);
    for (int i = 0; err == FERRY_OK && *more && i < PQntuples(r); i++) {
        struct inbox_trace trace = {
            .group = PQgetvalue(r, i, 0),
            .by_chain = true,
            .done = admin_pg_bool(r, i, 1),
            .when_known = !PQgetisnull(r, i, 2),
            .done_ms = admin_pg_int(r, i, 2),
        };
        *more = callback(&trace, arg);
    }
    PQclear(r);
    return err;
}

static enum ferry_err trace_ids(struct admin_pg *a, const struct ferry_id *id,
                                inbox_trace_cb *callback, void *arg, struct err_text *e)
{
    struct admin_pg_params p = {0};
    PGresult *r = NULL;
    admin_pg_add_id(&p, id);
    enum ferry_err err = admin_pg_ask(
        a, "SELECT DISTINCT grp FROM @.inbox_id WHERE msg_id = $1::uuid ORDER BY grp", &p, &r, e);
    for (int i = 0; err == FERRY_OK && i < PQntuples(r); i++) {
        struct inbox_trace trace = {.group = PQgetvalue(r, i, 0), .done = true};
        if (!callback(&trace, arg)) {
            break;
        }
    }
    PQclear(r);
    return err;
}

enum ferry_err admin_pg_inbox_trace(const char *url, const struct ferry_id *id,
                                    const struct ferry_id *topic_id, int32_t partition,
                                    int64_t offset, inbox_trace_cb *callback, void *arg,
                                    struct err_text *e)
{
    struct admin_pg a;
    bool more = true;
    enum ferry_err err = admin_pg_open(&a, url, ADMIN_PG_READING, e);
    if (err != FERRY_OK) {
        return err;
    }
    if (topic_id != NULL && offset >= 0) {
        err = trace_chains(&a, topic_id, partition, offset, callback, arg, &more, e);
    }
    if (err == FERRY_OK && more && id != NULL) {
        err = trace_ids(&a, id, callback, arg, e);
    }
    return admin_pg_end(&a, err, e);
}

/* ---- Sagas ---------------------------------------------------------------------------------- */

static int32_t steps_of(struct bytes data)
{
    struct saga_plan plan;
    struct err_text ignored;
    return saga_plan_decode(data, &plan, &ignored) == FERRY_OK ? (int32_t)plan.count : 0;
}

static struct outbox_saga saga_of(const PGresult *r, int row)
{
    struct outbox_saga saga = {
        .id = admin_pg_id(r, row, 0),
        .type = PQgetvalue(r, row, 1),
        .state = ferry_saga_state_name((enum ferry_saga_state)admin_pg_int(r, row, 2)),
        .step = (int32_t)admin_pg_int(r, row, 3),
        .version = admin_pg_int(r, row, 4),
        .deadline_known = admin_pg_int(r, row, 5) > 0,
        .deadline_ms = admin_pg_int(r, row, 5),
        .reason = PQgetvalue(r, row, 6),
        .data = admin_pg_bytes(r, row, 7),
        .created_ms = admin_pg_int(r, row, 8),
        .changed_ms = admin_pg_int(r, row, 9),
    };
    saga.steps = steps_of(saga.data);
    return saga;
}

enum ferry_err admin_pg_sagas(const char *url, const struct ferry_id *only, const char *state,
                              outbox_saga_cb *callback, void *arg, struct err_text *e)
{
    static const char declare[] =
        "DECLARE ferry_sagas BINARY NO SCROLL CURSOR FOR SELECT saga_id, type, state, step, ver, "
        "deadline_ms, reason, data, created_ms, changed_ms FROM @.saga WHERE $1::uuid IS NULL OR "
        "saga_id = $1 ORDER BY created_ms, saga_id";
    struct admin_pg a;
    struct admin_pg_params p = {0};
    bool more = true;
    enum ferry_err err = admin_pg_open(&a, url, ADMIN_PG_READING, e);
    if (err != FERRY_OK) {
        return err;
    }
    admin_pg_add_id(&p, only);
    err = admin_pg_run(&a, declare, &p, NULL, e);
    while (err == FERRY_OK && more) {
        PGresult *r = NULL;
        err = admin_pg_ask(&a, "FETCH 100 FROM ferry_sagas", NULL, &r, e);
        int rows = err == FERRY_OK ? PQntuples(r) : 0;
        more = rows > 0;
        for (int i = 0; more && i < rows; i++) {
            struct outbox_saga saga = saga_of(r, i);
            if (state == NULL || strcmp(saga.state, state) == 0) {
                more = callback(&saga, arg);
            }
        }
        PQclear(r);
    }
    return admin_pg_end(&a, err, e);
}

/* `reason` NULL: retry. */
static enum ferry_err decide(const char *url, const struct ferry_id *id, const char *reason,
                             struct err_text *e)
{
    struct admin_pg a;
    struct ferry_db *db = NULL;
    enum ferry_err err = admin_pg_open(&a, url, ADMIN_PG_WRITING, e);
    if (err != FERRY_OK) {
        return err;
    }
    err = ferry_db_postgresql(&db, a.connection, a.url.schema);
    if (err == FERRY_OK) {
        err = reason == NULL ? saga_operator_retry(db, id, e)
                             : saga_operator_abort(db, id, reason, e);
    }
    err = admin_pg_commit(&a, err, e);
    if (err == FERRY_OK) {
        ferry_outbox_committed(db);
    }
    ferry_db_free(&db);
    admin_pg_close(&a);
    return err;
}

enum ferry_err admin_pg_saga_retry(const char *url, const struct ferry_id *id, struct err_text *e)
{
    return decide(url, id, NULL, e);
}

enum ferry_err admin_pg_saga_abort(const char *url, const struct ferry_id *id, const char *reason,
                                   struct err_text *e)
{
    return decide(url, id, reason, e);
}
