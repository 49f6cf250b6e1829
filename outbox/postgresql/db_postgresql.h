/* db_postgresql: limits of the adapter, and the name under which relay and applications of one
 * machine find each other. */
#ifndef FERRY_OUTBOX_DB_POSTGRESQL_H
#define FERRY_OUTBOX_DB_POSTGRESQL_H

#include "outbox/app/db.h"

#define DB_POSTGRESQL_COPY_ROWS   256         /* More rows than this are put by COPY. */
#define DB_POSTGRESQL_COPY_BYTES  (1u << 20)  /* Handed over at a time, and one array's rows. */
#define DB_POSTGRESQL_SCRATCH_MAX (16u << 20) /* COPY_BYTES, and one message that goes over. */
#define DB_POSTGRESQL_PLACE_MAX   96

/* The place for wake.h: "@postgresql-SYSTEM-OID", of the server's system identifier
 * (pg_control_system) and the database's oid (pg_database), both in decimal. */
void db_postgresql_place(char place[DB_POSTGRESQL_PLACE_MAX], const char *system, const char *oid);

#endif
