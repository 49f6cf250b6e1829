/* Dead letters as rows and as fetch entries. */
#include "delivery_fixture.h"

#include "wire/batch.h"

static struct batch_record record_of(struct buf *headers)
{
    const struct ferry_header own = {.name = "colour", .value = "red", .value_bytes = 3};
    buf_init(headers, 1024);
    assert_int_equal(batch_encode_headers(headers, &own, 1), FERRY_OK);
    struct batch_record r = {.timestamp_ms = 777,
                             .has_key = true,
                             .key = bytes_of_string("key"),
                             .headers = buf_bytes(headers),
                             .payload = bytes_of_string("payload")};
    memset(r.id.bytes, 9, sizeof(r.id.bytes));
    return r;
}

/* A batch of one record, as the log had it. */
static struct buf record_batch(void)
{
    struct buf headers;
    struct buf out;
    struct batch_writer w;
    struct bytes batch;
    struct batch_record r = record_of(&headers);
    batch_writer_init(&w, BATCH_MAX_BYTES);
    assert_int_equal(batch_writer_add(&w, &r), FERRY_OK);
    assert_int_equal(batch_writer_finish(&w, 5, 1, 10, &batch), FERRY_OK);
    buf_init(&out, BATCH_MAX_BYTES);
    buf_append_bytes(&out, batch);
    batch_writer_fini(&w);
    buf_fini(&headers);
    return out;
}

static struct dead_letter letter_of(struct bytes record)
{
    struct dead_letter d = {.number = 12,
                            .offset = 3456,
                            .append_time_ms = 1000,
                            .died_ms = -5,
                            .handed_out = 11,
                            .failed = 10,
                            .key_hash = UINT64_MAX,
                            .failure_count = HISTORY_MAX,
                            .record = record};
    for (uint32_t i = 0; i < HISTORY_MAX; i++) {
        d.failures[i] = (struct failure){.time_ms = 100 + i,
                                         .kind = FAILURE_NACK,
                                         .member = bytes_of_string("m1"),
                                         .reason = bytes_of_string("broken")};
    }
    return d;
}

/* Keys sort by subscription, then by number. */
static void a_letter_comes_back_as_it_was(void **state)
{
    (void)state;
    uint8_t key[16];
    struct dead_letter got;
    struct buf b;
    struct dead_letter d = letter_of(bytes_of_string("record"));
    buf_init(&b, 65536);
    dead_encode(&b, &d);
    dead_key(SUBSCRIPTION, 12, key);
    assert_int_equal(get_be64(key), SUBSCRIPTION);
    assert_int_equal(get_be64(key + 8), 12);
    assert_int_equal(dead_decode(bytes_of(key, 16), buf_bytes(&b), &got), FERRY_OK);
    assert_int_equal(got.number, 12);
    assert_int_equal(got.offset, d.offset);
    assert_int_equal(got.append_time_ms, 1000);
    assert_int_equal(got.died_ms, -5);
    assert_int_equal(got.handed_out, 11);
    assert_int_equal(got.failed, 10);
    assert_int_equal(got.key_hash, UINT64_MAX);
    assert_int_equal(got.failure_count, HISTORY_MAX);
    for (uint32_t i = 0; i < HISTORY_MAX; i++) {
        assert_int_equal(got.failures[i].time_ms, 100 + i);
        assert_int_equal(got.failures[i].kind, FAILURE_NACK);
        assert_true(bytes_equal(got.failures[i].member, bytes_of_string("m1")));
        assert_true(bytes_equal(got.failures[i].reason, bytes_of_string("broken")));
    }
    assert_true(bytes_equal(got.record, bytes_of_string("record")));
    assert_int_equal(dead_decode(bytes_of(key, 15), buf_bytes(&b), &got), FERRY_ERR_CORRUPT);
    buf_fini(&b);
}

/* Every length, and bytes changed at random: CORRUPT, or a letter within its bounds. */
static void cut_and_changed_rows_do_no_harm(void **state)
{
    (void)state;
    uint8_t key[16] = {0};
    struct dead_letter got;
    struct prng p;
    struct buf b;
    struct buf out;
    struct buf record = record_batch();
    struct dead_letter d = letter_of(buf_bytes(&record));
    print_message("seed 5\n");
    prng_init(&p, 5);
    buf_init(&b, 65536);
    buf_init(&out, 65536);
    dead_encode(&b, &d);
    for (size_t size = 0; size < b.size; size++) {
        uint8_t *cut = mem_dup(b.data, size > 0 ? size : 1);
        assert_int_equal(dead_decode(bytes_of(key, 16), bytes_of(cut, size), &got),
                         FERRY_ERR_CORRUPT);
        mem_free(cut);
    }
    for (int round = 0; round < 20000; round++) {
        uint8_t *changed = mem_dup(b.data, b.size);
        changed[prng_below(&p, b.size)] = (uint8_t)prng_next(&p);
        changed[prng_below(&p, b.size)] ^= (uint8_t)(1u << prng_below(&p, 8));
        if (dead_decode(bytes_of(key, 16), bytes_of(changed, b.size), &got) == FERRY_OK) {
            assert_true(got.failure_count <= HISTORY_MAX);
            enum ferry_err err = dead_append_entry(&got, &out);
            assert_true(err == FERRY_OK || err == FERRY_ERR_CORRUPT);
            buf_clear(&out);
        }
        mem_free(changed);
    }
    buf_fini(&b);
    buf_fini(&out);
    buf_fini(&record);
}

static struct batch_record read_entry(const struct buf *out, struct fetch_entry *entry)
{
    struct bytes rest = buf_bytes(out);
    struct batch_header h;
    struct batch_reader reader;
    struct batch_record r;
    enum ferry_err err;
    assert_int_equal(fetch_entry_next(&rest, entry, &h, NULL), FERRY_OK);
    assert_int_equal(rest.size, 0);
    assert_int_equal(h.count, 1);
    batch_reader_init(&reader, entry->batch);
    assert_true(batch_reader_next(&reader, &r, &err));
    return r;
}

static void expect_header(struct bytes headers, const char *name, const char *value)
{
    struct bytes got_name;
    struct bytes got_value;
    for (size_t at = 0; batch_next_header(headers, &at, &got_name, &got_value);) {
        if (bytes_equal(got_name, bytes_of_string(name))) {
            assert_true(bytes_equal(got_value, bytes_of_string(value)));
            return;
        }
    }
    fail_msg("no header %s", name);
}

/* The record is as it was sent, with the reason and the rest beside its own headers. */
static void a_letter_is_read_like_a_message_with_headers_added(void **state)
{
    (void)state;
    struct fetch_entry entry;
    struct buf out;
    struct buf record = record_batch();
    struct dead_letter d = letter_of(buf_bytes(&record));
    buf_init(&out, 65536);
    assert_int_equal(dead_append_entry(&d, &out), FERRY_OK);
    struct batch_record r = read_entry(&out, &entry);
    assert_int_equal(entry.base_offset, 12);
    assert_int_equal(entry.append_time_ms, 1000);
    assert_int_equal(r.timestamp_ms, 777);
    assert_int_equal(r.id.bytes[0], 9);
    assert_true(bytes_equal(r.key, bytes_of_string("key")));
    assert_true(bytes_equal(r.payload, bytes_of_string("payload")));
    assert_int_equal(batch_check_headers(r.headers), FERRY_OK);
    expect_header(r.headers, "colour", "red");
    expect_header(r.headers, "ferry-dlq-reason", "broken");
    expect_header(r.headers, "ferry-dlq-offset", "3456");
    expect_header(r.headers, "ferry-dlq-failed", "10");
    expect_header(r.headers, "ferry-dlq-member", "m1");
    expect_header(r.headers, "ferry-dlq-time", "-5");
    buf_fini(&out);
    buf_fini(&record);
}

/* What is no batch is CORRUPT, and nothing is appended. */
static void a_letter_whose_record_is_no_batch_is_corrupt(void **state)
{
    (void)state;
    struct buf out;
    struct dead_letter d = letter_of(bytes_of_string("no batch"));
    buf_init(&out, 65536);
    assert_int_equal(dead_append_entry(&d, &out), FERRY_ERR_CORRUPT);
    assert_int_equal(out.size, 0);
    buf_fini(&out);
}

/* Letters are listed by their reason, so each has one. */
static void a_letter_of_which_nothing_was_said_has_the_kind_as_its_reason(void **state)
{
    (void)state;
    struct dead_letter d = {
        .failure_count = 2,
        .failures = {{.kind = FAILURE_NACK, .reason = bytes_of_string("no card")},
                     {.kind = FAILURE_EXPIRED}}};
    assert_true(bytes_equal(dead_reason(&d), bytes_of_string("lease ended")));
    d.failure_count = 1;
    assert_true(bytes_equal(dead_reason(&d), bytes_of_string("no card")));
    d.failures[0] = (struct failure){.kind = 99};
    assert_true(bytes_equal(dead_reason(&d), bytes_of_string("failed")));
    d.failure_count = 0;
    assert_true(bytes_equal(dead_reason(&d), bytes_of_string("unknown")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_letter_comes_back_as_it_was),
        cmocka_unit_test(cut_and_changed_rows_do_no_harm),
        cmocka_unit_test(a_letter_is_read_like_a_message_with_headers_added),
        cmocka_unit_test(a_letter_whose_record_is_no_batch_is_corrupt),
        cmocka_unit_test(a_letter_of_which_nothing_was_said_has_the_kind_as_its_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
