/* The producer: sends at a steady rate, many in flight, and notes each message before it is sent
 * and when its outcome is told. */
#include <inttypes.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/prng.h"
#include "system/cluster/message.h"
#include "system/cluster/workload.h"

#define SECOND_US 1000000
#define POLL_MS   5
#define CATCH_UP_MAX                                                                               \
    64 /* Messages sent at once after a pause; the rest of the pause is forgotten. */
#define KEYS_MAX      4096
#define CLOSE_WAIT_MS 1000

struct producer {
    struct workload *w;
    struct ferry_client *client;
    struct prng prng;
    uint64_t next;                           /* Sequence of the next message. */
    uint64_t key_next[TOPICS_MAX][KEYS_MAX]; /* Sequence of the next under each key. */
};

static void note_report(const struct ferry_report *report, void *arg)
{
    const struct workload *w = arg;
    int64_t now = clock_monotonic_us();
    uintptr_t sequence = (uintptr_t)report->opaque;
    if (report->outcome == FERRY_STORED) {
        fprintf(w->history, "+ %" PRId64 " %" PRIuPTR " %" PRId32 " %" PRId64 " %d\n", now,
                sequence, report->partition, report->offset, report->duplicate);
    } else {
        fprintf(w->history, "%c %" PRId64 " %" PRIuPTR " %s\n",
                report->outcome == FERRY_NOT_STORED ? '-' : '?', now, sequence,
                ferry_err_name(report->err));
    }
}

/* Queues the message, waiting for room; its outcome is noted here when the client refuses it. */
static void queue(struct producer *p, const struct ferry_message *message)
{
    enum ferry_err err = ferry_send(p->client, message);
    while (err == FERRY_ERR_QUEUE_FULL && !*p->w->stopped) {
        (void)ferry_poll(p->client, POLL_MS);
        err = ferry_send(p->client, message);
    }
    if (err != FERRY_OK) {
        fprintf(p->w->history, "- %" PRId64 " %" PRIuPTR " %s\n", clock_monotonic_us(),
                (uintptr_t)message->opaque, ferry_err_name(err));
    }
}

static void send_one(struct producer *p)
{
    struct workload *w = p->w;
    char key[MESSAGE_NAME_BYTES], payload[MESSAGE_BYTES_MAX];
    size_t topic = (size_t)prng_below(&p->prng, w->topic_count);
    size_t key_number = (size_t)prng_below(&p->prng, w->keys < KEYS_MAX ? w->keys : KEYS_MAX);
    struct message m = {.sequence = p->next++, .key_sequence = p->key_next[topic][key_number]++};
    (void)snprintf(m.producer, sizeof(m.producer), "%s", w->name);
    int key_bytes = snprintf(key, sizeof(key), "k%zu", key_number);
    size_t bytes = message_make(&m, w->topics[topic], key,
                                (size_t)prng_below(&p->prng, w->bytes + 1), payload);
    fprintf(w->history, "s %" PRId64 " %" PRIu64 " %s %s %" PRIu64 " %016" PRIx64 "\n",
            clock_monotonic_us(), m.sequence, w->topics[topic], key, m.key_sequence, m.sum);
    queue(p, &(struct ferry_message){.topic = w->topics[topic],
                                     .partition = FERRY_PARTITION_ANY,
                                     .key = key,
                                     .key_bytes = (size_t)key_bytes,
                                     .payload = payload,
                                     .payload_bytes = bytes,
                                     .opaque = (void *)(uintptr_t)m.sequence});
}

static void send_until_stopped(struct producer *p)
{
    int64_t pause_us = SECOND_US / (int64_t)p->w->rate;
    int64_t due = clock_monotonic_us();
    while (!*p->w->stopped) {
        int64_t now = clock_monotonic_us();
        if (now - due > pause_us * CATCH_UP_MAX) {
            due = now;
        }
        while (due <= now && !*p->w->stopped) {
            send_one(p);
            due += pause_us;
        }
        (void)ferry_poll(p->client, due - now > POLL_MS * 1000 ? POLL_MS : 1);
    }
}

int producer_run(struct workload *w)
{
    struct producer *p = calloc(1, sizeof(*p));
    if (p == NULL) {
        return EXIT_FAILURE;
    }
    p->w = w;
    prng_init(&p->prng, w->seed);
    p->client = workload_open(w, note_report);
    if (p->client == NULL) {
        free(p);
        return EXIT_FAILURE;
    }
    send_until_stopped(p);
    /* Every message has its outcome by its own delivery time-out, so this ends. */
    while (ferry_flush(p->client, CLOSE_WAIT_MS) != FERRY_OK) {
    }
    ferry_close(&p->client, CLOSE_WAIT_MS);
    free(p);
    return EXIT_SUCCESS;
}
