/* Decisions about rows: requeue, skip, pause, and keys that are parked. */
#include "outbox/mariadb/admin_mariadb.h"
#include "outbox/mariadb/schema_mariadb.h"

#define ROW_COLUMNS "lane, topic, mkey, msg_id, headers, payload, created_ms"

/* ---- Requeue. */

/* The numbers of the dead rows that the filter means, locked, as a list for IN (…): appended to
 * `list`. */
static enum ferry_err choose(struct admin_maria *a, enum outbox_table table,
                             const struct outbox_filter *filter, struct buf *list, int64_t *count,
                             struct err_text *e)
{
    MYSQL_RES *result = NULL;
    MYSQL_ROW row = NULL;
    bool inbox = table == INBOX_TABLE_DEAD;
    *count = 0;
    buf_printf(admin_maria_sql(a),
               inbox ? "SELECT number FROM ferry_inbox_dead" : "SELECT id FROM ferry_outbox_dead");
    enum ferry_err err = admin_maria_where(a, table, filter, e);
    buf_printf(&a->sql, " AND NOT %s ORDER BY 1 LIMIT %zu FOR UPDATE",
               inbox ? "requeued" : "parked", admin_maria_limit(filter));
    if (err == FERRY_OK) {
        err = admin_maria_query(a, &result, e);
    }
    while (err == FERRY_OK && (err = admin_maria_next(a, result, &row, e)) == FERRY_OK &&
           row != NULL) {
        buf_printf(list, "%s%s", *count == 0 ? "" : ",", row[0]);
        *count += 1;
    }
    mysql_free_result(result);
    return err;
}

static enum ferry_err requeue(struct admin_maria *a, const struct outbox_filter *filter,
                              struct buf *list, int64_t *count, struct err_text *e)
{
    enum ferry_err err = choose(a, OUTBOX_TABLE_DEAD, filter, list, count, e);
    if (err != FERRY_OK || *count == 0) {
        return err;
    }
    buf_printf(admin_maria_sql(a),
               "INSERT INTO ferry_outbox (" ROW_COLUMNS ") SELECT " ROW_COLUMNS
               " FROM ferry_outbox_dead WHERE id IN (%.*s) ORDER BY id",
               (int)list->size, (const char *)list->data);
    err = admin_maria_run(a, NULL, e);
    if (err == FERRY_OK) {
        buf_printf(admin_maria_sql(a), "DELETE FROM ferry_outbox_dead WHERE id IN (%.*s)",
                   (int)list->size, (const char *)list->data);
        err = admin_maria_run(a, NULL, e);
    }
    return err;
}

static enum ferry_err inbox_requeue(struct admin_maria *a, const struct outbox_filter *filter,
                                    struct buf *list, int64_t *count, struct err_text *e)
{
    enum ferry_err err = choose(a, INBOX_TABLE_DEAD, filter, list, count, e);
    if (err != FERRY_OK || *count == 0) {
        return err;
    }
    buf_printf(admin_maria_sql(a),
               "UPDATE ferry_inbox_dead SET requeued = TRUE WHERE number IN (%.*s)",
               (int)list->size, (const char *)list->data);
    return admin_maria_run(a, NULL, e);
}

static enum ferry_err with_list(const char *url, const struct outbox_filter *filter,
                                enum ferry_err (*change)(struct admin_maria *,
                                                         const struct outbox_filter *, struct buf *,
                                                         int64_t *, struct err_text *),
                                int64_t *count, struct err_text *e)
{
    struct admin_maria a;
    struct buf list;
    enum ferry_err err = admin_maria_write(&a, url, e);
    if (err != FERRY_OK) {
        return err;
    }
    buf_init(&list, 24 * OUTBOX_LIST_MAX);
    err = change(&a, filter, &list, count, e);
    buf_fini(&list);
    return admin_maria_end(&a, err, e);
}

enum ferry_err admin_maria_requeue(const char *url, const struct outbox_filter *filter,
                                   int64_t *count, struct err_text *e)
{
    return with_list(url, filter, requeue, count, e);
}

enum ferry_err admin_maria_inbox_requeue(const char *url, const struct outbox_filter *filter,
                                         int64_t *count, struct err_text *e)
{
    return with_list(url, filter, inbox_requeue, count, e);
}

/* ---- Skip. */

static enum ferry_err skip_row(struct admin_maria *a, int64_t number, const char *reason,
                               struct err_text *e)
{
    int64_t removed = 0;
    buf_printf(admin_maria_sql(a), "INSERT IGNORE INTO ferry_outbox_dead (id, " ROW_COLUMNS
                                   ", reason) SELECT id, " ROW_COLUMNS ", ");
    admin_maria_text(a, reason);
    /* FOR UPDATE: if the relay deletes it now, it is published, and this waits and finds none. */
    buf_printf(&a->sql, " FROM ferry_outbox WHERE id = %lld FOR UPDATE", (long long)number);
    enum ferry_err err = admin_maria_run(a, NULL, e);
    if (err == FERRY_OK) {
        buf_printf(admin_maria_sql(a), "DELETE FROM ferry_outbox WHERE id = %lld",
                   (long long)number);
        err = admin_maria_run(a, &removed, e);
    }
    if (err == FERRY_OK && removed == 0) {
        err = err_set(e, FERRY_ERR_UNKNOWN_MESSAGE, "no row %lld waits in the outbox",
                      (long long)number);
    }
    return err;
}

enum ferry_err admin_maria_skip(const char *url, int64_t number, const char *reason,
                                struct err_text *e)
{
    struct admin_maria a;
    enum ferry_err err = admin_maria_write(&a, url, e);
    return err == FERRY_OK ? admin_maria_end(&a, skip_row(&a, number, reason, e), e) : err;
}

/* ---- Pause. */

enum ferry_err admin_maria_set_paused(const char *url, bool paused, struct err_text *e)
{
    struct admin_maria a;
    enum ferry_err err = admin_maria_write(&a, url, e);
    if (err != FERRY_OK) {
        return err;
    }
    buf_printf(admin_maria_sql(&a),
               "INSERT INTO ferry_meta (name, value) VALUES ('paused', '%d') ON DUPLICATE KEY "
               "UPDATE value = VALUES(value)",
               paused ? 1 : 0);
    return admin_maria_end(&a, admin_maria_run(&a, NULL, e), e);
}

/* ---- Lanes. */

static enum ferry_err check_empty(struct admin_maria *a, struct err_text *e)
{
    bool found = false;
    int64_t one = 0;
    buf_printf(admin_maria_sql(a), "SELECT 1 FROM ferry_outbox LIMIT 1");
    enum ferry_err err = admin_maria_number(a, &found, &one, e);
    return err == FERRY_OK && found
               ? err_set(e, FERRY_ERR_INVALID_ARGUMENT, "rows wait: let a relay publish them first")
               : err;
}

/* With several lanes each looks for its own rows: without an index it would pass over all that wait
 * in the others. With one lane the index would only cost. */
static enum ferry_err define(struct admin_maria *a, bool wanted, struct err_text *e)
{
    buf_printf(admin_maria_sql(a), wanted ? "CREATE INDEX IF NOT EXISTS " SCHEMA_MARIADB_LANE_INDEX
                                            " ON ferry_outbox (lane, id)"
                                          : "DROP INDEX IF EXISTS " SCHEMA_MARIADB_LANE_INDEX
                                            " ON ferry_outbox");
    return admin_maria_run(a, NULL, e);
}

enum ferry_err admin_maria_set_lanes(const char *url, uint32_t lanes, struct err_text *e)
{
    struct admin_maria a;
    enum ferry_err err = admin_maria_write(&a, url, e);
    if (err != FERRY_OK) {
        return err;
    }
    err = check_empty(&a, e);
    if (err == FERRY_OK) {
        err = define(&a, lanes > 1, e);
    }
    if (err == FERRY_OK) {
        buf_printf(admin_maria_sql(&a),
                   "INSERT INTO ferry_meta (name, value) VALUES ('lanes', '%u') ON DUPLICATE KEY "
                   "UPDATE value = VALUES(value)",
                   lanes);
        err = admin_maria_run(&a, NULL, e);
    }
    return admin_maria_end(&a, err, e);
}

/* ---- Parked keys: parked in every lane. */

enum ferry_err admin_maria_parked(const char *url, outbox_parked_cb *callback, void *arg,
                                  struct err_text *e)
{
    struct admin_maria a;
    MYSQL_RES *result = NULL;
    MYSQL_ROW row = NULL;
    enum ferry_err err = admin_maria_read(&a, url, true, e);
    if (err != FERRY_OK) {
        return err;
    }
    buf_printf(admin_maria_sql(&a),
               "SELECT topic, mkey, MIN(since_ms), (SELECT COUNT(*) FROM ferry_outbox_dead d WHERE "
               "d.parked AND d.topic = p.topic AND d.mkey = p.mkey) FROM ferry_parked_key p WHERE "
               "until_no = 0 GROUP BY topic, mkey ORDER BY 3, 1, 2");
    err = admin_maria_query(&a, &result, e);
    bool more = true;
    while (more && err == FERRY_OK && (err = admin_maria_next(&a, result, &row, e)) == FERRY_OK &&
           row != NULL) {
        struct outbox_parked_key key = {
            .topic = row[0],
            .key = admin_maria_column(result, row, 1),
            .since_ms = admin_maria_int(row, 2),
            .rows = admin_maria_int(row, 3),
        };
        more = callback(&key, arg);
    }
    mysql_free_result(result);
    return admin_maria_end(&a, err, e);
}

/* A key of a topic, and numbers for what is done with it. */
struct keyed {
    const char *topic;
    struct bytes key;
    int64_t last, until;
};

static enum ferry_err forget_freed(struct admin_maria *a, struct err_text *e)
{
    buf_printf(admin_maria_sql(a),
               "DELETE FROM ferry_parked_key WHERE until_no <> 0 AND since_ms < "
               "CAST(UNIX_TIMESTAMP(SYSDATE(3)) * 1000 AS SIGNED) - %d",
               OUTBOX_FREED_MS);
    return admin_maria_run(a, NULL, e);
}

static enum ferry_err park_in_lanes(struct admin_maria *a, const struct keyed *k,
                                    struct err_text *e)
{
    bool found = false;
    int64_t lanes = 0;
    buf_printf(admin_maria_sql(a), "SELECT value FROM ferry_meta WHERE name = 'lanes'");
    enum ferry_err err = admin_maria_number(a, &found, &lanes, e);
    lanes = found && lanes >= 1 && lanes <= SOURCE_LANES_MAX ? lanes : 1;
    for (int64_t lane = 0; err == FERRY_OK && lane < lanes; lane++) {
        buf_printf(admin_maria_sql(a),
                   "INSERT INTO ferry_parked_key (lane, topic, mkey) VALUES (%lld, ",
                   (long long)lane);
        admin_maria_text(a, k->topic);
        buf_printf(&a->sql, ", ");
        admin_maria_bytes(a, k->key);
        buf_printf(&a->sql, ") ON DUPLICATE KEY UPDATE since_ms = IF(until_no = 0, since_ms, "
                            "VALUES(since_ms)), until_no = 0");
        err = admin_maria_run(a, NULL, e);
    }
    return err == FERRY_OK ? forget_freed(a, e) : err;
}

enum ferry_err admin_maria_park(const char *url, const char *topic, struct bytes key,
                                struct err_text *e)
{
    struct admin_maria a;
    const struct keyed k = {.topic = topic, .key = key};
    if (key.size > OUTBOX_KEY_MAX) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT, "a key over %d bytes cannot be parked",
                       OUTBOX_KEY_MAX);
    }
    enum ferry_err err = admin_maria_write(&a, url, e);
    return err == FERRY_OK ? admin_maria_end(&a, park_in_lanes(&a, &k, e), e) : err;
}

/* ---- Unpark. */

/* Waits until no transaction is open that has touched the outbox, and lets none in: a row of the
 * key that is committed later would have a number below `until`, and be taken for one that was
 * moved. */
static enum ferry_err keep_writers_out(struct admin_maria *a, struct err_text *e)
{
    buf_printf(admin_maria_sql(a), "SET SESSION autocommit = 0");
    enum ferry_err err = admin_maria_run(a, NULL, e);
    if (err == FERRY_OK) {
        buf_printf(admin_maria_sql(a),
                   "LOCK TABLES ferry_outbox WRITE, ferry_outbox AS waiting WRITE, "
                   "ferry_outbox_dead WRITE, ferry_parked_key WRITE");
        err = admin_maria_run(a, NULL, e);
    }
    if (err == FERRY_ERR_DB_RETRY) {
        err_set(e, err,
                "%s: a transaction that puts messages is open, and the key can be freed only when "
                "there is none: try again",
                a->url.shown);
    }
    return err;
}

static void write_key(struct admin_maria *a, const struct keyed *k)
{
    buf_printf(&a->sql, "topic = ");
    admin_maria_text(a, k->topic);
    buf_printf(&a->sql, " AND mkey = ");
    admin_maria_bytes(a, k->key);
}

static enum ferry_err last_parked_row(struct admin_maria *a, struct keyed *k, bool *any,
                                      struct err_text *e)
{
    buf_printf(admin_maria_sql(a), "SELECT MAX(id) FROM ferry_outbox_dead WHERE parked AND ");
    write_key(a, k);
    return admin_maria_number(a, any, &k->last, e);
}

/* The next id of the table: nobody else takes it meanwhile. */
static enum ferry_err next_number(struct admin_maria *a, int64_t *number, struct err_text *e)
{
    bool found = false;
    buf_printf(admin_maria_sql(a), "SELECT AUTO_INCREMENT FROM information_schema.TABLES WHERE "
                                   "TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'ferry_outbox'");
    enum ferry_err err = admin_maria_number(a, &found, number, e);
    if (err == FERRY_OK && !found) {
        err =
            err_set(e, FERRY_ERR_DB_SCHEMA, "%s: ferry_outbox has no AUTO_INCREMENT", a->url.shown);
    }
    return err;
}

static enum ferry_err free_key(struct admin_maria *a, const struct keyed *k, struct err_text *e)
{
    int64_t freed = 0;
    buf_printf(admin_maria_sql(a),
               "UPDATE ferry_parked_key SET since_ms = CAST(UNIX_TIMESTAMP(SYSDATE(3)) * 1000 AS "
               "SIGNED), until_no = %lld WHERE until_no = 0 AND ",
               (long long)k->until);
    write_key(a, k);
    enum ferry_err err = admin_maria_run(a, &freed, e);
    return err == FERRY_OK && freed == 0
               ? err_set(e, FERRY_ERR_UNKNOWN_MESSAGE, "the key is not parked in this topic")
               : err;
}

static enum ferry_err run_keyed(struct admin_maria *a, const char *before, const struct keyed *k,
                                bool behind, const char *after, int64_t *changed,
                                struct err_text *e)
{
    buf_printf(admin_maria_sql(a), "%s", before);
    write_key(a, k);
    if (behind) {
        buf_printf(&a->sql, " AND id > %lld AND id < %lld", (long long)k->last,
                   (long long)k->until);
    }
    buf_printf(&a->sql, "%s", after);
    return admin_maria_run(a, changed, e);
}

/* In order: the parked ones, then those that wait behind them; all get ids from `until` on. */
static enum ferry_err put_anew(struct admin_maria *a, const struct keyed *k, int64_t *count,
                               struct err_text *e)
{
    static const struct {
        const char *before, *after;
        bool behind, puts;
    } steps[] = {
        {"INSERT INTO ferry_outbox (" ROW_COLUMNS ") SELECT " ROW_COLUMNS
         " FROM ferry_outbox_dead WHERE parked AND ",
         " ORDER BY id", false, true},
        {"INSERT INTO ferry_outbox (" ROW_COLUMNS ") SELECT " ROW_COLUMNS
         " FROM ferry_outbox AS waiting WHERE ",
         " ORDER BY id", true, true},
        {"DELETE FROM ferry_outbox WHERE ", "", true, false},
        {"DELETE FROM ferry_outbox_dead WHERE parked AND ", "", false, false},
    };
    enum ferry_err err = FERRY_OK;
    for (size_t i = 0; err == FERRY_OK && i < sizeof(steps) / sizeof(steps[0]); i++) {
        int64_t changed = 0;
        err = run_keyed(a, steps[i].before, k, steps[i].behind, steps[i].after, &changed, e);
        *count += steps[i].puts ? changed : 0;
    }
    return err;
}

static enum ferry_err unpark(struct admin_maria *a, struct keyed *k, int64_t *count,
                             struct err_text *e)
{
    bool any = false;
    enum ferry_err err = keep_writers_out(a, e);
    if (err == FERRY_OK) {
        err = last_parked_row(a, k, &any, e);
    }
    if (err == FERRY_OK) {
        err = next_number(a, &k->until, e);
    }
    if (err == FERRY_OK) {
        err = free_key(a, k, e);
    }
    if (err == FERRY_OK && any) {
        err = put_anew(a, k, count, e);
    }
    return err == FERRY_OK ? forget_freed(a, e) : err;
}

enum ferry_err admin_maria_unpark(const char *url, const char *topic, struct bytes key,
                                  int64_t *count, struct err_text *e)
{
    struct admin_maria a;
    struct keyed k = {.topic = topic, .key = key};
    enum ferry_err err = admin_maria_write(&a, url, e);
    if (err != FERRY_OK) {
        return err;
    }
    *count = 0;
    return admin_maria_end(&a, unpark(&a, &k, count, e), e); /* Closing unlocks the tables. */
}
