/* The ring: a leaf all of whose rows are published is emptied by TRUNCATE.
 *
 * Safe because (1) the leaf is locked against everybody first, for which every transaction that put
 * a row into it has to have ended; (2) then no row in it may be one that the checkpoint of the
 * brokers does not cover: what is not in the checkpoint may have to be read again; (3) with more
 * than one lane the others' checkpoints are not known here, and nothing is emptied. */
#include <stdio.h>

#include "outbox/postgresql/source_postgresql.h"

#define RING_PAUSE_US 1000000
#define LEAF_SHIFT    20
#define LEAVES        4u

/* Rows of the leaf that the snapshot does not see, or of other lanes. */
static void put_check(struct buf *out, const struct source_pg *d, unsigned leaf,
                      const struct snapshot *seen)
{
    const char *schema = d->url.schema;
    buf_printf(out,
               "EXISTS (SELECT 1 FROM %s.outbox_%u o WHERE o.lane = 0 AND o.xid >= '%llu'::xid8) "
               "OR EXISTS (SELECT 1 FROM %s.outbox_%u o WHERE o.lane > 0) "
               "OR EXISTS (SELECT 1 FROM %s.outbox_%u o WHERE o.lane < 0) "
               "OR EXISTS (SELECT 1 FROM %s.outbox_%u o WHERE o.lane = 0 AND o.xid = ANY('{",
               schema, leaf, (unsigned long long)seen->xmax, schema, leaf, schema, leaf, schema,
               leaf);
    for (uint32_t i = 0; i < seen->count; i++) {
        buf_printf(out, i == 0 ? "%llu" : ",%llu", (unsigned long long)seen->xips[i]);
    }
    buf_printf(out, "}'::xid8[]))");
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

/* Whether it is worth a lock: the leaf is not empty, not the one being filled, and all of it is
 * published. Text results. */
static enum ferry_err leaf_is_done(struct source_pg *d, unsigned leaf, const struct snapshot *seen,
                                   bool *done, struct err_text *e)
{
    struct buf sql;
    PGresult *result = NULL;
    buf_init(&sql, SNAPSHOT_XIPS_MAX * 32u);
    buf_printf(&sql,
               "SELECT (SELECT last_value >> %d & %u FROM %s.outbox_seq) <> %u "
               "AND EXISTS (SELECT 1 FROM %s.outbox_%u) AND NOT (",
               LEAF_SHIFT, LEAVES - 1, d->url.schema, leaf, d->url.schema, leaf);
    put_check(&sql, d, leaf, seen);
    buf_printf(&sql, ")");
    enum ferry_err err = ask_text(d, &sql, &result, e);
    *done = err == FERRY_OK && PQgetvalue(result, 0, 0)[0] == 't';
    PQclear(result);
    buf_fini(&sql);
    return err;
}

/* One round trip and one transaction: an error anywhere ends it without effect. */
static enum ferry_err empty_leaf(struct source_pg *d, unsigned leaf, const struct snapshot *seen,
                                 struct err_text *e)
{
    struct buf sql;
    PGresult *result = NULL;
    buf_init(&sql, SNAPSHOT_XIPS_MAX * 32u);
    buf_printf(&sql,
               "BEGIN; LOCK TABLE ONLY %s.outbox_%u IN ACCESS EXCLUSIVE MODE; DO $f$ BEGIN IF ",
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

enum ferry_err source_pg_tidy(void *driver, const struct source_progress *progress, size_t *removed,
                              bool *again, struct err_text *e)
{
    struct source_pg *d = driver;
    *removed = 0;
    *again = false;
    if (!d->options.tidy || d->identity.lanes != 1 || d->set_back ||
        progress->now_us < d->ring_at_us) {
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
    d->ring_leaf = (leaf + 1) % LEAVES;
    d->ring_at_us = progress->now_us + RING_PAUSE_US / LEAVES;
    bool done = false;
    enum ferry_err err = source_pg_side(d, e);
    if (err == FERRY_OK) {
        err = leaf_is_done(d, leaf, seen, &done, e);
    }
    if (err != FERRY_OK || !done) {
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
