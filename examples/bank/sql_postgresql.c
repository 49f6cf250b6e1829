#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sql.h"

#define STATEMENT_MAX 512

/* What a failure comes to: a transaction that may be repeated, or an error. */
static enum ferry_err failure(struct sql *s, const PGresult *result)
{
    const char *state = result != NULL ? PQresultErrorField(result, PG_DIAG_SQLSTATE) : NULL;
    (void)snprintf(s->error, sizeof(s->error), "%s", PQerrorMessage(s->connection));
    if (PQstatus(s->connection) == CONNECTION_BAD) {
        s->lost = true;
        return FERRY_ERR_DB_RETRY;
    }
    if (state == NULL) {
        return FERRY_ERR_DB;
    }
    bool again = strncmp(state, "40", 2) == 0 ||   /* Deadlock, serialization. */
                 strncmp(state, "57P0", 4) == 0 || /* The server stops or starts. */
                 strcmp(state, "55P03") == 0;      /* A lock was not available. */
    return again ? FERRY_ERR_DB_RETRY : FERRY_ERR_DB;
}

static enum ferry_err postgresql_connect(struct sql *s)
{
    s->connection = PQconnectdb(s->url);
    if (PQstatus(s->connection) != CONNECTION_OK) {
        return failure(s, NULL);
    }
    return ferry_db_postgresql(&s->db, s->connection, NULL);
}

static void postgresql_disconnect(struct sql *s)
{
    PQfinish(s->connection);
}

/* PostgreSQL counts its parameters: $1, $2, … */
static void number_parameters(const char *statement, char text[STATEMENT_MAX])
{
    size_t used = 0;
    char number = '1';
    for (; *statement != '\0' && used + 3 < STATEMENT_MAX; statement++) {
        if (*statement == '?') {
            text[used++] = '$';
            text[used++] = number++;
        } else {
            text[used++] = *statement;
        }
    }
    text[used] = '\0';
}

static enum ferry_err postgresql_run(struct sql *s, int64_t *result, const char *statement,
                                     const struct sql_value *values, size_t count)
{
    char text[STATEMENT_MAX], numbers[SQL_PARAMETERS_MAX][24];
    const char *parameters[SQL_PARAMETERS_MAX] = {NULL};
    for (size_t i = 0; i < count; i++) {
        (void)snprintf(numbers[i], sizeof(numbers[i]), "%lld", (long long)values[i].number);
        parameters[i] = values[i].text != NULL ? values[i].text : numbers[i];
    }
    PGresult *answer = NULL;
    if (count == 0) {
        answer = PQexec(s->connection, statement);
    } else {
        number_parameters(statement, text);
        answer = PQexecParams(s->connection, text, (int)count, NULL, parameters, NULL, NULL, 0);
    }
    enum ferry_err err = FERRY_OK;
    *result = SQL_NOTHING;
    switch (PQresultStatus(answer)) {
    case PGRES_TUPLES_OK:
        if (PQntuples(answer) > 0) {
            *result = strtoll(PQgetvalue(answer, 0, 0), NULL, 10);
        }
        break;
    case PGRES_COMMAND_OK:
        *result = strtoll(PQcmdTuples(answer), NULL, 10);
        break;
    default:
        err = failure(s, answer);
        break;
    }
    PQclear(answer);
    return err;
}

const struct sql_ops sql_postgresql = {
    .begin = "BEGIN",
    .tables = "CREATE TABLE account (id bigint PRIMARY KEY, balance bigint NOT NULL"
              " CHECK (balance >= 0), version bigint NOT NULL);;"
              "CREATE TABLE entry (saga text, step int, undone int, account bigint, amount bigint,"
              " version bigint);;"
              "CREATE TABLE transfer (number bigint PRIMARY KEY, saga text UNIQUE, kind text,"
              " amount bigint, fee bigint, state int);;"
              "CREATE TABLE ledger (msg_id text, topic text);;"
              "CREATE FUNCTION to_ledger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
              " INSERT INTO ledger VALUES (replace(NEW.msg_id::text, '-', ''), NEW.topic);"
              " RETURN NULL; END $$;;"
              "CREATE TRIGGER to_ledger AFTER INSERT ON ferry.outbox FOR EACH ROW"
              " EXECUTE FUNCTION to_ledger()",
    .connect = postgresql_connect,
    .disconnect = postgresql_disconnect,
    .run = postgresql_run,
};
