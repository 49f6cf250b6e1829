#include <sqlite3.h>
#include <stdio.h>

#include "sql.h"

#define BUSY_TIMEOUT_MS 5000

static enum ferry_err result_of(struct sql *s, int code)
{
    if (code == SQLITE_OK || code == SQLITE_DONE || code == SQLITE_ROW) {
        return FERRY_OK;
    }
    (void)snprintf(s->error, sizeof(s->error), "%s", sqlite3_errmsg(s->connection));
    return (code & 0xff) == SQLITE_BUSY ? FERRY_ERR_DB_RETRY : FERRY_ERR_DB;
}

static enum ferry_err sqlite_connect(struct sql *s)
{
    sqlite3 *sqlite = NULL;
    int code = sqlite3_open(s->url + sizeof("sqlite:") - 1, &sqlite);
    s->connection = sqlite;
    if (code != SQLITE_OK) {
        return result_of(s, code);
    }
    sqlite3_busy_timeout(sqlite, BUSY_TIMEOUT_MS);
    return ferry_db_sqlite(&s->db, sqlite);
}

static void sqlite_disconnect(struct sql *s)
{
    sqlite3_close(s->connection);
}

static enum ferry_err sqlite_run(struct sql *s, int64_t *result, const char *statement,
                                 const struct sql_value *values, size_t count)
{
    sqlite3_stmt *prepared = NULL;
    int code = sqlite3_prepare_v2(s->connection, statement, -1, &prepared, NULL);
    for (size_t i = 0; code == SQLITE_OK && i < count; i++) {
        int at = (int)i + 1;
        code = values[i].text != NULL
                   ? sqlite3_bind_text(prepared, at, values[i].text, -1, SQLITE_STATIC)
                   : sqlite3_bind_int64(prepared, at, values[i].number);
    }
    *result = SQL_NOTHING;
    if (code == SQLITE_OK) {
        code = sqlite3_step(prepared);
    }
    if (code == SQLITE_ROW) {
        *result = sqlite3_column_int64(prepared, 0);
    } else if (code == SQLITE_DONE && sqlite3_column_count(prepared) == 0) {
        *result = sqlite3_changes(s->connection);
    }
    enum ferry_err err = result_of(s, code);
    sqlite3_finalize(prepared);
    return err;
}

const struct sql_ops sql_sqlite = {
    .begin = "BEGIN IMMEDIATE",
    .tables = "CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL"
              " CHECK (balance >= 0), version INTEGER NOT NULL);;"
              "CREATE TABLE entry (saga TEXT, step INTEGER, undone INTEGER, account INTEGER,"
              " amount INTEGER, version INTEGER);;"
              "CREATE TABLE transfer (number INTEGER PRIMARY KEY, saga TEXT UNIQUE, kind TEXT,"
              " amount INTEGER, fee INTEGER, state INTEGER);;"
              "CREATE TABLE ledger (msg_id TEXT, topic TEXT);;"
              "CREATE TRIGGER to_ledger AFTER INSERT ON ferry_outbox BEGIN"
              " INSERT INTO ledger VALUES (lower(hex(NEW.msg_id)), NEW.topic); END",
    .connect = sqlite_connect,
    .disconnect = sqlite_disconnect,
    .run = sqlite_run,
};
