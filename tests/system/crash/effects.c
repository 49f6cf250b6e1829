#include "system/crash/effects.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/must.h"
#include "ferry_outbox.h"
#include "system/crash/message.h"
#include "system/crash/reader.h"

#define NAMED_MAX 20 /* Findings printed; the rest is counted. */

struct effects {
    sqlite3 *sqlite;
    sqlite3_stmt *insert;
    struct ferry_db *db;
    struct ferry_client *client;
    struct ferry_consumer *consumer;
};

/* ---- The process --------------------------------------------------------------------------------
 */

/* No key in the table: what is applied twice must show. */
static enum ferry_err apply(const struct ferry_record *record, struct ferry_db *db, void *arg)
{
    struct effects *e = arg;
    (void)db;
    sqlite3_bind_int64(e->insert, 1, message_number(record->payload, record->payload_bytes));
    sqlite3_bind_int64(e->insert, 2,
                       (sqlite3_int64)message_sum(record->key, record->key_bytes, record->payload,
                                                  record->payload_bytes));
    int code = sqlite3_step(e->insert);
    sqlite3_reset(e->insert);
    return code == SQLITE_DONE ? FERRY_OK : FERRY_ERR_DB;
}

static enum ferry_err open_database(struct effects *e, const char *path)
{
    if (sqlite3_open(path, &e->sqlite) != SQLITE_OK) {
        return FERRY_ERR_DB;
    }
    enum ferry_err err = ferry_db_sqlite(&e->db, e->sqlite);
    if (err == FERRY_OK) {
        err = ferry_migrate(e->db);
    }
    if (err != FERRY_OK) {
        return err;
    }
    /* The machine does not lose its power here. */
    int code = sqlite3_exec(e->sqlite,
                            "PRAGMA synchronous = NORMAL; PRAGMA busy_timeout = 10000;"
                            "CREATE TABLE IF NOT EXISTS effect (number INTEGER, sum INTEGER)",
                            NULL, NULL, NULL);
    if (code == SQLITE_OK) {
        code =
            sqlite3_prepare_v2(e->sqlite, "INSERT INTO effect VALUES (?, ?)", -1, &e->insert, NULL);
    }
    return code == SQLITE_OK ? FERRY_OK : FERRY_ERR_DB;
}

int effects_run(const char *servers, const char *topic, const char *database)
{
    struct effects e = {0};
    enum ferry_err err = open_database(&e, database);
    if (err == FERRY_OK) {
        err = reader_open(&e.client, &e.consumer, servers, topic, EFFECTS_GROUP);
    }
    if (err == FERRY_OK) {
        err = ferry_consume_tx(e.consumer, e.db, apply, &e,
                               &(struct ferry_consume_options){.group = EFFECTS_GROUP});
    }
    fprintf(stderr, "effects: %s: %s: %s\n", topic, ferry_err_name(err),
            e.db != NULL ? ferry_db_detail(e.db) : "");
    return EXIT_FAILURE;
}

/* ---- What is there ------------------------------------------------------------------------------
 */

struct found_effects {
    const struct traffic *traffic;
    int *times;
    int64_t findings;
};

static void complain(struct found_effects *f, const char *what, int64_t number)
{
    if (f->findings++ < NAMED_MAX) {
        printf("crash: effects of %s: %s: message %lld\n", f->traffic->topic, what,
               (long long)number);
    }
}

static void take_row(struct found_effects *f, int64_t number, uint64_t sum)
{
    if (number < 0 || number >= f->traffic->count) {
        complain(f, "unexpected", number);
        return;
    }
    f->times[number]++;
    if (sum != message_sum_of(f->traffic->seed, number)) {
        complain(f, "changed", number);
    }
}

static void judge(struct found_effects *f)
{
    for (int64_t n = 0; n < f->traffic->count; n++) {
        bool stored = f->traffic->fates[n].kind == FATE_STORED;
        if (stored && f->times[n] == 0) {
            complain(f, "lost", n);
        } else if (f->times[n] > 1) {
            complain(f, "doubled", n);
        } else if (!stored && f->times[n] > 0) {
            complain(f, "unexpected", n);
        }
    }
}

int64_t effects_check(const char *database, const struct traffic *t)
{
    struct found_effects f = {.traffic = t};
    sqlite3 *sqlite = NULL;
    sqlite3_stmt *rows = NULL;
    f.times = calloc((size_t)t->count + 1, sizeof(*f.times));
    must(f.times != NULL);
    int code = sqlite3_open(database, &sqlite);
    if (code == SQLITE_OK) {
        code = sqlite3_prepare_v2(sqlite, "SELECT number, sum FROM effect", -1, &rows, NULL);
    }
    while (code == SQLITE_OK && (code = sqlite3_step(rows)) == SQLITE_ROW) {
        take_row(&f, sqlite3_column_int64(rows, 0), (uint64_t)sqlite3_column_int64(rows, 1));
        code = SQLITE_OK;
    }
    if (code == SQLITE_DONE) {
        judge(&f);
    } else {
        printf("crash: %s: %s\n", database, sqlite3_errmsg(sqlite));
        f.findings = -1;
    }
    sqlite3_finalize(rows);
    sqlite3_close(sqlite);
    free(f.times);
    return f.findings;
}
