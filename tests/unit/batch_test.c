/* The record batch, the headers of a record, and the fetch entry: what was written is read, and
 * bytes that lie are refused before they are believed. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/checksum.h"
#include "base/mem.h"
#include "base/prng.h"
#include "wire/batch.h"

#define SEED  20260721u
#define LIMIT (1u << 20)

static struct batch_record record_of(const char *key, const char *payload, int64_t timestamp_ms)
{
    struct batch_record r = {.timestamp_ms = timestamp_ms, .payload = bytes_of_string(payload)};
    if (key != NULL) {
        r.has_key = true;
        r.key = bytes_of_string(key);
    }
    return r;
}

static void add(struct batch_writer *w, const struct batch_record *r)
{
    assert_true(batch_writer_fits(w, r));
    assert_int_equal(batch_writer_add(w, r), FERRY_OK);
}

/* Three records that differ in all a record can differ in; the second has an id if asked. */
static struct bytes write_three(struct batch_writer *w, bool with_id)
{
    static const uint8_t headers[] = {0x81, 0xa1, 'h', 0xc4, 0x01, 'v'};
    struct bytes batch;
    struct batch_record first = record_of("key", "payload", 1000);
    struct batch_record second = record_of(NULL, "", 999);
    struct batch_record third = record_of("", "third", INT64_MIN);
    second.headers = bytes_of(headers, sizeof(headers));
    second.id.bytes[15] = with_id ? 9 : 0;
    batch_writer_init(w, LIMIT);
    add(w, &first);
    add(w, &second);
    add(w, &third);
    assert_int_equal(batch_writer_finish(w, 42, 7, 100, &batch), FERRY_OK);
    assert_int_equal(batch.size, batch_writer_bytes(w));
    return batch;
}

static void copy_to(struct buf *b, struct bytes batch)
{
    buf_init(b, BATCH_MAX_BYTES * 2);
    buf_append_bytes(b, batch);
    assert_true(buf_ok(b));
}

/* Makes the checksum right again after a test has changed something. */
static void sign(struct buf *b)
{
    put_le64(b->data + 8, checksum_of(b->data + 16, b->size - 16));
}

static enum ferry_err check(struct bytes batch)
{
    struct batch_header h;
    struct err_text e = {{0}};
    enum ferry_err err = batch_check(batch, &h, &e);
    assert_true((err == FERRY_OK) == (strlen(e.text) == 0));
    return err;
}

/* ---- Round trips ---- */

static void what_is_written_is_read(void **state)
{
    (void)state;
    struct batch_writer w;
    struct batch_reader r;
    struct batch_record record;
    enum ferry_err err;
    struct bytes batch = write_three(&w, true);
    assert_int_equal(check(batch), FERRY_OK);
    batch_reader_init(&r, batch);
    assert_int_equal(r.header.producer_id, 42);
    assert_int_equal(r.header.producer_epoch, 7);
    assert_int_equal(r.header.first_sequence, 100);
    assert_int_equal(r.header.count, 3);

    assert_true(batch_reader_next(&r, &record, &err));
    assert_int_equal(record.timestamp_ms, 1000);
    assert_true(record.has_key && bytes_equal(record.key, bytes_of_string("key")));
    assert_true(bytes_equal(record.payload, bytes_of_string("payload")));
    assert_int_equal(record.id.bytes[15], 0);

    assert_true(batch_reader_next(&r, &record, &err));
    assert_int_equal(record.timestamp_ms, 999);
    assert_false(record.has_key);
    assert_int_equal(record.headers.size, 6);
    assert_int_equal(record.payload.size, 0);
    assert_int_equal(record.id.bytes[15], 9);

    assert_true(batch_reader_next(&r, &record, &err));
    assert_true(record.timestamp_ms == INT64_MIN);
    assert_true(record.has_key && record.key.size == 0);
    assert_int_equal(record.id.bytes[15], 0);

    assert_false(batch_reader_next(&r, &record, &err));
    assert_int_equal(err, FERRY_OK);
    batch_writer_fini(&w);
}

static void a_batch_without_ids_has_no_room_for_them(void **state)
{
    (void)state;
    struct batch_writer with, without;
    struct batch_header h;
    struct bytes a = write_three(&with, true);
    struct bytes b = write_three(&without, false);
    assert_int_equal(a.size - b.size, 3 * sizeof(struct ferry_id));
    batch_header_read(b, &h);
    assert_int_equal(h.flags, 0);
    assert_int_equal(batch_id(b, &h, 1).bytes[15], 0);
    batch_header_read(a, &h);
    assert_int_equal(h.flags, BATCH_HAS_IDS);
    assert_int_equal(batch_id(a, &h, 1).bytes[15], 9);
    batch_writer_fini(&with);
    batch_writer_fini(&without);
}

/* Three records, of which the last has a priority; each due if asked. */
static struct bytes write_delayed(struct batch_writer *w, bool with_due, uint32_t priority)
{
    struct bytes batch;
    struct batch_record r = record_of("key", "payload", 1000);
    batch_writer_init(w, LIMIT);
    for (uint32_t i = 0; i < 3; i++) {
        r.id.bytes[0] = (uint8_t)(i == 1);
        r.due = !with_due ? 0 : i == 2 ? INT64_MIN : 5000 + (int64_t)i;
        r.priority = i == 2 ? priority : 0;
        add(w, &r);
    }
    assert_int_equal(batch_writer_finish(w, 1, 2, 3, &batch), FERRY_OK);
    assert_int_equal(batch.size, batch_writer_bytes(w));
    return batch;
}

static void due_times_and_priorities_come_back(void **state)
{
    (void)state;
    struct batch_writer w;
    struct batch_reader r;
    struct batch_record record;
    enum ferry_err err;
    struct bytes batch = write_delayed(&w, true, 7);
    assert_int_equal(check(batch), FERRY_OK);
    batch_reader_init(&r, batch);
    assert_int_equal(r.header.flags, BATCH_HAS_IDS | BATCH_HAS_DUE | BATCH_HAS_PRIORITIES);
    for (uint32_t i = 0; i < 3; i++) {
        int64_t due = i == 2 ? INT64_MIN : 5000 + (int64_t)i;
        assert_true(batch_reader_next(&r, &record, &err));
        assert_int_equal(record.id.bytes[0], i == 1);
        assert_true(record.due == due && batch_due(batch, &r.header, i) == due);
        assert_int_equal(record.priority, i == 2 ? 7 : 0);
        assert_int_equal(batch_priority(batch, &r.header, i), record.priority);
    }
    batch_writer_fini(&w);
}

/* Eight bytes a due time, one a priority, and none for batches that have none. */
static void a_batch_without_due_times_and_priorities_has_no_room_for_them(void **state)
{
    (void)state;
    struct batch_writer both, due, plain;
    struct batch_header h;
    size_t both_bytes = write_delayed(&both, true, 1).size;
    size_t due_bytes = write_delayed(&due, true, 0).size;
    struct bytes batch = write_delayed(&plain, false, 0);
    assert_int_equal(both_bytes - due_bytes, 3);
    assert_int_equal(due_bytes - batch.size, 24);
    batch_header_read(batch, &h);
    assert_int_equal(h.flags, BATCH_HAS_IDS);
    assert_true(batch_due(batch, &h, 2) == 0);
    assert_int_equal(batch_priority(batch, &h, 2), 0);
    batch_writer_fini(&both);
    batch_writer_fini(&due);
    batch_writer_fini(&plain);
}

static void a_batch_is_delayed_as_a_whole_or_not_at_all(void **state)
{
    (void)state;
    struct batch_record now = record_of(NULL, "x", 1);
    struct batch_record later = now;
    struct batch_record urgent = now;
    struct batch_writer w;
    later.due = -1;
    urgent.priority = BATCH_PRIORITY_MAX + 1;
    batch_writer_init(&w, LIMIT);
    assert_int_equal(batch_writer_add(&w, &urgent), FERRY_ERR_INVALID_ARGUMENT);
    add(&w, &now);
    size_t before = batch_writer_bytes(&w);
    assert_int_equal(batch_writer_add(&w, &later), FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(batch_writer_bytes(&w), before);
    batch_writer_clear(&w);
    add(&w, &later);
    assert_int_equal(batch_writer_add(&w, &now), FERRY_ERR_INVALID_ARGUMENT);
    add(&w, &later);
    batch_writer_fini(&w);
}

/* The checksum holds, and a due time is none or a priority is none there is. */
static void bad_due_times_and_priorities_are_refused(void **state)
{
    (void)state;
    struct batch_writer w;
    struct buf b;
    copy_to(&b, write_delayed(&w, true, 7));
    uint8_t *priorities = b.data + b.size - 3;
    priorities[1] = BATCH_PRIORITY_MAX + 1;
    sign(&b);
    assert_int_equal(check(buf_bytes(&b)), FERRY_ERR_BAD_BATCH);
    priorities[1] = BATCH_PRIORITY_MAX;
    sign(&b);
    assert_int_equal(check(buf_bytes(&b)), FERRY_OK);
    put_le64(priorities - 8, 0);
    sign(&b);
    assert_int_equal(check(buf_bytes(&b)), FERRY_ERR_BAD_BATCH);
    buf_fini(&b);
    batch_writer_fini(&w);
}

/* A retry under a new epoch takes the same records with other numbers; and more may be added. */
static void a_batch_can_be_finished_again_and_go_on(void **state)
{
    (void)state;
    struct batch_writer w;
    struct batch_header h;
    struct bytes batch;
    struct batch_record fourth = record_of("k", "fourth", 5);
    (void)write_three(&w, true);
    assert_int_equal(batch_writer_finish(&w, 43, 8, 0, &batch), FERRY_OK);
    assert_int_equal(check(batch), FERRY_OK);
    batch_header_read(batch, &h);
    assert_int_equal(h.producer_id, 43);
    add(&w, &fourth);
    assert_int_equal(batch_writer_finish(&w, 43, 8, 0, &batch), FERRY_OK);
    assert_int_equal(check(batch), FERRY_OK);
    batch_header_read(batch, &h);
    assert_int_equal(h.count, 4);
    assert_int_equal(batch_id(batch, &h, 1).bytes[15], 9);
    assert_int_equal(batch_id(batch, &h, 3).bytes[15], 0);
    batch_writer_fini(&w);
}

static void a_cleared_writer_starts_anew(void **state)
{
    (void)state;
    struct batch_writer w;
    struct bytes batch;
    struct batch_header h;
    struct batch_record r = record_of(NULL, "only", 1);
    (void)write_three(&w, true);
    batch_writer_clear(&w);
    assert_int_equal(batch_writer_bytes(&w), BATCH_HEADER_BYTES);
    add(&w, &r);
    assert_int_equal(batch_writer_finish(&w, 0, 0, 0, &batch), FERRY_OK);
    assert_int_equal(check(batch), FERRY_OK);
    batch_header_read(batch, &h);
    assert_int_equal(h.count, 1);
    assert_int_equal(h.base_timestamp_ms, 1);
    assert_int_equal(h.flags, 0);
    batch_writer_fini(&w);
}

/* Sizes around each step of the varint, and random ones; against the values that were put in. */
static void records_of_many_sizes_come_back(void **state)
{
    (void)state;
    static uint8_t data[40000];
    struct prng prng;
    struct batch_writer w;
    struct batch_reader reader;
    struct batch_record out;
    struct bytes batch;
    enum ferry_err err;
    const size_t sizes[] = {0, 1, 120, 126, 127, 128, 129, 16380, 16383, 16384, 16385, 40000};
    const size_t count = sizeof(sizes) / sizeof(sizes[0]);
    prng_init(&prng, SEED);
    batch_writer_init(&w, BATCH_MAX_BYTES);
    for (size_t i = 0; i < count * count; i++) {
        struct batch_record r = {.timestamp_ms = (int64_t)prng_next(&prng),
                                 .has_key = true,
                                 .key = bytes_of(data, sizes[i % count]),
                                 .payload = bytes_of(data, sizes[i / count])};
        add(&w, &r);
    }
    assert_int_equal(batch_writer_finish(&w, 0, 0, 0, &batch), FERRY_OK);
    assert_int_equal(check(batch), FERRY_OK);
    prng_init(&prng, SEED);
    batch_reader_init(&reader, batch);
    for (size_t i = 0; i < count * count; i++) {
        assert_true(batch_reader_next(&reader, &out, &err));
        assert_true(out.timestamp_ms == (int64_t)prng_next(&prng));
        assert_int_equal(out.key.size, sizes[i % count]);
        assert_int_equal(out.payload.size, sizes[i / count]);
    }
    assert_false(batch_reader_next(&reader, &out, &err));
    batch_writer_fini(&w);
}

/* ---- Limits ---- */

static void a_record_over_the_limit_is_too_large_and_changes_nothing(void **state)
{
    (void)state;
    static uint8_t data[512];
    struct batch_writer w;
    struct batch_record r = {.payload = bytes_of(data, 512 - 64 - BATCH_RECORD_OVERHEAD_BYTES)};
    batch_writer_init(&w, 512);
    struct batch_record larger = r;
    larger.payload.size++;
    assert_false(batch_writer_fits(&w, &larger));
    assert_int_equal(batch_writer_add(&w, &larger), FERRY_ERR_TOO_LARGE);
    assert_int_equal(batch_writer_bytes(&w), BATCH_HEADER_BYTES);
    add(&w, &r);
    assert_true(batch_writer_bytes(&w) <= 512);
    batch_writer_fini(&w);
}

/* The first id costs 16 bytes for every record before it. */
static void the_first_id_is_counted_for_all_records_before_it(void **state)
{
    (void)state;
    struct batch_writer w;
    struct bytes batch;
    struct batch_record r = record_of(NULL, "x", 0);
    struct batch_record with_id = r;
    with_id.id.bytes[0] = 1;
    batch_writer_init(&w, 64 + 4 * 5 + 16 * 4 + 31);
    for (int i = 0; i < 4; i++) {
        add(&w, &r);
    }
    assert_false(batch_writer_fits(&w, &with_id));
    assert_true(batch_writer_fits(&w, &r));
    assert_int_equal(batch_writer_add(&w, &with_id), FERRY_ERR_TOO_LARGE);
    assert_int_equal(batch_writer_finish(&w, 0, 0, 0, &batch), FERRY_OK);
    assert_int_equal(check(batch), FERRY_OK);
    batch_writer_fini(&w);
}

static void fill_with(const struct batch_record *r, uint32_t count_max)
{
    struct batch_writer w;
    struct bytes batch;
    batch_writer_init(&w, BATCH_MAX_BYTES);
    for (uint32_t i = 0; i < count_max; i++) {
        add(&w, r);
    }
    assert_int_equal(batch_writer_add(&w, r), FERRY_ERR_TOO_LARGE);
    assert_int_equal(batch_writer_finish(&w, 0, 0, 0, &batch), FERRY_OK);
    assert_int_equal(check(batch), FERRY_OK);
    batch_writer_fini(&w);
}

static void a_batch_takes_as_many_records_as_it_may_and_no_more(void **state)
{
    (void)state;
    struct batch_record r = record_of(NULL, "", 0);
    fill_with(&r, BATCH_RECORDS_MAX);
    struct batch_record later = r;
    later.due = -1000; /* Each is a row. */
    fill_with(&later, BATCH_IDS_MAX);
    r.id.bytes[0] = 1; /* Each id costs the broker a look-up and two rows. */
    fill_with(&r, BATCH_IDS_MAX);
}

/* Each allocation fails once in turn; the batch is then what it was. */
static void no_memory_leaves_the_batch_as_it_was(void **state)
{
    (void)state;
    struct batch_record r = record_of("key", "payload", 1);
    r.id.bytes[3] = 3;
    r.due = 9;
    for (long n = 1; n < 30; n++) {
        struct batch_writer w;
        struct bytes batch;
        uint32_t added = 0;
        batch_writer_init(&w, LIMIT);
        mem_test_fail_after(n);
        for (int i = 0; i < 100; i++) {
            r.priority = i > 50;
            size_t before = batch_writer_bytes(&w);
            enum ferry_err err = batch_writer_add(&w, &r);
            added += err == FERRY_OK;
            assert_true(err == FERRY_OK || err == FERRY_ERR_NO_MEMORY);
            assert_true(err == FERRY_OK || batch_writer_bytes(&w) == before);
        }
        enum ferry_err err = batch_writer_finish(&w, 1, 1, 1, &batch);
        mem_test_fail_after(0);
        if (err != FERRY_OK) {
            assert_int_equal(batch_writer_finish(&w, 1, 1, 1, &batch), FERRY_OK);
        }
        assert_int_equal(check(batch), FERRY_OK);
        assert_int_equal(get_le32(batch.data + 20), added);
        batch_writer_fini(&w);
    }
}

/* ---- Bytes that lie ---- */

static void a_batch_cut_anywhere_is_refused(void **state)
{
    (void)state;
    struct batch_writer w;
    struct bytes batch = write_three(&w, true);
    for (size_t size = 0; size < batch.size; size++) {
        assert_int_equal(check(bytes_of(batch.data, size)), FERRY_ERR_BAD_BATCH);
    }
    batch_writer_fini(&w);
}

static void a_batch_with_a_flipped_bit_is_refused(void **state)
{
    (void)state;
    struct batch_writer w;
    struct buf b;
    copy_to(&b, write_three(&w, true));
    for (size_t bit = 0; bit < b.size * 8; bit++) {
        b.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_not_equal(check(buf_bytes(&b)), FERRY_OK);
        b.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_int_equal(check(buf_bytes(&b)), FERRY_OK);
    buf_fini(&b);
    batch_writer_fini(&w);
}

/* The checksum holds, the header lies: a producer at fault, or a hostile one. */
static void a_header_that_lies_is_refused(void **state)
{
    (void)state;
    const struct {
        size_t at;
        uint32_t value;
    } lies[] = {
        {4, 0},
        {4, UINT32_MAX},
        {20, 0},
        {20, 2},
        {20, 4},
        {20, UINT32_MAX},
        {44, 0},
        {44, 1},
        {44, 60},
        {44, UINT32_MAX},
        {16, 0},
        {16, 3},
        {16, 5},
        {16, 8},
        {16, 9},
        {16, 1u << 16 | 1},
        {56, 1},
        {60, 1},
        {20, BATCH_RECORDS_MAX + 1},
    };
    struct batch_writer w;
    struct bytes batch = write_three(&w, true);
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        struct buf b;
        copy_to(&b, batch);
        put_le32(b.data + lies[i].at, lies[i].value);
        sign(&b);
        assert_int_equal(check(buf_bytes(&b)), FERRY_ERR_BAD_BATCH);
        buf_fini(&b);
    }
    batch_writer_fini(&w);
}

/* A batch of one record whose bytes are given. */
static struct bytes batch_around(struct buf *b, const void *records, size_t size)
{
    uint8_t header[BATCH_HEADER_BYTES] = {0};
    put_le32(header, BATCH_MAGIC);
    put_le32(header + 4, (uint32_t)(BATCH_HEADER_BYTES + size));
    put_le32(header + 20, 1);
    put_le32(header + 44, (uint32_t)size);
    buf_init(b, LIMIT);
    buf_append(b, header, sizeof(header));
    buf_append(b, records, size);
    sign(b);
    return buf_bytes(b);
}

static void lengths_that_do_not_fill_the_records_are_refused(void **state)
{
    (void)state;
    static const struct {
        size_t size;
        uint8_t bytes[12];
    } lies[] = {
        {1, {0}},                               /* An empty record. */
        {3, {2, 0, 0}},                         /* Too short to be one. */
        {4, {4, 0, 0, 0}},                      /* Longer than there is. */
        {5, {3, 0, 0, 0, 0}},                   /* Shorter. */
        {5, {0x83, 0, 0, 0, 0}},                /* Over-long: 3 in two bytes. */
        {5, {0x83, 0x80, 0x80, 0x80, 0x80}},    /* Does not end. */
        {6, {0xff, 0xff, 0xff, 0xff, 0x1f, 0}}, /* Over 32 bits. */
        {8, {0x83, 0x80, 0x80, 0x80, 0x80, 0, 0, 0}},
        {12, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0}},
    };
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        struct buf b;
        assert_int_equal(check(batch_around(&b, lies[i].bytes, lies[i].size)), FERRY_ERR_BAD_BATCH);
        buf_fini(&b);
    }
}

static void a_record_malformed_inside_is_refused_when_read(void **state)
{
    (void)state;
    static const struct {
        size_t size;
        uint8_t bytes[14];
    } lies[] = {
        {4, {3, 0x80, 0x80, 0x80}}, /* A timestamp that does not end. */
        {5, {4, 0x80, 0x00, 0, 0}}, /* An over-long one. */
        {4, {3, 0, 2, 0}},          /* A key that leaves no headers. */
        {4, {3, 0, 9, 0}},          /* A key longer than the record. */
        {4, {3, 0, 0, 1}},          /* Headers longer than the record. */
        {8, {7, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f}},
        {14, {13, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0, 0, 0}},
        {14, {13, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x81, 0, 0, 0}},
    };
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        struct buf b;
        struct batch_header h;
        struct batch_reader r;
        struct batch_record record;
        enum ferry_err err;
        struct bytes batch = batch_around(&b, lies[i].bytes, lies[i].size);
        assert_int_equal(check(batch), FERRY_OK);
        batch_header_read(batch, &h);
        assert_int_equal(batch_check_records(batch, &h, NULL), FERRY_ERR_BAD_BATCH);
        batch_reader_init(&r, batch);
        assert_false(batch_reader_next(&r, &record, &err));
        assert_int_equal(err, FERRY_ERR_BAD_BATCH);
        assert_false(batch_reader_next(&r, &record, &err));
        assert_int_equal(err, FERRY_ERR_BAD_BATCH);
        buf_fini(&b);
    }
}

/* Random damage with the checksum made right again: reading must stay inside (the sanitizer is the
 * judge) and end. */
static void damaged_records_are_read_to_some_end(void **state)
{
    (void)state;
    struct prng prng;
    struct batch_writer w;
    struct bytes batch = write_three(&w, true);
    print_message("seed %u\n", SEED);
    prng_init(&prng, SEED);
    for (int i = 0; i < 20000; i++) {
        struct buf b;
        struct batch_header h;
        copy_to(&b, batch);
        for (uint64_t n = 1 + prng_below(&prng, 3); n > 0; n--) {
            b.data[64 + prng_below(&prng, b.size - 64)] = (uint8_t)prng_next(&prng);
        }
        sign(&b);
        if (batch_check(buf_bytes(&b), &h, NULL) == FERRY_OK) {
            struct batch_reader r;
            struct batch_record record;
            enum ferry_err err;
            uint32_t read = 0;
            batch_reader_init(&r, buf_bytes(&b));
            while (batch_reader_next(&r, &record, &err)) {
                read++;
            }
            assert_true(err == FERRY_ERR_BAD_BATCH || read == h.count);
            assert_int_equal(batch_check_records(buf_bytes(&b), &h, NULL), err);
        }
        buf_fini(&b);
    }
    batch_writer_fini(&w);
}

/* ---- Headers ---- */

static void headers_come_back_in_order(void **state)
{
    (void)state;
    const struct ferry_header headers[] = {
        {"traceparent", "00-01", 5}, {"empty", NULL, 0}, {"empty", "again", 5}};
    struct buf b;
    struct bytes name, value;
    size_t position = 0;
    buf_init(&b, LIMIT);
    assert_int_equal(batch_encode_headers(&b, headers, 3), FERRY_OK);
    assert_int_equal(batch_check_headers(buf_bytes(&b)), FERRY_OK);
    for (size_t i = 0; i < 3; i++) {
        assert_true(batch_next_header(buf_bytes(&b), &position, &name, &value));
        assert_true(bytes_equal(name, bytes_of_string(headers[i].name)));
        assert_true(bytes_equal(value, bytes_of(headers[i].value, headers[i].value_bytes)));
    }
    assert_false(batch_next_header(buf_bytes(&b), &position, &name, &value));
    buf_fini(&b);
}

static void no_headers_are_no_bytes(void **state)
{
    (void)state;
    struct buf b;
    struct bytes name, value;
    size_t position = 0;
    buf_init(&b, LIMIT);
    assert_int_equal(batch_encode_headers(&b, NULL, 0), FERRY_OK);
    assert_int_equal(b.size, 0);
    assert_int_equal(batch_check_headers(buf_bytes(&b)), FERRY_OK);
    assert_false(batch_next_header(buf_bytes(&b), &position, &name, &value));
}

static void header_names_are_1_to_255_bytes(void **state)
{
    (void)state;
    char name[257] = {0};
    struct ferry_header header = {name, "v", 1};
    struct buf b;
    buf_init(&b, LIMIT);
    assert_int_equal(batch_encode_headers(&b, &header, 1), FERRY_ERR_INVALID_ARGUMENT);
    memset(name, 'n', 256);
    assert_int_equal(batch_encode_headers(&b, &header, 1), FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(b.size, 0);
    name[255] = 0;
    assert_int_equal(batch_encode_headers(&b, &header, 1), FERRY_OK);
    assert_int_equal(batch_check_headers(buf_bytes(&b)), FERRY_OK);
    buf_fini(&b);
}

static void headers_that_do_not_fit_the_buffer_are_too_large(void **state)
{
    (void)state;
    const struct ferry_header header = {"name", "a long value", 12};
    struct buf b;
    buf_init(&b, 10);
    assert_int_equal(batch_encode_headers(&b, &header, 1), FERRY_ERR_TOO_LARGE);
    buf_fini(&b);
}

/* M01, M04, M05, M06 on headers: each is refused whole, and walking it stays inside. */
static void malformed_headers_are_refused(void **state)
{
    (void)state;
    static const struct {
        size_t size;
        uint8_t bytes[10];
    } lies[] = {
        {1, {0x90}},                             /* An array. */
        {1, {0xc0}},                             /* Nil. */
        {1, {0x81}},                             /* A pair that is not there. */
        {3, {0x81, 0xa1, 'n'}},                  /* A name without a value. */
        {4, {0x81, 0x01, 0xa1, 'v'}},            /* A number for a name. */
        {4, {0x81, 0xa1, 'n', 0x01}},            /* A number for a value. */
        {3, {0x81, 0xa0, 0xa0}},                 /* An empty name. */
        {6, {0x81, 0xa1, 'n', 0xc4, 0x02, 'v'}}, /* A value cut short. */
        {6, {0x81, 0xa1, 'n', 0xa1, 'v', 0x00}}, /* Bytes behind the map. */
        {5, {0xdf, 0xff, 0xff, 0xff, 0xff}},     /* M01: four thousand million pairs. */
        {8, {0x81, 0xa1, 'n', 0xc6, 0xff, 0xff, 0xff, 0xff}}, /* M04: a value of 4 GiB. */
        {5, {0x80, 0xa1, 'n', 0xa1, 'v'}},                    /* An empty map and a pair behind. */
    };
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        struct bytes blob = bytes_of(lies[i].bytes, lies[i].size);
        struct bytes name, value;
        size_t position = 0;
        size_t pairs = 0;
        assert_int_equal(batch_check_headers(blob), FERRY_ERR_INVALID_ARGUMENT);
        while (batch_next_header(blob, &position, &name, &value)) {
            pairs++;
        }
        assert_true(pairs <= 1);
    }
}

/* ---- Fetch entries ---- */

static void write_entry(struct buf *b, struct bytes batch, const uint32_t *skips, uint32_t count,
                        int64_t base_offset)
{
    struct fetch_entry entry = {.base_offset = base_offset,
                                .append_time_ms = 1234,
                                .skip_count = count,
                                .skips = (const uint8_t *)skips,
                                .batch = batch};
    size_t before = b->size;
    fetch_entry_append(b, &entry);
    assert_true(buf_ok(b));
    assert_int_equal(b->size - before, fetch_entry_size(&entry));
}

static void fetch_entries_come_back_one_after_another(void **state)
{
    (void)state;
    const uint32_t skips[] = {0, 2};
    struct batch_writer w;
    struct bytes batch = write_three(&w, true);
    struct buf b;
    struct fetch_entry entry;
    struct batch_header h;
    buf_init(&b, LIMIT);
    write_entry(&b, batch, skips, 2, 500);
    write_entry(&b, batch, NULL, 0, 501);
    struct bytes rest = buf_bytes(&b);
    assert_int_equal(fetch_entry_next(&rest, &entry, &h, NULL), FERRY_OK);
    assert_int_equal(entry.base_offset, 500);
    assert_int_equal(entry.append_time_ms, 1234);
    assert_int_equal(entry.skip_count, 2);
    assert_int_equal(fetch_entry_skip(&entry, 1), 2);
    assert_true(bytes_equal(entry.batch, batch));
    assert_int_equal(h.count, 3);
    assert_int_equal(fetch_entry_next(&rest, &entry, &h, NULL), FERRY_OK);
    assert_int_equal(entry.base_offset, 501);
    assert_int_equal(rest.size, 0);
    buf_fini(&b);
    batch_writer_fini(&w);
}

static void a_fetch_entry_cut_or_flipped_is_refused(void **state)
{
    (void)state;
    const uint32_t skips[] = {1};
    struct batch_writer w;
    struct buf b;
    struct fetch_entry entry;
    struct batch_header h;
    buf_init(&b, LIMIT);
    write_entry(&b, write_three(&w, true), skips, 1, 500);
    for (size_t size = 0; size < b.size; size++) {
        struct bytes rest = bytes_of(b.data, size);
        assert_int_equal(fetch_entry_next(&rest, &entry, &h, NULL), FERRY_ERR_BAD_FRAME);
    }
    for (size_t bit = 0; bit < b.size * 8; bit++) {
        struct bytes rest = buf_bytes(&b);
        b.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_not_equal(fetch_entry_next(&rest, &entry, &h, NULL), FERRY_OK);
        b.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    buf_fini(&b);
    batch_writer_fini(&w);
}

static void skips_and_offsets_that_no_batch_has_are_refused(void **state)
{
    (void)state;
    static const struct {
        uint32_t skips[2];
        uint32_t count;
        int64_t base_offset;
    } lies[] = {
        {{1, 1}, 2, 0},
        {{2, 1}, 2, 0},
        {{3, 0}, 1, 0},
        {{0, UINT32_MAX}, 2, 0},
        {{0, 0}, 0, -1},
        {{0, 0}, 0, INT64_MAX},
        {{0, 0}, 0, INT64_MAX - 2},
    };
    struct batch_writer w;
    struct bytes batch = write_three(&w, false);
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        struct buf b;
        struct fetch_entry entry;
        struct batch_header h;
        buf_init(&b, LIMIT);
        write_entry(&b, batch, lies[i].skips, lies[i].count, lies[i].base_offset);
        struct bytes rest = buf_bytes(&b);
        assert_int_equal(fetch_entry_next(&rest, &entry, &h, NULL), FERRY_ERR_BAD_FRAME);
        buf_fini(&b);
    }
    batch_writer_fini(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(a_batch_without_ids_has_no_room_for_them),
        cmocka_unit_test(due_times_and_priorities_come_back),
        cmocka_unit_test(a_batch_without_due_times_and_priorities_has_no_room_for_them),
        cmocka_unit_test(a_batch_is_delayed_as_a_whole_or_not_at_all),
        cmocka_unit_test(bad_due_times_and_priorities_are_refused),
        cmocka_unit_test(a_batch_can_be_finished_again_and_go_on),
        cmocka_unit_test(a_cleared_writer_starts_anew),
        cmocka_unit_test(records_of_many_sizes_come_back),
        cmocka_unit_test(a_record_over_the_limit_is_too_large_and_changes_nothing),
        cmocka_unit_test(the_first_id_is_counted_for_all_records_before_it),
        cmocka_unit_test(a_batch_takes_as_many_records_as_it_may_and_no_more),
        cmocka_unit_test(no_memory_leaves_the_batch_as_it_was),
        cmocka_unit_test(a_batch_cut_anywhere_is_refused),
        cmocka_unit_test(a_batch_with_a_flipped_bit_is_refused),
        cmocka_unit_test(a_header_that_lies_is_refused),
        cmocka_unit_test(lengths_that_do_not_fill_the_records_are_refused),
        cmocka_unit_test(a_record_malformed_inside_is_refused_when_read),
        cmocka_unit_test(damaged_records_are_read_to_some_end),
        cmocka_unit_test(headers_come_back_in_order),
        cmocka_unit_test(no_headers_are_no_bytes),
        cmocka_unit_test(header_names_are_1_to_255_bytes),
        cmocka_unit_test(headers_that_do_not_fit_the_buffer_are_too_large),
        cmocka_unit_test(malformed_headers_are_refused),
        cmocka_unit_test(fetch_entries_come_back_one_after_another),
        cmocka_unit_test(a_fetch_entry_cut_or_flipped_is_refused),
        cmocka_unit_test(skips_and_offsets_that_no_batch_has_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
