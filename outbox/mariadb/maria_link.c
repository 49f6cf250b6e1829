#include "outbox/mariadb/maria_link.h"

#include <errmsg.h>
#include <errno.h>
#include <mysqld_error.h>
#include <poll.h>
#include <string.h>

#include "base/clock.h"

#define READ_TIMEOUT_S 1 /* Between two packets of a result: the least that the library knows. */
#define US_PER_MS      1000
#define IN_TIME_MANY   200 /* So many statements in time, and less time will do. */

/* Names that older headers lack. */
#define ER_RECORD_CHANGED  1020 /* ER_CHECKREAD: innodb_snapshot_isolation. */
#define ER_STATEMENT_TIME  1969 /* max_statement_time. */
#define ER_CONNECTION_KILL 1927

enum ferry_err maria_error_of(unsigned number)
{
    switch (number) {
    case ER_RECORD_CHANGED:
    case ER_LOCK_WAIT_TIMEOUT:
    case ER_LOCK_DEADLOCK:
    case ER_STATEMENT_TIME:
    case ER_CONNECTION_KILL:
    case ER_QUERY_INTERRUPTED:
    case ER_CON_COUNT_ERROR:
    case ER_TOO_MANY_USER_CONNECTIONS:
    case ER_SERVER_SHUTDOWN:
    case ER_NORMAL_SHUTDOWN:
    case ER_OPTION_PREVENTS_STATEMENT: /* --read-only: the old primary of a failover. */
    case CR_SERVER_GONE_ERROR:
    case CR_SERVER_LOST:
    case CR_CONN_HOST_ERROR:
    case CR_CONNECTION_ERROR:
    case CR_UNKNOWN_HOST:
    case CR_IPSOCK_ERROR:
        return FERRY_ERR_DB_RETRY;
    case ER_NO_SUCH_TABLE:
    case ER_BAD_FIELD_ERROR:
    case ER_BAD_DB_ERROR:
        return FERRY_ERR_DB_SCHEMA;
    case CR_OUT_OF_MEMORY:
        return FERRY_ERR_NO_MEMORY;
    default:
        return FERRY_ERR_DB;
    }
}

void maria_link_init(struct maria_link *l, const struct maria_url *url, const char *session,
                     int64_t connect_timeout_ms, int64_t statement_timeout_ms)
{
    *l = (struct maria_link){
        .url = url,
        .session = session,
        .connect_timeout_ms = connect_timeout_ms > 0 ? connect_timeout_ms : 2000,
        .statement_timeout_ms =
            statement_timeout_ms > 0 && statement_timeout_ms < MARIA_LINK_WAIT_MAX_MS
                ? statement_timeout_ms
                : MARIA_LINK_WAIT_MAX_MS,
        .wait_ms = MARIA_LINK_WAIT_MS,
    };
    buf_init(&l->sql, MARIA_SQL_MAX);
}

void maria_link_drop(struct maria_link *l)
{
    if (l->mysql != NULL) {
        mysql_close(l->mysql);
    }
    l->mysql = NULL;
    l->state = MARIA_DOWN;
    l->sent = false;
}

void maria_link_close(struct maria_link *l)
{
    maria_link_drop(l);
    buf_fini(&l->sql);
}

static bool error_ends_connection(unsigned number)
{
    return (number >= CR_MIN_ERROR && number <= CR_MAX_ERROR) || number == ER_CONNECTION_KILL ||
           number == ER_SERVER_SHUTDOWN || number == ER_NORMAL_SHUTDOWN;
}

enum ferry_err maria_link_error(struct maria_link *l, struct err_text *e)
{
    unsigned number = mysql_errno(l->mysql);
    enum ferry_err err = maria_error_of(number);
    err = err_set(e, err, "%s: %s (%u)%s", l->url->shown, mysql_error(l->mysql), number,
                  err == FERRY_ERR_DB_SCHEMA ? ": run `ferry outbox init`" : "");
    if (error_ends_connection(number)) {
        err_set(&l->why, err, "%s: %s (%u)", l->url->shown, mysql_error(l->mysql), number);
        maria_link_drop(l);
    }
    return err;
}

static enum ferry_err send_text(struct maria_link *l, struct bytes text, struct err_text *e)
{
    must(l->state == MARIA_UP && !l->sent);
    if (mysql_send_query(l->mysql, (const char *)text.data, text.size) != 0) {
        return maria_link_error(l, e);
    }
    l->sent = true;
    l->since_us = clock_monotonic_us();
    return FERRY_OK;
}

/* ---- Connecting. */

static void set_options(struct maria_link *l)
{
    unsigned timeout_s = (unsigned)((l->connect_timeout_ms + 999) / 1000);
    unsigned read_s = READ_TIMEOUT_S;
    unsigned off = 0;
    my_bool yes = 1;
    my_bool verify = l->url->ssl == MARIA_SSL_VERIFY;
    mysql_options(l->mysql, MYSQL_OPT_NONBLOCK, NULL);
    mysql_options(l->mysql, MYSQL_OPT_CONNECT_TIMEOUT, &timeout_s);
    mysql_options(l->mysql, MYSQL_OPT_READ_TIMEOUT, &read_s);
    mysql_options(l->mysql, MYSQL_OPT_WRITE_TIMEOUT, &read_s);
    mysql_options(l->mysql, MYSQL_OPT_LOCAL_INFILE, &off);
    mysql_options(l->mysql, MYSQL_SET_CHARSET_NAME, "utf8mb4");
    mysql_optionsv(l->mysql, MYSQL_OPT_CONNECT_ATTR_ADD, "program_name", "ferry-outbox");
    if (l->url->ssl != MARIA_SSL_OFF) {
        mysql_options(l->mysql, MYSQL_OPT_SSL_ENFORCE, &yes);
        mysql_options(l->mysql, MYSQL_OPT_SSL_VERIFY_SERVER_CERT, &verify);
    }
    if (l->url->ssl_ca[0] != '\0') {
        mysql_options(l->mysql, MYSQL_OPT_SSL_CA, l->url->ssl_ca);
    }
}

static const char *text_or_null(const char *text)
{
    return text[0] == '\0' ? NULL : text;
}

static enum ferry_err connect_failed(struct maria_link *l, struct err_text *e)
{
    unsigned number = mysql_errno(l->mysql);
    enum ferry_err err = maria_error_of(number);
    err_set(&l->why, err, "%s: %s (%u)", l->url->shown, mysql_error(l->mysql), number);
    maria_link_drop(l);
    l->again_us = clock_monotonic_us() + MARIA_LINK_AGAIN_US;
    return err_set(e, err, "%s", l->why.text);
}

/* *up: the server has answered and the session is to be set up. */
static enum ferry_err connect_step(struct maria_link *l, bool begin, int happened, bool *up,
                                   struct err_text *e)
{
    const struct maria_url *u = l->url;
    MYSQL *made = NULL;
    if (begin) {
        l->waits_for =
            mysql_real_connect_start(&made, l->mysql, text_or_null(u->host), text_or_null(u->user),
                                     u->password, u->database, u->port, text_or_null(u->socket), 0);
    } else {
        l->waits_for = mysql_real_connect_cont(&made, l->mysql, happened);
    }
    *up = l->waits_for == 0 && made != NULL;
    return l->waits_for == 0 && made == NULL ? connect_failed(l, e) : FERRY_OK;
}

/* What the connection being made waits for, waited for: MYSQL_WAIT_… that happened, or 0. */
static int wait_connecting(struct maria_link *l, int wait_ms)
{
    struct pollfd p = {.fd = mysql_get_socket(l->mysql)};
    p.events = (short)(((l->waits_for & MYSQL_WAIT_READ) != 0 ? POLLIN : 0) |
                       ((l->waits_for & MYSQL_WAIT_WRITE) != 0 ? POLLOUT : 0) |
                       ((l->waits_for & MYSQL_WAIT_EXCEPT) != 0 ? POLLPRI : 0));
    if (poll(&p, 1, wait_ms) <= 0) {
        return 0;
    }
    return ((p.revents & POLLIN) != 0 ? MYSQL_WAIT_READ : 0) |
           ((p.revents & POLLOUT) != 0 ? MYSQL_WAIT_WRITE : 0) |
           ((p.revents & POLLPRI) != 0 ? MYSQL_WAIT_EXCEPT : 0) |
           ((p.revents & (POLLERR | POLLHUP)) != 0 ? (l->waits_for & ~MYSQL_WAIT_TIMEOUT) : 0);
}

static enum ferry_err link_came_up(struct maria_link *l, struct err_text *e)
{
    l->state = MARIA_UP;
    /* l->sql is not touched: it may hold what is to be sent next. */
    enum ferry_err err = send_text(l, bytes_of_string(l->session), e);
    if (err == FERRY_OK) {
        err = maria_link_take(l, NULL, e);
    }
    if (err != FERRY_OK) {
        maria_link_drop(l);
        return err;
    }
    l->times++;
    return FERRY_OK;
}

static enum ferry_err begin_connecting(struct maria_link *l, bool *up, struct err_text *e)
{
    int64_t now_us = clock_monotonic_us();
    if (now_us < l->again_us) {
        return err_set(e, FERRY_ERR_DB_RETRY, "%s", l->why.text);
    }
    l->mysql = mysql_init(NULL);
    if (l->mysql == NULL) {
        return err_set(e, FERRY_ERR_NO_MEMORY, "%s: out of memory", l->url->shown);
    }
    set_options(l);
    l->state = MARIA_CONNECTING;
    l->since_us = now_us;
    return connect_step(l, true, 0, up, e);
}

static enum ferry_err connect_some(struct maria_link *l, bool *up, struct err_text *e)
{
    int64_t end_us = clock_monotonic_us() + MARIA_LINK_WAIT_MS * US_PER_MS;
    int64_t give_up_us = l->since_us + l->connect_timeout_ms * US_PER_MS;
    enum ferry_err err = FERRY_OK;
    while (err == FERRY_OK && !*up) {
        int64_t now_us = clock_monotonic_us();
        int64_t stop_us = end_us < give_up_us ? end_us : give_up_us;
        if (now_us >= stop_us && now_us < give_up_us) {
            return err_set(e, FERRY_ERR_DB_RETRY, "%s: connecting", l->url->shown);
        }
        int happened =
            now_us >= stop_us ? 0 : wait_connecting(l, (int)((stop_us - now_us + 999) / US_PER_MS));
        if (happened == 0 && clock_monotonic_us() >= give_up_us) {
            happened = MYSQL_WAIT_TIMEOUT;
        }
        if (happened != 0) {
            err = connect_step(l, false, happened, up, e);
        }
    }
    return err;
}

enum ferry_err maria_link_ready(struct maria_link *l, struct err_text *e)
{
    if (l->state == MARIA_UP) {
        return FERRY_OK;
    }
    bool up = false;
    enum ferry_err err = l->state == MARIA_DOWN ? begin_connecting(l, &up, e) : FERRY_OK;
    if (err == FERRY_OK && !up) {
        err = connect_some(l, &up, e);
    }
    return err == FERRY_OK ? link_came_up(l, e) : err;
}

/* ---- Statements. */

struct buf *maria_link_write(struct maria_link *l)
{
    buf_clear(&l->sql);
    return &l->sql;
}

void maria_sql_bytes(struct maria_link *l, struct bytes bytes)
{
    static const char digits[] = "0123456789abcdef";
    buf_append(&l->sql, "x'", 2);
    uint8_t *out = buf_extend(&l->sql, bytes.size * 2);
    for (size_t i = 0; out != NULL && i < bytes.size; i++) {
        out[2 * i] = (uint8_t)digits[bytes.data[i] >> 4];
        out[2 * i + 1] = (uint8_t)digits[bytes.data[i] & 15];
    }
    buf_append(&l->sql, "'", 1);
}

void maria_sql_text(struct maria_link *l, struct bytes text)
{
    buf_append(&l->sql, "CONVERT(", 8);
    maria_sql_bytes(l, text);
    buf_append(&l->sql, " USING utf8mb4)", 15);
}

enum ferry_err maria_link_send(struct maria_link *l, struct err_text *e)
{
    if (!buf_ok(&l->sql)) {
        return err_set(e, FERRY_ERR_NO_MEMORY, "%s: out of memory for a statement", l->url->shown);
    }
    return send_text(l, buf_bytes(&l->sql), e);
}

static bool wait_result(struct maria_link *l, int64_t wait_ms)
{
    struct pollfd p = {.fd = mysql_get_socket(l->mysql), .events = POLLIN};
    int n = poll(&p, 1, (int)wait_ms);
    return n > 0 || (n < 0 && errno != EINTR);
}

bool maria_link_has_result(struct maria_link *l)
{
    return l->state == MARIA_UP && l->sent && wait_result(l, 0);
}

static enum ferry_err too_slow(struct maria_link *l, struct err_text *e)
{
    enum ferry_err err =
        err_set(&l->why, FERRY_ERR_DB_RETRY, "%s: no answer within %lld ms: connecting anew",
                l->url->shown, (long long)l->wait_ms);
    err_set(e, err, "%s", l->why.text);
    l->wait_ms =
        l->wait_ms * 2 < l->statement_timeout_ms ? l->wait_ms * 2 : l->statement_timeout_ms;
    l->in_time = 0;
    maria_link_drop(l);
    return err;
}

enum ferry_err maria_link_take(struct maria_link *l, MYSQL_RES **result, struct err_text *e)
{
    must(l->state == MARIA_UP && l->sent);
    if (!wait_result(l, 0)) {
        int64_t passed_ms = (clock_monotonic_us() - l->since_us) / US_PER_MS;
        if (passed_ms >= l->wait_ms || !wait_result(l, l->wait_ms - passed_ms)) {
            return too_slow(l, e);
        }
    }
    l->sent = false;
    if (mysql_read_query_result(l->mysql) != 0) {
        return maria_link_error(l, e);
    }
    if (++l->in_time >= IN_TIME_MANY) {
        l->in_time = 0;
        l->wait_ms = l->wait_ms / 2 > MARIA_LINK_WAIT_MS ? l->wait_ms / 2 : MARIA_LINK_WAIT_MS;
    }
    if (mysql_field_count(l->mysql) == 0) {
        if (result != NULL) {
            *result = NULL;
        }
        return FERRY_OK;
    }
    MYSQL_RES *rows = mysql_use_result(l->mysql);
    if (rows == NULL) {
        return maria_link_error(l, e);
    }
    if (result == NULL) {
        return maria_link_done(l, rows, e);
    }
    *result = rows;
    return FERRY_OK;
}

enum ferry_err maria_link_done(struct maria_link *l, MYSQL_RES *result, struct err_text *e)
{
    mysql_free_result(result); /* Reads what is left. */
    return mysql_errno(l->mysql) != 0 ? maria_link_error(l, e) : FERRY_OK;
}

enum ferry_err maria_link_run(struct maria_link *l, struct err_text *e)
{
    bool found = false;
    return maria_link_row(l, NULL, 0, &found, e);
}

static void copy_field(struct maria_field *field, const char *data, size_t size)
{
    field->null = data == NULL;
    field->size = size < MARIA_FIELD_MAX ? size : MARIA_FIELD_MAX;
    if (data != NULL) {
        memcpy(field->text, data, field->size);
    } else {
        field->size = 0;
    }
    field->text[field->size] = '\0';
}

enum ferry_err maria_link_row(struct maria_link *l, struct maria_field *fields, size_t count,
                              bool *found, struct err_text *e)
{
    MYSQL_RES *result = NULL;
    enum ferry_err err = maria_link_ready(l, e);
    if (err == FERRY_OK) {
        err = maria_link_send(l, e);
    }
    if (err == FERRY_OK) {
        err = maria_link_take(l, &result, e);
    }
    *found = false;
    if (err != FERRY_OK || result == NULL) {
        return err;
    }
    MYSQL_ROW row = mysql_fetch_row(result);
    if (row != NULL) {
        const unsigned long *sizes = mysql_fetch_lengths(result);
        *found = true;
        for (size_t i = 0; i < count && i < mysql_num_fields(result); i++) {
            copy_field(&fields[i], row[i], sizes[i]);
        }
    }
    return maria_link_done(l, result, e);
}
