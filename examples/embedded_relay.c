/* embedded_relay: an application that publishes its own outbox: the relay is a thread of it, and no
 * second process is needed. Others may serve the same database; the brokers let one be active.
 *
 *   embedded_relay DATABASE ENDPOINTS COUNT      sells COUNT times, ends when all is published */
#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ferry_outbox.h"

#define STEP_MS 100
#define END_MS  10000

struct relay_thread {
    struct ferry_relay *relay;
    atomic_bool stop;
    pthread_t id;
};

static void *run_relay(void *arg)
{
    struct relay_thread *t = arg;
    while (!atomic_load(&t->stop)) {
        enum ferry_err err = ferry_relay_step(t->relay, STEP_MS);
        if (err != FERRY_OK) { /* Outages are none: they are in the status, and pass. */
            fprintf(stderr, "embedded_relay: %s\n", ferry_err_text(err));
        }
    }
    return NULL;
}

static bool start_relay(struct relay_thread *t, const char *path, const char *endpoints)
{
    char db[1100], servers[1100], detail[512] = "";
    (void)snprintf(db, sizeof(db), "relay.db=sqlite:%s", path);
    (void)snprintf(servers, sizeof(servers), "relay.servers=%s", endpoints);
    const char *options[] = {db, servers};
    atomic_init(&t->stop, false);
    if (ferry_relay_open(&t->relay, options, 2, detail, sizeof(detail)) != FERRY_OK) {
        fprintf(stderr, "embedded_relay: %s\n", detail);
        return false;
    }
    if (pthread_create(&t->id, NULL, run_relay, t) != 0) {
        (void)ferry_relay_close(&t->relay, 0);
        return false;
    }
    return true;
}

/* Publishes what is left, then gives the lease to whoever stands by. */
static bool stop_relay(struct relay_thread *t)
{
    atomic_store(&t->stop, true);
    ferry_relay_wake(t->relay);
    pthread_join(t->id, NULL);
    enum ferry_err err = ferry_relay_close(&t->relay, END_MS);
    if (err != FERRY_OK) {
        fprintf(stderr, "embedded_relay: some sales wait for the next start: %s\n",
                ferry_err_text(err));
    }
    return err == FERRY_OK;
}

static bool sell(sqlite3 *shop, struct ferry_db *outbox, long number)
{
    char sale[32];
    int bytes = snprintf(sale, sizeof(sale), "sale %ld", number);
    struct ferry_message message = {
        .topic = "sales", .payload = sale, .payload_bytes = (size_t)bytes};
    if (sqlite3_exec(shop, "BEGIN IMMEDIATE; INSERT INTO sale DEFAULT VALUES", NULL, NULL, NULL) ==
            SQLITE_OK &&
        ferry_outbox_put(outbox, &message, NULL) == FERRY_OK &&
        sqlite3_exec(shop, "COMMIT", NULL, NULL, NULL) == SQLITE_OK) {
        ferry_outbox_committed(outbox); /* Wakes the relay, in this process or another. */
        return true;
    }
    fprintf(stderr, "embedded_relay: %s; %s\n", sqlite3_errmsg(shop), ferry_db_detail(outbox));
    (void)sqlite3_exec(shop, "ROLLBACK", NULL, NULL, NULL);
    return false;
}

static bool run(sqlite3 *shop, struct ferry_db *outbox, char **argv)
{
    struct relay_thread thread;
    bool sold = true;
    if (ferry_migrate(outbox) != FERRY_OK ||
        sqlite3_exec(shop, "CREATE TABLE IF NOT EXISTS sale (id INTEGER PRIMARY KEY)", NULL, NULL,
                     NULL) != SQLITE_OK) {
        fprintf(stderr, "embedded_relay: %s\n", ferry_db_detail(outbox));
        return false;
    }
    if (!start_relay(&thread, argv[1], argv[2])) {
        return false;
    }
    for (long i = 1; sold && i <= strtol(argv[3], NULL, 10); i++) {
        sold = sell(shop, outbox, i);
    }
    return stop_relay(&thread) && sold;
}

int main(int argc, char **argv)
{
    sqlite3 *shop = NULL;
    struct ferry_db *outbox = NULL;
    if (argc != 4) {
        fputs("usage: embedded_relay DATABASE ENDPOINTS COUNT\n", stderr);
        return 2;
    }
    bool done = sqlite3_open(argv[1], &shop) == SQLITE_OK &&
                sqlite3_busy_timeout(shop, 5000) == SQLITE_OK &&
                ferry_db_sqlite(&outbox, shop) == FERRY_OK && run(shop, outbox, argv);
    ferry_db_free(&outbox);
    sqlite3_close(shop);
    return done ? EXIT_SUCCESS : EXIT_FAILURE;
}
