/* database_fixture: real databases for tests: SQLite files, and one PostgreSQL and one MariaDB
 * server for the test program, started on first use in a temporary folder, on a unix socket and no
 * port.
 *
 * Each database_open() makes a database of its own. The servers are stopped, and the folder
 * removed, when the program ends; when it is killed, the kernel ends the servers. As root they run
 * as an unprivileged user. By default they do not sync (FERRY_TEST_FSYNC=1: they do). */
#ifndef FERRY_TESTS_DATABASE_FIXTURE_H
#define FERRY_TESTS_DATABASE_FIXTURE_H

#include <stdbool.h>
#include <stdint.h>

#include "ferry_outbox.h"

enum database_kind { DATABASE_SQLITE, DATABASE_POSTGRESQL, DATABASE_MARIADB, DATABASE_KINDS };

/* One connection to it, with its adapter. */
struct database_link {
    enum database_kind kind;
    void *connection; /* sqlite3, PGconn or MYSQL. */
    struct ferry_db *db;
};

struct database {
    enum database_kind kind;
    char name[64];          /* Of a server's database; of SQLite's file. */
    char url[256];          /* For the relay and the command line. */
    char folder[64];        /* SQLite: its file's. A server's: that of the socket. */
    struct database_link a; /* The first connection; a test makes more. */
};

const char *database_kind_name(enum database_kind kind); /* "sqlite", "postgresql", "mariadb". */

/* Whether the driver was built and the server is installed. If not, says so on stderr once. */
bool database_available(enum database_kind kind);

/* A new database, connected, without Ferry's tables; database_open_migrated: with them. Any failure
 * fails the test. */
void database_open(struct database *d, enum database_kind kind);
void database_open_migrated(struct database *d, enum database_kind kind);
void database_close(struct database *d); /* Drops it. Accepts zeroed memory. */

void database_connect(const struct database *d, struct database_link *link);
/* Closes the connection and opens it again, with a new adapter. */
void database_reconnect(const struct database *d, struct database_link *link);
void database_disconnect(struct database_link *link); /* Accepts zeroed memory. */
/* The server ends the connection's session, as a crash of the network would look. Not SQLite. */
void database_kill(const struct database *d, struct database_link *link);

/* Statements that return nothing; for all databases Ferry's tables are written {outbox},
 * {inbox_id}, … ({outbox}: ferry_outbox, or ferry.outbox on PostgreSQL). database_try answers
 * whether it succeeded. */
void database_exec(struct database_link *link, const char *sql);
bool database_try(struct database_link *link, const char *sql);
/* The first column of the first row as a number; -1: no row, or NULL. */
int64_t database_number(struct database_link *link, const char *sql);
/* As text; lives until the next call. NULL: no row, or NULL. */
const char *database_text(struct database_link *link, const char *sql);

/* For tests that kill servers: stops it at once, as a crash does, and starts it again. */
void database_server_crash(enum database_kind kind);
void database_server_start(enum database_kind kind);
int database_server_pid(enum database_kind kind);

#endif
