/* Places, ranges and schedules as words of the command line. The sources under test are included;
 * see cli_args_test.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "cli/format.c"
#include "cli/place.c"
#include "cli/schedule_text.c"

#define NOW_MS INT64_C(1700000000000)

static void a_place_is_start_end_an_offset_a_time_or_an_age(void **state)
{
    (void)state;
    struct place place;
    assert_true(place_parse("start", NOW_MS, &place));
    assert_int_equal(place.offset, FERRY_FROM_START);
    assert_true(place_parse("end", NOW_MS, &place));
    assert_int_equal(place.offset, FERRY_FROM_END);
    assert_false(place.is_time);
    assert_true(place_parse("42", NOW_MS, &place));
    assert_int_equal(place.offset, 42);
    assert_true(place_parse("10m", NOW_MS, &place));
    assert_true(place.is_time);
    assert_int_equal(place.time_ms, NOW_MS - 600000);
    assert_true(place_parse("2023-11-14T22:13:20Z", 0, &place));
    assert_true(place.is_time);
    assert_int_equal(place.time_ms, NOW_MS);
}

static void what_is_no_place_leaves_it_as_it_was(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "begin", "1.5", "99999999999999999999", "2023-11"};
    struct place place = {.offset = 7};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_false(place_parse(bad[i], NOW_MS, &place));
        assert_int_equal(place.offset, 7);
    }
}

static void a_record_is_topic_partition_and_offset(void **state)
{
    (void)state;
    char topic[PLACE_TOPIC_BYTES];
    int32_t partition;
    int64_t offset;
    assert_true(place_parse_record("orders/3/123456789012", topic, &partition, &offset));
    assert_string_equal(topic, "orders");
    assert_int_equal(partition, 3);
    assert_int_equal(offset, 123456789012);
    static const char *const bad[] = {"orders",
                                      "orders/3",
                                      "orders/3/",
                                      "/3/4",
                                      "orders//4",
                                      "orders/x/4",
                                      "orders/3/4/5",
                                      "orders/-1/4",
                                      "018f2d4c-7b1a-7c3e-9f00-0123456789ab",
                                      "orders/99999999999/4"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_false(place_parse_record(bad[i], topic, &partition, &offset));
    }
    char name[300];
    memset(name, 'a', sizeof(name));
    memcpy(name + 290, "/1/2", 5);
    assert_false(place_parse_record(name, topic, &partition, &offset));
}

static void a_range_is_one_duration_or_two(void **state)
{
    (void)state;
    int64_t from, to;
    assert_true(place_parse_range_ms("1s..10m", 600000, &from, &to));
    assert_int_equal(from, 1000);
    assert_int_equal(to, 600000);
    assert_true(place_parse_range_ms("250ms", 600000, &from, &to));
    assert_int_equal(from, 250);
    assert_int_equal(to, 250);
    static const char *const bad[] = {"",        "..",      "1s..",  "..1s",   "10m..1s",   "0..1s",
                                      "1s..11m", "1s...2s", "1s-2s", "1s..2x", "1s..2s..3s"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_false(place_parse_range_ms(bad[i], 600000, &from, &to));
    }
}

static void a_schedule_is_one_word_there_and_back(void **state)
{
    (void)state;
    char text[SCHEDULE_TEXT_BYTES];
    struct ferry_schedule_id back, id = {.partition = 3, .due_ms = NOW_MS, .number = 77};
    schedule_format(&id, text);
    assert_string_equal(text, "3/1700000000000/77");
    assert_true(schedule_parse(text, &back));
    assert_int_equal(back.partition, 3);
    assert_int_equal(back.due_ms, NOW_MS);
    assert_int_equal(back.number, 77);
    static const char *const bad[] = {"",       "3",     "3/4",  "3/4/",           "/4/5",
                                      "3/4/5/", "3/4/x", "3//5", "99999999999/4/5"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_false(schedule_parse(bad[i], &back));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_place_is_start_end_an_offset_a_time_or_an_age),
        cmocka_unit_test(what_is_no_place_leaves_it_as_it_was),
        cmocka_unit_test(a_record_is_topic_partition_and_offset),
        cmocka_unit_test(a_range_is_one_duration_or_two),
        cmocka_unit_test(a_schedule_is_one_word_there_and_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
