#include "connection.h"

#include <libpq-fe.h>
#include <mysql.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUSY_MS 30000

struct connection_kind {
    const char *scheme;
    void (*open)(struct connection *c, const char *url);
    const char *(*sql)(struct connection *c, const char *sql); /* NULL, or what went wrong. */
    /* NULL: by statements, one after the other. */
    void (*transact)(struct connection *c, const struct ferry_message *message);
    void (*close)(struct connection *c);
};

static void die(const char *what, const char *why)
{
    fprintf(stderr, "outbox_app: %s: %s\n", what, why);
    exit(1);
}

static void check(enum ferry_err err, const char *url)
{
    if (err != FERRY_OK) {
        die(url, ferry_err_text(err));
    }
}

/* ---- SQLite. */

static void sqlite_open(struct connection *c, const char *url)
{
    sqlite3 *made = NULL;
    if (sqlite3_open(url + strlen("sqlite:"), &made) != SQLITE_OK) {
        die(url, sqlite3_errmsg(made));
    }
    sqlite3_busy_timeout(made, BUSY_MS);
    c->handle = made;
    check(ferry_db_sqlite(&c->db, made), url);
}

static const char *sqlite_sql(struct connection *c, const char *sql)
{
    return sqlite3_exec(c->handle, strcmp(sql, "BEGIN") == 0 ? "BEGIN IMMEDIATE" : sql, NULL, NULL,
                        NULL) == SQLITE_OK
               ? NULL
               : sqlite3_errmsg(c->handle);
}

static void sqlite_close(struct connection *c)
{
    sqlite3_close(c->handle);
}

/* ---- PostgreSQL. */

static void pg_open(struct connection *c, const char *url)
{
    PGconn *made = PQconnectdb(url);
    if (PQstatus(made) != CONNECTION_OK) {
        die("PostgreSQL", PQerrorMessage(made));
    }
    c->handle = made;
    check(ferry_db_postgresql(&c->db, made, NULL), "PostgreSQL");
}

static const char *pg_sql(struct connection *c, const char *sql)
{
    PGresult *r = PQexec(c->handle, sql);
    ExecStatusType status = PQresultStatus(r);
    PQclear(r);
    return status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK ? NULL
                                                                   : PQerrorMessage(c->handle);
}

static void pg_send(PGconn *connection, const char *sql)
{
    if (PQsendQueryParams(connection, sql, 0, NULL, NULL, NULL, NULL, 0) != 1) {
        die(sql, PQerrorMessage(connection));
    }
}

/* The pipeline's results until its end: each statement's, and a NULL behind it. */
static void pg_pipeline_end(PGconn *connection)
{
    ExecStatusType status = PGRES_COMMAND_OK;
    while (status != PGRES_PIPELINE_SYNC) {
        PGresult *r = PQgetResult(connection);
        if (r == NULL) {
            continue;
        }
        status = PQresultStatus(r);
        if (status != PGRES_COMMAND_OK && status != PGRES_PIPELINE_SYNC) {
            die("PostgreSQL's pipeline", PQresultErrorMessage(r));
        }
        PQclear(r);
    }
}

static void pg_transact(struct connection *c, const struct ferry_message *message)
{
    PGconn *connection = c->handle;
    if (PQpipelineStatus(connection) == PQ_PIPELINE_OFF) {
        check(ferry_outbox_prepare(c->db), ferry_db_detail(c->db));
        if (PQenterPipelineMode(connection) != 1) {
            die("PQenterPipelineMode", PQerrorMessage(connection));
        }
    }
    pg_send(connection, "BEGIN");
    check(ferry_outbox_put_async(c->db, message, NULL), ferry_db_detail(c->db));
    pg_send(connection, "COMMIT");
    if (PQpipelineSync(connection) != 1) {
        die("PQpipelineSync", PQerrorMessage(connection));
    }
    pg_pipeline_end(connection);
}

static void pg_close(struct connection *c)
{
    PQfinish(c->handle);
}

/* ---- MariaDB: mariadb://USER@HOST:PORT/DATABASE, without a password. */

static void maria_open(struct connection *c, const char *url)
{
    char user[64], host[64], database[64];
    unsigned port = 0;
    if (sscanf(url, "mariadb://%63[^@]@%63[^:]:%u/%63s", user, host, &port, database) != 4) {
        die("MariaDB", "write mariadb://USER@HOST:PORT/DATABASE");
    }
    MYSQL *made = mysql_init(NULL);
    if (made == NULL || mysql_real_connect(made, host, user, "", database, port, NULL, 0) == NULL) {
        die("MariaDB", made == NULL ? "out of memory" : mysql_error(made));
    }
    c->handle = made;
    check(ferry_db_mariadb(&c->db, made), "MariaDB");
}

static const char *maria_sql(struct connection *c, const char *sql)
{
    if (mysql_query(c->handle, sql) != 0) {
        return mysql_error(c->handle);
    }
    mysql_free_result(mysql_store_result(c->handle));
    return NULL;
}

static void maria_close(struct connection *c)
{
    mysql_close(c->handle);
}

/* ---- All. */

static const struct connection_kind kinds[] = {
    {"sqlite:", sqlite_open, sqlite_sql, NULL, sqlite_close},
    {"postgresql:", pg_open, pg_sql, pg_transact, pg_close},
    {"mariadb:", maria_open, maria_sql, NULL, maria_close},
};

void connection_open(struct connection *c, const char *url)
{
    *c = (struct connection){0};
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strncmp(url, kinds[i].scheme, strlen(kinds[i].scheme)) == 0) {
            c->kind = &kinds[i];
        }
    }
    if (c->kind == NULL) {
        die(url, "neither sqlite:, postgresql: nor mariadb:");
    }
    c->kind->open(c, url);
}

void connection_sql(struct connection *c, const char *sql)
{
    const char *why = c->kind->sql(c, sql);
    if (why != NULL) {
        die(sql, why);
    }
}

static void put(struct connection *c, const struct ferry_message *message, const char *end)
{
    connection_sql(c, "BEGIN");
    enum ferry_err err = ferry_outbox_put(c->db, message, NULL);
    if (err != FERRY_OK) {
        die(ferry_db_detail(c->db), ferry_err_text(err));
    }
    connection_sql(c, end);
}

void connection_warm(struct connection *c, const struct ferry_message *message)
{
    put(c, message, "ROLLBACK");
}

void connection_transact(struct connection *c, const struct ferry_message *message)
{
    if (c->kind->transact != NULL) {
        c->kind->transact(c, message);
    } else {
        put(c, message, "COMMIT");
    }
}

void connection_close(struct connection *c)
{
    ferry_db_free(&c->db);
    c->kind->close(c);
}
