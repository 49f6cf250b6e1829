/* relay_broker: what the relay needs of a broker: ferry.h's source functions as a table, so that
 * the core can be tested against a broker that fails in any way and in any order.
 *
 * Each function is the one of ferry.h with the same errors, see there; partitions_now is
 * ferry_topic_info, show is ferry_source_show. */
#ifndef FERRY_OUTBOX_RELAY_BROKER_H
#define FERRY_OUTBOX_RELAY_BROKER_H

#include "base/err.h"

struct relay_broker {
    void *ctx;
    enum ferry_err (*elect)(void *ctx, int64_t ttl_ms, int timeout_ms,
                            struct ferry_source_grant *grant);
    enum ferry_err (*resign)(void *ctx, int timeout_ms);
    enum ferry_err (*partitions)(void *ctx, const char *topic, int timeout_ms, int32_t *partitions);
    /* The same, asked anew and not out of what the client remembers; it may wait for partitions
     * that do not answer, and tells what is remembered then. NULL: as `partitions`. */
    enum ferry_err (*partitions_now)(void *ctx, const char *topic, int timeout_ms,
                                     int32_t *partitions);
    int32_t (*partition_of_key)(const void *key, size_t key_bytes, int32_t partitions);
    enum ferry_err (*cursor)(void *ctx, const char *topic, int32_t partition, int timeout_ms,
                             struct ferry_cursor *cursor);
    enum ferry_err (*append)(void *ctx, const char *topic, int32_t partition,
                             uint64_t expect_version, const void *cursor_blob, size_t cursor_bytes,
                             const struct ferry_message *messages, size_t count,
                             ferry_append_cb *callback, void *arg);
    enum ferry_err (*fence)(void *ctx, const char *topic, int32_t partition, uint64_t version,
                            int timeout_ms);
    enum ferry_err (*checkpoint)(void *ctx, const void *blob, size_t blob_bytes, int timeout_ms);
    /* Of any lane of the source. NULL: not known. */
    enum ferry_err (*show)(void *ctx, uint32_t lane, int timeout_ms,
                           struct ferry_source_info *info);
};

/* The real one: `ctx` of *broker is the source, which stays the caller's. */
struct ferry_client;
MUST_CHECK enum ferry_err relay_broker_open(struct relay_broker *broker,
                                            struct ferry_client *client,
                                            const struct ferry_id *source_id, uint32_t lane,
                                            const char *holder);
void relay_broker_close(struct relay_broker *broker); /* Accepts zeroed memory. */

#endif
