/* Connecting and statements, and init, status and inbox status. */
#include "outbox/mariadb/admin_mariadb.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/id.h"
#include "ferry_outbox.h"
#include "outbox/mariadb/maria_error.h"
#include "outbox/mariadb/migrate_mariadb.h"
#include "outbox/mariadb/schema_mariadb.h"

#define CONNECT_S 5
#define ANSWER_S  60
#define SQL_MAX   (64u << 20) /* A row is put anew by statements that copy it; ids are listed. */
#define LOCK_S    2           /* A lock of tables is waited for: others wait behind it meanwhile. */

/* ---- Connecting. */

static enum ferry_err connect_error(struct admin_maria *a, struct err_text *e)
{
    return err_set(e, FERRY_ERR_IO, "%s: %s (error %u)", a->url.shown, mysql_error(a->connection),
                   mysql_errno(a->connection));
}

static const char *text_or_null(const char *text)
{
    return text[0] == '\0' ? NULL : text;
}

static enum ferry_err admin_connect(struct admin_maria *a, const char *url, struct err_text *e)
{
    unsigned connect_s = CONNECT_S;
    unsigned answer_s = ANSWER_S;
    unsigned off = 0;
    my_bool yes = 1;
    memset(a, 0, sizeof(*a));
    buf_init(&a->sql, SQL_MAX);
    enum ferry_err err = maria_url_parse(url, &a->url, e);
    if (err != FERRY_OK) {
        return err;
    }
    my_bool verify = a->url.ssl == MARIA_SSL_VERIFY;
    a->connection = mysql_init(NULL);
    if (a->connection == NULL) {
        return err_set(e, FERRY_ERR_NO_MEMORY, "%s: out of memory", a->url.shown);
    }
    mysql_options(a->connection, MYSQL_OPT_CONNECT_TIMEOUT, &connect_s);
    mysql_options(a->connection, MYSQL_OPT_READ_TIMEOUT, &answer_s);
    mysql_options(a->connection, MYSQL_OPT_WRITE_TIMEOUT, &answer_s);
    mysql_options(a->connection, MYSQL_OPT_LOCAL_INFILE, &off);
    mysql_options(a->connection, MYSQL_SET_CHARSET_NAME, "utf8mb4");
    mysql_optionsv(a->connection, MYSQL_OPT_CONNECT_ATTR_ADD, "program_name", "ferry");
    if (a->url.ssl != MARIA_SSL_OFF) {
        mysql_options(a->connection, MYSQL_OPT_SSL_ENFORCE, &yes);
        mysql_options(a->connection, MYSQL_OPT_SSL_VERIFY_SERVER_CERT, &verify);
    }
    if (a->url.ssl_ca[0] != '\0') {
        mysql_options(a->connection, MYSQL_OPT_SSL_CA, a->url.ssl_ca);
    }
    if (mysql_real_connect(a->connection, text_or_null(a->url.host), text_or_null(a->url.user),
                           a->url.password, a->url.database, a->url.port,
                           text_or_null(a->url.socket), 0) == NULL) {
        return connect_error(a, e);
    }
    return FERRY_OK;
}

static void admin_close(struct admin_maria *a)
{
    if (a->connection != NULL) {
        mysql_close(a->connection);
    }
    buf_fini(&a->sql);
    a->connection = NULL;
}

static enum ferry_err check_tables(struct admin_maria *a, struct err_text *e)
{
    int64_t version = 0;
    struct err_text words = {{0}};
    enum ferry_err err = migrate_mariadb_version(a->connection, &version, &words);
    if (err == FERRY_OK) {
        err = migrate_mariadb_check(version, &words);
    }
    return err == FERRY_OK ? err : err_set(e, err, "%s: %s", a->url.shown, words.text);
}

static enum ferry_err admin_open(struct admin_maria *a, const char *url, bool checked, bool writing,
                                 struct err_text *e)
{
    enum ferry_err err = admin_connect(a, url, e);
    a->writing = writing;
    if (err == FERRY_OK && checked) {
        err = check_tables(a, e);
    }
    if (err == FERRY_OK) {
        buf_printf(admin_maria_sql(a),
                   "SET SESSION sql_mode = '', autocommit = 1, tx_isolation = '%s', "
                   "innodb_lock_wait_timeout = 10, lock_wait_timeout = %d, "
                   "in_predicate_conversion_threshold = 0",
                   writing ? "READ-COMMITTED" : "REPEATABLE-READ", LOCK_S);
        err = admin_maria_run(a, NULL, e);
    }
    if (err == FERRY_OK) {
        buf_printf(admin_maria_sql(a),
                   writing ? "START TRANSACTION"
                           : "START TRANSACTION READ ONLY, WITH CONSISTENT SNAPSHOT");
        err = admin_maria_run(a, NULL, e);
    }
    if (err != FERRY_OK) {
        admin_close(a);
    }
    return err;
}

enum ferry_err admin_maria_read(struct admin_maria *a, const char *url, bool checked,
                                struct err_text *e)
{
    return admin_open(a, url, checked, false, e);
}

enum ferry_err admin_maria_write(struct admin_maria *a, const char *url, struct err_text *e)
{
    return admin_open(a, url, true, true, e);
}

enum ferry_err admin_maria_end(struct admin_maria *a, enum ferry_err err, struct err_text *e)
{
    if (err == FERRY_OK && a->writing) {
        buf_printf(admin_maria_sql(a), "COMMIT");
        err = admin_maria_run(a, NULL, e);
    }
    admin_close(a); /* What was not committed is rolled back. */
    return err;
}

/* ---- Statements. */

struct buf *admin_maria_sql(struct admin_maria *a)
{
    buf_clear(&a->sql);
    return &a->sql;
}

void admin_maria_bytes(struct admin_maria *a, struct bytes bytes)
{
    buf_printf(&a->sql, "x'");
    for (size_t i = 0; i < bytes.size; i++) {
        buf_printf(&a->sql, "%02x", bytes.data[i]);
    }
    buf_printf(&a->sql, "'");
}

void admin_maria_text(struct admin_maria *a, const char *text)
{
    buf_printf(&a->sql, "CONVERT(");
    admin_maria_bytes(a, bytes_of_string(text));
    buf_printf(&a->sql, " USING utf8mb4)");
}

void admin_maria_id(struct admin_maria *a, const struct ferry_id *id)
{
    admin_maria_bytes(a, bytes_of(id->bytes, sizeof(id->bytes)));
}

static enum ferry_err failed(struct admin_maria *a, struct err_text *e)
{
    return maria_error(mysql_errno(a->connection), mysql_error(a->connection), a->url.shown, e);
}

static enum ferry_err send(struct admin_maria *a, struct err_text *e)
{
    if (!buf_ok(&a->sql)) {
        return err_set(e, FERRY_ERR_NO_MEMORY, "%s: out of memory for a statement", a->url.shown);
    }
    int code =
        mysql_real_query(a->connection, (const char *)a->sql.data, (unsigned long)a->sql.size);
    return code == 0 ? FERRY_OK : failed(a, e);
}

enum ferry_err admin_maria_run(struct admin_maria *a, int64_t *changed, struct err_text *e)
{
    enum ferry_err err = send(a, e);
    if (err == FERRY_OK && changed != NULL) {
        *changed = (int64_t)mysql_affected_rows(a->connection);
    }
    return err;
}

enum ferry_err admin_maria_query(struct admin_maria *a, MYSQL_RES **result, struct err_text *e)
{
    enum ferry_err err = send(a, e);
    *result = err == FERRY_OK ? mysql_use_result(a->connection) : NULL;
    return err == FERRY_OK && *result == NULL ? failed(a, e) : err;
}

enum ferry_err admin_maria_next(struct admin_maria *a, MYSQL_RES *result, MYSQL_ROW *row,
                                struct err_text *e)
{
    *row = mysql_fetch_row(result);
    return *row == NULL && mysql_errno(a->connection) != 0 ? failed(a, e) : FERRY_OK;
}

enum ferry_err admin_maria_number(struct admin_maria *a, bool *found, int64_t *number,
                                  struct err_text *e)
{
    MYSQL_RES *result = NULL;
    MYSQL_ROW row = NULL;
    enum ferry_err err = admin_maria_query(a, &result, e);
    if (err == FERRY_OK) {
        err = admin_maria_next(a, result, &row, e);
    }
    *found = row != NULL && row[0] != NULL;
    *number = *found ? admin_maria_int(row, 0) : 0;
    mysql_free_result(result);
    return err;
}

struct bytes admin_maria_column(MYSQL_RES *result, MYSQL_ROW row, unsigned column)
{
    return bytes_of(row[column], row[column] == NULL ? 0 : mysql_fetch_lengths(result)[column]);
}

int64_t admin_maria_int(MYSQL_ROW row, unsigned column)
{
    return row[column] == NULL ? 0 : strtoll(row[column], NULL, 10);
}

void admin_maria_column_id(MYSQL_RES *result, MYSQL_ROW row, unsigned column, struct ferry_id *id)
{
    struct bytes bytes = admin_maria_column(result, row, column);
    *id = (struct ferry_id){{0}};
    if (bytes.size == sizeof(id->bytes)) {
        memcpy(id->bytes, bytes.data, sizeof(id->bytes));
    }
}

/* ---- Filters. */

size_t admin_maria_limit(const struct outbox_filter *filter)
{
    return filter->limit > 0 && filter->limit < OUTBOX_LIST_MAX ? filter->limit : OUTBOX_LIST_MAX;
}

enum ferry_err admin_maria_where(struct admin_maria *a, enum outbox_table table,
                                 const struct outbox_filter *filter, struct err_text *e)
{
    bool inbox = table == INBOX_TABLE_DEAD;
    const char *number = inbox ? "number" : "id";
    buf_printf(&a->sql, " WHERE %s > %lld", number, (long long)filter->after);
    if (filter->one) {
        buf_printf(&a->sql, " AND %s = %lld", number, (long long)filter->number);
    }
    if (filter->topic != NULL && inbox) {
        struct ferry_id topic;
        if (!id_parse(filter->topic, &topic)) {
            return err_set(e, FERRY_ERR_INVALID_ARGUMENT,
                           "\"%.100s\": an inbox knows topics by their id", filter->topic);
        }
        buf_printf(&a->sql, " AND topic_id = ");
        admin_maria_id(a, &topic);
    } else if (filter->topic != NULL) {
        buf_printf(&a->sql, " AND topic = ");
        admin_maria_text(a, filter->topic);
    }
    if (filter->key.data != NULL) {
        buf_printf(&a->sql, " AND mkey = ");
        admin_maria_bytes(a, filter->key);
    }
    if (filter->id != NULL) {
        buf_printf(&a->sql, " AND msg_id = ");
        admin_maria_id(a, filter->id);
    }
    if (filter->group != NULL && inbox) {
        buf_printf(&a->sql, " AND grp = ");
        admin_maria_text(a, filter->group);
    } else if (filter->group != NULL) {
        buf_printf(&a->sql, " AND FALSE");
    }
    return FERRY_OK;
}

/* ---- Outbox status. */

static enum ferry_err read_meta(struct admin_maria *a, struct outbox_status *status,
                                struct err_text *e)
{
    MYSQL_RES *result = NULL;
    MYSQL_ROW row = NULL;
    buf_printf(admin_maria_sql(a), "SELECT name, value FROM ferry_meta");
    enum ferry_err err = admin_maria_query(a, &result, e);
    while (err == FERRY_OK && (err = admin_maria_next(a, result, &row, e)) == FERRY_OK &&
           row != NULL) {
        if (strcmp(row[0], "schema_version") == 0) {
            status->schema_version = admin_maria_int(row, 1);
        } else if (strcmp(row[0], "lanes") == 0) {
            status->lanes = (uint32_t)admin_maria_int(row, 1);
        } else if (strcmp(row[0], "paused") == 0) {
            status->paused = admin_maria_int(row, 1) != 0;
        } else if (strcmp(row[0], "source_uuid") == 0 && !id_parse(row[1], &status->source_id)) {
            err = err_set(e, FERRY_ERR_DB_SCHEMA, "%s: source_uuid of ferry_meta is no UUID",
                          a->url.shown);
        }
    }
    mysql_free_result(result);
    return err;
}

static enum ferry_err read_counts(struct admin_maria *a, struct outbox_status *status,
                                  struct err_text *e)
{
    const struct {
        const char *sql;
        int64_t *number;
    } questions[] = {
        {"SELECT COUNT(*) FROM ferry_outbox", &status->stored_rows},
        {"SELECT COUNT(*) FROM ferry_outbox_dead WHERE NOT parked", &status->dead_rows},
        {"SELECT COUNT(*) FROM ferry_outbox_dead WHERE parked", &status->parked_rows},
        {"SELECT COUNT(DISTINCT topic, mkey) FROM ferry_parked_key WHERE until_no = 0",
         &status->parked_keys},
        {"SELECT AUTO_INCREMENT - 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA = "
         "DATABASE() AND TABLE_NAME = 'ferry_outbox'",
         &status->last_id},
    };
    enum ferry_err err = FERRY_OK;
    for (size_t i = 0; err == FERRY_OK && i < sizeof(questions) / sizeof(questions[0]); i++) {
        bool found = false;
        buf_printf(admin_maria_sql(a), "%s", questions[i].sql);
        err = admin_maria_number(a, &found, questions[i].number, e);
    }
    return err;
}

/* Published rows are deleted at once, so what is stored is pending; rows that are published, and
 * deleted in the next moment, count as pending, never the other way. */
static enum ferry_err read_pending(struct admin_maria *a, struct outbox_status *status,
                                   struct err_text *e)
{
    status->stored_known = true;
    status->pending_known = true;
    status->pending_rows = status->stored_rows;
    buf_printf(admin_maria_sql(a),
               "SELECT GREATEST(0, CAST(UNIX_TIMESTAMP(SYSDATE(3)) * 1000 AS SIGNED) - created_ms) "
               "FROM ferry_outbox ORDER BY id LIMIT 1");
    return admin_maria_number(a, &status->oldest_known, &status->oldest_pending_ms, e);
}

/* Told only to those who may see it (PROCESS); others do not know. */
static void read_open(struct admin_maria *a, struct outbox_status *status)
{
    struct err_text ignored;
    int64_t ms = 0;
    bool found = false;
    buf_printf(admin_maria_sql(a),
               "SELECT COALESCE(MAX(TIMESTAMPDIFF(MICROSECOND, trx_started, SYSDATE())), 0) DIV "
               "1000 FROM information_schema.INNODB_TRX WHERE trx_is_read_only = 0");
    if (admin_maria_number(a, &found, &ms, &ignored) == FERRY_OK && found) {
        status->open_tx_known = true;
        status->longest_open_tx_ms = ms > 0 ? ms : 0;
    }
}

static enum ferry_err admin_status(const char *url, const struct bytes *checkpoints,
                                   size_t checkpoint_count, struct outbox_status *status,
                                   struct err_text *e)
{
    (void)checkpoints; /* They do not say which rows are published: those are deleted. */
    (void)checkpoint_count;
    struct outbox_status read = {.lanes = 1};
    struct admin_maria a;
    enum ferry_err err = admin_maria_read(&a, url, true, e);
    if (err != FERRY_OK) {
        return err;
    }
    err = read_meta(&a, &read, e);
    if (err == FERRY_OK) {
        err = read_counts(&a, &read, e);
    }
    if (err == FERRY_OK) {
        err = read_pending(&a, &read, e);
    }
    if (err == FERRY_OK) {
        read_open(&a, &read);
        *status = read;
    }
    return admin_maria_end(&a, err, e);
}

/* ---- Inbox status. */

static enum ferry_err each_chain(struct admin_maria *a, inbox_status_cb *callback, void *arg,
                                 bool *more, struct err_text *e)
{
    MYSQL_RES *result = NULL;
    MYSQL_ROW row = NULL;
    buf_printf(
        admin_maria_sql(a),
        "SELECT grp, topic_id, part, MAX(end_off), COUNT(*), "
        "SUM(before_off IS NOT NULL AND before_off <> start_off), "
        "(SELECT COUNT(*) FROM ferry_inbox_skip s WHERE s.grp = c.grp AND s.topic_id = c.topic_id "
        "AND s.part = c.part), "
        "(SELECT COUNT(*) FROM ferry_inbox_dead d WHERE d.grp = c.grp AND d.topic_id = c.topic_id "
        "AND d.part = c.part) "
        "FROM (SELECT grp, topic_id, part, start_off, end_off, LAG(end_off) OVER (PARTITION BY "
        "grp, topic_id, part ORDER BY start_off) AS before_off FROM ferry_inbox_chain) c "
        "GROUP BY grp, topic_id, part ORDER BY grp, topic_id, part");
    enum ferry_err err = admin_maria_query(a, &result, e);
    while (*more && err == FERRY_OK && (err = admin_maria_next(a, result, &row, e)) == FERRY_OK &&
           row != NULL) {
        struct inbox_status status = {
            .group = row[0],
            .partition = (int32_t)admin_maria_int(row, 2),
            .position = admin_maria_int(row, 3),
            .rows = admin_maria_int(row, 4),
            .holes = admin_maria_int(row, 5),
            .skips = admin_maria_int(row, 6),
            .dead = admin_maria_int(row, 7),
        };
        admin_maria_column_id(result, row, 1, &status.topic_id);
        *more = callback(&status, arg);
    }
    mysql_free_result(result);
    return err;
}

static enum ferry_err each_id_group(struct admin_maria *a, inbox_status_cb *callback, void *arg,
                                    struct err_text *e)
{
    MYSQL_RES *result = NULL;
    MYSQL_ROW row = NULL;
    bool more = true;
    buf_printf(admin_maria_sql(a),
               "SELECT grp, COUNT(*) FROM ferry_inbox_id GROUP BY grp ORDER BY grp");
    enum ferry_err err = admin_maria_query(a, &result, e);
    while (more && err == FERRY_OK && (err = admin_maria_next(a, result, &row, e)) == FERRY_OK &&
           row != NULL) {
        struct inbox_status status = {
            .group = row[0], .by_id = true, .rows = admin_maria_int(row, 1)};
        more = callback(&status, arg);
    }
    mysql_free_result(result);
    return err;
}

static enum ferry_err admin_inbox(const char *url, inbox_status_cb *callback, void *arg,
                                  struct err_text *e)
{
    struct admin_maria a;
    bool more = true;
    enum ferry_err err = admin_maria_read(&a, url, true, e);
    if (err != FERRY_OK) {
        return err;
    }
    err = each_chain(&a, callback, arg, &more, e);
    if (err == FERRY_OK && more) {
        err = each_id_group(&a, callback, arg, e);
    }
    return admin_maria_end(&a, err, e);
}

/* ---- Init. */

static enum ferry_err migrate(struct admin_maria *a, bool *created, struct err_text *e)
{
    struct ferry_db *db = NULL;
    int64_t before = 0;
    enum ferry_err err = migrate_mariadb_version(a->connection, &before, e);
    if (err == FERRY_OK) {
        err = ferry_db_mariadb(&db, a->connection);
    }
    if (err == FERRY_OK) {
        err = ferry_migrate(db);
        if (err != FERRY_OK) {
            err_set(e, err, "%s: %s", a->url.shown, ferry_db_detail(db));
        }
    }
    if (err == FERRY_OK && created != NULL) {
        *created = before == 0;
    }
    ferry_db_free(&db);
    return err;
}

static enum ferry_err admin_init(const char *url, bool *created, struct err_text *e)
{
    struct admin_maria a;
    enum ferry_err err = admin_connect(&a, url, e);
    if (err == FERRY_OK) {
        err = migrate(&a, created, e);
    }
    admin_close(&a);
    return err;
}

static enum ferry_err admin_print_sql(const char *url, int from, FILE *out, struct err_text *e)
{
    const char *text;
    (void)url;
    if (from < 0 || from > SCHEMA_MARIADB_VERSION) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT, "the schema has versions 0 to %d",
                       SCHEMA_MARIADB_VERSION);
    }
    for (int version = from + 1; (text = schema_mariadb_step(version)) != NULL; version++) {
        fprintf(out, "%s%s", version > from + 1 ? "\n" : "", text);
    }
    return ferror(out) ? err_set(e, FERRY_ERR_IO, "writing: %s", strerror(errno)) : FERRY_OK;
}

const struct outbox_admin_ops admin_mariadb_ops = {
    .init = admin_init,
    .print_sql = admin_print_sql,
    .status = admin_status,
    .rows = admin_maria_rows,
    .requeue = admin_maria_requeue,
    .skip = admin_maria_skip,
    .parked = admin_maria_parked,
    .park = admin_maria_park,
    .unpark = admin_maria_unpark,
    .set_paused = admin_maria_set_paused,
    .set_lanes = admin_maria_set_lanes,
    .rebase = admin_maria_rebase,
    .inbox = admin_inbox,
    .inbox_trace = admin_maria_inbox_trace,
    .inbox_requeue = admin_maria_inbox_requeue,
    .sagas = admin_maria_sagas,
    .saga_retry = admin_maria_saga_retry,
    .saga_abort = admin_maria_saga_abort,
    .figures = admin_maria_figures,
    .ids = admin_maria_ids,
    .bench_put = admin_maria_bench_put,
};
