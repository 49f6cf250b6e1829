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

/* Groups share one table; neither sees the other's, whatever their ids. */
static void groups_appended_in_turns_do_not_mix(void **state)
{
    struct fixture *f = *state;
    static const uint64_t groups[] = {0, 1, 2, 255, 256, 1u << 31, UINT64_MAX - 1, UINT64_MAX};
    fixture_open(f);
    for (uint64_t turn = 0; turn < 10; turn++) {
        assert_int_equal(store_begin(f->store), FERRY_OK);
        for (size_t g = 0; g < 8; g++) {
            append_in_turn(f->store, groups[g], g + 1 + turn, 10 + 900 * g);
        }
        assert_int_equal(store_commit(f->store), FERRY_OK);
    }
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    for (size_t g = 0; g < 8; g++) {
        uint64_t first;
        uint64_t last;
        struct store_cursor c = {0};
        struct store_entry entry;
        uint64_t index;
        assert_int_equal(store_log_bounds(f->store, groups[g], &first, &last), FERRY_OK);
        assert_true(first == g + 1 && last == g + 10);
        assert_int_equal(store_cursor_open(f->store, groups[g], first, &c), FERRY_OK);
        for (uint64_t i = first; i <= last; i++) {
            assert_int_equal(store_cursor_next(&c, &index, &entry), FERRY_OK);
            assert_true(index == i);
            expect_entry(f->store, groups[g], i, 10 + 900 * g);
        }
        assert_int_equal(store_cursor_next(&c, &index, &entry), FERRY_ERR_OFFSET_OUT_OF_RANGE);
        store_cursor_close(&c);
        store_cursor_close(&c);
    }
    store_read_end(f->store);
}

static void bounds_of_a_group_without_entries_are_zero(void **state)
{
    struct fixture *f = *state;
    uint64_t first = 9;
    uint64_t last = 9;
    fixture_open(f);
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    assert_int_equal(store_log_bounds(f->store, 1, &first, &last), FERRY_OK);
    assert_true(first == 0 && last == 0);
    store_read_end(f->store);
    append_one(f->store, 2, 1, 10);
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    assert_int_equal(store_log_bounds(f->store, 1, &first, &last), FERRY_OK);
    assert_true(first == 0 && last == 0);
    assert_int_equal(store_log_bounds(f->store, 3, &first, &last), FERRY_OK);
    assert_true(first == 0 && last == 0);
    store_read_end(f->store);
}

static void append_many(struct store *s, uint64_t group, uint64_t first, uint64_t last, size_t size)
{
    assert_int_equal(store_begin(s), FERRY_OK);
    for (uint64_t i = first; i <= last; i++) {
        append_in_turn(s, group, i, size);
    }
    assert_int_equal(store_commit(s), FERRY_OK);
}

static void expect_bounds(struct store *s, uint64_t group, uint64_t first, uint64_t last)
{
    uint64_t a;
    uint64_t b;
    assert_int_equal(store_read_begin(s), FERRY_OK);
    assert_int_equal(store_log_bounds(s, group, &a, &b), FERRY_OK);
    store_read_end(s);
    assert_true(a == first && b == last);
}

/* A trim of 100 entries, 30 a turn: the count ends each turn, the last index ends the trim. */
static void a_deletion_is_spread_over_turns(void **state)
{
    struct fixture *f = *state;
    static const uint32_t expected[] = {30, 30, 30, 10, 0};
    fixture_open(f);
    append_many(f->store, 1, 1, 150, 3000);
    append_many(f->store, 2, 1, 3, 3000);
    uint64_t first = 1;
    for (size_t i = 0; i < 5; i++) {
        uint32_t deleted = 77;
        uint64_t bytes = 77;
        assert_int_equal(store_begin(f->store), FERRY_OK);
        assert_int_equal(store_delete_entries(f->store, 1, first, 100, 30, &deleted, &bytes),
                         FERRY_OK);
        assert_int_equal(store_commit(f->store), FERRY_OK);
        assert_int_equal(deleted, expected[i]);
        assert_true(bytes == (uint64_t)deleted * (3000 + 48));
        first += deleted;
        expect_bounds(f->store, 1, first, 150);
    }
    expect_bounds(f->store, 2, 1, 3);
}

/* A log that is trimmed away whole goes on where Raft says, also at a later index. */
static void an_emptied_log_goes_on_at_any_index(void **state)
{
    struct fixture *f = *state;
    uint32_t deleted;
    uint64_t bytes;
    fixture_open(f);
    append_many(f->store, 1, 1, 5, 100);
    assert_int_equal(store_begin(f->store), FERRY_OK);
    assert_int_equal(store_delete_entries(f->store, 1, 1, 1000, 1000, &deleted, &bytes), FERRY_OK);
    assert_int_equal(deleted, 5);
    append_in_turn(f->store, 1, 900, 100);
    assert_int_equal(store_commit(f->store), FERRY_OK);
    expect_bounds(f->store, 1, 900, 900);
    append_one(f->store, 1, 901, 100);
    expect_bounds(f->store, 1, 900, 901);
}

static void a_truncation_drops_the_end_in_bounded_steps(void **state)
{
    struct fixture *f = *state;
    static const uint32_t expected[] = {4, 4, 3, 0};
    uint64_t last = 20;
    fixture_open(f);
    append_many(f->store, 1, 3, 20, 5000);
    append_many(f->store, 2, 1, 4, 5000);
    for (size_t i = 0; i < 4; i++) {
        uint32_t deleted;
        assert_int_equal(store_begin(f->store), FERRY_OK);
        assert_int_equal(store_truncate(f->store, 1, 10, 4, &deleted), FERRY_OK);
        assert_int_equal(store_commit(f->store), FERRY_OK);
        assert_int_equal(deleted, expected[i]);
        last -= deleted;
        expect_bounds(f->store, 1, 3, last);
    }
    append_one(f->store, 1, 10, 50);
    expect_bounds(f->store, 1, 3, 10);
    expect_bounds(f->store, 2, 1, 4);
    /* The whole log, and a log that is empty already. */
    for (uint32_t count = 8; count != UINT32_MAX; count = count == 8 ? 0 : UINT32_MAX) {
        uint32_t deleted;
        assert_int_equal(store_begin(f->store), FERRY_OK);
        assert_int_equal(store_truncate(f->store, 1, 1, 100, &deleted), FERRY_OK);
        assert_int_equal(store_commit(f->store), FERRY_OK);
        assert_int_equal(deleted, count);
    }
    expect_bounds(f->store, 1, 0, 0);
}

/* In place, whether it grows, shrinks or spans pages; the end of the log stays where it was. */
static void a_replaced_entry_is_the_only_one_that_changes(void **state)
{
    struct fixture *f = *state;
    static const size_t sizes[] = {0, 100, 3000, 70000};
    static uint8_t data[70000];
    fixture_open(f);
    append_many(f->store, 1, 3, 12, 3000);
    for (size_t i = 0; i < 4; i++) {
        memset(data, (int)i + 1, sizeof(data));
        struct store_entry entry = entry_of(STORE_ENTRY_CONTROL, data, sizes[i]);
        assert_int_equal(store_begin(f->store), FERRY_OK);
        assert_int_equal(store_replace_entry(f->store, 1, 7, &entry), FERRY_OK);
        assert_int_equal(store_replace_entry(f->store, 1, 13 + i, &entry), FERRY_ERR_CORRUPT);
        assert_int_equal(store_replace_entry(f->store, 2, 7, &entry), FERRY_ERR_CORRUPT);
        append_in_turn(f->store, 1, 13 + i, 3000);
        assert_int_equal(store_commit(f->store), FERRY_OK);
        struct store_entry got;
        assert_int_equal(store_read_begin(f->store), FERRY_OK);
        assert_int_equal(store_get_entry(f->store, 1, 7, &got), FERRY_OK);
        assert_int_equal(got.type, STORE_ENTRY_CONTROL);
        assert_true(bytes_equal(got.payload, bytes_of(data, sizes[i])));
        for (uint64_t index = 3; index <= 13 + i; index++) {
            if (index != 7) {
                expect_entry(f->store, 1, index, 3000);
            }
        }
        store_read_end(f->store);
        expect_bounds(f->store, 1, 3, 13 + i);
    }
}

/* ---- Group rows ---- */

struct seen_groups {
    struct store_group rows[8];
    size_t count;
    size_t fail_at; /* 0: never. */
};

static enum ferry_err see_group(const struct store_group *g, void *arg)
{
    struct seen_groups *seen = arg;
    seen->rows[seen->count++] = *g;
    return seen->count == seen->fail_at ? FERRY_ERR_NO_MEMORY : FERRY_OK;
}

static void expect_group(const struct store_group *got, const struct store_group *want)
{
    assert_int_equal(got->group, want->group);
    assert_int_equal(got->term, want->term);
    assert_int_equal(got->vote, want->vote);
    assert_int_equal(got->commit, want->commit);
    assert_int_equal(got->trim_index, want->trim_index);
    assert_int_equal(got->trim_term, want->trim_term);
    assert_int_equal(got->deleted_index, want->deleted_index);
    assert_int_equal(got->installing, want->installing);
}

static void group_rows_come_back_in_order_of_their_ids(void **state)
{
    struct fixture *f = *state;
    static const uint64_t ids[] = {300, 0, 7, UINT64_MAX};
    static const uint64_t sorted[] = {0, 7, 300, UINT64_MAX};
    fixture_open(f);
    assert_int_equal(store_begin(f->store), FERRY_OK);
    for (size_t i = 0; i < 4; i++) {
        struct store_group g = {ids[i], 1 + ids[i], 2, 3, 40, 5, 39, i % 2 == 1};
        assert_int_equal(store_put_group(f->store, &g), FERRY_OK);
    }
    assert_int_equal(store_commit(f->store), FERRY_OK);
    struct seen_groups seen = {.count = 0};
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    assert_int_equal(store_each_group(f->store, see_group, &seen), FERRY_OK);
    assert_int_equal(seen.count, 4);
    for (size_t i = 0; i < 4; i++) {
        struct store_group g = {
            sorted[i], 1 + sorted[i], 2, 3, 40, 5, 39, sorted[i] == 0 || sorted[i] == UINT64_MAX};
        struct store_group one;
        expect_group(&seen.rows[i], &g);
        assert_int_equal(store_get_group(f->store, sorted[i], &one), FERRY_OK);
        expect_group(&one, &g);
    }
    struct seen_groups failing = {.fail_at = 2};
    assert_int_equal(store_each_group(f->store, see_group, &failing), FERRY_ERR_NO_MEMORY);
    assert_int_equal(failing.count, 2);
    store_read_end(f->store);

    struct store_group gone;
    assert_int_equal(store_begin(f->store), FERRY_OK);
    assert_int_equal(store_delete_group(f->store, 7), FERRY_OK);
    assert_int_equal(store_delete_group(f->store, 8), FERRY_OK);
    assert_int_equal(store_commit(f->store), FERRY_OK);
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    assert_int_equal(store_get_group(f->store, 7, &gone), FERRY_ERR_UNKNOWN_PARTITION);
    store_read_end(f->store);
}

/* ---- State rows ---- */

static struct bytes text(const char *s)
{
    return bytes_of_string(s);
}

static void put_text(struct store *s, uint64_t group, uint8_t table, const char *key,
                     const char *value)
{
    assert_int_equal(store_put(s, group, table, text(key), text(value)), FERRY_OK);
}

/* Collects "key=value " of the rows; stops after `most`. */
struct seen_rows {
    char text[256];
    size_t count, most;
};

static enum ferry_err see_row(struct bytes key, struct bytes value, bool *stop, void *arg)
{
    struct seen_rows *seen = arg;
    size_t used = strlen(seen->text);
    (void)snprintf(seen->text + used, sizeof(seen->text) - used, "%.*s=%.*s ", (int)key.size,
                   (const char *)key.data, (int)value.size, (const char *)value.data);
    seen->count++;
    *stop = seen->count == seen->most;
    return FERRY_OK;
}

static void expect_rows(struct store *s, uint64_t group, uint8_t table, const char *from,
                        size_t most, const char *expected)
{
    struct seen_rows seen = {.most = most};
    assert_int_equal(store_read_begin(s), FERRY_OK);
    assert_int_equal(store_each_row(s, group, table, text(from), see_row, &seen), FERRY_OK);
    store_read_end(s);
    assert_string_equal(seen.text, expected);
}

static void rows_are_walked_within_their_table_from_a_key_on(void **state)
{
    struct fixture *f = *state;
    fixture_open(f);
    assert_int_equal(store_begin(f->store), FERRY_OK);
    put_text(f->store, 1, 1, "z", "other table");
    put_text(f->store, 1, 2, "b", "2");
    put_text(f->store, 1, 2, "a", "1");
    put_text(f->store, 1, 2, "bb", "3");
    put_text(f->store, 1, 2, "", "empty key");
    put_text(f->store, 1, 3, "a", "other table");
    put_text(f->store, 2, 2, "a", "other group");
    put_text(f->store, 1, 2, "b", "two");
    assert_int_equal(store_commit(f->store), FERRY_OK);
    expect_rows(f->store, 1, 2, "", 0, "=empty key a=1 b=two bb=3 ");
    expect_rows(f->store, 1, 2, "", 2, "=empty key a=1 ");
    expect_rows(f->store, 1, 2, "aa", 0, "b=two bb=3 ");
    expect_rows(f->store, 1, 2, "c", 0, "");
    expect_rows(f->store, 1, 4, "", 0, "");
    expect_rows(f->store, 2, 2, "a", 0, "a=other group ");
}

static void a_row_is_found_until_it_is_deleted(void **state)
{
    struct fixture *f = *state;
    bool found;
    struct bytes value;
    uint8_t longest[STORE_KEY_MAX_BYTES];
    memset(longest, 0xff, sizeof(longest));
    fixture_open(f);
    assert_int_equal(store_begin(f->store), FERRY_OK);
    assert_int_equal(store_put(f->store, UINT64_MAX, 255, bytes_of(longest, sizeof(longest)),
                               text("at the very end")),
                     FERRY_OK);
    put_text(f->store, 1, 1, "nothing", "");
    assert_int_equal(store_commit(f->store), FERRY_OK);
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    assert_int_equal(
        store_get(f->store, UINT64_MAX, 255, bytes_of(longest, sizeof(longest)), &found, &value),
        FERRY_OK);
    assert_true(found && bytes_equal(value, text("at the very end")));
    assert_int_equal(store_get(f->store, 1, 1, text("nothing"), &found, &value), FERRY_OK);
    assert_true(found && value.size == 0);
    assert_int_equal(store_get(f->store, 1, 1, text("nothing else"), &found, &value), FERRY_OK);
    assert_false(found);
    store_read_end(f->store);

    assert_int_equal(store_begin(f->store), FERRY_OK);
    assert_int_equal(store_delete(f->store, 1, 1, text("nothing")), FERRY_OK);
    assert_int_equal(store_delete(f->store, 1, 1, text("nothing")), FERRY_OK);
    assert_int_equal(store_commit(f->store), FERRY_OK);
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    assert_int_equal(store_get(f->store, 1, 1, text("nothing"), &found, &value), FERRY_OK);
    assert_false(found);
    store_read_end(f->store);
}

/* One table, then all of a group; neighbours stay. */
static void rows_are_deleted_by_table_or_by_group_in_bounded_steps(void **state)
{
    struct fixture *f = *state;
    uint32_t deleted;
    fixture_open(f);
    assert_int_equal(store_begin(f->store), FERRY_OK);
    for (uint64_t group = 1; group <= 3; group++) {
        put_text(f->store, group, 1, "a", "1");
        put_text(f->store, group, 1, "b", "2");
        put_text(f->store, group, 1, "c", "3");
        put_text(f->store, group, 2, "d", "4");
    }
    assert_int_equal(store_delete_rows(f->store, 2, 1, 2, &deleted), FERRY_OK);
    assert_int_equal(deleted, 2);
    assert_int_equal(store_commit(f->store), FERRY_OK);
    expect_rows(f->store, 2, 1, "", 0, "c=3 ");
    assert_int_equal(store_begin(f->store), FERRY_OK);
    assert_int_equal(store_delete_rows(f->store, 2, 1, 2, &deleted), FERRY_OK);
    assert_int_equal(deleted, 1);
    put_text(f->store, 2, 1, "e", "5");
    assert_int_equal(store_delete_rows(f->store, 2, 0, 100, &deleted), FERRY_OK);
    assert_int_equal(deleted, 2);
    assert_int_equal(store_commit(f->store), FERRY_OK);
    expect_rows(f->store, 2, 1, "", 0, "");
    expect_rows(f->store, 2, 2, "", 0, "");
    expect_rows(f->store, 1, 1, "", 0, "a=1 b=2 c=3 ");
    expect_rows(f->store, 3, 1, "", 0, "a=1 b=2 c=3 ");
}

static void stats_count_commits_and_bytes(void **state)
{
    struct fixture *f = *state;
    struct store_stats stats;
    fixture_open(f);
    append_one(f->store, 1, 1, 1000);
    append_one(f->store, 1, 2, 1000);
    store_stats(f->store, &stats);
    assert_int_equal(stats.commits, 2);
    assert_int_equal(stats.written_bytes, 2 * 1048);
    assert_true(stats.commit_us_max > 0 && stats.commit_us_max <= stats.commit_us_total);
    assert_true(stats.used_bytes > 0 && stats.used_bytes + MIB <= stats.file_bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        store_test(what_is_committed_is_there_after_a_reopen),
        store_test(an_entry_comes_back_with_all_its_fields),
        store_test(an_abort_leaves_nothing_and_the_index_is_free_again),
        store_test(a_view_shows_one_moment),
        store_test(groups_appended_in_turns_do_not_mix),
        store_test(bounds_of_a_group_without_entries_are_zero),
        store_test(a_deletion_is_spread_over_turns),
        store_test(an_emptied_log_goes_on_at_any_index),
        store_test(a_truncation_drops_the_end_in_bounded_steps),
        store_test(a_replaced_entry_is_the_only_one_that_changes),
        store_test(group_rows_come_back_in_order_of_their_ids),
        store_test(rows_are_walked_within_their_table_from_a_key_on),
        store_test(a_row_is_found_until_it_is_deleted),
        store_test(rows_are_deleted_by_table_or_by_group_in_bounded_steps),
        store_test(stats_count_commits_and_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
