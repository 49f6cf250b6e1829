/* databases_fixture: the same test body on every database that is there. */
#ifndef FERRY_TESTS_DATABASES_FIXTURE_H
#define FERRY_TESTS_DATABASES_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/database_fixture.h"

/* A test's state is its struct database, with Ferry's tables. */
static inline int database_setup_of(void **state, enum database_kind kind)
{
    struct database *d = calloc(1, sizeof(*d));
    assert_non_null(d);
    *state = d;
    if (database_available(kind)) {
        database_open_migrated(d, kind);
    }
    return 0;
}

static inline int on_sqlite(void **state)
{
    return database_setup_of(state, DATABASE_SQLITE);
}

static inline int on_postgresql(void **state)
{
    return database_setup_of(state, DATABASE_POSTGRESQL);
}

static inline int on_mariadb(void **state)
{
    return database_setup_of(state, DATABASE_MARIADB);
}

static inline int database_teardown(void **state)
{
    database_close(*state);
    free(*state);
    return 0;
}

/* At the head of a test: its database, or the test ends here as skipped. */
static inline struct database *database_of(void **state)
{
    struct database *d = *state;
    if (d->name[0] == '\0') {
        skip();
    }
    return d;
}

#define DATABASE_TEST_ON(test, kind)                                                               \
    {                                                                                              \
#test " on " #kind, test, on_##kind, database_teardown, NULL                               \
    }
#define DATABASE_TESTS(test)                                                                       \
    DATABASE_TEST_ON(test, sqlite), DATABASE_TEST_ON(test, postgresql),                            \
        DATABASE_TEST_ON(test, mariadb)
#define SERVER_TESTS(test) DATABASE_TEST_ON(test, postgresql), DATABASE_TEST_ON(test, mariadb)

#endif
