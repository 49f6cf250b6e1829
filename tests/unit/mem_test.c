/* Allocation: sizes are checked, and the n-th can be made to fail. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"

static void the_nth_allocation_fails_once(void **state)
{
    (void)state;
    mem_test_fail_after(3);
    void *first = mem_alloc(8);
    void *second = mem_zalloc(2, 8);
    void *third = mem_alloc(8);
    void *fourth = mem_alloc(8);
    assert_non_null(first);
    assert_non_null(second);
    assert_null(third);
    assert_non_null(fourth);
    mem_free(first);
    mem_free(second);
    mem_free(fourth);
}

static void zero_switches_the_failure_off(void **state)
{
    (void)state;
    mem_test_fail_after(1);
    mem_test_fail_after(0);
    void *p = mem_alloc(1);
    assert_non_null(p);
    mem_free(p);
}

static void every_kind_of_allocation_can_fail(void **state)
{
    (void)state;
    char *kept = mem_strdup("kept");
    assert_non_null(kept);
    mem_test_fail_after(1);
    assert_null(mem_zalloc(1, 1));
    mem_test_fail_after(1);
    assert_null(mem_strdup("x"));
    mem_test_fail_after(1);
    assert_null(mem_dup("x", 1));
    mem_test_fail_after(1);
    assert_null(mem_realloc(kept, 1000));
    assert_string_equal(kept, "kept");
    mem_free(kept);
}

static void no_bytes_are_still_an_allocation(void **state)
{
    (void)state;
    void *a = mem_alloc(0);
    void *b = mem_zalloc(0, 8);
    void *c = mem_dup(NULL, 0);
    assert_true(a != NULL && b != NULL && c != NULL);
    mem_free(a);
    mem_free(b);
    mem_free(c);
    mem_free(NULL);
}

static void a_product_past_the_address_space_is_refused(void **state)
{
    (void)state;
    assert_null(mem_zalloc(SIZE_MAX / 2, 3));
}

static void copies_are_equal_and_apart(void **state)
{
    (void)state;
    char text[] = "text";
    char *copy = mem_strdup(text);
    assert_non_null(copy);
    text[0] = 'T';
    assert_string_equal(copy, "text");
    mem_free(copy);
}

static void an_array_grows_by_doubling_and_keeps_its_elements(void **state)
{
    (void)state;
    uint32_t *items = NULL;
    size_t capacity = 0;
    for (uint32_t i = 0; i < 1000; i++) {
        assert_true(mem_grow((void **)&items, &capacity, i + 1, sizeof(*items)));
        items[i] = i;
    }
    assert_int_equal(capacity, 1024);
    for (uint32_t i = 0; i < 1000; i++) {
        assert_int_equal(items[i], i);
    }
    mem_free(items);
}

static void an_array_that_cannot_grow_is_unchanged(void **state)
{
    (void)state;
    uint64_t *items = NULL;
    size_t capacity = 0;
    assert_true(mem_grow((void **)&items, &capacity, 8, sizeof(*items)));
    uint64_t *before = items;
    mem_test_fail_after(1);
    assert_false(mem_grow((void **)&items, &capacity, 9, sizeof(*items)));
    assert_false(mem_grow((void **)&items, &capacity, SIZE_MAX / 4, sizeof(*items)));
    assert_false(mem_grow((void **)&items, &capacity, SIZE_MAX, sizeof(*items)));
    assert_ptr_equal(items, before);
    assert_int_equal(capacity, 8);
    mem_free(items);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_nth_allocation_fails_once),
        cmocka_unit_test(zero_switches_the_failure_off),
        cmocka_unit_test(every_kind_of_allocation_can_fail),
        cmocka_unit_test(no_bytes_are_still_an_allocation),
        cmocka_unit_test(a_product_past_the_address_space_is_refused),
        cmocka_unit_test(copies_are_equal_and_apart),
        cmocka_unit_test(an_array_grows_by_doubling_and_keeps_its_elements),
        cmocka_unit_test(an_array_that_cannot_grow_is_unchanged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
