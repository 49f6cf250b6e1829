/* hello: the lines of the README as one program: produce, consume, put into the outbox, claim in
 * the inbox. It brings its own broker along (see embedded.c) only so that it can be run by itself;
 * with a ferryd running, leave start_broker() out and open the client with NULL.
 *
 *   hello FOLDER      everything is kept there; run it twice: two messages, two effects */
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ferry.h"
#include "ferry_broker.h"
#include "ferry_outbox.h"

/* Every Ferry call says what happened; here, whatever it is ends the program. */
static void check(enum ferry_err err, const char *what, const char *detail)
{
    if (err != FERRY_OK) {
        fprintf(stderr, "hello: %s: %s: %s\n", what, ferry_err_name(err),
                detail[0] != '\0' ? detail : ferry_err_text(err));
        exit(EXIT_FAILURE);
    }
}

static void run_sql(sqlite3 *sqlite, const char *sql)
{
    if (sqlite3_exec(sqlite, sql, NULL, NULL, NULL) != SQLITE_OK) {
        check(FERRY_ERR_DB, sql, sqlite3_errmsg(sqlite));
    }
}

static struct ferry_broker *start_broker(const char *folder, struct ferry_client **client)
{
    char data[512], detail[512] = "";
    struct ferry_broker *broker = NULL;
    struct ferry_conf *conf = NULL;
    (void)snprintf(data, sizeof(data), "node.data=%s/data", folder);
    const char *options[] = {data};
    check(ferry_broker_start(&broker, options, 1, detail, sizeof(detail)), "broker", detail);
    check(ferry_conf_new(&conf), "conf", "");
    check(ferry_broker_conf(broker, conf), "conf", "");
    check(ferry_open(client, &conf, detail, sizeof(detail)), "open", detail);
    return broker;
}

static sqlite3 *open_database(const char *folder, struct ferry_db **db)
{
    char path[512];
    sqlite3 *sqlite = NULL;
    (void)snprintf(path, sizeof(path), "%s/hello.db", folder);
    if (sqlite3_open(path, &sqlite) != SQLITE_OK) {
        check(FERRY_ERR_DB, path, sqlite3_errmsg(sqlite));
    }
    check(ferry_db_sqlite(db, sqlite), path, "");
    check(ferry_migrate(*db), "migrate", ferry_db_detail(*db));
    run_sql(sqlite, "CREATE TABLE IF NOT EXISTS account (id INTEGER PRIMARY KEY, balance INTEGER);"
                    "CREATE TABLE IF NOT EXISTS payment (text TEXT);"
                    "INSERT OR IGNORE INTO account VALUES (7, 1000)");
    return sqlite;
}

static void produce(struct ferry_client *client)
{
    struct ferry_message message = {.topic = "orders",
                                    .partition = FERRY_PARTITION_ANY,
                                    .key = "o-1",
                                    .key_bytes = 3,
                                    .payload = "paid",
                                    .payload_bytes = 4};
    struct ferry_report report;
    check(ferry_send_sync(client, &message, &report), "send", "");
    check(report.err, "the message was not stored", "");
    printf("stored: partition %d, offset %lld\n", report.partition, (long long)report.offset);
}

static void consume(struct ferry_client *client)
{
    struct ferry_consumer *consumer = NULL;
    struct ferry_batch *batch = NULL;
    check(ferry_consumer_open(&consumer, client, "orders", NULL, FERRY_FROM_START, 5000),
          "consumer", "");
    check(ferry_consumer_fetch(consumer, 5000, &batch), "fetch", "");
    for (size_t i = 0; i < ferry_batch_count(batch); i++) {
        struct ferry_record record;
        ferry_batch_record(batch, i, &record);
        printf("read: offset %lld, %.*s\n", (long long)record.offset, (int)record.payload_bytes,
               (const char *)record.payload);
    }
    ferry_batch_free(&batch);
    ferry_consumer_close(&consumer);
}

/* The change and its message, both or neither. The relay `ferry-outbox` publishes what commits. */
static void put_into_outbox(sqlite3 *sqlite, struct ferry_db *db)
{
    struct ferry_message message = {.topic = "orders", .payload = "paid", .payload_bytes = 4};
    run_sql(sqlite, "BEGIN IMMEDIATE;"
                    "UPDATE account SET balance = balance - 42 WHERE id = 7");
    check(ferry_outbox_put(db, &message, NULL), "outbox put", ferry_db_detail(db));
    run_sql(sqlite, "COMMIT");
    ferry_outbox_committed(db);
}

/* Runs in the transaction that also notes the record as done: an effect once a record. */
static enum ferry_err apply_payment(const struct ferry_record *record, struct ferry_db *db,
                                    void *arg)
{
    (void)db;
    (void)record;
    run_sql(arg, "INSERT INTO payment VALUES ('paid')");
    return FERRY_OK;
}

static void print_effects(sqlite3 *sqlite)
{
    sqlite3_stmt *count = NULL;
    if (sqlite3_prepare_v2(sqlite, "SELECT count(*) FROM payment", -1, &count, NULL) == SQLITE_OK &&
        sqlite3_step(count) == SQLITE_ROW) {
        printf("effects: %d\n", sqlite3_column_int(count, 0));
    }
    sqlite3_finalize(count);
}

static void apply_once(struct ferry_client *client, sqlite3 *sqlite, struct ferry_db *db)
{
    struct ferry_consumer *consumer = NULL;
    check(ferry_consumer_open(&consumer, client, "orders", "billing", FERRY_FROM_START, 5000),
          "consumer", "");
    check(
        ferry_consume_tx(consumer, db, apply_payment, sqlite,
                         &(struct ferry_consume_options){.group = "billing", .idle_exit_ms = 200}),
        "consume", ferry_db_detail(db));
    print_effects(sqlite);
    ferry_consumer_close(&consumer);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fputs("usage: hello FOLDER\n", stderr);
        return 2;
    }
    struct ferry_client *client = NULL;
    struct ferry_db *db = NULL;
    struct ferry_broker *broker = start_broker(argv[1], &client);
    sqlite3 *sqlite = open_database(argv[1], &db);
    produce(client);
    consume(client);
    put_into_outbox(sqlite, db);
    apply_once(client, sqlite, db);
    ferry_db_free(&db);
    sqlite3_close(sqlite);
    ferry_close(&client, 5000);
    ferry_broker_stop(&broker);
    return EXIT_SUCCESS;
}
