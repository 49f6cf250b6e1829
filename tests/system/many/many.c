/* many: a thousand consumers of one subscription in one process, each with a client, a connection
 * and a name of its own.
 *
 *   many SERVERS TOPIC SUBSCRIPTION CONSUMERS MESSAGES IDLE_S
 *
 * Opens them all, waits IDLE_S seconds with nothing to do (the caller looks at the broker
 * meanwhile: "idle" is printed when it begins, "work" when it ends), then sends MESSAGES and lets
 * the consumers receive and ack them. Prints one line of JSON: how long, how many each got, what
 * came twice. One application thread; each client has its own for the network. */
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "ferry.h"

#define CONSUMERS_MAX  2000
#define MESSAGES_MAX   (INT64_C(1) << 24)
#define OPEN_MS        60000
#define FLUSH_MS       120000
#define SILENCE_US     (INT64_C(60) * 1000000)
#define TAKE_MAX       64
#define COMPLAINTS_MAX 5

struct many {
    const char *servers, *topic, *subscription;
    size_t consumers;
    int64_t messages;
    struct consumer {
        struct many *many;
        struct ferry_client *client;
        struct ferry_receiver *receiver;
        char name[32];
        int64_t received;
    } * all;
    uint8_t *seen; /* By message. */
    int64_t received, acked, doubled, alien, refused, unstored;
    int64_t heard_us;
};

static int complain(const char *what, enum ferry_err err)
{
    fprintf(stderr, "many: %s: %s: %s\n", what, ferry_err_name(err), ferry_err_text(err));
    return EXIT_FAILURE;
}

static enum ferry_err open_client(const struct many *m, const char *name, ferry_report_cb *report,
                                  void *arg, struct ferry_client **client)
{
    struct ferry_conf *conf = NULL;
    enum ferry_err err = ferry_conf_new(&conf);
    if (err == FERRY_OK) {
        err = ferry_conf_set(conf, "servers", m->servers, NULL, 0);
    }
    if (err == FERRY_OK) {
        err = ferry_conf_set(conf, "client.name", name, NULL, 0);
    }
    if (err == FERRY_OK && report != NULL) {
        ferry_conf_on_report(conf, report, arg);
    }
    if (err == FERRY_OK) {
        err = ferry_open(client, &conf, NULL, 0);
    }
    ferry_conf_free(&conf);
    return err;
}

static void on_settled(const struct ferry_settled *settled, void *arg)
{
    struct many *m = ((struct consumer *)arg)->many;
    m->acked += settled->err == FERRY_OK;
    m->refused += settled->err != FERRY_OK;
    if (settled->err != FERRY_OK && m->refused <= COMPLAINTS_MAX) {
        fprintf(stderr, "many: %s: offset %" PRId64 " of %" PRId32 ": %s\n",
                ((struct consumer *)arg)->name, settled->offset, settled->partition,
                ferry_err_name(settled->err));
    }
}

static enum ferry_err open_one(struct many *m, size_t i)
{
    struct consumer *c = &m->all[i];
    struct ferry_receiver_spec spec = {
        .member = c->name, .inflight_max = TAKE_MAX, .batch_max = 16};
    c->many = m;
    (void)snprintf(c->name, sizeof(c->name), "consumer-%04zu", i);
    enum ferry_err err = open_client(m, c->name, NULL, NULL, &c->client);
    if (err == FERRY_OK) {
        err =
            ferry_receiver_open(&c->receiver, c->client, m->topic, m->subscription, &spec, OPEN_MS);
    }
    if (err == FERRY_OK) {
        ferry_receiver_on_settled(c->receiver, on_settled, c);
    }
    return err;
}

static void on_report(const struct ferry_report *report, void *arg)
{
    struct many *m = arg;
    m->unstored += report->outcome != FERRY_STORED;
}

static enum ferry_err send_all(struct many *m)
{
    struct ferry_client *client = NULL;
    enum ferry_err err = open_client(m, "producer", on_report, m, &client);
    for (int64_t n = 0; err == FERRY_OK && n < m->messages;) {
        uint8_t payload[100] = {0};
        memcpy(payload, &n, sizeof(n));
        struct ferry_message message = {.topic = m->topic,
                                        .partition = FERRY_PARTITION_ANY,
                                        .payload = payload,
                                        .payload_bytes = sizeof(payload)};
        err = ferry_send(client, &message);
        n += err == FERRY_OK;
        if (err == FERRY_ERR_QUEUE_FULL) {
            (void)ferry_poll(client, 10);
            err = FERRY_OK;
        }
    }
    if (err == FERRY_OK) {
        err = ferry_flush(client, FLUSH_MS);
    }
    ferry_close(&client, 0);
    return err;
}

static void note(struct many *m, const struct ferry_record *record)
{
    int64_t n = -1;
    if (record->payload_bytes >= sizeof(n)) {
        memcpy(&n, record->payload, sizeof(n));
    }
    if (n < 0 || n >= m->messages) {
        m->alien++;
        return;
    }
    m->doubled += m->seen[n];
    m->seen[n] = 1;
}

static enum ferry_err turn(struct many *m, struct consumer *c)
{
    struct ferry_delivery deliveries[TAKE_MAX];
    size_t count = 0;
    enum ferry_err err = ferry_receive(c->receiver, 0, deliveries, TAKE_MAX, &count);
    if (err == FERRY_ERR_TIMEOUT) {
        err = FERRY_OK;
    }
    for (size_t i = 0; err == FERRY_OK && i < count; i++) {
        note(m, &deliveries[i].record);
        c->received++;
        m->received++;
        m->heard_us = clock_monotonic_us();
        err = ferry_ack(c->receiver, &deliveries[i]);
    }
    (void)ferry_poll(c->client, 0);
    return err;
}

static enum ferry_err receive_all(struct many *m)
{
    enum ferry_err err = FERRY_OK;
    m->heard_us = clock_monotonic_us();
    while (err == FERRY_OK && m->acked + m->refused < m->messages) {
        int64_t before = m->received;
        for (size_t i = 0; err == FERRY_OK && i < m->consumers; i++) {
            err = turn(m, &m->all[i]);
        }
        if (clock_monotonic_us() - m->heard_us > SILENCE_US) {
            return FERRY_ERR_TIMEOUT;
        }
        if (m->received == before) {
            (void)poll(NULL, 0, 1);
        }
    }
    return err;
}

static void print(const struct many *m, double opened_s, double seconds)
{
    int64_t least = INT64_MAX, most = 0, idle = 0;
    for (size_t i = 0; i < m->consumers; i++) {
        int64_t n = m->all[i].received;
        least = n < least ? n : least;
        most = n > most ? n : most;
        idle += n == 0;
    }
    printf("{\"consumers\":%zu,\"opened_s\":%.3f,\"seconds\":%.3f,\"received\":%" PRId64
           ",\"acked\":%" PRId64 ",\"doubled\":%" PRId64 ",\"alien\":%" PRId64
           ",\"refused\":%" PRId64 ",\"unstored\":%" PRId64 ",\"least\":%" PRId64
           ",\"most\":%" PRId64 ",\"without\":%" PRId64 "}\n",
           m->consumers, opened_s, seconds, m->received, m->acked, m->doubled, m->alien, m->refused,
           m->unstored, least, most, idle);
}

static void say(const char *word)
{
    printf("%s\n", word);
    (void)fflush(stdout);
}

static int run(struct many *m, int idle_s)
{
    enum ferry_err err = FERRY_OK;
    int64_t began_us = clock_monotonic_us();
    for (size_t i = 0; i < m->consumers && err == FERRY_OK; i++) {
        err = open_one(m, i);
    }
    if (err != FERRY_OK) {
        return complain("opening the consumers", err);
    }
    double opened_s = (double)(clock_monotonic_us() - began_us) / 1e6;
    say("idle");
    (void)sleep((unsigned)idle_s);
    say("work");
    began_us = clock_monotonic_us();
    err = send_all(m);
    if (err != FERRY_OK) {
        return complain("sending", err);
    }
    err = receive_all(m);
    double seconds = (double)(clock_monotonic_us() - began_us) / 1e6;
    print(m, opened_s, seconds);
    return err == FERRY_OK ? EXIT_SUCCESS : complain("receiving", err);
}

int main(int argc, char **argv)
{
    struct many m = {0};
    if (argc == 7) {
        m = (struct many){.servers = argv[1],
                          .topic = argv[2],
                          .subscription = argv[3],
                          .consumers = strtoull(argv[4], NULL, 10),
                          .messages = strtoll(argv[5], NULL, 10)};
    }
    if (m.consumers == 0 || m.consumers > CONSUMERS_MAX || m.messages <= 0 ||
        m.messages > MESSAGES_MAX) {
        fprintf(stderr, "usage: many SERVERS TOPIC SUBSCRIPTION CONSUMERS MESSAGES IDLE_S\n");
        return 2;
    }
    m.all = mem_zalloc(m.consumers, sizeof(*m.all));
    m.seen = mem_zalloc((size_t)m.messages, 1);
    if (m.all == NULL || m.seen == NULL) {
        return complain("starting", FERRY_ERR_NO_MEMORY);
    }
    int status = run(&m, (int)strtol(argv[6], NULL, 10));
    for (size_t i = 0; i < m.consumers; i++) {
        ferry_receiver_close(&m.all[i].receiver, 0);
        ferry_close(&m.all[i].client, 0);
    }
    mem_free(m.all);
    mem_free(m.seen);
    return status;
}
