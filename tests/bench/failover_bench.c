/* failover_bench: a client that goes on writing while the leader of its partition is killed.
 *
 *   failover_bench SERVERS TOPIC RATE      RATE records a second to a topic of one partition
 *
 * With the client library's own defaults: no timeout is changed. Commands are lines on standard
 * input, each answered with one line of JSON:
 *
 *   kill PID    SIGKILL to the process, then: how long until a record that was sent after the
 *               signal was stored. The records sent before it that have no answer yet go first.
 *   check       writes no more, waits for every outcome, reads the topic from its start and
 * compares it with what was acknowledged: nothing missing, doubled, or out of order.
 *
 * The end of standard input ends it. One thread. */
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "ferry.h"

#define RECORDS_MAX   4000000
#define RATE_MAX      100000
#define BURST_MAX     64 /* Records sent between two looks at the rest. */
#define PAYLOAD_BYTES 100
#define TURN_MS       1
#define LINE_BYTES    64
#define READ_WAIT_MS  1000
#define SILENCE_US    (INT64_C(60) * 1000000) /* Without a record while some are still to be read. */
#define FLUSH_MS      150000 /* More than delivery.timeout_ms: every outcome is told by then. */
#define NOT_ACKED     (-1)

struct writer {
    struct ferry_client *client;
    const char *topic;
    int64_t interval_us, next_us; /* Of the records, and when the next one is due. */
    int64_t sent, stored, not_stored, unknown;
    int64_t *offsets;   /* By record: where it was acknowledged, or NOT_ACKED. */
    uint8_t *seen;      /* By record: how often it was read back; for `check`. */
    int64_t killed_us;  /* 0: nobody waits for a record. */
    int64_t kill_first; /* The first record after the signal. */
    int64_t end_offset; /* One past the last acknowledged. */
    bool failed;        /* A command could not be obeyed. */
};

static void on_report(const struct ferry_report *report, void *arg)
{
    struct writer *w = arg;
    int64_t record = (int64_t)(intptr_t)report->opaque;
    w->stored += report->outcome == FERRY_STORED;
    w->not_stored += report->outcome == FERRY_NOT_STORED;
    w->unknown += report->outcome == FERRY_UNKNOWN;
    if (report->outcome != FERRY_STORED) {
        fprintf(stderr, "failover_bench: record %" PRId64 ": %s\n", record,
                ferry_err_name(report->err));
        return;
    }
    w->offsets[record] = report->offset;
    w->end_offset = report->offset >= w->end_offset ? report->offset + 1 : w->end_offset;
    if (w->killed_us != 0 && record >= w->kill_first) {
        printf("{\"outage_us\":%" PRId64 ",\"record\":%" PRId64 "}\n",
               clock_monotonic_us() - w->killed_us, record);
        fflush(stdout);
        w->killed_us = 0;
    }
}

/* ---- Writing -------------------------------------------------------------------------------- */

static enum ferry_err send_one(struct writer *w)
{
    uint8_t payload[PAYLOAD_BYTES] = {0};
    memcpy(payload, &w->sent, sizeof(w->sent));
    struct ferry_message message = {.topic = w->topic,
                                    .partition = 0,
                                    .payload = payload,
                                    .payload_bytes = sizeof(payload),
                                    .opaque = (void *)(intptr_t)w->sent};
    w->offsets[w->sent] = NOT_ACKED;
    enum ferry_err err = ferry_send(w->client, &message);
    w->sent += err == FERRY_OK;
    return err;
}

/* A full queue is waited out; what was due meanwhile is sent later, a burst at a time. */
static enum ferry_err send_due(struct writer *w)
{
    enum ferry_err err = FERRY_OK;
    int64_t now_us = clock_monotonic_us();
    for (int i = 0; i < BURST_MAX && err == FERRY_OK && w->next_us <= now_us; i++) {
        err = w->sent < RECORDS_MAX ? send_one(w) : FERRY_ERR_LIMIT_REACHED;
        w->next_us += err == FERRY_OK ? w->interval_us : 0;
    }
    return err == FERRY_ERR_QUEUE_FULL ? FERRY_OK : err;
}

/* ---- Reading back --------------------------------------------------------------------------- */

struct compared {
    int64_t read, missing, doubled, misplaced, out_of_order, alien;
    int64_t last; /* The record read before; -1 at the start. */
};

static void compare_record(struct writer *w, struct compared *c, const struct ferry_record *record)
{
    int64_t n = -1;
    if (record->payload_bytes == PAYLOAD_BYTES) {
        memcpy(&n, record->payload, sizeof(n));
    }
    c->read++;
    if (n < 0 || n >= w->sent) {
        c->alien++;
        return;
    }
    c->doubled += w->seen[n] > 0;
    w->seen[n] = 1;
    c->misplaced += w->offsets[n] != NOT_ACKED && w->offsets[n] != record->offset;
    c->out_of_order += n <= c->last;
    c->last = n;
}

static void compare_batch(struct writer *w, struct compared *c, struct ferry_batch *batch)
{
    for (size_t i = 0; i < ferry_batch_count(batch); i++) {
        struct ferry_record record;
        ferry_batch_record(batch, i, &record);
        compare_record(w, c, &record);
    }
}

/* Until everything acknowledged has been read, or nothing more comes. */
static enum ferry_err read_all(struct writer *w, struct ferry_consumer *consumer,
                               struct compared *c)
{
    int64_t last_us = clock_monotonic_us();
    enum ferry_err err = FERRY_OK;
    while (err == FERRY_OK && ferry_consumer_position(consumer, 0) < w->end_offset &&
           clock_monotonic_us() - last_us < SILENCE_US) {
        struct ferry_batch *batch = NULL;
        err = ferry_consumer_fetch(consumer, READ_WAIT_MS, &batch);
        if (err == FERRY_OK) {
            compare_batch(w, c, batch);
            ferry_batch_free(&batch);
            last_us = clock_monotonic_us();
        }
        err = err == FERRY_ERR_TIMEOUT ? FERRY_OK : err;
    }
    return err;
}

static enum ferry_err check(struct writer *w)
{
    struct ferry_consumer *consumer = NULL;
    struct compared c = {.last = -1};
    enum ferry_err err = ferry_flush(w->client, FLUSH_MS);
    if (err == FERRY_OK) {
        err = ferry_consumer_open(&consumer, w->client, w->topic, NULL, FERRY_FROM_START,
                                  (int)(SILENCE_US / 1000));
    }
    if (err == FERRY_OK) {
        err = read_all(w, consumer, &c);
    }
    ferry_consumer_close(&consumer);
    for (int64_t i = 0; i < w->sent; i++) {
        c.missing += w->offsets[i] != NOT_ACKED && w->seen[i] == 0;
    }
    printf("{\"sent\":%" PRId64 ",\"acked\":%" PRId64 ",\"not_stored\":%" PRId64
           ",\"unknown\":%" PRId64 ",\"read\":%" PRId64 ",\"missing\":%" PRId64
           ",\"doubled\":%" PRId64 ",\"misplaced\":%" PRId64 ",\"out_of_order\":%" PRId64
           ",\"alien\":%" PRId64 "}\n",
           w->sent, w->stored, w->not_stored, w->unknown, c.read, c.missing, c.doubled, c.misplaced,
           c.out_of_order, c.alien);
    fflush(stdout);
    return err;
}

/* ---- Commands ------------------------------------------------------------------------------- */

static bool kill_process(struct writer *w, const char *word)
{
    long pid = strtol(word, NULL, 10);
    w->kill_first = w->sent;
    w->next_us = clock_monotonic_us(); /* A record follows the signal at once. */
    w->killed_us = w->next_us;
    if (pid <= 1 || kill((pid_t)pid, SIGKILL) != 0) {
        fprintf(stderr, "failover_bench: %s: no process to kill\n", word);
        w->failed = true;
        return false;
    }
    return true;
}

/* One line; the other side waits for each answer, so there is never a second. False ends it. */
static bool take_command(struct writer *w)
{
    char line[LINE_BYTES];
    ssize_t bytes = read(STDIN_FILENO, line, sizeof(line) - 1);
    if (bytes <= 0) {
        return false;
    }
    line[bytes] = '\0';
    if (strncmp(line, "kill ", 5) == 0) {
        return kill_process(w, line + 5);
    }
    if (strcmp(line, "check\n") == 0) {
        enum ferry_err err = check(w);
        if (err != FERRY_OK) {
            fprintf(stderr, "failover_bench: check: %s\n", ferry_err_name(err));
        }
        w->failed = err != FERRY_OK;
        return false;
    }
    fprintf(stderr, "failover_bench: not a command: %s", line);
    w->failed = true;
    return false;
}

static enum ferry_err run(struct writer *w)
{
    enum ferry_err err = FERRY_OK;
    bool more = true;
    w->next_us = clock_monotonic_us();
    while (err == FERRY_OK && more) {
        struct pollfd fds[] = {{.fd = STDIN_FILENO, .events = POLLIN},
                               {.fd = ferry_fd(w->client), .events = POLLIN}};
        err = send_due(w);
        (void)poll(fds, 2, TURN_MS);
        ferry_poll(w->client, 0);
        more = fds[0].revents == 0 || take_command(w);
    }
    return err;
}

static enum ferry_err writer_open(struct writer *w, const char *servers)
{
    struct ferry_conf *conf = NULL;
    char detail[256] = "";
    w->offsets = mem_alloc(RECORDS_MAX * sizeof(w->offsets[0]));
    w->seen = mem_zalloc(RECORDS_MAX, sizeof(w->seen[0]));
    if (w->offsets == NULL || w->seen == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    enum ferry_err err = ferry_conf_new(&conf);
    if (err == FERRY_OK) {
        ferry_conf_on_report(conf, on_report, w);
        err = ferry_conf_set(conf, "servers", servers, detail, sizeof(detail));
    }
    if (err == FERRY_OK) {
        err = ferry_open(&w->client, &conf, detail, sizeof(detail));
    }
    if (err != FERRY_OK) {
        fprintf(stderr, "failover_bench: %s: %s\n", servers, detail);
    }
    ferry_conf_free(&conf);
    return err;
}

int main(int argc, char **argv)
{
    long rate = argc == 4 ? strtol(argv[3], NULL, 10) : 0;
    if (rate < 1 || rate > RATE_MAX) {
        fprintf(stderr, "usage: failover_bench SERVERS TOPIC RATE (1 to %d)\n", RATE_MAX);
        return 2;
    }
    struct writer w = {.topic = argv[2], .interval_us = 1000000 / rate};
    enum ferry_err err = writer_open(&w, argv[1]);
    if (err == FERRY_OK) {
        err = run(&w);
    }
    if (err != FERRY_OK) {
        fprintf(stderr, "failover_bench: %s\n", ferry_err_name(err));
    }
    ferry_close(&w.client, 0);
    mem_free(w.offsets);
    mem_free(w.seen);
    return err == FERRY_OK && !w.failed ? 0 : 1;
}
