/* Broken on purpose: brokers that do not know a relay's epoch. What they refuse from one that slept
 * through its lease is appended all the same, so that a zombie publishes what its successor has.
 *
 * Linked into a relay with --wrap=ferry_source_open and --wrap=ferry_source_append. Every append is
 * a little late, as in a slow network, so that a relay is stopped with something in its hands. */
#include <poll.h>

#include "held.h"

#define LATE_MS 5

enum ferry_err __real_ferry_source_open(struct ferry_source **source, struct ferry_client *client,
                                        const struct ferry_id *source_id, uint32_t lane,
                                        const char *holder);
enum ferry_err __wrap_ferry_source_open(struct ferry_source **source, struct ferry_client *client,
                                        const struct ferry_id *source_id, uint32_t lane,
                                        const char *holder);
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

static struct ferry_client *the_client;

enum ferry_err __wrap_ferry_source_open(struct ferry_source **source, struct ferry_client *client,
                                        const struct ferry_id *source_id, uint32_t lane,
                                        const char *holder)
{
    the_client = client;
    return __real_ferry_source_open(source, client, source_id, lane, holder);
}

static void answered(const struct ferry_append_result *result, void *arg)
{
    struct held *h = arg;
    if (result->err == FERRY_ERR_SOURCE_FENCED) {
        for (size_t i = 0; i < h->count; i++) {
            struct ferry_message *m = &h->messages[i];
            m->topic = h->topic;
            m->partition = h->partition;
            (void)ferry_send(the_client, m);
        }
        held_report_ok(h);
    } else {
        h->callback(result, h->arg);
    }
    held_free(h);
}

enum ferry_err __wrap_ferry_source_append(struct ferry_source *source, const char *topic,
                                          int32_t partition, uint64_t expect_version,
                                          const void *cursor_blob, size_t cursor_bytes,
                                          const struct ferry_message *messages, size_t count,
                                          ferry_append_cb *callback, void *arg)
{
    struct held *h = held_new(source, topic, partition, expect_version, cursor_blob, cursor_bytes,
                              messages, count, callback, arg);
    poll(NULL, 0, LATE_MS);
    enum ferry_err err =
        __real_ferry_source_append(source, topic, partition, expect_version, cursor_blob,
                                   cursor_bytes, messages, count, answered, h);
    if (err != FERRY_OK) {
        held_free(h);
    }
    return err;
}
