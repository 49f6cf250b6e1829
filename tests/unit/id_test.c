/* Identities: ordered, also when the clock is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/id.h"

#define MS_2026 INT64_C(1767225600000)

typedef struct ferry_id make_id(struct id_gen *g, int64_t now_ms);

static int compare(const struct ferry_id *a, const struct ferry_id *b)
{
    return memcmp(a->bytes, b->bytes, sizeof(a->bytes));
}

static void init(struct id_gen *g, uint32_t worker_id)
{
    assert_int_equal(id_gen_init(g, worker_id), FERRY_OK);
}

/* Same millisecond, steps back of all sizes, an unset clock, a clock beyond the format. */
static void check_order(make_id *make)
{
    static const int64_t times[] = {MS_2026,     MS_2026,         MS_2026 + 5, MS_2026 + 4, 0,
                                    -1,          INT64_MIN,       INT64_MAX,   MS_2026 + 5, MS_2026,
                                    MS_2026 + 6, MS_2026 - 86400, MS_2026 + 7};
    struct id_gen g;
    init(&g, 7);
    struct ferry_id last = {0};
    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        /* More than fit one millisecond, so that the counter runs over. */
        for (int k = 0; k < 5000; k++) {
            struct ferry_id id = make(&g, times[i]);
            assert_true(compare(&last, &id) < 0);
            last = id;
        }
    }
}

static void uuid7_rises_strictly_whatever_the_clock_does(void **state)
{
    (void)state;
    check_order(id_gen_uuid7);
}

static void snowflake_rises_strictly_whatever_the_clock_does(void **state)
{
    (void)state;
    check_order(id_gen_snowflake);
}

/* RFC 9562 5.7: time, version and variant where they belong. */
static void uuid7_has_the_layout_of_rfc_9562(void **state)
{
    (void)state;
    struct id_gen g;
    init(&g, 0);
    struct ferry_id first = id_gen_uuid7(&g, INT64_C(0x017f22e279b0));
    struct ferry_id second = id_gen_uuid7(&g, INT64_C(0x017f22e279b0));
    assert_true(get_be64(first.bytes) == 0x017f22e279b07000u);
    assert_true(get_be64(second.bytes) == 0x017f22e279b07001u);
    assert_int_equal(first.bytes[8] >> 6, 2);
    assert_int_equal(second.bytes[8] >> 6, 2);
}

static void a_full_millisecond_borrows_the_next(void **state)
{
    (void)state;
    struct id_gen g;
    init(&g, 0);
    struct ferry_id id = {0};
    for (int i = 0; i <= 4096; i++) {
        id = id_gen_uuid7(&g, MS_2026);
    }
    assert_true(get_be64(id.bytes) >> 16 == MS_2026 + 1);
    /* Once the clock has caught up it is followed again. */
    id = id_gen_uuid7(&g, MS_2026 + 2);
    assert_true(get_be64(id.bytes) >> 16 == MS_2026 + 2);
}

static void snowflake_has_time_worker_and_sequence(void **state)
{
    (void)state;
    struct id_gen g;
    init(&g, 1023);
    (void)id_gen_snowflake(&g, INT64_C(1577836800000) + 5);
    struct ferry_id id = id_gen_snowflake(&g, INT64_C(1577836800000) + 5);
    assert_true(get_be64(id.bytes) == 0);
    assert_true(get_be64(id.bytes + 8) == (UINT64_C(5) << 22 | 1023u << 12 | 1u));
}

static void a_worker_past_the_last_is_refused(void **state)
{
    (void)state;
    struct id_gen g;
    assert_int_equal(id_gen_init(&g, ID_WORKERS_MAX), FERRY_ERR_INVALID_ARGUMENT);
}

static void two_generators_differ(void **state)
{
    (void)state;
    struct id_gen a;
    struct id_gen b;
    init(&a, 0);
    init(&b, 0);
    struct ferry_id x = id_gen_uuid7(&a, MS_2026);
    struct ferry_id y = id_gen_uuid7(&b, MS_2026);
    assert_false(id_equal(&x, &y));
    x = id_random(&a);
    y = id_random(&a);
    assert_false(id_equal(&x, &y));
    assert_true(id_equal(&x, &x));
}

static void text_and_back_is_the_same(void **state)
{
    (void)state;
    struct id_gen g;
    init(&g, 0);
    for (int i = 0; i < 1000; i++) {
        char text[ID_TEXT_BYTES];
        struct ferry_id id = id_random(&g);
        struct ferry_id back = {0};
        id_format(&id, text);
        assert_int_equal(strlen(text), 36);
        assert_true(id_parse(text, &back));
        assert_true(id_equal(&id, &back));
    }
}

static void the_text_is_the_usual_one_and_capitals_are_read(void **state)
{
    (void)state;
    char text[FERRY_ID_TEXT_BYTES];
    struct ferry_id id;
    assert_true(ferry_id_parse("017F22E2-79B0-7CC3-98C4-DC0C0C07398F", &id));
    ferry_id_format(&id, text);
    assert_string_equal(text, "017f22e2-79b0-7cc3-98c4-dc0c0c07398f");
}

static void what_is_not_an_id_is_refused_and_nothing_written(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "0",
                                      "017f22e2",
                                      "017f22e279b07cc398c4dc0c0c07398f",
                                      "017f22e2-79b0-7cc3-98c4-dc0c0c07398",
                                      "017f22e2-79b0-7cc3-98c4-dc0c0c07398f0",
                                      "017f22e2-79b0-7cc3-98c4-dc0c0c07398g",
                                      "017f22e2 79b0-7cc3-98c4-dc0c0c07398f",
                                      "-17f22e2-79b0-7cc3-98c4-dc0c0c07398f",
                                      "{17f22e2-79b0-7cc3-98c4-dc0c0c07398}"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct ferry_id id = {0};
        assert_false(ferry_id_parse(bad[i], &id));
        assert_true(id_is_zero(&id));
    }
    struct ferry_id id = {0};
    assert_false(ferry_id_parse(NULL, &id));
}

static void only_all_zero_bytes_are_zero(void **state)
{
    (void)state;
    struct ferry_id id = {0};
    assert_true(id_is_zero(&id));
    for (size_t i = 0; i < 16; i++) {
        id.bytes[i] = 1;
        assert_false(id_is_zero(&id));
        id.bytes[i] = 0;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(uuid7_rises_strictly_whatever_the_clock_does),
        cmocka_unit_test(snowflake_rises_strictly_whatever_the_clock_does),
        cmocka_unit_test(uuid7_has_the_layout_of_rfc_9562),
        cmocka_unit_test(a_full_millisecond_borrows_the_next),
        cmocka_unit_test(snowflake_has_time_worker_and_sequence),
        cmocka_unit_test(a_worker_past_the_last_is_refused),
        cmocka_unit_test(two_generators_differ),
        cmocka_unit_test(text_and_back_is_the_same),
        cmocka_unit_test(the_text_is_the_usual_one_and_capitals_are_read),
        cmocka_unit_test(what_is_not_an_id_is_refused_and_nothing_written),
        cmocka_unit_test(only_all_zero_bytes_are_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
