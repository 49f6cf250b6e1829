#include <mysql.h>
#include <stdio.h>
#include <string.h>

#include "sql.h"

#define CONNECT_TIMEOUT_S 5

/* What a failure comes to: a transaction that may be repeated, or an error. */
static enum ferry_err failure(struct sql *s, unsigned code, const char *words)
{
    (void)snprintf(s->error, sizeof(s->error), "%s", words);
    switch (code) {
    case 1020: /* A row changed since it was read. */
    case 1205: /* Waited too long for a lock. */
    case 1213: /* Deadlock. */
        return FERRY_ERR_DB_RETRY;
    case 1053: /* The server stops. */
    case 1317: /* Interrupted. */
    case 1927: /* The connection was killed. */
        s->lost = true;
        return FERRY_ERR_DB_RETRY;
    default:
        if (code >= 2000 && code < 3000) { /* The client's own: no server, or no longer. */
            s->lost = true;
            return FERRY_ERR_DB_RETRY;
        }
        return FERRY_ERR_DB;
    }
}

/* mariadb://USER@HOST:PORT/DATABASE */
static enum ferry_err connect_to(struct sql *s)
{
    char user[64], host[128], database[64];
    unsigned port, timeout = CONNECT_TIMEOUT_S;
    if (sscanf(s->url, "mariadb://%63[^@]@%127[^:]:%u/%63s", user, host, &port, database) != 4) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    MYSQL *mysql = mysql_init(NULL);
    if (mysql == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    s->connection = mysql;
    mysql_options(mysql, MYSQL_OPT_CONNECT_TIMEOUT, &timeout);
    if (mysql_real_connect(mysql, host, user, NULL, database, port, NULL, 0) == NULL) {
        return failure(s, mysql_errno(mysql), mysql_error(mysql));
    }
    return ferry_db_mariadb(&s->db, mysql);
}

static void disconnect_from(struct sql *s)
{
    mysql_close(s->connection);
}

static enum ferry_err fetch_number(MYSQL_STMT *prepared, int64_t *result)
{
    long long number = 0;
    my_bool null = 0;
    MYSQL_BIND column = {.buffer_type = MYSQL_TYPE_LONGLONG, .buffer = &number, .is_null = &null};
    if (mysql_stmt_bind_result(prepared, &column) != 0 || mysql_stmt_store_result(prepared) != 0) {
        return FERRY_ERR_DB;
    }
    *result = mysql_stmt_fetch(prepared) == 0 && !null ? number : SQL_NOTHING;
    return FERRY_OK;
}

static enum ferry_err execute(struct sql *s, MYSQL_STMT *prepared, int64_t *result,
                              const char *statement, MYSQL_BIND *binds)
{
    if (mysql_stmt_prepare(prepared, statement, (unsigned long)strlen(statement)) != 0 ||
        mysql_stmt_bind_param(prepared, binds) != 0 || mysql_stmt_execute(prepared) != 0) {
        return failure(s, mysql_stmt_errno(prepared), mysql_stmt_error(prepared));
    }
    if (mysql_stmt_field_count(prepared) == 0) {
        *result = (int64_t)mysql_stmt_affected_rows(prepared);
        return FERRY_OK;
    }
    enum ferry_err err = fetch_number(prepared, result);
    return err == FERRY_OK ? FERRY_OK
                           : failure(s, mysql_stmt_errno(prepared), mysql_stmt_error(prepared));
}

static enum ferry_err run(struct sql *s, int64_t *result, const char *statement,
                          const struct sql_value *values, size_t count)
{
    MYSQL_BIND binds[SQL_PARAMETERS_MAX] = {{0}};
    *result = SQL_NOTHING;
    if (count == 0) { /* BEGIN and its like cannot be prepared. */
        return mysql_query(s->connection, statement) == 0
                   ? FERRY_OK
                   : failure(s, mysql_errno(s->connection), mysql_error(s->connection));
    }
    for (size_t i = 0; i < count; i++) {
        bool text = values[i].text != NULL;
        binds[i].buffer_type = text ? MYSQL_TYPE_STRING : MYSQL_TYPE_LONGLONG;
        /* Only read from. */
        binds[i].buffer =
            text ? (void *)(uintptr_t)values[i].text : (void *)(uintptr_t)&values[i].number;
        binds[i].buffer_length = text ? (unsigned long)strlen(values[i].text) : 0;
    }
    MYSQL_STMT *prepared = mysql_stmt_init(s->connection);
    if (prepared == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    enum ferry_err err = execute(s, prepared, result, statement, binds);
    mysql_stmt_close(prepared);
    return err;
}

const struct sql_ops sql_mariadb = {
    .begin = "BEGIN",
    .tables = "CREATE TABLE account (id BIGINT PRIMARY KEY, balance BIGINT NOT NULL"
              " CHECK (balance >= 0), version BIGINT NOT NULL);;"
              "CREATE TABLE entry (saga CHAR(36), step INT, undone INT, account BIGINT,"
              " amount BIGINT, version BIGINT);;"
              "CREATE TABLE transfer (number BIGINT PRIMARY KEY, saga CHAR(36) UNIQUE,"
              " kind CHAR(1), amount BIGINT, fee BIGINT, state INT);;"
              "CREATE TABLE ledger (msg_id CHAR(32), topic VARCHAR(64));;"
              "CREATE TRIGGER to_ledger AFTER INSERT ON ferry_outbox FOR EACH ROW"
              " INSERT INTO ledger VALUES (LOWER(HEX(NEW.msg_id)), NEW.topic)",
    .connect = connect_to,
    .disconnect = disconnect_from,
    .run = run,
};
