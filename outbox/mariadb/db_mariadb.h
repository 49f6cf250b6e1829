/* db_mariadb: limits of the adapter, and the name under which relay and applications of one machine
 * find each other. */
#ifndef FERRY_OUTBOX_DB_MARIADB_H
#define FERRY_OUTBOX_DB_MARIADB_H

#include "outbox/app/db.h"

#define DB_MARIADB_ROWS            64         /* Of one INSERT. */
#define DB_MARIADB_ROWS_BYTES      (4u << 20) /* The same; max_allowed_packet is 16 MiB. */
#define DB_MARIADB_STATEMENT_MAX   (64u << 10)
#define DB_MARIADB_ANSWER_MAX      (16u << 20) /* Of one row that is read. */
#define DB_MARIADB_MIGRATE_SECONDS 60          /* So long a migration waits for another. */
#define DB_MARIADB_PLACE_MAX       320
#define DB_MARIADB_KEY_LOCKS       65536u /* Rows of ferry_key. */

/* The place for wake.h: "@mariadb-SERVER-DATABASE", of @@server_uid, or where there is none (before
 * 10.6.16) HOSTNAME:PORT of @@hostname and @@port, and DATABASE(). */
#define DB_MARIADB_PLACE_SQL                                                                       \
    "SELECT CONCAT('@mariadb-', COALESCE((SELECT VARIABLE_VALUE FROM "                             \
    "information_schema.GLOBAL_VARIABLES WHERE VARIABLE_NAME = 'SERVER_UID'), "                    \
    "CONCAT(@@hostname, ':', @@port)), '-', DATABASE())"

#endif
