/* pg_link: one connection of the relay to PostgreSQL that is never waited for longer than the
 * caller says, and that comes back by itself.
 *
 * States: down -> (pg_link_up) connecting -> setting up -> up; any failure of the connection leads
 * to down, and what was asked is forgotten. While up, at most one statement is asked at a time:
 * pg_link_send, then pg_link_take until it answers. Statements are prepared once a connection;
 * parameters are text, results binary. One thread.
 *
 * Of several hosts in the target libpq takes the first that is what it wants, one after another;
 * one that says nothing at all (its machine is gone) would be waited for each time anew, so it goes
 * to the end of the list when connecting took too long. */
#ifndef FERRY_OUTBOX_POSTGRESQL_PG_LINK_H
#define FERRY_OUTBOX_POSTGRESQL_PG_LINK_H

#include <libpq-fe.h>

#include "base/buf.h"
#include "base/err.h"

#define PG_LINK_STATEMENTS_MAX 24u
#define PG_LINK_PARAMS_MAX     9u
#define PG_LINK_TAKE_US        250000 /* What one call of a source may wait for an answer. */

/* Where a database is. Owned by whoever made it; see pg_url.h. */
struct pg_target {
    const char *conninfo; /* With the password. */
    const char *shown;    /* Without. */
    const char *schema;
    int64_t connect_timeout_ms, statement_timeout_ms;
};

enum pg_link_state { PG_LINK_DOWN, PG_LINK_CONNECTING, PG_LINK_SETTING_UP, PG_LINK_UP };

struct pg_link {
    const struct pg_target *target;
    const char *const *statements; /* With @ for the schema's name. */
    const char *role;              /* For application_name. */
    PGconn *conn;
    enum pg_link_state state;
    bool busy;    /* A statement was sent and not all of its answer was taken. */
    bool copying; /* It is a COPY, and its rows come. */
    bool prepared[PG_LINK_STATEMENTS_MAX];
    int64_t asked_us;      /* When connecting began, or the statement was sent. */
    int64_t not_before_us; /* Of the next attempt. */
    uint32_t failures;     /* Since it was up. */
    uint32_t turns;        /* So many hosts of the target are asked last: they did not answer. */
    uint64_t connects;     /* Times it came up. */
    struct err_text why;   /* Why it is down. */
};

void pg_link_init(struct pg_link *l, const struct pg_target *target, const char *const *statements,
                  const char *role);
void pg_link_fini(struct pg_link *l);
void pg_link_drop(struct pg_link *l); /* To down; comes up again at the next pg_link_up. */
/* The same for `pause_us` at least. Returns DB_RETRY with the words, which stay until then. */
enum ferry_err pg_link_leave(struct pg_link *l, int64_t pause_us, const struct err_text *why);

/* Brings it up, waiting until `until_us` at most. DB_RETRY: not yet, the detail says why; IO: the
 * first attempt ever failed for good, or is refused. */
MUST_CHECK enum ferry_err pg_link_up(struct pg_link *l, int64_t until_us, struct err_text *e);

MUST_CHECK enum ferry_err pg_link_send(struct pg_link *l, unsigned statement,
                                       const char *const *params, size_t count, struct err_text *e);
/* Plain text, any number of statements without results. */
MUST_CHECK enum ferry_err pg_link_send_text(struct pg_link *l, const char *sql, struct err_text *e);
/* The whole answer: *result is the caller's (PQclear), of the last statement that had one. TIMEOUT:
 * not there yet, ask again. Every other error: the answer is taken; of a lost connection DB_RETRY.
 */
MUST_CHECK enum ferry_err pg_link_take(struct pg_link *l, int64_t until_us, PGresult **result,
                                       struct err_text *e);
/* The next piece of the answer to a COPY … TO STDOUT: *data is the caller's (PQfreemem), NULL at
 * the end, after which the answer is taken. Errors as pg_link_take. */
MUST_CHECK enum ferry_err pg_link_copied(struct pg_link *l, int64_t until_us, char **data,
                                         size_t *bytes, struct err_text *e);
/* Both, and what does not come in PG_LINK_TAKE_US takes the connection down: DB_RETRY. */
MUST_CHECK enum ferry_err pg_link_ask(struct pg_link *l, unsigned statement,
                                      const char *const *params, size_t count, PGresult **result,
                                      struct err_text *e);
/* Plain text; the last statement's result, in text. */
MUST_CHECK enum ferry_err pg_link_ask_text(struct pg_link *l, const char *sql, PGresult **result,
                                           struct err_text *e);
MUST_CHECK enum ferry_err pg_link_run(struct pg_link *l, const char *sql, struct err_text *e);
/* Reads what has come from the socket, an answer that nobody takes now or notifications. */
void pg_link_pump(struct pg_link *l);
/* The same, for what PQnotifies() then has. UP and not busy. DB_RETRY: the connection is lost. */
MUST_CHECK enum ferry_err pg_link_hear(struct pg_link *l, struct err_text *e);
/* A statement with the schema's name in it, and a NUL. */
void pg_link_text(const struct pg_link *l, const char *statement, struct buf *out);

/* A value of a binary result. */
static inline struct bytes pg_value(const PGresult *r, int row, int column)
{
    return bytes_of(PQgetvalue(r, row, column), (size_t)PQgetlength(r, row, column));
}

static inline int64_t pg_number(struct bytes v)
{
    return v.size == 8   ? (int64_t)get_be64(v.data)
           : v.size == 4 ? (int32_t)get_be32(v.data)
           : v.size == 1 ? v.data[0]
                         : 0;
}

static inline int64_t pg_int(const PGresult *r, int row, int column)
{
    return pg_number(pg_value(r, row, column));
}

#endif
