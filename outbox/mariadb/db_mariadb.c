/* db_mariadb: the application's side of outbox, inbox and sagas on a MariaDB connection that the
 * caller owns, by prepared statements. A failed statement undoes itself and nothing else, so a
 * unique key that is taken is an answer, not an error. */
#include "outbox/mariadb/db_mariadb.h"

#include <errmsg.h>
#include <mysql.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "base/mem.h"
#include "outbox/mariadb/maria_error.h"
#include "outbox/mariadb/migrate_mariadb.h"
#include "outbox/mariadb/schema_mariadb.h"

enum statement {
    STATEMENT_PUT,
    STATEMENT_PUT_MANY,
    STATEMENT_LOCK_KEY,
    STATEMENT_CHAIN_END,
    STATEMENT_CHAIN_EXTEND,
    STATEMENT_CHAIN_NTH,
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

#define NO_SAGA     "x'00000000000000000000000000000000'"
#define CHAIN_WHERE " grp = ? AND topic_id = ? AND part = ? "
#define KEY_SELECT                                                                                 \
    "SELECT CAST(1 AS SIGNED) FROM ferry_inbox_dead WHERE grp = ? AND topic_id = ? AND mkey = ? "
#define PUT_HEAD                                                                                   \
    "INSERT INTO ferry_outbox (lane, topic, mkey, msg_id, headers, payload, created_ms) VALUES "
/* The lane first: of a key and the number of lanes. */
#define PUT_ROW        "(COALESCE(MOD(CONV(LEFT(MD5(?), 7), 16, 10), ?), 0), ?, ?, ?, ?, ?, ?)"
#define PUT_PARAMETERS 8

static const char *const statement_texts[STATEMENT_COUNT] = {
    [STATEMENT_PUT] = PUT_HEAD PUT_ROW,
    [STATEMENT_PUT_MANY] = PUT_HEAD, /* And DB_MARIADB_ROWS rows. */
    /* Takes the row's lock, whether it makes the row or finds it. */
    [STATEMENT_LOCK_KEY] = "INSERT INTO ferry_key (k) VALUES (?) ON DUPLICATE KEY UPDATE k = k",
    [STATEMENT_CHAIN_END] =
        "SELECT end_off FROM ferry_inbox_chain WHERE" CHAIN_WHERE "ORDER BY start_off DESC LIMIT 1",
    /* The row that the key would collide with may be trimmed by now, unseen by the snapshot of
     * REPEATABLE READ; what an INSERT selects is read as it is now. */
    [STATEMENT_CHAIN_EXTEND] =
        "INSERT INTO ferry_inbox_chain (grp, topic_id, part, start_off, end_off) "
        "SELECT ?, ?, ?, ?, ? FROM DUAL WHERE NOT EXISTS (SELECT 1 FROM ferry_inbox_chain "
        "WHERE" CHAIN_WHERE "AND start_off >= ?)",
    [STATEMENT_CHAIN_NTH] = "SELECT start_off FROM ferry_inbox_chain WHERE" CHAIN_WHERE
                            "ORDER BY start_off DESC LIMIT 1 OFFSET ?",
    [STATEMENT_CHAIN_TRIM] = "DELETE FROM ferry_inbox_chain WHERE" CHAIN_WHERE "AND start_off < ?",
    [STATEMENT_SKIP_ADD] = "INSERT INTO ferry_inbox_skip (grp, topic_id, part, from_off, to_off, "
                           "reason) VALUES (?, ?, ?, ?, ?, ?)",
    [STATEMENT_ID_CLAIM] = "INSERT INTO ferry_inbox_id (grp, msg_id, day) VALUES (?, ?, ?)",
    [STATEMENT_ID_TRIM] = "DELETE FROM ferry_inbox_id WHERE grp = ? AND day < ? LIMIT ?",
    [STATEMENT_DEAD_ADD] =
        "INSERT INTO ferry_inbox_dead (grp, topic_id, part, off, msg_id, reason, parked, mkey, "
        "headers, payload, ts_ms, requeued) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    [STATEMENT_KEY_PARKED] = KEY_SELECT "LIMIT 1",
    [STATEMENT_KEY_FIRST] = KEY_SELECT "ORDER BY number LIMIT 1 FOR UPDATE",
    [STATEMENT_KEY_STAYS] = KEY_SELECT "AND NOT requeued LIMIT 1 LOCK IN SHARE MODE",
    /* Only the first one: whoever passes over it to the next would turn a key's order around. */
    [STATEMENT_REQUEUED] =
        "SELECT number, part, off, msg_id, reason, parked, mkey, headers, payload, ts_ms FROM "
        "ferry_inbox_dead WHERE number = (SELECT number FROM ferry_inbox_dead WHERE grp = ? AND "
        "topic_id = ? AND requeued ORDER BY number LIMIT 1) FOR UPDATE SKIP LOCKED",
    [STATEMENT_DEAD_REMOVE] = "DELETE FROM ferry_inbox_dead WHERE number = ?",
    [STATEMENT_DEAD_AGAIN] =
        "UPDATE ferry_inbox_dead d JOIN ferry_inbox_dead f ON f.number = ? SET d.requeued = FALSE, "
        "d.reason = IF(d.number = f.number, ?, d.reason) WHERE d.number = f.number OR (d.requeued "
        "AND d.number > f.number AND d.grp = f.grp AND d.topic_id = f.topic_id AND d.mkey = "
        "f.mkey)",
    [STATEMENT_BARRIER_ADD] =
        "INSERT INTO ferry_saga_barrier (saga_id, step, op, why) VALUES (?, ?, ?, ?)",
    [STATEMENT_BARRIER_WHY] =
        "SELECT why FROM ferry_saga_barrier WHERE saga_id = ? AND step = ? AND op = ? "
        "LOCK IN SHARE MODE",
    [STATEMENT_BARRIER_DAY] =
        "UPDATE ferry_saga_barrier SET why = GREATEST(why, ?) WHERE saga_id = " NO_SAGA
        " AND step = 0 AND op = 0",
    [STATEMENT_BARRIER_TRIM] = "DELETE FROM ferry_saga_barrier WHERE saga_id > " NO_SAGA
                               " AND saga_id < ? ORDER BY saga_id, step, op LIMIT ?",
    [STATEMENT_SAGA_INSERT] = "INSERT INTO ferry_saga (saga_id, type, state, step, ver, "
                              "deadline_ms, reason, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    [STATEMENT_SAGA_GET] = "SELECT type, state, step, ver, deadline_ms, reason, data FROM "
                           "ferry_saga WHERE saga_id = ?",
    [STATEMENT_SAGA_UPDATE] =
        "UPDATE ferry_saga SET state = ?, step = ?, ver = ver + 1, deadline_ms = ?, reason = ?, "
        "data = ?, changed_ms = CAST(UNIX_TIMESTAMP(SYSDATE(3)) * 1000 AS SIGNED) "
        "WHERE saga_id = ? AND ver = ?",
    [STATEMENT_SAGA_TRIM] =
        "DELETE FROM ferry_saga WHERE state IN (3, 4, 6) AND created_ms < ? AND "
        "changed_ms < ? LIMIT ?",
};

#define PARAMS_MAX  12
#define COLUMNS_MAX 10

struct params {
    unsigned count;
    MYSQL_BIND binds[PARAMS_MAX];
    int64_t numbers[PARAMS_MAX];
};

/* The row that was read: numbers, or bytes in `answer`. */
struct column {
    bool is_null;
    int64_t number;
    struct bytes bytes;
};

struct db_mariadb {
    MYSQL *connection; /* The caller's. */
    bool schema_checked;
    int64_t lanes;
    MYSQL_STMT *statements[STATEMENT_COUNT]; /* Prepared on first use. */
    MYSQL_BIND *many;                        /* DB_MARIADB_ROWS times PUT_PARAMETERS. */
    int64_t (*many_numbers)[PUT_PARAMETERS];
    char place[DB_MARIADB_PLACE_MAX]; /* Empty: not known. */
    unsigned extensions;              /* Of chains, until the next trim. */
    bool lost;                        /* The last error was that the connection is gone. */
    bool duplicate;                   /* The last statement met a unique key that was taken. */
    bool begun;                       /* By driver_begin: autocommit is off until it is over. */
    struct buf answer;                /* Bytes of the row that was read last, */
    struct buf before;                /* and of the one before: saga_update may be given them. */
    struct column columns[COLUMNS_MAX];
};

/* ---- Parameters ---------------------------------------------------------------------------- */

static void bind_bytes(MYSQL_BIND *bind, const void *data, size_t size)
{
    memset(bind, 0, sizeof(*bind));
    bind->buffer_type = MYSQL_TYPE_BLOB;
    bind->buffer = (void *)(uintptr_t)(size == 0 ? "" : data);
    bind->buffer_length = (unsigned long)size;
}

static void bind_null(MYSQL_BIND *bind)
{
    memset(bind, 0, sizeof(*bind));
    bind->buffer_type = MYSQL_TYPE_NULL;
}

static void bind_number(MYSQL_BIND *bind, int64_t *at, int64_t value)
{
    memset(bind, 0, sizeof(*bind));
    *at = value;
    bind->buffer_type = MYSQL_TYPE_LONGLONG;
    bind->buffer = at;
}

static MYSQL_BIND *next_bind(struct params *p)
{
    must(p->count < PARAMS_MAX);
    return &p->binds[p->count++];
}

static void add_bytes(struct params *p, const void *data, size_t size)
{
    bind_bytes(next_bind(p), data, size);
}

static void bind_optional(MYSQL_BIND *bind, bool has, struct bytes value)
{
    if (has) {
        bind_bytes(bind, value.data, value.size);
    } else {
        bind_null(bind);
    }
}

static void add_optional(struct params *p, bool has, struct bytes value)
{
    bind_optional(next_bind(p), has, value);
}

static void add_text(struct params *p, const char *text)
{
    MYSQL_BIND *bind = next_bind(p);
    bind_bytes(bind, text, strlen(text));
    bind->buffer_type = MYSQL_TYPE_STRING;
}

static void add_id(struct params *p, const struct ferry_id *id)
{
    add_bytes(p, id->bytes, sizeof(id->bytes));
}

static void add_number(struct params *p, int64_t value)
{
    MYSQL_BIND *bind = next_bind(p);
    bind_number(bind, &p->numbers[p->count - 1], value);
}

static void add_chain(struct params *p, const struct db_chain *chain)
{
    add_text(p, chain->group);
    add_id(p, chain->topic_id);
    add_number(p, chain->partition);
}

/* ---- Statements ---------------------------------------------------------------------------- */

static enum ferry_err connection_failed(struct db_mariadb *d, const char *doing, struct err_text *e)
{
    d->lost = maria_lost(mysql_errno(d->connection));
    return maria_error(mysql_errno(d->connection), mysql_error(d->connection), doing, e);
}

static enum ferry_err statement_failed(struct db_mariadb *d, MYSQL_STMT *stmt, const char *doing,
                                       struct err_text *e)
{
    d->lost = maria_lost(mysql_stmt_errno(stmt));
    return maria_error(mysql_stmt_errno(stmt), mysql_stmt_error(stmt), doing, e);
}

static bool is_local(MYSQL *connection)
{
    const char *socket_path = NULL;
    const char *host = NULL;
    mariadb_get_infov(connection, MARIADB_CONNECTION_UNIX_SOCKET, (void *)&socket_path);
    mariadb_get_infov(connection, MARIADB_CONNECTION_HOST, (void *)&host);
    return socket_path != NULL ||
           (host != NULL && (strncmp(host, "127.", 4) == 0 || strcmp(host, "::1") == 0 ||
                             strcmp(host, "localhost") == 0));
}

/* Of these tables, and the number of lanes. The caller's transaction reads them; it is not ended.
 */
static enum ferry_err check_schema(struct db_mariadb *d, struct err_text *e)
{
    int64_t version = 0;
    enum ferry_err err = migrate_mariadb_version(d->connection, &version, e);
    if (err == FERRY_OK) {
        err = migrate_mariadb_check(version, e);
    }
    if (err == FERRY_OK) {
        err = migrate_mariadb_number(
            d->connection, "SELECT value FROM ferry_meta WHERE name = 'lanes'", &d->lanes, e);
    }
    if (err == FERRY_OK && is_local(d->connection)) {
        err = migrate_mariadb_text(d->connection, DB_MARIADB_PLACE_SQL, d->place, sizeof(d->place),
                                   e);
    }
    d->schema_checked = err == FERRY_OK;
    return err;
}

static enum ferry_err prepare_many(MYSQL_STMT *stmt, int *code, struct err_text *e)
{
    struct buf sql;
    buf_init(&sql, DB_MARIADB_STATEMENT_MAX);
    buf_printf(&sql, "%s", statement_texts[STATEMENT_PUT_MANY]);
    for (int i = 0; i < DB_MARIADB_ROWS; i++) {
        buf_printf(&sql, "%s" PUT_ROW, i == 0 ? "" : ", ");
    }
    bool ok = buf_ok(&sql);
    if (ok) {
        *code = mysql_stmt_prepare(stmt, (const char *)sql.data, (unsigned long)sql.size);
    }
    buf_fini(&sql);
    return ok ? FERRY_OK : err_set(e, FERRY_ERR_NO_MEMORY, "no memory for a statement");
}

static enum ferry_err prepare(struct db_mariadb *d, enum statement which, struct err_text *e)
{
    MYSQL_STMT *stmt = mysql_stmt_init(d->connection);
    if (stmt == NULL) {
        return err_set(e, FERRY_ERR_NO_MEMORY, "no memory for a statement");
    }
    int code = 0;
    enum ferry_err err = FERRY_OK;
    if (which == STATEMENT_PUT_MANY) {
        err = prepare_many(stmt, &code, e);
    } else {
        const char *sql = statement_texts[which];
        code = mysql_stmt_prepare(stmt, sql, (unsigned long)strlen(sql));
    }
    if (err == FERRY_OK && code != 0) {
        err = statement_failed(d, stmt, "preparing a statement", e);
    }
    if (err != FERRY_OK) {
        mysql_stmt_close(stmt);
        return err;
    }
    d->statements[which] = stmt;
    return FERRY_OK;
}

/* The statement, prepared on tables of our version. */
static enum ferry_err statement_get(struct db_mariadb *d, enum statement which, MYSQL_STMT **stmt,
                                    struct err_text *e)
{
    enum ferry_err err = d->schema_checked ? FERRY_OK : check_schema(d, e);
    if (err == FERRY_OK && d->statements[which] == NULL) {
        err = prepare(d, which, e);
    }
    *stmt = d->statements[which];
    return err;
}

static enum ferry_err execute_bound(struct db_mariadb *d, MYSQL_STMT *stmt, MYSQL_BIND *binds,
                                    const char *doing, struct err_text *e)
{
    d->duplicate = false;
    if (mysql_stmt_bind_param(stmt, binds) != 0) {
        return statement_failed(d, stmt, doing, e);
    }
    if (mysql_stmt_execute(stmt) != 0) {
        if (mysql_stmt_errno(stmt) == MARIA_DUPLICATE) {
            d->duplicate = true;
            return FERRY_OK;
        }
        return statement_failed(d, stmt, doing, e);
    }
    return FERRY_OK;
}

/* A statement that returns no rows. FERRY_OK also when a unique key was taken: d->duplicate. */
static enum ferry_err change(struct db_mariadb *d, enum statement which, struct params *params,
                             const char *doing, struct err_text *e)
{
    MYSQL_STMT *stmt = NULL;
    enum ferry_err err = statement_get(d, which, &stmt, e);
    return err == FERRY_OK ? execute_bound(d, stmt, params->binds, doing, e) : err;
}

static int64_t rows_changed(const struct db_mariadb *d, enum statement which)
{
    return (int64_t)mysql_stmt_affected_rows(d->statements[which]);
}

/* The column's bytes, behind those of the columns before it. */
static enum ferry_err read_bytes(struct db_mariadb *d, MYSQL_STMT *stmt, unsigned column,
                                 unsigned long size, struct err_text *e)
{
    size_t start = d->answer.size;
    uint8_t *at = buf_extend(&d->answer, size + 1);
    if (at == NULL) {
        return err_set(e, FERRY_ERR_NO_MEMORY, "a row has more bytes than there is room for");
    }
    unsigned long length = 0;
    bool is_null = false;
    MYSQL_BIND bind = {.buffer_type = MYSQL_TYPE_BLOB,
                       .buffer = at,
                       .buffer_length = size,
                       .length = &length,
                       .is_null = (void *)&is_null};
    if (size > 0 && mysql_stmt_fetch_column(stmt, &bind, column, 0) != 0) {
        return statement_failed(d, stmt, "reading a row", e);
    }
    at[size] = '\0';
    d->columns[column].number = (int64_t)start; /* An offset: the buffer may move. */
    d->columns[column].bytes.size = size;
    return FERRY_OK;
}

/* `kinds`: a letter a column, n: number, b: bytes (with a NUL behind them). */
static enum ferry_err read_row(struct db_mariadb *d, MYSQL_STMT *stmt, const char *kinds,
                               bool *found, struct err_text *e)
{
    MYSQL_BIND binds[COLUMNS_MAX];
    unsigned long lengths[COLUMNS_MAX] = {0};
    my_bool nulls[COLUMNS_MAX] = {0};
    unsigned count = (unsigned)strlen(kinds);
    must(count <= COLUMNS_MAX);
    memset(binds, 0, sizeof(binds));
    for (unsigned i = 0; i < count; i++) {
        bool is_number = kinds[i] == 'n';
        binds[i].buffer_type = is_number ? MYSQL_TYPE_LONGLONG : MYSQL_TYPE_BLOB;
        binds[i].buffer = is_number ? (void *)&d->columns[i].number : NULL;
        binds[i].length = &lengths[i];
        binds[i].is_null = &nulls[i];
    }
    if (mysql_stmt_bind_result(stmt, binds) != 0) {
        return statement_failed(d, stmt, "reading a row", e);
    }
    int code = mysql_stmt_fetch(stmt);
    *found = code == 0 || code == MYSQL_DATA_TRUNCATED;
    if (!*found) {
        return code == MYSQL_NO_DATA ? FERRY_OK : statement_failed(d, stmt, "reading a row", e);
    }
    enum ferry_err err = FERRY_OK;
    for (unsigned i = 0; err == FERRY_OK && i < count; i++) {
        d->columns[i].is_null = nulls[i] != 0;
        if (kinds[i] == 'b') {
            err = read_bytes(d, stmt, i, nulls[i] != 0 ? 0 : lengths[i], e);
        }
    }
    for (unsigned i = 0; err == FERRY_OK && i < count; i++) {
        if (kinds[i] == 'b') {
            d->columns[i].bytes.data = d->answer.data + d->columns[i].number;
        }
    }
    return err;
}

/* The first row of the answer in d->columns, until the next call but one. */
static enum ferry_err select_row(struct db_mariadb *d, enum statement which, struct params *params,
                                 const char *kinds, const char *doing, bool *found,
                                 struct err_text *e)
{
    MYSQL_STMT *stmt = NULL;
    enum ferry_err err = statement_get(d, which, &stmt, e);
    if (err == FERRY_OK) {
        err = execute_bound(d, stmt, params->binds, doing, e);
    }
    if (err != FERRY_OK) {
        return err;
    }
    struct buf swap = d->before;
    d->before = d->answer;
    d->answer = swap;
    buf_clear(&d->answer);
    err = read_row(d, stmt, kinds, found, e);
    mysql_stmt_free_result(stmt);
    return err;
}

static const char *column_text(const struct db_mariadb *d, unsigned column)
{
    return (const char *)d->columns[column].bytes.data;
}

/* ---- Outbox -------------------------------------------------------------------------------- */

static void bind_row(const struct db_mariadb *d, MYSQL_BIND *binds, int64_t *numbers,
                     const struct db_row *row)
{
    bind_optional(&binds[0], row->has_key && d->lanes > 1, row->key);
    bind_number(&binds[1], &numbers[1], d->lanes);
    bind_bytes(&binds[2], row->topic.data, row->topic.size);
    binds[2].buffer_type = MYSQL_TYPE_STRING;
    bind_optional(&binds[3], row->has_key, row->key);
    bind_bytes(&binds[4], row->id.bytes, sizeof(row->id.bytes));
    bind_optional(&binds[5], row->headers.size > 0, row->headers);
    bind_bytes(&binds[6], row->payload.data, row->payload.size);
    bind_number(&binds[7], &numbers[7], row->created_ms);
}

static enum ferry_err put_done(const struct db_mariadb *d, enum ferry_err err, struct err_text *e)
{
    return err == FERRY_OK && d->duplicate
               ? err_set(e, FERRY_ERR_DB, "inserting into ferry_outbox: its counter was set back")
               : err;
}

static enum ferry_err driver_put(void *driver, const struct db_row *row, struct err_text *e)
{
    struct db_mariadb *d = driver;
    MYSQL_STMT *stmt = NULL;
    enum ferry_err err = statement_get(d, STATEMENT_PUT, &stmt, e);
    if (err != FERRY_OK) {
        return err;
    }
    MYSQL_BIND binds[PUT_PARAMETERS];
    int64_t numbers[PUT_PARAMETERS];
    bind_row(d, binds, numbers, row);
    return put_done(d, execute_bound(d, stmt, binds, "inserting into ferry_outbox", e), e);
}

static enum ferry_err many_get(struct db_mariadb *d, struct err_text *e)
{
    if (d->many == NULL) {
        d->many = mem_zalloc((size_t)DB_MARIADB_ROWS * PUT_PARAMETERS, sizeof(*d->many));
        d->many_numbers = mem_zalloc(DB_MARIADB_ROWS, sizeof(*d->many_numbers));
    }
    return d->many != NULL && d->many_numbers != NULL
               ? FERRY_OK
               : err_set(e, FERRY_ERR_NO_MEMORY, "no memory for many rows");
}

static enum ferry_err put_many(struct db_mariadb *d, const struct db_row *rows, struct err_text *e)
{
    MYSQL_STMT *stmt = NULL;
    enum ferry_err err = statement_get(d, STATEMENT_PUT_MANY, &stmt, e);
    if (err == FERRY_OK) {
        err = many_get(d, e);
    }
    if (err != FERRY_OK) {
        return err;
    }
    must(d->many_numbers != NULL);
    for (size_t i = 0; i < DB_MARIADB_ROWS; i++) {
        bind_row(d, &d->many[i * PUT_PARAMETERS], d->many_numbers[i], &rows[i]);
    }
    return put_done(d, execute_bound(d, stmt, d->many, "inserting into ferry_outbox", e), e);
}

static size_t bytes_of_rows(const struct db_row *rows, size_t count)
{
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        bytes += rows[i].payload.size + rows[i].headers.size + rows[i].key.size;
    }
    return bytes;
}

static enum ferry_err driver_putv(void *driver, const struct db_row *rows, size_t count,
                                  struct err_text *e)
{
    struct db_mariadb *d = driver;
    enum ferry_err err = FERRY_OK;
    for (size_t at = 0; err == FERRY_OK && at < count;) {
        bool many = count - at >= DB_MARIADB_ROWS &&
                    bytes_of_rows(rows + at, DB_MARIADB_ROWS) <= DB_MARIADB_ROWS_BYTES;
        err = many ? put_many(d, rows + at, e) : driver_put(d, rows + at, e);
        at += many ? DB_MARIADB_ROWS : 1;
    }
    return err;
}

static enum ferry_err driver_lock_key(void *driver, struct bytes key, struct err_text *e)
{
    uint64_t lock = checksum_of(key.data, key.size) % DB_MARIADB_KEY_LOCKS;
    uint8_t k[8] = {[6] = (uint8_t)(lock >> 8), [7] = (uint8_t)lock};
    struct params p = {0};
    add_bytes(&p, k, sizeof(k));
    return change(driver, STATEMENT_LOCK_KEY, &p, "locking a key", e);
}

/* ---- Inbox --------------------------------------------------------------------------------- */

static enum ferry_err driver_chain_end(void *driver, const struct db_chain *chain, bool *found,
                                       int64_t *end, struct err_text *e)
{
    struct db_mariadb *d = driver;
    struct params p = {0};
    add_chain(&p, chain);
    enum ferry_err err =
        select_row(d, STATEMENT_CHAIN_END, &p, "n", "reading ferry_inbox_chain", found, e);
    *end = err == FERRY_OK && *found ? d->columns[0].number : 0;
    return err;
}

/* The bound is read first, so that the DELETE locks the rows that go and no others. */
static enum ferry_err chain_trim(struct db_mariadb *d, const struct db_chain *chain,
                                 struct err_text *e)
{
    if (++d->extensions < DB_CHAIN_TRIM_EVERY) {
        return FERRY_OK;
    }
    d->extensions = 0;
    struct params p = {0};
    add_chain(&p, chain);
    add_number(&p, DB_CHAIN_ROWS_MAX - 1);
    bool found = false;
    enum ferry_err err =
        select_row(d, STATEMENT_CHAIN_NTH, &p, "n", "trimming ferry_inbox_chain", &found, e);
    if (err != FERRY_OK || !found) {
        return err;
    }
    bind_number(&p.binds[3], &p.numbers[3], d->columns[0].number);
    return change(d, STATEMENT_CHAIN_TRIM, &p, "trimming ferry_inbox_chain", e);
}

static enum ferry_err driver_chain_extend(void *driver, const struct db_chain *chain, int64_t start,
                                          int64_t end, struct err_text *e)
{
    struct db_mariadb *d = driver;
    struct params p = {0};
    add_chain(&p, chain);
    add_number(&p, start);
    add_number(&p, end);
    add_chain(&p, chain);
    add_number(&p, start);
    enum ferry_err err =
        change(d, STATEMENT_CHAIN_EXTEND, &p, "inserting into ferry_inbox_chain", e);
    if (err == FERRY_OK && (d->duplicate || rows_changed(d, STATEMENT_CHAIN_EXTEND) == 0)) {
        return err_set(e, FERRY_ERR_DB_RETRY,
                       "another consumer has done offset %lld already: roll back and fetch again",
                       (long long)start);
    }
    return err == FERRY_OK ? chain_trim(d, chain, e) : err;
}

static enum ferry_err driver_skip_add(void *driver, const struct db_chain *chain, int64_t from,
                                      int64_t to, const char *reason, struct err_text *e)
{
    struct params p = {0};
    add_chain(&p, chain);
    add_number(&p, from);
    add_number(&p, to);
    add_text(&p, reason);
    return change(driver, STATEMENT_SKIP_ADD, &p, "inserting into ferry_inbox_skip", e);
}

static enum ferry_err driver_id_claim(void *driver, const char *group, const struct ferry_id *id,
                                      int32_t day, bool *fresh, struct err_text *e)
{
    struct db_mariadb *d = driver;
    struct params p = {0};
    add_text(&p, group);
    add_id(&p, id);
    add_number(&p, day);
    enum ferry_err err = change(d, STATEMENT_ID_CLAIM, &p, "inserting into ferry_inbox_id", e);
    *fresh = !d->duplicate;
    return err;
}

static enum ferry_err driver_id_trim(void *driver, const char *group, int32_t day, size_t rows_max,
                                     size_t *removed, struct err_text *e)
{
    struct db_mariadb *d = driver;
    struct params p = {0};
    add_text(&p, group);
    add_number(&p, day);
    add_number(&p, (int64_t)rows_max);
    enum ferry_err err = change(d, STATEMENT_ID_TRIM, &p, "trimming ferry_inbox_id", e);
    *removed = err == FERRY_OK ? (size_t)rows_changed(d, STATEMENT_ID_TRIM) : 0;
    return err;
}

static enum ferry_err driver_inbox_dead_add(void *driver, const struct db_inbox_dead *dead,
                                            struct err_text *e)
{
    struct params p = {0};
    add_chain(&p, &dead->chain);
    add_number(&p, dead->offset);
    add_id(&p, &dead->id);
    add_text(&p, dead->reason);
    add_number(&p, dead->parked ? 1 : 0);
    add_optional(&p, dead->has_key, dead->key);
    add_optional(&p, dead->headers.size > 0, dead->headers);
    add_bytes(&p, dead->payload.data, dead->payload.size);
    add_number(&p, dead->timestamp_ms);
    add_number(&p, dead->requeued ? 1 : 0);
    return change(driver, STATEMENT_DEAD_ADD, &p, "inserting into ferry_inbox_dead", e);
}

static enum ferry_err driver_inbox_key_parked(void *driver, const struct db_chain *chain,
                                              struct bytes key, bool *parked, bool *requeued,
                                              struct err_text *e)
{
    static const enum statement steps[] = {STATEMENT_KEY_PARKED, STATEMENT_KEY_FIRST,
                                           STATEMENT_KEY_STAYS};
    struct params p = {0};
    enum ferry_err err = FERRY_OK;
    bool stays = false;
    *parked = true;
    add_text(&p, chain->group);
    add_id(&p, chain->topic_id);
    add_bytes(&p, key.data, key.size);
    for (int i = 0; err == FERRY_OK && *parked && i < 3; i++) {
        err = select_row(driver, steps[i], &p, "n", "reading ferry_inbox_dead",
                         i < 2 ? parked : &stays, e);
    }
    *requeued = *parked && !stays;
    return err;
}

static void get_id(const struct db_mariadb *d, unsigned column, struct ferry_id *id)
{
    if (d->columns[column].bytes.size == sizeof(id->bytes)) {
        memcpy(id->bytes, d->columns[column].bytes.data, sizeof(id->bytes));
    }
}

static enum ferry_err driver_inbox_requeued(void *driver, const char *group,
                                            const struct ferry_id *topic_id, bool *found,
                                            int64_t *number, struct db_inbox_dead *dead,
                                            struct err_text *e)
{
    struct db_mariadb *d = driver;
    struct params p = {0};
    add_text(&p, group);
    add_id(&p, topic_id);
    enum ferry_err err =
        select_row(d, STATEMENT_REQUEUED, &p, "nnnbbnbbbn", "reading ferry_inbox_dead", found, e);
    if (err != FERRY_OK || !*found) {
        return err;
    }
    *number = d->columns[0].number;
    memset(dead, 0, sizeof(*dead));
    dead->chain.partition = (int32_t)d->columns[1].number;
    dead->offset = d->columns[2].number;
    get_id(d, 3, &dead->id);
    dead->reason = column_text(d, 4);
    dead->parked = d->columns[5].number != 0;
    dead->has_key = !d->columns[6].is_null;
    dead->key = d->columns[6].bytes;
    dead->headers = d->columns[7].bytes;
    dead->payload = d->columns[8].bytes;
    dead->timestamp_ms = d->columns[9].number;
    return FERRY_OK;
}

static enum ferry_err driver_inbox_dead_remove(void *driver, int64_t number, struct err_text *e)
{
    struct params p = {0};
    add_number(&p, number);
    return change(driver, STATEMENT_DEAD_REMOVE, &p, "deleting from ferry_inbox_dead", e);
}

static enum ferry_err driver_inbox_dead_again(void *driver, int64_t number, const char *reason,
                                              struct err_text *e)
{
    struct params p = {0};
    add_number(&p, number);
    add_text(&p, reason);
    return change(driver, STATEMENT_DEAD_AGAIN, &p, "updating ferry_inbox_dead", e);
}

/* ---- Sagas --------------------------------------------------------------------------------- */

static enum ferry_err driver_barrier_add(void *driver, const struct ferry_id *saga, int32_t step,
                                         int32_t op, int32_t why, bool *fresh, struct err_text *e)
{
    struct db_mariadb *d = driver;
    struct params p = {0};
    add_id(&p, saga);
    add_number(&p, step);
    add_number(&p, op);
    add_number(&p, why);
    enum ferry_err err =
        change(d, STATEMENT_BARRIER_ADD, &p, "inserting into ferry_saga_barrier", e);
    *fresh = !d->duplicate;
    return err;
}

static enum ferry_err driver_barrier_why(void *driver, const struct ferry_id *saga, int32_t step,
                                         int32_t op, bool *found, int32_t *why, struct err_text *e)
{
    struct db_mariadb *d = driver;
    struct params p = {0};
    add_id(&p, saga);
    add_number(&p, step);
    add_number(&p, op);
    enum ferry_err err =
        select_row(d, STATEMENT_BARRIER_WHY, &p, "n", "reading ferry_saga_barrier", found, e);
    *why = err == FERRY_OK && *found ? (int32_t)d->columns[0].number : 0;
    return err;
}

static enum ferry_err driver_saga_insert(void *driver, const struct db_saga *saga,
                                         struct err_text *e)
{
    struct db_mariadb *d = driver;
    struct params p = {0};
    add_id(&p, &saga->id);
    add_text(&p, saga->type);
    add_number(&p, saga->state);
    add_number(&p, saga->step);
    add_number(&p, saga->version);
    add_number(&p, saga->deadline_ms);
    add_text(&p, saga->reason == NULL ? "" : saga->reason);
    add_bytes(&p, saga->data.data, saga->data.size);
    enum ferry_err err = change(d, STATEMENT_SAGA_INSERT, &p, "inserting into ferry_saga", e);
    return err == FERRY_OK && d->duplicate
               ? err_set(e, FERRY_ERR_DB_RETRY, "a saga of this id is there already")
               : err;
}

static enum ferry_err driver_saga_get(void *driver, const struct ferry_id *id, bool *found,
                                      struct db_saga *saga, struct err_text *e)
{
    struct db_mariadb *d = driver;
    struct params p = {0};
    add_id(&p, id);
    enum ferry_err err =
        select_row(d, STATEMENT_SAGA_GET, &p, "bnnnnbb", "reading ferry_saga", found, e);
    if (err == FERRY_OK && *found) {
        *saga = (struct db_saga){
            .id = *id,
            .type = column_text(d, 0),
            .state = (int32_t)d->columns[1].number,
            .step = (int32_t)d->columns[2].number,
            .version = d->columns[3].number,
            .deadline_ms = d->columns[4].number,
            .reason = column_text(d, 5),
            .data = d->columns[6].bytes,
        };
    }
    return err;
}

static enum ferry_err driver_saga_update(void *driver, const struct db_saga *saga,
                                         struct err_text *e)
{
    struct db_mariadb *d = driver;
    struct params p = {0};
    add_number(&p, saga->state);
    add_number(&p, saga->step);
    add_number(&p, saga->deadline_ms);
    add_text(&p, saga->reason == NULL ? "" : saga->reason);
    add_bytes(&p, saga->data.data, saga->data.size);
    add_id(&p, &saga->id);
    add_number(&p, saga->version);
    enum ferry_err err = change(d, STATEMENT_SAGA_UPDATE, &p, "updating ferry_saga", e);
    return err == FERRY_OK && rows_changed(d, STATEMENT_SAGA_UPDATE) == 0
               ? err_set(e, FERRY_ERR_DB_RETRY,
                         "the saga was changed by another: roll back and repeat")
               : err;
}

/* ---- The connection ------------------------------------------------------------------------ */

static void driver_close(void *driver)
{
    struct db_mariadb *d = driver;
    for (size_t i = 0; i < STATEMENT_COUNT; i++) {
        if (d->statements[i] != NULL) {
            mysql_stmt_close(d->statements[i]);
        }
    }
    buf_fini(&d->answer);
    buf_fini(&d->before);
    mem_free(d->many);
    mem_free(d->many_numbers);
    mem_free(d);
}

/* What the last answer told. Errors tell nothing, though some roll all back: then it is asked. */
static bool driver_in_transaction(void *driver)
{
    const struct db_mariadb *d = driver;
    unsigned number = mysql_errno(d->connection);
    if (!d->begun && number != 0 && number != MARIA_DUPLICATE && !maria_lost(number)) {
        mysql_query(d->connection, "DO 0"); /* mysql_ping does not read the status. */
    }
    unsigned status = 0;
    mariadb_get_infov(d->connection, MARIADB_CONNECTION_SERVER_STATUS, (void *)&status);
    return (status & SERVER_STATUS_IN_TRANS) != 0 ||
           (!d->begun && (status & SERVER_STATUS_AUTOCOMMIT) == 0);
}

static bool driver_lost(void *driver)
{
    const struct db_mariadb *d = driver;
    return d->lost || maria_lost(mysql_errno(d->connection)); /* A handler's statement, too. */
}

static const char *driver_path(void *driver)
{
    const struct db_mariadb *d = driver;
    return d->place[0] == '\0' ? NULL : d->place;
}

static enum ferry_err driver_migrate(void *driver, struct err_text *e)
{
    struct db_mariadb *d = driver;
    return migrate_mariadb(d->connection, e);
}

static enum ferry_err driver_saga_trim(void *driver, const struct db_saga_trim *trim,
                                       size_t *removed, struct err_text *e)
{
    struct db_mariadb *d = driver;
    struct params day = {0}, barrier = {0}, sagas = {0};
    add_number(&day, trim->day);
    add_id(&barrier, &trim->begun_before);
    add_number(&barrier, (int64_t)trim->rows_max);
    add_number(&sagas, trim->ended_before_ms);
    add_number(&sagas, trim->ended_before_ms);
    add_number(&sagas, (int64_t)trim->rows_max);
    enum ferry_err err = change(d, STATEMENT_BARRIER_DAY, &day, "changing ferry_saga_barrier", e);
    if (err == FERRY_OK) {
        err = change(d, STATEMENT_BARRIER_TRIM, &barrier, "trimming ferry_saga_barrier", e);
    }
    if (err == FERRY_OK) {
        *removed = (size_t)rows_changed(d, STATEMENT_BARRIER_TRIM);
        err = change(d, STATEMENT_SAGA_TRIM, &sagas, "trimming ferry_saga", e);
    }
    if (err == FERRY_OK) {
        *removed += (size_t)rows_changed(d, STATEMENT_SAGA_TRIM);
    }
    return err;
}

#define BEGUN "ferry_begun"

static void autocommit_again(struct db_mariadb *d)
{
    if (d->begun) {
        mysql_query(d->connection, "SET autocommit = 1");
        d->begun = false;
    }
}

/* A deadlock's answer does not say that the server has rolled back; so it is sent always. */
static void driver_rollback(void *driver)
{
    struct db_mariadb *d = driver;
    if (mysql_query(d->connection, "ROLLBACK") == 0) {
        autocommit_again(d); /* Which would commit what is open. */
    }
    d->begun = false;
}

/* The handler of a loop may swallow the error of a deadlock, by which the server has rolled back
 * all that was done. What follows must not commit on its own, so autocommit is off; and the
 * savepoint is gone then, which tells another transaction from the one that was begun. START
 * TRANSACTION and COMMIT are statements of their own, for proxies that look for them. */
static enum ferry_err driver_begin(void *driver, struct err_text *e)
{
    struct db_mariadb *d = driver;
    d->begun = true;
    if (mysql_query(d->connection, "SET autocommit = 0") == 0 &&
        mysql_query(d->connection, "START TRANSACTION") == 0 &&
        mysql_query(d->connection, "SAVEPOINT " BEGUN) == 0) {
        return FERRY_OK;
    }
    enum ferry_err err = connection_failed(d, "START TRANSACTION", e);
    driver_rollback(d);
    return err;
}

static enum ferry_err commit_failed(struct db_mariadb *d, struct err_text *e)
{
    return mysql_errno(d->connection) == MARIA_NO_SAVEPOINT
               ? err_set(e, FERRY_ERR_NO_TRANSACTION,
                         "COMMIT: the transaction was over before: it was rolled back because of a "
                         "deadlock that was not told of, or ended by the handler")
               : connection_failed(d, "COMMIT", e);
}

static enum ferry_err driver_commit(void *driver, struct err_text *e)
{
    struct db_mariadb *d = driver;
    if ((d->begun && mysql_query(d->connection, "RELEASE SAVEPOINT " BEGUN) != 0) ||
        mysql_query(d->connection, "COMMIT") != 0) {
        return commit_failed(d, e);
    }
    autocommit_again(d);
    return FERRY_OK;
}

static const struct db_ops mariadb_ops = {
    .close = driver_close,
    .in_transaction = driver_in_transaction,
    .path = driver_path,
    .migrate = driver_migrate,
    .put = driver_put,
    .putv = driver_putv,
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

enum ferry_err ferry_db_mariadb(struct ferry_db **db, struct st_mysql *connection)
{
    if (connection == NULL) {
        return FERRY_ERR_DB;
    }
    struct db_mariadb *d = mem_zalloc(1, sizeof(*d));
    if (d == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    d->connection = connection;
    d->lanes = 1;
    buf_init(&d->answer, DB_MARIADB_ANSWER_MAX);
    buf_init(&d->before, DB_MARIADB_ANSWER_MAX);
    enum ferry_err err = db_new(db, &mariadb_ops, d);
    if (err != FERRY_OK) {
        driver_close(d);
    }
    return err;
}
