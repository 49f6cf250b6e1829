/* Decisions about rows: requeue, skip, pause, and keys that are parked. */
#include "outbox/postgresql/admin_pg.h"

#define ROW_COLUMNS "lane, topic, mkey, msg_id, headers, headers_json, payload, created_ms"

/* ---- Requeue -------------------------------------------------------------------------------- */

/* The old row is deleted where it still lies: a relay that begins before it would publish it, too.
 * New numbers are given in the order of the old ones. */
static const char requeue_sql[] =
    "WITH chosen AS (SELECT * FROM @.outbox_dead WHERE NOT parked AND seq > $1::bigint AND "
    "($2::bigint IS NULL OR seq = $2) AND ($3::text IS NULL OR topic = $3) AND ($4::bytea IS NULL "
    "OR "
    "mkey = $4) AND ($5::uuid IS NULL OR msg_id = $5) AND $6::text IS NULL ORDER BY seq "
    "LIMIT $7::bigint FOR UPDATE), "
    "gone AS (DELETE FROM @.outbox_dead d USING chosen c WHERE d.seq = c.seq), "
    "old AS (DELETE FROM @.outbox o USING chosen c WHERE o.seq = c.seq) "
    "INSERT INTO @.outbox (" ROW_COLUMNS ") SELECT " ROW_COLUMNS " FROM chosen ORDER BY seq";

static const char inbox_requeue_sql[] =
    "UPDATE @.inbox_dead SET requeued = true WHERE number IN (SELECT number FROM @.inbox_dead "
    "WHERE "
    "number > $1::bigint AND ($2::bigint IS NULL OR number = $2) AND ($3::text IS NULL OR topic_id "
    "= "
    "$3::uuid) AND ($4::bytea IS NULL OR mkey = $4) AND ($5::uuid IS NULL OR msg_id = $5) AND "
    "($6::text IS NULL OR grp = $6) AND NOT requeued ORDER BY number LIMIT $7::bigint)";

static enum ferry_err run_filtered(const char *url, const char *sql, enum outbox_table table,
                                   const struct outbox_filter *filter, int64_t *count,
                                   struct err_text *e)
{
    struct admin_pg a;
    struct admin_pg_params p = {0};
    enum ferry_err err = admin_pg_filter(&p, table, filter, e);
    if (err == FERRY_OK) {
        err = admin_pg_open(&a, url, ADMIN_PG_WRITING, e);
    }
    if (err != FERRY_OK) {
        return err;
    }
    err = admin_pg_run(&a, sql, &p, count, e);
    return admin_pg_end(&a, err, e);
}

enum ferry_err admin_pg_requeue(const char *url, const struct outbox_filter *filter, int64_t *count,
                                struct err_text *e)
{
    return run_filtered(url, requeue_sql, OUTBOX_TABLE_DEAD, filter, count, e);
}

enum ferry_err admin_pg_inbox_requeue(const char *url, const struct outbox_filter *filter,
                                      int64_t *count, struct err_text *e)
{
    return run_filtered(url, inbox_requeue_sql, INBOX_TABLE_DEAD, filter, count, e);
}

/* ---- Skip ----------------------------------------------------------------------------------- */

/* The row goes to the dead ones before a relay reads it, or, where one waits for the decision, that
 * one finds it there. */
enum ferry_err admin_pg_skip(const char *url, int64_t number, const char *reason,
                             struct err_text *e)
{
    static const char sql[] =
        "WITH gone AS (DELETE FROM @.outbox WHERE seq = $1::bigint AND NOT EXISTS (SELECT 1 FROM "
        "@.outbox_dead WHERE seq = $1) RETURNING *) "
        "INSERT INTO @.outbox_dead (seq, " ROW_COLUMNS ", reason) SELECT seq, " ROW_COLUMNS
        ", $2::text FROM gone ON CONFLICT (seq) DO NOTHING";
    struct admin_pg a;
    struct admin_pg_params p = {0};
    int64_t copied = 0;
    enum ferry_err err = admin_pg_open(&a, url, ADMIN_PG_WRITING, e);
    if (err != FERRY_OK) {
        return err;
    }
    admin_pg_add_int(&p, number);
    admin_pg_add_text(&p, reason);
    err = admin_pg_run(&a, sql, &p, &copied, e);
    if (err == FERRY_OK && copied == 0) {
        err = err_set(e, FERRY_ERR_UNKNOWN_MESSAGE,
                      "no row %lld waits in the outbox, or it is set aside already",
                      (long long)number);
    }
    return admin_pg_end(&a, err, e);
}

/* ---- Pause ---------------------------------------------------------------------------------- */

static enum ferry_err set_meta(const char *url, const char *name, const char *value,
                               struct err_text *e)
{
    static const char sql[] = "INSERT INTO @.meta (name, value) VALUES ($1::text, $2::text) ON "
                              "CONFLICT (name) DO UPDATE SET value = excluded.value";
    struct admin_pg a;
    struct admin_pg_params p = {0};
    enum ferry_err err = admin_pg_open(&a, url, ADMIN_PG_WRITING, e);
    if (err != FERRY_OK) {
        return err;
    }
    admin_pg_add_text(&p, name);
    admin_pg_add_text(&p, value);
    err = admin_pg_run(&a, sql, &p, NULL, e);
    return admin_pg_end(&a, err, e);
}

enum ferry_err admin_pg_set_paused(const char *url, bool paused, struct err_text *e)
{
    return set_meta(url, "paused", paused ? "1" : "0", e);
}

enum ferry_err admin_pg_set_lanes(const char *url, uint32_t lanes, struct err_text *e)
{
    char value[16];
    snprintf(value, sizeof(value), "%u", lanes);
    return set_meta(url, "lanes", value, e);
}

/* ---- Parked keys ---------------------------------------------------------------------------- */

enum ferry_err admin_pg_parked(const char *url, outbox_parked_cb *callback, void *arg,
                               struct err_text *e)
{
    static const char sql[] =
        "SELECT topic, mkey, since_ms, (SELECT count(*) FROM @.outbox_dead d WHERE d.parked AND "
        "d.topic = p.topic AND d.mkey = p.mkey AND d.lane = p.lane) FROM @.parked_key p WHERE "
        "until_no = 0 ORDER BY since_ms, topic, mkey";
    struct admin_pg a;
    PGresult *r = NULL;
    enum ferry_err err = admin_pg_open(&a, url, ADMIN_PG_READING, e);
    if (err != FERRY_OK) {
        return err;
    }
    err = admin_pg_ask(&a, sql, NULL, &r, e);
    for (int i = 0; err == FERRY_OK && i < PQntuples(r); i++) {
        struct outbox_parked_key key = {
            .topic = PQgetvalue(r, i, 0),
            .key = admin_pg_bytes(r, i, 1),
            .since_ms = admin_pg_int(r, i, 2),
            .rows = admin_pg_int(r, i, 3),
        };
        if (!callback(&key, arg)) {
            break;
        }
    }
    PQclear(r);
    return admin_pg_end(&a, err, e);
}

static void add_key(struct admin_pg_params *p, const char *topic, struct bytes key)
{
    admin_pg_add_text(p, topic);
    admin_pg_add_bytes(p, key);
}

static enum ferry_err forget_freed(struct admin_pg *a, struct err_text *e)
{
    struct admin_pg_params p = {0};
    admin_pg_add_int(&p, OUTBOX_FREED_MS);
    return admin_pg_run(
        a, "DELETE FROM @.parked_key WHERE until_no <> 0 AND since_ms < @.now_ms() - $1::bigint",
        &p, NULL, e);
}

enum ferry_err admin_pg_park(const char *url, const char *topic, struct bytes key,
                             struct err_text *e)
{
    static const char sql[] =
        "INSERT INTO @.parked_key (lane, topic, mkey) VALUES (@.lane_of($2::bytea), $1::text, $2) "
        "ON CONFLICT (lane, topic, mkey) DO UPDATE SET since_ms = @.now_ms(), until_no = 0 WHERE "
        "parked_key.until_no <> 0";
    struct admin_pg a;
    struct admin_pg_params p = {0};
    if (key.size > OUTBOX_KEY_MAX) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT, "a key over %d bytes cannot be parked",
                       OUTBOX_KEY_MAX);
    }
    enum ferry_err err = admin_pg_open(&a, url, ADMIN_PG_WRITING, e);
    if (err != FERRY_OK) {
        return err;
    }
    add_key(&p, topic, key);
    err = admin_pg_run(&a, sql, &p, NULL, e);
    if (err == FERRY_OK) {
        err = forget_freed(&a, e);
    }
    return admin_pg_end(&a, err, e);
}

/* ---- Unpark --------------------------------------------------------------------------------- */

/* One number of a statement; *found false: it has no row, or NULL. */
static enum ferry_err ask_number(struct admin_pg *a, const char *sql,
                                 const struct admin_pg_params *p, bool *found, int64_t *number,
                                 struct err_text *e)
{
    PGresult *r = NULL;
    enum ferry_err err = admin_pg_ask(a, sql, p, &r, e);
    *found = err == FERRY_OK && PQntuples(r) > 0 && !PQgetisnull(r, 0, 0);
    *number = *found ? admin_pg_int(r, 0, 0) : 0;
    PQclear(r);
    return err;
}

/* In order: the parked ones, then those that wait behind them; all get numbers above `until`. The
 * old ones go, so that no relay meets them again, and one that has read them already finds them
 * gone. */
static enum ferry_err put_anew(struct admin_pg *a, const struct admin_pg_params *key, int64_t last,
                               int64_t until, int64_t *count, struct err_text *e)
{
    static const char parked[] =
        "WITH gone AS (DELETE FROM @.outbox_dead WHERE parked AND topic = $1::text AND mkey = "
        "$2::bytea RETURNING *), "
        "old AS (DELETE FROM @.outbox o USING gone g WHERE o.seq = g.seq) "
        "INSERT INTO @.outbox (" ROW_COLUMNS ") SELECT " ROW_COLUMNS " FROM gone ORDER BY seq";
    static const char waiting[] =
        "WITH gone AS (DELETE FROM @.outbox o WHERE topic = $1::text AND mkey = $2::bytea AND seq "
        "> $3::bigint AND seq < $4::bigint AND NOT EXISTS (SELECT 1 FROM @.outbox_dead d WHERE "
        "d.seq = o.seq) RETURNING *) "
        "INSERT INTO @.outbox (" ROW_COLUMNS ") SELECT " ROW_COLUMNS " FROM gone ORDER BY seq";
    struct admin_pg_params behind = *key;
    int64_t more = 0;
    admin_pg_add_int(&behind, last);
    admin_pg_add_int(&behind, until);
    enum ferry_err err = admin_pg_run(a, parked, key, count, e);
    if (err == FERRY_OK) {
        err = admin_pg_run(a, waiting, &behind, &more, e);
    }
    *count += more;
    return err;
}

static enum ferry_err free_key(struct admin_pg *a, const struct admin_pg_params *key, int64_t until,
                               struct err_text *e)
{
    struct admin_pg_params p = *key;
    int64_t freed = 0;
    admin_pg_add_int(&p, until);
    enum ferry_err err = admin_pg_run(a,
                                      "UPDATE @.parked_key SET since_ms = @.now_ms(), until_no = "
                                      "$3::bigint WHERE topic = $1::text AND mkey = $2::bytea AND "
                                      "until_no = 0",
                                      &p, &freed, e);
    return err == FERRY_OK && freed == 0
               ? err_set(e, FERRY_ERR_UNKNOWN_MESSAGE, "the key is not parked in this topic")
               : err;
}

/* The lock waits for the transactions that have put rows and keeps new ones out: then no row of the
 * key can appear between those that are moved. */
static enum ferry_err unpark(struct admin_pg *a, const struct admin_pg_params *key, int64_t *count,
                             struct err_text *e)
{
    bool any = false;
    bool given = false;
    int64_t last = 0;
    int64_t until = 0;
    enum ferry_err err = admin_pg_run(
        a, "LOCK TABLE @.outbox, @.outbox_dead, @.parked_key IN SHARE ROW EXCLUSIVE MODE", NULL,
        NULL, e);
    if (err == FERRY_OK) {
        err = ask_number(a,
                         "SELECT max(seq) FROM @.outbox_dead WHERE parked AND topic = $1::text AND "
                         "mkey = $2::bytea",
                         key, &any, &last, e);
    }
    if (err == FERRY_OK) {
        err = ask_number(a, "SELECT nextval('@.outbox_seq')", NULL, &given, &until, e);
    }
    if (err == FERRY_OK) {
        err = free_key(a, key, until, e);
    }
    if (err == FERRY_OK && any) {
        err = put_anew(a, key, last, until, count, e);
    }
    return err == FERRY_OK ? forget_freed(a, e) : err;
}

enum ferry_err admin_pg_unpark(const char *url, const char *topic, struct bytes key, int64_t *count,
                               struct err_text *e)
{
    struct admin_pg a;
    struct admin_pg_params p = {0};
    enum ferry_err err = admin_pg_open(&a, url, ADMIN_PG_WRITING, e);
    if (err != FERRY_OK) {
        return err;
    }
    *count = 0;
    add_key(&p, topic, key);
    return admin_pg_end(&a, unpark(&a, &p, count, e), e);
}
