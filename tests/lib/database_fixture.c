#include "lib/database_fixture.h"

#include <ftw.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#if FERRY_HAVE_POSTGRESQL
#include <libpq-fe.h>
#endif
#if FERRY_HAVE_MARIADB
#include <mysql.h>
#endif

#include "lib/database_server.h"

#define SQL_MAX  8192
#define TEXT_MAX 4096

/* What a statement came to. */
struct answer {
    bool ok, has_value;
    char text[TEXT_MAX]; /* The value, or the database's words. */
};

const char *database_kind_name(enum database_kind kind)
{
    static const char *const names[DATABASE_KINDS] = {"sqlite", "postgresql", "mariadb"};
    return names[kind];
}

bool database_available(enum database_kind kind)
{
    static bool told[DATABASE_KINDS];
    bool built = kind == DATABASE_SQLITE ||
                 (kind == DATABASE_POSTGRESQL ? FERRY_HAVE_POSTGRESQL : FERRY_HAVE_MARIADB);
    bool available = built && server_installed(kind);
    if (!available && !told[kind]) {
        told[kind] = true;
        fprintf(stderr, "NOT TESTED on %s: %s\n", database_kind_name(kind),
                built ? "the server is not installed"
                      : "its client library was not there to build");
    }
    return available;
}

/* ---- One connection ------------------------------------------------------------------------ */

static void sqlite_connect(const struct database *d, struct database_link *link)
{
    sqlite3 *connection = NULL;
    assert_int_equal(sqlite3_open(d->name, &connection), SQLITE_OK);
    link->connection = connection;
    assert_int_equal(ferry_db_sqlite(&link->db, connection), FERRY_OK);
}

static void sqlite_ask(struct database_link *link, const char *sql, struct answer *answer)
{
    sqlite3_stmt *stmt = NULL;
    const char *rest = sql;
    int code = SQLITE_OK;
    while (code == SQLITE_OK && rest[0] != '\0') {
        code = sqlite3_prepare_v2(link->connection, rest, -1, &stmt, &rest);
        if (code == SQLITE_OK && stmt != NULL) {
            code = sqlite3_step(stmt);
            if (code == SQLITE_ROW && sqlite3_column_type(stmt, 0) != SQLITE_NULL) {
                answer->has_value = true;
                snprintf(answer->text, sizeof(answer->text), "%s",
                         (const char *)sqlite3_column_text(stmt, 0));
            }
            code = sqlite3_finalize(stmt);
        }
    }
    answer->ok = code == SQLITE_OK;
    if (!answer->ok) {
        snprintf(answer->text, sizeof(answer->text), "%s", sqlite3_errmsg(link->connection));
    }
}

#if FERRY_HAVE_POSTGRESQL
static PGconn *postgresql_open(const char *name)
{
    char info[256];
    snprintf(info, sizeof(info), "host=%s user=ferry dbname=%s", server_folder(DATABASE_POSTGRESQL),
             name);
    PGconn *connection = NULL;
    for (int i = 0; i < 500; i++) { /* It answers "starting up" for a moment. */
        connection = PQconnectdb(info);
        if (PQstatus(connection) == CONNECTION_OK) {
            return connection;
        }
        if (i < 499) {
            PQfinish(connection);
            usleep(20000);
        }
    }
    fail_msg("PostgreSQL: %s", PQerrorMessage(connection));
    return NULL;
}

static void quiet_notices(void *arg, const char *message)
{
    (void)arg;
    (void)message;
}

static void postgresql_connect(const char *name, struct database_link *link)
{
    PGconn *connection = postgresql_open(name);
    PQsetNoticeProcessor(connection, quiet_notices, NULL);
    link->connection = connection;
    assert_int_equal(ferry_db_postgresql(&link->db, connection, NULL), FERRY_OK);
}

static void postgresql_ask(struct database_link *link, const char *sql, struct answer *answer)
{
    PGresult *result = PQexec(link->connection, sql);
    ExecStatusType status = PQresultStatus(result);
    answer->ok = status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK;
    if (!answer->ok) {
        snprintf(answer->text, sizeof(answer->text), "%s", PQerrorMessage(link->connection));
    } else if (status == PGRES_TUPLES_OK && PQntuples(result) > 0 && !PQgetisnull(result, 0, 0)) {
        answer->has_value = true;
        snprintf(answer->text, sizeof(answer->text), "%s", PQgetvalue(result, 0, 0));
    }
    PQclear(result);
}
#endif

#if FERRY_HAVE_MARIADB
static MYSQL *maria_open(const char *name)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/socket", server_folder(DATABASE_MARIADB));
    MYSQL *connection = mysql_init(NULL);
    assert_non_null(connection);
    bool ok = false;
    for (int i = 0; i < 500 && !ok; i++) {
        ok = mysql_real_connect(connection, NULL, "root", NULL, name, 0, path,
                                CLIENT_MULTI_STATEMENTS) != NULL;
        if (!ok) {
            usleep(20000);
        }
    }
    if (!ok) {
        fail_msg("MariaDB: %s", mysql_error(connection));
    }
    return connection;
}

static void maria_link(const char *name, struct database_link *link)
{
    link->connection = maria_open(name);
    assert_int_equal(ferry_db_mariadb(&link->db, link->connection), FERRY_OK);
}

static void mariadb_ask(struct database_link *link, const char *sql, struct answer *answer)
{
    MYSQL *connection = link->connection;
    int code = mysql_query(connection, sql);
    while (code == 0) {
        MYSQL_RES *result = mysql_store_result(connection);
        if (result != NULL) {
            MYSQL_ROW row = mysql_fetch_row(result);
            if (row != NULL && row[0] != NULL) {
                answer->has_value = true;
                snprintf(answer->text, sizeof(answer->text), "%s", row[0]);
            }
            mysql_free_result(result);
        }
        code = mysql_next_result(connection);
    }
    answer->ok = mysql_errno(connection) == 0;
    if (!answer->ok) {
        snprintf(answer->text, sizeof(answer->text), "%s", mysql_error(connection));
    }
}
#endif

void database_connect(const struct database *d, struct database_link *link)
{
    memset(link, 0, sizeof(*link));
    link->kind = d->kind;
    if (d->kind == DATABASE_SQLITE) {
        sqlite_connect(d, link);
    }
#if FERRY_HAVE_POSTGRESQL
    if (d->kind == DATABASE_POSTGRESQL) {
        postgresql_connect(d->name, link);
    }
#endif
#if FERRY_HAVE_MARIADB
    if (d->kind == DATABASE_MARIADB) {
        maria_link(d->name, link);
    }
#endif
    assert_non_null(link->connection);
}

void database_disconnect(struct database_link *link)
{
    ferry_db_free(&link->db);
    if (link->connection == NULL) {
        return;
    }
    if (link->kind == DATABASE_SQLITE) {
        assert_int_equal(sqlite3_close(link->connection), SQLITE_OK);
    }
#if FERRY_HAVE_POSTGRESQL
    if (link->kind == DATABASE_POSTGRESQL) {
        PQfinish(link->connection);
    }
#endif
#if FERRY_HAVE_MARIADB
    if (link->kind == DATABASE_MARIADB) {
        mysql_close(link->connection);
    }
#endif
    link->connection = NULL;
}

void database_reconnect(const struct database *d, struct database_link *link)
{
    database_disconnect(link);
    database_connect(d, link);
}

/* ---- Statements ---------------------------------------------------------------------------- */

/* {name} becomes the table's name in this database. */
static void spell(enum database_kind kind, const char *sql, char *out, size_t room)
{
    size_t at = 0;
    bool open = false;
    for (; *sql != '\0'; sql++) {
        const char *put = kind == DATABASE_POSTGRESQL ? "ferry." : "ferry_";
        if (*sql == '{' && sql[1] >= 'a' && sql[1] <= 'z') {
            assert_true(at + strlen(put) < room);
            memcpy(out + at, put, strlen(put));
            at += strlen(put);
            open = true;
        } else if (open && *sql == '}') {
            open = false;
        } else {
            assert_true(at + 1 < room);
            out[at++] = *sql;
        }
    }
    out[at] = '\0';
}

static void ask(struct database_link *link, const char *sql, struct answer *answer)
{
    char spelt[SQL_MAX];
    spell(link->kind, sql, spelt, sizeof(spelt));
    memset(answer, 0, sizeof(*answer));
    if (link->kind == DATABASE_SQLITE) {
        sqlite_ask(link, spelt, answer);
    }
#if FERRY_HAVE_POSTGRESQL
    if (link->kind == DATABASE_POSTGRESQL) {
        postgresql_ask(link, spelt, answer);
    }
#endif
#if FERRY_HAVE_MARIADB
    if (link->kind == DATABASE_MARIADB) {
        mariadb_ask(link, spelt, answer);
    }
#endif
}

bool database_try(struct database_link *link, const char *sql)
{
    struct answer answer;
    ask(link, sql, &answer);
    return answer.ok;
}

static void ask_well(struct database_link *link, const char *sql, struct answer *answer)
{
    ask(link, sql, answer);
    if (!answer->ok) {
        fail_msg("%s: %s: %s", database_kind_name(link->kind), sql, answer->text);
    }
}

void database_exec(struct database_link *link, const char *sql)
{
    struct answer answer;
    ask_well(link, sql, &answer);
}

int64_t database_number(struct database_link *link, const char *sql)
{
    struct answer answer;
    ask_well(link, sql, &answer);
    return answer.has_value ? strtoll(answer.text, NULL, 10) : -1;
}

const char *database_text(struct database_link *link, const char *sql)
{
    static struct answer answer;
    ask_well(link, sql, &answer);
    return answer.has_value ? answer.text : NULL;
}

/* ---- One database -------------------------------------------------------------------------- */

/* On a connection to the server's own database. */
static void on_server(enum database_kind kind, const char *sql)
{
    struct database server = {.kind = kind};
    snprintf(server.name, sizeof(server.name), "%s",
             kind == DATABASE_POSTGRESQL ? "postgres" : "mysql");
    struct database_link link;
    database_connect(&server, &link);
    database_exec(&link, sql);
    database_disconnect(&link);
}

static void open_file(struct database *d)
{
    snprintf(d->folder, sizeof(d->folder), "/tmp/ferry-db-XXXXXX");
    assert_non_null(mkdtemp(d->folder));
    snprintf(d->name, sizeof(d->name), "%.40s/test.db", d->folder);
    snprintf(d->url, sizeof(d->url), "sqlite:%s", d->name);
}

static void open_on_server(struct database *d)
{
    static int count;
    char sql[128];
    snprintf(d->folder, sizeof(d->folder), "%s", server_folder(d->kind));
    snprintf(d->name, sizeof(d->name), "test_%d", ++count);
    snprintf(sql, sizeof(sql), "CREATE DATABASE %s", d->name);
    on_server(d->kind, sql);
    if (d->kind == DATABASE_POSTGRESQL) {
        snprintf(d->url, sizeof(d->url), "postgresql://ferry@/%s?host=%s", d->name, d->folder);
    } else {
        snprintf(d->url, sizeof(d->url), "mariadb://root@localhost/%s?socket=%s/socket", d->name,
                 d->folder);
    }
}

void database_open(struct database *d, enum database_kind kind)
{
    memset(d, 0, sizeof(*d));
    d->kind = kind;
    if (kind == DATABASE_SQLITE) {
        open_file(d);
    } else {
        open_on_server(d);
    }
    database_connect(d, &d->a);
}

void database_open_migrated(struct database *d, enum database_kind kind)
{
    database_open(d, kind);
    if (ferry_migrate(d->a.db) != FERRY_OK) {
        fail_msg("%s: %s", database_kind_name(kind), ferry_db_detail(d->a.db));
    }
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

void database_close(struct database *d)
{
    if (d->name[0] == '\0') {
        return;
    }
    database_disconnect(&d->a);
    if (d->kind == DATABASE_SQLITE) {
        nftw(d->folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    } else {
        char sql[128];
        snprintf(sql, sizeof(sql), "DROP DATABASE %s%s", d->name,
                 d->kind == DATABASE_POSTGRESQL ? " WITH (FORCE)" : "");
        on_server(d->kind, sql);
    }
    memset(d, 0, sizeof(*d));
}

void database_kill(const struct database *d, struct database_link *link)
{
    char sql[128] = "";
    assert_true(d->kind == link->kind);
#if FERRY_HAVE_POSTGRESQL
    if (link->kind == DATABASE_POSTGRESQL) {
        snprintf(sql, sizeof(sql), "SELECT pg_terminate_backend(%d, 5000)",
                 PQbackendPID(link->connection));
    }
#endif
#if FERRY_HAVE_MARIADB
    if (link->kind == DATABASE_MARIADB) {
        snprintf(sql, sizeof(sql), "KILL %lu", mysql_thread_id(link->connection));
    }
#endif
    assert_true(sql[0] != '\0');
    on_server(d->kind, sql);
}
