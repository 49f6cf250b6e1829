#include <inttypes.h>

#include "base/checksum.h"
#include "wire/batch.h"

enum fetch_at {
    AT_BASE_OFFSET = 0,
    AT_APPEND_TIME = 8,
    AT_SKIP_COUNT = 16,
    AT_BATCH_BYTES = 20,
    AT_CHECKSUM = 24,
};
_Static_assert(AT_CHECKSUM + 8 == FETCH_ENTRY_BYTES, "the checksum ends the entry's header");

static size_t skips_bytes(uint32_t count)
{
    return (size_t)count * sizeof(uint32_t);
}

size_t fetch_entry_size(const struct fetch_entry *entry)
{
    return FETCH_ENTRY_BYTES + skips_bytes(entry->skip_count) + entry->batch.size;
}

void fetch_entry_append(struct buf *b, const struct fetch_entry *entry)
{
    must(entry->skip_count <= BATCH_RECORDS_MAX && entry->batch.size <= BATCH_MAX_BYTES);
    size_t skips = skips_bytes(entry->skip_count);
    uint8_t *p = buf_extend(b, fetch_entry_size(entry));
    if (p == NULL) {
        return;
    }
    put_le64(p + AT_BASE_OFFSET, (uint64_t)entry->base_offset);
    put_le64(p + AT_APPEND_TIME, (uint64_t)entry->append_time_ms);
    put_le32(p + AT_SKIP_COUNT, entry->skip_count);
    put_le32(p + AT_BATCH_BYTES, (uint32_t)entry->batch.size);
    put_le64(p + AT_CHECKSUM, checksum_of_two(p, AT_CHECKSUM, entry->skips, skips));
    p += FETCH_ENTRY_BYTES;
    if (skips > 0) {
        memcpy(p, entry->skips, skips);
    }
    memcpy(p + skips, entry->batch.data, entry->batch.size);
}

/* Splits the bytes; only sizes are looked at. */
static bool split(struct bytes *rest, struct fetch_entry *entry)
{
    if (rest->size < FETCH_ENTRY_BYTES) {
        return false;
    }
    const uint8_t *p = rest->data;
    uint32_t skip_count = get_le32(p + AT_SKIP_COUNT);
    uint32_t batch_bytes = get_le32(p + AT_BATCH_BYTES);
    uint64_t size = (uint64_t)FETCH_ENTRY_BYTES + skips_bytes(skip_count) + batch_bytes;
    if (skip_count > BATCH_RECORDS_MAX || size > rest->size) {
        return false;
    }
    const uint8_t *skips = p + FETCH_ENTRY_BYTES;
    *entry = (struct fetch_entry){
        .base_offset = (int64_t)get_le64(p + AT_BASE_OFFSET),
        .append_time_ms = (int64_t)get_le64(p + AT_APPEND_TIME),
        .skip_count = skip_count,
        .skips = skips,
        .batch = bytes_of(skips + skips_bytes(skip_count), batch_bytes),
    };
    rest->data += size;
    rest->size -= (size_t)size;
    return true;
}

/* The skips are records of the batch, ascending, and no offset passes the largest. */
static bool fits_batch(const struct fetch_entry *entry, const struct batch_header *h)
{
    uint64_t next = 0;
    for (uint32_t i = 0; i < entry->skip_count; i++) {
        uint32_t skip = fetch_entry_skip(entry, i);
        if (skip < next || skip >= h->count) {
            return false;
        }
        next = (uint64_t)skip + 1;
    }
    return entry->base_offset >= 0 && entry->base_offset <= INT64_MAX - (int64_t)h->count;
}

enum ferry_err fetch_entry_next(struct bytes *rest, struct fetch_entry *entry,
                                struct batch_header *h, struct err_text *e)
{
    const uint8_t *start = rest->data;
    if (!split(rest, entry)) {
        return err_set(e, FERRY_ERR_BAD_FRAME,
                       "a fetch entry does not fit the %zu bytes that are left of the reply",
                       rest->size);
    }
    uint64_t sum =
        checksum_of_two(start, AT_CHECKSUM, entry->skips, skips_bytes(entry->skip_count));
    if (sum != get_le64(start + AT_CHECKSUM)) {
        return err_set(e, FERRY_ERR_BAD_CHECKSUM,
                       "a fetch entry does not match its checksum: fetch it again");
    }
    enum ferry_err err = batch_check(entry->batch, h, e);
    if (err == FERRY_OK && !fits_batch(entry, h)) {
        return err_set(e, FERRY_ERR_BAD_FRAME,
                       "a fetch entry at offset %" PRId64 " has a skip list that does not fit its "
                       "batch: the broker is at fault",
                       entry->base_offset);
    }
    return err;
}
