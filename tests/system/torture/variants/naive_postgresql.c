/* Broken on purpose: a driver for PostgreSQL that reads its outbox as most do. Loaded in place of
 * the real one through FERRY_DRIVERS.
 *
 * As it is: `seq > last`, in order of seq. A transaction that took its number early and committed
 * late is passed over. With NAIVE_XMIN: only transactions below the oldest that is open, in order
 * of transaction and seq. One open transaction stops everything, and of two changes of an account
 * the later comes first when its transaction began first. */
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/id.h"
#include "outbox/relay/driver.h"
#include "wire/batch.h"

#define SEQ_BITS 24 /* Of a position under NAIVE_XMIN; the rest is the transaction. */

#ifdef NAIVE_XMIN
#define POSITION "((xid::text::bigint << 24) + (seq & ((1 << 24) - 1)))"
#define SETTLED  " AND xid < pg_snapshot_xmin(pg_current_snapshot())"
#else
#define POSITION "seq"
#define SETTLED  ""
#endif

struct naive {
    PGconn *connection;
    char *url;
    struct ferry_id id;
    int64_t after; /* Position of the last row that was read. */
};

struct source_mark {
    int64_t has; /* Every row up to this position. */
};

enum column { POSITION_COLUMN, SEQ, TOPIC, KEY, ID, HEADERS, PAYLOAD, CREATED_MS };

static enum ferry_err ask(struct naive *n, const char *sql, PGresult **answer, struct err_text *e)
{
    if (PQstatus(n->connection) != CONNECTION_OK) {
        PQfinish(n->connection);
        n->connection = PQconnectdb(n->url);
    }
    *answer = PQexecParams(n->connection, sql, 0, NULL, NULL, NULL, NULL, 0);
    if (PQresultStatus(*answer) == PGRES_TUPLES_OK) {
        return FERRY_OK;
    }
    PQclear(*answer);
    return err_set(e, FERRY_ERR_DB_RETRY, "%.200s", PQerrorMessage(n->connection));
}

static void naive_close(void *driver)
{
    struct naive *n = driver;
    PQfinish(n->connection);
    free(n->url);
    free(n);
}

static struct ferry_id naive_id(void *driver)
{
    return ((const struct naive *)driver)->id;
}

static const char *naive_name(void *driver)
{
    (void)driver;
    return "a naive reader";
}

static int64_t position_of(struct bytes blob)
{
    int64_t position = 0;
    if (blob.size == sizeof(position)) {
        memcpy(&position, blob.data, sizeof(position));
    }
    return position;
}

static void blob_of(int64_t position, struct source_blob *blob)
{
    blob->size = sizeof(position);
    memcpy(blob->data, &position, sizeof(position));
}

static enum ferry_err naive_begin(void *driver, struct bytes checkpoint, int64_t *settled,
                                  bool *same, struct err_text *e)
{
    struct naive *n = driver;
    (void)e;
    n->after = position_of(checkpoint);
    *settled = n->after;
    *same = true;
    return FERRY_OK;
}

/* A bytea as PostgreSQL prints it, in the page's memory. */
static bool take_bytes(const PGresult *answer, int at, enum column column, struct source_page *page,
                       const void **data, size_t *bytes)
{
    *data = NULL;
    *bytes = 0;
    if (PQgetisnull(answer, at, (int)column)) {
        return true;
    }
    unsigned char *plain =
        PQunescapeBytea((const unsigned char *)PQgetvalue(answer, at, (int)column), bytes);
    void *kept = plain == NULL ? NULL : source_page_take(page, *bytes + 1);
    if (kept != NULL) {
        memcpy(kept, plain, *bytes);
    }
    PQfreemem(plain);
    *data = kept;
    return kept != NULL;
}

static bool add_headers(struct source_page *page, struct source_row *row, struct bytes map)
{
    struct ferry_header *headers = source_page_take(page, SOURCE_HEADERS_MAX * sizeof(*headers));
    struct bytes name, value;
    size_t at = 0, count = 0;
    while (headers != NULL && map.size > 0 && count < SOURCE_HEADERS_MAX &&
           batch_next_header(map, &at, &name, &value)) {
        if (bytes_equal(name, bytes_of_string(SOURCE_HEADER_DUE))) {
            row->message.due_ms = strtoll((const char *)value.data, NULL, 10);
            continue;
        }
        headers[count++] = (struct ferry_header){source_page_text(page, name),
                                                 source_page_text(page, value), value.size};
    }
    row->message.headers = headers;
    row->message.header_count = count;
    return headers != NULL;
}

static bool add_row(const PGresult *answer, int at, struct source_page *page, int64_t *position)
{
    struct source_row *row = source_page_add(page);
    const char *topic = PQgetvalue(answer, at, TOPIC);
    if (row == NULL) {
        return false;
    }
    memset(row, 0, sizeof(*row));
    row->position = strtoll(PQgetvalue(answer, at, POSITION_COLUMN), NULL, 10);
    row->number = strtoll(PQgetvalue(answer, at, SEQ), NULL, 10);
    struct ferry_message *m = &row->message;
    m->topic = source_page_text(page, (struct bytes){(const uint8_t *)topic, strlen(topic)});
    m->timestamp_ms = strtoll(PQgetvalue(answer, at, CREATED_MS), NULL, 10);
    *position = row->position;
    const void *headers = NULL;
    size_t headers_bytes = 0;
    return m->topic != NULL && id_parse(PQgetvalue(answer, at, ID), &m->id) &&
           take_bytes(answer, at, KEY, page, &m->key, &m->key_bytes) &&
           take_bytes(answer, at, PAYLOAD, page, &m->payload, &m->payload_bytes) &&
           take_bytes(answer, at, HEADERS, page, &headers, &headers_bytes) &&
           add_headers(page, row, (struct bytes){headers, headers_bytes});
}

static enum ferry_err naive_read(void *driver, size_t rows_max, size_t bytes_max,
                                 struct source_page *page, bool *more, struct err_text *e)
{
    struct naive *n = driver;
    PGresult *answer = NULL;
    char sql[512];
    (void)bytes_max; /* The bank's rows are small. */
    (void)snprintf(sql, sizeof(sql),
                   "SELECT " POSITION ", seq, topic, mkey, msg_id, headers, payload, created_ms"
                   " FROM ferry.outbox WHERE " POSITION " > %lld" SETTLED " ORDER BY 1 LIMIT %zu",
                   (long long)n->after, rows_max);
    source_page_clear(page);
    *more = false;
    enum ferry_err err = ask(n, sql, &answer, e);
    if (err != FERRY_OK) {
        return err;
    }
    int count = PQntuples(answer);
    for (int i = 0; i < count && err == FERRY_OK; i++) {
        err = add_row(answer, i, page, &n->after) ? FERRY_OK : FERRY_ERR_NO_MEMORY;
    }
    *more = (size_t)count == rows_max;
    PQclear(answer);
    return err;
}

static void naive_rewind(void *driver, int64_t after)
{
    ((struct naive *)driver)->after = after;
}

static enum ferry_err naive_changed(void *driver, bool *changed, struct err_text *e)
{
    (void)driver;
    (void)e;
    *changed = true;
    return FERRY_OK;
}

static void naive_checkpoint(void *driver, int64_t settled, struct source_blob *blob)
{
    (void)driver;
    blob_of(settled, blob);
}

static enum ferry_err naive_mark_open(void *driver, struct bytes blob, struct source_mark **mark,
                                      bool *same, bool *again, struct err_text *e)
{
    (void)driver;
    (void)e;
    *same = true;
    *again = false;
    *mark = calloc(1, sizeof(**mark));
    if (*mark == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    (*mark)->has = position_of(blob);
    return FERRY_OK;
}

static void naive_mark_close(void *driver, struct source_mark *mark)
{
    (void)driver;
    free(mark);
}

static bool naive_wants(void *driver, const struct source_mark *mark, const struct source_row *row)
{
    (void)driver;
    return row->position > mark->has;
}

static size_t naive_mark_encode(void *driver, const struct source_mark *mark,
                                const struct source_row *const *rows, size_t count, bool last,
                                struct source_blob *blob)
{
    (void)driver;
    (void)last;
    blob_of(count > 0 ? rows[count - 1]->position : mark->has, blob);
    return count;
}

static enum ferry_err naive_mark_add(void *driver, struct source_mark *mark,
                                     const struct source_row *const *rows, size_t count, bool last)
{
    (void)driver;
    (void)last;
    mark->has = count > 0 ? rows[count - 1]->position : mark->has;
    return FERRY_OK;
}

static void naive_mark_acked(void *driver, struct source_mark *mark, size_t count)
{
    (void)driver;
    (void)mark;
    (void)count;
}

static enum ferry_err naive_set_aside(void *driver, const struct source_row *row,
                                      enum source_aside why, const char *reason, bool *done,
                                      struct err_text *e)
{
    (void)driver;
    (void)row;
    (void)why;
    (void)done;
    return err_set(e, FERRY_ERR_DB, "a row was refused: %.200s", reason);
}

static const struct source_ops naive_ops = {
    .close = naive_close,
    .id = naive_id,
    .name = naive_name,
    .begin = naive_begin,
    .read = naive_read,
    .rewind = naive_rewind,
    .changed = naive_changed,
    .checkpoint = naive_checkpoint,
    .mark_open = naive_mark_open,
    .mark_close = naive_mark_close,
    .wants = naive_wants,
    .mark_encode = naive_mark_encode,
    .mark_add = naive_mark_add,
    .mark_acked = naive_mark_acked,
    .set_aside = naive_set_aside,
};

static enum ferry_err naive_source_open(struct source *source, const char *url,
                                        const struct source_options *options, struct err_text *e)
{
    struct naive *n = calloc(1, sizeof(*n));
    PGresult *answer = NULL;
    (void)options;
    if (n == NULL || (n->url = strdup(url)) == NULL) {
        free(n);
        return FERRY_ERR_NO_MEMORY;
    }
    n->connection = PQconnectdb(url);
    enum ferry_err err =
        ask(n, "SELECT value FROM ferry.meta WHERE name = 'source_uuid'", &answer, e);
    if (err == FERRY_OK) {
        bool good = PQntuples(answer) == 1 && id_parse(PQgetvalue(answer, 0, 0), &n->id);
        err = good ? FERRY_OK : err_set(e, FERRY_ERR_DB_SCHEMA, "no source_uuid");
        PQclear(answer);
    }
    if (err != FERRY_OK) {
        naive_close(n);
        return err == FERRY_ERR_DB_RETRY ? FERRY_ERR_IO : err;
    }
    *source = (struct source){.ops = &naive_ops, .driver = n};
    return FERRY_OK;
}

static enum ferry_err naive_url_check(const char *url, char *shown, size_t shown_bytes,
                                      struct err_text *e)
{
    (void)e;
    (void)snprintf(shown, shown_bytes, "%s", url);
    return FERRY_OK;
}

static enum ferry_err naive_lanes(const char *url, uint32_t *lanes, struct err_text *e)
{
    (void)url;
    (void)e;
    *lanes = 1;
    return FERRY_OK;
}

const struct outbox_driver *ferry_outbox_driver_postgresql(void);
const struct outbox_driver *ferry_outbox_driver_postgresql(void)
{
    static const struct outbox_driver driver = {.abi = OUTBOX_DRIVER_ABI,
                                                .scheme = "postgresql",
                                                .url_check = naive_url_check,
                                                .lanes = naive_lanes,
                                                .source_open = naive_source_open};
    return &driver;
}
