/* Rows: what is pending over what the store has. Each test has a store in a folder of its own. */
#include "store_fixture.h"

#include "base/mem.h"
#include "partition/rows.h"

#define GROUP 7u
#define TABLE 9u

static void put(struct rows *t, const char *key, const char *value)
{
    assert_int_equal(rows_put(t, bytes_of_string(key), bytes_of_string(value)), FERRY_OK);
}

static void drop(struct rows *t, const char *key)
{
    assert_int_equal(rows_delete(t, bytes_of_string(key)), FERRY_OK);
}

static void flush(struct rows *t, struct store *s)
{
    assert_int_equal(store_begin(s), FERRY_OK);
    assert_int_equal(rows_flush(t, s, GROUP), FERRY_OK);
    assert_int_equal(store_commit(s), FERRY_OK);
    assert_int_equal(rows_pending(t), 0);
    assert_int_equal(t->pending_bytes, 0);
}

/* NULL: the key must not be there. */
static void expect(struct rows *t, struct store *s, const char *key, const char *value)
{
    bool found;
    struct bytes got;
    assert_int_equal(store_read_begin(s), FERRY_OK);
    assert_int_equal(rows_get(t, s, GROUP, bytes_of_string(key), &found, &got), FERRY_OK);
    assert_int_equal(found, value != NULL);
    assert_true(value == NULL || bytes_equal(got, bytes_of_string(value)));
    store_read_end(s);
}

struct walk {
    char text[512];
    uint32_t stop_after; /* 0: never. */
    uint32_t seen;
    enum ferry_err err;
};

static enum ferry_err note(struct bytes key, struct bytes value, bool *stop, void *arg)
{
    struct walk *w = arg;
    size_t used = strlen(w->text);
    (void)snprintf(w->text + used, sizeof(w->text) - used, "%.*s=%.*s ", (int)key.size,
                   (const char *)key.data, (int)value.size, (const char *)value.data);
    *stop = ++w->seen == w->stop_after;
    return w->err;
}

static void expect_walk(struct rows *t, struct store *s, const char *from, uint32_t stop_after,
                        const char *text)
{
    struct walk w = {.stop_after = stop_after};
    assert_int_equal(store_read_begin(s), FERRY_OK);
    assert_int_equal(rows_each(t, s, GROUP, bytes_of_string(from), note, &w), FERRY_OK);
    store_read_end(s);
    assert_string_equal(w.text, text);
}

/* What is pending counts, then what the store has; a tombstone hides it. */
static void pending_changes_hide_what_the_store_has(void **state)
{
    struct fixture *f = *state;
    fixture_open(f);
    struct rows t;
    rows_init(&t, TABLE);
    put(&t, "a", "1");
    put(&t, "b", "2");
    expect(&t, f->store, "a", "1");
    flush(&t, f->store);
    expect(&t, f->store, "a", "1");
    put(&t, "a", "3");
    drop(&t, "b");
    expect(&t, f->store, "a", "3");
    expect(&t, f->store, "b", NULL);
    expect(&t, f->store, "c", NULL);
    flush(&t, f->store);
    expect(&t, f->store, "a", "3");
    expect(&t, f->store, "b", NULL);
    rows_fini(&t);
}

/* A walk gives both in key order, each key once, from where it is told, until it is stopped. */
static void a_walk_merges_both_in_key_order(void **state)
{
    struct fixture *f = *state;
    fixture_open(f);
    struct rows t;
    rows_init(&t, TABLE);
    put(&t, "b", "1");
    put(&t, "d", "1");
    put(&t, "f", "1");
    put(&t, "ff", "1");
    flush(&t, f->store);
    put(&t, "a", "2");
    put(&t, "d", "2");
    drop(&t, "f");
    drop(&t, "x");
    put(&t, "z", "2");
    put(&t, "", "2");
    expect_walk(&t, f->store, "", 0, "=2 a=2 b=1 d=2 ff=1 z=2 ");
    expect_walk(&t, f->store, "d", 0, "d=2 ff=1 z=2 ");
    expect_walk(&t, f->store, "", 1, "=2 ");
    expect_walk(&t, f->store, "a", 2, "a=2 b=1 ");
    expect_walk(&t, f->store, "b", 2, "b=1 d=2 ");
    expect_walk(&t, f->store, "zz", 0, "");
    rows_fini(&t);
}

/* The callback's error ends the walk, whichever half the row is of. */
static void a_walk_returns_the_callbacks_error(void **state)
{
    struct fixture *f = *state;
    fixture_open(f);
    struct rows t;
    rows_init(&t, TABLE);
    put(&t, "b", "1");
    for (int i = 0; i < 2; i++) {
        struct walk w = {.err = FERRY_ERR_CORRUPT};
        assert_int_equal(store_read_begin(f->store), FERRY_OK);
        assert_int_equal(rows_each(&t, f->store, GROUP, bytes_of(NULL, 0), note, &w),
                         FERRY_ERR_CORRUPT);
        store_read_end(f->store);
        assert_string_equal(w.text, "b=1 ");
        flush(&t, f->store);
    }
    rows_fini(&t);
}

/* A table without rows on disk asks the store for nothing and keeps no tombstones. */
static void a_delete_of_what_was_never_flushed_leaves_nothing(void **state)
{
    (void)state;
    struct rows t;
    rows_init(&t, TABLE);
    put(&t, "a", "1");
    drop(&t, "a");
    drop(&t, "b");
    assert_int_equal(rows_pending(&t), 0);
    assert_int_equal(t.pending_bytes, 0);
    bool found;
    struct bytes value;
    assert_int_equal(rows_get(&t, NULL, GROUP, bytes_of_string("a"), &found, &value), FERRY_OK);
    assert_false(found);
    rows_fini(&t);
}

/* Loading forgets what was pending and finds out whether there are rows. */
static void load_takes_what_the_store_has(void **state)
{
    struct fixture *f = *state;
    fixture_open(f);
    struct rows t;
    rows_init(&t, TABLE);
    put(&t, "a", "1");
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    assert_int_equal(rows_load(&t, f->store, GROUP), FERRY_OK);
    store_read_end(f->store);
    assert_false(t.disk_has_rows);
    expect(&t, f->store, "a", NULL);
    put(&t, "a", "2");
    flush(&t, f->store);
    rows_fini(&t);
    rows_init(&t, TABLE);
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    assert_int_equal(rows_load(&t, f->store, GROUP), FERRY_OK);
    store_read_end(f->store);
    assert_true(t.disk_has_rows);
    expect(&t, f->store, "a", "2");
    rows_fini(&t);
}

/* Whoever proposes is told when a flush is due, by count and by bytes. */
static void full_is_told_by_count_and_by_bytes(void **state)
{
    (void)state;
    struct rows t;
    rows_init(&t, TABLE);
    for (uint32_t i = 0; i < ROWS_PENDING_MAX; i++) {
        assert_false(rows_is_full(&t));
        assert_int_equal(rows_put(&t, bytes_of(&i, sizeof(i)), bytes_of(NULL, 0)), FERRY_OK);
    }
    assert_true(rows_is_full(&t));
    rows_fini(&t);
    rows_init(&t, TABLE);
    uint8_t *large = calloc(1, ROWS_PENDING_MAX_BYTES);
    assert_non_null(large);
    assert_int_equal(
        rows_put(&t, bytes_of_string("k"), bytes_of(large, ROWS_PENDING_MAX_BYTES / 2)), FERRY_OK);
    assert_false(rows_is_full(&t));
    assert_int_equal(
        rows_put(&t, bytes_of_string("l"), bytes_of(large, ROWS_PENDING_MAX_BYTES / 2)), FERRY_OK);
    assert_true(rows_is_full(&t));
    free(large);
    rows_fini(&t);
}

/* Each allocation fails once in turn: the table is then as before, or as after. */
static void a_failed_allocation_leaves_the_table_as_it_was(void **state)
{
    struct fixture *f = *state;
    fixture_open(f);
    struct rows t;
    rows_init(&t, TABLE);
    put(&t, "a", "old");
    for (long n = 1; n <= 2; n++) {
        mem_test_fail_after(n);
        enum ferry_err err = rows_put(&t, bytes_of_string("a"), bytes_of_string("new"));
        mem_test_fail_after(0);
        expect(&t, f->store, "a", err == FERRY_OK ? "new" : "old");
    }
    mem_test_fail_after(1);
    struct walk w = {.seen = 0};
    assert_int_equal(rows_each(&t, f->store, GROUP, bytes_of(NULL, 0), note, &w),
                     FERRY_ERR_NO_MEMORY);
    mem_test_fail_after(0);
    rows_fini(&t);
}

/* ---- Against a naive twin ---- */

#define KEYS  40
#define STEPS 3000

struct twin {
    uint32_t versions[KEYS]; /* 0: not there. */
    int next;                /* Of a walk: the first key that it has not passed. */
};

static struct bytes twin_key(char buffer[16], int k)
{
    /* Ascending, some prefixes of the next. */
    (void)snprintf(buffer, 16, "%02d%.*s", k / 4, k % 4, "kkkk");
    return bytes_of_string(buffer);
}

static struct bytes twin_value(uint8_t buffer[3000], uint32_t version)
{
    size_t size = version % 9 == 0 ? version % 3000 : version % 20;
    payload_fill(buffer, size, 1, version);
    return bytes_of(buffer, size);
}

static enum ferry_err compare_next(struct bytes key, struct bytes value, bool *stop, void *arg)
{
    struct twin *twin = arg;
    char buffer[16];
    uint8_t expected[3000];
    (void)stop;
    while (twin->next < KEYS && twin->versions[twin->next] == 0) {
        twin->next++;
    }
    assert_true(twin->next < KEYS);
    assert_true(bytes_equal(key, twin_key(buffer, twin->next)));
    assert_true(bytes_equal(value, twin_value(expected, twin->versions[twin->next])));
    twin->next++;
    return FERRY_OK;
}

static void compare_all(struct rows *t, struct store *s, struct twin *twin, int from)
{
    char buffer[16];
    uint8_t expected[3000];
    bool found;
    struct bytes value;
    assert_int_equal(store_read_begin(s), FERRY_OK);
    twin->next = from;
    assert_int_equal(rows_each(t, s, GROUP, twin_key(buffer, from), compare_next, twin), FERRY_OK);
    for (; twin->next < KEYS; twin->next++) {
        assert_int_equal(twin->versions[twin->next], 0);
    }
    for (int k = 0; k < KEYS; k++) {
        assert_int_equal(rows_get(t, s, GROUP, twin_key(buffer, k), &found, &value), FERRY_OK);
        assert_int_equal(found, twin->versions[k] != 0);
        assert_true(!found || bytes_equal(value, twin_value(expected, twin->versions[k])));
    }
    store_read_end(s);
}

static void random_step(struct rows *t, struct store *s, struct twin *twin, struct prng *p,
                        uint32_t version)
{
    char buffer[16];
    uint8_t value[3000];
    int k = (int)prng_below(p, KEYS);
    uint64_t what = prng_below(p, 100);
    if (what < 50) {
        assert_int_equal(rows_put(t, twin_key(buffer, k), twin_value(value, version)), FERRY_OK);
        twin->versions[k] = version;
    } else if (what < 90) {
        assert_int_equal(rows_delete(t, twin_key(buffer, k)), FERRY_OK);
        twin->versions[k] = 0;
    } else {
        flush(t, s);
        if (what >= 97) {
            rows_fini(t);
            rows_init(t, TABLE);
            assert_int_equal(store_read_begin(s), FERRY_OK);
            assert_int_equal(rows_load(t, s, GROUP), FERRY_OK);
            store_read_end(s);
        }
    }
}

/* Puts, deletes, flushes and loads in any order, compared after each. */
static void random_steps_leave_what_a_naive_twin_has(void **state)
{
    struct fixture *f = *state;
    fixture_open(f);
    uint64_t seed = 4711;
    print_message("seed %llu\n", (unsigned long long)seed);
    struct prng p;
    prng_init(&p, seed);
    struct rows t;
    rows_init(&t, TABLE);
    struct twin twin = {{0}, 0};
    for (uint32_t step = 1; step <= STEPS; step++) {
        random_step(&t, f->store, &twin, &p, step);
        compare_all(&t, f->store, &twin, (int)prng_below(&p, KEYS));
    }
    rows_fini(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        store_test(pending_changes_hide_what_the_store_has),
        store_test(a_walk_merges_both_in_key_order),
        store_test(a_walk_returns_the_callbacks_error),
        cmocka_unit_test(a_delete_of_what_was_never_flushed_leaves_nothing),
        store_test(load_takes_what_the_store_has),
        cmocka_unit_test(full_is_told_by_count_and_by_bytes),
        store_test(a_failed_allocation_leaves_the_table_as_it_was),
        store_test(random_steps_leave_what_a_naive_twin_has),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
