/* What the relay asks besides: decisions of people, and figures for them. */
#include <stdlib.h>

#include "outbox/mariadb/source_mariadb.h"

#define COUNT_ROWS_MAX 100000 /* More pending rows than these are estimated. */
#define LOOK_ROWS_MAX  1000   /* First rows among which the oldest pending one is looked for. */

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

static enum ferry_err count_pending(struct source_mariadb *s, struct source_figures *figures,
                                    struct err_text *e)
{
    struct maria_field fields[2];
    bool found = false;
    buf_printf(maria_link_write(&s->reader),
               "SELECT COUNT(*), (SELECT TABLE_ROWS FROM information_schema.TABLES WHERE "
               "TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'ferry_outbox') FROM (SELECT 1 FROM "
               "ferry_outbox WHERE lane = %u LIMIT %d) AS rows_there",
               s->options.lane, COUNT_ROWS_MAX);
    enum ferry_err err = maria_link_row(&s->reader, fields, 2, &found, e);
    if (err != FERRY_OK || !found) {
        return err;
    }
    int64_t rows = strtoll(fields[0].text, NULL, 10);
    int64_t estimate = strtoll(fields[1].text, NULL, 10);
    if (rows == COUNT_ROWS_MAX && estimate > rows) {
        rows = estimate;
    }
    int64_t done = handout_done(&s->handout);
    figures->pending_known = true;
    figures->pending_rows = rows > done ? rows - done : 0;
    return FERRY_OK;
}

static enum ferry_err find_oldest(struct source_mariadb *s, struct source_figures *figures,
                                  struct err_text *e)
{
    MYSQL_RES *result = NULL;
    enum ferry_err err = maria_link_ready(&s->reader, e);
    if (err != FERRY_OK) {
        return err;
    }
    buf_printf(maria_link_write(&s->reader),
               "SELECT id, CAST(UNIX_TIMESTAMP(SYSDATE(3)) * 1000 AS SIGNED) - created_ms FROM "
               "ferry_outbox FORCE INDEX (PRIMARY) WHERE lane = %u ORDER BY id LIMIT %d",
               s->options.lane, LOOK_ROWS_MAX);
    err = maria_link_send(&s->reader, e);
    if (err == FERRY_OK) {
        err = maria_link_take(&s->reader, &result, e);
    }
    if (err != FERRY_OK) {
        return err;
    }
    MYSQL_ROW row;
    while ((row = mysql_fetch_row(result)) != NULL) {
        const struct handout_row *known = handout_find(&s->handout, strtoull(row[0], NULL, 10));
        if (!figures->oldest_known && (known == NULL || known->state == HANDOUT_HANDED)) {
            figures->oldest_known = true;
            int64_t age_ms = strtoll(row[1], NULL, 10);
            figures->oldest_ms = age_ms > 0 ? age_ms : 0;
        }
    }
    return maria_link_done(&s->reader, result, e);
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
    enum ferry_err err = count_pending(s, figures, e);
    if (err == FERRY_OK) {
        err = find_oldest(s, figures, e);
    }
    return err == FERRY_OK ? find_open(s, figures, e) : err;
}
