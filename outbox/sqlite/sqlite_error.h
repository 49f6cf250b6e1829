/* sqlite_error: SQLite's result codes as Ferry's errors, for the files that include sqlite3.h. */
#ifndef FERRY_OUTBOX_SQLITE_ERROR_H
#define FERRY_OUTBOX_SQLITE_ERROR_H

#include "base/err.h"

struct sqlite3;

/* Busy, locked or an old snapshot: DB_RETRY. A missing table or column: DB_SCHEMA. Out of memory:
 * NO_MEMORY. Anything else: DB. `doing` says what was being done; the database's words follow. */
enum ferry_err sqlite_error(struct sqlite3 *connection, int code, const char *doing,
                            struct err_text *e);

/* The schema version of a connection's main database: 0 when there are no Ferry tables. Errors: as
 * sqlite_error. */
MUST_CHECK enum ferry_err sqlite_schema_version(struct sqlite3 *connection, int64_t *version,
                                                struct err_text *e);
/* As before, and DB_SCHEMA or NEWER_FORMAT unless it is SCHEMA_SQLITE_VERSION. `name` is for
 * people.
 */
MUST_CHECK enum ferry_err sqlite_schema_check(struct sqlite3 *connection, const char *name,
                                              struct err_text *e);

#endif
