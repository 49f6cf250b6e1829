/* maria_link: one connection to a MariaDB server that is never waited for long.
 *
 * It is made in small steps and mended by itself: a function that finds it down begins anew, at
 * most once in MARIA_LINK_AGAIN_US, and answers DB_RETRY until it is up. A statement is sent, and
 * its result waited for, for a limited time; one that takes longer costs the connection, because
 * nobody can tell what is going to arrive on it; so does a lost server. The time rises while
 * statements take too long and falls back when they do not. Errors of all, with the database's
 * words (never the password): DB_RETRY (down, lost, too slow, deadlock, lock wait, changed
 * snapshot), DB_SCHEMA (no such table or column, no such database), DB. */
#ifndef FERRY_OUTBOX_MARIA_LINK_H
#define FERRY_OUTBOX_MARIA_LINK_H

#include <mysql.h>

#include "base/buf.h"
#include "outbox/mariadb/maria_url.h"

#define MARIA_LINK_AGAIN_US    (200 * 1000)
#define MARIA_LINK_WAIT_MS     500  /* For a result, at first; and for a connection in one call. */
#define MARIA_LINK_WAIT_MAX_MS 2000 /* Nor ever: others wait for this thread. */
#define MARIA_SQL_MAX          (1u << 20)

enum maria_link_state { MARIA_DOWN, MARIA_CONNECTING, MARIA_UP };

struct maria_link {
    const struct maria_url *url; /* Borrowed. */
    const char *session;         /* Statement that sets the session up; static text. */
    int64_t connect_timeout_ms, statement_timeout_ms;
    MYSQL *mysql;
    enum maria_link_state state;
    bool sent;        /* A statement was sent whose result was not taken. */
    int waits_for;    /* Of the connection being made. */
    int64_t since_us; /* When that began, or when the statement was sent. */
    int64_t again_us; /* Not begun anew before. */
    int64_t wait_ms;
    unsigned in_time;    /* Statements since that was changed. */
    uint64_t times;      /* It came up. */
    struct buf sql;      /* Of the statement being written. */
    struct err_text why; /* Of the last time it was lost. */
};

void maria_link_init(struct maria_link *l, const struct maria_url *url, const char *session,
                     int64_t connect_timeout_ms, int64_t statement_timeout_ms);
void maria_link_close(struct maria_link *l); /* Accepts zeroed memory. */
void maria_link_drop(struct maria_link *l);  /* Closes; the next use begins anew. */

/* Waits a little, if it must, until the connection is up. */
MUST_CHECK enum ferry_err maria_link_ready(struct maria_link *l, struct err_text *e);
/* Begins a statement; the text follows by buf_printf and buf_append to l->sql. */
struct buf *maria_link_write(struct maria_link *l);
/* Sends what was written. The link must be up and nothing sent before. */
MUST_CHECK enum ferry_err maria_link_send(struct maria_link *l, struct err_text *e);
/* Whether the result has arrived. */
bool maria_link_has_result(struct maria_link *l);
/* Waits for the result of what was sent; *result (NULL: none is expected) is taken from the wire
 * row by row: maria_link_done ends it. */
MUST_CHECK enum ferry_err maria_link_take(struct maria_link *l, MYSQL_RES **result,
                                          struct err_text *e);
/* After the last row: frees the result. The error, if the rows ended in one. */
MUST_CHECK enum ferry_err maria_link_done(struct maria_link *l, MYSQL_RES *result,
                                          struct err_text *e);
/* ready, send and take; nothing is expected or one row, whose columns are copied as texts of at
 * most MARIA_FIELD_MAX bytes (NULL: ""; not a row: *found false). */
#define MARIA_FIELD_MAX 319
struct maria_field {
    size_t size;
    bool null;
    char text[MARIA_FIELD_MAX + 1];
};
MUST_CHECK enum ferry_err maria_link_row(struct maria_link *l, struct maria_field *fields,
                                         size_t count, bool *found, struct err_text *e);
MUST_CHECK enum ferry_err maria_link_run(struct maria_link *l, struct err_text *e);

/* The error of the connection, and what it means for it. */
enum ferry_err maria_link_error(struct maria_link *l, struct err_text *e);
/* Which of Ferry's errors a number of MariaDB's is. */
enum ferry_err maria_error_of(unsigned number);

/* For SQL text: 'quoted' with escapes, and 0x… */
void maria_sql_text(struct maria_link *l, struct bytes text);
void maria_sql_bytes(struct maria_link *l, struct bytes bytes);

#endif
