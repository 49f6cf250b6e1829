#include "base/checksum.h"
#include "wire/batch_layout.h"
#include "wire/varint.h"

void batch_writer_init(struct batch_writer *w, size_t limit_bytes)
{
    size_t limit = limit_bytes < BATCH_MAX_BYTES ? limit_bytes : BATCH_MAX_BYTES;
    *w = (struct batch_writer){.limit_bytes = limit};
    buf_init(&w->records, limit);
    buf_init(&w->ids, limit);
}

void batch_writer_fini(struct batch_writer *w)
{
    buf_fini(&w->records);
    buf_fini(&w->ids);
    w->count = 0;
}

void batch_writer_clear(struct batch_writer *w)
{
    buf_clear(&w->records);
    buf_clear(&w->ids);
    w->count = 0;
}

static size_t ids_bytes(const struct batch_writer *w)
{
    return w->ids.size > 0 ? (size_t)w->count * sizeof(struct ferry_id) : 0;
}

size_t batch_writer_bytes(const struct batch_writer *w)
{
    return w->count == 0 ? BATCH_HEADER_BYTES : w->records.size + ids_bytes(w);
}

static bool has_id(const struct batch_record *r)
{
    return (get_le64(r->id.bytes) | get_le64(r->id.bytes + 8)) != 0;
}

/* The most that a record can take in `records`. Real sizes are not worked out before the stores:
 * this bound is three additions, and at most 25 bytes too large. */
static inline size_t record_bound(const struct batch_record *r)
{
    return BATCH_RECORD_OVERHEAD_BYTES + r->key.size + r->headers.size + r->payload.size;
}

bool batch_writer_fits(const struct batch_writer *w, const struct batch_record *r)
{
    size_t ids_before = ids_bytes(w);
    size_t ids_after =
        ids_before > 0 || has_id(r) ? ((size_t)w->count + 1) * sizeof(struct ferry_id) : 0;
    size_t need = batch_writer_bytes(w) + record_bound(r) + (ids_after - ids_before);
    uint32_t count_max = ids_after > 0 ? BATCH_IDS_MAX : BATCH_RECORDS_MAX;
    return w->count < count_max && need <= w->limit_bytes;
}

/* Room within the limit that batch_writer_fits has granted, so only memory can be short; then the
 * buffer is as it was. */
static bool reserve(struct buf *b, size_t bytes)
{
    bool done = buf_reserve(b, bytes);
    b->failed = false;
    return done;
}

static bool writer_start(struct batch_writer *w, int64_t timestamp_ms)
{
    if (!reserve(&w->records, BATCH_HEADER_BYTES)) {
        return false;
    }
    w->records.size = BATCH_HEADER_BYTES;
    w->base_timestamp_ms = timestamp_ms;
    return true;
}

/* Ids of zero for the records that have none, up to `count` of them. */
static bool pad_ids(struct batch_writer *w, uint32_t count)
{
    size_t need = (size_t)count * sizeof(struct ferry_id) - w->ids.size;
    if (!reserve(&w->ids, need)) {
        return false;
    }
    if (need > 0) {
        memset(w->ids.data + w->ids.size, 0, need);
    }
    w->ids.size += need;
    return true;
}

static bool add_id(struct batch_writer *w, const struct ferry_id *id)
{
    if (!pad_ids(w, w->count) || !reserve(&w->ids, sizeof(*id))) {
        return false;
    }
    memcpy(w->ids.data + w->ids.size, id, sizeof(*id));
    w->ids.size += sizeof(*id);
    return true;
}

static inline uint8_t *write_run(uint8_t *p, struct bytes run)
{
    if (run.size > 0) {
        memcpy(p, run.data, run.size);
    }
    return p + run.size;
}

/* Straight stores into room that is there; returns the place after the record. */
static inline uint8_t *write_record(uint8_t *p, const struct batch_record *r, int64_t base_ms)
{
    uint64_t when = varint_zigzag((uint64_t)r->timestamp_ms - (uint64_t)base_ms);
    uint64_t key = r->has_key ? r->key.size + 1 : 0;
    size_t key_bytes = r->has_key ? r->key.size : 0;
    p = varint_write(p, varint_size(when) + varint_size(key) + key_bytes +
                            varint_size(r->headers.size) + r->headers.size + r->payload.size);
    p = varint_write(p, when);
    p = varint_write(p, key);
    p = write_run(p, bytes_of(r->key.data, key_bytes));
    p = varint_write(p, r->headers.size);
    p = write_run(p, r->headers);
    return write_run(p, r->payload);
}

enum ferry_err batch_writer_add(struct batch_writer *w, const struct batch_record *r)
{
    if (!batch_writer_fits(w, r)) {
        return FERRY_ERR_TOO_LARGE;
    }
    if (w->count == 0 && !writer_start(w, r->timestamp_ms)) {
        return FERRY_ERR_NO_MEMORY;
    }
    if (w->records.capacity - w->records.size < record_bound(r) &&
        !reserve(&w->records, record_bound(r))) {
        return FERRY_ERR_NO_MEMORY;
    }
    if (has_id(r) && !add_id(w, &r->id)) {
        return FERRY_ERR_NO_MEMORY;
    }
    uint8_t *end = write_record(w->records.data + w->records.size, r, w->base_timestamp_ms);
    w->records.size = (size_t)(end - w->records.data);
    w->count++;
    return FERRY_OK;
}

static void write_header(struct batch_writer *w, const struct batch_header *h)
{
    uint8_t *p = w->records.data;
    put_le32(p + BATCH_AT_MAGIC, BATCH_MAGIC);
    put_le32(p + BATCH_AT_BYTES, h->batch_bytes);
    put_le16(p + BATCH_AT_FLAGS, h->flags);
    put_le16(p + BATCH_AT_RESERVED, 0);
    put_le32(p + BATCH_AT_COUNT, h->count);
    put_le64(p + BATCH_AT_PRODUCER_ID, h->producer_id);
    put_le64(p + BATCH_AT_FIRST_SEQUENCE, h->first_sequence);
    put_le32(p + BATCH_AT_PRODUCER_EPOCH, h->producer_epoch);
    put_le32(p + BATCH_AT_RECORDS_BYTES, h->records_bytes);
    put_le64(p + BATCH_AT_BASE_TIMESTAMP, (uint64_t)h->base_timestamp_ms);
    put_le64(p + BATCH_AT_RESERVED_TAIL, 0);
    put_le64(p + BATCH_AT_CHECKSUM,
             checksum_of(p + BATCH_SUMMED_FROM, h->batch_bytes - BATCH_SUMMED_FROM));
}

/* The ids go behind the records without being counted in records.size, so that the writer can go
 * on, or finish again, from where it is. */
enum ferry_err batch_writer_finish(struct batch_writer *w, uint64_t producer_id,
                                   uint32_t producer_epoch, uint64_t first_sequence,
                                   struct bytes *batch)
{
    must(w->count > 0);
    if (w->ids.size > 0 && (!pad_ids(w, w->count) || !reserve(&w->records, w->ids.size))) {
        return FERRY_ERR_NO_MEMORY;
    }
    if (w->ids.size > 0) {
        memcpy(w->records.data + w->records.size, w->ids.data, w->ids.size);
    }
    struct batch_header h = {
        .batch_bytes = (uint32_t)(w->records.size + w->ids.size),
        .flags = w->ids.size > 0 ? BATCH_HAS_IDS : 0,
        .count = w->count,
        .producer_id = producer_id,
        .first_sequence = first_sequence,
        .producer_epoch = producer_epoch,
        .records_bytes = (uint32_t)(w->records.size - BATCH_HEADER_BYTES),
        .base_timestamp_ms = w->base_timestamp_ms,
    };
    write_header(w, &h);
    *batch = bytes_of(w->records.data, h.batch_bytes);
    return FERRY_OK;
}
