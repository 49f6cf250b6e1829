/* db_sqlite: the application's side of outbox and inbox on a SQLite connection that the caller
 * owns. */
#include <sqlite3.h>
#include <string.h>

#include "base/mem.h"
#include "outbox/app/db.h"
#include "outbox/sqlite/schema_sqlite.h"
#include "outbox/sqlite/sqlite_error.h"

enum statement {
    STATEMENT_PUT,
    STATEMENT_CHAIN_END,
    STATEMENT_CHAIN_EXTEND,
    STATEMENT_CHAIN_TRIM,
    STATEMENT_SKIP_ADD,
    STATEMENT_ID_CLAIM,
    STATEMENT_ID_TRIM,
    STATEMENT_DEAD_ADD,
    STATEMENT_KEY_PARKED,
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
    STATEMENT_BEGIN,
    STATEMENT_COMMIT,
    STATEMENT_COUNT
};

#define CHAIN_WHERE " grp = ?1 AND topic_id = ?2 AND part = ?3 "

#define NOW_MS "CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER)"

static const char *const statement_texts[STATEMENT_COUNT] = {
    [STATEMENT_PUT] = "INSERT INTO main.ferry_outbox (topic, mkey, msg_id, headers, payload, "
                      "created_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    [STATEMENT_CHAIN_END] = "SELECT end_off FROM main.ferry_inbox_chain WHERE" CHAIN_WHERE
                            "ORDER BY start_off DESC LIMIT 1",
    [STATEMENT_CHAIN_EXTEND] =
        "INSERT INTO main.ferry_inbox_chain (grp, topic_id, part, start_off, "
        "end_off, done_ms) VALUES (?1, ?2, ?3, ?4, ?5, " NOW_MS ")",
    [STATEMENT_CHAIN_TRIM] =
        "DELETE FROM main.ferry_inbox_chain WHERE" CHAIN_WHERE
        "AND start_off < (SELECT start_off FROM main.ferry_inbox_chain WHERE" CHAIN_WHERE
        "ORDER BY start_off DESC LIMIT 1 OFFSET ?4)",
    [STATEMENT_SKIP_ADD] = "INSERT INTO main.ferry_inbox_skip (grp, topic_id, part, from_off, "
                           "to_off, reason) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    [STATEMENT_ID_CLAIM] = "INSERT INTO main.ferry_inbox_id (grp, msg_id, day) VALUES (?1, ?2, ?3) "
                           "ON CONFLICT (grp, msg_id) DO NOTHING",
    [STATEMENT_ID_TRIM] =
        "DELETE FROM main.ferry_inbox_id WHERE grp = ?1 AND msg_id IN (SELECT msg_id FROM "
        "main.ferry_inbox_id WHERE grp = ?1 AND day < ?2 ORDER BY day LIMIT ?3)",
    [STATEMENT_DEAD_ADD] =
        "INSERT INTO main.ferry_inbox_dead (grp, topic_id, part, off, msg_id, reason, parked, "
        "mkey, headers, payload, ts_ms, requeued) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, "
        "?11, ?12) "
        "ON CONFLICT (grp, topic_id, part, off) DO NOTHING",
    [STATEMENT_KEY_PARKED] = "SELECT 1 FROM main.ferry_inbox_dead WHERE grp = ?1 AND topic_id = ?2 "
                             "AND mkey = ?3 LIMIT 1",
    [STATEMENT_KEY_STAYS] = "SELECT 1 FROM main.ferry_inbox_dead WHERE grp = ?1 AND topic_id = ?2 "
                            "AND mkey = ?3 AND requeued = 0 LIMIT 1",
    [STATEMENT_REQUEUED] =
        "SELECT number, part, off, msg_id, reason, parked, mkey, headers, payload, ts_ms FROM "
        "main.ferry_inbox_dead WHERE grp = ?1 AND topic_id = ?2 AND requeued = 1 ORDER BY number "
        "LIMIT 1",
    [STATEMENT_DEAD_REMOVE] = "DELETE FROM main.ferry_inbox_dead WHERE number = ?1",
    [STATEMENT_DEAD_AGAIN] =
        "UPDATE main.ferry_inbox_dead SET requeued = 0, "
        "reason = CASE WHEN number = ?1 THEN ?2 ELSE reason END "
        "WHERE number = ?1 OR (requeued = 1 AND number > ?1 AND (grp, topic_id, mkey) = "
        "(SELECT grp, topic_id, mkey FROM main.ferry_inbox_dead WHERE number = ?1))",
    [STATEMENT_BARRIER_ADD] =
        "INSERT INTO main.ferry_saga_barrier (saga_id, step, op, why) VALUES (?1, ?2, ?3, ?4) "
        "ON CONFLICT (saga_id, step, op) DO NOTHING",
    [STATEMENT_BARRIER_WHY] = "SELECT why FROM main.ferry_saga_barrier WHERE saga_id = ?1 AND "
                              "step = ?2 AND op = ?3",
    [STATEMENT_SAGA_INSERT] =
        "INSERT INTO main.ferry_saga (saga_id, type, state, step, ver, deadline_ms, reason, data) "
        "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    [STATEMENT_SAGA_GET] = "SELECT type, state, step, ver, deadline_ms, reason, data FROM "
                           "main.ferry_saga WHERE saga_id = ?1",
    [STATEMENT_SAGA_UPDATE] =
        "UPDATE main.ferry_saga SET state = ?3, step = ?4, ver = ver + 1, deadline_ms = ?6, "
        "reason = ?7, data = ?8, changed_ms = " NOW_MS " WHERE saga_id = ?1 AND ver = ?5",
    [STATEMENT_BARRIER_DAY] = "UPDATE main.ferry_saga_barrier SET why = max(why, ?1) WHERE "
                              "saga_id = zeroblob(16) AND step = 0 AND op = 0",
    [STATEMENT_BARRIER_TRIM] =
        "DELETE FROM main.ferry_saga_barrier WHERE (saga_id, step, op) IN (SELECT saga_id, step, "
        "op FROM main.ferry_saga_barrier WHERE saga_id > zeroblob(16) AND saga_id < ?1 "
        "ORDER BY saga_id, step, op LIMIT ?2)",
    [STATEMENT_SAGA_TRIM] =
        "DELETE FROM main.ferry_saga WHERE saga_id IN (SELECT saga_id FROM main.ferry_saga WHERE "
        "state IN (3, 4, 6) AND created_ms < ?1 AND changed_ms < ?1 LIMIT ?2)",
    [STATEMENT_BEGIN] = "BEGIN IMMEDIATE",
    [STATEMENT_COMMIT] = "COMMIT",
};

struct db_sqlite {
    sqlite3 *connection;                       /* The caller's. */
    bool schema_checked;                       /* The version was right when last looked at. */
    sqlite3_stmt *statements[STATEMENT_COUNT]; /* Prepared on first use. */
    struct buf
        answer; /* Copies of what inbox_requeued and saga_get return: the statement is reset. */
    struct buf before; /* The one before: saga_update may be given it. */
};

#define ANSWER_MAX (16u << 20)

static void driver_close(void *driver)
{
    struct db_sqlite *d = driver;
    for (size_t i = 0; i < STATEMENT_COUNT; i++) {
        sqlite3_finalize(d->statements[i]);
    }
    buf_fini(&d->answer);
    buf_fini(&d->before);
    mem_free(d);
}

static bool driver_in_transaction(void *driver)
{
    const struct db_sqlite *d = driver;
    return sqlite3_get_autocommit(d->connection) == 0;
}

static const char *driver_path(void *driver)
{
    const struct db_sqlite *d = driver;
    const char *path = sqlite3_db_filename(d->connection, "main");
    return path == NULL || path[0] == '\0' ? NULL : path;
}

/* The statement, ready to bind. A statement is only prepared on tables of our version. */
static enum ferry_err statement_get(struct db_sqlite *d, enum statement which, sqlite3_stmt **stmt,
                                    struct err_text *e)
{
    if (!d->schema_checked && which != STATEMENT_BEGIN && which != STATEMENT_COMMIT) {
        const char *path = driver_path(d);
        enum ferry_err err =
            sqlite_schema_check(d->connection, path == NULL ? "the database" : path, e);
        if (err != FERRY_OK) {
            return err;
        }
        d->schema_checked = true;
    }
    if (d->statements[which] == NULL) {
        int code = sqlite3_prepare_v3(d->connection, statement_texts[which], -1,
                                      SQLITE_PREPARE_PERSISTENT, &d->statements[which], NULL);
        if (code != SQLITE_OK) {
            return sqlite_error(d->connection, code, "preparing a statement", e);
        }
    }
    *stmt = d->statements[which];
    return FERRY_OK;
}

/* Runs a bound statement that returns no rows, and resets it. Bound bytes are the caller's, so they
 * must not stay bound. */
static enum ferry_err statement_run(struct db_sqlite *d, sqlite3_stmt *stmt, const char *doing,
                                    struct err_text *e)
{
    int code = sqlite3_step(stmt);
    enum ferry_err err = FERRY_OK;
    if (code != SQLITE_DONE) {
        err = sqlite_error(d->connection, code, doing, e);
    }
    sqlite3_reset(stmt);
    sqlite3_clear_bindings(stmt);
    return err;
}

/* Binding fails only for lack of memory and for sizes past SQLite's limit. */
static int bind_blob(sqlite3_stmt *stmt, int at, struct bytes value)
{
    return sqlite3_bind_blob64(stmt, at, value.size == 0 ? "" : (const void *)value.data,
                               value.size, SQLITE_STATIC);
}

static int bind_chain(sqlite3_stmt *stmt, const struct db_chain *chain)
{
    int code = sqlite3_bind_text(stmt, 1, chain->group, -1, SQLITE_STATIC);
    if (code == SQLITE_OK) {
        code = bind_blob(stmt, 2, bytes_of(chain->topic_id->bytes, sizeof(chain->topic_id->bytes)));
    }
    return code == SQLITE_OK ? sqlite3_bind_int(stmt, 3, chain->partition) : code;
}

static enum ferry_err bind_failed(struct db_sqlite *d, sqlite3_stmt *stmt, int code,
                                  struct err_text *e)
{
    sqlite3_clear_bindings(stmt);
    return sqlite_error(d->connection, code, "binding a value", e);
}

static int bind_row(sqlite3_stmt *stmt, const struct db_row *row)
{
    int code = sqlite3_bind_text64(stmt, 1, (const char *)row->topic.data, row->topic.size,
                                   SQLITE_STATIC, SQLITE_UTF8);
    if (code == SQLITE_OK && row->has_key) {
        code = bind_blob(stmt, 2, row->key);
    }
    if (code == SQLITE_OK) {
        code = bind_blob(stmt, 3, bytes_of(row->id.bytes, sizeof(row->id.bytes)));
    }
    if (code == SQLITE_OK && row->headers.size > 0) {
        code = bind_blob(stmt, 4, row->headers);
    }
    if (code == SQLITE_OK) {
        code = bind_blob(stmt, 5, row->payload);
    }
    return code == SQLITE_OK ? sqlite3_bind_int64(stmt, 6, row->created_ms) : code;
}

static enum ferry_err driver_put(void *driver, const struct db_row *row, struct err_text *e)
{
    struct db_sqlite *d = driver;
    sqlite3_stmt *stmt = NULL;
    enum ferry_err err = statement_get(d, STATEMENT_PUT, &stmt, e);
    if (err != FERRY_OK) {
        return err;
    }
    int code = bind_row(stmt, row);
    if (code != SQLITE_OK) {
        return bind_failed(d, stmt, code, e);
    }
    return statement_run(d, stmt, "inserting into ferry_outbox", e);
}

static enum ferry_err driver_chain_end(void *driver, const struct db_chain *chain, bool *found,
                                       int64_t *end, struct err_text *e)
{
    struct db_sqlite *d = driver;
    sqlite3_stmt *stmt = NULL;
    enum ferry_err err = statement_get(d, STATEMENT_CHAIN_END, &stmt, e);
    if (err != FERRY_OK) {
        return err;
    }
    int code = bind_chain(stmt, chain);
    if (code != SQLITE_OK) {
        return bind_failed(d, stmt, code, e);
    }
    code = sqlite3_step(stmt);
    if (code == SQLITE_ROW) {
        *found = true;
        *end = sqlite3_column_int64(stmt, 0);
    } else if (code == SQLITE_DONE) {
        *found = false;
    } else {
        err = sqlite_error(d->connection, code, "reading ferry_inbox_chain", e);
    }
    sqlite3_reset(stmt);
    sqlite3_clear_bindings(stmt);
    return err;
}

static enum ferry_err chain_insert(struct db_sqlite *d, const struct db_chain *chain, int64_t start,
                                   int64_t end, struct err_text *e)
{
    sqlite3_stmt *stmt = NULL;
    enum ferry_err err = statement_get(d, STATEMENT_CHAIN_EXTEND, &stmt, e);
    if (err != FERRY_OK) {
        return err;
    }
    int code = bind_chain(stmt, chain);
    if (code != SQLITE_OK) {
        return bind_failed(d, stmt, code, e);
    }
    sqlite3_bind_int64(stmt, 4, start);
    sqlite3_bind_int64(stmt, 5, end);
    code = sqlite3_step(stmt);
    if (code == SQLITE_CONSTRAINT) {
        err = err_set(e, FERRY_ERR_DB_RETRY,
                      "another consumer has done offset %lld already: roll back and fetch again",
                      (long long)start);
    } else if (code != SQLITE_DONE) {
        err = sqlite_error(d->connection, code, "inserting into ferry_inbox_chain", e);
    }
    sqlite3_reset(stmt);
    sqlite3_clear_bindings(stmt);
    return err;
}

static enum ferry_err chain_trim(struct db_sqlite *d, const struct db_chain *chain,
                                 struct err_text *e)
{
    sqlite3_stmt *stmt = NULL;
    enum ferry_err err = statement_get(d, STATEMENT_CHAIN_TRIM, &stmt, e);
    if (err != FERRY_OK) {
        return err;
    }
    int code = bind_chain(stmt, chain);
    if (code != SQLITE_OK) {
        return bind_failed(d, stmt, code, e);
    }
    sqlite3_bind_int(stmt, 4, DB_CHAIN_ROWS_MAX - 1);
    return statement_run(d, stmt, "trimming ferry_inbox_chain", e);
}

static enum ferry_err driver_chain_extend(void *driver, const struct db_chain *chain, int64_t start,
                                          int64_t end, struct err_text *e)
{
    enum ferry_err err = chain_insert(driver, chain, start, end, e);
    return err == FERRY_OK ? chain_trim(driver, chain, e) : err;
}

static enum ferry_err driver_skip_add(void *driver, const struct db_chain *chain, int64_t from,
                                      int64_t to, const char *reason, struct err_text *e)
{
    struct db_sqlite *d = driver;
    sqlite3_stmt *stmt = NULL;
    enum ferry_err err = statement_get(d, STATEMENT_SKIP_ADD, &stmt, e);
    if (err != FERRY_OK) {
        return err;
    }
    int code = bind_chain(stmt, chain);
    if (code == SQLITE_OK) {
        code = sqlite3_bind_text(stmt, 6, reason, -1, SQLITE_STATIC);
    }
    if (code != SQLITE_OK) {
        return bind_failed(d, stmt, code, e);
    }
    sqlite3_bind_int64(stmt, 4, from);
    sqlite3_bind_int64(stmt, 5, to);
    return statement_run(d, stmt, "inserting into ferry_inbox_skip", e);
}

/* ---- What the newer statements share: errors of binding are kept until all is bound. */

struct binder {
    sqlite3_stmt *stmt;
    int at; /* Of the last parameter. */
    int code;
};

static void add(struct binder *b, int code)
{
    b->code = b->code == SQLITE_OK ? code : b->code;
}

static void add_bytes(struct binder *b, struct bytes value)
{
    add(b, bind_blob(b->stmt, ++b->at, value));
}

static void add_optional(struct binder *b, bool has, struct bytes value)
{
    if (has) {
        add_bytes(b, value);
    } else {
        add(b, sqlite3_bind_null(b->stmt, ++b->at));
    }
}

static void add_id(struct binder *b, const struct ferry_id *id)
{
    add_bytes(b, bytes_of(id->bytes, sizeof(id->bytes)));
}

static void add_text(struct binder *b, const char *text)
{
    add(b, sqlite3_bind_text(b->stmt, ++b->at, text, -1, SQLITE_STATIC));
}

static void add_number(struct binder *b, int64_t value)
{
    add(b, sqlite3_bind_int64(b->stmt, ++b->at, value));
}

static enum ferry_err binder_begin(struct db_sqlite *d, enum statement which, struct binder *b,
                                   struct err_text *e)
{
    *b = (struct binder){.code = SQLITE_OK};
    return statement_get(d, which, &b->stmt, e);
}

/* *changed (may be NULL): rows that it has changed. */
static enum ferry_err binder_run(struct db_sqlite *d, struct binder *b, const char *doing,
                                 int *changed, struct err_text *e)
{
    if (b->code != SQLITE_OK) {
        return bind_failed(d, b->stmt, b->code, e);
    }
    enum ferry_err err = statement_run(d, b->stmt, doing, e);
    if (err == FERRY_OK && changed != NULL) {
        *changed = sqlite3_changes(d->connection);
    }
    return err;
}

/* The first row, until binder_end. */
static enum ferry_err binder_row(struct db_sqlite *d, struct binder *b, const char *doing,
                                 bool *found, struct err_text *e)
{
    if (b->code != SQLITE_OK) {
        return bind_failed(d, b->stmt, b->code, e);
    }
    int code = sqlite3_step(b->stmt);
    *found = code == SQLITE_ROW;
    return code == SQLITE_ROW || code == SQLITE_DONE ? FERRY_OK
                                                     : sqlite_error(d->connection, code, doing, e);
}

static void binder_end(struct binder *b)
{
    sqlite3_reset(b->stmt);
    sqlite3_clear_bindings(b->stmt);
}

/* Room for all of the row's bytes, so that pointers into it stay. */
static bool answer_begin(struct db_sqlite *d, sqlite3_stmt *stmt)
{
    struct buf swap = d->before;
    d->before = d->answer;
    d->answer = swap;
    buf_clear(&d->answer);
    size_t bytes = 0;
    for (int i = 0; i < sqlite3_column_count(stmt); i++) {
        bytes += (size_t)sqlite3_column_bytes(stmt, i) + 1;
    }
    return buf_reserve(&d->answer, bytes);
}

/* The column's bytes with a NUL behind them. */
static struct bytes answer_take(struct db_sqlite *d, sqlite3_stmt *stmt, int column)
{
    const void *data = sqlite3_column_blob(stmt, column);
    size_t size = data == NULL ? 0 : (size_t)sqlite3_column_bytes(stmt, column);
    size_t start = d->answer.size;
    if (size > 0) {
        buf_append(&d->answer, data, size);
    }
    buf_append_u8(&d->answer, '\0');
    return bytes_of(d->answer.data + start, size);
}

static void take_id(sqlite3_stmt *stmt, int column, struct ferry_id *id)
{
    const void *data = sqlite3_column_blob(stmt, column);
    if (data != NULL && sqlite3_column_bytes(stmt, column) == (int)sizeof(id->bytes)) {
        memcpy(id->bytes, data, sizeof(id->bytes));
    }
}

/* A writer is alone. */
static enum ferry_err driver_lock_key(void *driver, struct bytes key, struct err_text *e)
{
    (void)driver;
    (void)key;
    (void)e;
    return FERRY_OK;
}

static enum ferry_err driver_putv(void *driver, const struct db_row *rows, size_t count,
                                  struct err_text *e)
{
    enum ferry_err err = FERRY_OK;
    for (size_t i = 0; err == FERRY_OK && i < count; i++) {
        err = driver_put(driver, &rows[i], e);
    }
    return err;
}

static enum ferry_err driver_id_claim(void *driver, const char *group, const struct ferry_id *id,
                                      int32_t day, bool *fresh, struct err_text *e)
{
    struct binder b;
    enum ferry_err err = binder_begin(driver, STATEMENT_ID_CLAIM, &b, e);
    if (err != FERRY_OK) {
        return err;
    }
    int changed = 0;
    add_text(&b, group);
    add_id(&b, id);
    add_number(&b, day);
    err = binder_run(driver, &b, "inserting into ferry_inbox_id", &changed, e);
    *fresh = changed == 1;
    return err;
}

static enum ferry_err driver_id_trim(void *driver, const char *group, int32_t day, size_t rows_max,
                                     size_t *removed, struct err_text *e)
{
    struct binder b;
    enum ferry_err err = binder_begin(driver, STATEMENT_ID_TRIM, &b, e);
    if (err != FERRY_OK) {
        return err;
    }
    int changed = 0;
    add_text(&b, group);
    add_number(&b, day);
    add_number(&b, (int64_t)rows_max);
    err = binder_run(driver, &b, "trimming ferry_inbox_id", &changed, e);
    *removed = (size_t)changed;
    return err;
}

static enum ferry_err driver_inbox_dead_add(void *driver, const struct db_inbox_dead *dead,
                                            struct err_text *e)
{
    struct binder b;
    enum ferry_err err = binder_begin(driver, STATEMENT_DEAD_ADD, &b, e);
    if (err != FERRY_OK) {
        return err;
    }
    add(&b, bind_chain(b.stmt, &dead->chain));
    b.at = 3;
    add_number(&b, dead->offset);
    add_id(&b, &dead->id);
    add_text(&b, dead->reason);
    add_number(&b, dead->parked ? 1 : 0);
    add_optional(&b, dead->has_key, dead->key);
    add_optional(&b, dead->headers.size > 0, dead->headers);
    add_bytes(&b, dead->payload);
    add_number(&b, dead->timestamp_ms);
    add_number(&b, dead->requeued ? 1 : 0);
    return binder_run(driver, &b, "inserting into ferry_inbox_dead", NULL, e);
}

static enum ferry_err select_key(struct db_sqlite *d, enum statement which,
                                 const struct db_chain *chain, struct bytes key, bool *found,
                                 struct err_text *e)
{
    struct binder b;
    enum ferry_err err = binder_begin(d, which, &b, e);
    if (err != FERRY_OK) {
        return err;
    }
    add_text(&b, chain->group);
    add_id(&b, chain->topic_id);
    add_bytes(&b, key);
    err = binder_row(d, &b, "reading ferry_inbox_dead", found, e);
    binder_end(&b);
    return err;
}

static enum ferry_err driver_inbox_key_parked(void *driver, const struct db_chain *chain,
                                              struct bytes key, bool *parked, bool *requeued,
                                              struct err_text *e)
{
    bool stays = false;
    enum ferry_err err = select_key(driver, STATEMENT_KEY_PARKED, chain, key, parked, e);
    if (err == FERRY_OK && *parked) {
        err = select_key(driver, STATEMENT_KEY_STAYS, chain, key, &stays, e);
    }
    *requeued = *parked && !stays;
    return err;
}

static enum ferry_err take_dead(struct db_sqlite *d, sqlite3_stmt *stmt, int64_t *number,
                                struct db_inbox_dead *dead, struct err_text *e)
{
    memset(dead, 0, sizeof(*dead));
    if (!answer_begin(d, stmt)) {
        return err_set(e, FERRY_ERR_NO_MEMORY, "no memory for a dead letter");
    }
    *number = sqlite3_column_int64(stmt, 0);
    dead->chain.partition = sqlite3_column_int(stmt, 1);
    dead->offset = sqlite3_column_int64(stmt, 2);
    take_id(stmt, 3, &dead->id);
    dead->reason = (const char *)answer_take(d, stmt, 4).data;
    dead->parked = sqlite3_column_int(stmt, 5) != 0;
    dead->has_key = sqlite3_column_type(stmt, 6) != SQLITE_NULL;
    dead->key = answer_take(d, stmt, 6);
    dead->headers = answer_take(d, stmt, 7);
    dead->payload = answer_take(d, stmt, 8);
    dead->timestamp_ms = sqlite3_column_int64(stmt, 9);
    return FERRY_OK;
}

static enum ferry_err driver_inbox_requeued(void *driver, const char *group,
                                            const struct ferry_id *topic_id, bool *found,
                                            int64_t *number, struct db_inbox_dead *dead,
                                            struct err_text *e)
{
    struct binder b;
    enum ferry_err err = binder_begin(driver, STATEMENT_REQUEUED, &b, e);
    if (err != FERRY_OK) {
        return err;
    }
    add_text(&b, group);
    add_id(&b, topic_id);
    err = binder_row(driver, &b, "reading ferry_inbox_dead", found, e);
    if (err == FERRY_OK && *found) {
        err = take_dead(driver, b.stmt, number, dead, e);
    }
    binder_end(&b);
    return err;
}

static enum ferry_err driver_inbox_dead_remove(void *driver, int64_t number, struct err_text *e)
{
    struct binder b;
    enum ferry_err err = binder_begin(driver, STATEMENT_DEAD_REMOVE, &b, e);
    if (err != FERRY_OK) {
        return err;
    }
    add_number(&b, number);
    return binder_run(driver, &b, "deleting from ferry_inbox_dead", NULL, e);
}

static enum ferry_err driver_inbox_dead_again(void *driver, int64_t number, const char *reason,
                                              struct err_text *e)
{
    struct binder b;
    enum ferry_err err = binder_begin(driver, STATEMENT_DEAD_AGAIN, &b, e);
    if (err != FERRY_OK) {
        return err;
    }
    add_number(&b, number);
    add_text(&b, reason);
    return binder_run(driver, &b, "updating ferry_inbox_dead", NULL, e);
}

static enum ferry_err driver_barrier_add(void *driver, const struct ferry_id *saga, int32_t step,
                                         int32_t op, int32_t why, bool *fresh, struct err_text *e)
{
    struct binder b;
    enum ferry_err err = binder_begin(driver, STATEMENT_BARRIER_ADD, &b, e);
    if (err != FERRY_OK) {
        return err;
    }
    int changed = 0;
    add_id(&b, saga);
    add_number(&b, step);
    add_number(&b, op);
    add_number(&b, why);
    err = binder_run(driver, &b, "inserting into ferry_saga_barrier", &changed, e);
    *fresh = changed == 1;
    return err;
}

static enum ferry_err driver_barrier_why(void *driver, const struct ferry_id *saga, int32_t step,
                                         int32_t op, bool *found, int32_t *why, struct err_text *e)
{
    struct binder b;
    enum ferry_err err = binder_begin(driver, STATEMENT_BARRIER_WHY, &b, e);
    if (err != FERRY_OK) {
        return err;
    }
    add_id(&b, saga);
    add_number(&b, step);
    add_number(&b, op);
    err = binder_row(driver, &b, "reading ferry_saga_barrier", found, e);
    *why = err == FERRY_OK && *found ? sqlite3_column_int(b.stmt, 0) : 0;
    binder_end(&b);
    return err;
}

static void add_saga(struct binder *b, const struct db_saga *saga)
{
    add_id(b, &saga->id);
    add_text(b, saga->type);
    add_number(b, saga->state);
    add_number(b, saga->step);
    add_number(b, saga->version);
    add_number(b, saga->deadline_ms);
    add_text(b, saga->reason == NULL ? "" : saga->reason);
    add_bytes(b, saga->data);
}

static enum ferry_err driver_saga_insert(void *driver, const struct db_saga *saga,
                                         struct err_text *e)
{
    struct binder b;
    enum ferry_err err = binder_begin(driver, STATEMENT_SAGA_INSERT, &b, e);
    if (err != FERRY_OK) {
        return err;
    }
    add_saga(&b, saga);
    return binder_run(driver, &b, "inserting into ferry_saga", NULL, e);
}

static enum ferry_err take_saga(struct db_sqlite *d, sqlite3_stmt *stmt, const struct ferry_id *id,
                                struct db_saga *saga, struct err_text *e)
{
    if (!answer_begin(d, stmt)) {
        return err_set(e, FERRY_ERR_NO_MEMORY, "no memory for a saga");
    }
    *saga = (struct db_saga){
        .id = *id,
        .type = (const char *)answer_take(d, stmt, 0).data,
        .state = sqlite3_column_int(stmt, 1),
        .step = sqlite3_column_int(stmt, 2),
        .version = sqlite3_column_int64(stmt, 3),
        .deadline_ms = sqlite3_column_int64(stmt, 4),
    };
    saga->reason = (const char *)answer_take(d, stmt, 5).data;
    saga->data = answer_take(d, stmt, 6);
    return FERRY_OK;
}

static enum ferry_err driver_saga_get(void *driver, const struct ferry_id *id, bool *found,
                                      struct db_saga *saga, struct err_text *e)
{
    struct binder b;
    enum ferry_err err = binder_begin(driver, STATEMENT_SAGA_GET, &b, e);
    if (err != FERRY_OK) {
        return err;
    }
    add_id(&b, id);
    err = binder_row(driver, &b, "reading ferry_saga", found, e);
    if (err == FERRY_OK && *found) {
        err = take_saga(driver, b.stmt, id, saga, e);
    }
    binder_end(&b);
    return err;
}

static enum ferry_err driver_saga_update(void *driver, const struct db_saga *saga,
                                         struct err_text *e)
{
    struct binder b;
    enum ferry_err err = binder_begin(driver, STATEMENT_SAGA_UPDATE, &b, e);
    if (err != FERRY_OK) {
        return err;
    }
    int changed = 0;
    add_saga(&b, saga);
    err = binder_run(driver, &b, "updating ferry_saga", &changed, e);
    return err == FERRY_OK && changed == 0
               ? err_set(e, FERRY_ERR_DB_RETRY,
                         "the saga was changed by another: roll back and repeat")
               : err;
}

static enum ferry_err trim_one(struct db_sqlite *d, enum statement which,
                               const struct db_saga_trim *trim, size_t *removed, struct err_text *e)
{
    struct binder b;
    int changed = 0;
    enum ferry_err err = binder_begin(d, which, &b, e);
    if (err != FERRY_OK) {
        return err;
    }
    if (which == STATEMENT_BARRIER_DAY) {
        add_number(&b, trim->day);
        return binder_run(d, &b, "changing ferry_saga_barrier", NULL, e);
    }
    if (which == STATEMENT_BARRIER_TRIM) {
        add_id(&b, &trim->begun_before);
    } else {
        add_number(&b, trim->ended_before_ms);
    }
    add_number(&b, (int64_t)trim->rows_max);
    err = binder_run(d, &b, "trimming sagas", &changed, e);
    *removed += (size_t)changed;
    return err;
}

static enum ferry_err driver_saga_trim(void *driver, const struct db_saga_trim *trim,
                                       size_t *removed, struct err_text *e)
{
    *removed = 0;
    enum ferry_err err = trim_one(driver, STATEMENT_BARRIER_DAY, trim, removed, e);
    if (err == FERRY_OK) {
        err = trim_one(driver, STATEMENT_BARRIER_TRIM, trim, removed, e);
    }
    return err == FERRY_OK ? trim_one(driver, STATEMENT_SAGA_TRIM, trim, removed, e) : err;
}

static enum ferry_err driver_begin(void *driver, struct err_text *e)
{
    struct db_sqlite *d = driver;
    sqlite3_stmt *stmt = NULL;
    enum ferry_err err = statement_get(d, STATEMENT_BEGIN, &stmt, e);
    return err == FERRY_OK ? statement_run(d, stmt, "BEGIN IMMEDIATE", e) : err;
}

static enum ferry_err driver_commit(void *driver, struct err_text *e)
{
    struct db_sqlite *d = driver;
    sqlite3_stmt *stmt = NULL;
    enum ferry_err err = statement_get(d, STATEMENT_COMMIT, &stmt, e);
    return err == FERRY_OK ? statement_run(d, stmt, "COMMIT", e) : err;
}

static void driver_rollback(void *driver)
{
    struct db_sqlite *d = driver;
    if (driver_in_transaction(d)) {
        sqlite3_exec(d->connection, "ROLLBACK", NULL, NULL, NULL);
    }
}

static enum ferry_err exec(struct db_sqlite *d, const char *sql, const char *doing,
                           struct err_text *e)
{
    int code = sqlite3_exec(d->connection, sql, NULL, NULL, NULL);
    return code == SQLITE_OK ? FERRY_OK : sqlite_error(d->connection, code, doing, e);
}

/* WAL lets the relay read while the application writes. A database in memory answers "memory": it
 * has no relay, and the inbox works there as well. */
static enum ferry_err set_journal(struct db_sqlite *d, struct err_text *e)
{
    sqlite3_stmt *stmt = NULL;
    int code = sqlite3_prepare_v2(d->connection, "PRAGMA main.journal_mode = WAL", -1, &stmt, NULL);
    if (code == SQLITE_OK) {
        code = sqlite3_step(stmt);
    }
    enum ferry_err err = FERRY_OK;
    if (code != SQLITE_ROW) {
        err = sqlite_error(d->connection, code, "setting the journal to WAL", e);
    } else {
        const char *mode = (const char *)sqlite3_column_text(stmt, 0);
        if (mode == NULL || (strcmp(mode, "wal") != 0 && strcmp(mode, "memory") != 0)) {
            err =
                err_set(e, FERRY_ERR_DB,
                        "the journal stays \"%s\": the file system or another connection does not "
                        "allow WAL",
                        mode == NULL ? "?" : mode);
        }
    }
    sqlite3_finalize(stmt);
    return err;
}

/* In the transaction: looks again, because another process may have been faster. */
static enum ferry_err migrate_steps(struct db_sqlite *d, struct err_text *e)
{
    int64_t version = 0;
    enum ferry_err err = sqlite_schema_version(d->connection, &version, e);
    for (int step = (int)version + 1; err == FERRY_OK && step <= SCHEMA_SQLITE_VERSION; step++) {
        const char *sql = schema_sqlite_step(step);
        must(sql != NULL);
        err = exec(d, sql, "making Ferry's tables", e);
    }
    return err;
}

static enum ferry_err driver_migrate(void *driver, struct err_text *e)
{
    struct db_sqlite *d = driver;
    int64_t version = 0;
    enum ferry_err err = sqlite_schema_version(d->connection, &version, e);
    if (err != FERRY_OK) {
        return err;
    }
    if (version > SCHEMA_SQLITE_VERSION) {
        return err_set(e, FERRY_ERR_NEWER_FORMAT,
                       "the Ferry tables have version %lld, this library knows %d: use a newer one",
                       (long long)version, SCHEMA_SQLITE_VERSION);
    }
    err = set_journal(d, e);
    if (err != FERRY_OK || version == SCHEMA_SQLITE_VERSION) {
        return err;
    }
    err = driver_begin(d, e);
    if (err == FERRY_OK) {
        err = migrate_steps(d, e);
    }
    if (err == FERRY_OK) {
        err = driver_commit(d, e);
    }
    if (err != FERRY_OK) {
        driver_rollback(d);
    }
    return err;
}

static const struct db_ops sqlite_ops = {
    .close = driver_close,
    .in_transaction = driver_in_transaction,
    .path = driver_path,
    .migrate = driver_migrate,
    .put = driver_put,
    .chain_end = driver_chain_end,
    .chain_extend = driver_chain_extend,
    .skip_add = driver_skip_add,
    .putv = driver_putv,
    .lock_key = driver_lock_key,
    .id_claim = driver_id_claim,
    .id_trim = driver_id_trim,
    .inbox_dead_add = driver_inbox_dead_add,
    .inbox_key_parked = driver_inbox_key_parked,
    .inbox_requeued = driver_inbox_requeued,
    .inbox_dead_remove = driver_inbox_dead_remove,
    .inbox_dead_again = driver_inbox_dead_again,
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

enum ferry_err ferry_db_sqlite(struct ferry_db **db, struct sqlite3 *connection)
{
    if (connection == NULL) {
        return FERRY_ERR_DB;
    }
    struct db_sqlite *d = mem_zalloc(1, sizeof(*d));
    if (d == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    d->connection = connection;
    buf_init(&d->answer, ANSWER_MAX);
    buf_init(&d->before, ANSWER_MAX);
    enum ferry_err err = db_new(db, &sqlite_ops, d);
    if (err != FERRY_OK) {
        driver_close(d);
    }
    return err;
}
