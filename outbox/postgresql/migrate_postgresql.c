#include "outbox/postgresql/migrate_postgresql.h"

#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "outbox/postgresql/pq_error.h"
#include "outbox/postgresql/schema_postgresql.h"

#define SQL_MAX    256u
#define SCRIPT_MAX (1u << 20)

static enum ferry_err simple(PGconn *connection, const char *sql, const char *doing,
                             struct err_text *e)
{
    PGresult *result = PQexec(connection, sql);
    ExecStatusType status = PQresultStatus(result);
    enum ferry_err err = status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK
                             ? FERRY_OK
                             : pq_error(connection, result, doing, e);
    PQclear(result);
    return err;
}

enum ferry_err migrate_postgresql_version(struct pg_conn *connection, const char *schema,
                                          int64_t *version, struct err_text *e)
{
    char sql[SQL_MAX];
    snprintf(sql, sizeof(sql), "SELECT to_regclass('%s.meta')", schema);
    PGresult *result = PQexec(connection, sql);
    bool there = PQresultStatus(result) == PGRES_TUPLES_OK && PQgetisnull(result, 0, 0) == 0;
    if (there) {
        PQclear(result);
        snprintf(sql, sizeof(sql), "SELECT value FROM %s.meta WHERE name = 'schema_version'",
                 schema);
        result = PQexec(connection, sql);
    }
    enum ferry_err err = FERRY_OK;
    *version = 0;
    if (PQresultStatus(result) != PGRES_TUPLES_OK) {
        err = pq_error(connection, result, "reading the schema version", e);
    } else if (there && PQntuples(result) > 0) {
        *version = strtoll(PQgetvalue(result, 0, 0), NULL, 10);
    }
    PQclear(result);
    return err;
}

enum ferry_err migrate_postgresql_check(const char *schema, int64_t version, struct err_text *e)
{
    if (version > SCHEMA_POSTGRESQL_VERSION) {
        return err_set(
            e, FERRY_ERR_NEWER_FORMAT,
            "the Ferry tables in schema %s have version %lld, this library knows %d: use "
            "a newer one",
            schema, (long long)version, SCHEMA_POSTGRESQL_VERSION);
    }
    if (version < SCHEMA_POSTGRESQL_VERSION) {
        return err_set(e, FERRY_ERR_DB_SCHEMA,
                       "the Ferry tables in schema %s are %s: run `ferry outbox init`", schema,
                       version == 0 ? "not there" : "old");
    }
    return FERRY_OK;
}

/* Whoever comes second waits here, until the first one's COMMIT. */
static enum ferry_err lock(PGconn *connection, const char *schema, struct err_text *e)
{
    char sql[SQL_MAX];
    int64_t number = (int64_t)checksum_of_two("ferry_migrate", 13, schema, strlen(schema));
    snprintf(sql, sizeof(sql), "SELECT pg_advisory_xact_lock(%lld)", (long long)number);
    return simple(connection, sql, "waiting for another migration", e);
}

static enum ferry_err run_step(PGconn *connection, const char *schema, int step, struct err_text *e)
{
    struct buf sql;
    buf_init(&sql, SCRIPT_MAX);
    schema_postgresql_write(&sql, step, schema);
    buf_append_u8(&sql, '\0');
    enum ferry_err err =
        buf_ok(&sql) ? simple(connection, (const char *)sql.data, "making Ferry's tables", e)
                     : err_set(e, FERRY_ERR_NO_MEMORY, "no memory for the tables' script");
    buf_fini(&sql);
    return err;
}

static enum ferry_err run_steps(PGconn *connection, const char *schema, struct err_text *e)
{
    int64_t version = 0;
    enum ferry_err err = lock(connection, schema, e);
    if (err == FERRY_OK) {
        err = migrate_postgresql_version(connection, schema, &version, e);
    }
    if (err == FERRY_OK && version > SCHEMA_POSTGRESQL_VERSION) {
        err = migrate_postgresql_check(schema, version, e);
    }
    for (int step = (int)version + 1; err == FERRY_OK && step <= SCHEMA_POSTGRESQL_VERSION;
         step++) {
        err = run_step(connection, schema, step, e);
    }
    return err;
}

enum ferry_err migrate_postgresql(struct pg_conn *connection, const char *schema,
                                  struct err_text *e)
{
    /* The second one must see what the first has committed while it waited. */
    enum ferry_err err =
        simple(connection, "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE", "BEGIN", e);
    if (err != FERRY_OK) {
        return err;
    }
    err = run_steps(connection, schema, e);
    if (err == FERRY_OK) {
        err = simple(connection, "COMMIT", "COMMIT", e);
    }
    if (err != FERRY_OK) {
        PQclear(PQexec(connection, "ROLLBACK"));
    }
    return err;
}
