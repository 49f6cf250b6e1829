/* Listings: rows of the outbox, of its dead ones and of the inbox's; ids of a user's query. */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/id.h"
#include "outbox/postgresql/admin_pg.h"
#include "outbox/postgresql/cover.h"

#define UUID_OID 2950u
#define IDS_PAGE "1000" /* Of a query, at a time. */

enum ferry_err admin_pg_filter(struct admin_pg_params *p, enum outbox_table table,
                               const struct outbox_filter *filter, struct err_text *e)
{
    size_t limit =
        filter->limit == 0 || filter->limit > OUTBOX_LIST_MAX ? OUTBOX_LIST_MAX : filter->limit;
    struct ferry_id topic_id;
    if (table == INBOX_TABLE_DEAD && filter->topic != NULL && !id_parse(filter->topic, &topic_id)) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT,
                       "the inbox knows topics by their ids, and \"%.100s\" is none",
                       filter->topic);
    }
    admin_pg_add_int(p, filter->after);
    if (filter->one) {
        admin_pg_add_int(p, filter->number);
    } else {
        admin_pg_add_text(p, NULL);
    }
    admin_pg_add_text(p, filter->topic);
    admin_pg_add_bytes(p, filter->key);
    admin_pg_add_id(p, filter->id);
    admin_pg_add_text(p, filter->group);
    admin_pg_add_int(p, (int64_t)limit);
    return FERRY_OK;
}

/* ---- Rows ----------------------------------------------------------------------------------- */

/* Columns: number, topic, key, headers, payload, id, created, parked, reason, dead, requeued,
 * group, partition, offset, transaction, whether it is among the dead: 0, 1, or 2 parked there. */
static const char *rows_sql(enum outbox_table table)
{
    switch (table) {
    case OUTBOX_TABLE_PENDING:
        return "SELECT seq, topic, mkey, coalesce(headers, convert_to(headers_json::text, "
               "'UTF8')), "
               "payload, msg_id, created_ms, false, NULL::text, 0::bigint, false, NULL::text, "
               "0::int, 0::bigint, xid::text::bigint, coalesce((SELECT 1 + d.parked::int FROM "
               "@.outbox_dead d WHERE d.seq = o.seq), 0) FROM @.outbox o WHERE seq > $1::bigint "
               "AND ($2::bigint IS NULL OR "
               "seq = $2) AND ($3::text IS NULL OR topic = $3) AND ($4::bytea IS NULL OR mkey = "
               "$4) "
               "AND ($5::uuid IS NULL OR msg_id = $5) AND $6::text IS NULL ORDER BY seq "
               "LIMIT $7::bigint";
    case OUTBOX_TABLE_DEAD:
        return "SELECT seq, topic, mkey, coalesce(headers, convert_to(headers_json::text, "
               "'UTF8')), "
               "payload, msg_id, created_ms, parked, reason, dead_ms, false, NULL::text, 0::int, "
               "0::bigint, 0::bigint, 1 FROM @.outbox_dead WHERE seq > $1::bigint AND "
               "($2::bigint "
               "IS NULL OR seq = $2) AND ($3::text IS NULL OR topic = $3) AND ($4::bytea IS NULL "
               "OR "
               "mkey = $4) AND ($5::uuid IS NULL OR msg_id = $5) AND $6::text IS NULL ORDER BY seq "
               "LIMIT $7::bigint";
    case INBOX_TABLE_DEAD:
        return "SELECT number, topic_id::text, mkey, headers, payload, msg_id, ts_ms, parked, "
               "reason, "
               "at_ms, requeued, grp, part, off, 0::bigint, 1 FROM @.inbox_dead WHERE number > "
               "$1::bigint AND ($2::bigint IS NULL OR number = $2) AND ($3::text IS NULL OR "
               "topic_id "
               "= $3::uuid) AND ($4::bytea IS NULL OR mkey = $4) AND ($5::uuid IS NULL OR msg_id = "
               "$5) AND ($6::text IS NULL OR grp = $6) ORDER BY number LIMIT $7::bigint";
    }
    must(false);
    return NULL;
}

static struct outbox_row row_of(const PGresult *r, int at)
{
    struct outbox_row row = {
        .number = admin_pg_int(r, at, 0),
        .topic = PQgetvalue(r, at, 1),
        .has_key = !PQgetisnull(r, at, 2),
        .key = admin_pg_bytes(r, at, 2),
        .headers = admin_pg_bytes(r, at, 3),
        .payload = admin_pg_bytes(r, at, 4),
        .id = admin_pg_id(r, at, 5),
        .created_known = true,
        .created_ms = admin_pg_int(r, at, 6),
        .parked = admin_pg_bool(r, at, 7),
        .reason = PQgetvalue(r, at, 8),
        .dead_ms = admin_pg_int(r, at, 9),
        .requeued = admin_pg_bool(r, at, 10),
        .group = PQgetvalue(r, at, 11),
        .partition = (int32_t)admin_pg_int(r, at, 12),
        .offset = admin_pg_int(r, at, 13),
    };
    if (row.key.size > OUTBOX_KEY_MAX) {
        row.key.size = OUTBOX_KEY_MAX;
    }
    return row;
}

static void each_row(const PGresult *r, enum outbox_table table, const struct cover *cover,
                     outbox_row_cb *callback, void *arg)
{
    for (int i = 0; i < PQntuples(r); i++) {
        struct outbox_row row = row_of(r, i);
        if (table == OUTBOX_TABLE_PENDING) {
            int64_t aside = admin_pg_int(r, i, 15);
            row.set_aside = aside != 0;
            row.parked = aside == 2;
            row.settled_known = cover->base != NULL || row.set_aside;
            row.settled =
                row.set_aside || (cover->base != NULL &&
                                  cover_has(cover, (uint64_t)admin_pg_int(r, i, 14), row.number));
        }
        if (!callback(&row, arg)) {
            return;
        }
    }
}

enum ferry_err admin_pg_rows(const char *url, enum outbox_table table,
                             const struct outbox_filter *filter, outbox_row_cb *callback, void *arg,
                             struct err_text *e)
{
    struct admin_pg a;
    struct admin_pg_params p = {0};
    struct cover cover = {0};
    struct cover_place place;
    PGresult *r = NULL;
    enum ferry_err err = admin_pg_filter(&p, table, filter, e);
    if (err == FERRY_OK && table == OUTBOX_TABLE_PENDING && filter->checkpoint.size > 0) {
        err = cover_decode(filter->checkpoint, &cover, &place, e);
    }
    if (err == FERRY_OK) {
        err = admin_pg_open(&a, url, ADMIN_PG_READING, e);
    }
    if (err != FERRY_OK) {
        cover_fini(&cover);
        return err;
    }
    err = admin_pg_ask(&a, rows_sql(table), &p, &r, e);
    if (err == FERRY_OK) {
        each_row(r, table, &cover, callback, arg);
    }
    PQclear(r);
    cover_fini(&cover);
    return admin_pg_end(&a, err, e);
}

/* ---- Ids of a query ------------------------------------------------------------------------- */

static bool column_id(const PGresult *r, int row, struct ferry_id *id)
{
    struct bytes v = admin_pg_bytes(r, row, 0);
    if (v.data == NULL) {
        return false;
    }
    if (PQftype(r, 0) == UUID_OID || v.size == sizeof(id->bytes)) {
        *id = admin_pg_id(r, row, 0);
        return v.size == sizeof(id->bytes);
    }
    return id_parse((const char *)v.data, id); /* libpq puts a NUL behind every value. */
}

/* The query becomes a cursor's: that takes one SELECT and nothing else, and the transaction is
 * read-only, so whatever the query calls can change nothing. */
static enum ferry_err declare(struct admin_pg *a, const char *sql, struct err_text *e)
{
    struct buf text;
    buf_init(&text, 1u << 20);
    buf_printf(&text, "DECLARE ferry_ids BINARY NO SCROLL CURSOR FOR %s", sql);
    size_t end = text.size;
    while (end > 0 && strchr(" \t\r\n;", text.data[end - 1]) != NULL) {
        end--;
    }
    text.size = end;
    buf_append_u8(&text, 0);
    enum ferry_err err = FERRY_ERR_NO_MEMORY;
    if (buf_ok(&text)) { /* By the extended protocol, which takes one statement only. */
        PGresult *r =
            PQexecParams(a->connection, (const char *)text.data, 0, NULL, NULL, NULL, NULL, 1);
        err = PQresultStatus(r) == PGRES_COMMAND_OK
                  ? FERRY_OK
                  : err_set(e, FERRY_ERR_INVALID_ARGUMENT,
                            "the query must be one SELECT whose first column is a message id: %s",
                            PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY));
        PQclear(r);
    }
    buf_fini(&text);
    return err;
}

static enum ferry_err each_id(const PGresult *r, int64_t before, outbox_ids_cb *callback, void *arg,
                              bool *more, struct err_text *e)
{
    for (int i = 0; *more && i < PQntuples(r); i++) {
        struct ferry_id id;
        int64_t number = before + i + 1;
        if (PQnfields(r) == 0 || !column_id(r, i, &id)) {
            return err_set(e, FERRY_ERR_INVALID_ARGUMENT,
                           "row %lld of the query: its first column is no message id (16 bytes, or "
                           "a UUID, or one as text)",
                           (long long)number);
        }
        *more = callback(&id, arg);
    }
    return FERRY_OK;
}

/* Without the check of the tables: the ids may lie in a database of effects that has none of
 * Ferry's. */
enum ferry_err admin_pg_ids(const char *url, const char *sql, outbox_ids_cb *callback, void *arg,
                            struct err_text *e)
{
    struct admin_pg a;
    bool more = true;
    int64_t count = 0;
    enum ferry_err err = admin_pg_open(&a, url, ADMIN_PG_SELECTING, e);
    if (err != FERRY_OK) {
        return err;
    }
    err = declare(&a, sql, e);
    while (err == FERRY_OK && more) {
        PGresult *r = NULL;
        err = admin_pg_ask(&a, "FETCH " IDS_PAGE " FROM ferry_ids", NULL, &r, e);
        if (err == FERRY_OK) {
            int rows = PQntuples(r);
            err = each_id(r, count, callback, arg, &more, e);
            count += rows;
            more = more && rows > 0;
        }
        PQclear(r);
    }
    return admin_pg_end(&a, err, e);
}
