/* control: what control entries of a partition's log say, as msgpack arrays [kind, fields…].
 *
 * Pure. Kinds are numbers on disk and never reused; fields are only added at the end. */
#ifndef FERRY_PARTITION_CONTROL_H
#define FERRY_PARTITION_CONTROL_H

#include "base/buf.h"
#include "base/err.h"

enum control_kind {
    CONTROL_SUBSCRIPTION_CREATE = 1, /* subscription_entry.h */
    CONTROL_SUBSCRIPTION_DELETE = 2,
    CONTROL_SUBSCRIPTION_COMMIT = 3,
    CONTROL_TRIM = 4,            /* last index dropped, bytes dropped, start offset */
    CONTROL_EXPIRE_IDS = 5,      /* before, ms */
    CONTROL_REMOVE_PRODUCER = 6, /* producer id */
    CONTROL_SOURCE_CURSOR = 7,   /* source, lane, epoch, version, blob; only in BATCH_CAS */
    /* Encoded and decoded by the modules that they belong to: */
    CONTROL_SUBSCRIPTION_ALTER = 8, /* subscription_entry.h */
    CONTROL_SUBSCRIPTION_RESET = 9,
    CONTROL_SUBSCRIPTION_CLAIM = 10,
    CONTROL_HAND_OUT = 11, /* delivery_entry.h */
    CONTROL_SETTLE = 12,
    CONTROL_EXPIRE_LEASES = 13,
    CONTROL_DEAD_CHANGE = 14,
    CONTROL_MEMBERS = 15,          /* members_entry.h */
    CONTROL_SCHEDULE_CANCEL = 16,  /* schedule_entry.h */
    CONTROL_SCHEDULE_RELEASE = 17, /* Only in BATCH_CAS: what was due becomes records. */
    CONTROL_RECURRING_SET = 18,
    CONTROL_RECURRING_FIRE = 19, /* Only in BATCH_CAS. */
    CONTROL_PUBLISH = 20,        /* versions_entry.h; only in BATCH_CAS. */
    CONTROL_SOURCE_FENCE = 21,   /* source, lane, epoch, version */
};
/* The kind alone, of any control payload. Errors: CORRUPT. */
MUST_CHECK enum ferry_err control_kind_of(struct bytes payload, enum control_kind *kind);

struct control {
    enum control_kind kind;
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
