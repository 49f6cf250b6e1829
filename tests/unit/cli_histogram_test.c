/* The histogram against exact percentiles. The source under test is included; see cli_args_test.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "base/prng.h"
#include "cli/histogram.c"

static const double percents[] = {0, 1, 10, 25, 50, 75, 90, 99, 99.9, 99.99, 100};
#define PERCENTS (sizeof(percents) / sizeof(percents[0]))

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* The least value that at least so many percent do not exceed. */
static uint64_t exact(const uint64_t *sorted, size_t count, double percent)
{
    size_t rank = (size_t)ceil(percent / 100 * (double)count * (1 - 1e-12));
    return sorted[rank > 0 ? rank - 1 : 0];
}

static void check_against_exact(uint64_t *values, size_t count)
{
    struct histogram h;
    assert_int_equal(histogram_init(&h), FERRY_OK);
    for (size_t i = 0; i < count; i++) {
        histogram_record(&h, values[i]);
    }
    qsort(values, count, sizeof(values[0]), by_value);
    for (size_t i = 0; i < PERCENTS; i++) {
        uint64_t want = exact(values, count, percents[i]);
        uint64_t got = histogram_percentile(&h, percents[i]);
        assert_true(got >= want);               /* Never better than the truth. */
        assert_true(got - want <= want / 1000); /* Three significant digits. */
    }
    assert_int_equal(h.max, values[count - 1]);
    assert_int_equal(h.min, values[0]);
    histogram_fini(&h);
}

static void percentiles_agree_with_sorted_values_to_three_digits(void **state)
{
    (void)state;
    enum { COUNT = 20000 };
    struct prng prng;
    uint64_t *values = mem_zalloc(COUNT, sizeof(values[0]));
    assert_non_null(values);
    for (uint64_t seed = 1; seed <= 5; seed++) {
        printf("seed %llu\n", (unsigned long long)seed);
        prng_init(&prng, seed);
        for (size_t i = 0; i < COUNT; i++) { /* Every magnitude is as likely as every other. */
            values[i] = prng_next(&prng) >> (24 + prng_below(&prng, 40));
        }
        check_against_exact(values, COUNT);
    }
    mem_free(values);
}

static void small_values_are_exact(void **state)
{
    (void)state;
    struct histogram h;
    assert_int_equal(histogram_init(&h), FERRY_OK);
    for (uint64_t v = 1; v <= 1000; v++) {
        histogram_record(&h, v);
    }
    assert_int_equal(histogram_percentile(&h, 50), 500);
    assert_int_equal(histogram_percentile(&h, 99.9), 999);
    assert_int_equal(histogram_percentile(&h, 100), 1000);
    assert_true(histogram_mean(&h) > 500.4 && histogram_mean(&h) < 500.6);
    histogram_fini(&h);
}

static void counters_cover_all_values_without_gap_or_overlap(void **state)
{
    (void)state;
    uint64_t next = 0;
    for (size_t i = 0; i < COUNTERS; i++) {
        assert_int_equal(counter_of(next), i);
        assert_int_equal(counter_of(greatest_of(i)), i);
        next = greatest_of(i) + 1;
    }
    assert_int_equal(next, HISTOGRAM_VALUE_MAX + 1);
}

static void a_value_past_the_greatest_counts_as_the_greatest(void **state)
{
    (void)state;
    struct histogram h;
    assert_int_equal(histogram_init(&h), FERRY_OK);
    histogram_record(&h, UINT64_MAX);
    assert_int_equal(histogram_percentile(&h, 50), HISTOGRAM_VALUE_MAX);
    histogram_fini(&h);
}

static void an_empty_histogram_answers_zero(void **state)
{
    (void)state;
    struct histogram h;
    assert_int_equal(histogram_init(&h), FERRY_OK);
    assert_int_equal(histogram_percentile(&h, 99), 0);
    assert_true(histogram_mean(&h) == 0);
    histogram_fini(&h);
    histogram_fini(&h);
}

static void adding_two_is_recording_both(void **state)
{
    (void)state;
    struct histogram a, b;
    assert_int_equal(histogram_init(&a), FERRY_OK);
    assert_int_equal(histogram_init(&b), FERRY_OK);
    histogram_record(&a, 10);
    histogram_record(&b, 30);
    histogram_record(&b, 20);
    histogram_add(&a, &b);
    assert_int_equal(a.total, 3);
    assert_int_equal(a.min, 10);
    assert_int_equal(histogram_percentile(&a, 50), 20);
    assert_int_equal(histogram_percentile(&a, 100), 30);
    histogram_fini(&a);
    histogram_fini(&b);
}

static void out_of_memory_is_told(void **state)
{
    (void)state;
    struct histogram h;
    mem_test_fail_after(1);
    assert_int_equal(histogram_init(&h), FERRY_ERR_NO_MEMORY);
    mem_test_fail_after(0);
    histogram_fini(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(percentiles_agree_with_sorted_values_to_three_digits),
        cmocka_unit_test(small_values_are_exact),
        cmocka_unit_test(counters_cover_all_values_without_gap_or_overlap),
        cmocka_unit_test(a_value_past_the_greatest_counts_as_the_greatest),
        cmocka_unit_test(an_empty_histogram_answers_zero),
        cmocka_unit_test(adding_two_is_recording_both),
        cmocka_unit_test(out_of_memory_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
