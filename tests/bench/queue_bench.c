/* queue_bench: a work queue from one end to the other: produced, handed out, acked.
 *
 *   queue_bench SERVERS TOPIC SUBSCRIPTION BYTES IN_FLIGHT COUNT [RATE]
 *       sends COUNT messages of BYTES, at most IN_FLIGHT of them not acked yet, RATE a second or as
 *       fast as it goes, while another thread receives and acks each.
 *   queue_bench SERVERS TOPIC SUBSCRIPTION drain COUNT
 *       receives and acks COUNT messages that others have put there.
 *   queue_bench SERVERS TOPIC SUBSCRIPTION delayed BYTES COUNT AHEAD_S
 *       sends COUNT messages that are all due at one time, AHEAD_S seconds from now, and counts
 * from that time until the last one is acked. All must be stored before it.
 *
 * A message counts when its ack is confirmed: then it, the hand-out and the ack are on disk on a
 * quorum. The latency is from the time at which it should have been sent to the time at which the
 * application had it and could ack. Prints one line of JSON; exit code 1 when a message was handed
 * out twice, was lost, or an ack was refused. The topic and the subscription (mode queue) are
 * there, and nobody else uses them. Two clients, a thread each. */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"
#include "ferry.h"

#define COUNT_MAX   (INT64_C(1) << 25)
#define BYTES_MIN   8
#define BYTES_MAX   65536
#define RECEIVE_MAX 1000
#define INFLIGHT    16384 /* Of the receiver: what the leaders of several partitions may hand out. */
#define OPEN_MS     30000
#define TURN_MS     10
#define REST_US     1000 /* When there is nothing to send now. */
#define SILENCE_US  (INT64_C(120) * 1000000)
#define FLUSH_MS    150000
#define NOT_SEEN    (-1)

struct run {
    const char *servers, *topic, *subscription;
    size_t bytes;
    int64_t in_flight, count, rate;
    bool drains;    /* Others have sent. */
    int64_t due_ms; /* Delayed: when all are due; else 0. */
    bool late;      /* ... and some were stored after it. */
    int64_t began_us;
    int64_t *due_us;      /* By message: when it should have been sent. */
    int64_t *latency_us;  /* By message; NOT_SEEN until it was received. */
    int64_t sent, unsent; /* The producer's. */
    _Atomic int64_t acked;
    int64_t received, doubled, alien, refused; /* The receiver's. */
    atomic_bool failed;
};

static bool fail(struct run *r, const char *what, enum ferry_err err)
{
    fprintf(stderr, "queue_bench: %s: %s: %s\n", what, ferry_err_name(err), ferry_err_text(err));
    atomic_store(&r->failed, true);
    return false;
}

static struct ferry_client *open_client(struct run *r, ferry_report_cb *on_report)
{
    struct ferry_conf *conf = NULL;
    struct ferry_client *client = NULL;
    char detail[256] = "";
    enum ferry_err err = ferry_conf_new(&conf);
    if (err == FERRY_OK) {
        err = ferry_conf_set(conf, "servers", r->servers, detail, sizeof(detail));
    }
    if (err == FERRY_OK && on_report != NULL) {
        ferry_conf_on_report(conf, on_report, r);
    }
    if (err == FERRY_OK) {
        err = ferry_open(&client, &conf, detail, sizeof(detail));
    }
    ferry_conf_free(&conf);
    if (err != FERRY_OK) {
        (void)fail(r, detail, err);
    }
    return client;
}

/* ---- Producing ------------------------------------------------------------------------------ */

static void on_report(const struct ferry_report *report, void *arg)
{
    struct run *r = arg;
    if (report->outcome != FERRY_STORED) {
        r->unsent++;
        (void)fail(r, "a message was not stored", report->err);
    }
}

static bool send_one(struct run *r, struct ferry_client *client, uint8_t *payload)
{
    memcpy(payload, &r->sent, sizeof(r->sent));
    struct ferry_message message = {.topic = r->topic,
                                    .partition = FERRY_PARTITION_ANY,
                                    .payload = payload,
                                    .payload_bytes = r->bytes,
                                    .due_ms = r->due_ms};
    int64_t now_us = clock_monotonic_us();
    r->due_us[r->sent] = r->rate > 0 ? r->began_us + r->sent * 1000000 / r->rate : now_us;
    enum ferry_err err = ferry_send(client, &message);
    if (err == FERRY_OK) {
        r->sent++;
    } else if (err == FERRY_ERR_QUEUE_FULL) {
        ferry_poll(client, TURN_MS);
    } else {
        return fail(r, "sending", err);
    }
    return true;
}

static bool may_send(const struct run *r)
{
    bool in_time =
        r->rate == 0 || clock_monotonic_us() - r->began_us >= r->sent * 1000000 / r->rate;
    return in_time && r->sent - atomic_load(&r->acked) < r->in_flight;
}

/* At a rate: until the next message's time, or the figures would have our own sleep in them. */
static void rest(const struct run *r, struct ferry_client *client)
{
    int64_t left_us =
        r->rate > 0 ? r->began_us + r->sent * 1000000 / r->rate - clock_monotonic_us() : 0;
    if (left_us <= 0 || left_us >= REST_US) {
        ferry_poll(client, REST_US / 1000);
        return;
    }
    struct timespec pause = {.tv_nsec = (long)left_us * 1000};
    ferry_poll(client, 0);
    (void)nanosleep(&pause, NULL);
}

static void *produce(void *arg)
{
    struct run *r = arg;
    uint8_t payload[BYTES_MAX] = {0};
    struct ferry_client *client = open_client(r, on_report);
    bool ok = client != NULL;
    while (ok && r->sent < r->count && !atomic_load(&r->failed)) {
        if (may_send(r)) {
            ok = send_one(r, client, payload);
        } else {
            rest(r, client);
        }
    }
    if (client != NULL) {
        enum ferry_err err = ferry_flush(client, FLUSH_MS);
        if (err != FERRY_OK) {
            (void)fail(r, "waiting for what was sent", err);
        }
        r->late = r->due_ms != 0 && clock_wall_ms() >= r->due_ms;
        ferry_close(&client, TURN_MS);
    }
    return NULL;
}

/* ---- Receiving ------------------------------------------------------------------------------ */

static void on_settled(const struct ferry_settled *settled, void *arg)
{
    struct run *r = arg;
    if (settled->err == FERRY_OK) {
        atomic_fetch_add(&r->acked, 1);
    } else {
        r->refused++;
        (void)fail(r, "an ack", settled->err);
    }
}

static void note(struct run *r, const struct ferry_record *record)
{
    int64_t n = -1;
    r->received++;
    if (record->payload_bytes >= BYTES_MIN) {
        memcpy(&n, record->payload, sizeof(n));
    }
    if (r->drains) {
        return; /* Messages of others have no numbers of ours. */
    }
    if (n < 0 || n >= r->count) {
        r->alien++;
    } else if (r->latency_us[n] != NOT_SEEN) {
        r->doubled++;
    } else {
        r->latency_us[n] = clock_monotonic_us() - r->due_us[n];
    }
}

static bool take(struct run *r, struct ferry_receiver *receiver, struct ferry_delivery *deliveries,
                 int64_t *heard_us)
{
    size_t count = 0;
    enum ferry_err err = ferry_receive(receiver, TURN_MS, deliveries, RECEIVE_MAX, &count);
    if (err == FERRY_ERR_TIMEOUT) {
        return clock_monotonic_us() - *heard_us < SILENCE_US || fail(r, "nothing comes", err);
    }
    if (err != FERRY_OK) {
        return fail(r, "receiving", err);
    }
    *heard_us = clock_monotonic_us();
    for (size_t i = 0; i < count; i++) {
        note(r, &deliveries[i].record);
        err = ferry_ack(receiver, &deliveries[i]);
        if (err != FERRY_OK) {
            return fail(r, "acking", err);
        }
    }
    return true;
}

static bool receive_all(struct run *r, struct ferry_client *client, struct ferry_receiver *receiver)
{
    struct ferry_delivery *deliveries = mem_zalloc(RECEIVE_MAX, sizeof(*deliveries));
    int64_t heard_us = clock_monotonic_us();
    bool ok = deliveries != NULL;
    while (ok && atomic_load(&r->acked) < r->count && !atomic_load(&r->failed)) {
        ok = take(r, receiver, deliveries, &heard_us);
        ferry_poll(client, 0); /* Confirmations of acks. */
    }
    mem_free(deliveries);
    return ok && !atomic_load(&r->failed);
}

static bool receive(struct run *r, double *seconds)
{
    struct ferry_receiver_spec spec = {
        .member = "queue-bench", .inflight_max = INFLIGHT, .batch_max = RECEIVE_MAX};
    struct ferry_client *client = open_client(r, NULL);
    struct ferry_receiver *receiver = NULL;
    pthread_t producer;
    if (client == NULL) {
        return false;
    }
    enum ferry_err err =
        ferry_receiver_open(&receiver, client, r->topic, r->subscription, &spec, OPEN_MS);
    bool ok = err == FERRY_OK || fail(r, "opening the receiver", err);
    bool produces = ok && !r->drains;
    r->began_us = clock_monotonic_us();
    if (ok) {
        ferry_receiver_on_settled(receiver, on_settled, r);
    }
    if (produces && pthread_create(&producer, NULL, produce, r) != 0) {
        produces = false;
        ok = fail(r, "starting a thread", FERRY_ERR_NO_MEMORY);
    }
    ok = ok && receive_all(r, client, receiver);
    *seconds = (double)(clock_monotonic_us() - r->began_us) / 1e6;
    if (r->due_ms != 0) {
        *seconds = (double)(clock_wall_ms() - r->due_ms) / 1e3;
    }
    if (produces) {
        pthread_join(producer, NULL);
    }
    ferry_receiver_close(&receiver, OPEN_MS);
    ferry_close(&client, TURN_MS);
    return ok;
}

/* ---- The result ----------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static int print(struct run *r, bool ok, double seconds)
{
    int64_t p50 = -1, p99 = -1;
    int64_t acked = atomic_load(&r->acked);
    if (!r->drains && ok) {
        qsort(r->latency_us, (size_t)r->count, sizeof(*r->latency_us), by_value);
        p50 = r->latency_us[r->count / 2];
        p99 = r->latency_us[(r->count - 1) * 99 / 100];
    }
    printf("{\"records\":%" PRId64 ",\"seconds\":%.6f,\"records_per_second\":%.1f,"
           "\"received\":%" PRId64 ",\"doubled\":%" PRId64 ",\"alien\":%" PRId64
           ",\"refused\":%" PRId64 ",\"latency_us\":{\"p50\":%" PRId64 ",\"p99\":%" PRId64 "}}\n",
           acked, seconds, (double)acked / seconds, r->received, r->doubled, r->alien, r->refused,
           p50, p99);
    if (r->late) {
        fprintf(stderr, "queue_bench: not all was stored before it was due: give more seconds\n");
    }
    bool all = r->drains ? acked >= r->count : acked == r->count; /* Others may have sent more. */
    bool sound = r->doubled == 0 && r->alien == 0 && all && !r->late;
    return ok && sound ? 0 : 1;
}

static bool parse_delayed(struct run *r, char **argv)
{
    r->bytes = (size_t)strtoll(argv[5], NULL, 10);
    r->count = r->in_flight = strtoll(argv[6], NULL, 10);
    r->due_ms = clock_wall_ms() + strtoll(argv[7], NULL, 10) * 1000;
    return true;
}

static bool parse_work(struct run *r, int argc, char **argv)
{
    r->bytes = (size_t)strtoll(argv[4], NULL, 10);
    r->in_flight = strtoll(argv[5], NULL, 10);
    r->count = strtoll(argv[6], NULL, 10);
    r->rate = argc == 8 ? strtoll(argv[7], NULL, 10) : 0;
    return r->in_flight > 0 && r->rate >= 0;
}

static bool parse(struct run *r, int argc, char **argv)
{
    *r = (struct run){0};
    if (argc < 6 || argc > 8) {
        return false;
    }
    r->servers = argv[1];
    r->topic = argv[2];
    r->subscription = argv[3];
    r->drains = strcmp(argv[4], "drain") == 0;
    if (r->drains) {
        r->count = strtoll(argv[5], NULL, 10);
        return argc == 6 && r->count > 0 && r->count <= COUNT_MAX;
    }
    bool delayed = argc == 8 && strcmp(argv[4], "delayed") == 0;
    if (argc == 6 || !(delayed ? parse_delayed(r, argv) : parse_work(r, argc, argv))) {
        return false;
    }
    return r->bytes >= BYTES_MIN && r->bytes <= BYTES_MAX && r->count > 0 && r->count <= COUNT_MAX;
}

int main(int argc, char **argv)
{
    struct run r;
    if (!parse(&r, argc, argv)) {
        fprintf(stderr,
                "usage: %s SERVERS TOPIC SUBSCRIPTION BYTES IN_FLIGHT COUNT [RATE]\n"
                "       %s SERVERS TOPIC SUBSCRIPTION drain COUNT\n",
                argv[0], argv[0]);
        return 2;
    }
    r.due_us = mem_zalloc((size_t)r.count, sizeof(*r.due_us));
    r.latency_us = mem_zalloc((size_t)r.count, sizeof(*r.latency_us));
    if (r.due_us == NULL || r.latency_us == NULL) {
        fprintf(stderr, "queue_bench: out of memory\n");
        return 1;
    }
    for (int64_t i = 0; i < r.count; i++) {
        r.latency_us[i] = NOT_SEEN;
    }
    double seconds = 0;
    bool ok = receive(&r, &seconds);
    int code = print(&r, ok, seconds);
    mem_free(r.due_us);
    mem_free(r.latency_us);
    return code;
}
