/* Entries, group rows and state rows: written, committed, read, deleted. */
#include "store_fixture.h"

static void what_is_committed_is_there_after_a_reopen(void **state)
{
    struct fixture *f = *state;
    fixture_open(f);
    append_one(f->store, 5, 1, 100);
    append_one(f->store, 5, 2, 70000);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(store_read_begin(f->store), FERRY_OK);
        expect_entry(f->store, 5, 1, 100);
        expect_entry(f->store, 5, 2, 70000);
        store_read_end(f->store);
        fixture_reopen(f);
    }
}

/* Every field comes back, also skips, no payload at all, and each type. */
static void an_entry_comes_back_with_all_its_fields(void **state)
{
    struct fixture *f = *state;
    fixture_open(f);
    static const uint8_t skips[12] = {1, 0, 0, 0, 5, 0, 0, 0, 9, 1, 0, 0};
    struct store_entry in[4];
    for (uint64_t i = 0; i < 4; i++) {
        in[i] = entry_of((enum store_entry_type)(i + 1), "payload of some bytes", i * 7);
        in[i].term = 0x1122334455667788u + i;
        in[i].base_offset = -1 - (int64_t)i;
        in[i].append_time_ms = 1790000000000 + (int64_t)i;
        in[i].skip_count = (uint32_t)i;
        in[i].skips = skips;
    }
    assert_int_equal(store_begin(f->store), FERRY_OK);
    for (uint64_t i = 0; i < 4; i++) {
        assert_int_equal(store_append(f->store, 1, i + 10, &in[i]), FERRY_OK);
    }
    assert_int_equal(store_commit(f->store), FERRY_OK);
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    for (uint64_t i = 0; i < 4; i++) {
        struct store_entry out;
        assert_int_equal(store_get_entry(f->store, 1, i + 10, &out), FERRY_OK);
        assert_true(out.term == in[i].term && out.base_offset == in[i].base_offset);
        assert_true(out.append_time_ms == in[i].append_time_ms && out.type == in[i].type);
        assert_int_equal(out.skip_count, i);
        assert_true(bytes_equal(bytes_of(out.skips, i * 4), bytes_of(skips, i * 4)));
        assert_true(bytes_equal(out.payload, in[i].payload));
    }
    store_read_end(f->store);
}

static void an_abort_leaves_nothing_and_the_index_is_free_again(void **state)
{
    struct fixture *f = *state;
    fixture_open(f);
    append_one(f->store, 1, 1, 10);
    assert_int_equal(store_begin(f->store), FERRY_OK);
    append_in_turn(f->store, 1, 2, 10);
    append_in_turn(f->store, 1, 3, 10);
    store_abort(f->store);
    append_one(f->store, 1, 2, 20);
    uint64_t first;
    uint64_t last;
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    assert_int_equal(store_log_bounds(f->store, 1, &first, &last), FERRY_OK);
    assert_true(first == 1 && last == 2);
    expect_entry(f->store, 1, 2, 20);
    store_read_end(f->store);
}

/* A view shows what was committed when it began, also while the next turn is written. */
static void a_view_shows_one_moment(void **state)
{
    struct fixture *f = *state;
    struct store_entry entry;
    fixture_open(f);
    append_one(f->store, 1, 1, 3000);
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    append_one(f->store, 1, 2, 3000);
    uint32_t deleted;
    uint64_t bytes;
    assert_int_equal(store_begin(f->store), FERRY_OK);
    assert_int_equal(store_delete_entries(f->store, 1, 1, 1, 9, &deleted, &bytes), FERRY_OK);
    assert_int_equal(store_commit(f->store), FERRY_OK);
    append_one(f->store, 1, 3, 3000);
    expect_entry(f->store, 1, 1, 3000);
    assert_int_equal(store_get_entry(f->store, 1, 2, &entry), FERRY_ERR_OFFSET_OUT_OF_RANGE);
    store_read_end(f->store);
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    assert_int_equal(store_get_entry(f->store, 1, 1, &entry), FERRY_ERR_OFFSET_OUT_OF_RANGE);
    expect_entry(f->store, 1, 3, 3000);
    store_read_end(f->store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        store_test(what_is_committed_is_there_after_a_reopen),
        store_test(an_entry_comes_back_with_all_its_fields),
        store_test(an_abort_leaves_nothing_and_the_index_is_free_again),
        store_test(a_view_shows_one_moment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
