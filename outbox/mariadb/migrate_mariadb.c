#include "outbox/mariadb/migrate_mariadb.h"

#include <mysql.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "outbox/mariadb/db_mariadb.h"
#include "outbox/mariadb/maria_error.h"
#include "outbox/mariadb/schema_mariadb.h"

#define UNKNOWN_TABLE 1146u

static enum ferry_err failed(MYSQL *connection, const char *doing, struct err_text *e)
{
    return maria_error(mysql_errno(connection), mysql_error(connection), doing, e);
}

enum ferry_err migrate_mariadb_text(struct st_mysql *connection, const char *sql, char *text,
                                    size_t room, struct err_text *e)
{
    MYSQL_RES *result = mysql_query(connection, sql) == 0 ? mysql_store_result(connection) : NULL;
    if (result == NULL) {
        return failed(connection, "reading Ferry's tables", e);
    }
    MYSQL_ROW row = mysql_fetch_row(result);
    snprintf(text, room, "%s", row == NULL || row[0] == NULL ? "" : row[0]);
    mysql_free_result(result);
    return FERRY_OK;
}

enum ferry_err migrate_mariadb_number(struct st_mysql *connection, const char *sql, int64_t *number,
                                      struct err_text *e)
{
    char text[32] = "";
    enum ferry_err err = migrate_mariadb_text(connection, sql, text, sizeof(text), e);
    *number = text[0] == '\0' ? -1 : strtoll(text, NULL, 10);
    return err;
}

enum ferry_err migrate_mariadb_version(struct st_mysql *connection, int64_t *version,
                                       struct err_text *e)
{
    enum ferry_err err = migrate_mariadb_number(
        connection, "SELECT value FROM ferry_meta WHERE name = 'schema_version'", version, e);
    if (err != FERRY_OK && mysql_errno(connection) == UNKNOWN_TABLE) {
        e->text[0] = '\0';
        err = FERRY_OK;
    }
    /* Without the row the tables were begun and not finished. */
    if (*version < 0) {
        *version = 0;
    }
    return err;
}

enum ferry_err migrate_mariadb_check(int64_t version, struct err_text *e)
{
    if (version > SCHEMA_MARIADB_VERSION) {
        return err_set(e, FERRY_ERR_NEWER_FORMAT,
                       "the Ferry tables have version %lld, this library knows %d: use a newer one",
                       (long long)version, SCHEMA_MARIADB_VERSION);
    }
    if (version < SCHEMA_MARIADB_VERSION) {
        return err_set(e, FERRY_ERR_DB_SCHEMA, "the Ferry tables are %s: run `ferry outbox init`",
                       version == 0 ? "not there" : "old");
    }
    return FERRY_OK;
}

/* The next statement of the script, without lines of comment; false: there is none. */
static bool next_statement(const char **script, struct buf *sql)
{
    buf_clear(sql);
    while (**script != '\0') {
        size_t size = strcspn(*script, "\n");
        const char *line = *script;
        *script += size + (line[size] == '\n' ? 1 : 0);
        if (size == 0 || strncmp(line, "--", 2) == 0) {
            continue;
        }
        buf_append(sql, line, size);
        buf_append_u8(sql, '\n');
        if (line[size - 1] == ';') {
            sql->size -= 2; /* Neither is sent. */
            return true;
        }
    }
    return false;
}

static enum ferry_err run_step(MYSQL *connection, const char *script, struct err_text *e)
{
    struct buf sql;
    buf_init(&sql, DB_MARIADB_STATEMENT_MAX);
    enum ferry_err err = FERRY_OK;
    while (err == FERRY_OK && next_statement(&script, &sql)) {
        if (!buf_ok(&sql)) {
            err = err_set(e, FERRY_ERR_NO_MEMORY, "no memory for the tables' script");
        } else if (mysql_real_query(connection, (const char *)sql.data, (unsigned long)sql.size) !=
                   0) {
            err = failed(connection, "making Ferry's tables", e);
        }
    }
    buf_fini(&sql);
    return err;
}

static enum ferry_err migrate_locked(MYSQL *connection, struct err_text *e)
{
    int64_t version = 0;
    enum ferry_err err = migrate_mariadb_version(connection, &version, e);
    if (err == FERRY_OK && version > SCHEMA_MARIADB_VERSION) {
        err = migrate_mariadb_check(version, e);
    }
    for (int step = (int)version + 1; err == FERRY_OK && step <= SCHEMA_MARIADB_VERSION; step++) {
        err = run_step(connection, schema_mariadb_step(step), e);
    }
    return err;
}

enum ferry_err migrate_mariadb(struct st_mysql *connection, struct err_text *e)
{
    char sql[128];
    int64_t locked = 0;
    int64_t released = 0;
    /* The name of a lock has 64 characters at most, that of a database 64 as well: its digest. */
    snprintf(sql, sizeof(sql), "SELECT GET_LOCK(CONCAT('ferry.migrate.', MD5(DATABASE())), %d)",
             DB_MARIADB_MIGRATE_SECONDS);
    enum ferry_err err = migrate_mariadb_number(connection, sql, &locked, e);
    if (err != FERRY_OK) {
        return err;
    }
    if (locked < 0) {
        return err_set(e, FERRY_ERR_DB, "the connection has no database: name one");
    }
    if (locked != 1) {
        return err_set(e, FERRY_ERR_DB_RETRY,
                       "another migration has been at it for %d s: try later",
                       DB_MARIADB_MIGRATE_SECONDS);
    }
    err = migrate_locked(connection, e);
    struct err_text ignored;
    if (migrate_mariadb_number(connection,
                               "SELECT RELEASE_LOCK(CONCAT('ferry.migrate.', MD5(DATABASE())))",
                               &released, &ignored) != FERRY_OK &&
        err == FERRY_OK) {
        err = failed(connection, "ending the migration", e);
    }
    return err;
}
