/* Decisions about rows: requeue, skip, pause, and keys that are parked. */
#include "base/clock.h"
#include "outbox/sqlite/admin_sqlite.h"

/* ---- Requeue -------------------------------------------------------------------------------- */

#define FILTER_WHERE(number, topic)                                                                \
    number " > ?1 AND (?2 IS NULL OR " number " = ?2) AND (?3 IS NULL OR " topic " = ?3) AND "     \
           "(?4 IS NULL OR CAST(mkey AS BLOB) = ?4) AND (?5 IS NULL OR msg_id = ?5) "
/* The same rows for both statements: nothing changes between them. */
#define DEAD_CHOSEN                                                                                \
    "SELECT id FROM ferry_outbox_dead WHERE parked = 0 AND " FILTER_WHERE(                         \
        "id", "topic") "AND ?6 IS NULL ORDER BY id LIMIT ?7"

static enum ferry_err run_filtered(struct admin_file *f, const char *sql, enum outbox_table table,
                                   const struct outbox_filter *filter, int64_t *changed,
                                   struct err_text *e)
{
    sqlite3_stmt *stmt = NULL;
    enum ferry_err err = admin_sqlite_prepare(f, sql, &stmt, e);
    if (err == FERRY_OK) {
        err = admin_sqlite_bind_filter(stmt, table, filter, e);
    }
    if (err != FERRY_OK) {
        sqlite3_finalize(stmt);
        return err;
    }
    return admin_sqlite_run(f, stmt, changed, e);
}

enum ferry_err admin_sqlite_requeue(const char *url, const struct outbox_filter *filter,
                                    int64_t *count, struct err_text *e)
{
    struct admin_file f;
    enum ferry_err err = admin_sqlite_open_writing(&f, url, e);
    if (err != FERRY_OK) {
        return err;
    }
    err = run_filtered(&f,
                       "INSERT INTO ferry_outbox (topic, mkey, msg_id, headers, payload, "
                       "created_ms) SELECT topic, mkey, msg_id, headers, payload, created_ms FROM "
                       "ferry_outbox_dead WHERE id IN (" DEAD_CHOSEN ") ORDER BY id",
                       OUTBOX_TABLE_DEAD, filter, count, e);
    if (err == FERRY_OK) {
        err = run_filtered(&f, "DELETE FROM ferry_outbox_dead WHERE id IN (" DEAD_CHOSEN ")",
                           OUTBOX_TABLE_DEAD, filter, NULL, e);
    }
    err = admin_sqlite_end(&f, err, e);
    admin_sqlite_close(&f);
    return err;
}

enum ferry_err admin_sqlite_inbox_requeue(const char *url, const struct outbox_filter *filter,
                                          int64_t *count, struct err_text *e)
{
    struct admin_file f;
    enum ferry_err err = admin_sqlite_open_writing(&f, url, e);
    if (err != FERRY_OK) {
        return err;
    }
    err = run_filtered(
        &f,
        "UPDATE ferry_inbox_dead SET requeued = 1 WHERE number IN (SELECT number "
        "FROM ferry_inbox_dead WHERE " FILTER_WHERE(
            "number",
            "topic_id") "AND (?6 IS NULL OR grp = ?6) AND requeued = 0 ORDER BY number LIMIT ?7)",
        INBOX_TABLE_DEAD, filter, count, e);
    err = admin_sqlite_end(&f, err, e);
    admin_sqlite_close(&f);
    return err;
}

/* ---- Skip ----------------------------------------------------------------------------------- */

/* A row that is published, and only not deleted yet, is no dead one. */
static enum ferry_err check_unpublished(struct admin_file *f, int64_t number, struct err_text *e)
{
    struct outbox_status status = {0};
    admin_sqlite_word(f, &status);
    enum ferry_err err = admin_sqlite_last_id(f, &status.last_id, e);
    if (err == FERRY_OK && number <= admin_sqlite_published(&status)) {
        err = err_set(e, FERRY_ERR_UNKNOWN_MESSAGE,
                      "row %lld is published, or set aside, already: nothing was changed",
                      (long long)number);
    }
    return err;
}

static enum ferry_err skip_row(struct admin_file *f, int64_t number, const char *reason,
                               struct err_text *e)
{
    sqlite3_stmt *stmt = NULL;
    int64_t copied = 0;
    enum ferry_err err = admin_sqlite_prepare(
        f,
        "INSERT OR IGNORE INTO ferry_outbox_dead (id, topic, mkey, msg_id, headers, payload, "
        "created_ms, reason, dead_ms) SELECT id, topic, mkey, msg_id, headers, payload, "
        "created_ms, ?2, ?3 FROM ferry_outbox WHERE id = ?1",
        &stmt, e);
    if (err != FERRY_OK) {
        return err;
    }
    sqlite3_bind_int64(stmt, 1, number);
    sqlite3_bind_text(stmt, 2, reason, -1, SQLITE_TRANSIENT);
    sqlite3_bind_int64(stmt, 3, clock_wall_ms());
    err = admin_sqlite_run(f, stmt, &copied, e);
    if (err == FERRY_OK && copied == 0) {
        return err_set(e, FERRY_ERR_UNKNOWN_MESSAGE, "no row %lld waits in the outbox",
                       (long long)number);
    }
    if (err == FERRY_OK) {
        err = admin_sqlite_prepare(f, "DELETE FROM ferry_outbox WHERE id = ?1", &stmt, e);
    }
    if (err == FERRY_OK) {
        sqlite3_bind_int64(stmt, 1, number);
        err = admin_sqlite_run(f, stmt, NULL, e);
    }
    return err;
}

enum ferry_err admin_sqlite_skip(const char *url, int64_t number, const char *reason,
                                 struct err_text *e)
{
    struct admin_file f;
    enum ferry_err err = admin_sqlite_open_writing(&f, url, e);
    if (err != FERRY_OK) {
        return err;
    }
    err = check_unpublished(&f, number, e);
    if (err == FERRY_OK) {
        err = skip_row(&f, number, reason, e);
    }
    err = admin_sqlite_end(&f, err, e);
    admin_sqlite_close(&f);
    return err;
}

/* ---- Pause ---------------------------------------------------------------------------------- */

enum ferry_err admin_sqlite_set_lanes(const char *url, uint32_t lanes, struct err_text *e)
{
    struct admin_file f;
    enum ferry_err err = admin_sqlite_open_writing(&f, url, e);
    if (err != FERRY_OK) {
        return err;
    }
    if (lanes != 1) {
        err = err_set(e, FERRY_ERR_INVALID_ARGUMENT,
                      "SQLite has one lane: one writer at a time puts, one relay publishes");
    }
    err = admin_sqlite_end(&f, err, e);
    admin_sqlite_close(&f);
    return err;
}

enum ferry_err admin_sqlite_set_paused(const char *url, bool paused, struct err_text *e)
{
    struct admin_file f;
    sqlite3_stmt *stmt = NULL;
    enum ferry_err err = admin_sqlite_open_writing(&f, url, e);
    if (err != FERRY_OK) {
        return err;
    }
    err = admin_sqlite_prepare(
        &f, "INSERT OR REPLACE INTO ferry_meta (name, value) VALUES ('paused', ?1)", &stmt, e);
    if (err == FERRY_OK) {
        sqlite3_bind_int(stmt, 1, paused);
        err = admin_sqlite_run(&f, stmt, NULL, e);
    }
    err = admin_sqlite_end(&f, err, e);
    admin_sqlite_close(&f);
    return err;
}

/* ---- Parked keys ---------------------------------------------------------------------------- */

enum ferry_err admin_sqlite_parked(const char *url, outbox_parked_cb *callback, void *arg,
                                   struct err_text *e)
{
    static const char sql[] =
        "SELECT topic, mkey, since_ms, (SELECT count(*) FROM ferry_outbox_dead d WHERE parked <> 0 "
        "AND d.topic = p.topic AND CAST(d.mkey AS BLOB) = p.mkey) FROM ferry_parked_key p WHERE "
        "lane = 0 AND until_no = 0 ORDER BY since_ms, topic, mkey";
    struct admin_file f;
    sqlite3_stmt *stmt = NULL;
    bool row = true;
    enum ferry_err err = admin_sqlite_open_reading(&f, url, true, e);
    if (err != FERRY_OK) {
        return err;
    }
    err = admin_sqlite_prepare(&f, sql, &stmt, e);
    while (err == FERRY_OK && (err = admin_sqlite_step(&f, stmt, &row, e)) == FERRY_OK && row) {
        struct outbox_parked_key key = {
            .topic = (const char *)sqlite3_column_text(stmt, 0),
            .key = admin_sqlite_bytes(stmt, 1),
            .since_ms = sqlite3_column_int64(stmt, 2),
            .rows = sqlite3_column_int64(stmt, 3),
        };
        if (!callback(&key, arg)) {
            break;
        }
    }
    sqlite3_finalize(stmt);
    admin_sqlite_close(&f);
    return err;
}

/* A key of a topic, and numbers for what is done with it. */
struct keyed {
    const char *topic;
    struct bytes key;
    int64_t number, until;
};

/* One statement with the topic as ?1, the key as ?2 and the two numbers as ?3 and ?4. */
static enum ferry_err run_keyed(struct admin_file *f, const char *sql, const struct keyed *k,
                                int64_t *changed, struct err_text *e)
{
    sqlite3_stmt *stmt = NULL;
    enum ferry_err err = admin_sqlite_prepare(f, sql, &stmt, e);
    if (err != FERRY_OK) {
        return err;
    }
    sqlite3_bind_text(stmt, 1, k->topic, -1, SQLITE_TRANSIENT);
    admin_sqlite_bind_bytes(stmt, 2, k->key);
    if (sqlite3_bind_parameter_count(stmt) >= 3) {
        sqlite3_bind_int64(stmt, 3, k->number);
    }
    if (sqlite3_bind_parameter_count(stmt) >= 4) {
        sqlite3_bind_int64(stmt, 4, k->until);
    }
    return admin_sqlite_run(f, stmt, changed, e);
}

static enum ferry_err forget_freed(struct admin_file *f, struct err_text *e)
{
    sqlite3_stmt *stmt = NULL;
    enum ferry_err err = admin_sqlite_prepare(
        f, "DELETE FROM ferry_parked_key WHERE until_no <> 0 AND since_ms < ?1", &stmt, e);
    if (err == FERRY_OK) {
        sqlite3_bind_int64(stmt, 1, clock_wall_ms() - OUTBOX_FREED_MS);
        err = admin_sqlite_run(f, stmt, NULL, e);
    }
    return err;
}

enum ferry_err admin_sqlite_park(const char *url, const char *topic, struct bytes key,
                                 struct err_text *e)
{
    struct admin_file f;
    struct keyed k = {.topic = topic, .key = key, .number = clock_wall_ms()};
    if (key.size > OUTBOX_KEY_MAX) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT, "a key over %d bytes cannot be parked",
                       OUTBOX_KEY_MAX);
    }
    enum ferry_err err = admin_sqlite_open_writing(&f, url, e);
    if (err != FERRY_OK) {
        return err;
    }
    err = run_keyed(&f,
                    "INSERT INTO ferry_parked_key (lane, topic, mkey, since_ms, until_no) VALUES "
                    "(0, ?1, ?2, ?3, 0) ON CONFLICT (lane, topic, mkey) DO UPDATE SET since_ms = "
                    "excluded.since_ms, until_no = 0 WHERE until_no <> 0",
                    &k, NULL, e);
    if (err == FERRY_OK) {
        err = forget_freed(&f, e);
    }
    err = admin_sqlite_end(&f, err, e);
    admin_sqlite_close(&f);
    return err;
}

/* ---- Unpark --------------------------------------------------------------------------------- */

#define PARKED_OF_KEY                                                                              \
    "ferry_outbox_dead WHERE parked <> 0 AND topic = ?1 AND CAST(mkey AS BLOB) = ?2"
#define WAITING_OF_KEY                                                                             \
    "ferry_outbox WHERE topic = ?1 AND CAST(mkey AS BLOB) = ?2 AND id > ?3 AND id < ?4"
#define ROW_COLUMNS "topic, mkey, msg_id, headers, payload, created_ms"

static enum ferry_err last_parked_row(struct admin_file *f, struct keyed *k, bool *any,
                                      struct err_text *e)
{
    sqlite3_stmt *stmt = NULL;
    bool row = false;
    enum ferry_err err = admin_sqlite_prepare(f, "SELECT max(id) FROM " PARKED_OF_KEY, &stmt, e);
    if (err != FERRY_OK) {
        return err;
    }
    sqlite3_bind_text(stmt, 1, k->topic, -1, SQLITE_TRANSIENT);
    admin_sqlite_bind_bytes(stmt, 2, k->key);
    err = admin_sqlite_step(f, stmt, &row, e);
    *any = err == FERRY_OK && row && sqlite3_column_type(stmt, 0) != SQLITE_NULL;
    k->number = *any ? sqlite3_column_int64(stmt, 0) : 0;
    sqlite3_finalize(stmt);
    return err;
}

/* In order: the parked ones, then those that wait behind them; all get ids above `until`. */
static enum ferry_err put_anew(struct admin_file *f, const struct keyed *k, int64_t *count,
                               struct err_text *e)
{
    static const char *const steps[] = {
        "INSERT INTO ferry_outbox (" ROW_COLUMNS ") SELECT " ROW_COLUMNS " FROM " PARKED_OF_KEY
        " ORDER BY id",
        "INSERT INTO ferry_outbox (" ROW_COLUMNS ") SELECT " ROW_COLUMNS " FROM " WAITING_OF_KEY
        " ORDER BY id",
        "DELETE FROM " WAITING_OF_KEY,
        "DELETE FROM " PARKED_OF_KEY,
    };
    enum ferry_err err = FERRY_OK;
    for (size_t i = 0; err == FERRY_OK && i < sizeof(steps) / sizeof(steps[0]); i++) {
        int64_t changed = 0;
        err = run_keyed(f, steps[i], k, &changed, e);
        *count += i < 2 ? changed : 0;
    }
    return err;
}

/* The next id of the table, used up where there was a row. */
static enum ferry_err take_number(struct admin_file *f, int64_t *number, struct err_text *e)
{
    sqlite3_stmt *stmt = NULL;
    enum ferry_err err = admin_sqlite_last_id(f, number, e);
    *number += 1;
    if (err == FERRY_OK) {
        err = admin_sqlite_prepare(
            f, "UPDATE sqlite_sequence SET seq = ?1 WHERE name = 'ferry_outbox'", &stmt, e);
    }
    if (err == FERRY_OK) {
        sqlite3_bind_int64(stmt, 1, *number);
        err = admin_sqlite_run(f, stmt, NULL, e);
    }
    return err;
}

static enum ferry_err free_key(struct admin_file *f, const struct keyed *k, struct err_text *e)
{
    struct keyed freed = *k;
    int64_t count = 0;
    freed.number = clock_wall_ms();
    enum ferry_err err = run_keyed(f,
                                   "UPDATE ferry_parked_key SET since_ms = ?3, until_no = ?4 WHERE "
                                   "lane = 0 AND topic = ?1 AND mkey = ?2 AND until_no = 0",
                                   &freed, &count, e);
    return err == FERRY_OK && count == 0
               ? err_set(e, FERRY_ERR_UNKNOWN_MESSAGE, "the key is not parked in this topic")
               : err;
}

static enum ferry_err unpark(struct admin_file *f, struct keyed *k, int64_t *count,
                             struct err_text *e)
{
    bool any = false;
    enum ferry_err err = last_parked_row(f, k, &any, e);
    if (err == FERRY_OK) {
        err = take_number(f, &k->until, e);
    }
    if (err == FERRY_OK) {
        err = free_key(f, k, e);
    }
    if (err == FERRY_OK && any) {
        err = put_anew(f, k, count, e);
    }
    return err == FERRY_OK ? forget_freed(f, e) : err;
}

enum ferry_err admin_sqlite_unpark(const char *url, const char *topic, struct bytes key,
                                   int64_t *count, struct err_text *e)
{
    struct admin_file f;
    struct keyed k = {.topic = topic, .key = key};
    enum ferry_err err = admin_sqlite_open_writing(&f, url, e);
    if (err != FERRY_OK) {
        return err;
    }
    *count = 0;
    err = admin_sqlite_end(&f, unpark(&f, &k, count, e), e);
    admin_sqlite_close(&f);
    return err;
}
