/* migrate_mariadb: Ferry's tables of a MariaDB database: their version, and how they are made.
 * Works on the caller's connection; all but migrate_mariadb() may be called inside a transaction.
 */
#ifndef FERRY_OUTBOX_MIGRATE_MARIADB_H
#define FERRY_OUTBOX_MIGRATE_MARIADB_H

#include "base/err.h"

struct st_mysql;

/* The first column of the first row: -1, or an empty text, when there is none. Errors: as
 * maria_error's. */
MUST_CHECK enum ferry_err migrate_mariadb_number(struct st_mysql *connection, const char *sql,
                                                 int64_t *number, struct err_text *e);
MUST_CHECK enum ferry_err migrate_mariadb_text(struct st_mysql *connection, const char *sql,
                                               char *text, size_t room, struct err_text *e);

/* 0: there are no tables. Errors: as maria_error's. */
MUST_CHECK enum ferry_err migrate_mariadb_version(struct st_mysql *connection, int64_t *version,
                                                  struct err_text *e);
/* DB_SCHEMA or NEWER_FORMAT unless it is ours. */
MUST_CHECK enum ferry_err migrate_mariadb_check(int64_t version, struct err_text *e);

/* As ferry_migrate. MariaDB commits after each statement, so a lock of the server (GET_LOCK), and
 * no transaction, keeps a second one out. */
MUST_CHECK enum ferry_err migrate_mariadb(struct st_mysql *connection, struct err_text *e);

#endif
