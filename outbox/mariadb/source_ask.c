/* What the relay asks besides: decisions of people, and figures for them. */
#include <stdlib.h>

#include "outbox/mariadb/source_mariadb.h"

#define COUNT_IDS_MAX                                                                              \
    10000u                 /* Rows are counted among so many ids; beyond them they are estimated. */
#define LOOK_ROWS_MAX 1000 /* First rows among which the oldest pending one is looked for. */

enum ferry_err source_maria_decided(void *driver, int64_t number, bool *decided, struct err_text *e)
{
    struct source_mariadb *s = driver;
    struct maria_field one;
    buf_printf(maria_link_write(&s->reader), "SELECT 1 FROM ferry_outbox_dead WHERE id = %lld",
               (long long)number);
    return maria_link_row(&s->reader, &one, 1, decided, e);
}

enum ferry_err source_maria_parked(void *driver, source_parked_cb *callback, void *arg,
                                   struct err_text *e)
{
    struct source_mariadb *s = driver;
    MYSQL_RES *result = NULL;
    enum ferry_err err = maria_link_ready(&s->reader, e);
    if (err != FERRY_OK) {
        return err;
    }
    buf_printf(maria_link_write(&s->reader),
               "SELECT topic, mkey, until_no FROM ferry_parked_key WHERE lane = %u",
               s->options.lane);
    err = maria_link_send(&s->reader, e);
    if (err == FERRY_OK) {
        err = maria_link_take(&s->reader, &result, e);
    }
    if (err != FERRY_OK) {
        return err;
    }
    MYSQL_ROW row;
    while ((row = mysql_fetch_row(result)) != NULL) {
        const unsigned long *sizes = mysql_fetch_lengths(result);
        callback(row[0], bytes_of(row[1], sizes[1]), strtoll(row[2], NULL, 10), arg);
    }
    return maria_link_done(&s->reader, result, e);
}

enum ferry_err source_maria_paused(void *driver, bool *paused, struct err_text *e)
{
    struct source_mariadb *s = driver;
    struct maria_field value;
    bool found = false;
    buf_printf(maria_link_write(&s->reader), "SELECT value FROM ferry_meta WHERE name = 'paused'");
    enum ferry_err err = maria_link_row(&s->reader, &value, 1, &found, e);
    *paused = err == FERRY_OK && found && strtol(value.text, NULL, 10) != 0;
    return err;
}

/* ---- Figures. */

/* Asked five times a second: neither a backlog nor rows that are deleted and not yet purged may
 * make it dear. So it begins where the relay is, and looks at COUNT_IDS_MAX ids from there. */
static enum ferry_err find_oldest(struct source_mariadb *s, uint64_t from, uint64_t *oldest,
                                  struct source_figures *figures, struct err_text *e)
{
    MYSQL_RES *result = NULL;
    enum ferry_err err = maria_link_ready(&s->reader, e);
    if (err != FERRY_OK) {
        return err;
    }
    buf_printf(maria_link_write(&s->reader),
               "SELECT id, CAST(UNIX_TIMESTAMP(SYSDATE(3)) * 1000 AS SIGNED) - created_ms FROM "
               "ferry_outbox FORCE INDEX (%s) WHERE id >= %llu AND lane = %u ORDER BY id "
               "LIMIT %d",
               s->index, (unsigned long long)from, s->options.lane, LOOK_ROWS_MAX);
    err = maria_link_send(&s->reader, e);
    if (err == FERRY_OK) {
        err = maria_link_take(&s->reader, &result, e);
    }
    if (err != FERRY_OK) {
        return err;
    }
    MYSQL_ROW row;
    while ((row = mysql_fetch_row(result)) != NULL) {
        uint64_t id = strtoull(row[0], NULL, 10);
        const struct handout_row *known = handout_find(&s->handout, id);
        if (!figures->oldest_known && (known == NULL || known->state == HANDOUT_HANDED)) {
            int64_t age_ms = strtoll(row[1], NULL, 10);
            figures->oldest_known = true;
            figures->oldest_ms = age_ms > 0 ? age_ms : 0;
            *oldest = id;
        }
    }
    return maria_link_done(&s->reader, result, e);
}

/* Rows of the table with ids above `after`. */
static enum ferry_err count_beyond(struct source_mariadb *s, uint64_t after, int64_t *rows,
                                   struct err_text *e)
{
    struct maria_field fields[2];
    bool found = false;
    uint64_t end = after + COUNT_IDS_MAX;
    *rows = 0;
    buf_printf(maria_link_write(&s->reader),
               "SELECT COUNT(*), (SELECT MAX(id) FROM ferry_outbox) FROM ferry_outbox FORCE INDEX "
               "(%s) WHERE id > %llu AND id <= %llu AND lane = %u",
               s->index, (unsigned long long)after, (unsigned long long)end, s->options.lane);
    enum ferry_err err = maria_link_row(&s->reader, fields, 2, &found, e);
    if (err != FERRY_OK || !found) {
        return err;
    }
    *rows = strtoll(fields[0].text, NULL, 10);
    uint64_t last = strtoull(fields[1].text, NULL, 10);
    if (last > end) { /* As many of the ids there are rows, it is taken. */
        *rows = (int64_t)((double)*rows * ((double)(last - after) / COUNT_IDS_MAX));
    }
    return FERRY_OK;
}

static enum ferry_err find_pending(struct source_mariadb *s, struct source_figures *figures,
                                   struct err_text *e)
{
    struct handout_count count = handout_count(&s->handout, s->cursor);
    uint64_t handed = count.oldest != 0 && count.oldest <= s->cursor ? count.oldest : 0;
    uint64_t oldest = 0;
    int64_t beyond = 0;
    enum ferry_err err = find_oldest(s, handed != 0 ? handed : s->cursor + 1, &oldest, figures, e);
    if (err == FERRY_OK) {
        uint64_t after = oldest > s->cursor ? oldest - 1 : s->cursor;
        count = handout_count(&s->handout, after);
        err = count_beyond(s, after, &beyond, e);
    }
    if (err == FERRY_OK) {
        figures->pending_known = true;
        figures->pending_rows =
            count.handed + (beyond > count.done_beyond ? beyond - count.done_beyond : 0);
    }
    return err;
}

/* Only who has the privilege PROCESS is told; others do not know. */
static enum ferry_err find_open(struct source_mariadb *s, struct source_figures *figures,
                                struct err_text *e)
{
    struct maria_field fields[2];
    bool found = false;
    buf_printf(maria_link_write(&s->reader),
               "SELECT COUNT(*), COALESCE(MAX(TIMESTAMPDIFF(MICROSECOND, trx_started, SYSDATE())), "
               "0) DIV 1000 FROM information_schema.INNODB_TRX WHERE trx_is_read_only = 0");
    enum ferry_err err = maria_link_row(&s->reader, fields, 2, &found, e);
    if (err == FERRY_ERR_DB) {
        return FERRY_OK;
    }
    if (err == FERRY_OK && found) {
        int64_t oldest_ms = strtoll(fields[1].text, NULL, 10);
        figures->open_tx_known = true;
        figures->open_transactions = strtoll(fields[0].text, NULL, 10);
        figures->longest_open_tx_ms = oldest_ms > 0 ? oldest_ms : 0;
    }
    return err;
}

enum ferry_err source_maria_figures(void *driver, int64_t settled, struct source_figures *figures,
                                    struct err_text *e)
{
    struct source_mariadb *s = driver;
    uint64_t times = s->reader.times + s->writer.times;
    *figures = (struct source_figures){
        .reconnects = times > s->reconnects_before ? times - s->reconnects_before : 0,
        .barriers = s->barriers,
        .barrier_us = s->barrier_us,
    };
    handout_settle(&s->handout, settled);
    enum ferry_err err = find_pending(s, figures, e);
    return err == FERRY_OK ? find_open(s, figures, e) : err;
}
