/* batch: the record batch, the unit of network, log, replication, checksum and fetch.
 *
 * Written once by the producer, stored and served byte for byte. Does no I/O. Layout,
 * little-endian:
 *
 *   0  u32 magic 0x31425246 ("FRB1")
 *   4  u32 batch_bytes: the whole batch
 *   8  u64 checksum: XXH3-64 over bytes 16..batch_bytes
 *  16  u16 flags: BATCH_HAS_IDS, BATCH_HAS_DUE, BATCH_HAS_PRIORITIES; the rest must be 0
 *  18  u16 reserved, 0
 *  20  u32 count: records, 1..BATCH_RECORDS_MAX; with ids or due times 1..BATCH_IDS_MAX
 *  24  u64 producer_id: 0 = no idempotence
 *  32  u64 first_sequence: of the first record; record i has first_sequence + i
 *  40  u32 producer_epoch
 *  44  u32 records_bytes
 *  48  i64 base_timestamp_ms
 *  56  u64 reserved, 0
 *  64  records, records_bytes long
 *      ids, count × 16 bytes, if BATCH_HAS_IDS (all zero: that record has none)
 *      due times, count × i64, if BATCH_HAS_DUE: above 0 a time of day in ms, below 0 so many ms
 *      after the append; none is 0: a batch is delayed as a whole or not at all
 *      priorities, count × u8 of 0..7, if BATCH_HAS_PRIORITIES
 *
 * A record (varint: LEB128, unsigned, at most 5 bytes for sizes and 10 for timestamps, never longer
 * than the value needs):
 *
 *   varint record_bytes: what follows
 *   varint zigzag(timestamp_ms - base_timestamp_ms)
 *   varint key_bytes + 1 (0: no key), key
 *   varint headers_bytes, headers: one msgpack map of str to bin (or str); 0 bytes: no headers
 *   payload: the rest
 *
 * Invariants of a batch that batch_check accepted: (1) the checksum holds; (2) exactly `count`
 * records fill records_bytes exactly; (3) 64 + records_bytes + ids + due times + priorities ==
 * batch_bytes; due times are not 0, priorities at most BATCH_PRIORITY_MAX. What is inside a record
 * is checked when it is read (batch_reader_next), or for all at once by batch_check_records. */
#ifndef FERRY_WIRE_BATCH_H
#define FERRY_WIRE_BATCH_H

#include "base/buf.h"
#include "base/err.h"

#define BATCH_MAGIC          0x31425246u
#define BATCH_HEADER_BYTES   64u
#define BATCH_RECORDS_MAX    65536u
#define BATCH_IDS_MAX        8192u /* With ids, due times: each id is looked up, each is kept. */
#define BATCH_MAX_BYTES      (16u << 20) /* The hard limit; brokers and producers set lower ones. */
#define BATCH_HAS_IDS        1u
#define BATCH_HAS_DUE        2u
#define BATCH_HAS_PRIORITIES 4u
#define BATCH_PRIORITY_MAX   7u
/* A record costs at most this much beside key, headers, payload and id. */
#define BATCH_RECORD_OVERHEAD_BYTES 25u

struct batch_header {
    uint32_t batch_bytes;
    uint64_t checksum;
    uint16_t flags;
    uint32_t count;
    uint64_t producer_id;
    uint64_t first_sequence;
    uint32_t producer_epoch;
    uint32_t records_bytes;
    int64_t base_timestamp_ms;
};

/* Checks everything the invariants name, for a batch that fills `batch` exactly. Errors: BAD_BATCH,
 * BAD_CHECKSUM. */
MUST_CHECK enum ferry_err batch_check(struct bytes batch, struct batch_header *h,
                                      struct err_text *e);
/* What is inside the records of a checked batch: keys, headers and payloads that fit. What a broker
 * keeps has passed it, so that nobody meets, later and alone with it, a message that can neither be
 * handed out nor become a dead letter. Errors: BAD_BATCH. */
MUST_CHECK enum ferry_err batch_check_records(struct bytes checked_batch,
                                              const struct batch_header *h, struct err_text *e);
/* Only the checksum and sizes, for bytes that passed batch_check once: on read from disk. Errors:
 * as batch_check. */
MUST_CHECK enum ferry_err batch_check_sum(struct bytes batch, struct batch_header *h,
                                          struct err_text *e);
/* The header of a checked batch. */
void batch_header_read(struct bytes batch, struct batch_header *h);
/* The id of record i of a checked batch; all zero when there is none. */
struct ferry_id batch_id(struct bytes batch, const struct batch_header *h, uint32_t i);
/* The due time as it is in the batch; 0 when it has none. */
int64_t batch_due(struct bytes batch, const struct batch_header *h, uint32_t i);
uint32_t batch_priority(struct bytes batch, const struct batch_header *h, uint32_t i);

/* Headers from the API form to the msgpack map of a record. Errors: INVALID_ARGUMENT (a name empty
 * or over 255 bytes), TOO_LARGE (does not fit `b`). */
MUST_CHECK enum ferry_err batch_encode_headers(struct buf *b, const struct ferry_header *headers,
                                               size_t count);
/* Checks a headers blob somebody else made: a map of str to bin or str, nothing after it. */
MUST_CHECK enum ferry_err batch_check_headers(struct bytes headers);
/* The blob with one header more, which takes the place of one of that name. Errors:
 * INVALID_ARGUMENT (the blob is none), TOO_LARGE (does not fit `b`). */
MUST_CHECK enum ferry_err batch_add_header(struct buf *b, struct bytes headers, const char *name,
                                           const char *value);
/* Walks a headers blob, checked or not; *position starts at 0. False at the end, or where the blob
 * is malformed. */
bool batch_next_header(struct bytes headers, size_t *position, struct bytes *name,
                       struct bytes *value);

/* What a record is made of and read as. Borrowed bytes. */
struct batch_record {
    int64_t timestamp_ms;
    bool has_key;
    struct bytes key;
    struct bytes headers;
    struct bytes payload;
    struct ferry_id id;
    int64_t due; /* As in the batch: 0 none. */
    uint32_t priority;
};

/* Writes a batch record by record. The memory grows to `limit_bytes` (at most BATCH_MAX_BYTES);
 * batch_writer_fits says before whether a record still fits, counting BATCH_RECORD_OVERHEAD_BYTES
 * for it whatever it really takes. */
struct batch_writer {
    struct buf records;    /* Starts with BATCH_HEADER_BYTES for the header. */
    struct buf ids;        /* Empty until a record has an id. */
    struct buf dues;       /* Of all records or of none (INVALID_ARGUMENT). */
    struct buf priorities; /* Empty until a record has one above 0. */
    uint32_t count;
    size_t limit_bytes;
    int64_t base_timestamp_ms;
};

void batch_writer_init(struct batch_writer *w, size_t limit_bytes);
void batch_writer_fini(struct batch_writer *w);
void batch_writer_clear(struct batch_writer *w);         /* Keeps the memory. */
size_t batch_writer_bytes(const struct batch_writer *w); /* Of the batch if finished now. */
bool batch_writer_fits(const struct batch_writer *w, const struct batch_record *r);
/* Errors: TOO_LARGE (does not fit), INVALID_ARGUMENT (with a due time beside records without, or
 * the other way round; a priority too high), NO_MEMORY; the batch is as before. */
MUST_CHECK enum ferry_err batch_writer_add(struct batch_writer *w, const struct batch_record *r);
/* Fills in header and checksum. The bytes are the writer's, until the next call on it; finishing
 * again with other numbers is allowed and gives other bytes. count > 0. Errors: NO_MEMORY. */
MUST_CHECK enum ferry_err batch_writer_finish(struct batch_writer *w, uint64_t producer_id,
                                              uint32_t producer_epoch, uint64_t first_sequence,
                                              struct bytes *batch);

/* Reads a checked batch from front to back. */
struct batch_reader {
    struct bytes batch;
    struct batch_header header;
    size_t at;
    uint32_t index; /* Of the next record. */
};

void batch_reader_init(struct batch_reader *r, struct bytes checked_batch);
/* False after the last record; *err is BAD_BATCH when a record is malformed, else FERRY_OK. */
bool batch_reader_next(struct batch_reader *r, struct batch_record *record, enum ferry_err *err);

/* ---- A fetch entry: a stored batch on its way to a reader.
 *
 *   0  u64 base_offset: of the first record that is not skipped
 *   8  i64 append_time_ms
 *  16  u32 skip_count
 *  20  u32 batch_bytes
 *  24  u64 checksum: XXH3-64 over bytes 0..23 followed by the skip list
 *  32  skip list: u32 record indexes, ascending: records dropped as duplicates by their id
 *      batch
 *
 * Record i has offset base_offset + i - (skips below i), unless it is skipped. */
#define FETCH_ENTRY_BYTES 32u

struct fetch_entry {
    int64_t base_offset;
    int64_t append_time_ms;
    uint32_t skip_count;
    const uint8_t *skips; /* u32 little-endian each; read with fetch_entry_skip. */
    struct bytes batch;
};

void fetch_entry_append(struct buf *b, const struct fetch_entry *entry);
size_t fetch_entry_size(const struct fetch_entry *entry);
/* Takes the next entry off `rest` and checks it and its batch (batch_check). Errors: BAD_FRAME,
 * BAD_BATCH, BAD_CHECKSUM. */
MUST_CHECK enum ferry_err fetch_entry_next(struct bytes *rest, struct fetch_entry *entry,
                                           struct batch_header *h, struct err_text *e);
static inline uint32_t fetch_entry_skip(const struct fetch_entry *entry, uint32_t i)
{
    return get_le32(entry->skips + (size_t)i * 4);
}

#endif
