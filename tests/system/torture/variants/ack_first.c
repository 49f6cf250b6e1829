/* Broken on purpose: a relay that takes rows for published before it has sent them, which it does
 * when there is time. What it had not sent when it was killed is never sent.
 *
 * Linked into a relay with --wrap=ferry_source_append and --wrap=ferry_poll. */
#include <time.h>

#include "held.h"

#define LATER_MS 1500 /* Longer than from one checkpoint to the next. */

enum ferry_err __real_ferry_source_append(struct ferry_source *source, const char *topic,
                                          int32_t partition, uint64_t expect_version,
                                          const void *cursor_blob, size_t cursor_bytes,
                                          const struct ferry_message *messages, size_t count,
                                          ferry_append_cb *callback, void *arg);
enum ferry_err __wrap_ferry_source_append(struct ferry_source *source, const char *topic,
                                          int32_t partition, uint64_t expect_version,
                                          const void *cursor_blob, size_t cursor_bytes,
                                          const struct ferry_message *messages, size_t count,
                                          ferry_append_cb *callback, void *arg);
int __real_ferry_poll(struct ferry_client *client, int timeout_ms);
int __wrap_ferry_poll(struct ferry_client *client, int timeout_ms);

struct queue {
    struct held *first, **last;
};

static struct queue told, unsent; /* Unsent are due in their order. */

static void add(struct queue *q, struct held *h)
{
    if (q->first == NULL) {
        q->last = &q->first;
    }
    h->next = NULL;
    *q->last = h;
    q->last = &h->next;
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void nobody_listens(const struct ferry_append_result *result, void *arg)
{
    (void)result;
    (void)arg;
}

enum ferry_err __wrap_ferry_source_append(struct ferry_source *source, const char *topic,
                                          int32_t partition, uint64_t expect_version,
                                          const void *cursor_blob, size_t cursor_bytes,
                                          const struct ferry_message *messages, size_t count,
                                          ferry_append_cb *callback, void *arg)
{
    struct held *h = held_new(source, topic, partition, expect_version, cursor_blob, cursor_bytes,
                              messages, count, callback, arg);
    h->due_ms = now_ms() + LATER_MS;
    add(&told, h);
    return FERRY_OK;
}

static void send_unsent(void)
{
    int64_t now = now_ms();
    while (unsent.first != NULL && unsent.first->due_ms <= now) {
        struct held *h = unsent.first;
        unsent.first = h->next;
        (void)__real_ferry_source_append(h->source, h->topic, h->partition, h->expect_version,
                                         h->cursor, h->cursor_bytes, h->messages, h->count,
                                         nobody_listens, NULL);
        held_free(h);
    }
}

int __wrap_ferry_poll(struct ferry_client *client, int timeout_ms)
{
    struct held *h = told.first;
    told.first = NULL;
    while (h != NULL) {
        struct held *next = h->next;
        held_report_ok(h);
        add(&unsent, h);
        h = next;
    }
    send_unsent();
    return __real_ferry_poll(client, timeout_ms);
}
