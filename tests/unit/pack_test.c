/* msgpack values: what is written is read, every format of the specification is understood, and
 * bytes that lie cost nothing and are refused. M01 to M08 are the classes of bad msgpack. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "wire/pack.h"

#define BYTES(...) bytes_of((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void values_come_back(void **state)
{
    (void)state;
    const uint64_t uints[] = {0, 127, 128, 255, 256, 65535, 65536, UINT32_MAX, UINT64_MAX};
    const int64_t ints[] = {0,      -1,     -32,       -33,       -128,     -129,
                            -32768, -32769, INT32_MIN, INT64_MIN, INT64_MAX};
    const struct ferry_id id = {{1, 2, 3, [15] = 16}};
    struct buf b;
    struct unpack u;
    buf_init(&b, 1024);
    pack_array(&b, 9 + 11 + 5);
    for (size_t i = 0; i < 9; i++) {
        pack_uint(&b, uints[i]);
    }
    for (size_t i = 0; i < 11; i++) {
        pack_int(&b, ints[i]);
    }
    pack_bool(&b, true);
    pack_bool(&b, false);
    pack_str(&b, bytes_of_string("text"));
    pack_bin(&b, bytes_of_string("blob"));
    pack_id(&b, &id);
    unpack_begin(&u, buf_bytes(&b));
    for (size_t i = 0; i < 9; i++) {
        assert_true(unpack_uint(&u, UINT64_MAX) == uints[i]);
    }
    for (size_t i = 0; i < 11; i++) {
        assert_true(unpack_int(&u) == ints[i]);
    }
    assert_true(unpack_bool(&u));
    assert_false(unpack_bool(&u));
    assert_true(bytes_equal(unpack_str(&u, 4), bytes_of_string("text")));
    assert_true(bytes_equal(unpack_bin(&u, 4), bytes_of_string("blob")));
    const struct ferry_id read = unpack_id(&u);
    assert_memory_equal(&read, &id, sizeof(id));
    assert_false(unpack_has_more(&u));
    assert_int_equal(unpack_end(&u), FERRY_OK);
    buf_fini(&b);
}

static void text_of_every_length_format_comes_back(void **state)
{
    (void)state;
    static uint8_t data[70000];
    const size_t sizes[] = {0, 31, 32, 255, 256, 65535, 65536, 70000};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct buf b;
        struct unpack u;
        buf_init(&b, 1u << 20);
        pack_array(&b, 2);
        pack_str(&b, bytes_of(data, sizes[i]));
        pack_bin(&b, bytes_of(data, sizes[i]));
        unpack_begin(&u, buf_bytes(&b));
        assert_int_equal(unpack_str(&u, sizes[i]).size, sizes[i]);
        assert_int_equal(unpack_bin(&u, sizes[i]).size, sizes[i]);
        assert_int_equal(unpack_end(&u), FERRY_OK);
        buf_fini(&b);
    }
}

static void nested_arrays_are_entered_and_left(void **state)
{
    (void)state;
    struct buf b;
    struct unpack u;
    buf_init(&b, 1024);
    pack_array(&b, 3);
    pack_uint(&b, 1);
    pack_array(&b, 2); /* [[10, 11, "extra"], []] */
    pack_array(&b, 3);
    pack_uint(&b, 10);
    pack_uint(&b, 11);
    pack_str(&b, bytes_of_string("extra"));
    pack_array(&b, 0);
    pack_uint(&b, 2);
    unpack_begin(&u, buf_bytes(&b));
    assert_int_equal(unpack_uint(&u, 9), 1);
    assert_int_equal(unpack_array(&u, 2), 2);
    assert_int_equal(unpack_array(&u, 3), 3);
    assert_int_equal(unpack_uint(&u, 99), 10);
    assert_int_equal(unpack_uint(&u, 99), 11);
    assert_true(unpack_has_more(&u));
    unpack_array_end(&u);
    assert_int_equal(unpack_array(&u, 3), 0);
    unpack_array_end(&u);
    assert_false(unpack_has_more(&u));
    unpack_array_end(&u);
    assert_int_equal(unpack_uint(&u, 9), 2);
    assert_int_equal(unpack_end(&u), FERRY_OK);
    buf_fini(&b);
}

static void whatever_is_skipped_is_skipped_whole(void **state)
{
    (void)state;
    struct unpack u;
    /* [{1: [nil, "a"], 2: 1.5}, ext, 7] */
    unpack_begin(&u, BYTES(0x93, 0x82, 0x01, 0x92, 0xc0, 0xa1, 'a', 0x02, 0xca, 0x3f, 0xc0, 0, 0,
                           0xc7, 0x02, 0x05, 0xaa, 0xbb, 0x07));
    unpack_skip(&u);
    unpack_skip(&u);
    assert_int_equal(unpack_uint(&u, 7), 7);
    assert_int_equal(unpack_end(&u), FERRY_OK);
}

/* After the first mismatch everything reads as zero, and the end says so. */
static void a_mismatch_is_told_at_the_end(void **state)
{
    (void)state;
    struct unpack u;
    unpack_begin(&u, BYTES(0x92, 0xa1, 'x', 0x05));
    assert_int_equal(unpack_uint(&u, 100), 0);
    assert_int_equal(unpack_uint(&u, 100), 0);
    assert_int_equal(unpack_str(&u, 100).size, 0);
    assert_int_equal(unpack_array(&u, 100), 0);
    unpack_array_end(&u);
    unpack_skip(&u);
    assert_false(unpack_has_more(&u));
    assert_int_equal(unpack_end(&u), FERRY_ERR_BAD_FRAME);
}

static void an_array_that_ends_early_is_told(void **state)
{
    (void)state;
    struct unpack u;
    unpack_begin(&u, BYTES(0x91, 0x05));
    assert_int_equal(unpack_uint(&u, 100), 5);
    assert_int_equal(unpack_uint(&u, 100), 0);
    assert_int_equal(unpack_end(&u), FERRY_ERR_BAD_FRAME);
}

/* M01. */
static void a_lying_count_is_refused(void **state)
{
    (void)state;
    assert_false(unpack_check(BYTES(0xdd, 0xff, 0, 0, 0)));
    assert_false(unpack_check(BYTES(0xdf, 0xff, 0xff, 0xff, 0xff)));
    assert_false(unpack_check(BYTES(0xdf, 0x80, 0, 0, 0)));
    assert_false(unpack_check(BYTES(0xdc, 0xff, 0xff, 0xc0)));
    assert_false(unpack_check(BYTES(0x91)));
    assert_false(unpack_check(BYTES(0x81, 0xc0)));
    uint8_t nested[32 * 3];
    for (size_t i = 0; i < sizeof(nested); i += 3) {
        memcpy(nested + i, "\xdc\xff\xff", 3);
    }
    assert_false(unpack_check(bytes_of(nested, sizeof(nested))));
}

/* M02: each small, together too many. */
static void many_small_arrays_are_refused(void **state)
{
    (void)state;
    static uint8_t bytes[5 + UNPACK_OBJECTS_MAX];
    memset(bytes, 0x90, sizeof(bytes));
    bytes[0] = 0xdd;
    put_be32(bytes + 1, UNPACK_OBJECTS_MAX - 1);
    assert_true(unpack_check(bytes_of(bytes, 5 + UNPACK_OBJECTS_MAX - 1)));
    put_be32(bytes + 1, UNPACK_OBJECTS_MAX);
    assert_false(unpack_check(bytes_of(bytes, 5 + UNPACK_OBJECTS_MAX)));
}

/* M03. */
static void nesting_deeper_than_the_limit_is_refused(void **state)
{
    (void)state;
    uint8_t bytes[100000];
    memset(bytes, 0x91, sizeof(bytes));
    assert_false(unpack_check(bytes_of(bytes, sizeof(bytes))));
    bytes[UNPACK_DEPTH_MAX] = 0x01;
    assert_true(unpack_check(bytes_of(bytes, UNPACK_DEPTH_MAX + 1)));
    bytes[UNPACK_DEPTH_MAX] = 0x90;
    assert_false(unpack_check(bytes_of(bytes, UNPACK_DEPTH_MAX + 1)));
}

/* M04. */
static void a_length_longer_than_the_rest_is_refused(void **state)
{
    (void)state;
    assert_false(unpack_check(BYTES(0xa2, 'x')));
    assert_false(unpack_check(BYTES(0xd9, 0x02, 'x')));
    assert_false(unpack_check(BYTES(0xdb, 0xff, 0xff, 0xff, 0xff, 'x')));
    assert_false(unpack_check(BYTES(0xc4, 0x02, 'x')));
    assert_false(unpack_check(BYTES(0xc6, 0xff, 0xff, 0xff, 0xff, 'x')));
    assert_false(unpack_check(BYTES(0xc9, 0xff, 0xff, 0xff, 0xff, 0xff))); /* + 1 wraps 32 bits. */
    assert_false(unpack_check(BYTES(0xd6, 0xff, 0, 0, 0)));                /* A timestamp cut. */
    assert_true(unpack_check(BYTES(0xd6, 0xff, 0, 0, 0, 0)));
}

/* M05. */
static void wrong_types_and_numbers_out_of_range_are_refused(void **state)
{
    (void)state;
    static const struct {
        size_t size;
        uint8_t bytes[10];
    } lies[] = {
        {2, {0x91, 0xff}},                             /* -1 */
        {2, {0x91, 0xc0}},                             /* nil */
        {2, {0x91, 0xc3}},                             /* true */
        {6, {0x91, 0xca, 0x7f, 0xc0, 0, 0}},           /* NaN */
        {6, {0x91, 0xca, 0x3f, 0x80, 0, 0}},           /* 1.0 */
        {10, {0x91, 0xcf, 0x80, 0, 0, 0, 0, 0, 0, 0}}, /* 2^63 for an int64 */
        {3, {0x91, 0xa1, '1'}},                        /* text */
    };
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        struct bytes bytes = bytes_of(lies[i].bytes, lies[i].size);
        struct unpack u;
        unpack_begin(&u, bytes);
        (void)unpack_uint(&u, INT64_MAX);
        assert_int_equal(unpack_end(&u), FERRY_ERR_BAD_FRAME);
        unpack_begin(&u, bytes);
        (void)unpack_int(&u);
        assert_int_equal(unpack_end(&u), i == 0 ? FERRY_OK : FERRY_ERR_BAD_FRAME);
        unpack_begin(&u, bytes);
        (void)unpack_id(&u);
        assert_int_equal(unpack_end(&u), FERRY_ERR_BAD_FRAME);
    }
}

/* M05: text over its maximum, and text where a blob is due. */
static void text_over_its_maximum_is_refused(void **state)
{
    (void)state;
    struct unpack u;
    unpack_begin(&u, BYTES(0x91, 0xa2, 'a', 'b'));
    assert_int_equal(unpack_str(&u, 1).size, 0);
    assert_int_equal(unpack_end(&u), FERRY_ERR_BAD_FRAME);
    unpack_begin(&u, BYTES(0x91, 0xa2, 'a', 'b'));
    assert_int_equal(unpack_bin(&u, 2).size, 0);
    assert_int_equal(unpack_end(&u), FERRY_ERR_BAD_FRAME);
}

/* M06. */
static void bytes_behind_the_value_are_refused(void **state)
{
    (void)state;
    assert_true(unpack_check(BYTES(0x90)));
    assert_false(unpack_check(BYTES(0x90, 0x90)));
    assert_false(unpack_check(BYTES(0x91, 0x01, 0xc1)));
    assert_false(unpack_check(bytes_of(NULL, 0)));
    assert_false(unpack_check(BYTES(0xc1)));
}

/* M06: every value of every format, cut at every byte. */
static void a_value_cut_anywhere_is_refused(void **state)
{
    (void)state;
    for (unsigned first = 0; first < 256; first++) {
        uint8_t bytes[64] = {(uint8_t)first};
        size_t whole = 0;
        for (size_t size = 1; size <= sizeof(bytes) && whole == 0; size++) {
            whole = unpack_check(bytes_of(bytes, size)) ? size : 0;
        }
        assert_true(whole > 0 || first == 0xc1);
        for (size_t size = 0; size < whole; size++) {
            assert_false(unpack_check(bytes_of(bytes, size)));
        }
    }
}

static void a_body_that_is_no_array_is_refused(void **state)
{
    (void)state;
    struct unpack u;
    unpack_begin(&u, BYTES(0x05));
    assert_int_equal(unpack_end(&u), FERRY_ERR_BAD_FRAME);
    unpack_begin(&u, BYTES(0x81, 0x01, 0x02));
    assert_int_equal(unpack_end(&u), FERRY_ERR_BAD_FRAME);
    unpack_begin(&u, bytes_of(NULL, 0));
    assert_int_equal(unpack_end(&u), FERRY_ERR_BAD_FRAME);
}

/* M08: a number in any format is the same number, and is written in the shortest one. */
static void numbers_longer_than_need_be_are_read_and_written_short(void **state)
{
    (void)state;
    const struct bytes fives[] = {BYTES(0x91, 0x05),
                                  BYTES(0x91, 0xcc, 5),
                                  BYTES(0x91, 0xcd, 0, 5),
                                  BYTES(0x91, 0xce, 0, 0, 0, 5),
                                  BYTES(0x91, 0xd0, 5),
                                  BYTES(0x91, 0xd1, 0, 5),
                                  BYTES(0x91, 0xd3, 0, 0, 0, 0, 0, 0, 0, 5)};
    for (size_t i = 0; i < sizeof(fives) / sizeof(fives[0]); i++) {
        struct unpack u;
        struct buf b;
        unpack_begin(&u, fives[i]);
        uint64_t five = unpack_uint(&u, 5);
        assert_int_equal(unpack_end(&u), FERRY_OK);
        buf_init(&b, 16);
        pack_array(&b, 1);
        pack_uint(&b, five);
        assert_true(bytes_equal(buf_bytes(&b), fives[0]));
        buf_fini(&b);
    }
}

static void a_full_buffer_is_told_by_the_buffer(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 3);
    pack_array(&b, 1);
    pack_uint(&b, UINT64_MAX);
    assert_false(buf_ok(&b));
    buf_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_come_back),
        cmocka_unit_test(text_of_every_length_format_comes_back),
        cmocka_unit_test(nested_arrays_are_entered_and_left),
        cmocka_unit_test(whatever_is_skipped_is_skipped_whole),
        cmocka_unit_test(a_mismatch_is_told_at_the_end),
        cmocka_unit_test(an_array_that_ends_early_is_told),
        cmocka_unit_test(a_lying_count_is_refused),
        cmocka_unit_test(many_small_arrays_are_refused),
        cmocka_unit_test(nesting_deeper_than_the_limit_is_refused),
        cmocka_unit_test(a_length_longer_than_the_rest_is_refused),
        cmocka_unit_test(wrong_types_and_numbers_out_of_range_are_refused),
        cmocka_unit_test(text_over_its_maximum_is_refused),
        cmocka_unit_test(bytes_behind_the_value_are_refused),
        cmocka_unit_test(a_value_cut_anywhere_is_refused),
        cmocka_unit_test(a_body_that_is_no_array_is_refused),
        cmocka_unit_test(numbers_longer_than_need_be_are_read_and_written_short),
        cmocka_unit_test(a_full_buffer_is_told_by_the_buffer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
