/* What a person is told of the database: estimates, and nothing that reads more than a few rows. */
#include <stdio.h>

#include "base/clock.h"
#include "outbox/postgresql/source_postgresql.h"

#define NUMBER_BYTES 24u

static enum ferry_err open_transactions(struct source_pg *d, int64_t *last, int64_t *now_ms,
                                        struct source_figures *figures, struct err_text *e)
{
    PGresult *result = NULL;
    enum ferry_err err = pg_link_ask(&d->side, PG_FIGURES, NULL, 0, &result, e);
    if (err == FERRY_OK) {
        *last = pg_int(result, 0, 0);
        /* States of others are hidden from a role without pg_read_all_stats. */
        figures->open_tx_known = pg_int(result, 0, 2) != 0;
        figures->longest_open_tx_ms = pg_int(result, 0, 1);
        *now_ms = pg_int(result, 0, 3);
    }
    PQclear(result);
    return err;
}

static enum ferry_err oldest(struct source_pg *d, const struct snapshot *seen, int64_t now_ms,
                             struct source_figures *figures, struct err_text *e)
{
    char lane[NUMBER_BYTES];
    char xmax[NUMBER_BYTES];
    struct buf late;
    PGresult *result = NULL;
    snprintf(lane, sizeof(lane), "%u", d->options.lane);
    snprintf(xmax, sizeof(xmax), "%llu", (unsigned long long)seen->xmax);
    buf_init(&late, SNAPSHOT_XIPS_MAX * NUMBER_BYTES);
    snapshot_listed_text(seen, &late);
    buf_append_u8(&late, 0);
    const char *values[] = {lane, xmax, (const char *)late.data};
    enum ferry_err err = buf_ok(&late) ? pg_link_ask(&d->side, PG_OLDEST, values, 3, &result, e)
                                       : err_set(e, FERRY_ERR_NO_MEMORY, "out of memory");
    if (err == FERRY_OK && PQgetisnull(result, 0, 0) == 0) {
        int64_t created_ms = pg_int(result, 0, 0);
        figures->oldest_known = true;
        figures->oldest_ms = now_ms > created_ms ? now_ms - created_ms : 0;
    }
    PQclear(result);
    buf_fini(&late);
    return err;
}

/* Rows of a leaf from its size, by the mean of what was read; -1 by nobody: none was. */
static enum ferry_err leaves(struct source_pg *d, struct source_figures *figures,
                             struct err_text *e)
{
    const char *values[] = {d->url.schema};
    PGresult *result = NULL;
    enum ferry_err err = pg_link_ask(&d->side, PG_LEAVES, values, 1, &result, e);
    for (int at = 0; err == FERRY_OK && at < PQntuples(result); at++) {
        int64_t leaf = pg_int(result, at, 1);
        if (leaf >= 0 && leaf < 4) {
            figures->leaf_rows[leaf] = pg_int(result, at, 0);
            figures->leaves_known = true;
        }
    }
    PQclear(result);
    return err;
}

enum ferry_err source_pg_figures(void *driver, int64_t settled, struct source_figures *figures,
                                 struct err_text *e)
{
    struct source_pg *d = driver;
    int64_t last = 0;
    int64_t now_ms = 0;
    *figures = d->counters;
    figures->reconnects = d->reader.connects > 0 ? d->reader.connects - 1 : 0;
    const struct snapshot *seen = ticks_seen_at(&d->ticks, settled);
    figures->open_transactions = seen->count;
    enum ferry_err err = source_pg_side(d, e);
    if (err == FERRY_OK) {
        err = open_transactions(d, &last, &now_ms, figures, e);
    }
    if (err == FERRY_OK) {
        err = oldest(d, seen, now_ms, figures, e);
    }
    if (err == FERRY_OK) {
        err = leaves(d, figures, e);
    }
    if (err == FERRY_OK) {
        const struct tick_last *known = &d->ticks.last;
        figures->pending_known = known->known || !figures->oldest_known;
        figures->pending_rows = !figures->oldest_known ? 0
                                : last > known->seq    ? last - known->seq
                                                       : 1;
    }
    return err;
}
