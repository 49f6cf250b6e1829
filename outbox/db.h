/* db: what the application side of the outbox needs of a database driver.
 *
 * ferry_db.c, outbox_put.c, inbox.c and consume_loop.c are written against this table and include
 * no database header; db_sqlite.c is the first driver. A driver works on the connection that the
 * caller owns, in the caller's transaction.
 *
 * Invariants: (1) no driver function begins, commits or rolls back but migrate, begin, commit and
 * rollback; (2) after an error every statement is reset, so that the caller can roll back; (3) what
 * the database answers to "busy, locked, snapshot too old" is DB_RETRY, missing or old tables are
 * DB_SCHEMA, the rest is DB with the database's words in the detail. */
#ifndef FERRY_OUTBOX_DB_H
#define FERRY_OUTBOX_DB_H

#include "base/buf.h"
#include "base/err.h"
#include "base/id.h"
#include "ferry_outbox.h"
#include "outbox/wake.h"

/* One row for the outbox table. Borrowed. */
struct db_row {
    struct bytes topic;
    bool has_key;
    struct bytes key;
    struct ferry_id id;
    struct bytes headers; /* A msgpack map; empty: none. */
    struct bytes payload;
    int64_t created_ms;
};

/* Which chain of the inbox. Borrowed. */
struct db_chain {
    const char *group;
    const struct ferry_id *topic_id;
    int32_t partition;
};

#define DB_CHAIN_ROWS_MAX 64 /* Kept of each chain; older intervals say nothing new. */
#define DB_CHAIN_BEFORE                                                                            \
    (-1) /* Start of a chain's first interval: whoever is first collides on it. */
#define DB_NAME_MAX_BYTES 200u

struct db_ops {
    void (*close)(void *driver);
    bool (*in_transaction)(void *driver);
    /* The file that the relay opens, absolute; NULL when there is none (a database in memory).
     * Lives until the next call. */
    const char *(*path)(void *driver);
    enum ferry_err (*migrate)(void *driver, struct err_text *e);
    enum ferry_err (*put)(void *driver, const struct db_row *row, struct err_text *e);
    /* Where the chain ends; *found false when it has no interval. */
    enum ferry_err (*chain_end)(void *driver, const struct db_chain *chain, bool *found,
                                int64_t *end, struct err_text *e);
    /* Adds [start, end) and trims. DB_RETRY when the interval is there already. */
    enum ferry_err (*chain_extend)(void *driver, const struct db_chain *chain, int64_t start,
                                   int64_t end, struct err_text *e);
    enum ferry_err (*skip_add)(void *driver, const struct db_chain *chain, int64_t from, int64_t to,
                               const char *reason, struct err_text *e);
    enum ferry_err (*begin)(void *driver, struct err_text *e); /* For writing, at once. */
    enum ferry_err (*commit)(void *driver, struct err_text *e);
    void (*rollback)(void *driver); /* No effect when none is open. */
};

struct ferry_db {
    const struct db_ops *ops;
    void *driver;
    struct err_text error;
    struct id_gen ids;
    struct buf headers; /* Scratch of ferry_outbox_put. */
    struct wake_sender wake;
};

/* For drivers: makes the handle and takes `driver` on success. Errors: NO_MEMORY, IO. */
MUST_CHECK enum ferry_err db_new(struct ferry_db **db, const struct db_ops *ops, void *driver);

#endif
