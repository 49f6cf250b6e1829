/* schema_sqlite: the DDL files of outbox/sqlite/schema, carried in the binary. */
#ifndef FERRY_OUTBOX_SCHEMA_SQLITE_H
#define FERRY_OUTBOX_SCHEMA_SQLITE_H

#define SCHEMA_SQLITE_VERSION 3 /* What this build makes and knows. */

/* The step to schema version `version` from the one before it; NULL when there is no such version.
 * Static text. */
const char *schema_sqlite_step(int version);

#endif
