/* sql: the little SQL that a bank needs, the same for three databases.
 *
 * A statement has `?` for its parameters; `types` names them in order: i an int64_t, t a text. Made
 * for this example: your own program has its own connection, and gives that to ferry_db_…(). */
#ifndef FERRY_EXAMPLE_BANK_SQL_H
#define FERRY_EXAMPLE_BANK_SQL_H

#include "ferry_outbox.h"

#define SQL_PARAMETERS_MAX 8
#define SQL_NOTHING        INT64_MIN /* *result of a query that found no row. */

struct sql_value {
    const char *text; /* NULL: the number. */
    int64_t number;
};

struct sql {
    const struct sql_ops *ops;
    const char *url;
    void *connection;
    struct ferry_db *db; /* Ferry's view of the same connection. */
    bool lost;           /* The connection is gone: what became of a COMMIT is not known. */
    char error[256];
};

/* One for each database: sql_sqlite.c, sql_postgresql.c, sql_mariadb.c. */
struct sql_ops {
    const char *begin;  /* For writing, at once. */
    const char *tables; /* Of the bank: statements separated by ";;". */
    enum ferry_err (*connect)(struct sql *s);
    void (*disconnect)(struct sql *s);
    enum ferry_err (*run)(struct sql *s, int64_t *result, const char *statement,
                          const struct sql_value *values, size_t count);
};
extern const struct sql_ops sql_sqlite, sql_postgresql, sql_mariadb;

/* By the URL's scheme. False: none of the three. */
bool sql_init(struct sql *s, const char *url);
/* Connects, anew if need be, trying until it works or `stop` is true. */
enum ferry_err sql_connect(struct sql *s, bool (*stop)(void *arg), void *arg);
void sql_close(struct sql *s);
/* *result (may be NULL): of a query, the first number it found; else how many rows were changed.
 * DB_RETRY: roll back and run the transaction again, after sql_connect() if s->lost. */
enum ferry_err sql_run(struct sql *s, int64_t *result, const char *statement, const char *types,
                       ...);
enum ferry_err sql_begin(struct sql *s);
enum ferry_err sql_commit(struct sql *s); /* And wakes the relay. */
void sql_rollback(struct sql *s);

#endif
