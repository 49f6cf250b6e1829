/* schema_mariadb: the DDL files of outbox/mariadb/schema, carried in the binary. */
#ifndef FERRY_OUTBOX_SCHEMA_MARIADB_H
#define FERRY_OUTBOX_SCHEMA_MARIADB_H

#define SCHEMA_MARIADB_VERSION 1 /* What this build makes and knows. */

/* Of (lane, id), made and dropped by `ferry outbox lanes`; not there with one lane. */
#define SCHEMA_MARIADB_LANE_INDEX "ferry_outbox_lane"

/* The step to schema version `version` from the one before it; NULL when there is no such version.
 * Static text of several statements. */
const char *schema_mariadb_step(int version);

#endif
