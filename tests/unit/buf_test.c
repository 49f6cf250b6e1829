/* Bytes that grow to a limit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/mem.h"

static void what_is_appended_is_there_in_order(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 1000);
    buf_append(&b, "ab", 2);
    buf_append_u8(&b, 'c');
    buf_append_le32(&b, 0x04030201);
    buf_append_le64(&b, 0x0807060504030201);
    buf_append_bytes(&b, bytes_of_string("z"));
    buf_printf(&b, "%d", 42);
    static const uint8_t expected[] = "abc\1\2\3\4\1\2\3\4\5\6\7\10z42";
    assert_true(buf_ok(&b));
    assert_true(bytes_equal(buf_bytes(&b), bytes_of(expected, sizeof(expected) - 1)));
    buf_fini(&b);
    buf_fini(&b);
}

static void an_append_past_the_limit_changes_nothing_but_failed(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 4);
    buf_append(&b, "abc", 3);
    buf_append(&b, "de", 2);
    assert_false(buf_ok(&b));
    assert_true(bytes_equal(buf_bytes(&b), bytes_of("abc", 3)));
    /* Sticky: what would fit now must not stand behind a gap. */
    buf_append(&b, "d", 1);
    assert_int_equal(b.size, 3);
    buf_fini(&b);
}

static void exactly_the_limit_fits(void **state)
{
    (void)state;
    for (size_t limit = 0; limit < 700; limit += 7) {
        struct buf b;
        buf_init(&b, limit);
        for (size_t i = 0; i < limit; i++) {
            buf_append_u8(&b, (uint8_t)i);
        }
        assert_true(buf_ok(&b));
        assert_true(b.capacity <= limit);
        buf_append_u8(&b, 0);
        assert_false(buf_ok(&b));
        assert_int_equal(b.size, limit);
        buf_fini(&b);
    }
}

static void a_size_near_the_greatest_is_refused_or_out_of_memory(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, SIZE_MAX);
    buf_append_u8(&b, 1);
    assert_false(buf_reserve(&b, SIZE_MAX));
    buf_clear(&b);
    buf_append_u8(&b, 1);
    mem_test_fail_after(1);
    assert_false(buf_reserve(&b, SIZE_MAX - 1));
    mem_test_fail_after(0);
    assert_int_equal(b.size, 1);
    buf_fini(&b);
}

static void extending_by_nothing_gives_a_pointer(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 0);
    assert_non_null(buf_extend(&b, 0));
    buf_append(&b, NULL, 0);
    assert_true(buf_ok(&b));
    assert_null(buf_extend(&b, 1));
    buf_fini(&b);
}

static void clearing_keeps_the_memory_and_forgets_the_failure(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 10);
    buf_printf(&b, "%s", "longer than ten bytes");
    assert_false(buf_ok(&b));
    assert_int_equal(b.size, 0);
    buf_clear(&b);
    buf_printf(&b, "%s", "nine byte");
    assert_true(buf_ok(&b));
    assert_int_equal(b.size, 9);
    const uint8_t *data = b.data;
    buf_clear(&b);
    assert_ptr_equal(b.data, data);
    buf_fini(&b);
}

static void no_memory_is_a_failure_like_the_limit(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 100);
    mem_test_fail_after(1);
    buf_append(&b, "a", 1);
    assert_false(buf_ok(&b));
    assert_int_equal(b.size, 0);
    buf_fini(&b);
}

static void stolen_memory_is_the_callers(void **state)
{
    (void)state;
    struct buf b;
    size_t size = 0;
    buf_init(&b, 100);
    buf_append(&b, "mine", 4);
    uint8_t *data = buf_steal(&b, &size);
    assert_int_equal(size, 4);
    assert_memory_equal(data, "mine", 4);
    assert_int_equal(b.size, 0);
    assert_int_equal(b.limit, 100);
    mem_free(data);
    buf_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_appended_is_there_in_order),
        cmocka_unit_test(an_append_past_the_limit_changes_nothing_but_failed),
        cmocka_unit_test(exactly_the_limit_fits),
        cmocka_unit_test(a_size_near_the_greatest_is_refused_or_out_of_memory),
        cmocka_unit_test(extending_by_nothing_gives_a_pointer),
        cmocka_unit_test(clearing_keeps_the_memory_and_forgets_the_failure),
        cmocka_unit_test(no_memory_is_a_failure_like_the_limit),
        cmocka_unit_test(stolen_memory_is_the_callers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
