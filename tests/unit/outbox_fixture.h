/* outbox_fixture: a folder and a SQLite database with Ferry's tables, for each test anew. */
#ifndef FERRY_TESTS_OUTBOX_FIXTURE_H
#define FERRY_TESTS_OUTBOX_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <ftw.h>
#include <sqlite3.h>

#include "ferry_outbox.h"

struct fixture {
    char folder[64];
    char path[96];
    sqlite3 *connection;
    struct ferry_db *db;
};

static inline int fixture_remove_one(const char *path, const struct stat *st, int flag,
                                     struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static inline sqlite3 *fixture_connect(const struct fixture *f)
{
    sqlite3 *connection = NULL;
    assert_int_equal(sqlite3_open(f->path, &connection), SQLITE_OK);
    return connection;
}

static inline int fixture_setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    snprintf(f->folder, sizeof(f->folder), "/tmp/ferry-outbox-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    snprintf(f->path, sizeof(f->path), "%s/shop.db", f->folder);
    f->connection = fixture_connect(f);
    assert_int_equal(ferry_db_sqlite(&f->db, f->connection), FERRY_OK);
    assert_int_equal(ferry_migrate(f->db), FERRY_OK);
    *state = f;
    return 0;
}

static inline int fixture_teardown(void **state)
{
    struct fixture *f = *state;
    ferry_db_free(&f->db);
    sqlite3_close(f->connection);
    nftw(f->folder, fixture_remove_one, 8, FTW_DEPTH | FTW_PHYS);
    free(f);
    return 0;
}

static inline void fixture_exec_on(sqlite3 *connection, const char *sql)
{
    char *words = NULL;
    if (sqlite3_exec(connection, sql, NULL, NULL, &words) != SQLITE_OK) {
        fail_msg("%s: %s", sql, words);
    }
}

static inline void fixture_exec(struct fixture *f, const char *sql)
{
    fixture_exec_on(f->connection, sql);
}

/* The first column of the first row; -1: no row. */
static inline int64_t fixture_number(struct fixture *f, const char *sql)
{
    sqlite3_stmt *stmt = NULL;
    if (sqlite3_prepare_v2(f->connection, sql, -1, &stmt, NULL) != SQLITE_OK) {
        fail_msg("%s: %s", sql, sqlite3_errmsg(f->connection));
    }
    int64_t number = sqlite3_step(stmt) == SQLITE_ROW ? sqlite3_column_int64(stmt, 0) : -1;
    sqlite3_finalize(stmt);
    return number;
}

#define FIXTURE_TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

#endif
