/* ledger: a subscriber. Keeps, in a SQLite database of its own, what each section weighs: an entry
 * for every message, and the totals, in one transaction with the note that the message is done. So
 * each message has its effect once, however often it is delivered or this program is killed.
 *
 *   ledger DATABASE SERVER TOPIC      until SIGTERM
 *
 * A message is a line: name, version, section and size in KiB, separated by tabs. A line of another
 * kind is entered in the section `other` with its length in bytes. */
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ferry.h"
#include "ferry_outbox.h"

#define BUSY_TIMEOUT_MS 5000
#define OPEN_TIMEOUT_MS 30000

struct ledger {
    sqlite3 *sqlite;
    sqlite3_stmt *entry, *total;
    struct ferry_db *db; /* Ferry's view of the same connection. */
    struct ferry_client *client;
    struct ferry_consumer *consumer;
};

static volatile sig_atomic_t stop_asked;

static void ask_to_stop(int signal)
{
    (void)signal;
    stop_asked = 1;
}

static bool should_stop(void *arg)
{
    (void)arg;
    return stop_asked != 0;
}

static enum ferry_err sqlite_result(int code)
{
    switch (code & 0xff) {
    case SQLITE_OK:
    case SQLITE_DONE:
        return FERRY_OK;
    case SQLITE_BUSY:
        return FERRY_ERR_DB_RETRY; /* The loop rolls back and repeats. */
    default:
        return FERRY_ERR_DB;
    }
}

/* What a line weighs, and where: fields three and four. */
struct weight {
    char section[64];
    long long size;
};

static void weigh(const struct ferry_record *record, struct weight *w)
{
    char text[1024];
    (void)snprintf(text, sizeof(text), "%.*s", (int)record->payload_bytes,
                   (const char *)record->payload);
    if (sscanf(text, "%*[^\t]\t%*[^\t]\t%63[^\t]\t%lld", w->section, &w->size) != 2) {
        *w = (struct weight){.section = "other", .size = (long long)record->payload_bytes};
    }
}

static enum ferry_err step(sqlite3_stmt *statement)
{
    enum ferry_err err = sqlite_result(sqlite3_step(statement));
    sqlite3_reset(statement);
    return err;
}

/* The effect. Runs inside the transaction that also notes the record as done. */
static enum ferry_err apply(const struct ferry_record *record, struct ferry_db *db, void *arg)
{
    struct ledger *l = arg;
    struct weight w;
    (void)db;
    weigh(record, &w);
    sqlite3_bind_blob(l->entry, 1, record->id.bytes, sizeof(record->id.bytes), SQLITE_STATIC);
    sqlite3_bind_text(l->entry, 2, w.section, -1, SQLITE_STATIC);
    sqlite3_bind_int64(l->entry, 3, w.size);
    sqlite3_bind_text(l->total, 1, w.section, -1, SQLITE_STATIC);
    sqlite3_bind_int64(l->total, 2, w.size);
    enum ferry_err err = step(l->entry);
    return err == FERRY_OK ? step(l->total) : err;
}

static enum ferry_err prepare(struct ledger *l)
{
    /* No key on entry.message_id: a message applied twice must show. */
    int code = sqlite3_exec(l->sqlite,
                            "CREATE TABLE IF NOT EXISTS entry (message_id BLOB, section, size);"
                            "CREATE TABLE IF NOT EXISTS total (section PRIMARY KEY, entries, size)",
                            NULL, NULL, NULL);
    if (code == SQLITE_OK) {
        code = sqlite3_prepare_v2(l->sqlite, "INSERT INTO entry VALUES (?, ?, ?)", -1, &l->entry,
                                  NULL);
    }
    if (code == SQLITE_OK) {
        code = sqlite3_prepare_v2(l->sqlite,
                                  "INSERT INTO total VALUES (?1, 1, ?2) ON CONFLICT (section) DO "
                                  "UPDATE SET entries = entries + 1, size = size + ?2",
                                  -1, &l->total, NULL);
    }
    return sqlite_result(code);
}

static enum ferry_err open_database(struct ledger *l, const char *path)
{
    enum ferry_err err = sqlite_result(sqlite3_open(path, &l->sqlite));
    if (err == FERRY_OK) {
        sqlite3_busy_timeout(l->sqlite, BUSY_TIMEOUT_MS);
        err = ferry_db_sqlite(&l->db, l->sqlite);
    }
    if (err == FERRY_OK) {
        err = ferry_migrate(l->db); /* The inbox, beside our tables. */
    }
    return err == FERRY_OK ? prepare(l) : err;
}

static enum ferry_err open_consumer(struct ledger *l, const char *server, const char *topic)
{
    char detail[512] = "";
    struct ferry_conf *conf = NULL;
    enum ferry_err err = ferry_conf_new(&conf);
    if (err == FERRY_OK) {
        err = ferry_conf_set(conf, "servers", server, detail, sizeof(detail));
    }
    if (err == FERRY_OK) {
        err = ferry_open(&l->client, &conf, detail, sizeof(detail));
    }
    ferry_conf_free(&conf); /* NULL once the client has taken it. */
    if (err == FERRY_OK) {
        err = ferry_consumer_open(&l->consumer, l->client, topic, "ledger", FERRY_FROM_START,
                                  OPEN_TIMEOUT_MS);
    }
    return err;
}

static enum ferry_err run(struct ledger *l, char **argv)
{
    enum ferry_err err = open_database(l, argv[1]);
    if (err == FERRY_OK) {
        err = open_consumer(l, argv[2], argv[3]);
    }
    if (err == FERRY_OK) {
        err = ferry_consume_tx(
            l->consumer, l->db, apply, l,
            &(struct ferry_consume_options){.group = "ledger", .stop = should_stop});
    }
    return err;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fputs("usage: ledger DATABASE SERVER TOPIC\n", stderr);
        return 2;
    }
    (void)signal(SIGTERM, ask_to_stop);
    (void)signal(SIGINT, ask_to_stop);
    struct ledger l = {0};
    enum ferry_err err = run(&l, argv);
    if (err != FERRY_OK) {
        const char *detail = l.db != NULL ? ferry_db_detail(l.db) : "";
        fprintf(stderr, "ledger: %s: %s\n", ferry_err_name(err),
                detail[0] != '\0' ? detail : ferry_err_text(err));
    }
    ferry_consumer_close(&l.consumer);
    ferry_close(&l.client, 1000);
    sqlite3_finalize(l.entry);
    sqlite3_finalize(l.total);
    ferry_db_free(&l.db);
    sqlite3_close(l.sqlite);
    return err == FERRY_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
