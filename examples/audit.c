/* audit: a subscriber. Keeps every message in a SQLite database of its own, with where and when it
 * was stored; the row commits with the note that the message is done, so each is there once.
 *
 *   audit DATABASE SERVER TOPIC      until SIGTERM */
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ferry.h"
#include "ferry_outbox.h"

#define BUSY_TIMEOUT_MS 5000
#define OPEN_TIMEOUT_MS 30000

struct audit {
    sqlite3 *sqlite;
    sqlite3_stmt *insert;
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

/* The effect. Runs inside the transaction that also notes the record as done. */
static enum ferry_err apply(const struct ferry_record *record, struct ferry_db *db, void *arg)
{
    struct audit *a = arg;
    (void)db;
    sqlite3_bind_blob(a->insert, 1, record->id.bytes, sizeof(record->id.bytes), SQLITE_STATIC);
    sqlite3_bind_int(a->insert, 2, record->partition);
    sqlite3_bind_int64(a->insert, 3, record->offset);
    sqlite3_bind_int64(a->insert, 4, record->append_time_ms);
    sqlite3_bind_blob64(a->insert, 5, record->payload, record->payload_bytes, SQLITE_STATIC);
    enum ferry_err err = sqlite_result(sqlite3_step(a->insert));
    sqlite3_reset(a->insert);
    return err;
}

static enum ferry_err prepare(struct audit *a)
{
    /* No key on trail.message_id: a message applied twice must show. */
    int code = sqlite3_exec(a->sqlite,
                            "CREATE TABLE IF NOT EXISTS trail (message_id BLOB, partition, offset, "
                            "stored_ms, payload)",
                            NULL, NULL, NULL);
    if (code == SQLITE_OK) {
        code = sqlite3_prepare_v2(a->sqlite, "INSERT INTO trail VALUES (?, ?, ?, ?, ?)", -1,
                                  &a->insert, NULL);
    }
    return sqlite_result(code);
}

static enum ferry_err open_database(struct audit *a, const char *path)
{
    enum ferry_err err = sqlite_result(sqlite3_open(path, &a->sqlite));
    if (err == FERRY_OK) {
        sqlite3_busy_timeout(a->sqlite, BUSY_TIMEOUT_MS);
        err = ferry_db_sqlite(&a->db, a->sqlite);
    }
    if (err == FERRY_OK) {
        err = ferry_migrate(a->db); /* The inbox, beside our tables. */
    }
    return err == FERRY_OK ? prepare(a) : err;
}

static enum ferry_err open_consumer(struct audit *a, const char *server, const char *topic)
{
    char detail[512] = "";
    struct ferry_conf *conf = NULL;
    enum ferry_err err = ferry_conf_new(&conf);
    if (err == FERRY_OK) {
        err = ferry_conf_set(conf, "servers", server, detail, sizeof(detail));
    }
    if (err == FERRY_OK) {
        err = ferry_open(&a->client, &conf, detail, sizeof(detail));
    }
    ferry_conf_free(&conf); /* NULL once the client has taken it. */
    if (err == FERRY_OK) {
        err = ferry_consumer_open(&a->consumer, a->client, topic, "audit", FERRY_FROM_START,
                                  OPEN_TIMEOUT_MS);
    }
    return err;
}

static enum ferry_err run(struct audit *a, char **argv)
{
    enum ferry_err err = open_database(a, argv[1]);
    if (err == FERRY_OK) {
        err = open_consumer(a, argv[2], argv[3]);
    }
    if (err == FERRY_OK) {
        err = ferry_consume_tx(
            a->consumer, a->db, apply, a,
            &(struct ferry_consume_options){.group = "audit", .stop = should_stop});
    }
    return err;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fputs("usage: audit DATABASE SERVER TOPIC\n", stderr);
        return 2;
    }
    (void)signal(SIGTERM, ask_to_stop);
    (void)signal(SIGINT, ask_to_stop);
    struct audit a = {0};
    enum ferry_err err = run(&a, argv);
    if (err != FERRY_OK) {
        const char *detail = a.db != NULL ? ferry_db_detail(a.db) : "";
        fprintf(stderr, "audit: %s: %s\n", ferry_err_name(err),
                detail[0] != '\0' ? detail : ferry_err_text(err));
    }
    ferry_consumer_close(&a.consumer);
    ferry_close(&a.client, 1000);
    sqlite3_finalize(a.insert);
    ferry_db_free(&a.db);
    sqlite3_close(a.sqlite);
    return err == FERRY_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
