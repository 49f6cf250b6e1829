/* db: what the application side of the outbox needs of a database driver.
 *
 * ferry_db.c, outbox_put.c, inbox*.c, saga*.c and the consume loops are written against this table
 * and include no database header; outbox/sqlite, outbox/postgresql and outbox/mariadb are the
 * drivers. A driver works on the connection that the caller owns, in the caller's transaction.
 *
 * Invariants: (1) no driver function begins, commits or rolls back but migrate, begin, commit and
 * rollback; (2) after an error every statement is reset, so that the caller can roll back; (3) what
 * the database answers to "busy, locked, deadlock, cannot serialize, snapshot too old, the row is
 * there already" is DB_RETRY, a lost connection too (the caller has to connect again and finds out
 * what became of its COMMIT by ferry_inbox_enter); missing or old tables are DB_SCHEMA, the rest is
 * DB with the database's words in the detail; (4) a put allocates nothing once it is warm. */
#ifndef FERRY_OUTBOX_APP_DB_H
#define FERRY_OUTBOX_APP_DB_H

#include "base/buf.h"
#include "base/err.h"
#include "base/id.h"
#include "ferry_outbox.h"
#include "outbox/app/wake.h"

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

/* A row of the inbox's dead letters. Borrowed. */
struct db_inbox_dead {
    struct db_chain chain;
    int64_t offset;
    struct ferry_id id;
    const char *reason;
    bool parked;   /* Only because its key is. */
    bool requeued; /* A person wants it, or those of its key before it, handled again. */
    bool has_key;
    struct bytes key, headers, payload;
    int64_t timestamp_ms;
};

/* A saga's row. Of db_ops.saga_get: lives until the driver's next call. */
struct db_saga {
    struct ferry_id id;
    const char *type;
    int32_t state; /* enum ferry_saga_state */
    int32_t step;
    int64_t version;     /* Rises by one with each change; saga_update compares and sets it. */
    int64_t deadline_ms; /* 0: none. */
    const char *reason;
    struct bytes data;
};

/* What ferry_saga_trim forgets. */
struct db_saga_trim {
    int32_t day;                  /* For the barrier's row of no saga, unless it has a later one. */
    struct ferry_id begun_before; /* Barrier rows of sagas with lesser ids, but for that row. */
    int64_t ended_before_ms;      /* Rows of sagas that are over and were changed before. */
    size_t rows_max;              /* Of each of the two. */
};

#define DB_CHAIN_ROWS_MAX   64 /* Kept of each chain; older intervals say nothing new. */
#define DB_CHAIN_TRIM_EVERY 16 /* PostgreSQL, MariaDB: so many extensions between two trims. */
#define DB_CHAIN_BEFORE                                                                            \
    (-1) /* Start of a chain's first interval: whoever is first collides on it. */
#define DB_NAME_MAX_BYTES    200u
#define DB_HEADERS_MAX_BYTES (64u << 20) /* Of all messages of one ferry_outbox_putv. */

struct db_ops {
    void (*close)(void *driver);
    bool (*in_transaction)(void *driver);
    /* Where the relay of this machine listens for a wake: the file's path for SQLite, another text
     * that names the database for others (wake.h makes an address of it). NULL when there is none
     * (a database in memory). Lives until the next call. */
    const char *(*path)(void *driver);
    enum ferry_err (*migrate)(void *driver, struct err_text *e);
    enum ferry_err (*put)(void *driver, const struct db_row *row, struct err_text *e);
    /* All of them or an error; one statement where the database has one for it. */
    enum ferry_err (*putv)(void *driver, const struct db_row *rows, size_t count,
                           struct err_text *e);
    /* PostgreSQL in pipeline mode: the row is sent and its result is taken with the caller's
     * others. NULL: the driver has no such mode. */
    enum ferry_err (*put_async)(void *driver, const struct db_row *row, struct err_text *e);
    /* Asks the database once for what put_async cannot ask for. NULL: there is nothing to ask. */
    enum ferry_err (*prepare_put)(void *driver, struct err_text *e);
    /* Holds the key's lock until the transaction ends. */
    enum ferry_err (*lock_key)(void *driver, struct bytes key, struct err_text *e);

    /* Where the chain ends; *found false when it has no interval. */
    enum ferry_err (*chain_end)(void *driver, const struct db_chain *chain, bool *found,
                                int64_t *end, struct err_text *e);
    /* Adds [start, end) and trims, now or after some more. DB_RETRY when the interval is there
     * already, or a later one (which this transaction's snapshot may not see). */
    enum ferry_err (*chain_extend)(void *driver, const struct db_chain *chain, int64_t start,
                                   int64_t end, struct err_text *e);
    enum ferry_err (*skip_add)(void *driver, const struct db_chain *chain, int64_t from, int64_t to,
                               const char *reason, struct err_text *e);
    /* Inserts the id under its group; *fresh false when it is there. */
    enum ferry_err (*id_claim)(void *driver, const char *group, const struct ferry_id *id,
                               int32_t day, bool *fresh, struct err_text *e);
    /* Deletes ids of days before `day`, at most `rows_max`. */
    enum ferry_err (*id_trim)(void *driver, const char *group, int32_t day, size_t rows_max,
                              size_t *removed, struct err_text *e);
    /* Nothing is added when the record (group, topic, partition, offset) is there already. */
    enum ferry_err (*inbox_dead_add)(void *driver, const struct db_inbox_dead *dead,
                                     struct err_text *e);
    /* Whether a record of that group and key is in the dead letters: later ones of the key follow.
     * *requeued: all of them are before the handler again, so that one that follows has to be as
     * well. Waits for whoever has the first of them in hand. */
    enum ferry_err (*inbox_key_parked)(void *driver, const struct db_chain *chain, struct bytes key,
                                       bool *parked, bool *requeued, struct err_text *e);
    /* The first dead letter of the group and topic (in any partition) that a person has put before
     * its handler again, locked for this transaction, and its removal. *found false also when
     * another consumer has the first one in hand. Of dead->chain only the partition is set. The row
     * lives until the next call. */
    enum ferry_err (*inbox_requeued)(void *driver, const char *group,
                                     const struct ferry_id *topic_id, bool *found, int64_t *number,
                                     struct db_inbox_dead *dead, struct err_text *e);
    enum ferry_err (*inbox_dead_remove)(void *driver, int64_t number, struct err_text *e);
    /* It has failed once more: it, and the later ones of its key, are not put before the handler
     * any longer; its reason is this one. */
    enum ferry_err (*inbox_dead_again)(void *driver, int64_t number, const char *reason,
                                       struct err_text *e);

    /* Inserts (saga, step, op, why); *fresh false when (saga, step, op) is there. */
    enum ferry_err (*barrier_add)(void *driver, const struct ferry_id *saga, int32_t step,
                                  int32_t op, int32_t why, bool *fresh, struct err_text *e);
    /* Sees what made barrier_add say not fresh, and what was committed with it, even where the
     * transaction's snapshot is older, and holds it unchanged: a locking read. */
    enum ferry_err (*barrier_why)(void *driver, const struct ferry_id *saga, int32_t step,
                                  int32_t op, bool *found, int32_t *why, struct err_text *e);
    enum ferry_err (*saga_insert)(void *driver, const struct db_saga *saga, struct err_text *e);
    enum ferry_err (*saga_get)(void *driver, const struct ferry_id *id, bool *found,
                               struct db_saga *saga, struct err_text *e);
    /* Sets all but id and type; DB_RETRY when its version is not `saga->version`, which then rises.
     */
    enum ferry_err (*saga_update)(void *driver, const struct db_saga *saga, struct err_text *e);

    enum ferry_err (*saga_trim)(void *driver, const struct db_saga_trim *trim, size_t *removed,
                                struct err_text *e);

    enum ferry_err (*begin)(void *driver, struct err_text *e); /* For writing, at once. */
    /* NO_TRANSACTION: what `begin` has begun was over before (MariaDB rolls back at a deadlock that
     * a handler may keep to itself); what was done since is to be rolled back. */
    enum ferry_err (*commit)(void *driver, struct err_text *e);
    void (*rollback)(void *driver); /* No effect when none is open. */
    /* Whether the connection is gone, as far as the last error told. NULL: it never is. */
    bool (*lost)(void *driver);
    /* Whether a transaction is open in which all statements fail, because one has failed
     * (PostgreSQL). NULL: there is no such state. */
    bool (*aborted)(void *driver);
};

/* Where a chain ended when its batch was entered: its effects are of what comes behind that. */
struct db_entered {
    char group[DB_NAME_MAX_BYTES + 1];
    struct ferry_id topic_id;
    int32_t partition;
    int64_t end; /* DB_CHAIN_BEFORE: there was none. */
};

struct ferry_db {
    const struct db_ops *ops;
    void *driver;
    struct err_text error;
    struct id_gen ids;
    struct buf headers;  /* Scratch of the puts. */
    struct db_row *rows; /* The same, of ferry_outbox_putv. */
    size_t rows_capacity;
    struct db_entered *entered; /* Batches that were not left; one of each chain at most. */
    size_t entered_count, entered_capacity;
    struct wake_sender wake;
};

/* For drivers: makes the handle and takes `driver` on success. Errors: NO_MEMORY, IO. */
MUST_CHECK enum ferry_err db_new(struct ferry_db **db, const struct db_ops *ops, void *driver);

#endif
