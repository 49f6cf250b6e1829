/* relay_bench: an application with an outbox, for measuring the relay beside it.
 *
 *   relay_bench fill DB TOPIC ROWS BYTES        puts rows, 1000 a transaction: a backlog
 *   relay_bench latency DB TOPIC SERVER COUNT   one transaction at a time, while all is idle
 *
 * DB is the path of a SQLite file. `latency` prints as JSON how long it took from the return of
 * COMMIT until a consumer had the record. That is more than the time to the append, by one fetch,
 * so a figure that meets a target for the append meets it. Between two transactions it pauses for
 * some milliseconds, by a fixed seed, so that the relay is found idle and not in step. */
#include <inttypes.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/prng.h"
#include "ferry_outbox.h"

#define ROWS_A_TRANSACTION 1000
#define PAYLOAD_BYTES      200
#define KEYS               1000
#define COUNT_MAX          1000000
#define PAUSE_MIN_US       2000
#define PAUSE_SPREAD_US    18000
#define WAIT_MS            30000

struct application {
    sqlite3 *connection;
    struct ferry_db *db;
};

static bool failed(enum ferry_err err, const char *what, const struct application *a)
{
    if (err != FERRY_OK) {
        fprintf(stderr, "relay_bench: %s: %s: %s\n", what, ferry_err_name(err),
                a->db != NULL ? ferry_db_detail(a->db) : ferry_err_text(err));
    }
    return err != FERRY_OK;
}

static bool run_sql(struct application *a, const char *sql)
{
    if (sqlite3_exec(a->connection, sql, NULL, NULL, NULL) != SQLITE_OK) {
        fprintf(stderr, "relay_bench: %s: %s\n", sql, sqlite3_errmsg(a->connection));
        return false;
    }
    return true;
}

static bool application_open(struct application *a, const char *path)
{
    if (sqlite3_open(path, &a->connection) != SQLITE_OK) {
        fprintf(stderr, "relay_bench: %s: %s\n", path, sqlite3_errmsg(a->connection));
        return false;
    }
    sqlite3_busy_timeout(a->connection, WAIT_MS);
    return !failed(ferry_db_sqlite(&a->db, a->connection), path, a) &&
           !failed(ferry_migrate(a->db), path, a);
}

static void application_close(struct application *a)
{
    ferry_db_free(&a->db);
    sqlite3_close(a->connection);
}

static bool put(struct application *a, const char *topic, uint64_t n, const void *payload,
                size_t bytes)
{
    char key[32];
    int key_bytes = snprintf(key, sizeof(key), "key-%" PRIu64, n % KEYS);
    const struct ferry_message message = {
        .topic = topic,
        .partition = FERRY_PARTITION_ANY,
        .key = key,
        .key_bytes = (size_t)key_bytes,
        .payload = payload,
        .payload_bytes = bytes,
    };
    return !failed(ferry_outbox_put(a->db, &message, NULL), "put", a);
}

/* ---- Fill ----------------------------------------------------------------------------------- */

static bool fill(struct application *a, const char *topic, uint64_t rows, size_t bytes)
{
    char *payload = mem_alloc(bytes);
    bool ok = payload != NULL;
    if (ok) {
        memset(payload, 'x', bytes);
    }
    for (uint64_t n = 0; ok && n < rows; n++) {
        ok = (n % ROWS_A_TRANSACTION != 0 || run_sql(a, "BEGIN IMMEDIATE")) &&
             put(a, topic, n, payload, bytes) &&
             ((n + 1) % ROWS_A_TRANSACTION != 0 && n + 1 != rows ? true : run_sql(a, "COMMIT"));
    }
    mem_free(payload);
    return ok;
}

/* ---- Latency -------------------------------------------------------------------------------- */

struct watch {
    struct ferry_client *client;
    struct ferry_consumer *consumer;
};

static enum ferry_err watch_open(struct watch *w, const char *server, const char *topic)
{
    struct ferry_conf *conf = NULL;
    enum ferry_err err = ferry_conf_new(&conf);
    if (err == FERRY_OK) {
        err = ferry_conf_set(conf, "servers", server, NULL, 0);
    }
    if (err == FERRY_OK) {
        err = ferry_open(&w->client, &conf, NULL, 0);
    }
    ferry_conf_free(&conf);
    if (err == FERRY_OK) {
        err = ferry_consumer_open(&w->consumer, w->client, topic, NULL, FERRY_FROM_END, WAIT_MS);
    }
    return err;
}

static void watch_close(struct watch *w)
{
    ferry_consumer_close(&w->consumer);
    ferry_close(&w->client, 0);
}

/* One record is on its way; anything else that arrives is a mistake of the caller's topic. */
static enum ferry_err await_one(struct watch *w)
{
    struct ferry_batch *batch = NULL;
    enum ferry_err err = ferry_consumer_fetch(w->consumer, WAIT_MS, &batch);
    ferry_batch_free(&batch);
    return err;
}

static void pause_a_while(struct prng *prng)
{
    long us = PAUSE_MIN_US + (long)prng_below(prng, PAUSE_SPREAD_US);
    nanosleep(&(struct timespec){.tv_nsec = us * 1000}, NULL);
}

static bool measure_one(struct application *a, struct watch *w, const char *topic, uint64_t n,
                        int64_t *took_us)
{
    char payload[PAYLOAD_BYTES];
    memset(payload, 'x', sizeof(payload));
    if (!run_sql(a, "BEGIN IMMEDIATE") || !put(a, topic, n, payload, sizeof(payload)) ||
        !run_sql(a, "COMMIT")) {
        return false;
    }
    int64_t began_us = clock_monotonic_us();
    ferry_outbox_committed(a->db);
    enum ferry_err err = await_one(w);
    *took_us = clock_monotonic_us() - began_us;
    if (err != FERRY_OK) {
        fprintf(stderr, "relay_bench: the record did not arrive: %s\n", ferry_err_name(err));
    }
    return err == FERRY_OK;
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static void print_latencies(int64_t *us, uint64_t count)
{
    qsort(us, count, sizeof(us[0]), by_value);
    printf("{\"bench\":\"relay latency\",\"count\":%" PRIu64 ",\"latency_us\":{\"p50\":%" PRId64
           ",\"p90\":%" PRId64 ",\"p99\":%" PRId64 ",\"max\":%" PRId64 "}}\n",
           count, us[(count - 1) / 2], us[(count - 1) * 9 / 10], us[(count - 1) * 99 / 100],
           us[count - 1]);
}

static bool measure(struct application *a, struct watch *w, const char *topic, uint64_t count)
{
    struct prng prng;
    int64_t warm_up_us;
    int64_t *us = mem_zalloc(count, sizeof(us[0]));
    prng_init(&prng, 1);
    /* The first finds connections that are not made yet, and is not counted. */
    bool ok = us != NULL && measure_one(a, w, topic, 0, &warm_up_us);
    for (uint64_t n = 0; ok && n < count; n++) {
        pause_a_while(&prng);
        ok = measure_one(a, w, topic, n, &us[n]);
    }
    if (ok) {
        print_latencies(us, count);
    }
    mem_free(us);
    return ok;
}

static bool latency(struct application *a, const char *topic, const char *server, uint64_t count)
{
    struct watch w = {.client = NULL};
    enum ferry_err err = watch_open(&w, server, topic);
    if (err != FERRY_OK) {
        fprintf(stderr, "relay_bench: %s: %s: %s\n", server, ferry_err_name(err),
                ferry_err_text(err));
    }
    bool ok = err == FERRY_OK && measure(a, &w, topic, count);
    watch_close(&w);
    return ok;
}

/* ---- Command line --------------------------------------------------------------------------- */

static uint64_t number(const char *text)
{
    char *end;
    unsigned long long n = strtoull(text, &end, 10);
    return *end == '\0' && n <= UINT64_C(100) * COUNT_MAX ? n : 0;
}

int main(int argc, char **argv)
{
    bool fills = argc == 6 && strcmp(argv[1], "fill") == 0;
    bool waits = argc == 6 && strcmp(argv[1], "latency") == 0;
    uint64_t last = argc == 6 ? number(argv[5]) : 0;
    uint64_t rows = fills ? number(argv[4]) : 1;
    if (!(fills || waits) || last == 0 || last > COUNT_MAX || rows == 0) {
        fputs("usage: relay_bench fill DB TOPIC ROWS BYTES\n"
              "       relay_bench latency DB TOPIC SERVER COUNT\n",
              stderr);
        return 2;
    }
    struct application a = {.connection = NULL};
    bool ok = application_open(&a, argv[2]) &&
              (fills ? fill(&a, argv[3], rows, (size_t)last) : latency(&a, argv[3], argv[4], last));
    application_close(&a);
    return ok ? 0 : 1;
}
