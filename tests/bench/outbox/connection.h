/* connection: a database of any of the three kinds for the programs of this bench, by its URL. */
#ifndef FERRY_BENCH_OUTBOX_CONNECTION_H
#define FERRY_BENCH_OUTBOX_CONNECTION_H

#include <stdbool.h>

#include "ferry_outbox.h"

struct connection {
    struct ferry_db *db;
    void *handle; /* sqlite3, PGconn or MYSQL. */
    const struct connection_kind *kind;
};

/* Both end the program with a message when it cannot be done: a bench has nothing else to do. */
void connection_open(struct connection *c, const char *url);
void connection_sql(struct connection *c, const char *sql);
/* So that connection_transact has nothing to prepare any more. Stores nothing. */
void connection_warm(struct connection *c, const struct ferry_message *message);
/* BEGIN, one put, COMMIT, as cheap as the library lets an application have it: PostgreSQL takes
 * them in one pipeline, one trip there and back. Returns when COMMIT has. */
void connection_transact(struct connection *c, const struct ferry_message *message);
void connection_close(struct connection *c);

#endif
