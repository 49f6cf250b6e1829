/* batch_layout: where the fields of a batch's header are; drawn in batch.h. */
#ifndef FERRY_WIRE_BATCH_LAYOUT_H
#define FERRY_WIRE_BATCH_LAYOUT_H

#include "wire/batch.h"

enum batch_at {
    BATCH_AT_MAGIC = 0,
    BATCH_AT_BYTES = 4,
    BATCH_AT_CHECKSUM = 8,
    BATCH_AT_FLAGS = 16,
    BATCH_AT_RESERVED = 18,
    BATCH_AT_COUNT = 20,
    BATCH_AT_PRODUCER_ID = 24,
    BATCH_AT_FIRST_SEQUENCE = 32,
    BATCH_AT_PRODUCER_EPOCH = 40,
    BATCH_AT_RECORDS_BYTES = 44,
    BATCH_AT_BASE_TIMESTAMP = 48,
    BATCH_AT_RESERVED_TAIL = 56,
};
#define BATCH_SUMMED_FROM 16u /* The checksum covers everything from here on. */

/* Timestamp, key and headers are a byte each at least. */
#define BATCH_RECORD_MIN_BYTES 3u

#define BATCH_FLAGS     (BATCH_HAS_IDS | BATCH_HAS_DUE | BATCH_HAS_PRIORITIES)
#define BATCH_DUE_BYTES 8u

/* Bytes of what follows the records, in this order. */
static inline size_t batch_ids_bytes(const struct batch_header *h)
{
    return (h->flags & BATCH_HAS_IDS) != 0 ? (size_t)h->count * sizeof(struct ferry_id) : 0;
}

static inline size_t batch_dues_bytes(const struct batch_header *h)
{
    return (h->flags & BATCH_HAS_DUE) != 0 ? (size_t)h->count * BATCH_DUE_BYTES : 0;
}

static inline size_t batch_priorities_bytes(const struct batch_header *h)
{
    return (h->flags & BATCH_HAS_PRIORITIES) != 0 ? h->count : 0;
}

_Static_assert(BATCH_AT_RESERVED_TAIL + 8 == BATCH_HEADER_BYTES, "the header ends there");
_Static_assert(BATCH_AT_CHECKSUM + 8 == BATCH_SUMMED_FROM, "all behind the checksum is covered");
/* Varints of the record's size, timestamp, key size and headers size. */
_Static_assert(BATCH_RECORD_OVERHEAD_BYTES == 5 + 10 + 5 + 5, "four varints at their longest");

#endif
