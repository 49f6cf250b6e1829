#include "wire/batch.h"

#include <inttypes.h>

#include "base/checksum.h"
#include "wire/batch_layout.h"
#include "wire/varint.h"

void batch_header_read(struct bytes batch, struct batch_header *h)
{
    must(batch.size >= BATCH_HEADER_BYTES);
    const uint8_t *p = batch.data;
    *h = (struct batch_header){
        .batch_bytes = get_le32(p + BATCH_AT_BYTES),
        .checksum = get_le64(p + BATCH_AT_CHECKSUM),
        .flags = get_le16(p + BATCH_AT_FLAGS),
        .count = get_le32(p + BATCH_AT_COUNT),
        .producer_id = get_le64(p + BATCH_AT_PRODUCER_ID),
        .first_sequence = get_le64(p + BATCH_AT_FIRST_SEQUENCE),
        .producer_epoch = get_le32(p + BATCH_AT_PRODUCER_EPOCH),
        .records_bytes = get_le32(p + BATCH_AT_RECORDS_BYTES),
        .base_timestamp_ms = (int64_t)get_le64(p + BATCH_AT_BASE_TIMESTAMP),
    };
}

static enum ferry_err check_header(struct bytes batch, const struct batch_header *h,
                                   struct err_text *e)
{
    if (h->batch_bytes != batch.size || batch.size > BATCH_MAX_BYTES) {
        return err_set(e, FERRY_ERR_BAD_BATCH,
                       "a batch says %" PRIu32 " bytes and has %zu (at most %u)", h->batch_bytes,
                       batch.size, BATCH_MAX_BYTES);
    }
    if ((h->flags & ~BATCH_FLAGS) != 0 || get_le16(batch.data + BATCH_AT_RESERVED) != 0 ||
        get_le64(batch.data + BATCH_AT_RESERVED_TAIL) != 0) {
        return err_set(
            e, FERRY_ERR_BAD_BATCH,
            "a batch has flags 0x%x or a reserved field that this version does not know: "
            "upgrade the older side",
            h->flags);
    }
    bool few = (h->flags & (BATCH_HAS_IDS | BATCH_HAS_DUE)) != 0;
    uint32_t count_max = few ? BATCH_IDS_MAX : BATCH_RECORDS_MAX;
    if (h->count == 0 || h->count > count_max) {
        return err_set(e, FERRY_ERR_BAD_BATCH,
                       "a batch of %" PRIu32 " records%s: 1 to %u are allowed", h->count,
                       few ? " with ids or due times" : "", count_max);
    }
    size_t tail_bytes = batch_ids_bytes(h) + batch_dues_bytes(h) + batch_priorities_bytes(h);
    if ((uint64_t)BATCH_HEADER_BYTES + h->records_bytes + tail_bytes != batch.size) {
        return err_set(e, FERRY_ERR_BAD_BATCH,
                       "a batch of %zu bytes says %" PRIu32 " bytes of records and %zu behind them",
                       batch.size, h->records_bytes, tail_bytes);
    }
    return FERRY_OK;
}

enum ferry_err batch_check_sum(struct bytes batch, struct batch_header *h, struct err_text *e)
{
    if (batch.size < BATCH_HEADER_BYTES || get_le32(batch.data) != BATCH_MAGIC) {
        return err_set(e, FERRY_ERR_BAD_BATCH, "%zu bytes that are no record batch", batch.size);
    }
    batch_header_read(batch, h);
    enum ferry_err err = check_header(batch, h, e);
    if (err != FERRY_OK) {
        return err;
    }
    uint64_t sum = checksum_of(batch.data + BATCH_SUMMED_FROM, batch.size - BATCH_SUMMED_FROM);
    if (sum != h->checksum) {
        return err_set(e, FERRY_ERR_BAD_CHECKSUM,
                       "a batch of %zu bytes does not match its checksum: it was changed",
                       batch.size);
    }
    return FERRY_OK;
}

/* The lengths alone: `count` of them fill the records exactly. */
static bool lengths_fill(struct bytes records, uint32_t count)
{
    const uint8_t *p = records.data;
    const uint8_t *end = p + records.size;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t size;
        p = varint_read(p, end, UINT32_MAX, &size);
        if (p == NULL || size < BATCH_RECORD_MIN_BYTES || size > (uint64_t)(end - p)) {
            return false;
        }
        p += size;
    }
    return p == end;
}

static bool has_bad_due(struct bytes batch, const struct batch_header *h)
{
    for (uint32_t i = 0; i < h->count && (h->flags & BATCH_HAS_DUE) != 0; i++) {
        if (batch_due(batch, h, i) == 0) {
            return true;
        }
    }
    return false;
}

static bool has_bad_priority(struct bytes batch, const struct batch_header *h)
{
    for (uint32_t i = 0; i < h->count && (h->flags & BATCH_HAS_PRIORITIES) != 0; i++) {
        if (batch_priority(batch, h, i) > BATCH_PRIORITY_MAX) {
            return true;
        }
    }
    return false;
}

enum ferry_err batch_check(struct bytes batch, struct batch_header *h, struct err_text *e)
{
    enum ferry_err err = batch_check_sum(batch, h, e);
    if (err != FERRY_OK) {
        return err;
    }
    if (!lengths_fill(bytes_of(batch.data + BATCH_HEADER_BYTES, h->records_bytes), h->count)) {
        return err_set(e, FERRY_ERR_BAD_BATCH,
                       "%" PRIu32 " records do not fill the %" PRIu32 " bytes of a batch exactly",
                       h->count, h->records_bytes);
    }
    if (has_bad_due(batch, h)) {
        return err_set(e, FERRY_ERR_BAD_BATCH,
                       "a batch with due times has a record without: it is delayed as a whole or "
                       "not at all");
    }
    if (has_bad_priority(batch, h)) {
        return err_set(e, FERRY_ERR_BAD_BATCH, "a record of a batch has a priority above %u",
                       BATCH_PRIORITY_MAX);
    }
    return FERRY_OK;
}

struct ferry_id batch_id(struct bytes batch, const struct batch_header *h, uint32_t i)
{
    struct ferry_id id = {{0}};
    must(i < h->count);
    if ((h->flags & BATCH_HAS_IDS) != 0) {
        size_t at = BATCH_HEADER_BYTES + (size_t)h->records_bytes + (size_t)i * sizeof(id);
        must(at + sizeof(id) <= batch.size);
        memcpy(&id, batch.data + at, sizeof(id));
    }
    return id;
}

int64_t batch_due(struct bytes batch, const struct batch_header *h, uint32_t i)
{
    must(i < h->count);
    if ((h->flags & BATCH_HAS_DUE) == 0) {
        return 0;
    }
    size_t at = BATCH_HEADER_BYTES + (size_t)h->records_bytes + batch_ids_bytes(h) +
                (size_t)i * BATCH_DUE_BYTES;
    must(at + BATCH_DUE_BYTES <= batch.size);
    return (int64_t)get_le64(batch.data + at);
}

uint32_t batch_priority(struct bytes batch, const struct batch_header *h, uint32_t i)
{
    must(i < h->count);
    if ((h->flags & BATCH_HAS_PRIORITIES) == 0) {
        return 0;
    }
    size_t at = BATCH_HEADER_BYTES + (size_t)h->records_bytes + batch_ids_bytes(h) +
                batch_dues_bytes(h) + i;
    must(at < batch.size);
    return batch.data[at];
}
