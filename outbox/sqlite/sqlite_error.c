#include "outbox/sqlite/sqlite_error.h"

#include <sqlite3.h>
#include <string.h>

#include "outbox/sqlite/schema_sqlite.h"

enum ferry_err sqlite_error(struct sqlite3 *connection, int code, const char *doing,
                            struct err_text *e)
{
    const char *words = connection == NULL ? sqlite3_errstr(code) : sqlite3_errmsg(connection);
    switch (code & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return err_set(e, FERRY_ERR_DB_RETRY, "%s: %s: roll back and repeat the transaction", doing,
                       words);
    case SQLITE_NOMEM:
        return err_set(e, FERRY_ERR_NO_MEMORY, "%s: out of memory", doing);
    case SQLITE_ERROR:
        if (strncmp(words, "no such table: ", 15) == 0 ||
            strstr(words, "has no column named") != NULL ||
            strncmp(words, "no such column: ", 16) == 0) {
            return err_set(e, FERRY_ERR_DB_SCHEMA, "%s: %s: run `ferry outbox init`", doing, words);
        }
        break;
    default:
        break;
    }
    return err_set(e, FERRY_ERR_DB, "%s: %s", doing, words);
}

static enum ferry_err read_version(struct sqlite3 *connection, sqlite3_stmt *stmt, int64_t *version,
                                   struct err_text *e)
{
    int code = sqlite3_step(stmt);
    if (code == SQLITE_ROW) {
        *version = sqlite3_column_int64(stmt, 0);
        return FERRY_OK;
    }
    if (code == SQLITE_DONE) {
        *version = 0;
        return FERRY_OK;
    }
    return sqlite_error(connection, code, "reading the schema version", e);
}

enum ferry_err sqlite_schema_version(struct sqlite3 *connection, int64_t *version,
                                     struct err_text *e)
{
    sqlite3_stmt *stmt = NULL;
    int code = sqlite3_prepare_v2(connection,
                                  "SELECT value FROM main.ferry_meta WHERE name = 'schema_version'",
                                  -1, &stmt, NULL);
    if (code != SQLITE_OK) {
        enum ferry_err err = sqlite_error(connection, code, "reading the schema version", e);
        if (err == FERRY_ERR_DB_SCHEMA) {
            *version = 0;
            return FERRY_OK;
        }
        return err;
    }
    enum ferry_err err = read_version(connection, stmt, version, e);
    sqlite3_finalize(stmt);
    return err;
}

enum ferry_err sqlite_schema_check(struct sqlite3 *connection, const char *name, struct err_text *e)
{
    int64_t version = 0;
    enum ferry_err err = sqlite_schema_version(connection, &version, e);
    if (err != FERRY_OK) {
        return err;
    }
    if (version > SCHEMA_SQLITE_VERSION) {
        return err_set(
            e, FERRY_ERR_NEWER_FORMAT,
            "%s: its Ferry tables have version %lld, this program knows %d: start a newer "
            "Ferry",
            name, (long long)version, SCHEMA_SQLITE_VERSION);
    }
    if (version < SCHEMA_SQLITE_VERSION) {
        return err_set(e, FERRY_ERR_DB_SCHEMA,
                       version == 0
                           ? "%s: it has no Ferry tables: run `ferry outbox init sqlite:%s`"
                           : "%s: its Ferry tables are old: run `ferry outbox init sqlite:%s`",
                       name, name);
    }
    return FERRY_OK;
}
