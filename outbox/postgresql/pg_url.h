/* pg_url: postgresql://… as Ferry takes it: libpq's URI and `?schema=NAME`, which is ours.
 *
 * Does no I/O. The shown form has no password. */
#ifndef FERRY_OUTBOX_POSTGRESQL_PG_URL_H
#define FERRY_OUTBOX_POSTGRESQL_PG_URL_H

#include "base/err.h"
#include "outbox/postgresql/schema_postgresql.h"

#define PG_URL_MAX 4000u

struct pg_url {
    char conninfo[PG_URL_MAX + 64]; /* For libpq: without our option. */
    char shown[PG_URL_MAX + 16];
    char schema[SCHEMA_POSTGRESQL_NAME_MAX + 1];
};

/* Errors: INVALID_ARGUMENT, with a detail that shows the right form. */
MUST_CHECK enum ferry_err pg_url_parse(const char *text, struct pg_url *url, struct err_text *e);

#endif
