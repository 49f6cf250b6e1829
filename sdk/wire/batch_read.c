#include <inttypes.h>

#include "wire/batch_layout.h"
#include "wire/varint.h"

void batch_reader_init(struct batch_reader *r, struct bytes checked_batch)
{
    *r = (struct batch_reader){.batch = checked_batch, .at = BATCH_HEADER_BYTES};
    batch_header_read(checked_batch, &r->header);
    must((uint64_t)BATCH_HEADER_BYTES + r->header.records_bytes <= checked_batch.size);
}

/* A size and that many bytes; NULL when they do not fit before `end`. */
static inline const uint8_t *read_run(const uint8_t *p, const uint8_t *end, struct bytes *run)
{
    uint64_t size;
    p = varint_read(p, end, UINT32_MAX, &size);
    if (p == NULL || size > (uint64_t)(end - p)) {
        return NULL;
    }
    *run = bytes_of(p, (size_t)size);
    return p + size;
}

static inline const uint8_t *read_key(const uint8_t *p, const uint8_t *end, struct batch_record *r)
{
    uint64_t size;
    p = varint_read(p, end, UINT32_MAX, &size);
    if (p == NULL) {
        return NULL;
    }
    r->has_key = size > 0;
    size -= r->has_key;
    if (size > (uint64_t)(end - p)) {
        return NULL;
    }
    r->key = bytes_of(r->has_key ? p : NULL, (size_t)size);
    return p + size;
}

/* What is inside one record; false when it does not fit together. */
static inline bool read_inside(struct bytes inside, int64_t base_ms, struct batch_record *r)
{
    const uint8_t *end = inside.data + inside.size;
    uint64_t when;
    const uint8_t *p = varint_read(inside.data, end, UINT64_MAX, &when);
    if (p == NULL || (p = read_key(p, end, r)) == NULL ||
        (p = read_run(p, end, &r->headers)) == NULL) {
        return false;
    }
    r->timestamp_ms = (int64_t)((uint64_t)base_ms + varint_unzigzag(when));
    r->payload = bytes_of(p, (size_t)(end - p));
    return true;
}

enum ferry_err batch_check_records(struct bytes checked_batch, const struct batch_header *h,
                                   struct err_text *e)
{
    const uint8_t *p = checked_batch.data + BATCH_HEADER_BYTES;
    const uint8_t *end = p + h->records_bytes;
    for (uint32_t i = 0; i < h->count; i++) {
        struct batch_record r;
        struct bytes inside;
        p = read_run(p, end, &inside);
        if (p == NULL || !read_inside(inside, 0, &r)) {
            return err_set(e, FERRY_ERR_BAD_BATCH, "record %" PRIu32 " of the batch is malformed",
                           i);
        }
    }
    return FERRY_OK;
}

bool batch_reader_next(struct batch_reader *r, struct batch_record *record, enum ferry_err *err)
{
    *err = FERRY_OK;
    if (r->index >= r->header.count) {
        return false;
    }
    const uint8_t *end = r->batch.data + BATCH_HEADER_BYTES + r->header.records_bytes;
    struct bytes inside;
    const uint8_t *next = read_run(r->batch.data + r->at, end, &inside);
    if (next == NULL || !read_inside(inside, r->header.base_timestamp_ms, record)) {
        *err = FERRY_ERR_BAD_BATCH;
        return false;
    }
    record->id = batch_id(r->batch, &r->header, r->index);
    record->due = batch_due(r->batch, &r->header, r->index);
    record->priority = batch_priority(r->batch, &r->header, r->index);
    r->at = (size_t)(next - r->batch.data);
    r->index++;
    return true;
}
