/* Byte order and borrowed runs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"

static void little_and_big_endian_are_what_they_say(void **state)
{
    (void)state;
    uint8_t at[9] = {0};
    put_le16(at + 1, 0x0102);
    assert_memory_equal(at + 1, "\2\1", 2);
    put_le32(at + 1, 0x01020304);
    assert_memory_equal(at + 1, "\4\3\2\1", 4);
    put_be32(at + 1, 0x01020304);
    assert_memory_equal(at + 1, "\1\2\3\4", 4);
    assert_int_equal(get_be32(at + 1), 0x01020304);
    put_be64(at + 1, 0x0102030405060708);
    assert_memory_equal(at + 1, "\1\2\3\4\5\6\7\10", 8);
    assert_true(get_be64(at + 1) == 0x0102030405060708);
    assert_true(get_le64(at + 1) == 0x0807060504030201);
    assert_int_equal(get_le16(at + 1), 0x0201);
}

/* The reason for big-endian keys. */
static void big_endian_bytes_sort_like_numbers(void **state)
{
    (void)state;
    static const uint64_t rising[] = {0, 1, 255, 256, 65535, 1u << 31, UINT64_MAX - 1, UINT64_MAX};
    for (size_t i = 1; i < sizeof(rising) / sizeof(rising[0]); i++) {
        uint8_t a[8];
        uint8_t b[8];
        put_be64(a, rising[i - 1]);
        put_be64(b, rising[i]);
        assert_true(memcmp(a, b, 8) < 0);
    }
}

static void runs_are_equal_by_content(void **state)
{
    (void)state;
    assert_true(bytes_equal(bytes_of(NULL, 0), bytes_of("", 0)));
    assert_true(bytes_equal(bytes_of_string("a\0b"), bytes_of("a", 1)));
    assert_false(bytes_equal(bytes_of("ab", 2), bytes_of("ac", 2)));
    assert_false(bytes_equal(bytes_of("ab", 2), bytes_of("ab", 1)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(little_and_big_endian_are_what_they_say),
        cmocka_unit_test(big_endian_bytes_sort_like_numbers),
        cmocka_unit_test(runs_are_equal_by_content),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
