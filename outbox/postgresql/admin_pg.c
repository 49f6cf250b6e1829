/* Opening and statements, and init, print_sql and status. */
#include "outbox/postgresql/admin_pg.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/id.h"
#include "ferry_outbox.h"
#include "outbox/app/bench_put.h"
#include "outbox/postgresql/cover.h"
#include "outbox/postgresql/pq_error.h"
#include "outbox/postgresql/schema_postgresql.h"

#define CONNECT_TIMEOUT_S "5"
#define SQL_MAX_BYTES     (16u << 10)
#define SESSION                                                                                    \
    "SET lock_timeout = '5s'; SET statement_timeout = '10min'; "                                   \
    "SET idle_in_transaction_session_timeout = '10min'; SET client_min_messages = warning"
#define COUNT_MAX "1000000" /* Rows counted one by one; more are estimated. */

/* ---- Opening -------------------------------------------------------------------------------- */

static enum ferry_err connect_to(struct admin_pg *a, struct err_text *e)
{
    static const char *const names[] = {"dbname", "connect_timeout", "application_name", NULL};
    const char *const values[] = {a->url.conninfo, CONNECT_TIMEOUT_S, "ferry outbox", NULL};
    a->connection = PQconnectdbParams(names, values, 1);
    if (a->connection == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    if (PQstatus(a->connection) != CONNECTION_OK) {
        const char *words = PQerrorMessage(a->connection);
        return err_set(e, FERRY_ERR_IO, "%s: %.*s", a->url.shown, (int)strcspn(words, "\n"), words);
    }
    return FERRY_OK;
}

static enum ferry_err run_plain(struct admin_pg *a, const char *sql, struct err_text *e)
{
    PGresult *result = PQexec(a->connection, sql);
    ExecStatusType status = PQresultStatus(result);
    enum ferry_err err = status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK
                             ? FERRY_OK
                             : pq_error(a->connection, result, a->url.shown, e);
    PQclear(result);
    return err;
}

static enum ferry_err check_version(struct admin_pg *a, struct err_text *e)
{
    PGresult *result = NULL;
    int64_t version = 0;
    enum ferry_err err = admin_pg_ask(
        a, "SELECT value::bigint FROM @.meta WHERE name = 'schema_version'", NULL, &result, e);
    if (err == FERRY_ERR_DB_SCHEMA) {
        return err_set(e, err, "%s: it has no Ferry tables: `ferry outbox init` makes them",
                       a->url.shown);
    }
    if (err != FERRY_OK) {
        return err;
    }
    version = PQntuples(result) == 1 ? admin_pg_int(result, 0, 0) : 0;
    PQclear(result);
    if (version > SCHEMA_POSTGRESQL_VERSION) {
        return err_set(e, FERRY_ERR_NEWER_FORMAT,
                       "%s: it has tables of version %" PRId64
                       ", of a newer Ferry: this one knows %d",
                       a->url.shown, version, SCHEMA_POSTGRESQL_VERSION);
    }
    if (version < SCHEMA_POSTGRESQL_VERSION) {
        return err_set(e, FERRY_ERR_DB_SCHEMA,
                       "%s: it has tables of version %" PRId64
                       ": `ferry outbox init` brings them to %d",
                       a->url.shown, version, SCHEMA_POSTGRESQL_VERSION);
    }
    return FERRY_OK;
}

void admin_pg_close(struct admin_pg *a)
{
    PQfinish(a->connection);
    a->connection = NULL;
}

enum ferry_err admin_pg_open(struct admin_pg *a, const char *url, enum admin_pg_mode mode,
                             struct err_text *e)
{
    static const char *const begin[] = {
        [ADMIN_PG_READING] = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        [ADMIN_PG_SELECTING] = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        [ADMIN_PG_WRITING] = "BEGIN ISOLATION LEVEL READ COMMITTED",
    };
    *a = (struct admin_pg){0};
    enum ferry_err err = pg_url_parse(url, &a->url, e);
    if (err == FERRY_OK) {
        err = connect_to(a, e);
    }
    if (err == FERRY_OK) {
        err = run_plain(a, SESSION, e);
    }
    if (err == FERRY_OK && mode != ADMIN_PG_PLAIN) {
        err = run_plain(a, begin[mode], e);
    }
    if (err == FERRY_OK && (mode == ADMIN_PG_READING || mode == ADMIN_PG_WRITING)) {
        err = check_version(a, e);
    }
    if (err != FERRY_OK) {
        admin_pg_close(a);
    }
    return err;
}

enum ferry_err admin_pg_commit(struct admin_pg *a, enum ferry_err err, struct err_text *e)
{
    if (PQtransactionStatus(a->connection) == PQTRANS_IDLE) {
        return err;
    }
    if (err == FERRY_OK) {
        return run_plain(a, "COMMIT", e);
    }
    PQclear(PQexec(a->connection, "ROLLBACK"));
    return err;
}

enum ferry_err admin_pg_end(struct admin_pg *a, enum ferry_err err, struct err_text *e)
{
    err = admin_pg_commit(a, err, e);
    admin_pg_close(a);
    return err;
}

/* ---- Statements ----------------------------------------------------------------------------- */

static int next_param(struct admin_pg_params *p)
{
    must(p->count < ADMIN_PG_PARAMS_MAX);
    p->values[p->count] = NULL;
    p->sizes[p->count] = 0;
    p->formats[p->count] = 0;
    return p->count++;
}

void admin_pg_add_int(struct admin_pg_params *p, int64_t value)
{
    int at = next_param(p);
    (void)snprintf(p->texts[at], sizeof(p->texts[at]), "%" PRId64, value);
    p->values[at] = p->texts[at];
}

void admin_pg_add_text(struct admin_pg_params *p, const char *text)
{
    p->values[next_param(p)] = text;
}

void admin_pg_add_bytes(struct admin_pg_params *p, struct bytes bytes)
{
    int at = next_param(p);
    p->values[at] = (const char *)bytes.data;
    p->sizes[at] = (int)bytes.size;
    p->formats[at] = 1;
}

void admin_pg_add_id(struct admin_pg_params *p, const struct ferry_id *id)
{
    int at = next_param(p);
    _Static_assert(sizeof(p->texts[0]) >= ID_TEXT_BYTES, "an id fits");
    if (id != NULL) {
        id_format(id, p->texts[at]);
        p->values[at] = p->texts[at];
    }
}

/* The statement with the schema's name, which needs no quotes, and a NUL. */
static void expand(const struct admin_pg *a, const char *sql, struct buf *out)
{
    for (const char *at = sql; *at != '\0'; at++) {
        if (*at == '@') {
            buf_printf(out, "\"%s\"", a->url.schema);
        } else {
            buf_append_u8(out, (uint8_t)*at);
        }
    }
    buf_append_u8(out, 0);
}

enum ferry_err admin_pg_ask(struct admin_pg *a, const char *sql, const struct admin_pg_params *p,
                            PGresult **result, struct err_text *e)
{
    static const struct admin_pg_params none;
    struct buf text;
    enum ferry_err err = FERRY_ERR_NO_MEMORY;
    p = p == NULL ? &none : p;
    *result = NULL;
    buf_init(&text, SQL_MAX_BYTES);
    expand(a, sql, &text);
    if (buf_ok(&text)) {
        *result = PQexecParams(a->connection, (const char *)text.data, p->count, NULL, p->values,
                               p->sizes, p->formats, 1);
        ExecStatusType status = PQresultStatus(*result);
        err = status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK
                  ? FERRY_OK
                  : pq_error(a->connection, *result, a->url.shown, e);
    }
    buf_fini(&text);
    if (err != FERRY_OK) {
        PQclear(*result);
        *result = NULL;
    }
    return err;
}

enum ferry_err admin_pg_run(struct admin_pg *a, const char *sql, const struct admin_pg_params *p,
                            int64_t *changed, struct err_text *e)
{
    PGresult *result = NULL;
    enum ferry_err err = admin_pg_ask(a, sql, p, &result, e);
    if (err == FERRY_OK && changed != NULL) {
        *changed = strtoll(PQcmdTuples(result), NULL, 10);
    }
    PQclear(result);
    return err;
}

struct bytes admin_pg_bytes(const PGresult *r, int row, int column)
{
    if (PQgetisnull(r, row, column)) {
        return bytes_of(NULL, 0);
    }
    return bytes_of(PQgetvalue(r, row, column), (size_t)PQgetlength(r, row, column));
}

int64_t admin_pg_int(const PGresult *r, int row, int column)
{
    struct bytes v = admin_pg_bytes(r, row, column);
    switch (v.size) {
    case 8:
        return (int64_t)get_be64(v.data);
    case 4:
        return (int32_t)get_be32(v.data);
    case 2:
        return (int16_t)(v.data[0] << 8 | v.data[1]);
    case 1:
        return v.data[0];
    default:
        return 0;
    }
}

bool admin_pg_bool(const PGresult *r, int row, int column)
{
    return admin_pg_int(r, row, column) != 0;
}

struct ferry_id admin_pg_id(const PGresult *r, int row, int column)
{
    struct ferry_id id = {{0}};
    struct bytes v = admin_pg_bytes(r, row, column);
    if (v.size == sizeof(id.bytes)) {
        memcpy(id.bytes, v.data, sizeof(id.bytes));
    }
    return id;
}

/* ---- Init ----------------------------------------------------------------------------------- */

static enum ferry_err tables_are_there(struct admin_pg *a, bool *there, struct err_text *e)
{
    PGresult *result = NULL;
    enum ferry_err err =
        admin_pg_ask(a, "SELECT to_regclass('@.meta') IS NOT NULL", NULL, &result, e);
    *there = err == FERRY_OK && admin_pg_bool(result, 0, 0);
    PQclear(result);
    return err;
}

static enum ferry_err admin_init(const char *url, bool *created, struct err_text *e)
{
    struct admin_pg a;
    struct ferry_db *db = NULL;
    bool there = false;
    enum ferry_err err = admin_pg_open(&a, url, ADMIN_PG_PLAIN, e);
    if (err != FERRY_OK) {
        return err;
    }
    err = tables_are_there(&a, &there, e);
    if (err == FERRY_OK) {
        err = ferry_db_postgresql(&db, a.connection, a.url.schema);
    }
    if (err == FERRY_OK) {
        err = ferry_migrate(db);
        if (err != FERRY_OK) {
            err_set(e, err, "%s: %s", a.url.shown, ferry_db_detail(db));
        }
    }
    if (err == FERRY_OK && created != NULL) {
        *created = !there;
    }
    ferry_db_free(&db);
    admin_pg_close(&a);
    return err;
}

static enum ferry_err admin_print_sql(const char *url, int from, FILE *out, struct err_text *e)
{
    struct pg_url parsed;
    struct buf text;
    enum ferry_err err = pg_url_parse(url, &parsed, e);
    if (err == FERRY_OK && (from < 0 || from > SCHEMA_POSTGRESQL_VERSION)) {
        err = err_set(e, FERRY_ERR_INVALID_ARGUMENT, "the schema has versions 0 to %d",
                      SCHEMA_POSTGRESQL_VERSION);
    }
    if (err != FERRY_OK) {
        return err;
    }
    buf_init(&text, 1u << 20);
    buf_printf(&text, "BEGIN;\n");
    for (int version = from + 1; schema_postgresql_step(version) != NULL; version++) {
        buf_append_u8(&text, '\n');
        schema_postgresql_write(&text, version, parsed.schema);
    }
    buf_printf(&text, "\nCOMMIT;\n");
    bool ok = buf_ok(&text) && fwrite(text.data, 1, text.size, out) == text.size;
    buf_fini(&text);
    return ok ? FERRY_OK : err_set(e, FERRY_ERR_IO, "writing: %s", strerror(errno));
}

/* ---- Status --------------------------------------------------------------------------------- */

static enum ferry_err read_meta(struct admin_pg *a, struct outbox_status *status,
                                struct err_text *e)
{
    static const char sql[] =
        "SELECT (SELECT value::bigint FROM @.meta WHERE name = 'schema_version'), "
        "(SELECT value::uuid FROM @.meta WHERE name = 'source_uuid'), "
        "(SELECT value::bigint FROM @.meta WHERE name = 'lanes'), "
        "(SELECT value = '1' FROM @.meta WHERE name = 'paused'), "
        "(SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM @.outbox_seq), "
        "(SELECT count(*) FROM @.outbox_dead WHERE NOT parked), "
        "(SELECT count(*) FROM @.outbox_dead WHERE parked), "
        "(SELECT count(*) FROM @.parked_key WHERE until_no = 0), "
        "(SELECT (extract(epoch FROM clock_timestamp() - min(xact_start)) * 1000)::bigint FROM "
        "pg_stat_activity WHERE backend_xid IS NOT NULL AND datname = current_database())";
    PGresult *r = NULL;
    enum ferry_err err = admin_pg_ask(a, sql, NULL, &r, e);
    if (err != FERRY_OK) {
        return err;
    }
    status->schema_version = admin_pg_int(r, 0, 0);
    status->source_id = admin_pg_id(r, 0, 1);
    status->lanes = (uint32_t)admin_pg_int(r, 0, 2);
    status->paused = admin_pg_bool(r, 0, 3);
    status->last_id = admin_pg_int(r, 0, 4);
    status->dead_rows = admin_pg_int(r, 0, 5);
    status->parked_rows = admin_pg_int(r, 0, 6);
    status->parked_keys = admin_pg_int(r, 0, 7);
    status->open_tx_known = true;
    status->longest_open_tx_ms = admin_pg_int(r, 0, 8);
    PQclear(r);
    return FERRY_OK;
}

/* Rows in the table: counted, or, when they are many, as many numbers as were given since the
 * first row of the oldest leaf. */
static enum ferry_err read_stored(struct admin_pg *a, struct outbox_status *status,
                                  struct err_text *e)
{
    static const char count_sql[] =
        "SELECT count(*) FROM (SELECT 1 FROM @.outbox LIMIT " COUNT_MAX ") AS counted";
    static const char first_sql[] =
        "SELECT least((SELECT seq FROM @.outbox_0 LIMIT 1), (SELECT seq FROM @.outbox_1 LIMIT 1), "
        "(SELECT seq FROM @.outbox_2 LIMIT 1), (SELECT seq FROM @.outbox_3 LIMIT 1))";
    PGresult *r = NULL;
    enum ferry_err err = admin_pg_ask(a, count_sql, NULL, &r, e);
    if (err != FERRY_OK) {
        return err;
    }
    status->stored_known = true;
    status->stored_rows = admin_pg_int(r, 0, 0);
    PQclear(r);
    if (status->stored_rows < strtoll(COUNT_MAX, NULL, 10)) {
        return FERRY_OK;
    }
    err = admin_pg_ask(a, first_sql, NULL, &r, e);
    if (err == FERRY_OK) {
        int64_t given = status->last_id - admin_pg_int(r, 0, 0) + 1;
        status->stored_rows = given > status->stored_rows ? given : status->stored_rows;
        PQclear(r);
    }
    return err;
}

/* Whether the checkpoint can be of this database as it is now: one that was set back has used
 * fewer transactions, or is another system. */
static enum ferry_err cover_is_here(struct admin_pg *a, const struct cover *cover,
                                    const struct cover_place *place, bool *here, struct err_text *e)
{
    PGresult *r = NULL;
    enum ferry_err err = admin_pg_ask(a,
                                      "SELECT (SELECT system_identifier FROM pg_control_system()), "
                                      "pg_snapshot_xmax(pg_current_snapshot())::text::bigint",
                                      NULL, &r, e);
    if (err == FERRY_OK) {
        *here = (uint64_t)admin_pg_int(r, 0, 0) == place->system &&
                (uint64_t)admin_pg_int(r, 0, 1) >= cover->base->xmax;
        PQclear(r);
    }
    return err;
}

static void add_cover(struct admin_pg_params *p, const struct cover *cover, struct buf *texts)
{
    const struct snapshot *upper = cover->upper == NULL ? cover->base : cover->upper;
    snapshot_text(cover->base, texts);
    buf_append_u8(texts, 0);
    size_t at = texts->size;
    snapshot_text(upper, texts);
    buf_append_u8(texts, 0);
    admin_pg_add_text(p, (const char *)texts->data);
    admin_pg_add_text(p, (const char *)texts->data + at);
    admin_pg_add_int(p, cover->upper == NULL ? INT64_MIN : cover->seq_hi);
}

/* Adds one lane's figures. */
static void add_pending(int64_t rows, int64_t age_ms, struct outbox_status *status)
{
    age_ms = age_ms > 0 ? age_ms : 0;
    status->pending_rows += rows;
    if (rows > 0 && (!status->oldest_known || age_ms > status->oldest_pending_ms)) {
        status->oldest_known = true;
        status->oldest_pending_ms = age_ms;
    }
}

static enum ferry_err read_pending(struct admin_pg *a, uint32_t lane, const struct cover *cover,
                                   struct outbox_status *status, struct err_text *e)
{
    static const char sql[] =
        "SELECT count(*), min(created_ms), @.now_ms() FROM (SELECT created_ms FROM @.outbox o "
        "WHERE "
        "lane = $4 AND xid >= pg_snapshot_xmin($1::pg_snapshot)::xid8 AND NOT "
        "pg_visible_in_snapshot(xid, $1::pg_snapshot) AND NOT (seq <= $3 AND "
        "pg_visible_in_snapshot(xid, $2::pg_snapshot)) AND NOT EXISTS (SELECT 1 FROM @.outbox_dead "
        "d WHERE d.seq = o.seq) LIMIT " COUNT_MAX ") AS pending";
    struct admin_pg_params p = {0};
    struct buf texts;
    PGresult *r = NULL;
    buf_init(&texts, 2 * SNAPSHOT_XIPS_MAX * 24);
    enum ferry_err err = FERRY_ERR_NO_MEMORY;
    if (buf_reserve(&texts, texts.limit)) { /* The parameters point into it. */
        add_cover(&p, cover, &texts);
        admin_pg_add_int(&p, lane);
        err = admin_pg_ask(a, sql, &p, &r, e);
    }
    if (err == FERRY_OK) {
        add_pending(admin_pg_int(r, 0, 0), admin_pg_int(r, 0, 2) - admin_pg_int(r, 0, 1), status);
        PQclear(r);
    }
    buf_fini(&texts);
    return err;
}

/* A lane without a checkpoint has nothing pending if it has no rows; else that is not known. */
static enum ferry_err lane_is_empty(struct admin_pg *a, uint32_t lane, bool *empty,
                                    struct err_text *e)
{
    struct admin_pg_params p = {0};
    PGresult *r = NULL;
    admin_pg_add_int(&p, lane);
    enum ferry_err err =
        admin_pg_ask(a, "SELECT 1 FROM @.outbox WHERE lane = $1 LIMIT 1", &p, &r, e);
    if (err == FERRY_OK) {
        *empty = PQntuples(r) == 0;
        PQclear(r);
    }
    return err;
}

static enum ferry_err judge_lane(struct admin_pg *a, uint32_t lane, struct bytes checkpoint,
                                 struct outbox_status *status, bool *known, struct err_text *e)
{
    struct cover cover = {0};
    struct cover_place place;
    if (checkpoint.size == 0) {
        return lane_is_empty(a, lane, known, e);
    }
    enum ferry_err err = cover_decode(checkpoint, &cover, &place, e);
    if (err == FERRY_OK) {
        err = cover_is_here(a, &cover, &place, known, e);
    }
    if (err == FERRY_OK && *known) {
        err = read_pending(a, lane, &cover, status, e);
    }
    cover_fini(&cover);
    return err;
}

/* The whole is known if every lane is; the lanes may have changed since the brokers were asked. */
static enum ferry_err judge_pending(struct admin_pg *a, const struct bytes *checkpoints,
                                    size_t count, struct outbox_status *status, struct err_text *e)
{
    struct outbox_status judged = *status;
    bool known = count > 0 && count == status->lanes;
    enum ferry_err err = FERRY_OK;
    for (uint32_t lane = 0; err == FERRY_OK && known && lane < count; lane++) {
        err = judge_lane(a, lane, checkpoints[lane], &judged, &known, e);
    }
    if (err == FERRY_OK && known) {
        *status = judged;
        status->pending_known = true;
    }
    return err;
}

static enum ferry_err admin_status(const char *url, const struct bytes *checkpoints,
                                   size_t checkpoint_count, struct outbox_status *status,
                                   struct err_text *e)
{
    struct admin_pg a;
    struct outbox_status read = {0};
    enum ferry_err err = admin_pg_open(&a, url, ADMIN_PG_READING, e);
    if (err != FERRY_OK) {
        return err;
    }
    err = read_meta(&a, &read, e);
    if (err == FERRY_OK) {
        err = read_stored(&a, &read, e);
    }
    if (err == FERRY_OK) {
        err = judge_pending(&a, checkpoints, checkpoint_count, &read, e);
    }
    err = admin_pg_end(&a, err, e);
    if (err == FERRY_OK) {
        *status = read;
    }
    return err;
}

/* ---- Bench ---------------------------------------------------------------------------------- */

static enum ferry_err admin_bench_put(const char *url, const char *topic, int64_t count,
                                      size_t bytes, int64_t per_commit, int64_t keys, int64_t *us,
                                      struct err_text *e)
{
    const struct bench_put_spec spec = {
        .topic = topic, .count = count, .bytes = bytes, .per_commit = per_commit, .keys = keys};
    struct admin_pg a;
    struct ferry_db *db = NULL;
    enum ferry_err err = admin_pg_open(&a, url, ADMIN_PG_PLAIN, e);
    if (err != FERRY_OK) {
        return err;
    }
    err = check_version(&a, e);
    if (err == FERRY_OK) {
        err = ferry_db_postgresql(&db, a.connection, a.url.schema);
    }
    if (err == FERRY_OK) {
        err = bench_put(db, &spec, us, e);
    }
    ferry_db_free(&db);
    admin_pg_close(&a);
    return err;
}

const struct outbox_admin_ops admin_pg_ops = {
    .init = admin_init,
    .print_sql = admin_print_sql,
    .status = admin_status,
    .rows = admin_pg_rows,
    .requeue = admin_pg_requeue,
    .skip = admin_pg_skip,
    .parked = admin_pg_parked,
    .park = admin_pg_park,
    .unpark = admin_pg_unpark,
    .set_paused = admin_pg_set_paused,
    .set_lanes = admin_pg_set_lanes,
    .rebase = admin_pg_rebase,
    .inbox = admin_pg_inbox,
    .inbox_trace = admin_pg_inbox_trace,
    .inbox_requeue = admin_pg_inbox_requeue,
    .sagas = admin_pg_sagas,
    .saga_retry = admin_pg_saga_retry,
    .saga_abort = admin_pg_saga_abort,
    .figures = admin_pg_figures,
    .ids = admin_pg_ids,
    .bench_put = admin_bench_put,
};
