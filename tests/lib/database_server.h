/* database_server: the server processes of database_fixture. */
#ifndef FERRY_TESTS_DATABASE_SERVER_H
#define FERRY_TESTS_DATABASE_SERVER_H

#include "lib/database_fixture.h"

/* Whether the programs are installed. */
bool server_installed(enum database_kind kind);
/* The folder with the server's socket (PostgreSQL: .s.PGSQL.5432, MariaDB: socket); starts it.
 * Fails the test if it does not come up. */
const char *server_folder(enum database_kind kind);

#endif
