#include "base/checksum.h"
#include "wire/batch_layout.h"
#include "wire/varint.h"

void batch_writer_init(struct batch_writer *w, size_t limit_bytes)
{
    size_t limit = limit_bytes < BATCH_MAX_BYTES ? limit_bytes : BATCH_MAX_BYTES;
    *w = (struct batch_writer){.limit_bytes = limit};
    buf_init(&w->records, limit);
    buf_init(&w->ids, limit);
    buf_init(&w->dues, limit);
    buf_init(&w->priorities, limit);
}

void batch_writer_fini(struct batch_writer *w)
{
    buf_fini(&w->records);
    buf_fini(&w->ids);
    buf_fini(&w->dues);
    buf_fini(&w->priorities);
    w->count = 0;
}

void batch_writer_clear(struct batch_writer *w)
{
    buf_clear(&w->records);
    buf_clear(&w->ids);
    buf_clear(&w->dues);
    buf_clear(&w->priorities);
    w->count = 0;
}

/* Bytes behind the records with `count` of them, of which one or more has what is named. */
static size_t tail_bytes(uint32_t count, bool ids, bool dues, bool priorities)
{
    return count * ((ids ? sizeof(struct ferry_id) : 0) + (dues ? BATCH_DUE_BYTES : 0) +
                    (priorities ? (size_t)1 : 0));
}

size_t batch_writer_bytes(const struct batch_writer *w)
{
    size_t tail = tail_bytes(w->count, w->ids.size > 0, w->dues.size > 0, w->priorities.size > 0);
    return w->count == 0 ? BATCH_HEADER_BYTES : w->records.size + tail;
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
    bool ids = w->ids.size > 0 || has_id(r);
    bool dues = w->dues.size > 0 || r->due != 0;
    bool priorities = w->priorities.size > 0 || r->priority > 0;
    size_t records_bytes = w->count == 0 ? BATCH_HEADER_BYTES : w->records.size;
    size_t need = records_bytes + record_bound(r) + tail_bytes(w->count + 1, ids, dues, priorities);
    uint32_t count_max = ids || dues ? BATCH_IDS_MAX : BATCH_RECORDS_MAX;
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

/* What `count` of `each` bytes still need behind what is there. */
static size_t missing(const struct buf *b, uint32_t count, size_t each)
{
    return (size_t)count * each - b->size;
}

/* Zeros for the records up to `count` that have none of it; the room is there. */
static void pad(struct buf *b, uint32_t count, size_t each)
{
    size_t need = missing(b, count, each);
    if (need > 0) {
        memset(b->data + b->size, 0, need);
        b->size += need;
    }
}

/* Room for what of the record stands behind the records. */
static bool reserve_tail(struct batch_writer *w, const struct batch_record *r)
{
    uint32_t count = w->count + 1;
    return (!has_id(r) || reserve(&w->ids, missing(&w->ids, count, sizeof(r->id)))) &&
           (r->due == 0 || reserve(&w->dues, BATCH_DUE_BYTES)) &&
           (r->priority == 0 || reserve(&w->priorities, missing(&w->priorities, count, 1)));
}

static void add_tail(struct batch_writer *w, const struct batch_record *r)
{
    if (has_id(r)) {
        pad(&w->ids, w->count, sizeof(r->id));
        buf_append(&w->ids, &r->id, sizeof(r->id));
    }
    if (r->due != 0) {
        buf_append_le64(&w->dues, (uint64_t)r->due);
    }
    if (r->priority > 0) {
        pad(&w->priorities, w->count, 1);
        buf_append_u8(&w->priorities, (uint8_t)r->priority);
    }
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
    bool mixed = w->count > 0 && (w->dues.size > 0) != (r->due != 0);
    if (mixed || r->priority > BATCH_PRIORITY_MAX) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
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
    if (!reserve_tail(w, r)) {
        return FERRY_ERR_NO_MEMORY;
    }
    add_tail(w, r);
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

/* Ids and what else stands behind the records, without being counted in records.size, so that the
 * writer can go on, or finish again, from where it is. */
static bool write_tail(struct batch_writer *w, size_t *bytes)
{
    size_t ids = w->ids.size > 0 ? missing(&w->ids, w->count, sizeof(struct ferry_id)) : 0;
    size_t priorities = w->priorities.size > 0 ? missing(&w->priorities, w->count, 1) : 0;
    *bytes = w->ids.size + ids + w->dues.size + w->priorities.size + priorities;
    must(w->dues.size == 0 || w->dues.size == (size_t)w->count * BATCH_DUE_BYTES);
    if (!reserve(&w->ids, ids) || !reserve(&w->priorities, priorities) ||
        !reserve(&w->records, *bytes)) {
        return false;
    }
    if (w->ids.size > 0) {
        pad(&w->ids, w->count, sizeof(struct ferry_id));
    }
    if (w->priorities.size > 0) {
        pad(&w->priorities, w->count, 1);
    }
    uint8_t *p = w->records.data + w->records.size;
    p = write_run(p, buf_bytes(&w->ids));
    p = write_run(p, buf_bytes(&w->dues));
    (void)write_run(p, buf_bytes(&w->priorities));
    return true;
}

static uint16_t flags_of(const struct batch_writer *w)
{
    return (uint16_t)((w->ids.size > 0 ? BATCH_HAS_IDS : 0) |
                      (w->dues.size > 0 ? BATCH_HAS_DUE : 0) |
                      (w->priorities.size > 0 ? BATCH_HAS_PRIORITIES : 0));
}

enum ferry_err batch_writer_finish(struct batch_writer *w, uint64_t producer_id,
                                   uint32_t producer_epoch, uint64_t first_sequence,
                                   struct bytes *batch)
{
    size_t tail = 0;
    must(w->count > 0);
    if (!write_tail(w, &tail)) {
        return FERRY_ERR_NO_MEMORY;
    }
    struct batch_header h = {
        .batch_bytes = (uint32_t)(w->records.size + tail),
        .flags = flags_of(w),
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
