/* The store against a naive twin: random turns, compared after each; seeds are printed. */
#include "store_fixture.h"

#define GROUPS  5
#define TABLES  2
#define KEYS    12
#define LOG_MAX 400
#define TURNS   250
#define SEEDS   4

struct twin_group {
    uint64_t first, last;        /* 0: no entries. */
    size_t sizes[LOG_MAX];       /* By index % LOG_MAX. */
    uint64_t marks;              /* term of the group row; 0: no row. */
    uint32_t rows[TABLES][KEYS]; /* Version of the value; 0: not there. */
};

struct twin {
    struct twin_group groups[GROUPS];
    uint32_t version;
};

/* Ids far apart and neighbours, and both ends. */
static const uint64_t ids[GROUPS] = {0, 1, 2, 0x0100000000000000u, UINT64_MAX};

static struct bytes row_key(uint8_t buffer[STORE_KEY_MAX_BYTES], size_t k)
{
    /* Lengths 0, 1, 2, …: keys that are prefixes of others. */
    memset(buffer, 'k', STORE_KEY_MAX_BYTES);
    return bytes_of(buffer, k == KEYS - 1 ? STORE_KEY_MAX_BYTES : k);
}

static struct bytes row_value(uint8_t buffer[5000], uint32_t version)
{
    payload_fill(buffer, version % 5000 % (version % 7 == 0 ? 5000 : 60), 77, version);
    return bytes_of(buffer, version % 5000 % (version % 7 == 0 ? 5000 : 60));
}

/* ---- Steps, done to both ---- */

static void step_append(struct store *s, struct twin *t, size_t g, struct prng *p)
{
    struct twin_group *tg = &t->groups[g];
    uint64_t count = 1 + prng_below(p, 8);
    for (uint64_t i = 0; i < count; i++) {
        if (tg->first != 0 && tg->last - tg->first + 1 >= LOG_MAX) {
            return;
        }
        uint64_t index = tg->last + 1;
        if (tg->first == 0) {
            index += prng_below(p, 5);
            tg->first = index;
        }
        size_t size = (size_t)(prng_below(p, 4) == 0 ? prng_below(p, 30000) : prng_below(p, 300));
        append_in_turn(s, ids[g], index, size);
        tg->sizes[index % LOG_MAX] = size;
        tg->last = index;
    }
}

static void step_trim(struct store *s, struct twin *t, size_t g, struct prng *p)
{
    struct twin_group *tg = &t->groups[g];
    uint32_t deleted;
    uint64_t bytes;
    uint64_t have = tg->first == 0 ? 0 : tg->last - tg->first + 1;
    uint64_t wish = prng_below(p, have + 3);
    uint32_t most = (uint32_t)prng_below(p, 60);
    assert_int_equal(
        store_delete_entries(s, ids[g], tg->first, tg->first + wish, most, &deleted, &bytes),
        FERRY_OK);
    uint64_t expected = wish + 1 < have ? wish + 1 : have;
    expected = expected < most ? expected : most;
    assert_int_equal(deleted, expected);
    for (uint64_t i = 0; i < expected; i++) {
        bytes -= tg->sizes[(tg->first + i) % LOG_MAX] + 48;
    }
    assert_int_equal(bytes, 0);
    tg->first = expected == have ? 0 : tg->first + expected;
}

static void step_truncate(struct store *s, struct twin *t, size_t g, struct prng *p)
{
    struct twin_group *tg = &t->groups[g];
    uint32_t deleted;
    uint64_t have = tg->first == 0 ? 0 : tg->last - tg->first + 1;
    uint64_t drop = prng_below(p, 10);
    uint32_t most = (uint32_t)prng_below(p, 8);
    if (tg->last < drop + 1) {
        return;
    }
    uint64_t from = tg->last - drop;
    assert_int_equal(store_truncate(s, ids[g], from, most, &deleted), FERRY_OK);
    uint64_t expected = drop + 1 < have ? drop + 1 : have;
    expected = expected < most ? expected : most;
    assert_int_equal(deleted, expected);
    tg->last -= expected;
    tg->first = expected == have ? 0 : tg->first;
}

static void step_row(struct store *s, struct twin *t, size_t g, struct prng *p)
{
    uint8_t key[STORE_KEY_MAX_BYTES];
    uint8_t value[5000];
    size_t table = (size_t)prng_below(p, TABLES);
    size_t k = (size_t)prng_below(p, KEYS);
    uint32_t version = prng_below(p, 3) == 0 ? 0 : ++t->version;
    t->groups[g].rows[table][k] = version;
    if (version == 0) {
        assert_int_equal(store_delete(s, ids[g], (uint8_t)(table + 1), row_key(key, k)), FERRY_OK);
        return;
    }
    assert_int_equal(
        store_put(s, ids[g], (uint8_t)(table + 1), row_key(key, k), row_value(value, version)),
        FERRY_OK);
}

static void step_rows_away(struct store *s, struct twin *t, size_t g, struct prng *p)
{
    uint32_t deleted;
    uint32_t most = (uint32_t)prng_below(p, 10);
    uint8_t table = (uint8_t)prng_below(p, TABLES + 1);
    uint32_t expected = 0;
    for (size_t i = 0; i < TABLES * KEYS; i++) {
        uint32_t *row = &t->groups[g].rows[i / KEYS][i % KEYS];
        if ((table == 0 || table == i / KEYS + 1) && *row != 0 && expected < most) {
            *row = 0;
            expected++;
        }
    }
    assert_int_equal(store_delete_rows(s, ids[g], table, most, &deleted), FERRY_OK);
    assert_int_equal(deleted, expected);
}

static void step_group(struct store *s, struct twin *t, size_t g, struct prng *p)
{
    uint64_t term = prng_below(p, 4);
    t->groups[g].marks = term;
    struct store_group row = {.group = ids[g], .term = term, .vote = 3};
    assert_int_equal(term == 0 ? store_delete_group(s, ids[g]) : store_put_group(s, &row),
                     FERRY_OK);
}

static void random_turn(struct store *s, struct twin *t, struct prng *p)
{
    static void (*const steps[])(struct store *, struct twin *, size_t, struct prng *) = {
        step_append, step_append, step_append, step_trim,      step_truncate,
        step_row,    step_row,    step_row,    step_rows_away, step_group};
    uint64_t count = prng_below(p, 12);
    for (uint64_t i = 0; i < count; i++) {
        size_t g = (size_t)prng_below(p, GROUPS);
        steps[prng_below(p, 10)](s, t, g, p);
    }
}

/* ---- Comparing ---- */

static void compare_log(struct store *s, const struct twin_group *tg, uint64_t group, bool payloads)
{
    uint64_t first;
    uint64_t last;
    uint64_t index;
    struct store_entry entry;
    struct store_cursor c;
    assert_int_equal(store_log_bounds(s, group, &first, &last), FERRY_OK);
    assert_int_equal(first, tg->first);
    assert_int_equal(last, tg->first == 0 ? 0 : tg->last);
    if (first == 0) {
        return;
    }
    assert_int_equal(store_cursor_open(s, group, first, &c), FERRY_OK);
    for (uint64_t i = first; i <= last; i++) {
        assert_int_equal(store_cursor_next(&c, &index, &entry), FERRY_OK);
        assert_int_equal(entry.payload.size, tg->sizes[i % LOG_MAX]);
        if (payloads) {
            expect_entry(s, group, i, entry.payload.size);
        }
    }
    assert_int_equal(store_cursor_next(&c, &index, &entry), FERRY_ERR_OFFSET_OUT_OF_RANGE);
    store_cursor_close(&c);
}

static enum ferry_err count_row(struct bytes key, struct bytes value, bool *stop, void *arg)
{
    (void)key;
    (void)value;
    (void)stop;
    *(size_t *)arg += 1;
    return FERRY_OK;
}

static void compare_rows(struct store *s, const struct twin_group *tg, uint64_t group)
{
    uint8_t key[STORE_KEY_MAX_BYTES];
    uint8_t expected[5000];
    for (size_t table = 0; table < TABLES; table++) {
        size_t present = 0;
        size_t walked = 0;
        for (size_t k = 0; k < KEYS; k++) {
            uint32_t version = tg->rows[table][k];
            bool found;
            struct bytes value;
            assert_int_equal(
                store_get(s, group, (uint8_t)(table + 1), row_key(key, k), &found, &value),
                FERRY_OK);
            assert_int_equal(found, version != 0);
            assert_true(!found || bytes_equal(value, row_value(expected, version)));
            present += found;
        }
        assert_int_equal(
            store_each_row(s, group, (uint8_t)(table + 1), bytes_of(NULL, 0), count_row, &walked),
            FERRY_OK);
        assert_int_equal(walked, present);
    }
}

static void compare(struct store *s, const struct twin *t, bool payloads)
{
    assert_int_equal(store_read_begin(s), FERRY_OK);
    for (size_t g = 0; g < GROUPS; g++) {
        struct store_group row;
        const struct twin_group *tg = &t->groups[g];
        compare_log(s, tg, ids[g], payloads);
        compare_rows(s, tg, ids[g]);
        enum ferry_err err = store_get_group(s, ids[g], &row);
        assert_int_equal(err, tg->marks == 0 ? FERRY_ERR_UNKNOWN_PARTITION : FERRY_OK);
        assert_true(err != FERRY_OK || (row.term == tg->marks && row.vote == 3));
    }
    store_read_end(s);
}

/* Turns commit, abort, and now and then the store is opened again. */
static void random_turns_leave_what_a_naive_twin_has(void **state)
{
    struct fixture *f = *state;
    struct twin *now = calloc(2, sizeof(*now));
    assert_non_null(now);
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct prng p;
        print_message("seed %llu\n", (unsigned long long)seed);
        prng_init(&p, seed);
        (void)snprintf(f->folder, sizeof(f->folder), "%s/seed%d", f->root, (int)seed);
        fixture_open(f);
        memset(now, 0, 2 * sizeof(*now));
        for (int turn = 0; turn < TURNS; turn++) {
            now[1] = now[0];
            assert_int_equal(store_begin(f->store), FERRY_OK);
            random_turn(f->store, now, &p);
            if (prng_below(&p, 5) == 0) {
                store_abort(f->store);
                now[0] = now[1];
            } else {
                assert_int_equal(store_commit(f->store), FERRY_OK);
            }
            if (prng_below(&p, 20) == 0) {
                fixture_reopen(f);
            }
            store_check(f->store);
            compare(f->store, now, turn % 50 == 49);
        }
        store_close(&f->store);
    }
    free(now);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        store_test(random_turns_leave_what_a_naive_twin_has),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
