#include "partition/dead.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/mem.h"
#include "wire/batch.h"
#include "wire/pack.h"

void dead_key(uint64_t subscription, uint64_t number, uint8_t key[16])
{
    put_be64(key, subscription);
    put_be64(key + 8, number);
}

void dead_encode(struct buf *b, const struct dead_letter *d)
{
    must(d->failure_count <= HISTORY_MAX);
    pack_array(b, 8);
    pack_int(b, d->offset);
    pack_int(b, d->append_time_ms);
    pack_int(b, d->died_ms);
    pack_uint(b, d->handed_out);
    pack_uint(b, d->failed);
    pack_uint(b, d->key_hash);
    pack_array(b, d->failure_count);
    for (uint32_t i = 0; i < d->failure_count; i++) {
        const struct failure *f = &d->failures[i];
        pack_array(b, 4);
        pack_int(b, f->time_ms);
        pack_uint(b, f->kind);
        pack_str(b, f->member);
        pack_str(b, f->reason);
    }
    pack_bin(b, d->record);
}

static void take_failures(struct unpack *u, struct dead_letter *d)
{
    d->failure_count = unpack_array(u, HISTORY_MAX);
    for (uint32_t i = 0; i < d->failure_count; i++) {
        struct failure *f = &d->failures[i];
        (void)unpack_array(u, UNPACK_OBJECTS_MAX);
        f->time_ms = unpack_int(u);
        f->kind = (uint32_t)unpack_uint(u, UINT32_MAX);
        f->member = unpack_str(u, NAME_MAX_BYTES);
        f->reason = unpack_str(u, REASON_MAX_BYTES);
        unpack_array_end(u);
    }
    unpack_array_end(u);
}

enum ferry_err dead_decode(struct bytes key, struct bytes row, struct dead_letter *d)
{
    struct unpack u;
    if (key.size != 16) {
        return FERRY_ERR_CORRUPT;
    }
    d->number = get_be64(key.data + 8);
    unpack_begin(&u, row);
    d->offset = unpack_int(&u);
    d->append_time_ms = unpack_int(&u);
    d->died_ms = unpack_int(&u);
    d->handed_out = (uint32_t)unpack_uint(&u, UINT32_MAX);
    d->failed = (uint32_t)unpack_uint(&u, UINT32_MAX);
    d->key_hash = unpack_uint(&u, UINT64_MAX);
    take_failures(&u, d);
    d->record = unpack_bin(&u, BATCH_MAX_BYTES);
    return unpack_end(&u) == FERRY_OK ? FERRY_OK : FERRY_ERR_CORRUPT;
}

/* ---- As an entry of a fetch ---- */

#define DEAD_HEADERS 5u
#define DEAD_HEADERS_BYTES                                                                         \
    1024u /* Of names and values together: reason and member have maxima.                          \
           */

static void pack_header(struct buf *b, const char *name, struct bytes value)
{
    pack_str(b, bytes_of_string(name));
    pack_bin(b, value);
}

static void pack_number(struct buf *b, const char *name, int64_t value)
{
    char text[24];
    (void)snprintf(text, sizeof(text), "%" PRId64, value);
    pack_header(b, name, bytes_of_string(text));
}

struct bytes dead_reason(const struct dead_letter *d)
{
    static const char *const kinds[] = {[FAILURE_NACK] = "nacked",
                                        [FAILURE_EXPIRED] = "lease ended",
                                        [FAILURE_REJECT] = "rejected",
                                        [FAILURE_PARKED] = "parked"};
    const struct failure *last = d->failure_count > 0 ? &d->failures[d->failure_count - 1] : NULL;
    if (last == NULL || last->reason.size > 0) {
        return last != NULL ? last->reason : bytes_of_string("unknown");
    }
    bool known = last->kind < sizeof(kinds) / sizeof(kinds[0]) && kinds[last->kind] != NULL;
    return bytes_of_string(known ? kinds[last->kind] : "failed");
}

/* Those of the record that are not ours, and ours behind them. */
static void pack_headers(struct buf *b, struct bytes headers, const struct dead_letter *d)
{
    struct bytes name;
    struct bytes value;
    uint32_t count = 0;
    for (size_t at = 0; batch_next_header(headers, &at, &name, &value);) {
        count++;
    }
    pack_map(b, count + DEAD_HEADERS);
    for (size_t at = 0; batch_next_header(headers, &at, &name, &value);) {
        pack_str(b, name);
        pack_bin(b, value);
    }
    const struct failure *last =
        d->failure_count > 0 ? &d->failures[d->failure_count - 1] : &(struct failure){0};
    pack_header(b, "ferry-dlq-reason", dead_reason(d));
    pack_number(b, "ferry-dlq-offset", d->offset);
    pack_number(b, "ferry-dlq-failed", d->failed);
    pack_header(b, "ferry-dlq-member", last->member);
    pack_number(b, "ferry-dlq-time", d->died_ms);
}

static enum ferry_err write_batch(struct batch_writer *w, const struct batch_record *r,
                                  const struct dead_letter *d, struct buf *out)
{
    struct bytes batch;
    enum ferry_err err = batch_writer_add(w, r);
    if (err == FERRY_OK) {
        err = batch_writer_finish(w, 0, 0, 0, &batch);
    }
    if (err != FERRY_OK) {
        return err;
    }
    struct fetch_entry entry = {
        .base_offset = (int64_t)d->number, .append_time_ms = d->append_time_ms, .batch = batch};
    fetch_entry_append(out, &entry);
    return buf_ok(out) ? FERRY_OK : FERRY_ERR_NO_MEMORY;
}

enum ferry_err dead_append_entry(const struct dead_letter *d, struct buf *out)
{
    struct batch_reader reader;
    struct batch_header h;
    struct batch_record r = {0};
    enum ferry_err err = batch_check(d->record, &h, NULL);
    if (err != FERRY_OK) {
        return FERRY_ERR_CORRUPT;
    }
    batch_reader_init(&reader, d->record);
    if (!batch_reader_next(&reader, &r, &err)) {
        return FERRY_ERR_CORRUPT;
    }
    struct buf headers;
    struct batch_writer writer;
    buf_init(&headers, r.headers.size + DEAD_HEADERS_BYTES);
    batch_writer_init(&writer, BATCH_MAX_BYTES);
    pack_headers(&headers, r.headers, d);
    r.headers = buf_bytes(&headers);
    r.due = 0; /* Whoever reads it has it now. */
    err = buf_ok(&headers) ? write_batch(&writer, &r, d, out) : FERRY_ERR_NO_MEMORY;
    batch_writer_fini(&writer);
    buf_fini(&headers);
    return err;
}
