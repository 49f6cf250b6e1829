/* The table of errors: one row each, nothing unknown without an answer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/err.h"

static void every_error_has_a_name_a_text_and_a_class(void **state)
{
    (void)state;
#define CHECK(name_, number, class_, text_)                                                        \
    assert_int_equal(FERRY_ERR_##name_, number);                                                   \
    assert_string_equal(ferry_err_name(FERRY_ERR_##name_), #name_);                                \
    assert_string_equal(ferry_err_text(FERRY_ERR_##name_), text_);                                 \
    assert_int_equal(ferry_err_class(FERRY_ERR_##name_), FERRY_CLASS_##class_);                    \
    assert_true(err_is_known(number));
    FERRY_ERR_MAP(CHECK)
#undef CHECK
}

/* Numbers travel: two rows of one number would be two meanings of one frame. */
static void no_number_is_used_twice(void **state)
{
    (void)state;
    static const int numbers[] = {
#define NUMBER(name, number, class_, text) number,
        FERRY_ERR_MAP(NUMBER)
#undef NUMBER
    };
    size_t count = sizeof(numbers) / sizeof(numbers[0]);
    for (size_t i = 0; i < count; i++) {
        assert_int_not_equal(numbers[i], 0);
        for (size_t j = 0; j < i; j++) {
            assert_int_not_equal(numbers[i], numbers[j]);
        }
    }
}

static void retriable_are_the_classes_retriable_and_throttled(void **state)
{
    (void)state;
    assert_true(ferry_err_is_retriable(FERRY_ERR_NO_MEMORY));
    assert_false(ferry_err_is_retriable(FERRY_OK));
    assert_false(ferry_err_is_retriable(FERRY_ERR_BAD_NAME));
    assert_false(ferry_err_is_retriable(FERRY_ERR_IO));
}

static void a_number_of_a_newer_version_is_fatal_and_has_a_text(void **state)
{
    (void)state;
    assert_false(err_is_known(60000));
    assert_string_equal(ferry_err_name((enum ferry_err)60000), "UNKNOWN_ERROR");
    assert_non_null(strstr(ferry_err_text((enum ferry_err)60000), "upgrade"));
    assert_int_equal(ferry_err_class((enum ferry_err)60000), FERRY_CLASS_FATAL);
}

static void success_is_known_and_no_error(void **state)
{
    (void)state;
    assert_true(err_is_known(0));
    assert_string_equal(ferry_err_name(FERRY_OK), "OK");
    assert_int_equal(ferry_err_class(FERRY_OK), FERRY_CLASS_NONE);
}

static void a_detail_is_written_and_the_error_returned(void **state)
{
    (void)state;
    struct err_text e = {"before"};
    assert_int_equal(err_set(&e, FERRY_ERR_IO, "%s: %d", "file", 7), FERRY_ERR_IO);
    assert_string_equal(e.text, "file: 7");
    assert_int_equal(err_set(NULL, FERRY_ERR_IO, "nobody asks"), FERRY_ERR_IO);
}

static void a_detail_too_long_is_cut(void **state)
{
    (void)state;
    struct err_text e;
    assert_int_equal(err_set(&e, FERRY_ERR_IO, "%0*d", ERR_TEXT_MAX * 2, 1), FERRY_ERR_IO);
    assert_int_equal(strlen(e.text), ERR_TEXT_MAX - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_error_has_a_name_a_text_and_a_class),
        cmocka_unit_test(no_number_is_used_twice),
        cmocka_unit_test(retriable_are_the_classes_retriable_and_throttled),
        cmocka_unit_test(a_number_of_a_newer_version_is_fatal_and_has_a_text),
        cmocka_unit_test(success_is_known_and_no_error),
        cmocka_unit_test(a_detail_is_written_and_the_error_returned),
        cmocka_unit_test(a_detail_too_long_is_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
