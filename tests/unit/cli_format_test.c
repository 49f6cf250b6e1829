/* Numbers for people, times, words and base64. The source under test is included; see
 * cli_args_test.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cli/format.c"

#define COUNT_OF(a) (sizeof(a) / sizeof((a)[0]))

struct number_case {
    int64_t n;
    const char *text;
};

static void counts_have_thousands_separators(void **state)
{
    (void)state;
    static const struct number_case cases[] = {
        {0, "0"},          {999, "999"},
        {1000, "1,000"},   {1234567, "1,234,567"},
        {-1000, "-1,000"}, {INT64_MIN, "-9,223,372,036,854,775,808"}};
    char text[FORMAT_TEXT_BYTES];
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        format_count(cases[i].n, text);
        assert_string_equal(text, cases[i].text);
    }
}

static void sizes_have_three_digits_and_a_unit(void **state)
{
    (void)state;
    static const struct number_case cases[] = {{0, "0 B"},
                                               {1023, "1023 B"},
                                               {1024, "1.00 KiB"},
                                               {1536, "1.50 KiB"},
                                               {100 << 10, "100 KiB"},
                                               {(1 << 20) - 1, "1.00 MiB"},
                                               {INT64_C(5) << 40, "5.00 TiB"}};
    char text[FORMAT_TEXT_BYTES];
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        format_size(cases[i].n, text);
        assert_string_equal(text, cases[i].text);
    }
}

static void durations_are_told_in_the_unit_that_fits(void **state)
{
    (void)state;
    static const struct number_case cases[] = {{0, "0 us"},
                                               {350, "350 us"},
                                               {1250, "1.25 ms"},
                                               {999999, "1.00 s"},
                                               {12500000, "12.5 s"},
                                               {INT64_C(150) * 1000000, "2 min 30 s"},
                                               {INT64_C(7500) * 1000000, "2 h 5 min"},
                                               {INT64_C(604800) * 1000000, "7 d 0 h"}};
    char text[FORMAT_TEXT_BYTES];
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        format_duration_us(cases[i].n, text);
        assert_string_equal(text, cases[i].text);
    }
}

static void the_greatest_numbers_fit_the_text(void **state)
{
    (void)state;
    char text[FORMAT_TEXT_BYTES];
    format_size(INT64_MAX, text);
    assert_string_equal(text, "8192 PiB");
    format_duration_us(INT64_MAX, text);
    assert_true(strlen(text) < FORMAT_TEXT_BYTES - 1);
    format_time_ms(INT64_MAX, text);
    assert_true(strlen(text) < FORMAT_TEXT_BYTES);
}

static void durations_and_sizes_are_read_with_and_without_units(void **state)
{
    (void)state;
    int64_t n;
    assert_true(format_parse_duration_ms("250", &n) && n == 250);
    assert_true(format_parse_duration_ms("250ms", &n) && n == 250);
    assert_true(format_parse_duration_ms("5s", &n) && n == 5000);
    assert_true(format_parse_duration_ms("7d", &n) && n == 604800000);
    assert_true(format_parse_size("4096", &n) && n == 4096);
    assert_true(format_parse_size("64K", &n) && n == 65536);
    assert_true(format_parse_size("2GiB", &n) && n == INT64_C(2) << 30);
}

static void what_is_no_number_or_does_not_fit_is_refused(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "",   "x",   "-5", "5 s", "5x", "5sx", "99999999999999999999", "9223372036854775807d",
        "+5", "0x10"};
    int64_t n = 42;
    for (size_t i = 0; i < COUNT_OF(wrong); i++) {
        assert_false(format_parse_duration_ms(wrong[i], &n));
        assert_false(format_parse_number(wrong[i], &n));
    }
    assert_false(format_parse_size("9223372036854775807T", &n));
    assert_int_equal(n, 42); /* Written only on success. */
}

static void times_are_rfc_3339_or_an_age(void **state)
{
    (void)state;
    const int64_t now = INT64_C(1769850000123);
    int64_t ms;
    assert_true(format_parse_time_ms("10m", now, &ms) && ms == now - 600000);
    assert_true(format_parse_time_ms("-10m", now, &ms) && ms == now - 600000);
    assert_true(format_parse_time_ms("1970-01-01T00:00:00Z", now, &ms) && ms == 0);
    assert_true(format_parse_time_ms("2026-01-31T09:00:00.678Z", now, &ms));
    assert_int_equal(ms, INT64_C(1769850000678));
    assert_true(format_parse_time_ms("2026-01-31T10:30:00.678901+01:30", now, &ms));
    assert_int_equal(ms, INT64_C(1769850000678));
    assert_true(format_parse_time_ms("2024-02-29 00:00:00Z", now, &ms));
}

static void dates_that_do_not_exist_are_refused(void **state)
{
    (void)state;
    static const char *const wrong[] = {"2026-02-31T00:00:00Z",
                                        "2026-13-01T00:00:00Z",
                                        "2026-01-01T24:00:00Z",
                                        "2026-01-01T00:60:00Z",
                                        "2026-01-01",
                                        "2026-01-01T00:00:00",
                                        "2026-01-01T00:00:00.Z",
                                        "2026-01-01T00:00:00Zx",
                                        "2026-01-01T00:00:00+25:00",
                                        "yesterday",
                                        ""};
    int64_t ms;
    for (size_t i = 0; i < COUNT_OF(wrong); i++) {
        assert_false(format_parse_time_ms(wrong[i], 1000, &ms));
    }
    assert_false(format_parse_time_ms("10m", 1000, &ms)); /* Before 1970. */
}

static void a_time_is_written_as_it_is_read(void **state)
{
    (void)state;
    static const int64_t times[] = {0, 1, 1769850000678, -1, 253402300799999};
    char text[FORMAT_TEXT_BYTES];
    int64_t back;
    for (size_t i = 0; i < COUNT_OF(times); i++) {
        format_time_ms(times[i], text);
        if (times[i] != -1) { /* timegm() answers -1 for an error and for the second before 1970. */
            assert_true(format_parse_time_ms(text, 0, &back));
            assert_int_equal(back, times[i]);
        }
    }
}

static void distance_counts_edits(void **state)
{
    (void)state;
    assert_int_equal(format_distance("partition", "partitions", 3), 1);
    assert_int_equal(format_distance("kitten", "sitting", 5), 3);
    assert_int_equal(format_distance("", "abc", 5), 3);
    assert_int_equal(format_distance("same", "same", 5), 0);
    assert_int_equal(format_distance("abc", "xyz", 2), 3); /* limit + 1 */
}

static void base64_is_that_of_rfc_4648(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {{"", ""},
                                           {"f", "Zg=="},
                                           {"fo", "Zm8="},
                                           {"foo", "Zm9v"},
                                           {"foob", "Zm9vYg=="},
                                           {"\xff\xfe", "//4="},
                                           {"fooba", "Zm9vYmE="},
                                           {"foobar", "Zm9vYmFy"}};
    char text[32];
    for (size_t i = 0; i < COUNT_OF(pairs); i++) {
        size_t bytes = strlen(pairs[i][0]);
        format_base64(pairs[i][0], bytes, text);
        assert_string_equal(text, pairs[i][1]);
        assert_int_equal(strlen(text) + 1, format_base64_bytes(bytes));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_have_thousands_separators),
        cmocka_unit_test(sizes_have_three_digits_and_a_unit),
        cmocka_unit_test(durations_are_told_in_the_unit_that_fits),
        cmocka_unit_test(the_greatest_numbers_fit_the_text),
        cmocka_unit_test(durations_and_sizes_are_read_with_and_without_units),
        cmocka_unit_test(what_is_no_number_or_does_not_fit_is_refused),
        cmocka_unit_test(times_are_rfc_3339_or_an_age),
        cmocka_unit_test(dates_that_do_not_exist_are_refused),
        cmocka_unit_test(a_time_is_written_as_it_is_read),
        cmocka_unit_test(distance_counts_edits),
        cmocka_unit_test(base64_is_that_of_rfc_4648),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
