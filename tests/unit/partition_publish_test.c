/* Publishing on condition: all of it or nothing, when each key is at the version expected. */
#include <stdio.h>

#include "base/checksum.h"
#include "base/mem.h"
#include "base/prng.h"
#include "lib/partition_fixture.h"
#include "partition/versions.h"

struct piece {
    const char *key; /* NULL: none. */
    uint64_t id;     /* 0: none. */
    int64_t expect;  /* -1: nothing is expected. */
    uint64_t content;
};

struct publishing {
    struct publish_request q;
    struct publish_refusal refusal;
    struct partition_ticket *t;
    struct bytes batch;
};

static struct bytes batch_of_pieces(struct part_fixture *f, const struct piece *pieces,
                                    size_t count, int64_t due, uint64_t producer)
{
    struct batch_writer w;
    struct bytes batch;
    batch_writer_init(&w, 1 << 20);
    for (size_t i = 0; i < count; i++) {
        uint8_t payload[8];
        put_le64(payload, pieces[i].content);
        struct batch_record r = {
            .timestamp_ms = f->now_ms, .payload = bytes_of(payload, sizeof(payload)), .due = due};
        r.has_key = pieces[i].key != NULL;
        r.key = r.has_key ? bytes_of_string(pieces[i].key) : r.key;
        r.id = pieces[i].id != 0 ? part_id(pieces[i].id) : r.id;
        assert_int_equal(batch_writer_add(&w, &r), FERRY_OK);
    }
    assert_int_equal(batch_writer_finish(&w, producer, 0, 0, &batch), FERRY_OK);
    batch = bytes_of(part_keep(f, batch.data, batch.size), batch.size);
    batch_writer_fini(&w);
    return batch;
}

static enum ferry_err send_batch(struct part_fixture *f, struct publishing *u)
{
    u->t = part_ticket(f);
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    enum ferry_err err = partition_publish(f->p, &u->q, u->batch, f->now_ms, f->now_us, u->t,
                                           &u->refusal, &f->detail);
    store_read_end(f->store);
    return err;
}

/* Proposes; not turned yet. */
static enum ferry_err send_pieces(struct part_fixture *f, struct publishing *u,
                                  const struct piece *pieces, size_t count)
{
    u->q.count = 0;
    for (size_t i = 0; i < count; i++) {
        if (pieces[i].expect >= 0) {
            u->q.expect[u->q.count++] = (struct publish_expect){
                .record = (uint32_t)i, .version = (uint64_t)pieces[i].expect};
        }
    }
    u->batch = batch_of_pieces(f, pieces, count, 0, 0);
    return send_batch(f, u);
}

static struct publishing *publishing(struct part_fixture *f)
{
    static const struct publishing none;
    return part_keep(f, &none, sizeof(none));
}

static enum ferry_err publish(struct part_fixture *f, const char *key, int64_t expect,
                              uint64_t content)
{
    struct publishing *u = publishing(f);
    struct piece piece = {.key = key, .expect = expect, .content = content};
    enum ferry_err err = send_pieces(f, u, &piece, 1);
    part_turn(f);
    return err;
}

static uint64_t version_of(struct part_fixture *f, struct bytes key)
{
    uint64_t version = UINT64_MAX;
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    assert_int_equal(partition_key_version(f->p, key, &version), FERRY_OK);
    store_read_end(f->store);
    return version;
}

static uint64_t version(struct part_fixture *f, const char *key)
{
    return version_of(f, bytes_of_string(key));
}

static void expect_contents(struct part_fixture *f, const uint64_t *contents, size_t count)
{
    struct part_record records[64];
    assert_int_equal(part_read_all(f, 1 << 20, records, 64), count);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(records[i].content, contents[i]);
    }
}

static void a_version_rises_with_each_publish_that_expected_it(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    assert_int_equal(version(f, "a"), 0);
    assert_int_equal(publish(f, "a", 0, 1), FERRY_OK);
    assert_int_equal(version(f, "a"), 1);
    assert_int_equal(publish(f, "a", 0, 2), FERRY_ERR_VERSION_CONFLICT);
    assert_int_equal(publish(f, "a", 2, 3), FERRY_ERR_VERSION_CONFLICT);
    assert_int_equal(publish(f, "a", 1, 4), FERRY_OK);
    assert_int_equal(publish(f, "b", 0, 5), FERRY_OK);
    assert_int_equal(publish(f, "a", -1, 6), FERRY_OK); /* Without expectation it stays. */
    assert_int_equal(version(f, "a"), 2);
    expect_contents(f, (uint64_t[]){1, 4, 5, 6}, 4);
}

static void a_refusal_names_the_record_and_its_version(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    assert_int_equal(publish(f, "b", 0, 1), FERRY_OK);
    assert_int_equal(publish(f, "b", 1, 2), FERRY_OK);
    struct publishing *u = publishing(f);
    const struct piece pieces[] = {
        {"a", 0, 0, 3}, {NULL, 0, -1, 4}, {"b", 0, 1, 5}, {"c", 0, 9, 6}};
    assert_int_equal(send_pieces(f, u, pieces, 4), FERRY_ERR_VERSION_CONFLICT);
    assert_int_equal(u->refusal.record, 2);
    assert_int_equal(u->refusal.version, 2);
    part_turn(f);
    /* Nothing of it counts, not even what was right. */
    assert_int_equal(version(f, "a"), 0);
    expect_contents(f, (uint64_t[]){1, 2}, 2);
    assert_int_equal(publish(f, "a", 0, 7), FERRY_OK);
}

static void all_of_a_batch_is_stored_at_once(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    struct publishing *u = publishing(f);
    const struct piece pieces[] = {{"a", 0, 0, 1}, {NULL, 0, -1, 2}, {"b", 0, 0, 3}};
    assert_int_equal(send_pieces(f, u, pieces, 3), FERRY_OK);
    part_turn(f);
    assert_true(part_is_done(f, u->t));
    assert_int_equal(u->t->base_offset, 0);
    assert_int_equal(u->t->append_time_ms, f->now_ms);
    assert_int_equal(version(f, "a") + version(f, "b"), 2);
    expect_contents(f, (uint64_t[]){1, 2, 3}, 3);
}

/* Two at once who saw the same version: one of them has it, though neither is applied. The other is
 * refused once it is: the one in front may still be cut away. */
static void of_two_on_their_way_one_is_refused(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    assert_int_equal(publish(f, "a", 0, 1), FERRY_OK);
    const struct piece first = {"a", 0, 1, 2};
    const struct piece second = {"a", 0, 1, 3};
    const struct piece third = {"a", 0, 2, 4};
    struct publishing *u = publishing(f);
    assert_int_equal(send_pieces(f, u, &first, 1), FERRY_OK);
    struct publishing *v = publishing(f);
    assert_int_equal(send_pieces(f, v, &second, 1), FERRY_ERR_THROTTLED);
    assert_int_equal(send_pieces(f, v, &third, 1), FERRY_OK);
    assert_int_equal(version(f, "a"), 1); /* What is not applied is not told. */
    part_turn(f);
    assert_int_equal(version(f, "a"), 3);
    struct publishing *w = publishing(f);
    assert_int_equal(send_pieces(f, w, &second, 1), FERRY_ERR_VERSION_CONFLICT);
    assert_int_equal(w->refusal.version, 3);
    expect_contents(f, (uint64_t[]){1, 2, 4}, 3);
}

static void versions_survive_restarts_wherever_a_turn_ends(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    uint64_t now = 0;
    for (int i = 0; i < 9; i++) {
        struct publishing *u = publishing(f);
        const struct piece piece = {"a", 0, (int64_t)now, 5};
        assert_int_equal(send_pieces(f, u, &piece, 1), FERRY_OK);
        part_crash_at(f, (enum crash_point)(i % CRASH_POINTS));
        part_open(f);
        if (i % 2 == 0) {
            part_flush(f);
        }
        uint64_t after = version(f, "a");
        assert_true(after == now || after == now + 1);
        assert_int_equal(partition_end_offset(f->p), after);
        now = after;
    }
    assert_true(now >= 3);
}

/* ---- Repeats ---- */

static void a_repeat_is_answered_as_the_first_whatever_the_version_is(void **state)
{
    struct part_fixture *f = *state;
    f->config.settings.dedupe_window_ms = HOUR_MS;
    part_open(f);
    const struct piece pieces[] = {{"a", 11, 0, 1}, {"b", 12, 0, 2}};
    struct publishing *first = publishing(f);
    assert_int_equal(publish(f, "z", 0, 9), FERRY_OK);
    assert_int_equal(send_pieces(f, first, pieces, 2), FERRY_OK);
    part_turn(f);
    int64_t appended = f->now_ms;
    assert_int_equal(publish(f, "a", 1, 3), FERRY_OK);
    part_pass_ms(f, 5000);
    part_flush(f);
    struct publishing *again = publishing(f);
    assert_int_equal(send_pieces(f, again, pieces, 2), FERRY_OK);
    part_turn(f);
    assert_true(part_is_done(f, again->t));
    assert_true(again->t->duplicate);
    assert_int_equal(first->t->base_offset, 1);
    assert_int_equal(again->t->base_offset, -1);
    assert_int_equal(again->t->duplicate_count, 2);
    assert_int_equal((int64_t)get_le64(again->t->duplicates.data + 4), 1);
    assert_int_equal((int64_t)get_le64(again->t->duplicates.data + 12 + 4), 2);
    assert_int_equal(again->t->append_time_ms, appended);
    assert_int_equal(version(f, "a"), 2);
    expect_contents(f, (uint64_t[]){9, 1, 2, 3}, 4);
}

/* The first is not stored yet: neither may its repeat be told that it is. */
static void a_repeat_of_what_is_on_its_way_waits_for_it(void **state)
{
    struct part_fixture *f = *state;
    f->config.settings.dedupe_window_ms = HOUR_MS;
    part_open(f);
    const struct piece piece = {"a", 11, 0, 1};
    struct publishing *first = publishing(f);
    struct publishing *again = publishing(f);
    assert_int_equal(send_pieces(f, first, &piece, 1), FERRY_OK);
    assert_int_equal(send_pieces(f, again, &piece, 1), FERRY_OK);
    assert_false(part_is_done(f, again->t));
    part_turn(f);
    assert_true(part_is_done(f, again->t));
    assert_int_equal((int64_t)get_le64(again->t->duplicates.data + 4), 0);
    expect_contents(f, (uint64_t[]){1}, 1);
}

static void of_a_batch_repeated_in_part_the_rest_is_stored(void **state)
{
    struct part_fixture *f = *state;
    f->config.settings.dedupe_window_ms = HOUR_MS;
    part_open(f);
    const struct piece first = {"a", 11, 0, 1};
    const struct piece both[] = {{"a", 11, 0, 1}, {"b", 12, 0, 2}};
    struct publishing *u = publishing(f);
    assert_int_equal(send_pieces(f, u, &first, 1), FERRY_OK);
    part_turn(f);
    assert_int_equal(send_pieces(f, u, both, 2), FERRY_OK);
    part_turn(f);
    assert_int_equal(u->t->duplicate_count, 1);
    assert_int_equal(u->t->base_offset, 1);
    assert_int_equal(version(f, "a"), 1);
    assert_int_equal(version(f, "b"), 1);
    expect_contents(f, (uint64_t[]){1, 2}, 2);
}

/* What was refused left no trace: the same ids are new the next time. */
static void a_refused_publish_does_not_make_its_ids_known(void **state)
{
    struct part_fixture *f = *state;
    f->config.settings.dedupe_window_ms = HOUR_MS;
    part_open(f);
    const struct piece wrong = {"a", 11, 4, 1};
    const struct piece right = {"a", 11, 0, 2};
    struct publishing *u = publishing(f);
    assert_int_equal(send_pieces(f, u, &wrong, 1), FERRY_ERR_VERSION_CONFLICT);
    assert_int_equal(send_pieces(f, u, &right, 1), FERRY_OK);
    part_turn(f);
    expect_contents(f, (uint64_t[]){2}, 1);
}

/* Each allocation fails once in turn: nothing is stored, nothing is known, nothing is expected. */
static void no_memory_leaves_no_trace(void **state)
{
    struct part_fixture *f = *state;
    f->config.settings.dedupe_window_ms = HOUR_MS;
    part_open(f);
    const struct piece pieces[] = {{"a", 11, 0, 1}, {"b", 12, 0, 2}};
    struct publishing *u = publishing(f);
    enum ferry_err err = FERRY_ERR_NO_MEMORY;
    u->q.count = 2;
    u->q.expect[1].record = 1;
    u->batch = batch_of_pieces(f, pieces, 2, 0, 0);
    for (long n = 1; n < 50 && err == FERRY_ERR_NO_MEMORY; n++) {
        u->t = part_ticket(f);
        assert_int_equal(store_read_begin(f->store), FERRY_OK);
        mem_test_fail_after(n);
        err = partition_publish(f->p, &u->q, u->batch, f->now_ms, f->now_us, u->t, &u->refusal,
                                &f->detail);
        mem_test_fail_after(0);
        store_read_end(f->store);
        assert_true(err == FERRY_OK || list_is_empty(&u->t->base.node));
    }
    assert_int_equal(err, FERRY_OK);
    assert_int_equal(u->t->duplicate_count, 0);
    part_turn(f);
    expect_contents(f, (uint64_t[]){1, 2}, 2);
}

/* ---- Refusals ---- */

static void expectations_that_make_no_sense_are_refused(void **state)
{
    struct part_fixture *f = *state;
    part_open(f);
    struct publishing *u = publishing(f);
    const struct piece no_key = {NULL, 0, 0, 1};
    const struct piece twice[] = {{"a", 0, 0, 1}, {"a", 0, 0, 2}};
    const struct piece one = {"a", 0, 0, 1};
    assert_int_equal(send_pieces(f, u, &no_key, 1), FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(u->refusal.record, 0);
    assert_int_equal(send_pieces(f, u, twice, 2), FERRY_ERR_INVALID_ARGUMENT);
    assert_int_equal(u->refusal.record, 1);
    assert_int_equal(send_pieces(f, u, &one, 1), FERRY_OK);
    part_turn(f);
    u->q.expect[0] = (struct publish_expect){.record = 1};
    assert_int_equal(send_batch(f, u), FERRY_ERR_INVALID_ARGUMENT);
    u->q.count = 2;
    u->q.expect[0] = u->q.expect[1] = (struct publish_expect){.record = 0, .version = 1};
    assert_int_equal(send_batch(f, u), FERRY_ERR_INVALID_ARGUMENT);
    u->q.count = 0;
    u->batch = batch_of_pieces(f, &one, 1, f->now_ms + 1000, 0);
    assert_int_equal(send_batch(f, u), FERRY_ERR_INVALID_ARGUMENT);
    u->batch = batch_of_pieces(f, &one, 1, 0, 77);
    assert_int_equal(send_batch(f, u), FERRY_ERR_INVALID_ARGUMENT);
    u->batch = bytes_of(u->batch.data, u->batch.size - 1);
    assert_int_equal(send_batch(f, u), FERRY_ERR_BAD_BATCH);
    expect_contents(f, (uint64_t[]){1}, 1);
}

/* KEY_VERSION carries at most 800 bytes: longer keys are named by their hash. */
static void a_long_key_is_named_by_its_hash(void **state)
{
    struct part_fixture *f = *state;
    char key[1001];
    uint8_t hash[16];
    part_open(f);
    memset(key, 'k', sizeof(key) - 1);
    key[1000] = '\0';
    assert_int_equal(publish(f, key, 0, 1), FERRY_OK);
    checksum_128_of(key, 1000, hash);
    assert_int_equal(version_of(f, bytes_of(hash, sizeof(hash))), 1);
    key[800] = '\0';
    assert_int_equal(version(f, key), 0);
    assert_int_equal(publish(f, key, 0, 2), FERRY_OK);
    assert_int_equal(version(f, key), 1);
}

/* Against a naive twin: random keys, versions right and wrong, several on their way, restarts. */
static void random_publishes_are_as_a_simple_table_says(void **state)
{
    enum { KEYS = 5, ROUNDS = 400 };
    struct part_fixture *f = *state;
    struct prng prng;
    uint64_t expected[KEYS] = {0};
    bool moving[KEYS] = {false}; /* One is on its way. */
    int64_t stored = 0;
    prng_init(&prng, 20261126);
    part_open(f);
    for (int round = 0; round < ROUNDS; round++) {
        struct piece pieces[3];
        char names[3][8];
        uint32_t first = (uint32_t)prng_below(&prng, KEYS);
        size_t count = 1 + (size_t)prng_below(&prng, 3);
        bool good = true;
        enum ferry_err err = FERRY_OK;
        for (uint32_t i = 0; i < count; i++) {
            uint32_t key = (first + i) % KEYS;
            uint64_t guess = expected[key] + (prng_below(&prng, 8) == 0);
            if (good && guess != expected[key]) {
                err = moving[key] ? FERRY_ERR_THROTTLED : FERRY_ERR_VERSION_CONFLICT;
                good = false;
            }
            (void)snprintf(names[i], sizeof(names[i]), "k%u", key);
            pieces[i] = (struct piece){names[i], 0, (int64_t)guess, 1};
        }
        struct publishing *u = publishing(f);
        assert_int_equal(send_pieces(f, u, pieces, count), err);
        for (uint32_t i = 0; i < count && good; i++) {
            expected[(first + i) % KEYS]++;
            moving[(first + i) % KEYS] = true;
            stored++;
        }
        if (prng_below(&prng, 4) == 0) {
            part_turn(f);
            memset(moving, 0, sizeof(moving));
        }
        if (prng_below(&prng, 40) == 0) {
            part_flush(f);
            part_crash(f);
            part_open(f);
            memset(moving, 0, sizeof(moving));
        }
    }
    part_turn(f);
    assert_int_equal(partition_end_offset(f->p), stored);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        part_test(a_version_rises_with_each_publish_that_expected_it),
        part_test(a_refusal_names_the_record_and_its_version),
        part_test(all_of_a_batch_is_stored_at_once),
        part_test(of_two_on_their_way_one_is_refused),
        part_test(versions_survive_restarts_wherever_a_turn_ends),
        part_test(a_repeat_is_answered_as_the_first_whatever_the_version_is),
        part_test(a_repeat_of_what_is_on_its_way_waits_for_it),
        part_test(of_a_batch_repeated_in_part_the_rest_is_stored),
        part_test(a_refused_publish_does_not_make_its_ids_known),
        part_test(no_memory_leaves_no_trace),
        part_test(expectations_that_make_no_sense_are_refused),
        part_test(a_long_key_is_named_by_its_hash),
        part_test(random_publishes_are_as_a_simple_table_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
