/* db_postgresql: the application's side of outbox, inbox and sagas on a PostgreSQL connection that
 * the caller owns. Parameters and results are binary. */
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "base/clock.h"
#include "base/mem.h"
#include "outbox/postgresql/db_postgresql.h"
#include "outbox/postgresql/migrate_postgresql.h"
#include "outbox/postgresql/pq_error.h"
#include "outbox/postgresql/pq_params.h"
#include "outbox/postgresql/schema_postgresql.h"

#define SQL_MAX 1024u

enum statement {
    STATEMENT_PUT,
    STATEMENT_PUTV,
    STATEMENT_LOCK_KEY,
    STATEMENT_CHAIN_END,
    STATEMENT_CHAIN_EXTEND,
    STATEMENT_CHAIN_TRIM,
    STATEMENT_SKIP_ADD,
    STATEMENT_ID_CLAIM,
    STATEMENT_ID_TRIM,
    STATEMENT_DEAD_ADD,
    STATEMENT_KEY_PARKED,
    STATEMENT_KEY_FIRST,
    STATEMENT_KEY_STAYS,
    STATEMENT_REQUEUED,
    STATEMENT_DEAD_REMOVE,
    STATEMENT_DEAD_AGAIN,
    STATEMENT_BARRIER_ADD,
    STATEMENT_BARRIER_WHY,
    STATEMENT_BARRIER_DAY,
    STATEMENT_BARRIER_TRIM,
    STATEMENT_SAGA_INSERT,
    STATEMENT_SAGA_GET,
    STATEMENT_SAGA_UPDATE,
    STATEMENT_SAGA_TRIM,
    STATEMENT_COUNT
};

#define NO_SAGA     "'00000000-0000-0000-0000-000000000000'::uuid"
#define CHAIN_WHERE " grp = $1 AND topic_id = $2 AND part = $3 "

/* S. stands for the schema. {lane K} stands for the lane of key K, where there are several. */
#define KEY_WHERE                                                                                  \
    " grp = $1::text AND topic_id = $2::uuid AND md5(mkey) = md5($3::bytea) AND mkey = $3::bytea "

static const char *const statement_texts[STATEMENT_COUNT] = {
    [STATEMENT_PUT] = "INSERT INTO S.outbox (lane, topic, mkey, msg_id, headers, payload, "
                      "created_ms) VALUES ({lane $2}, $1::text, $2::bytea, $3::uuid, $4::bytea, "
                      "$5::bytea, $6::bigint)",
    [STATEMENT_PUTV] =
        "INSERT INTO S.outbox (lane, topic, mkey, msg_id, headers, payload, created_ms) "
        "SELECT {lane r.mkey}, r.* FROM unnest($1::text[], $2::bytea[], $3::uuid[], $4::bytea[], "
        "$5::bytea[], $6::bigint[]) AS r(topic, mkey, msg_id, headers, payload, created_ms)",
    [STATEMENT_LOCK_KEY] = "SELECT pg_advisory_xact_lock($1::bigint)",
    [STATEMENT_CHAIN_END] =
        "SELECT end_off FROM S.inbox_chain WHERE" CHAIN_WHERE "ORDER BY start_off DESC LIMIT 1",
    [STATEMENT_CHAIN_EXTEND] =
        /* Above READ COMMITTED the row that the key would collide with may be trimmed, unseen: then
         * the last row of the snapshot is trimmed too, and to lock it cannot be serialized. */
    "WITH seen AS MATERIALIZED (SELECT end_off FROM S.inbox_chain WHERE" CHAIN_WHERE
    "AND current_setting('transaction_isolation') <> 'read committed' "
    "ORDER BY start_off DESC LIMIT 1 FOR KEY SHARE) "
    "INSERT INTO S.inbox_chain (grp, topic_id, part, start_off, end_off) "
    "SELECT $1::text, $2::uuid, $3::integer, $4::bigint, $5::bigint "
    "WHERE (SELECT count(*) FROM seen) >= 0",
    [STATEMENT_CHAIN_TRIM] =
        "DELETE FROM S.inbox_chain WHERE" CHAIN_WHERE
        "AND start_off < (SELECT start_off FROM S.inbox_chain WHERE" CHAIN_WHERE
        "ORDER BY start_off DESC LIMIT 1 OFFSET $4::bigint)",
    [STATEMENT_SKIP_ADD] =
        "INSERT INTO S.inbox_skip (grp, topic_id, part, from_off, to_off, reason) "
        "VALUES ($1::text, $2::uuid, $3::integer, $4::bigint, $5::bigint, $6::text)",
    [STATEMENT_ID_CLAIM] = "INSERT INTO S.inbox_id (grp, msg_id, day) "
                           "VALUES ($1::text, $2::uuid, $3::integer) ON CONFLICT DO NOTHING",
    [STATEMENT_ID_TRIM] =
        "DELETE FROM S.inbox_id WHERE grp = $1::text AND msg_id IN (SELECT msg_id FROM S.inbox_id "
        "WHERE grp = $1::text AND day < $2::integer ORDER BY day LIMIT $3::bigint "
        "FOR UPDATE SKIP LOCKED)",
    [STATEMENT_DEAD_ADD] =
        "INSERT INTO S.inbox_dead (grp, topic_id, part, off, msg_id, reason, parked, mkey, "
        "headers, payload, ts_ms, requeued) VALUES ($1::text, $2::uuid, $3::integer, $4::bigint, "
        "$5::uuid, $6::text, $7::integer = 1, $8::bytea, $9::bytea, $10::bytea, $11::bigint, "
        "$12::integer = 1) "
        "ON CONFLICT (grp, topic_id, part, off) DO NOTHING",
    [STATEMENT_KEY_PARKED] = "SELECT 1::bigint FROM S.inbox_dead WHERE" KEY_WHERE "LIMIT 1",
    [STATEMENT_KEY_FIRST] =
        "SELECT 1::bigint FROM S.inbox_dead WHERE" KEY_WHERE "ORDER BY number LIMIT 1 FOR UPDATE",
    [STATEMENT_KEY_STAYS] =
        "SELECT 1::bigint FROM S.inbox_dead WHERE" KEY_WHERE "AND NOT requeued LIMIT 1",
    /* Only the first one: whoever passes over it to the next would turn a key's order around. */
    [STATEMENT_REQUEUED] =
        "SELECT number, part, off, msg_id, reason, parked::integer, mkey, headers, payload, ts_ms "
        "FROM S.inbox_dead WHERE number = (SELECT number FROM S.inbox_dead WHERE grp = $1::text "
        "AND topic_id = $2::uuid AND requeued ORDER BY number LIMIT 1) FOR UPDATE SKIP LOCKED",
    [STATEMENT_DEAD_REMOVE] = "DELETE FROM S.inbox_dead WHERE number = $1::bigint",
    [STATEMENT_DEAD_AGAIN] =
        "UPDATE S.inbox_dead SET requeued = false, "
        "reason = CASE WHEN number = $1::bigint THEN $2::text ELSE reason END "
        "WHERE number = $1::bigint OR (requeued AND number > $1::bigint AND (grp, topic_id, mkey) "
        "= "
        "(SELECT grp, topic_id, mkey FROM S.inbox_dead WHERE number = $1::bigint))",
    [STATEMENT_BARRIER_ADD] =
        "INSERT INTO S.saga_barrier (saga_id, step, op, why) "
        "VALUES ($1::uuid, $2::integer, $3::integer, $4::integer) ON CONFLICT DO NOTHING",
    [STATEMENT_BARRIER_WHY] = "SELECT why::integer FROM S.saga_barrier WHERE saga_id = $1::uuid "
                              "AND step = $2::integer AND op = $3::integer FOR SHARE",
    [STATEMENT_BARRIER_DAY] = "UPDATE S.saga_barrier SET why = $1::integer WHERE saga_id = " NO_SAGA
                              " AND step = 0 AND op = 0 AND why < $1::integer",
    [STATEMENT_BARRIER_TRIM] =
        "DELETE FROM S.saga_barrier WHERE (saga_id, step, op) IN (SELECT saga_id, step, op FROM "
        "S.saga_barrier WHERE saga_id > " NO_SAGA " AND saga_id < $1::uuid "
        "ORDER BY saga_id, step, op LIMIT $2::bigint FOR UPDATE SKIP LOCKED)",
    [STATEMENT_SAGA_INSERT] =
        "INSERT INTO S.saga (saga_id, type, state, step, ver, deadline_ms, reason, data) "
        "VALUES ($1::uuid, $2::text, $3::integer, $4::integer, $5::bigint, $6::bigint, $7::text, "
        "$8::bytea)",
    [STATEMENT_SAGA_GET] = "SELECT type, state::integer, step, ver, deadline_ms, reason, data "
                           "FROM S.saga WHERE saga_id = $1::uuid",
    [STATEMENT_SAGA_UPDATE] =
        "UPDATE S.saga SET state = $2::integer, step = $3::integer, ver = ver + 1, "
        "deadline_ms = $5::bigint, reason = $6::text, data = $7::bytea, changed_ms = S.now_ms() "
        "WHERE saga_id = $1::uuid AND ver = $4::bigint",
    [STATEMENT_SAGA_TRIM] =
        "DELETE FROM S.saga WHERE saga_id IN (SELECT saga_id FROM S.saga WHERE state IN (3, 4, 6) "
        "AND created_ms < $1::bigint AND changed_ms < $1::bigint LIMIT $2::bigint "
        "FOR UPDATE SKIP LOCKED)",
};

struct db_postgresql {
    PGconn *connection; /* The caller's. */
    char schema[SCHEMA_POSTGRESQL_NAME_MAX + 1];
    uint64_t tag; /* Tells this adapter's prepared statements from others' on the connection. */
    bool schema_checked;
    int64_t lanes; /* 0: not known yet. */
    bool prepared[STATEMENT_COUNT];
    char place[DB_POSTGRESQL_PLACE_MAX]; /* Empty: not known. */
    unsigned extensions;                 /* Of chains, until the next trim. */
    PGresult *held;                      /* What the last call's answer points into. */
    struct buf scratch;                  /* Of putv. */
};

static void add_chain(struct pq_params *p, const struct db_chain *chain)
{
    pq_add_text(p, chain->group);
    pq_add_id(p, chain->topic_id);
    pq_add_i32(p, chain->partition);
}

/* ---- Statements ---------------------------------------------------------------------------- */

static void release(struct db_postgresql *d)
{
    PQclear(d->held);
    d->held = NULL;
}

static enum ferry_err simple(struct db_postgresql *d, const char *sql, const char *doing,
                             struct err_text *e)
{
    PGresult *result = PQexec(d->connection, sql);
    ExecStatusType status = PQresultStatus(result);
    enum ferry_err err = status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK
                             ? FERRY_OK
                             : pq_error(d->connection, result, doing, e);
    PQclear(result);
    return err;
}

/* The text with the schema's name and lanes put in. */
static void spell(const struct db_postgresql *d, enum statement which, char sql[SQL_MAX])
{
    size_t at = 0;
    for (const char *from = statement_texts[which]; *from != '\0';) {
        size_t room = SQL_MAX - at;
        int n = 1;
        if (strncmp(from, "S.", 2) == 0) {
            n = snprintf(sql + at, room, "%s.", d->schema);
            from += 2;
        } else if (strncmp(from, "{lane ", 6) == 0) {
            int key = (int)strcspn(from + 6, "}");
            n = d->lanes == 1
                    ? snprintf(sql + at, room, "0")
                    : snprintf(sql + at, room, "%s.lane_of(%.*s)", d->schema, key, from + 6);
            from += 6 + key + 1;
        } else {
            must(room > 1);
            sql[at] = *from++;
        }
        must(n > 0 && (size_t)n < room);
        at += (size_t)n;
    }
    sql[at] = '\0';
}

void db_postgresql_place(char place[DB_POSTGRESQL_PLACE_MAX], const char *system, const char *oid)
{
    snprintf(place, DB_POSTGRESQL_PLACE_MAX, "@postgresql-%.40s-%.20s", system, oid);
}

/* Whether a relay of this machine may serve the connection's server. */
static bool is_local(PGconn *connection)
{
    const char *host = PQhost(connection);
    const char *address = PQhostaddr(connection);
    return host == NULL || host[0] == '\0' || host[0] == '/' || host[0] == '@' ||
           (address != NULL && (strncmp(address, "127.", 4) == 0 || strcmp(address, "::1") == 0));
}

static enum ferry_err check_schema(struct db_postgresql *d, struct err_text *e)
{
    char sql[SQL_MAX];
    snprintf(sql, sizeof(sql),
             "SELECT (SELECT value FROM %s.meta WHERE name = 'schema_version'), "
             "(SELECT value FROM %s.meta WHERE name = 'lanes'), "
             "(SELECT system_identifier FROM pg_control_system()), "
             "(SELECT oid FROM pg_database WHERE datname = current_database())",
             d->schema, d->schema);
    PGresult *result = PQexec(d->connection, sql);
    enum ferry_err err = FERRY_OK;
    if (PQresultStatus(result) != PGRES_TUPLES_OK) {
        err = pq_error(d->connection, result, "reading Ferry's tables", e);
    } else {
        int64_t version = strtoll(PQgetvalue(result, 0, 0), NULL, 10);
        d->lanes = strtoll(PQgetvalue(result, 0, 1), NULL, 10);
        if (is_local(d->connection)) {
            db_postgresql_place(d->place, PQgetvalue(result, 0, 2), PQgetvalue(result, 0, 3));
        }
        err = migrate_postgresql_check(d->schema, version, e);
    }
    PQclear(result);
    d->schema_checked = err == FERRY_OK;
    return err;
}

static void statement_name(const struct db_postgresql *d, enum statement which, char name[48])
{
    snprintf(name, 48, "ferry_%llx_%d", (unsigned long long)d->tag, (int)which);
}

/* Prepared on first use, on tables of our version. */
static enum ferry_err prepare(struct db_postgresql *d, enum statement which, struct err_text *e)
{
    if (d->prepared[which]) {
        return FERRY_OK;
    }
    enum ferry_err err = d->schema_checked ? FERRY_OK : check_schema(d, e);
    if (err != FERRY_OK) {
        return err;
    }
    char name[48];
    char sql[SQL_MAX];
    statement_name(d, which, name);
    spell(d, which, sql);
    PGresult *result = PQprepare(d->connection, name, sql, 0, NULL);
    if (PQresultStatus(result) != PGRES_COMMAND_OK) {
        err = pq_error(d->connection, result, "preparing a statement", e);
    }
    PQclear(result);
    d->prepared[which] = err == FERRY_OK;
    return err;
}

/* The result is held until the next call. FERRY_OK also when `duplicate` is not NULL and a unique
 * key was taken; then it is set. */
static enum ferry_err execute(struct db_postgresql *d, enum statement which,
                              const struct pq_params *params, const char *doing, bool *duplicate,
                              struct err_text *e)
{
    release(d);
    enum ferry_err err = prepare(d, which, e);
    if (err != FERRY_OK) {
        return err;
    }
    char name[48];
    statement_name(d, which, name);
    d->held = PQexecPrepared(d->connection, name, params->count, params->values, params->sizes,
                             params->formats, 1);
    ExecStatusType status = PQresultStatus(d->held);
    if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK) {
        return FERRY_OK;
    }
    if (duplicate != NULL && pq_is_state(d->held, "23505")) {
        *duplicate = true;
        return FERRY_OK;
    }
    return pq_error(d->connection, d->held, doing, e);
}

static int64_t rows_changed(const struct db_postgresql *d)
{
    return strtoll(PQcmdTuples(d->held), NULL, 10);
}

/* ---- Outbox -------------------------------------------------------------------------------- */

static void row_params(struct pq_params *p, const struct db_row *row)
{
    pq_add_bytes(p, row->topic.data, row->topic.size);
    pq_add_optional(p, row->has_key, row->key);
    pq_add_id(p, &row->id);
    pq_add_optional(p, row->headers.size > 0, row->headers);
    pq_add_bytes(p, row->payload.data, row->payload.size);
    pq_add_i64(p, row->created_ms);
}

static enum ferry_err driver_put(void *driver, const struct db_row *row, struct err_text *e)
{
    struct pq_params p = {0};
    row_params(&p, row);
    return execute(driver, STATEMENT_PUT, &p, "inserting into the outbox", NULL, e);
}

static enum ferry_err driver_prepare_put(void *driver, struct err_text *e)
{
    struct db_postgresql *d = driver;
    if (PQpipelineStatus(d->connection) != PQ_PIPELINE_OFF) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT, "the connection is in pipeline mode");
    }
    return prepare(d, STATEMENT_PUT, e);
}

/* Without the check of the tables: its answer could not be told from the caller's. */
static enum ferry_err driver_put_async(void *driver, const struct db_row *row, struct err_text *e)
{
    struct db_postgresql *d = driver;
    if (PQpipelineStatus(d->connection) == PQ_PIPELINE_OFF) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT,
                       "the connection is not in pipeline mode: call PQenterPipelineMode first");
    }
    struct pq_params p = {0};
    row_params(&p, row);
    int sent = 0;
    if (d->prepared[STATEMENT_PUT]) {
        char name[48];
        statement_name(d, STATEMENT_PUT, name);
        sent = PQsendQueryPrepared(d->connection, name, p.count, p.values, p.sizes, p.formats, 1);
    } else {
        char sql[SQL_MAX];
        spell(d, STATEMENT_PUT, sql);
        sent =
            PQsendQueryParams(d->connection, sql, p.count, NULL, p.values, p.sizes, p.formats, 1);
    }
    return sent == 1 ? FERRY_OK : pq_error(d->connection, NULL, "sending to the outbox", e);
}

#define OID_TEXT  25
#define OID_BYTEA 17
#define OID_UUID  2950
#define OID_INT8  20

static void append_be(struct buf *b, uint64_t value, size_t bytes)
{
    uint8_t out[8];
    pq_put_be(out, value, bytes);
    buf_append(b, out, bytes);
}

static void append_field(struct buf *b, bool has, struct bytes value)
{
    if (!has) {
        append_be(b, UINT32_MAX, 4); /* NULL: a size of -1. */
        return;
    }
    append_be(b, value.size, 4);
    buf_append_bytes(b, value);
}

#define ROW_FIELDS 6

static void append_row_field(struct buf *b, const struct db_row *row, int field)
{
    switch (field) {
    case 0:
        append_field(b, true, row->topic);
        break;
    case 1:
        append_field(b, row->has_key, row->key);
        break;
    case 2:
        append_field(b, true, bytes_of(row->id.bytes, sizeof(row->id.bytes)));
        break;
    case 3:
        append_field(b, row->headers.size > 0, row->headers);
        break;
    case 4:
        append_field(b, true, row->payload);
        break;
    default:
        append_be(b, 8, 4);
        append_be(b, (uint64_t)row->created_ms, 8);
        break;
    }
}

static const uint32_t row_types[ROW_FIELDS] = {OID_TEXT,  OID_BYTEA, OID_UUID,
                                               OID_BYTEA, OID_BYTEA, OID_INT8};

/* One array a column. */
static enum ferry_err put_arrays(struct db_postgresql *d, const struct db_row *rows, size_t count,
                                 struct err_text *e)
{
    size_t starts[ROW_FIELDS + 1];
    buf_clear(&d->scratch);
    for (int field = 0; field < ROW_FIELDS; field++) {
        starts[field] = d->scratch.size;
        append_be(&d->scratch, 1, 4); /* Dimensions. */
        append_be(&d->scratch, 1, 4); /* There may be NULLs. */
        append_be(&d->scratch, row_types[field], 4);
        append_be(&d->scratch, count, 4);
        append_be(&d->scratch, 1, 4); /* The first index. */
        for (size_t i = 0; i < count; i++) {
            append_row_field(&d->scratch, &rows[i], field);
        }
    }
    starts[ROW_FIELDS] = d->scratch.size;
    if (!buf_ok(&d->scratch)) {
        return err_set(e, FERRY_ERR_NO_MEMORY, "no memory for %zu rows", count);
    }
    struct pq_params p = {0};
    for (int field = 0; field < ROW_FIELDS; field++) {
        pq_add_bytes(&p, d->scratch.data + starts[field], starts[field + 1] - starts[field]);
    }
    return execute(d, STATEMENT_PUTV, &p, "inserting into the outbox", NULL, e);
}

/* Hands what is in the scratch to COPY. */
static bool copy_flush(struct db_postgresql *d)
{
    bool ok = buf_ok(&d->scratch) && PQputCopyData(d->connection, (const char *)d->scratch.data,
                                                   (int)d->scratch.size) == 1;
    buf_clear(&d->scratch);
    return ok;
}

static bool copy_rows(struct db_postgresql *d, const struct db_row *rows, size_t count)
{
    buf_clear(&d->scratch);
    buf_append(&d->scratch, "PGCOPY\n\377\r\n\0", 11);
    append_be(&d->scratch, 0, 8); /* Flags; nothing more in the head. */
    bool ok = true;
    for (size_t i = 0; ok && i < count; i++) {
        append_be(&d->scratch, ROW_FIELDS, 2);
        for (int field = 0; field < ROW_FIELDS; field++) {
            append_row_field(&d->scratch, &rows[i], field);
        }
        if (!buf_ok(&d->scratch) || d->scratch.size >= DB_POSTGRESQL_COPY_BYTES) {
            ok = copy_flush(d);
        }
    }
    append_be(&d->scratch, UINT16_MAX, 2); /* The end. */
    return ok && copy_flush(d);
}

/* All results of the COPY; the first error is the one that counts. */
static enum ferry_err copy_result(struct db_postgresql *d, struct err_text *e)
{
    enum ferry_err err = FERRY_OK;
    PGresult *result = NULL;
    while ((result = PQgetResult(d->connection)) != NULL) {
        if (err == FERRY_OK && PQresultStatus(result) != PGRES_COMMAND_OK) {
            err = pq_error(d->connection, result, "copying into the outbox", e);
        }
        PQclear(result);
    }
    return err;
}

static enum ferry_err put_copy(struct db_postgresql *d, const struct db_row *rows, size_t count,
                               struct err_text *e)
{
    char sql[SQL_MAX];
    snprintf(sql, sizeof(sql),
             "COPY %s.outbox (topic, mkey, msg_id, headers, payload, created_ms) FROM STDIN "
             "(FORMAT binary)",
             d->schema);
    PGresult *result = PQexec(d->connection, sql);
    enum ferry_err err = PQresultStatus(result) == PGRES_COPY_IN
                             ? FERRY_OK
                             : pq_error(d->connection, result, "copying into the outbox", e);
    PQclear(result);
    if (err != FERRY_OK) {
        return err;
    }
    bool sent = copy_rows(d, rows, count);
    if (PQputCopyEnd(d->connection, sent ? NULL : "the client has no memory") != 1) {
        return pq_error(d->connection, NULL, "copying into the outbox", e);
    }
    return copy_result(d, e);
}

/* How many of the rows go into one statement. */
static size_t rows_together(const struct db_row *rows, size_t count)
{
    size_t bytes = 0;
    size_t n = 0;
    while (n < count && n < DB_POSTGRESQL_COPY_ROWS &&
           (n == 0 || bytes < DB_POSTGRESQL_COPY_BYTES)) {
        bytes += rows[n].payload.size + rows[n].headers.size + rows[n].key.size;
        n++;
    }
    return n;
}

static enum ferry_err driver_putv(void *driver, const struct db_row *rows, size_t count,
                                  struct err_text *e)
{
    struct db_postgresql *d = driver;
    release(d);
    enum ferry_err err = prepare(d, STATEMENT_PUTV, e);
    /* COPY has no place for lane_of(), and wants a connection that waits. */
    if (err == FERRY_OK && count > DB_POSTGRESQL_COPY_ROWS && d->lanes <= 1 &&
        PQisnonblocking(d->connection) == 0) {
        return put_copy(d, rows, count, e);
    }
    for (size_t at = 0; err == FERRY_OK && at < count;) {
        size_t n = rows_together(rows + at, count - at);
        err = put_arrays(d, rows + at, n, e);
        at += n;
    }
    return err;
}

static enum ferry_err driver_lock_key(void *driver, struct bytes key, struct err_text *e)
{
    struct pq_params p = {0};
    pq_add_i64(&p, (int64_t)checksum_of_two("ferry", 5, key.data, key.size));
    return execute(driver, STATEMENT_LOCK_KEY, &p, "locking a key", NULL, e);
}

/* ---- Inbox --------------------------------------------------------------------------------- */

static enum ferry_err driver_chain_end(void *driver, const struct db_chain *chain, bool *found,
                                       int64_t *end, struct err_text *e)
{
    struct db_postgresql *d = driver;
    struct pq_params p = {0};
    add_chain(&p, chain);
    enum ferry_err err = execute(d, STATEMENT_CHAIN_END, &p, "reading inbox_chain", NULL, e);
    if (err == FERRY_OK) {
        *found = PQntuples(d->held) > 0;
        *end = *found ? pq_get_number(d->held, 0) : 0;
    }
    return err;
}

static enum ferry_err chain_trim(struct db_postgresql *d, const struct db_chain *chain,
                                 struct err_text *e)
{
    if (++d->extensions < DB_CHAIN_TRIM_EVERY) {
        return FERRY_OK;
    }
    d->extensions = 0;
    struct pq_params p = {0};
    add_chain(&p, chain);
    pq_add_i64(&p, DB_CHAIN_ROWS_MAX - 1);
    return execute(d, STATEMENT_CHAIN_TRIM, &p, "trimming inbox_chain", NULL, e);
}

static enum ferry_err driver_chain_extend(void *driver, const struct db_chain *chain, int64_t start,
                                          int64_t end, struct err_text *e)
{
    struct pq_params p = {0};
    add_chain(&p, chain);
    pq_add_i64(&p, start);
    pq_add_i64(&p, end);
    bool duplicate = false;
    enum ferry_err err =
        execute(driver, STATEMENT_CHAIN_EXTEND, &p, "inserting into inbox_chain", &duplicate, e);
    if (duplicate) {
        return err_set(e, FERRY_ERR_DB_RETRY,
                       "another consumer has done offset %lld already: roll back and fetch again",
                       (long long)start);
    }
    return err == FERRY_OK ? chain_trim(driver, chain, e) : err;
}

static enum ferry_err driver_skip_add(void *driver, const struct db_chain *chain, int64_t from,
                                      int64_t to, const char *reason, struct err_text *e)
{
    struct pq_params p = {0};
    add_chain(&p, chain);
    pq_add_i64(&p, from);
    pq_add_i64(&p, to);
    pq_add_text(&p, reason);
    return execute(driver, STATEMENT_SKIP_ADD, &p, "inserting into inbox_skip", NULL, e);
}

/* ON CONFLICT: a failed insert would end the caller's transaction. */
static enum ferry_err driver_id_claim(void *driver, const char *group, const struct ferry_id *id,
                                      int32_t day, bool *fresh, struct err_text *e)
{
    struct db_postgresql *d = driver;
    struct pq_params p = {0};
    pq_add_text(&p, group);
    pq_add_id(&p, id);
    pq_add_i32(&p, day);
    enum ferry_err err = execute(d, STATEMENT_ID_CLAIM, &p, "inserting into inbox_id", NULL, e);
    if (err == FERRY_OK) {
        *fresh = rows_changed(d) == 1;
    }
    return err;
}

static enum ferry_err driver_id_trim(void *driver, const char *group, int32_t day, size_t rows_max,
                                     size_t *removed, struct err_text *e)
{
    struct db_postgresql *d = driver;
    struct pq_params p = {0};
    pq_add_text(&p, group);
    pq_add_i32(&p, day);
    pq_add_i64(&p, (int64_t)rows_max);
    enum ferry_err err = execute(d, STATEMENT_ID_TRIM, &p, "trimming inbox_id", NULL, e);
    if (err == FERRY_OK) {
        *removed = (size_t)rows_changed(d);
    }
    return err;
}

static enum ferry_err driver_inbox_dead_add(void *driver, const struct db_inbox_dead *dead,
                                            struct err_text *e)
{
    struct pq_params p = {0};
    add_chain(&p, &dead->chain);
    pq_add_i64(&p, dead->offset);
    pq_add_id(&p, &dead->id);
    pq_add_text(&p, dead->reason);
    pq_add_i32(&p, dead->parked ? 1 : 0);
    pq_add_optional(&p, dead->has_key, dead->key);
    pq_add_optional(&p, dead->headers.size > 0, dead->headers);
    pq_add_bytes(&p, dead->payload.data, dead->payload.size);
    pq_add_i64(&p, dead->timestamp_ms);
    pq_add_i32(&p, dead->requeued ? 1 : 0);
    return execute(driver, STATEMENT_DEAD_ADD, &p, "inserting into inbox_dead", NULL, e);
}

static enum ferry_err select_key(struct db_postgresql *d, enum statement which,
                                 const struct db_chain *chain, struct bytes key, bool *found,
                                 struct err_text *e)
{
    struct pq_params p = {0};
    pq_add_text(&p, chain->group);
    pq_add_id(&p, chain->topic_id);
    pq_add_bytes(&p, key.data, key.size);
    enum ferry_err err = execute(d, which, &p, "reading inbox_dead", NULL, e);
    *found = err == FERRY_OK && PQntuples(d->held) > 0;
    return err;
}

static enum ferry_err driver_inbox_key_parked(void *driver, const struct db_chain *chain,
                                              struct bytes key, bool *parked, bool *requeued,
                                              struct err_text *e)
{
    bool stays = false;
    enum ferry_err err = select_key(driver, STATEMENT_KEY_PARKED, chain, key, parked, e);
    if (err == FERRY_OK && *parked) {
        err = select_key(driver, STATEMENT_KEY_FIRST, chain, key, parked, e);
    }
    if (err == FERRY_OK && *parked) {
        err = select_key(driver, STATEMENT_KEY_STAYS, chain, key, &stays, e);
    }
    *requeued = *parked && !stays;
    return err;
}

static enum ferry_err driver_inbox_requeued(void *driver, const char *group,
                                            const struct ferry_id *topic_id, bool *found,
                                            int64_t *number, struct db_inbox_dead *dead,
                                            struct err_text *e)
{
    struct db_postgresql *d = driver;
    struct pq_params p = {0};
    pq_add_text(&p, group);
    pq_add_id(&p, topic_id);
    enum ferry_err err = execute(d, STATEMENT_REQUEUED, &p, "reading inbox_dead", NULL, e);
    if (err != FERRY_OK) {
        return err;
    }
    *found = PQntuples(d->held) > 0;
    if (*found) {
        const PGresult *r = d->held;
        *number = pq_get_number(r, 0);
        memset(dead, 0, sizeof(*dead));
        dead->chain.partition = (int32_t)pq_get_number(r, 1);
        dead->offset = pq_get_number(r, 2);
        pq_get_id(r, 3, &dead->id);
        dead->reason = PQgetvalue(r, 0, 4);
        dead->parked = pq_get_number(r, 5) != 0;
        dead->has_key = PQgetisnull(r, 0, 6) == 0;
        dead->key = pq_get_bytes(r, 6);
        dead->headers = pq_get_bytes(r, 7);
        dead->payload = pq_get_bytes(r, 8);
        dead->timestamp_ms = pq_get_number(r, 9);
    }
    return FERRY_OK;
}

static enum ferry_err driver_inbox_dead_remove(void *driver, int64_t number, struct err_text *e)
{
    struct pq_params p = {0};
    pq_add_i64(&p, number);
    return execute(driver, STATEMENT_DEAD_REMOVE, &p, "deleting from inbox_dead", NULL, e);
}

static enum ferry_err driver_inbox_dead_again(void *driver, int64_t number, const char *reason,
                                              struct err_text *e)
{
    struct pq_params p = {0};
    pq_add_i64(&p, number);
    pq_add_text(&p, reason);
    return execute(driver, STATEMENT_DEAD_AGAIN, &p, "updating inbox_dead", NULL, e);
}

/* ---- Sagas --------------------------------------------------------------------------------- */

static enum ferry_err driver_barrier_add(void *driver, const struct ferry_id *saga, int32_t step,
                                         int32_t op, int32_t why, bool *fresh, struct err_text *e)
{
    struct db_postgresql *d = driver;
    struct pq_params p = {0};
    pq_add_id(&p, saga);
    pq_add_i32(&p, step);
    pq_add_i32(&p, op);
    pq_add_i32(&p, why);
    enum ferry_err err =
        execute(d, STATEMENT_BARRIER_ADD, &p, "inserting into saga_barrier", NULL, e);
    if (err == FERRY_OK) {
        *fresh = rows_changed(d) == 1;
    }
    return err;
}

static enum ferry_err driver_barrier_why(void *driver, const struct ferry_id *saga, int32_t step,
                                         int32_t op, bool *found, int32_t *why, struct err_text *e)
{
    struct db_postgresql *d = driver;
    struct pq_params p = {0};
    pq_add_id(&p, saga);
    pq_add_i32(&p, step);
    pq_add_i32(&p, op);
    enum ferry_err err = execute(d, STATEMENT_BARRIER_WHY, &p, "reading saga_barrier", NULL, e);
    if (err == FERRY_OK) {
        *found = PQntuples(d->held) > 0;
        *why = *found ? (int32_t)pq_get_number(d->held, 0) : 0;
    }
    return err;
}

static enum ferry_err driver_saga_insert(void *driver, const struct db_saga *saga,
                                         struct err_text *e)
{
    struct pq_params p = {0};
    pq_add_id(&p, &saga->id);
    pq_add_text(&p, saga->type);
    pq_add_i32(&p, saga->state);
    pq_add_i32(&p, saga->step);
    pq_add_i64(&p, saga->version);
    pq_add_i64(&p, saga->deadline_ms);
    pq_add_text(&p, saga->reason == NULL ? "" : saga->reason);
    pq_add_bytes(&p, saga->data.data, saga->data.size);
    bool duplicate = false;
    enum ferry_err err =
        execute(driver, STATEMENT_SAGA_INSERT, &p, "inserting into saga", &duplicate, e);
    return duplicate ? err_set(e, FERRY_ERR_DB_RETRY, "a saga of this id is there already") : err;
}

static enum ferry_err driver_saga_get(void *driver, const struct ferry_id *id, bool *found,
                                      struct db_saga *saga, struct err_text *e)
{
    struct db_postgresql *d = driver;
    struct pq_params p = {0};
    pq_add_id(&p, id);
    enum ferry_err err = execute(d, STATEMENT_SAGA_GET, &p, "reading saga", NULL, e);
    if (err != FERRY_OK) {
        return err;
    }
    *found = PQntuples(d->held) > 0;
    if (*found) {
        *saga = (struct db_saga){
            .id = *id,
            .type = PQgetvalue(d->held, 0, 0),
            .state = (int32_t)pq_get_number(d->held, 1),
            .step = (int32_t)pq_get_number(d->held, 2),
            .version = pq_get_number(d->held, 3),
            .deadline_ms = pq_get_number(d->held, 4),
            .reason = PQgetvalue(d->held, 0, 5),
            .data = pq_get_bytes(d->held, 6),
        };
    }
    return FERRY_OK;
}

/* What saga_get has returned may be what is set here: it is released after. */
static enum ferry_err driver_saga_update(void *driver, const struct db_saga *saga,
                                         struct err_text *e)
{
    struct db_postgresql *d = driver;
    PGresult *before = d->held;
    d->held = NULL;
    struct pq_params p = {0};
    pq_add_id(&p, &saga->id);
    pq_add_i32(&p, saga->state);
    pq_add_i32(&p, saga->step);
    pq_add_i64(&p, saga->version);
    pq_add_i64(&p, saga->deadline_ms);
    pq_add_text(&p, saga->reason == NULL ? "" : saga->reason);
    pq_add_bytes(&p, saga->data.data, saga->data.size);
    enum ferry_err err = execute(d, STATEMENT_SAGA_UPDATE, &p, "updating saga", NULL, e);
    PQclear(before);
    if (err == FERRY_OK && rows_changed(d) == 0) {
        err =
            err_set(e, FERRY_ERR_DB_RETRY, "the saga was changed by another: roll back and repeat");
    }
    return err;
}

/* ---- The connection ------------------------------------------------------------------------ */

/* An adapter that goes leaves nothing on the connection, where it is fit for that. */
static void driver_close(void *driver)
{
    struct db_postgresql *d = driver;
    release(d);
    PGTransactionStatusType status = PQtransactionStatus(d->connection);
    bool fit = PQpipelineStatus(d->connection) == PQ_PIPELINE_OFF &&
               (status == PQTRANS_IDLE || status == PQTRANS_INTRANS);
    for (size_t i = 0; fit && i < STATEMENT_COUNT; i++) {
        if (d->prepared[i]) {
            char name[48];
            char sql[80];
            statement_name(d, (enum statement)i, name);
            snprintf(sql, sizeof(sql), "DEALLOCATE %s", name);
            PQclear(PQexec(d->connection, sql));
        }
    }
    buf_fini(&d->scratch);
    mem_free(d);
}

/* In pipeline mode the caller's BEGIN may be on its way: what is active counts. A transaction that
 * an error has ended is open until it is rolled back. */
static bool driver_in_transaction(void *driver)
{
    const struct db_postgresql *d = driver;
    PGTransactionStatusType status = PQtransactionStatus(d->connection);
    return status == PQTRANS_INTRANS || status == PQTRANS_INERROR ||
           (status == PQTRANS_ACTIVE && PQpipelineStatus(d->connection) != PQ_PIPELINE_OFF);
}

static bool driver_lost(void *driver)
{
    const struct db_postgresql *d = driver;
    return PQstatus(d->connection) == CONNECTION_BAD;
}

static bool driver_aborted(void *driver)
{
    const struct db_postgresql *d = driver;
    return PQtransactionStatus(d->connection) == PQTRANS_INERROR;
}

static const char *driver_path(void *driver)
{
    const struct db_postgresql *d = driver;
    return d->place[0] == '\0' ? NULL : d->place;
}

static enum ferry_err driver_saga_trim(void *driver, const struct db_saga_trim *trim,
                                       size_t *removed, struct err_text *e)
{
    struct db_postgresql *d = driver;
    struct pq_params day = {0}, barrier = {0}, sagas = {0};
    pq_add_i32(&day, trim->day);
    pq_add_id(&barrier, &trim->begun_before);
    pq_add_i64(&barrier, (int64_t)trim->rows_max);
    pq_add_i64(&sagas, trim->ended_before_ms);
    pq_add_i64(&sagas, (int64_t)trim->rows_max);
    enum ferry_err err = execute(d, STATEMENT_BARRIER_DAY, &day, "changing saga_barrier", NULL, e);
    if (err == FERRY_OK) {
        err = execute(d, STATEMENT_BARRIER_TRIM, &barrier, "trimming saga_barrier", NULL, e);
    }
    if (err == FERRY_OK) {
        *removed = (size_t)rows_changed(d);
        err = execute(d, STATEMENT_SAGA_TRIM, &sagas, "trimming saga", NULL, e);
    }
    if (err == FERRY_OK) {
        *removed += (size_t)rows_changed(d);
    }
    return err;
}

static enum ferry_err driver_begin(void *driver, struct err_text *e)
{
    return simple(driver, "BEGIN", "BEGIN", e);
}

/* PostgreSQL answers COMMIT of a transaction that an error has ended with "ROLLBACK", and no error.
 */
static enum ferry_err driver_commit(void *driver, struct err_text *e)
{
    struct db_postgresql *d = driver;
    PGresult *result = PQexec(d->connection, "COMMIT");
    enum ferry_err err = FERRY_OK;
    if (PQresultStatus(result) != PGRES_COMMAND_OK) {
        err = pq_error(d->connection, result, "COMMIT", e);
    } else if (strcmp(PQcmdStatus(result), "COMMIT") != 0) {
        err = err_set(e, FERRY_ERR_DB,
                      "COMMIT: it was rolled back, because a statement before it had failed");
    }
    PQclear(result);
    return err;
}

static void driver_rollback(void *driver)
{
    struct db_postgresql *d = driver;
    release(d);
    if (driver_in_transaction(d)) {
        PQclear(PQexec(d->connection, "ROLLBACK"));
    }
}

static enum ferry_err driver_migrate(void *driver, struct err_text *e)
{
    struct db_postgresql *d = driver;
    return migrate_postgresql(d->connection, d->schema, e);
}

static const struct db_ops postgresql_ops = {
    .close = driver_close,
    .in_transaction = driver_in_transaction,
    .path = driver_path,
    .migrate = driver_migrate,
    .put = driver_put,
    .putv = driver_putv,
    .put_async = driver_put_async,
    .prepare_put = driver_prepare_put,
    .lock_key = driver_lock_key,
    .chain_end = driver_chain_end,
    .chain_extend = driver_chain_extend,
    .skip_add = driver_skip_add,
    .id_claim = driver_id_claim,
    .id_trim = driver_id_trim,
    .inbox_dead_add = driver_inbox_dead_add,
    .inbox_key_parked = driver_inbox_key_parked,
    .inbox_requeued = driver_inbox_requeued,
    .inbox_dead_remove = driver_inbox_dead_remove,
    .inbox_dead_again = driver_inbox_dead_again,
    .lost = driver_lost,
    .aborted = driver_aborted,
    .barrier_add = driver_barrier_add,
    .barrier_why = driver_barrier_why,
    .saga_insert = driver_saga_insert,
    .saga_get = driver_saga_get,
    .saga_update = driver_saga_update,
    .saga_trim = driver_saga_trim,
    .begin = driver_begin,
    .commit = driver_commit,
    .rollback = driver_rollback,
};

enum ferry_err ferry_db_postgresql(struct ferry_db **db, struct pg_conn *connection,
                                   const char *schema)
{
    const char *name = schema == NULL ? SCHEMA_POSTGRESQL_DEFAULT : schema;
    if (!schema_postgresql_name_is_valid(name)) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    if (connection == NULL || PQstatus(connection) != CONNECTION_OK) {
        return FERRY_ERR_DB;
    }
    struct db_postgresql *d = mem_zalloc(1, sizeof(*d));
    if (d == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    d->connection = connection;
    d->lanes = 0;
    d->tag = (uint64_t)(uintptr_t)d ^ (uint64_t)clock_monotonic_us() << 16;
    snprintf(d->schema, sizeof(d->schema), "%s", name);
    buf_init(&d->scratch, DB_POSTGRESQL_SCRATCH_MAX);
    enum ferry_err err = db_new(db, &postgresql_ops, d);
    if (err != FERRY_OK) {
        driver_close(d);
    }
    return err;
}
