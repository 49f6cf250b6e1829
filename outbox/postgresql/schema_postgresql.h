/* schema_postgresql: the DDL files of outbox/postgresql/schema, carried in the binary, and the name
 * of the PostgreSQL schema that the tables are in. */
#ifndef FERRY_OUTBOX_SCHEMA_POSTGRESQL_H
#define FERRY_OUTBOX_SCHEMA_POSTGRESQL_H

#include "base/buf.h"

#define SCHEMA_POSTGRESQL_VERSION  1 /* What this build makes and knows. */
#define SCHEMA_POSTGRESQL_DEFAULT  "ferry"
#define SCHEMA_POSTGRESQL_NAME_MAX 48 /* PostgreSQL's limit is 63. */

/* Whether a schema may have the name: a-z, then a-z, 0-9 and _; not pg_…. Such a name needs no
 * quotes anywhere, so it can be put into a statement's text. */
bool schema_postgresql_name_is_valid(const char *name);

/* The step to schema version `version` from the one before it, for the schema `ferry`; NULL when
 * there is no such version. Static text of several statements. */
const char *schema_postgresql_step(int version);

/* The same for another schema, behind what `out` holds, without a NUL. The name must be valid, the
 * version known. */
void schema_postgresql_write(struct buf *out, int version, const char *schema);

#endif
