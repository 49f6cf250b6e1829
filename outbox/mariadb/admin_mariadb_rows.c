/* Listings: rows of the outbox and of the dead, what an inbox says of a message, and ids. */
#include <string.h>

#include "base/id.h"
#include "outbox/mariadb/admin_mariadb.h"

/* ---- Rows. */

static const char *rows_columns(enum outbox_table table)
{
    switch (table) {
    case OUTBOX_TABLE_PENDING:
        return "SELECT id, topic, mkey, msg_id, headers, payload, created_ms FROM ferry_outbox";
    case OUTBOX_TABLE_DEAD:
        return "SELECT id, topic, mkey, msg_id, headers, payload, created_ms, parked, reason, "
               "dead_ms FROM ferry_outbox_dead";
    case INBOX_TABLE_DEAD:
        return "SELECT number, topic_id, mkey, msg_id, headers, payload, ts_ms, parked, reason, "
               "at_ms, grp, part, off, requeued FROM ferry_inbox_dead";
    }
    return NULL;
}

/* `topic` has room for an id as text, of the inbox. */
static struct outbox_row row_of(MYSQL_RES *result, MYSQL_ROW values, enum outbox_table table,
                                char *topic)
{
    struct outbox_row row = {
        .number = admin_maria_int(values, 0),
        .topic = values[1],
        .has_key = values[2] != NULL,
        .key = admin_maria_column(result, values, 2),
        .headers = admin_maria_column(result, values, 4),
        .payload = admin_maria_column(result, values, 5),
        .created_known = true,
        .created_ms = admin_maria_int(values, 6),
        .offset = -1,
        .partition = -1,
    };
    admin_maria_column_id(result, values, 3, &row.id);
    if (table != OUTBOX_TABLE_PENDING) {
        row.parked = admin_maria_int(values, 7) != 0;
        row.reason = values[8];
        row.dead_ms = admin_maria_int(values, 9);
    }
    if (table == INBOX_TABLE_DEAD) {
        struct ferry_id id;
        admin_maria_column_id(result, values, 1, &id);
        id_format(&id, topic);
        row.topic = topic;
        row.group = values[10];
        row.partition = (int32_t)admin_maria_int(values, 11);
        row.offset = admin_maria_int(values, 12);
        row.requeued = admin_maria_int(values, 13) != 0;
    }
    return row;
}

enum ferry_err admin_maria_rows(const char *url, enum outbox_table table,
                                const struct outbox_filter *filter, outbox_row_cb *callback,
                                void *arg, struct err_text *e)
{
    struct admin_maria a;
    MYSQL_RES *result = NULL;
    MYSQL_ROW values = NULL;
    char topic[ID_TEXT_BYTES];
    enum ferry_err err = admin_maria_read(&a, url, true, e);
    if (err != FERRY_OK) {
        return err;
    }
    buf_printf(admin_maria_sql(&a), "%s", rows_columns(table));
    err = admin_maria_where(&a, table, filter, e);
    buf_printf(&a.sql, " ORDER BY 1 LIMIT %zu", admin_maria_limit(filter));
    if (err == FERRY_OK) {
        err = admin_maria_query(&a, &result, e);
    }
    bool more = true;
    while (more && err == FERRY_OK &&
           (err = admin_maria_next(&a, result, &values, e)) == FERRY_OK && values != NULL) {
        struct outbox_row row = row_of(result, values, table, topic);
        more = callback(&row, arg);
    }
    mysql_free_result(result);
    return admin_maria_end(&a, err, e);
}

/* ---- One message in an inbox. */

static enum ferry_err each_trace(struct admin_maria *a, bool by_chain, inbox_trace_cb *callback,
                                 void *arg, bool *more, struct err_text *e)
{
    MYSQL_RES *result = NULL;
    MYSQL_ROW row = NULL;
    enum ferry_err err = admin_maria_query(a, &result, e);
    while (*more && err == FERRY_OK && (err = admin_maria_next(a, result, &row, e)) == FERRY_OK &&
           row != NULL) {
        struct inbox_trace trace = {
            .group = row[0],
            .by_chain = by_chain,
            .done = admin_maria_int(row, 1) != 0,
            .when_known = admin_maria_int(row, 2) > 0,
            .done_ms = admin_maria_int(row, 2),
        };
        *more = callback(&trace, arg);
    }
    mysql_free_result(result);
    return err;
}

/* A chain says of every offset before its end that it is done, and of those in the intervals that
 * are still kept, when. */
static void write_chains(struct admin_maria *a, const struct ferry_id *topic_id, int32_t partition,
                         int64_t offset)
{
    buf_printf(admin_maria_sql(a),
               "SELECT c.grp, MAX(c.end_off) > %lld, (SELECT i.done_ms FROM ferry_inbox_chain i "
               "WHERE i.grp = c.grp AND i.part = %d AND i.start_off <= %lld AND i.end_off > %lld "
               "AND i.start_off >= 0 AND i.topic_id = ",
               (long long)offset, partition, (long long)offset, (long long)offset);
    admin_maria_id(a, topic_id);
    buf_printf(&a->sql,
               ") FROM ferry_inbox_chain c WHERE c.part = %d AND c.topic_id = ", partition);
    admin_maria_id(a, topic_id);
    buf_printf(&a->sql, " GROUP BY c.grp ORDER BY c.grp");
}

enum ferry_err admin_maria_inbox_trace(const char *url, const struct ferry_id *id,
                                       const struct ferry_id *topic_id, int32_t partition,
                                       int64_t offset, inbox_trace_cb *callback, void *arg,
                                       struct err_text *e)
{
    struct admin_maria a;
    bool more = true;
    enum ferry_err err = admin_maria_read(&a, url, true, e);
    if (err != FERRY_OK) {
        return err;
    }
    if (topic_id != NULL && offset >= 0) {
        write_chains(&a, topic_id, partition, offset);
        err = each_trace(&a, true, callback, arg, &more, e);
    }
    if (err == FERRY_OK && more && id != NULL) {
        buf_printf(admin_maria_sql(&a), "SELECT grp, 1, 0 FROM ferry_inbox_id WHERE msg_id = ");
        admin_maria_id(&a, id);
        buf_printf(&a.sql, " ORDER BY grp");
        err = each_trace(&a, false, callback, arg, &more, e);
    }
    return admin_maria_end(&a, err, e);
}

/* ---- Ids of a query. */

static bool column_id(MYSQL_RES *result, MYSQL_ROW row, struct ferry_id *id)
{
    struct bytes bytes = admin_maria_column(result, row, 0);
    if (bytes.size == sizeof(id->bytes)) {
        memcpy(id->bytes, bytes.data, sizeof(id->bytes));
        return true;
    }
    return row[0] != NULL && strlen(row[0]) == bytes.size && id_parse(row[0], id);
}

static enum ferry_err each_id(struct admin_maria *a, MYSQL_RES *result, outbox_ids_cb *callback,
                              void *arg, struct err_text *e)
{
    MYSQL_ROW row = NULL;
    enum ferry_err err = FERRY_OK;
    for (int64_t number = 1;
         (err = admin_maria_next(a, result, &row, e)) == FERRY_OK && row != NULL; number++) {
        struct ferry_id id;
        if (!column_id(result, row, &id)) {
            return err_set(e, FERRY_ERR_INVALID_ARGUMENT,
                           "row %lld of the query: its first column is no message id (16 bytes, or "
                           "a UUID as text)",
                           (long long)number);
        }
        if (!callback(&id, arg)) {
            break;
        }
    }
    return err;
}

/* The query stands where only a query may stand, and alone, in a read-only transaction. */
static void write_query(struct admin_maria *a, const char *sql)
{
    size_t size = strlen(sql);
    while (size > 0 && strchr(" \t\r\n;", sql[size - 1]) != NULL) {
        size--;
    }
    buf_printf(admin_maria_sql(a), "SELECT * FROM (");
    buf_append(&a->sql, sql, size);
    buf_printf(&a->sql, "\n) AS ferry_query");
}

/* Without the check of the schema: the ids may lie in a database of effects that has no Ferry
 * tables. */
enum ferry_err admin_maria_ids(const char *url, const char *sql, outbox_ids_cb *callback, void *arg,
                               struct err_text *e)
{
    struct admin_maria a;
    MYSQL_RES *result = NULL;
    struct err_text words = {{0}};
    enum ferry_err err = admin_maria_read(&a, url, false, e);
    if (err != FERRY_OK) {
        return err;
    }
    write_query(&a, sql);
    err = admin_maria_query(&a, &result, &words);
    if (err == FERRY_ERR_DB || err == FERRY_ERR_DB_SCHEMA) {
        err = err_set(e, FERRY_ERR_INVALID_ARGUMENT,
                      "the query must be one SELECT whose first column is a message id: %s",
                      mysql_error(a.connection));
    } else if (err != FERRY_OK) {
        err = err_set(e, err, "%s", words.text);
    } else {
        err = each_id(&a, result, callback, arg, e);
    }
    mysql_free_result(result);
    return admin_maria_end(&a, err, e);
}
