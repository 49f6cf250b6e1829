/* Broken on purpose: a relay that takes rows for published as soon as it has sent them, and hears
 * of no failure. What a broker did not get when it or the relay was killed is never sent again.
 *
 * Linked into a relay with --wrap=ferry_source_append and --wrap=ferry_poll. */
#include "held.h"

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

static struct held *first, **last = &first; /* To be told to the relay in its next poll. */

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
    enum ferry_err err =
        __real_ferry_source_append(source, topic, partition, expect_version, cursor_blob,
                                   cursor_bytes, messages, count, nobody_listens, NULL);
    if (err != FERRY_OK) {
        return err;
    }
    *last = held_new(source, topic, partition, expect_version, cursor_blob, cursor_bytes, messages,
                     0, callback, arg);
    last = &(*last)->next;
    return FERRY_OK;
}

int __wrap_ferry_poll(struct ferry_client *client, int timeout_ms)
{
    struct held *told = first;
    first = NULL;
    last = &first;
    while (told != NULL) {
        struct held *next = told->next;
        held_report_ok(told);
        held_free(told);
        told = next;
    }
    return __real_ferry_poll(client, timeout_ms);
}
