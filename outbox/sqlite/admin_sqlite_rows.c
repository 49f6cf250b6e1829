/* Listings: rows of the outbox and of the dead, what an inbox says of a message, and ids. */
#include <string.h>

#include "base/id.h"
#include "outbox/sqlite/admin_sqlite.h"
#include "outbox/sqlite/sqlite_error.h"

/* ---- Rows ----------------------------------------------------------------------------------- */

/* Parameters: 1 after, 2 the one number, 3 topic, 4 key, 5 id, 6 group, 7 limit. */
static const char *rows_sql(enum outbox_table table)
{
    switch (table) {
    case OUTBOX_TABLE_PENDING:
        return "SELECT id, topic, mkey, msg_id, headers, payload, created_ms FROM ferry_outbox "
               "WHERE id > ?1 AND (?2 IS NULL OR id = ?2) AND (?3 IS NULL OR topic = ?3) AND "
               "(?4 IS NULL OR CAST(mkey AS BLOB) = ?4) AND (?5 IS NULL OR msg_id = ?5) AND "
               "?6 IS NULL ORDER BY id LIMIT ?7";
    case OUTBOX_TABLE_DEAD:
        return "SELECT id, topic, mkey, msg_id, headers, payload, created_ms, parked, reason, "
               "dead_ms FROM ferry_outbox_dead "
               "WHERE id > ?1 AND (?2 IS NULL OR id = ?2) AND (?3 IS NULL OR topic = ?3) AND "
               "(?4 IS NULL OR CAST(mkey AS BLOB) = ?4) AND (?5 IS NULL OR msg_id = ?5) AND "
               "?6 IS NULL ORDER BY id LIMIT ?7";
    case INBOX_TABLE_DEAD:
        return "SELECT number, topic_id, mkey, msg_id, headers, payload, ts_ms, parked, reason, "
               "at_ms, grp, part, off, requeued FROM ferry_inbox_dead "
               "WHERE number > ?1 AND (?2 IS NULL OR number = ?2) AND (?3 IS NULL OR topic_id = ?3)"
               " AND (?4 IS NULL OR CAST(mkey AS BLOB) = ?4) AND (?5 IS NULL OR msg_id = ?5) AND "
               "(?6 IS NULL OR grp = ?6) ORDER BY number LIMIT ?7";
    }
    return NULL;
}

enum ferry_err admin_sqlite_bind_filter(sqlite3_stmt *stmt, enum outbox_table table,
                                        const struct outbox_filter *filter, struct err_text *e)
{
    int64_t after =
        filter->one && filter->number > filter->after ? filter->number - 1 : filter->after;
    sqlite3_bind_int64(stmt, 1, after);
    if (filter->one) {
        sqlite3_bind_int64(stmt, 2, filter->number);
    }
    if (filter->topic != NULL && table == INBOX_TABLE_DEAD) {
        struct ferry_id topic;
        if (!id_parse(filter->topic, &topic)) {
            return err_set(e, FERRY_ERR_INVALID_ARGUMENT,
                           "\"%.100s\": an inbox knows topics by their id", filter->topic);
        }
        admin_sqlite_bind_id(stmt, 3, &topic);
    } else if (filter->topic != NULL) {
        sqlite3_bind_text(stmt, 3, filter->topic, -1, SQLITE_TRANSIENT);
    }
    admin_sqlite_bind_bytes(stmt, 4, filter->key);
    admin_sqlite_bind_id(stmt, 5, filter->id);
    if (filter->group != NULL) {
        sqlite3_bind_text(stmt, 6, filter->group, -1, SQLITE_TRANSIENT);
    }
    bool limited = filter->limit > 0 && filter->limit < OUTBOX_LIST_MAX;
    sqlite3_bind_int64(stmt, 7, limited ? (int64_t)filter->limit : OUTBOX_LIST_MAX);
    return FERRY_OK;
}

/* `topic` has room for an id as text, of the inbox. */
static struct outbox_row row_of(sqlite3_stmt *stmt, enum outbox_table table, char *topic)
{
    struct outbox_row row = {
        .number = sqlite3_column_int64(stmt, 0),
        .has_key = sqlite3_column_type(stmt, 2) != SQLITE_NULL,
        .key = admin_sqlite_bytes(stmt, 2),
        .headers = admin_sqlite_bytes(stmt, 4),
        .payload = admin_sqlite_bytes(stmt, 5),
        .created_known = true,
        .created_ms = sqlite3_column_int64(stmt, 6),
        .offset = -1,
        .partition = -1,
    };
    admin_sqlite_id(stmt, 3, &row.id);
    if (table != OUTBOX_TABLE_PENDING) {
        row.parked = sqlite3_column_int(stmt, 7) != 0;
        row.reason = (const char *)sqlite3_column_text(stmt, 8);
        row.dead_ms = sqlite3_column_int64(stmt, 9);
    }
    if (table == INBOX_TABLE_DEAD) {
        struct ferry_id id;
        admin_sqlite_id(stmt, 1, &id);
        id_format(&id, topic);
        row.topic = topic;
        row.group = (const char *)sqlite3_column_text(stmt, 10);
        row.partition = sqlite3_column_int(stmt, 11);
        row.offset = sqlite3_column_int64(stmt, 12);
        row.requeued = sqlite3_column_int(stmt, 13) != 0;
    } else {
        row.topic = (const char *)sqlite3_column_text(stmt, 1);
    }
    return row;
}

static enum ferry_err each_row(struct admin_file *f, sqlite3_stmt *stmt, enum outbox_table table,
                               const struct outbox_status *status, outbox_row_cb *callback,
                               void *arg, struct err_text *e)
{
    char topic[ID_TEXT_BYTES];
    bool more = true;
    enum ferry_err err = FERRY_OK;
    while (more && (err = admin_sqlite_step(f, stmt, &more, e)) == FERRY_OK && more) {
        struct outbox_row row = row_of(stmt, table, topic);
        if (table == OUTBOX_TABLE_PENDING) {
            row.settled_known = status->word_known;
            row.settled = row.number <= admin_sqlite_published(status);
        }
        more = callback(&row, arg);
    }
    return err;
}

enum ferry_err admin_sqlite_rows(const char *url, enum outbox_table table,
                                 const struct outbox_filter *filter, outbox_row_cb *callback,
                                 void *arg, struct err_text *e)
{
    struct admin_file f;
    struct outbox_status status = {0};
    sqlite3_stmt *stmt = NULL;
    enum ferry_err err = admin_sqlite_open_reading(&f, url, true, e);
    if (err != FERRY_OK) {
        return err;
    }
    admin_sqlite_word(&f, &status);
    err = admin_sqlite_last_id(&f, &status.last_id, e);
    if (err == FERRY_OK) {
        err = admin_sqlite_prepare(&f, rows_sql(table), &stmt, e);
    }
    if (err == FERRY_OK) {
        err = admin_sqlite_bind_filter(stmt, table, filter, e);
    }
    if (err == FERRY_OK) {
        err = each_row(&f, stmt, table, &status, callback, arg, e);
    }
    sqlite3_finalize(stmt);
    admin_sqlite_close(&f);
    return err;
}

/* ---- One message in an inbox ---------------------------------------------------------------- */

/* A chain says of every offset before its end that it is done, and of those in the intervals that
 * are still kept, when. */
static enum ferry_err trace_chains(struct admin_file *f, const struct ferry_id *topic_id,
                                   int32_t partition, int64_t offset, inbox_trace_cb *callback,
                                   void *arg, bool *more, struct err_text *e)
{
    static const char sql[] =
        "SELECT grp, max(end_off) > ?3, (SELECT done_ms FROM ferry_inbox_chain i WHERE i.grp = "
        "c.grp AND i.topic_id = ?1 AND i.part = ?2 AND i.start_off <= ?3 AND i.end_off > ?3 AND "
        "i.start_off >= 0) FROM ferry_inbox_chain c WHERE topic_id = ?1 AND part = ?2 "
        "GROUP BY grp ORDER BY grp";
    sqlite3_stmt *stmt = NULL;
    bool row = true;
    enum ferry_err err = admin_sqlite_prepare(f, sql, &stmt, e);
    if (err == FERRY_OK) {
        admin_sqlite_bind_id(stmt, 1, topic_id);
        sqlite3_bind_int(stmt, 2, partition);
        sqlite3_bind_int64(stmt, 3, offset);
    }
    while (*more && err == FERRY_OK && (err = admin_sqlite_step(f, stmt, &row, e)) == FERRY_OK &&
           row) {
        struct inbox_trace trace = {
            .group = (const char *)sqlite3_column_text(stmt, 0),
            .by_chain = true,
            .done = sqlite3_column_int(stmt, 1) != 0,
            .when_known = sqlite3_column_int64(stmt, 2) > 0,
            .done_ms = sqlite3_column_int64(stmt, 2),
        };
        *more = callback(&trace, arg);
    }
    sqlite3_finalize(stmt);
    return err;
}

static enum ferry_err trace_ids(struct admin_file *f, const struct ferry_id *id,
                                inbox_trace_cb *callback, void *arg, struct err_text *e)
{
    sqlite3_stmt *stmt = NULL;
    bool row = true;
    enum ferry_err err = admin_sqlite_prepare(
        f, "SELECT DISTINCT grp FROM ferry_inbox_id WHERE msg_id = ?1 ORDER BY grp", &stmt, e);
    if (err == FERRY_OK) {
        admin_sqlite_bind_id(stmt, 1, id);
    }
    while (err == FERRY_OK && (err = admin_sqlite_step(f, stmt, &row, e)) == FERRY_OK && row) {
        struct inbox_trace trace = {.group = (const char *)sqlite3_column_text(stmt, 0),
                                    .done = true};
        if (!callback(&trace, arg)) {
            break;
        }
    }
    sqlite3_finalize(stmt);
    return err;
}

enum ferry_err admin_sqlite_inbox_trace(const char *url, const struct ferry_id *id,
                                        const struct ferry_id *topic_id, int32_t partition,
                                        int64_t offset, inbox_trace_cb *callback, void *arg,
                                        struct err_text *e)
{
    struct admin_file f;
    bool more = true;
    enum ferry_err err = admin_sqlite_open_reading(&f, url, true, e);
    if (err != FERRY_OK) {
        return err;
    }
    if (topic_id != NULL && offset >= 0) {
        err = trace_chains(&f, topic_id, partition, offset, callback, arg, &more, e);
    }
    if (err == FERRY_OK && more && id != NULL) {
        err = trace_ids(&f, id, callback, arg, e);
    }
    admin_sqlite_close(&f);
    return err;
}

/* ---- Ids of a query ------------------------------------------------------------------------- */

static bool column_id(sqlite3_stmt *stmt, struct ferry_id *id)
{
    if (sqlite3_column_type(stmt, 0) == SQLITE_TEXT) {
        return id_parse((const char *)sqlite3_column_text(stmt, 0), id);
    }
    if (sqlite3_column_type(stmt, 0) != SQLITE_BLOB ||
        sqlite3_column_bytes(stmt, 0) != (int)sizeof(id->bytes)) {
        return false;
    }
    memcpy(id->bytes, sqlite3_column_blob(stmt, 0), sizeof(id->bytes));
    return true;
}

static enum ferry_err prepare_select(struct admin_file *f, const char *sql, sqlite3_stmt **stmt,
                                     struct err_text *e)
{
    const char *rest = NULL;
    if (sqlite3_prepare_v2(f->connection, sql, -1, stmt, &rest) != SQLITE_OK) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT, "the query: %s",
                       sqlite3_errmsg(f->connection));
    }
    if (*stmt == NULL || sqlite3_column_count(*stmt) == 0 || !sqlite3_stmt_readonly(*stmt) ||
        rest[strspn(rest, " \t\r\n;")] != '\0') {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT,
                       "the query must be one SELECT whose first column is a message id");
    }
    return FERRY_OK;
}

static enum ferry_err each_id(struct admin_file *f, sqlite3_stmt *stmt, outbox_ids_cb *callback,
                              void *arg, struct err_text *e)
{
    bool found = true;
    enum ferry_err err = FERRY_OK;
    for (int64_t row = 1; (err = admin_sqlite_step(f, stmt, &found, e)) == FERRY_OK && found;
         row++) {
        struct ferry_id id;
        if (!column_id(stmt, &id)) {
            return err_set(e, FERRY_ERR_INVALID_ARGUMENT,
                           "row %lld of the query: its first column is no message id (16 bytes, or "
                           "a UUID as text)",
                           (long long)row);
        }
        if (!callback(&id, arg)) {
            break;
        }
    }
    return err;
}

/* Without the check of the schema: the ids may lie in a database of effects that has no Ferry
 * tables. */
enum ferry_err admin_sqlite_ids(const char *url, const char *sql, outbox_ids_cb *callback,
                                void *arg, struct err_text *e)
{
    struct admin_file f;
    sqlite3_stmt *stmt = NULL;
    enum ferry_err err = admin_sqlite_open_reading(&f, url, false, e);
    if (err != FERRY_OK) {
        return err;
    }
    err = prepare_select(&f, sql, &stmt, e);
    if (err == FERRY_OK) {
        err = each_id(&f, stmt, callback, arg, e);
    }
    sqlite3_finalize(stmt);
    admin_sqlite_close(&f);
    return err;
}
