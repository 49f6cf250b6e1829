/* migrate_postgresql: Ferry's tables of a PostgreSQL database: their version, and how they are
 * made. Works on the caller's connection. The schema's name must be valid. */
#ifndef FERRY_OUTBOX_MIGRATE_POSTGRESQL_H
#define FERRY_OUTBOX_MIGRATE_POSTGRESQL_H

#include "base/err.h"

struct pg_conn;

/* 0: there are no tables. Errors: as pq_error's. */
MUST_CHECK enum ferry_err migrate_postgresql_version(struct pg_conn *connection, const char *schema,
                                                     int64_t *version, struct err_text *e);
/* DB_SCHEMA or NEWER_FORMAT unless it is ours. */
MUST_CHECK enum ferry_err migrate_postgresql_check(const char *schema, int64_t version,
                                                   struct err_text *e);

/* As ferry_migrate: one transaction under an advisory lock. */
MUST_CHECK enum ferry_err migrate_postgresql(struct pg_conn *connection, const char *schema,
                                             struct err_text *e);

#endif
