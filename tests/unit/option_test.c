/* Options by name: every unit, every bound, every refusal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/option.h"

struct values {
    int64_t max_bytes;
    int64_t keep_ms;
    int64_t count;
    int64_t mode;
    bool sync;
    char name[9];
};

static const struct option_row rows[] = {
    {"store.max_bytes", OPTION_BYTES, offsetof(struct values, max_bytes), 4096, INT64_C(1) << 40,
     "1M", NULL,
     "Most bytes of the log on disk. Raise it where messages must be kept for longer than the disk "
     "space of the default allows."},
    {"store.keep", OPTION_MS, offsetof(struct values, keep_ms), -1, INT64_MAX, "7d", NULL,
     "How long messages are kept; -1 is for ever."},
    {"shard.count", OPTION_INT, offsetof(struct values, count), 1, 64, "2", NULL,
     "Threads that own partitions."},
    {"shard.mode", OPTION_CHOICE, offsetof(struct values, mode), 0, 0, "fair", "fast|fair|far",
     "Who goes first."},
    {"shard.sync", OPTION_BOOL, offsetof(struct values, sync), 0, 0, "true", NULL,
     "Whether writes reach the disk."},
    {"shard.name", OPTION_TEXT, offsetof(struct values, name), 0, 8, "", NULL,
     "What people call it."},
};
static const struct option_table table = {rows, sizeof(rows) / sizeof(rows[0])};

static struct values defaults(void)
{
    struct values v;
    memset(&v, 0x5a, sizeof(v));
    option_defaults(&table, &v);
    return v;
}

static void set(struct values *v, const char *name, const char *value)
{
    struct err_text e = {""};
    if (option_set(&table, v, name, value, &e) != FERRY_OK) {
        fail_msg("%s = %s: %s", name, value, e.text);
    }
}

/* Refused with exactly this detail, and nothing is changed. */
static void refuse(const char *name, const char *value, enum ferry_err err, const char *detail)
{
    struct values v = defaults();
    struct values before = v;
    struct err_text e = {""};
    assert_int_equal(option_set(&table, &v, name, value, &e), err);
    assert_string_equal(e.text, detail);
    assert_memory_equal(&v, &before, sizeof(v));
    assert_int_equal(option_set(&table, &v, name, value, NULL), err);
}

static void refuse_values(const char *name, const char *const *values, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct values v = defaults();
        struct values before = v;
        struct err_text e = {""};
        if (option_set(&table, &v, name, values[i], &e) != FERRY_ERR_BAD_OPTION_VALUE) {
            fail_msg("%s took \"%s\"", name, values[i]);
        }
        assert_memory_equal(&v, &before, sizeof(v));
    }
}

#define REFUSE_VALUES(name, ...)                                                                   \
    do {                                                                                           \
        static const char *const bad_values[] = {__VA_ARGS__};                                     \
        refuse_values(name, bad_values, sizeof(bad_values) / sizeof(bad_values[0]));               \
    } while (0)

static void defaults_fill_every_field(void **state)
{
    (void)state;
    struct values v = defaults();
    assert_int_equal(v.max_bytes, 1 << 20);
    assert_int_equal(v.keep_ms, 7 * 24 * 3600 * 1000);
    assert_int_equal(v.count, 2);
    assert_int_equal(v.mode, 1);
    assert_true(v.sync);
    assert_string_equal(v.name, "");
}

static void a_row_is_found_by_its_whole_name(void **state)
{
    (void)state;
    assert_ptr_equal(option_find(&table, "shard.count"), &rows[2]);
    assert_null(option_find(&table, "shard.coun"));
    assert_null(option_find(&table, "shard.counts"));
    assert_null(option_find(&table, ""));
}

static void bytes_take_every_unit(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t value;
    } good[] = {{"4096", 4096},
                {"5000", 5000},
                {"64K", 65536},
                {"64KiB", 65536},
                {"1M", INT64_C(1) << 20},
                {"3MiB", INT64_C(3) << 20},
                {"2G", INT64_C(2) << 30},
                {"2GiB", INT64_C(2) << 30},
                {"1024G", INT64_C(1) << 40}};
    struct values v = defaults();
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        set(&v, "store.max_bytes", good[i].text);
        assert_int_equal(v.max_bytes, good[i].value);
    }
    REFUSE_VALUES("store.max_bytes", "", " 4096", "4096 ", "4095", "3K", "1025G", "-4096", "+4096",
                  "1T", "1k", "1m", "1KB", "1MB", "1Mi", "1.5M", "0x2000", "K", "M", "1 M", "4096s",
                  "9223372036854775808", "9223372036854775807G", "99999999999999999999999");
}

static void times_take_every_unit(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t value;
    } good[] = {{"0", 0},          {"250", 250},
                {"250ms", 250},    {"5s", 5000},
                {"10m", 600000},   {"2h", 7200000},
                {"7d", 604800000}, {"-1", -1},
                {"-1ms", -1},      {"9223372036854775807", INT64_MAX}};
    struct values v = defaults();
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        set(&v, "store.keep", good[i].text);
        assert_true(v.keep_ms == good[i].value);
    }
    REFUSE_VALUES("store.keep", "", "-2", "-1s", "s", "1S", "1M", "1min", "5sec", "1.5s", "1 s",
                  "1w", "--1", "-", "9223372036854775807s", "106751991168d");
}

static void whole_numbers_stay_in_their_bounds(void **state)
{
    (void)state;
    struct values v = defaults();
    set(&v, "shard.count", "1");
    assert_int_equal(v.count, 1);
    set(&v, "shard.count", "064");
    assert_int_equal(v.count, 64);
    REFUSE_VALUES("shard.count", "", "0", "65", "-1", "1K", "one", "1e1", "1,0", "\n1");
}

static void booleans_have_four_ways_to_say_each(void **state)
{
    (void)state;
    static const char *const yes[] = {"true", "yes", "on", "1"};
    static const char *const no[] = {"false", "no", "off", "0"};
    struct values v = defaults();
    for (size_t i = 0; i < 4; i++) {
        set(&v, "shard.sync", no[i]);
        assert_false(v.sync);
        set(&v, "shard.sync", yes[i]);
        assert_true(v.sync);
    }
    REFUSE_VALUES("shard.sync", "", "True", "y", "2", "01", "true|no", "truefalse", "|");
}

static void a_choice_is_one_whole_word(void **state)
{
    (void)state;
    struct values v = defaults();
    set(&v, "shard.mode", "fast");
    assert_int_equal(v.mode, 0);
    set(&v, "shard.mode", "far");
    assert_int_equal(v.mode, 2);
    REFUSE_VALUES("shard.mode", "", "fa", "fars", "fast|fair", "FAST", "0");
}

static void a_text_fits_and_has_no_control_characters(void **state)
{
    (void)state;
    struct values v = defaults();
    set(&v, "shard.name", "12345678");
    assert_string_equal(v.name, "12345678");
    set(&v, "shard.name", "");
    assert_string_equal(v.name, "");
    set(&v, "shard.name", "\xc3\xa4 b");
    assert_string_equal(v.name, "\xc3\xa4 b");
    REFUSE_VALUES("shard.name", "123456789", "a\nb", "\t", "\x7f");
}

static void a_refused_value_says_what_is_allowed(void **state)
{
    (void)state;
    const enum ferry_err bad = FERRY_ERR_BAD_OPTION_VALUE;
    refuse(
        "store.max_bytes", "12Q", bad,
        "store.max_bytes: \"12Q\" is not allowed; give a size (bytes, or with K, M or G) from 4K "
        "to 1024G");
    refuse("store.keep", "soon", bad,
           "store.keep: \"soon\" is not allowed; give a time (with ms, s, m, h or d), at least -1");
    refuse("shard.count", "65", bad,
           "shard.count: \"65\" is not allowed; give a whole number from 1 to 64");
    refuse("shard.mode", "slow", bad,
           "shard.mode: \"slow\" is not allowed; give one of fast|fair|far");
    refuse("shard.sync", "maybe", bad, "shard.sync: \"maybe\" is not allowed; give true or false");
    refuse(
        "shard.name", "much too long", bad,
        "shard.name: \"much too long\" is not allowed; give text of 0 to 8 bytes without control "
        "characters");
}

static void an_unknown_name_is_answered_with_the_nearest(void **state)
{
    (void)state;
    const enum ferry_err unknown = FERRY_ERR_UNKNOWN_OPTION;
    refuse("shard.cuont", "1", unknown,
           "shard.cuont: no option has that name; did you mean shard.count?");
    refuse("store.maxbytes", "1", unknown,
           "store.maxbytes: no option has that name; did you mean store.max_bytes?");
    refuse("max_bytes", "1", unknown, "max_bytes: no option has that name; conf/ shows them all");
    refuse("", "1", unknown, ": no option has that name; conf/ shows them all");
}

static void a_huge_name_or_value_is_cut_in_the_detail(void **state)
{
    (void)state;
    static char huge[100000];
    struct values v = defaults();
    struct err_text e;
    memset(huge, 'x', sizeof(huge) - 1);
    assert_int_equal(option_set(&table, &v, huge, "1", &e), FERRY_ERR_UNKNOWN_OPTION);
    assert_non_null(strstr(e.text, "conf/ shows them all"));
    assert_int_equal(option_set(&table, &v, "shard.count", huge, &e), FERRY_ERR_BAD_OPTION_VALUE);
    assert_non_null(strstr(e.text, "give a whole number from 1 to 64"));
}

static void check_format(const char *name, const char *value, const char *expected)
{
    struct values v = defaults();
    char text[64];
    set(&v, name, value);
    option_format(option_find(&table, name), &v, text, sizeof(text));
    assert_string_equal(text, expected);
    set(&v, name, text);
}

/* And what is written is read again. */
static void values_are_written_in_the_greatest_whole_unit(void **state)
{
    (void)state;
    check_format("store.max_bytes", "4096", "4K");
    check_format("store.max_bytes", "5000", "5000");
    check_format("store.max_bytes", "1024K", "1M");
    check_format("store.max_bytes", "1536M", "1536M");
    check_format("store.max_bytes", "2048M", "2G");
    check_format("store.keep", "0", "0");
    check_format("store.keep", "-1", "-1");
    check_format("store.keep", "1500", "1500ms");
    check_format("store.keep", "90s", "90s");
    check_format("store.keep", "3600s", "1h");
    check_format("store.keep", "48h", "2d");
    check_format("shard.count", "60", "60");
    check_format("shard.mode", "far", "far");
    check_format("shard.mode", "fast", "fast");
    check_format("shard.sync", "off", "false");
    check_format("shard.sync", "1", "true");
    check_format("shard.name", "a b", "a b");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_fill_every_field),
        cmocka_unit_test(a_row_is_found_by_its_whole_name),
        cmocka_unit_test(bytes_take_every_unit),
        cmocka_unit_test(times_take_every_unit),
        cmocka_unit_test(whole_numbers_stay_in_their_bounds),
        cmocka_unit_test(booleans_have_four_ways_to_say_each),
        cmocka_unit_test(a_choice_is_one_whole_word),
        cmocka_unit_test(a_text_fits_and_has_no_control_characters),
        cmocka_unit_test(a_refused_value_says_what_is_allowed),
        cmocka_unit_test(an_unknown_name_is_answered_with_the_nearest),
        cmocka_unit_test(a_huge_name_or_value_is_cut_in_the_detail),
        cmocka_unit_test(values_are_written_in_the_greatest_whole_unit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
