/* outbox_app: an application with an outbox on any of the three databases, for measuring what is
 * between its COMMIT and the others.
 *
 *   outbox_app latency URL SERVER TOPIC COUNT                    idle: one transaction at a time
 *   outbox_app load URL SERVER TOPIC RATE SECONDS CONNECTIONS    RATE transactions a second
 *   outbox_app effect URL SERVER TOPIC OTHER-URL COUNT           until a handler in OTHER has
 * committed
 *
 * Each prints one JSON object. Times begin when COMMIT has returned and end when a consumer has the
 * record (latency, load), or when the transaction of its handler is committed (effect): more than
 * the time to the append, so a figure that meets a target for the append meets it. `load` sends at
 * times of its own, whatever became of those before, over connections that were made and warmed
 * before; a transaction that begins late is counted in `late`. On PostgreSQL `load` sends each in
 * one pipeline, as an application that cares would. `cpu_us` is what this program took for each,
 * both ends together. Pauses come from a fixed seed. */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "base/clock.h"
#include "base/prng.h"
#include "connection.h"

#define PAYLOAD_BYTES   200
#define KEYS            1000
#define COUNT_MAX       4000000
#define CONNECTIONS_MAX 128
#define WAIT_MS         30000
#define PAUSE_MIN_US    2000
#define PAUSE_SPREAD_US 18000
#define LATE_US         5000

struct run {
    const char *url, *server, *topic, *other;
    struct ferry_client *client;
    struct ferry_consumer *consumer;
    _Atomic int64_t *committed_us; /* By number; 0: its COMMIT has not returned. */
    int64_t *took_us;
    int64_t count, rate, connections;
    _Atomic int64_t received, late, next;
    int64_t began_us;
    pthread_barrier_t ready; /* load: all connections are made. */
};

struct text {
    char key[32], payload[PAYLOAD_BYTES];
};

static void check(enum ferry_err err, const char *what)
{
    if (err != FERRY_OK) {
        fprintf(stderr, "outbox_app: %s: %s: %s\n", what, ferry_err_name(err), ferry_err_text(err));
        exit(1);
    }
}

static void sleep_until(int64_t us)
{
    int64_t left_us = us - clock_monotonic_us();
    if (left_us > 0) {
        nanosleep(&(struct timespec){left_us / 1000000, left_us % 1000000 * 1000}, NULL);
    }
}

/* ---- The application: one transaction with one message, whose payload begins with its number. */

static struct ferry_message message_of(const struct run *r, int64_t number, struct text *text)
{
    int key_bytes = snprintf(text->key, sizeof(text->key), "key-%" PRId64, number % KEYS);
    memset(text->payload, 'x', sizeof(text->payload));
    memcpy(text->payload, &number, sizeof(number));
    return (struct ferry_message){.topic = r->topic,
                                  .partition = FERRY_PARTITION_ANY,
                                  .key = text->key,
                                  .key_bytes = (size_t)key_bytes,
                                  .payload = text->payload,
                                  .payload_bytes = sizeof(text->payload)};
}

static void committed(struct run *r, struct connection *c, int64_t number)
{
    atomic_store(&r->committed_us[number], clock_monotonic_us());
    ferry_outbox_committed(c->db);
}

static void transact(struct run *r, struct connection *c, int64_t number)
{
    struct text text;
    const struct ferry_message message = message_of(r, number, &text);
    connection_sql(c, "BEGIN");
    enum ferry_err err = ferry_outbox_put(c->db, &message, NULL);
    if (err != FERRY_OK) {
        fprintf(stderr, "outbox_app: %s\n", ferry_db_detail(c->db));
    }
    check(err, "put");
    connection_sql(c, "COMMIT");
    committed(r, c, number);
}

/* ---- The other end. */

static void note(struct run *r, const void *payload, size_t bytes, int64_t now_us)
{
    int64_t number = -1;
    if (bytes >= sizeof(number)) {
        memcpy(&number, payload, sizeof(number));
    }
    if (number < 0 || number >= r->count || r->took_us[number] != 0) {
        fputs("outbox_app: a message came twice, or is of another run\n", stderr);
        exit(1);
    }
    int64_t committed_us = atomic_load(&r->committed_us[number]);
    /* It may be here before COMMIT has returned to the application. */
    r->took_us[number] = committed_us == 0 || now_us <= committed_us ? 1 : now_us - committed_us;
    atomic_fetch_add(&r->received, 1);
}

static void watch_open(struct run *r)
{
    struct ferry_conf *conf = NULL;
    check(ferry_conf_new(&conf), "options");
    check(ferry_conf_set(conf, "servers", r->server, NULL, 0), r->server);
    check(ferry_open(&r->client, &conf, NULL, 0), r->server);
    ferry_conf_free(&conf);
    check(ferry_consumer_open(&r->consumer, r->client, r->topic, NULL, FERRY_FROM_END, WAIT_MS),
          r->topic);
}

static void watch_close(struct run *r)
{
    ferry_consumer_close(&r->consumer);
    ferry_close(&r->client, 0);
}

static void receive_some(struct run *r)
{
    struct ferry_batch *batch = NULL;
    check(ferry_consumer_fetch(r->consumer, WAIT_MS, &batch), "receiving");
    int64_t now_us = clock_monotonic_us();
    for (size_t i = 0; i < ferry_batch_count(batch); i++) {
        struct ferry_record record;
        ferry_batch_record(batch, i, &record);
        note(r, record.payload, record.payload_bytes, now_us);
    }
    ferry_batch_free(&batch);
}

static void *receive_all(void *arg)
{
    struct run *r = arg;
    while (atomic_load(&r->received) < r->count) {
        receive_some(r);
    }
    return NULL;
}

/* ---- Figures. */

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static int64_t cpu_us(void)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * (int64_t)1000000 +
           used.ru_utime.tv_usec + used.ru_stime.tv_usec;
}

static void print_figures(struct run *r, const char *bench, double seconds)
{
    int64_t *us = r->took_us + 1; /* The first finds connections that are not made yet. */
    int64_t count = r->count - 1;
    qsort(us, (size_t)count, sizeof(us[0]), by_value);
    printf("{\"bench\":\"%s\",\"count\":%" PRId64 ",\"late\":%" PRId64
           ",\"per_second\":%.0f,\"cpu_us\":%.1f,\"latency_us\":{\"p50\":%" PRId64
           ",\"p90\":%" PRId64 ",\"p99\":%" PRId64 ",\"max\":%" PRId64 "}}\n",
           bench, count, atomic_load(&r->late), (double)count / seconds,
           (double)cpu_us() / (double)count, us[(count - 1) / 2], us[(count - 1) * 9 / 10],
           us[(count - 1) * 99 / 100], us[count - 1]);
}

/* ---- latency */

static void pause_a_while(struct prng *prng)
{
    sleep_until(clock_monotonic_us() + PAUSE_MIN_US + (int64_t)prng_below(prng, PAUSE_SPREAD_US));
}

static void latency(struct run *r)
{
    struct connection c;
    struct prng prng;
    prng_init(&prng, 1);
    connection_open(&c, r->url);
    watch_open(r);
    int64_t began_us = clock_monotonic_us();
    for (int64_t n = 0; n < r->count; n++) {
        pause_a_while(&prng);
        transact(r, &c, n);
        while (atomic_load(&r->received) <= n) {
            receive_some(r);
        }
    }
    print_figures(r, "latency", (double)(clock_monotonic_us() - began_us) / 1e6);
    watch_close(r);
    connection_close(&c);
}

/* ---- load */

static void *transact_some(void *arg)
{
    struct run *r = arg;
    struct connection c;
    struct text text;
    struct ferry_message message = message_of(r, 0, &text);
    connection_open(&c, r->url);
    connection_warm(&c, &message);
    pthread_barrier_wait(&r->ready); /* They are there, */
    pthread_barrier_wait(&r->ready); /* and the time has begun. */
    for (int64_t n; (n = atomic_fetch_add(&r->next, 1)) < r->count;) {
        int64_t due_us = r->began_us + n * 1000000 / r->rate;
        sleep_until(due_us);
        if (clock_monotonic_us() - due_us > LATE_US) {
            atomic_fetch_add(&r->late, 1);
        }
        message = message_of(r, n, &text);
        connection_transact(&c, &message);
        committed(r, &c, n);
    }
    connection_close(&c);
    return NULL;
}

static void load(struct run *r)
{
    pthread_t threads[CONNECTIONS_MAX];
    pthread_t receiver;
    watch_open(r);
    pthread_barrier_init(&r->ready, NULL, (unsigned)r->connections + 1);
    for (int64_t i = 0; i < r->connections; i++) {
        pthread_create(&threads[i], NULL, transact_some, r);
    }
    pthread_barrier_wait(&r->ready);
    r->began_us = clock_monotonic_us();
    pthread_create(&receiver, NULL, receive_all, r);
    pthread_barrier_wait(&r->ready);
    for (int64_t i = 0; i < r->connections; i++) {
        pthread_join(threads[i], NULL);
    }
    double seconds = (double)(clock_monotonic_us() - r->began_us) / 1e6;
    pthread_join(receiver, NULL);
    print_figures(r, "load", seconds);
    pthread_barrier_destroy(&r->ready);
    watch_close(r);
}

/* ---- effect: the loop asks `stop` after each COMMIT of a batch. */

struct effect {
    struct run *run;
    struct connection other;
    int64_t handled[COUNT_MAX / 1000]; /* Numbers of the batch in hand. */
    size_t handled_count;
};

static enum ferry_err handler(const struct ferry_record *record, struct ferry_db *db, void *arg)
{
    struct effect *e = arg;
    (void)db;
    int64_t number = 0;
    memcpy(&number, record->payload, sizeof(number));
    char sql[80];
    snprintf(sql, sizeof(sql), "INSERT INTO bench_effect VALUES (%" PRId64 ")", number);
    connection_sql(&e->other, sql);
    if (e->handled_count < sizeof(e->handled) / sizeof(e->handled[0])) {
        e->handled[e->handled_count++] = number;
    }
    return FERRY_OK;
}

static bool after_commit(void *arg)
{
    struct effect *e = arg;
    int64_t now_us = clock_monotonic_us();
    for (size_t i = 0; i < e->handled_count; i++) {
        note(e->run, &e->handled[i], sizeof(e->handled[i]), now_us);
    }
    e->handled_count = 0;
    return atomic_load(&e->run->received) >= e->run->count;
}

static void *consume(void *arg)
{
    struct effect *e = arg;
    const struct ferry_consume_options options = {.group = "bench", .stop = after_commit};
    enum ferry_err err = ferry_consume_tx(e->run->consumer, e->other.db, handler, e, &options);
    if (err != FERRY_OK) {
        fprintf(stderr, "outbox_app: %s\n", ferry_db_detail(e->other.db));
    }
    check(err, "consuming");
    return NULL;
}

static void effect(struct run *r)
{
    static struct effect e;
    struct connection c;
    struct prng prng;
    pthread_t consumer;
    prng_init(&prng, 1);
    e.run = r;
    connection_open(&c, r->url);
    connection_open(&e.other, r->other);
    connection_sql(&e.other, "CREATE TABLE IF NOT EXISTS bench_effect (n BIGINT PRIMARY KEY)");
    watch_open(r);
    pthread_create(&consumer, NULL, consume, &e);
    int64_t began_us = clock_monotonic_us();
    for (int64_t n = 0; n < r->count; n++) {
        pause_a_while(&prng);
        transact(r, &c, n);
        while (atomic_load(&r->received) <= n) {
            sleep_until(clock_monotonic_us() + 100);
        }
    }
    pthread_join(consumer, NULL);
    print_figures(r, "effect", (double)(clock_monotonic_us() - began_us) / 1e6);
    watch_close(r);
    connection_close(&e.other);
    connection_close(&c);
}

/* ---- Command line. */

static int64_t number(const char *text)
{
    char *end;
    long long n = strtoll(text, &end, 10);
    return *end == '\0' && n > 0 && n < COUNT_MAX ? n : 0;
}

static int usage(void)
{
    fputs("usage: outbox_app latency URL SERVER TOPIC COUNT\n"
          "       outbox_app load URL SERVER TOPIC RATE SECONDS CONNECTIONS\n"
          "       outbox_app effect URL SERVER TOPIC OTHER-URL COUNT\n",
          stderr);
    return 2;
}

int main(int argc, char **argv)
{
    struct run r = {0};
    if (argc < 6) {
        return usage();
    }
    r.url = argv[2];
    r.server = argv[3];
    r.topic = argv[4];
    void (*command)(struct run *) = NULL;
    if (strcmp(argv[1], "latency") == 0 && argc == 6) {
        command = latency;
        r.count = number(argv[5]);
    } else if (strcmp(argv[1], "load") == 0 && argc == 8) {
        command = load;
        r.rate = number(argv[5]);
        r.count = r.rate * number(argv[6]);
        r.connections = number(argv[7]);
    } else if (strcmp(argv[1], "effect") == 0 && argc == 7) {
        command = effect;
        r.other = argv[5];
        r.count = number(argv[6]);
    }
    if (command == NULL || r.count <= 0 || r.count >= COUNT_MAX ||
        r.connections > CONNECTIONS_MAX || (command == load && r.connections == 0)) {
        return usage();
    }
    r.count++; /* One more, which is not counted. */
    r.committed_us = calloc((size_t)r.count, sizeof(r.committed_us[0]));
    r.took_us = calloc((size_t)r.count, sizeof(r.took_us[0]));
    bool room = r.committed_us != NULL && r.took_us != NULL;
    if (room) {
        command(&r);
    } else {
        fputs("outbox_app: out of memory\n", stderr);
    }
    free((void *)r.committed_us);
    free(r.took_us);
    return room ? 0 : 1;
}
