/* database_server: the server processes of database_fixture. */
#ifndef FERRY_TESTS_DATABASE_SERVER_H
#define FERRY_TESTS_DATABASE_SERVER_H

#include "lib/database_fixture.h"

/* Whether the programs are installed. */
bool server_installed(enum database_kind kind);
/* The folder with the server's socket (PostgreSQL: .s.PGSQL.5432, MariaDB: socket); starts it.
 * Fails the test if it does not come up. */
const char *server_folder(enum database_kind kind);
/* For tests with servers of their own: a program as the unprivileged user, in that folder, which is
 * made for that user; it dies with the test. server_run waits, and fails the test if it fails. */
void server_make_folder(char folder[64]);
int server_spawn(const char *folder, const char *const *arguments);
void server_run(const char *folder, const char *const *arguments);

#endif
