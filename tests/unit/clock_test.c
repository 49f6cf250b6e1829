/* The clocks, as far as a test can know the time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"

static void the_monotonic_clock_never_steps_back(void **state)
{
    (void)state;
    int64_t last = clock_monotonic_us();
    for (int i = 0; i < 100000; i++) {
        int64_t now = clock_monotonic_us();
        assert_true(now >= last);
        last = now;
    }
}

static void the_wall_clock_counts_milliseconds_of_this_age(void **state)
{
    (void)state;
    int64_t now = clock_wall_ms();
    assert_true(now > INT64_C(1577836800000)); /* 2020 */
    assert_true(now < INT64_C(4102444800000)); /* 2100 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_monotonic_clock_never_steps_back),
        cmocka_unit_test(the_wall_clock_counts_milliseconds_of_this_age),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
