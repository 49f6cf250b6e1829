/* pq_error: PostgreSQL's errors as Ferry's, for the files that include libpq-fe.h. */
#ifndef FERRY_OUTBOX_PQ_ERROR_H
#define FERRY_OUTBOX_PQ_ERROR_H

#include "base/err.h"

struct pg_conn;
struct pg_result;

/* Serialization failures, deadlocks, lock timeouts, a lost connection, a server that starts or
 * stops or has no room: DB_RETRY. A missing table, column, schema or function: DB_SCHEMA. Anything
 * else: DB. `result` may be NULL (no answer). `doing` says what was being done; the server's words
 * follow. */
enum ferry_err pq_error(struct pg_conn *connection, const struct pg_result *result,
                        const char *doing, struct err_text *e);
/* Whether the result is that error: five characters, as "23505". */
bool pq_is_state(const struct pg_result *result, const char *state);

#endif
