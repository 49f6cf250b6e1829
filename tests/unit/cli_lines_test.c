/* Lines and lists of ids. The sources under test are included; see cli_args_test.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "base/prng.h"
#include "cli/id_list.c"
#include "cli/lines.c"

/* ---- Lines ---------------------------------------------------------------------------------- */

static int file_of(const char *text, size_t bytes)
{
    FILE *f = tmpfile();
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, bytes, f), bytes);
    assert_int_equal(fflush(f), 0);
    int fd = dup(fileno(f));
    fclose(f);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    return fd;
}

/* The next line or its fate, reading as needed. */
static enum lines_next next(struct lines *l, struct bytes *line)
{
    enum lines_next what;
    while ((what = lines_next(l, line)) == LINES_MORE) {
        assert_int_equal(lines_fill(l), FERRY_OK);
    }
    return what;
}

static void assert_line(struct lines *l, const char *want)
{
    struct bytes line;
    assert_int_equal(next(l, &line), LINES_LINE);
    assert_int_equal(line.size, strlen(want));
    assert_memory_equal(line.data, want, line.size);
}

static void open_lines(struct lines *l, const char *text, size_t max)
{
    lines_init(l, file_of(text, strlen(text)), max);
}

static void close_lines(struct lines *l)
{
    close(l->fd);
    lines_fini(l);
}

static void an_empty_line_is_a_line_and_the_last_needs_no_newline(void **state)
{
    (void)state;
    struct lines l;
    struct bytes line;
    open_lines(&l, "a\n\nlast", 100);
    assert_line(&l, "a");
    assert_line(&l, "");
    assert_line(&l, "last");
    assert_int_equal(next(&l, &line), LINES_END);
    assert_int_equal(l.number, 3);
    close_lines(&l);
}

static void a_file_that_ends_with_a_newline_has_no_line_after_it(void **state)
{
    (void)state;
    struct lines l;
    struct bytes line;
    open_lines(&l, "a\n", 100);
    assert_line(&l, "a");
    assert_int_equal(next(&l, &line), LINES_END);
    close_lines(&l);
    open_lines(&l, "", 100);
    assert_int_equal(next(&l, &line), LINES_END);
    close_lines(&l);
}

static void a_line_over_the_limit_is_told_and_the_next_one_is_whole(void **state)
{
    (void)state;
    struct lines l;
    struct bytes line;
    open_lines(&l, "1234\n12345\nok\n123456", 4);
    assert_line(&l, "1234");
    assert_int_equal(next(&l, &line), LINES_TOO_LONG);
    assert_line(&l, "ok");
    assert_int_equal(next(&l, &line), LINES_TOO_LONG);
    assert_int_equal(next(&l, &line), LINES_END);
    assert_int_equal(l.number, 4);
    close_lines(&l);
}

/* Much longer than one read: the buffer must not grow with the line. */
static void a_line_of_many_reads_over_the_limit_takes_no_memory(void **state)
{
    (void)state;
    enum { BYTES = 4 << 20 };
    struct lines l;
    struct bytes line;
    char *text = mem_alloc(BYTES + 4);
    assert_non_null(text);
    memset(text, 'x', BYTES);
    memcpy(text + BYTES, "\nok\n", 4);
    lines_init(&l, file_of(text, BYTES + 4), 1000);
    assert_int_equal(next(&l, &line), LINES_TOO_LONG);
    assert_line(&l, "ok");
    assert_int_equal(next(&l, &line), LINES_END);
    assert_true(l.capacity <= 4 * READ_BYTES);
    mem_free(text);
    close_lines(&l);
}

static void lines_across_reads_come_out_whole(void **state)
{
    (void)state;
    enum { COUNT = 3000, SIZE = 1000 };
    char *text = mem_alloc((size_t)COUNT * SIZE);
    assert_non_null(text);
    for (size_t i = 0; i < COUNT; i++) {
        memset(text + i * SIZE, 'a' + (int)(i % 26), SIZE - 1);
        text[i * SIZE + SIZE - 1] = '\n';
    }
    struct lines l;
    struct bytes line;
    lines_init(&l, file_of(text, (size_t)COUNT * SIZE), 1 << 20);
    for (size_t i = 0; i < COUNT; i++) {
        assert_int_equal(next(&l, &line), LINES_LINE);
        assert_int_equal(line.size, SIZE - 1);
        assert_memory_equal(line.data, text + i * SIZE, SIZE - 1);
    }
    assert_int_equal(next(&l, &line), LINES_END);
    mem_free(text);
    close_lines(&l);
}

static void a_file_that_cannot_be_read_is_an_error(void **state)
{
    (void)state;
    struct lines l;
    lines_init(&l, -1, 100);
    assert_int_equal(lines_fill(&l), FERRY_ERR_IO);
    lines_fini(&l);
}

/* ---- Ids ------------------------------------------------------------------------------------ */

static struct ferry_id id_of(uint64_t n)
{
    struct ferry_id id = {{0}};
    put_be64(id.bytes, n * UINT64_C(0x9e3779b97f4a7c15));
    put_be64(id.bytes + 8, n);
    return id;
}

static void add(struct id_list *l, uint64_t n)
{
    struct ferry_id id = id_of(n);
    assert_true(id_list_add(l, &id));
}

struct told {
    uint64_t sum;
    size_t count;
};

static void tell_id(const struct ferry_id *id, void *arg)
{
    struct told *told = arg;
    told->sum += get_be64(id->bytes + 8);
    told->count++;
}

static void missing_repeated_and_shared_ids_are_each_told_once(void **state)
{
    (void)state;
    struct id_list a = {0}, b = {0};
    struct told told = {0};
    static const uint64_t in_a[] = {5, 1, 9, 5, 7, 5}, in_b[] = {7, 2, 5, 7};
    for (size_t i = 0; i < 6; i++) {
        add(&a, in_a[i]);
    }
    for (size_t i = 0; i < 4; i++) {
        add(&b, in_b[i]);
    }
    id_list_sort(&a);
    id_list_sort(&b);
    assert_int_equal(id_list_missing(&a, &b, tell_id, &told), 2); /* 1 and 9 */
    assert_int_equal(told.sum, 10);
    told = (struct told){0};
    assert_int_equal(id_list_missing(&b, &a, tell_id, &told), 1); /* 2 */
    assert_int_equal(id_list_repeated(&a, tell_id, &told), 1);    /* 5 */
    assert_int_equal(id_list_repeated(&b, tell_id, &told), 1);    /* 7 */
    assert_int_equal(told.sum, 14);
    assert_int_equal(id_list_shared(&a, &b, tell_id, &told), 2); /* 5 and 7 */
    assert_int_equal(id_list_distinct(&a), 4);
    struct ferry_id there = id_of(9), gone = id_of(10);
    assert_true(id_list_has(&a, &there));
    assert_false(id_list_has(&a, &gone));
    id_list_fini(&a);
    id_list_fini(&b);
}

static void empty_lists_compare(void **state)
{
    (void)state;
    struct id_list empty = {0}, one = {0};
    struct told told = {0};
    add(&one, 1);
    id_list_sort(&one);
    id_list_sort(&empty);
    assert_int_equal(id_list_missing(&empty, &one, tell_id, &told), 0);
    assert_int_equal(id_list_missing(&one, &empty, tell_id, &told), 1);
    assert_int_equal(id_list_repeated(&empty, tell_id, &told), 0);
    id_list_fini(&one);
}

/* Against the naive twin: a count for each number. */
static void random_lists_agree_with_counting(void **state)
{
    (void)state;
    enum { RANGE = 200, ROUNDS = 50 };
    struct prng prng;
    printf("seed 7\n");
    prng_init(&prng, 7);
    for (int round = 0; round < ROUNDS; round++) {
        struct id_list a = {0}, b = {0};
        size_t in_a[RANGE] = {0}, in_b[RANGE] = {0}, missing = 0, repeated = 0, shared = 0;
        for (int i = 0; i < RANGE; i++) {
            uint64_t x = prng_below(&prng, RANGE), y = prng_below(&prng, RANGE);
            add(&a, x);
            add(&b, y);
            in_a[x]++;
            in_b[y]++;
        }
        for (int i = 0; i < RANGE; i++) {
            missing += in_a[i] > 0 && in_b[i] == 0;
            repeated += in_a[i] > 1;
            shared += in_a[i] > 0 && in_b[i] > 0;
        }
        struct told told = {0};
        id_list_sort(&a);
        id_list_sort(&b);
        assert_int_equal(id_list_missing(&a, &b, tell_id, &told), missing);
        assert_int_equal(id_list_repeated(&a, tell_id, &told), repeated);
        assert_int_equal(id_list_shared(&a, &b, tell_id, &told), shared);
        assert_int_equal(told.count, missing + repeated + shared);
        id_list_fini(&a);
        id_list_fini(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_line_is_a_line_and_the_last_needs_no_newline),
        cmocka_unit_test(a_file_that_ends_with_a_newline_has_no_line_after_it),
        cmocka_unit_test(a_line_over_the_limit_is_told_and_the_next_one_is_whole),
        cmocka_unit_test(a_line_of_many_reads_over_the_limit_takes_no_memory),
        cmocka_unit_test(lines_across_reads_come_out_whole),
        cmocka_unit_test(a_file_that_cannot_be_read_is_an_error),
        cmocka_unit_test(missing_repeated_and_shared_ids_are_each_told_once),
        cmocka_unit_test(empty_lists_compare),
        cmocka_unit_test(random_lists_agree_with_counting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
