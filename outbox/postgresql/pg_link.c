#include "outbox/postgresql/pg_link.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"

#define STATEMENT_BYTES_MAX 8192u
#define HOSTS_BYTES_MAX     4096u /* A URL is shorter. */
#define RETRY_MIN_US        20000
#define RETRY_MAX_US        1000000
#define PUMP_MAX            1024    /* Reads of the socket in one go. */
#define ANSWER_GRACE_US     2000000 /* Beyond the server's own statement_timeout. */

void pg_link_init(struct pg_link *l, const struct pg_target *target, const char *const *statements,
                  const char *role)
{
    *l = (struct pg_link){.target = target, .statements = statements, .role = role};
}

void pg_link_fini(struct pg_link *l)
{
    PQfinish(l->conn);
    *l = (struct pg_link){0};
}

void pg_link_drop(struct pg_link *l)
{
    PQfinish(l->conn);
    l->conn = NULL;
    l->state = PG_LINK_DOWN;
    l->busy = false;
    l->copying = false;
    memset(l->prepared, 0, sizeof(l->prepared));
}

enum ferry_err pg_link_leave(struct pg_link *l, int64_t pause_us, const struct err_text *why)
{
    pg_link_drop(l);
    l->why = *why;
    l->not_before_us = clock_monotonic_us() + pause_us;
    return FERRY_ERR_DB_RETRY;
}

/* The first line of the server's or the library's words. */
static int first_line(const char *words)
{
    return (int)strcspn(words, "\n");
}

static enum ferry_err lost(struct pg_link *l, struct err_text *e)
{
    const char *words = PQerrorMessage(l->conn);
    err_set(&l->why, FERRY_OK, "%s: %.*s", l->target->shown, first_line(words),
            words[0] == '\0' ? "the connection was lost" : words);
    int64_t pause_us = RETRY_MIN_US << (l->failures < 6 ? l->failures : 6);
    l->failures++;
    l->not_before_us = clock_monotonic_us() + (pause_us < RETRY_MAX_US ? pause_us : RETRY_MAX_US);
    pg_link_drop(l);
    return err_set(e, FERRY_ERR_DB_RETRY, "%s", l->why.text);
}

/* ---- Coming up. */

/* "a,b,c" with one turn: "b,c,a". */
static const char *turned(const char *list, uint32_t turns, char *out, size_t bytes)
{
    uint32_t count = 1;
    for (const char *at = list; at != NULL && *at != '\0'; at++) {
        count += *at == ',';
    }
    if (list == NULL || turns % count == 0) {
        return list;
    }
    const char *first = list;
    for (uint32_t i = 0; i < turns % count; i++) {
        first += strcspn(first, ",") + 1;
    }
    snprintf(out, bytes, "%s,%.*s", first, (int)(first - list) - 1, list);
    return out;
}

static PGconn *start_in_turn(const struct pg_link *l)
{
    static const char *const keywords[] = {"dbname", "host", "hostaddr", "port", NULL};
    const char *values[] = {l->target->conninfo, NULL, NULL, NULL, NULL};
    char lists[3][HOSTS_BYTES_MAX];
    PQconninfoOption *options = PQconninfoParse(l->target->conninfo, NULL);
    for (const PQconninfoOption *o = options; o != NULL && o->keyword != NULL; o++) {
        for (int i = 1; i <= 3; i++) {
            if (strcmp(o->keyword, keywords[i]) == 0) {
                values[i] = turned(o->val, l->turns, lists[i - 1], sizeof(lists[i - 1]));
            }
        }
    }
    PGconn *conn = PQconnectStartParams(keywords, values, 1);
    PQconninfoFree(options);
    return conn;
}

static enum ferry_err start(struct pg_link *l, struct err_text *e)
{
    l->conn = l->turns == 0 ? PQconnectStart(l->target->conninfo) : start_in_turn(l);
    if (l->conn == NULL) {
        return err_set(e, FERRY_ERR_NO_MEMORY, "%s: out of memory", l->target->shown);
    }
    l->asked_us = clock_monotonic_us();
    if (PQstatus(l->conn) == CONNECTION_BAD) {
        return lost(l, e);
    }
    l->state = PG_LINK_CONNECTING;
    return FERRY_OK;
}

static bool wait_for(PGconn *conn, short events, int64_t until_us)
{
    int64_t left_us = until_us - clock_monotonic_us();
    struct pollfd fd = {.fd = PQsocket(conn), .events = events};
    int ms = left_us <= 0 ? 0 : (int)((left_us + 999) / 1000);
    return poll(&fd, 1, ms) > 0;
}

static void setup_text(const struct pg_link *l, struct buf *out)
{
    buf_printf(
        out,
        "SET search_path = pg_catalog; SET enable_seqscan = off; SET enable_bitmapscan = off;"
        "SET plan_cache_mode = force_generic_plan; SET jit = off; SET work_mem = '16MB';"
        "SET default_transaction_read_only = off;"
        "SET default_transaction_isolation = 'read committed'; SET synchronous_commit = on;"
        "SET idle_in_transaction_session_timeout = '10s'; SET lock_timeout = '50ms';"
        "SET statement_timeout = %lld; SET application_name = 'ferry-outbox %s'",
        (long long)l->target->statement_timeout_ms, l->role);
    buf_append_u8(out, 0);
}

static enum ferry_err set_up(struct pg_link *l, struct err_text *e)
{
    struct buf text;
    buf_init(&text, STATEMENT_BYTES_MAX);
    setup_text(l, &text);
    enum ferry_err err =
        buf_ok(&text) && PQsendQuery(l->conn, (const char *)text.data) == 1 ? FERRY_OK : lost(l, e);
    buf_fini(&text);
    if (err == FERRY_OK) {
        l->state = PG_LINK_SETTING_UP;
        l->busy = true;
    }
    return err;
}

static enum ferry_err connecting(struct pg_link *l, int64_t until_us, struct err_text *e)
{
    int64_t limit_us = l->asked_us + l->target->connect_timeout_ms * 1000;
    until_us = until_us < limit_us ? until_us : limit_us;
    PostgresPollingStatusType status = PGRES_POLLING_WRITING;
    while (status != PGRES_POLLING_OK && status != PGRES_POLLING_FAILED) {
        short events = status == PGRES_POLLING_READING ? POLLIN : POLLOUT;
        if (!wait_for(l->conn, events, until_us)) {
            /* Asked too early is harmless: the library looks at the socket itself. */
            if (clock_monotonic_us() >= limit_us) {
                err_set(&l->why, FERRY_OK, "%s: no answer in %lld ms", l->target->shown,
                        (long long)l->target->connect_timeout_ms);
                l->turns++;
                pg_link_drop(l);
                return err_set(e, FERRY_ERR_DB_RETRY, "%s", l->why.text);
            }
            return err_set(e, FERRY_ERR_DB_RETRY, "%s: connecting", l->target->shown);
        }
        status = PQconnectPoll(l->conn);
    }
    return status == PGRES_POLLING_OK ? set_up(l, e) : lost(l, e);
}

static enum ferry_err setting_up(struct pg_link *l, int64_t until_us, struct err_text *e)
{
    PGresult *result = NULL;
    enum ferry_err err = pg_link_take(l, until_us, &result, e);
    PQclear(result);
    if (err == FERRY_ERR_TIMEOUT) {
        return err_set(e, FERRY_ERR_DB_RETRY, "%s: connecting", l->target->shown);
    }
    if (err == FERRY_OK) {
        l->state = PG_LINK_UP;
        l->failures = 0;
        l->connects++;
        l->why.text[0] = '\0';
    } else if (l->state != PG_LINK_DOWN) {
        pg_link_drop(l);
    }
    return err;
}

enum ferry_err pg_link_up(struct pg_link *l, int64_t until_us, struct err_text *e)
{
    enum ferry_err err = FERRY_OK;
    if (l->state == PG_LINK_UP) {
        return FERRY_OK;
    }
    if (l->state == PG_LINK_DOWN) {
        if (clock_monotonic_us() < l->not_before_us) {
            return err_set(e, FERRY_ERR_DB_RETRY, "%s", l->why.text);
        }
        err = start(l, e);
    }
    if (err == FERRY_OK && l->state == PG_LINK_CONNECTING) {
        err = connecting(l, until_us, e);
    }
    if (err == FERRY_OK && l->state == PG_LINK_SETTING_UP) {
        err = setting_up(l, until_us, e);
    }
    return err;
}

/* ---- Asking. */

static bool state_is(const char *state, const char *prefix)
{
    return strncmp(state, prefix, strlen(prefix)) == 0;
}

/* What the server's refusal means to a relay. */
static enum ferry_err refused(const struct pg_link *l, const PGresult *r, struct err_text *e)
{
    const char *state = PQresultErrorField(r, PG_DIAG_SQLSTATE);
    const char *words = PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY);
    state = state == NULL ? "" : state;
    words = words == NULL ? "no words" : words;
    enum ferry_err err = FERRY_ERR_DB;
    const char *remedy = "";
    if (state_is(state, "40") || state_is(state, "55P03") || state_is(state, "57") ||
        state_is(state, "53") || state_is(state, "08")) {
        err = FERRY_ERR_DB_RETRY;
    } else if (state_is(state, "42P01") || state_is(state, "42703") || state_is(state, "3F000")) {
        err = FERRY_ERR_DB_SCHEMA;
        remedy = ": run `ferry outbox init`";
    } else if (state_is(state, "42501")) {
        remedy = ": grant it to the relay's role";
    } else if (state_is(state, "25006")) {
        remedy = ": the relay needs the primary";
    }
    return err_set(e, err, "%s: %s (%s)%s", l->target->shown, words, state, remedy);
}

static enum ferry_err sent(struct pg_link *l, int ok, struct err_text *e)
{
    if (ok != 1) {
        return lost(l, e);
    }
    l->busy = true;
    l->asked_us = clock_monotonic_us();
    return FERRY_OK;
}

void pg_link_text(const struct pg_link *l, const char *statement, struct buf *out)
{
    for (const char *at = statement; *at != '\0';) {
        size_t run = strcspn(at, "@");
        buf_append(out, at, run);
        at += run;
        if (*at == '@') {
            buf_append_bytes(out, bytes_of_string(l->target->schema));
            at++;
        }
    }
    buf_append_u8(out, 0);
}

static enum ferry_err prepare(struct pg_link *l, unsigned statement, const char *name,
                              struct err_text *e)
{
    struct buf text;
    buf_init(&text, STATEMENT_BYTES_MAX);
    pg_link_text(l, l->statements[statement], &text);
    if (!buf_ok(&text)) {
        buf_fini(&text);
        return err_set(e, FERRY_ERR_NO_MEMORY, "%s: out of memory", l->target->shown);
    }
    enum ferry_err err = sent(l, PQsendPrepare(l->conn, name, (const char *)text.data, 0, NULL), e);
    buf_fini(&text);
    PGresult *result = NULL;
    if (err == FERRY_OK) {
        err = pg_link_take(l, clock_monotonic_us() + PG_LINK_TAKE_US, &result, e);
    }
    if (err == FERRY_ERR_TIMEOUT) {
        return lost(l, e);
    }
    PQclear(result);
    l->prepared[statement] = err == FERRY_OK;
    return err;
}

enum ferry_err pg_link_send(struct pg_link *l, unsigned statement, const char *const *params,
                            size_t count, struct err_text *e)
{
    must(l->state == PG_LINK_UP && !l->busy);
    must(statement < PG_LINK_STATEMENTS_MAX && count <= PG_LINK_PARAMS_MAX);
    char name[8];
    snprintf(name, sizeof(name), "f%u", statement);
    if (!l->prepared[statement]) {
        enum ferry_err err = prepare(l, statement, name, e);
        if (err != FERRY_OK) {
            return err;
        }
    }
    return sent(l, PQsendQueryPrepared(l->conn, name, (int)count, params, NULL, NULL, 1), e);
}

enum ferry_err pg_link_send_text(struct pg_link *l, const char *sql, struct err_text *e)
{
    must(l->state == PG_LINK_UP && !l->busy);
    return sent(l, PQsendQuery(l->conn, sql), e);
}

/* An answer that is overdue will not come. */
static enum ferry_err not_yet(struct pg_link *l, struct err_text *e)
{
    int64_t limit_us = l->target->statement_timeout_ms * 1000 + ANSWER_GRACE_US;
    if (clock_monotonic_us() - l->asked_us > limit_us) {
        return lost(l, e);
    }
    return err_set(e, FERRY_ERR_TIMEOUT, "%s: no answer yet", l->target->shown);
}

/* Whether the next result can be had without waiting; waits for it. */
static enum ferry_err arrived(struct pg_link *l, int64_t until_us, struct err_text *e)
{
    while (PQisBusy(l->conn) == 1) {
        if (!wait_for(l->conn, POLLIN, until_us)) {
            return not_yet(l, e);
        }
        if (PQconsumeInput(l->conn) != 1) {
            return lost(l, e);
        }
    }
    return FERRY_OK;
}

enum ferry_err pg_link_take(struct pg_link *l, int64_t until_us, PGresult **result,
                            struct err_text *e)
{
    must(l->conn != NULL && l->busy);
    PGresult *kept = NULL;
    enum ferry_err err = FERRY_OK;
    *result = NULL;
    enum ferry_err waiting = arrived(l, until_us, e);
    if (waiting != FERRY_OK) {
        return waiting;
    }
    PGresult *next = NULL;
    while ((next = PQgetResult(l->conn)) != NULL) {
        ExecStatusType status = PQresultStatus(next);
        if (err == FERRY_OK && status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK &&
            status != PGRES_EMPTY_QUERY) {
            err = refused(l, next, e);
        }
        PQclear(kept);
        kept = next;
        if (PQstatus(l->conn) == CONNECTION_BAD) {
            PQclear(kept);
            return lost(l, e);
        }
    }
    l->busy = false;
    if (err != FERRY_OK) {
        PQclear(kept);
        return err;
    }
    *result = kept;
    return FERRY_OK;
}

/* Whether the COPY began; *over: there is nothing (more) to copy, the answer is taken. */
static enum ferry_err copy_begun(struct pg_link *l, int64_t until_us, bool *over,
                                 struct err_text *e)
{
    enum ferry_err err = arrived(l, until_us, e);
    if (err != FERRY_OK) {
        return err;
    }
    PGresult *result = PQgetResult(l->conn);
    ExecStatusType status = PQresultStatus(result); /* Of NULL: a fatal error. */
    if (status == PGRES_COPY_OUT) {
        l->copying = true;
        PQclear(result);
        return FERRY_OK;
    }
    *over = true;
    if (PQstatus(l->conn) == CONNECTION_BAD) {
        err = lost(l, e);
    } else if (result != NULL && status != PGRES_COMMAND_OK) {
        err = refused(l, result, e);
    }
    PQclear(result);
    PGresult *rest = NULL;
    enum ferry_err end =
        l->state == PG_LINK_UP ? pg_link_take(l, until_us, &rest, e) : FERRY_ERR_DB_RETRY;
    PQclear(rest);
    return err != FERRY_OK ? err : end;
}

enum ferry_err pg_link_copied(struct pg_link *l, int64_t until_us, char **data, size_t *bytes,
                              struct err_text *e)
{
    must(l->conn != NULL && l->busy);
    bool over = false;
    *data = NULL;
    enum ferry_err err = l->copying ? FERRY_OK : copy_begun(l, until_us, &over, e);
    while (err == FERRY_OK && !over) {
        int got = PQgetCopyData(l->conn, data, 1);
        if (got > 0) {
            *bytes = (size_t)got;
            l->asked_us = clock_monotonic_us();
            return FERRY_OK;
        }
        if (got == -1) {
            l->copying = false; /* What became of it is the next result. */
            err = copy_begun(l, until_us, &over, e);
        } else if (got < 0 ||
                   (wait_for(l->conn, POLLIN, until_us) && PQconsumeInput(l->conn) != 1)) {
            err = lost(l, e);
        } else if (clock_monotonic_us() >= until_us) {
            err = not_yet(l, e);
        }
    }
    return err;
}

static enum ferry_err answer(struct pg_link *l, PGresult **result, struct err_text *e)
{
    enum ferry_err err = pg_link_take(l, clock_monotonic_us() + PG_LINK_TAKE_US, result, e);
    if (err == FERRY_ERR_TIMEOUT) {
        pg_link_drop(l);
        err = err_set(e, FERRY_ERR_DB_RETRY, "%s: no answer in %d ms", l->target->shown,
                      PG_LINK_TAKE_US / 1000);
    }
    return err;
}

enum ferry_err pg_link_ask(struct pg_link *l, unsigned statement, const char *const *params,
                           size_t count, PGresult **result, struct err_text *e)
{
    *result = NULL;
    enum ferry_err err = pg_link_send(l, statement, params, count, e);
    return err == FERRY_OK ? answer(l, result, e) : err;
}

enum ferry_err pg_link_ask_text(struct pg_link *l, const char *sql, PGresult **result,
                                struct err_text *e)
{
    *result = NULL;
    enum ferry_err err = pg_link_send_text(l, sql, e);
    return err == FERRY_OK ? answer(l, result, e) : err;
}

enum ferry_err pg_link_run(struct pg_link *l, const char *sql, struct err_text *e)
{
    PGresult *result = NULL;
    enum ferry_err err = pg_link_ask_text(l, sql, &result, e);
    PQclear(result);
    return err;
}

void pg_link_pump(struct pg_link *l)
{
    for (int i = 0; l->state == PG_LINK_UP && i < PUMP_MAX; i++) {
        if (!wait_for(l->conn, POLLIN, 0) || PQconsumeInput(l->conn) != 1) {
            return; /* What is lost is noticed by whoever asks next. */
        }
    }
}

enum ferry_err pg_link_hear(struct pg_link *l, struct err_text *e)
{
    must(l->state == PG_LINK_UP && !l->busy);
    for (int i = 0; i < PUMP_MAX && wait_for(l->conn, POLLIN, 0); i++) {
        if (PQconsumeInput(l->conn) != 1 || PQstatus(l->conn) == CONNECTION_BAD) {
            return lost(l, e);
        }
    }
    return FERRY_OK;
}
