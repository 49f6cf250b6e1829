/* The ring: a leaf all of whose rows are published is emptied by TRUNCATE.
 *
 * Safe because (1) the leaf is locked against everybody first, for which every transaction that put
 * a row into it has to have ended; (2) then no row in it may be one that the checkpoint of its lane
 * does not cover: what is not in the checkpoint may have to be read again. A checkpoint counts when
 * the brokers keep it. (3) Lane 0's relay does it for all. The others' checkpoints it is told when
 * a leaf is worth it: an older one covers less, so what was kept a moment ago does; but a database
 * that was set back uses transactions' numbers again, which each lane's relay notices for itself
 * and stops. So a lane counts only while a relay has it, its checkpoint is of this timeline and not
 * ahead of the database, and what is known of it is forgotten with the connection. (4) A row of a
 * lane that the outbox does not have keeps its leaf. */
#include <stdio.h>

#include "outbox/postgresql/source_postgresql.h"

#define RING_PAUSE_US   1000000
#define LEAF_SHIFT      20
#define LEAVES          4u
#define LANE_PAUSE_US   20000   /* Between two lanes that are asked for. */
#define LANE_KNOWN_US   5000000 /* Then it is asked for again. */
#define CHECK_BYTES_MAX (SNAPSHOT_XIPS_MAX * 32u * SOURCE_LANES_MAX)

/* ---- The other lanes. */

void source_pg_lanes_forget(struct source_pg *d)
{
    d->lane_wanted = 0;
    for (uint32_t lane = 0; lane < SOURCE_LANES_MAX; lane++) {
        snapshot_release(&d->lanes[lane].kept);
        d->lanes[lane].asked_us = 0;
    }
}

bool source_pg_wants_lane(void *driver, uint32_t *lane)
{
    const struct source_pg *d = driver;
    *lane = d->lane_wanted;
    return d->lane_wanted != 0;
}

void source_pg_take_lane(void *driver, uint32_t lane, bool active, struct bytes checkpoint)
{
    struct source_pg *d = driver;
    struct cover cover = {0};
    struct cover_place place;
    struct err_text e;
    must(lane > 0 && lane < SOURCE_LANES_MAX);
    d->lane_wanted = 0;
    d->lanes[lane].asked_us = d->ring_now_us;
    snapshot_release(&d->lanes[lane].kept);
    if (!active) {
        return;
    }
    if (checkpoint.size == 0) {
        d->lanes[lane].kept = snapshot_empty();
    } else if (cover_decode(checkpoint, &cover, &place, &e) == FERRY_OK &&
               place.system == d->identity.system && place.database == d->identity.database &&
               place.timeline == d->identity.timeline) {
        snapshot_set(&d->lanes[lane].kept, cover.base);
    }
    cover_fini(&cover);
}

/* Whether every other lane is known; if not, one is asked for. */
static bool lanes_are_known(struct source_pg *d)
{
    bool known = true;
    for (uint32_t lane = 1; lane < d->identity.lanes; lane++) {
        const struct pg_lane *l = &d->lanes[lane];
        if (l->asked_us == 0 || d->ring_now_us - l->asked_us >= LANE_KNOWN_US) {
            d->lane_wanted = lane;
            return false;
        }
        known = known && l->kept != NULL;
    }
    return known;
}

/* ---- What may be emptied. */

static void put_unseen(struct buf *out, const struct source_pg *d, unsigned leaf, uint32_t lane,
                       const struct snapshot *seen)
{
    const char *schema = d->url.schema;
    buf_printf(out,
               "EXISTS (SELECT 1 FROM %s.outbox_%u o WHERE o.lane = %u AND o.xid >= '%llu'::xid8) "
               "OR EXISTS (SELECT 1 FROM %s.outbox_%u o WHERE o.lane = %u AND o.xid = ANY('{",
               schema, leaf, lane, (unsigned long long)seen->xmax, schema, leaf, lane);
    for (uint32_t i = 0; i < seen->count; i++) {
        buf_printf(out, i == 0 ? "%llu" : ",%llu", (unsigned long long)seen->xips[i]);
    }
    buf_printf(out, "}'::xid8[])) OR ");
}

/* Rows of the leaf that its lane's snapshot does not see, or of no lane. */
static void put_check(struct buf *out, const struct source_pg *d, unsigned leaf,
                      const struct snapshot *seen)
{
    const char *schema = d->url.schema;
    uint64_t xmax = seen->xmax;
    put_unseen(out, d, leaf, 0, seen);
    for (uint32_t lane = 1; lane < d->identity.lanes; lane++) {
        const struct snapshot *kept = d->lanes[lane].kept;
        put_unseen(out, d, leaf, lane, kept);
        xmax = kept->xmax > xmax ? kept->xmax : xmax;
    }
    buf_printf(out,
               "EXISTS (SELECT 1 FROM %s.outbox_%u o WHERE o.lane >= %u) "
               "OR EXISTS (SELECT 1 FROM %s.outbox_%u o WHERE o.lane < 0) "
               "OR pg_snapshot_xmax(pg_current_snapshot()) < '%llu'::xid8",
               schema, leaf, d->identity.lanes, schema, leaf, (unsigned long long)xmax);
}

static enum ferry_err ask_text(struct source_pg *d, struct buf *sql, PGresult **result,
                               struct err_text *e)
{
    *result = NULL;
    buf_append_u8(sql, 0);
    if (!buf_ok(sql)) {
        return err_set(e, FERRY_ERR_NO_MEMORY, "%s: out of memory", d->url.shown);
    }
    return pg_link_ask_text(&d->side, (const char *)sql->data, result, e);
}

static enum ferry_err ask_yes(struct source_pg *d, struct buf *sql, bool *yes, struct err_text *e)
{
    PGresult *result = NULL;
    enum ferry_err err = ask_text(d, sql, &result, e);
    *yes = err == FERRY_OK && PQgetvalue(result, 0, 0)[0] == 't';
    PQclear(result);
    buf_fini(sql);
    return err;
}

/* It is not empty, and not the one that is being filled. */
static enum ferry_err leaf_is_full(struct source_pg *d, unsigned leaf, bool *full,
                                   struct err_text *e)
{
    struct buf sql;
    buf_init(&sql, 1024);
    buf_printf(&sql,
               "SELECT (SELECT last_value >> %d & %u FROM %s.outbox_seq) <> %u "
               "AND EXISTS (SELECT 1 FROM %s.outbox_%u)",
               LEAF_SHIFT, LEAVES - 1, d->url.schema, leaf, d->url.schema, leaf);
    return ask_yes(d, &sql, full, e);
}

/* Whether it is worth a lock: all of it is published. */
static enum ferry_err leaf_is_done(struct source_pg *d, unsigned leaf, const struct snapshot *seen,
                                   bool *done, struct err_text *e)
{
    struct buf sql;
    buf_init(&sql, CHECK_BYTES_MAX);
    buf_printf(&sql, "SELECT NOT (");
    put_check(&sql, d, leaf, seen);
    buf_printf(&sql, ")");
    return ask_yes(d, &sql, done, e);
}

/* One round trip and one transaction: an error anywhere ends it without effect. It does not wait
 * for the lock: everybody who reads the outbox would wait behind it, as long as a transaction with
 * a row in the leaf is open. Another time comes within a second. */
static enum ferry_err empty_leaf(struct source_pg *d, unsigned leaf, const struct snapshot *seen,
                                 struct err_text *e)
{
    struct buf sql;
    PGresult *result = NULL;
    buf_init(&sql, CHECK_BYTES_MAX);
    buf_printf(
        &sql,
        "BEGIN; LOCK TABLE ONLY %s.outbox_%u IN ACCESS EXCLUSIVE MODE NOWAIT; DO $f$ BEGIN IF ",
        d->url.schema, leaf);
    put_check(&sql, d, leaf, seen);
    buf_printf(&sql,
               " THEN RAISE lock_not_available USING MESSAGE = 'a row came meanwhile'; END IF; "
               "END $f$; TRUNCATE ONLY %s.outbox_%u; COMMIT",
               d->url.schema, leaf);
    enum ferry_err err = ask_text(d, &sql, &result, e);
    PQclear(result);
    buf_fini(&sql);
    if (err != FERRY_OK && d->side.state == PG_LINK_UP) {
        struct err_text ignored;
        if (pg_link_run(&d->side, "ROLLBACK", &ignored) != FERRY_OK) {
            pg_link_drop(&d->side);
        }
    }
    return err;
}

/* *ready: it may be emptied now. */
static enum ferry_err look_at_leaf(struct source_pg *d, unsigned leaf, const struct snapshot *seen,
                                   bool *ready, struct err_text *e)
{
    enum ferry_err err = source_pg_side(d, e);
    *ready = false;
    if (err == FERRY_OK) {
        err = leaf_is_full(d, leaf, ready, e);
    }
    if (err != FERRY_OK || !*ready) {
        return err;
    }
    *ready = lanes_are_known(d);
    return *ready ? leaf_is_done(d, leaf, seen, ready, e) : FERRY_OK;
}

enum ferry_err source_pg_tidy(void *driver, const struct source_progress *progress, size_t *removed,
                              bool *again, struct err_text *e)
{
    struct source_pg *d = driver;
    *removed = 0;
    *again = false;
    if (!d->options.tidy || d->options.lane != 0 || d->identity.lanes > SOURCE_LANES_MAX ||
        d->set_back || progress->now_us < d->ring_at_us) {
        return FERRY_OK;
    }
    if (d->told != NULL && progress->checkpointed >= d->told_position) {
        snapshot_set(&d->kept, d->told);
    }
    const struct snapshot *seen = d->kept;
    if (seen == NULL) {
        return FERRY_OK;
    }
    unsigned leaf = d->ring_leaf;
    bool ready = false;
    d->ring_now_us = progress->now_us;
    enum ferry_err err = look_at_leaf(d, leaf, seen, &ready, e);
    if (d->lane_wanted != 0) {
        d->ring_at_us = progress->now_us + LANE_PAUSE_US;
        return err; /* The same leaf again, when more is known. */
    }
    d->ring_leaf = (leaf + 1) % LEAVES;
    d->ring_at_us = progress->now_us + RING_PAUSE_US / LEAVES;
    if (err != FERRY_OK || !ready) {
        return err;
    }
    err = empty_leaf(d, leaf, seen, e);
    if (err == FERRY_ERR_DB_RETRY && d->side.state == PG_LINK_UP) {
        return FERRY_OK; /* Somebody has a row in it: another time. */
    }
    if (err == FERRY_OK) {
        d->counters.truncates++;
        *removed = (size_t)1 << LEAF_SHIFT;
    }
    return err;
}
