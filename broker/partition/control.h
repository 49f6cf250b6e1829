/* control: what control entries of a partition's log say, as msgpack arrays [kind, fields…].
 *
 * Pure. Kinds are numbers on disk and never reused; fields are only added at the end. */
#ifndef FERRY_PARTITION_CONTROL_H
#define FERRY_PARTITION_CONTROL_H

#include "base/buf.h"
#include "base/err.h"

enum control_kind {
    CONTROL_SUBSCRIPTION_CREATE = 1, /* name, mode, position */
    CONTROL_SUBSCRIPTION_DELETE = 2, /* name */
    CONTROL_SUBSCRIPTION_COMMIT = 3, /* name, position */
    CONTROL_TRIM = 4,                /* last index dropped, bytes dropped, start offset */
    CONTROL_EXPIRE_IDS = 5,          /* before, ms */
    CONTROL_REMOVE_PRODUCER = 6,     /* producer id */
    CONTROL_SOURCE_CURSOR = 7,       /* source, lane, epoch, version, blob; only in BATCH_CAS */
};

struct control {
    enum control_kind kind;
    struct bytes name;
    uint32_t mode;
    int64_t position;
    uint64_t trim_index;
    uint64_t trim_bytes;
    int64_t start_offset;
    int64_t before_ms;
    uint64_t producer_id;
    struct ferry_id source;
    uint32_t lane;
    uint64_t epoch;
    uint64_t version;
    struct bytes blob;
};

void control_encode(struct buf *b, const struct control *c);
/* Errors: CORRUPT (an entry that passed its checksum and is still not one of these). */
MUST_CHECK enum ferry_err control_decode(struct bytes payload, struct control *c);

/* A BATCH_CAS payload is {u32 control_bytes, control, batch}. Errors: CORRUPT. */
MUST_CHECK enum ferry_err control_split_cas(struct bytes payload, struct bytes *control,
                                            struct bytes *batch);

#endif
