/* XXH3-64: every implementation must agree on these. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/checksum.h"

static void known_texts_have_known_checksums(void **state)
{
    (void)state;
    assert_true(checksum_of("", 0) == 0x2d06800538d394c2u);
    assert_true(checksum_of(NULL, 0) == 0x2d06800538d394c2u);
    assert_true(checksum_of("a", 1) == 0xe6c632b61e964e1fu);
    assert_true(checksum_of("abc", 3) == 0x78af5f94892f3950u);
}

/* XXH3 takes another path by length (16, 128, 240, blocks of 1024): each cut must give the same. */
static void two_pieces_are_checked_as_one(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 3, 4, 8, 9, 16, 17, 128, 129, 240, 241, 1024, 1025, 5000};
    uint8_t data[5000];
    for (size_t i = 0; i < sizeof(data); i++) {
        data[i] = (uint8_t)(i * 31 + 7);
    }
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        uint64_t whole = checksum_of(data, sizes[i]);
        for (size_t cut = 0; cut <= sizes[i]; cut += 1 + sizes[i] / 13) {
            assert_true(checksum_of_two(data, cut, data + cut, sizes[i] - cut) == whole);
        }
    }
}

static void every_flipped_bit_is_noticed(void **state)
{
    (void)state;
    uint8_t data[100] = {0};
    uint64_t before = checksum_of(data, sizeof(data));
    for (size_t bit = 0; bit < sizeof(data) * 8; bit++) {
        data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_true(checksum_of(data, sizeof(data)) != before);
        data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_texts_have_known_checksums),
        cmocka_unit_test(two_pieces_are_checked_as_one),
        cmocka_unit_test(every_flipped_bit_is_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
