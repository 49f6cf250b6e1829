/* Histories of timelines. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "outbox/postgresql/timeline.h"

static const char three[] = "1\t0/3000148\tno recovery target specified\n"
                            "\n"
                            "# a comment\n"
                            "2\tA/FF\tbefore 2000-01-01 00:00:00+00\n";

/* Each timeline of the history ends at its branch, or at one before. */
static void a_history_names_its_branches(void **state)
{
    (void)state;
    uint64_t place = 0;
    assert_true(timeline_left_at(three, 1, &place));
    assert_int_equal(place, 0x3000148);
    assert_true(timeline_left_at(three, 2, &place));
    assert_int_equal(place, UINT64_C(0xA000000FF));
    assert_false(timeline_left_at(three, 3, &place));
    assert_true(timeline_left_at("1 0/10 x\n2 0/8 x", 1, &place));
    assert_int_equal(place, 8);
}

/* What is no history allows nothing. */
static void what_is_no_history_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "1",
                                      "1\t0",
                                      "1\t0/",
                                      "1\t/5\tx",
                                      "1\t0/5x",
                                      "1\t0/5\tx\ny\n",
                                      "-1\t0/5\tx",
                                      "1\t0/100000000\tx"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        uint64_t place = 0;
        assert_false(timeline_left_at(bad[i], 1, &place));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_history_names_its_branches),
        cmocka_unit_test(what_is_no_history_is_refused),
    };
    cmocka_set_test_filter(getenv("FERRY_TEST"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
