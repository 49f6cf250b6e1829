/* Random numbers: the published vectors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/prng.h"

static void xoshiro256_starstar_gives_the_published_numbers(void **state)
{
    (void)state;
    static const uint64_t expected[] = {11520u,
                                        0u,
                                        1509978240u,
                                        1215971899390074240u,
                                        1216172134540287360u,
                                        607988272756665600u,
                                        16172922978634559625u,
                                        8476171486693032832u,
                                        10595114339597558777u,
                                        2904607092377533576u};
    struct prng p = {.state = {1, 2, 3, 4}};
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
        assert_true(prng_next(&p) == expected[i]);
    }
}

static void the_seed_goes_through_splitmix64(void **state)
{
    (void)state;
    static const uint64_t expected[] = {6457827717110365317u, 3203168211198807973u,
                                        9817491932198370423u, 4593380528125082431u};
    struct prng p;
    prng_init(&p, 1234567);
    assert_memory_equal(p.state, expected, sizeof(expected));
}

static void the_same_seed_gives_the_same_run(void **state)
{
    (void)state;
    struct prng a;
    struct prng b;
    prng_init(&a, 0);
    prng_init(&b, 0);
    for (int i = 0; i < 1000; i++) {
        assert_true(prng_next(&a) == prng_next(&b));
    }
}

static void below_is_below_and_even(void **state)
{
    (void)state;
    struct prng p;
    uint32_t counts[10] = {0};
    prng_init(&p, 7);
    for (int i = 0; i < 100000; i++) {
        uint64_t x = prng_below(&p, 10);
        assert_true(x < 10);
        counts[x]++;
    }
    for (int i = 0; i < 10; i++) {
        assert_in_range(counts[i], 9500, 10500);
    }
    assert_true(prng_below(&p, 1) == 0);
    assert_true(prng_below(&p, UINT64_MAX) < UINT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(xoshiro256_starstar_gives_the_published_numbers),
        cmocka_unit_test(the_seed_goes_through_splitmix64),
        cmocka_unit_test(the_same_seed_gives_the_same_run),
        cmocka_unit_test(below_is_below_and_even),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
