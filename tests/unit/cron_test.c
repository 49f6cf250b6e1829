/* When something comes again: lines of five fields against known dates, changes of the clocks among
 * them, and lines that are none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include <cmocka.h>

#include "partition/cron.h"

#define DAY_MS 86400000LL

/* "2026-03-29 01:00:00", in UTC. */
static int64_t utc(const char *text)
{
    struct tm tm = {0};
    assert_non_null(strptime(text, "%Y-%m-%d %H:%M:%S", &tm));
    return (int64_t)timegm(&tm) * 1000;
}

static void show(char text[32], int64_t ms)
{
    time_t seconds = (time_t)(ms / 1000);
    struct tm tm;
    assert_non_null(gmtime_r(&seconds, &tm));
    assert_true(strftime(text, 32, "%Y-%m-%d %H:%M:%S", &tm) > 0);
}

static struct cron parse(const char *spec)
{
    struct cron c;
    struct err_text e = {{0}};
    if (cron_parse(bytes_of_string(spec), &c, &e) != FERRY_OK) {
        fail_msg("'%s': %s", spec, e.text);
    }
    return c;
}

static struct cron_zone *open_zone(const char *name)
{
    struct cron_zone *z = NULL;
    assert_int_equal(cron_zone_open(bytes_of_string(name), &z), FERRY_OK);
    return z;
}

/* The times after `from` are these, all in UTC. */
static void expect(const char *spec, const char *zone, const char *from, const char *const *times,
                   size_t count)
{
    struct cron c = parse(spec);
    struct cron_zone *z = open_zone(zone);
    int64_t at = utc(from);
    for (size_t i = 0; i < count; i++) {
        char text[32];
        at = cron_next(&c, z, at);
        show(text, at);
        if (strcmp(text, times[i]) != 0) {
            fail_msg("'%s' in %s: time %zu is %s, not %s", spec, zone, i, text, times[i]);
        }
    }
    cron_zone_close(&z);
}
#define EXPECT(spec, zone, from, ...)                                                              \
    expect(spec, zone, from, (const char *const[]){__VA_ARGS__},                                   \
           sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *))

static void lines_come_at_known_dates(void **state)
{
    (void)state;
    EXPECT("30 4 * * *", "UTC", "2026-01-01 04:30:00", "2026-01-02 04:30:00",
           "2026-01-03 04:30:00");
    EXPECT("*/20 8-9 * * *", "UTC", "2026-05-05 08:20:00", "2026-05-05 08:40:00",
           "2026-05-05 09:00:00", "2026-05-05 09:20:00", "2026-05-05 09:40:00",
           "2026-05-06 08:00:00");
    EXPECT("0 12 31 * *", "UTC", "2026-01-31 12:00:00", "2026-03-31 12:00:00",
           "2026-05-31 12:00:00");
    EXPECT("0 0 29 2 *", "UTC", "2026-01-01 00:00:00", "2028-02-29 00:00:00",
           "2032-02-29 00:00:00");
    EXPECT("0 0 29 2 *", "UTC", "2096-03-01 00:00:00", "2104-02-29 00:00:00");
    EXPECT("15,45 6,18 1,15 jan,JUL *", "UTC", "2026-01-15 18:15:00", "2026-01-15 18:45:00",
           "2026-07-01 06:15:00");
    EXPECT("0 9 * * mon-fri", "UTC", "2026-11-27 09:00:00", "2026-11-30 09:00:00",
           "2026-12-01 09:00:00");
    EXPECT("0 9 * * sat-sun", "UTC", "2026-11-27 09:00:00", "2026-11-28 09:00:00",
           "2026-11-29 09:00:00", "2026-12-05 09:00:00");
    EXPECT("0 0 * * 7", "UTC", "2026-11-27 09:00:00", "2026-11-29 00:00:00", "2026-12-06 00:00:00");
    EXPECT("  5\t0 * 8 *  ", "UTC", "2026-01-01 00:00:00", "2026-08-01 00:05:00",
           "2026-08-02 00:05:00");
}

/* As in every cron: both given, either will do; one that begins with * narrows the other. */
static void a_day_of_month_and_a_weekday_are_either(void **state)
{
    (void)state;
    EXPECT("0 0 13 * fri", "UTC", "2026-11-07 00:00:00", "2026-11-13 00:00:00",
           "2026-11-20 00:00:00", "2026-11-27 00:00:00", "2026-12-04 00:00:00",
           "2026-12-11 00:00:00", "2026-12-13 00:00:00");
    EXPECT("0 0 */2 * fri", "UTC", "2026-11-07 00:00:00", "2026-11-13 00:00:00",
           "2026-11-27 00:00:00", "2026-12-11 00:00:00");
}

static void names_stand_for_lines(void **state)
{
    (void)state;
    EXPECT("@hourly", "UTC", "2026-01-01 10:00:00", "2026-01-01 11:00:00", "2026-01-01 12:00:00");
    EXPECT("@daily", "Asia/Kolkata", "2026-01-01 10:00:00", "2026-01-01 18:30:00",
           "2026-01-02 18:30:00");
    EXPECT("@weekly", "UTC", "2026-11-26 10:00:00", "2026-11-29 00:00:00", "2026-12-06 00:00:00");
    EXPECT("@monthly", "UTC", "2026-11-26 10:00:00", "2026-12-01 00:00:00", "2027-01-01 00:00:00");
}

/* Spring: the clock goes from 02:00 to 03:00 (01:00 UTC in Berlin, 07:00 in New York). A time that
 * is left out comes at the change, and once, though 03:00 is the same instant. */
static void a_time_that_is_left_out_comes_at_the_change(void **state)
{
    (void)state;
    EXPECT("30 2 * * *", "Europe/Berlin", "2026-03-27 12:00:00", "2026-03-28 01:30:00",
           "2026-03-29 01:00:00", "2026-03-30 00:30:00");
    EXPECT("0 3 * * *", "Europe/Berlin", "2026-03-28 12:00:00", "2026-03-29 01:00:00",
           "2026-03-30 01:00:00");
    EXPECT("*/30 * * * *", "Europe/Berlin", "2026-03-29 00:00:00", "2026-03-29 00:30:00",
           "2026-03-29 01:00:00", "2026-03-29 01:30:00");
    EXPECT("30 2 * * *", "America/New_York", "2026-03-07 12:00:00", "2026-03-08 07:00:00",
           "2026-03-09 06:30:00");
    EXPECT("30 1 * * *", "America/New_York", "2026-03-07 12:00:00", "2026-03-08 06:30:00",
           "2026-03-09 05:30:00");
}

/* Autumn: 02:00 to 03:00 (Berlin), 01:00 to 02:00 (New York) come twice: the first time counts. */
static void a_time_that_comes_twice_counts_once(void **state)
{
    (void)state;
    EXPECT("30 2 * * *", "Europe/Berlin", "2026-10-24 12:00:00", "2026-10-25 00:30:00",
           "2026-10-26 01:30:00");
    EXPECT("0 * * * *", "Europe/Berlin", "2026-10-24 23:00:00", "2026-10-25 00:00:00",
           "2026-10-25 02:00:00", "2026-10-25 03:00:00");
    EXPECT("0 3 * * *", "Europe/Berlin", "2026-10-24 12:00:00", "2026-10-25 02:00:00",
           "2026-10-26 02:00:00");
    EXPECT("30 1 * * *", "America/New_York", "2026-10-31 12:00:00", "2026-11-01 05:30:00",
           "2026-11-02 06:30:00");
    /* Asked within the second 01:30: the next one is tomorrow's. */
    EXPECT("45 1 * * *", "America/New_York", "2026-11-01 06:30:00", "2026-11-02 06:45:00");
}

/* Samoa had no 30th of December in 2011; Lord Howe changes by half an hour. */
static void odd_changes_are_changes_too(void **state)
{
    (void)state;
    EXPECT("0 12 * * *", "Pacific/Apia", "2011-12-29 12:00:00", "2011-12-29 22:00:00",
           "2011-12-30 10:00:00", "2011-12-30 22:00:00");
    EXPECT("15 2 * * *", "Australia/Lord_Howe", "2026-10-02 20:00:00", "2026-10-03 15:30:00",
           "2026-10-04 15:15:00");
}

/* Over years, each zone: times rise, and the wall clock shows what the line says, but at changes.
 */
static void times_rise_and_match_the_wall_clock(void **state)
{
    (void)state;
    static const char *const zones[] = {"Europe/Berlin",     "America/New_York", "Asia/Kolkata",
                                        "Africa/Casablanca", "Antarctica/Troll", "UTC"};
    struct cron c = parse("17 */3 * * *");
    for (size_t i = 0; i < sizeof(zones) / sizeof(zones[0]); i++) {
        struct cron_zone *z = open_zone(zones[i]);
        int64_t at = utc("2024-01-01 00:00:00");
        int odd = 0;
        for (int n = 0; n < 8 * 366 * 3; n++) {
            int64_t next = cron_next(&c, z, at);
            assert_true(next > at && next - at <= 6 * 3600 * 1000);
            int64_t wall = (next + cron_zone_offset_ms(z, next)) / 60000;
            odd += wall % 60 != 17 || wall / 60 % 3 != 0;
            at = next;
        }
        assert_true(odd <= 18); /* Twice a year at most. */
        cron_zone_close(&z);
    }
}

static void every_counts_in_plain_time(void **state)
{
    (void)state;
    static const struct {
        const char *spec;
        int64_t ms;
    } good[] = {{"@every 10s", 10000},         {"@every 1s", 1000},
                {"@every 5m", 300000},         {"@every 36h", 36 * 3600000LL},
                {"@every 365d", 365 * DAY_MS}, {"@every  1h30m ", 5400000}};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        struct cron c = parse(good[i].spec);
        assert_int_equal(c.every_ms, good[i].ms);
        assert_int_equal(cron_next(&c, NULL, 1000), 1000 + good[i].ms);
    }
    struct cron c = parse("@every 10s");
    assert_int_equal(cron_latest(&c, NULL, 5000, 5000), 5000);
    assert_int_equal(cron_latest(&c, NULL, 5000, 14999), 5000);
    assert_int_equal(cron_latest(&c, NULL, 5000, 999000), 995000);
}

static void expect_latest(const char *spec, const char *zone, const char *first, const char *now,
                          const char *expected)
{
    struct cron c = parse(spec);
    struct cron_zone *z = open_zone(zone);
    char text[32];
    show(text, cron_latest(&c, z, utc(first), utc(now)));
    assert_string_equal(text, expected);
    cron_zone_close(&z);
}

/* Of the times that passed unseen, the last; looked for without walking through all of them. */
static void the_latest_of_many_times_is_found(void **state)
{
    (void)state;
    expect_latest("* * * * *", "Europe/Berlin", "2001-01-01 00:00:00", "2026-11-26 18:30:31",
                  "2026-11-26 18:30:00");
    expect_latest("0 9 * * mon", "UTC", "2020-01-06 09:00:00", "2026-11-26 18:00:00",
                  "2026-11-23 09:00:00");
    expect_latest("* * 1 * *", "UTC", "2020-01-01 00:00:00", "2026-11-26 18:00:00",
                  "2026-11-01 23:59:00");
    expect_latest("0 0 29 2 *", "UTC", "2020-02-29 00:00:00", "2026-11-26 18:00:00",
                  "2024-02-29 00:00:00");
    expect_latest("0 0 1 1 *", "UTC", "2026-01-01 00:00:00", "2026-01-01 00:00:00",
                  "2026-01-01 00:00:00");
}

static void a_day_that_never_comes_is_told(void **state)
{
    (void)state;
    struct cron_zone *z = open_zone("UTC");
    struct cron c = parse("0 0 30 2 *");
    assert_true(cron_next(&c, z, utc("2026-01-01 00:00:00")) == CRON_NEVER);
    c = parse("0 0 31 4,6,9,11 *");
    assert_true(cron_next(&c, z, utc("2026-01-01 00:00:00")) == CRON_NEVER);
    cron_zone_close(&z);
}

static void lines_that_are_none_are_refused(void **state)
{
    (void)state;
    static const char *const lies[] = {
        "",
        " ",
        "*",
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * 32 * *",
        "* * * 0 *",
        "* * * 13 *",
        "* * * * 8",
        "-1 * * * *",
        "5- * * * *",
        "5-3 * * * *",
        "* * * dec-jan *",
        "* * * foo *",
        "* * * january *",
        "*/0 * * * *",
        "5/10 * * * *",
        "*/ * * * *",
        "** * * * *",
        "1,,2 * * * *",
        ",1 * * * *",
        "1, * * * *",
        "99999999999999999999 * * * *",
        "1;2 * * * *",
        "\x80 * * * *",
        "@",
        "@yearly x",
        "@hourly 5",
        "@every",
        "@every 10",
        "@every s",
        "@every 0s",
        "@every -5s",
        "@every 366d",
        "@every 365d1s",
        "@every 999999999d",
        "@every 10s 5",
        "@every 1.5h",
        "@every10s",
        "@every 10w",
    };
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        struct cron c;
        struct err_text e = {{0}};
        if (cron_parse(bytes_of_string(lies[i]), &c, &e) != FERRY_ERR_INVALID_ARGUMENT) {
            fail_msg("'%s' is taken for a line", lies[i]);
        }
        assert_true(strlen(e.text) > 0);
    }
}

/* ICU would take these; each is a trap: BST is Bangladesh, unknown names are GMT. */
static void names_that_are_no_zones_of_the_database_are_refused(void **state)
{
    (void)state;
    static const char *const lies[] = {"",
                                       "BST",
                                       "IST",
                                       "CST",
                                       "GMT+3",
                                       "UTC+2",
                                       "Europe/Berln",
                                       "Etc/Unknown",
                                       "berlin",
                                       "+02:00",
                                       "Europe/Berlin ",
                                       "\xff\xfe\xfd\xfc",
                                       "SystemV/EST5"};
    static const char *const good[] = {"UTC",
                                       "Europe/Berlin",
                                       "America/New_York",
                                       "Etc/GMT+3",
                                       "CET",
                                       "EST5EDT",
                                       "America/Argentina/Buenos_Aires"};
    struct cron_zone *z = NULL;
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        if (cron_zone_open(bytes_of_string(lies[i]), &z) != FERRY_ERR_INVALID_ARGUMENT) {
            fail_msg("'%s' is taken for a zone", lies[i]);
        }
    }
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_int_equal(cron_zone_open(bytes_of_string(good[i]), &z), FERRY_OK);
        cron_zone_close(&z);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_come_at_known_dates),
        cmocka_unit_test(a_day_of_month_and_a_weekday_are_either),
        cmocka_unit_test(names_stand_for_lines),
        cmocka_unit_test(a_time_that_is_left_out_comes_at_the_change),
        cmocka_unit_test(a_time_that_comes_twice_counts_once),
        cmocka_unit_test(odd_changes_are_changes_too),
        cmocka_unit_test(times_rise_and_match_the_wall_clock),
        cmocka_unit_test(every_counts_in_plain_time),
        cmocka_unit_test(the_latest_of_many_times_is_found),
        cmocka_unit_test(a_day_that_never_comes_is_told),
        cmocka_unit_test(lines_that_are_none_are_refused),
        cmocka_unit_test(names_that_are_no_zones_of_the_database_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
