/* Topics that grow while rows wait: each row comes once, and in the order of its key. */
#include "relay_fixture.h"

#include "outbox/sqlite/cursor.h"

static void grow(struct rig *g, const char *topic, int32_t partitions)
{
    struct fake_topic *t = fake_topic(&g->fake, topic);
    for (int32_t p = t->partitions; p < partitions; p++) {
        t->partition[p].records = calloc(FAKE_RECORDS_MAX, sizeof(struct fake_record));
    }
    t->partitions = partitions;
}

static void restart(struct rig *g, int who)
{
    rig_kill_relay(g, true);
    g->fake.now_us = g->fake.lease_until_us + 1;
    rig_start_relay(g, who);
}

static size_t records(struct rig *g, int partition)
{
    return fake_topic(&g->fake, "orders")->partition[partition].count;
}

/* Rows of which the checkpoint does not know yet are in the log; the next relay begins before them
 * and the topic has more partitions. */
static void rows_placed_before_are_not_doubled_by_a_restart(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 2);
    rig_put(g, "orders", 1, 50, 7);
    rig_drain(g);
    assert_int_equal(g->fake.checkpoint_bytes, RELAY_KEPT_HEAD); /* No place in it. */
    grow(g, "orders", 4);
    restart(g, 2);
    rig_put(g, "orders", 51, 100, 7);
    rig_drain(g);
    rig_expect(g, "orders", 1, 100, 0);
    rig_run(g, 3000);
    rig_put(g, "orders", 101, 200, 7);
    rig_drain(g);
    rig_expect(g, "orders", 1, 200, 0);
    assert_true(records(g, 2) > 0 && records(g, 3) > 0); /* In the end all are used. */
}

/* While batches are on their way the old number stays; a restart at any moment changes nothing. */
static void it_may_grow_at_any_moment(void **state)
{
    struct rig *g = *state;
    int last = 0;
    fake_create(&g->fake, "orders", 1);
    for (int i = 0; i < 60; i++) {
        rig_put(g, "orders", last + 1, last + 40, 7);
        last += 40;
        for (int n = 0; n < 2 + i * 17 % 1500; n++) {
            rig_step(g);
            if (n % 3 == 2) {
                fake_answer(&g->link);
            }
        }
        if (i % 20 == 5) {
            grow(g, "orders", fake_topic(&g->fake, "orders")->partitions + 1);
        }
        if (i % 4 == 3) {
            restart(g, 10 + i);
        }
    }
    rig_drain(g);
    rig_expect(g, "orders", 1, last, 0);
    rig_run(g, 3000);
    rig_put(g, "orders", last + 1, last + 100, 7);
    rig_drain(g);
    rig_expect(g, "orders", 1, last + 100, 0);
    assert_true(records(g, 3) > 0);
}

/* A relay of before has left its marks bare: it placed by the number that the topic has. */
static void marks_of_before_are_read(void **state)
{
    struct rig *g = *state;
    struct fake_topic *t = fake_create(&g->fake, "orders", 1);
    rig_put(g, "orders", 1, 20, 7);
    const struct source_cursor cursor = {.position = 12};
    uint8_t bare[CURSOR_BYTES];
    cursor_encode(&cursor, bare);
    memcpy(t->partition[0].cursor.blob, bare, sizeof(bare));
    t->partition[0].cursor.blob_bytes = CURSOR_BYTES;
    t->partition[0].cursor.version = 3;
    rig_drain(g);
    rig_expect(g, "orders", 13, 20, 0);
    struct err_text e;
    struct source_cursor old;
    assert_int_equal(
        cursor_decode(bytes_of(t->partition[0].cursor.blob, t->partition[0].cursor.blob_bytes),
                      &old, &e),
        FERRY_ERR_NEWER_FORMAT); /* What a relay of before says to ours. */
}

/* While a row waits for a topic that is missing nothing changes over, and nothing stands still. */
static void rows_go_on_while_it_cannot_change_over(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 2);
    rig_put(g, "missing", 1, 1, 1);
    rig_put(g, "orders", 2, 50, 7);
    rig_run(g, 1500);
    grow(g, "orders", 4);
    rig_run(g, 3000);
    rig_put(g, "orders", 51, 100, 7);
    rig_run(g, 1000);
    rig_expect(g, "orders", 2, 100, 0);
    assert_int_equal(records(g, 2) + records(g, 3), 0);
    restart(g, 2);
    rig_run(g, 3000);
    rig_expect(g, "orders", 2, 100, 0);
    fake_create(&g->fake, "missing", 1);
    rig_run(g, 5000);
    rig_put(g, "orders", 101, 200, 7);
    rig_drain(g);
    rig_expect(g, "orders", 2, 200, 0);
    assert_true(records(g, 2) > 0 && records(g, 3) > 0);
}

static enum ferry_err remembered_partitions(void *ctx, const char *topic, int timeout_ms,
                                            int32_t *partitions)
{
    (void)ctx;
    (void)topic;
    (void)timeout_ms;
    *partitions = 2;
    return FERRY_OK;
}

/* A relay was in office before the topic grew, and is again: what its client remembers is not the
 * number by which the one between placed rows. */
static void the_number_is_asked_anew_by_who_is_elected(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 4);
    rig_put(g, "orders", 1, 50, 7);
    rig_drain(g);
    restart(g, 2);
    g->broker.partitions = remembered_partitions;
    g->broker.partitions_now = fake_partitions;
    rig_put(g, "orders", 51, 100, 7);
    rig_drain(g);
    rig_expect(g, "orders", 1, 100, 0);
    assert_true(records(g, 2) > 0 && records(g, 3) > 0);
}

/* A topic that was deleted, and of which no row comes, keeps no other from being looked at. */
static void a_deleted_topic_keeps_no_other_from_growing(void **state)
{
    struct rig *g = *state;
    struct fake_topic *gone = fake_create(&g->fake, "a", 1);
    fake_create(&g->fake, "orders", 2);
    rig_put(g, "a", 1, 1, 1);
    rig_put(g, "orders", 2, 50, 7);
    rig_drain(g);
    gone->partitions = 0;
    grow(g, "orders", 4);
    rig_run(g, 3000);
    rig_put(g, "orders", 51, 100, 7);
    rig_drain(g);
    gone->partitions = 1; /* For the teardown. */
    rig_expect(g, "orders", 2, 100, 0);
    assert_true(records(g, 2) > 0 && records(g, 3) > 0);
}

static enum ferry_err no_tidy(void *driver, const struct source_progress *progress, size_t *removed,
                              bool *again, struct err_text *e)
{
    (void)driver;
    (void)progress;
    (void)removed;
    (void)again;
    return err_set(e, FERRY_ERR_DB, "the disk is full");
}

/* Nothing can be deleted: then it does not change over, and publishes. */
static void rows_go_on_while_nothing_can_be_deleted(void **state)
{
    struct rig *g = *state;
    const struct source_ops *real = g->source.ops;
    struct source_ops ops = *real;
    fake_create(&g->fake, "orders", 2);
    rig_put(g, "orders", 1, 50, 7);
    rig_drain(g);
    ops.tidy = no_tidy;
    g->source.ops = &ops;
    grow(g, "orders", 4);
    rig_run(g, 3000);
    rig_put(g, "orders", 51, 100, 7);
    rig_run(g, 3000);
    rig_expect(g, "orders", 1, 100, 0);
    g->source.ops = real;
    rig_run(g, 3000);
    rig_put(g, "orders", 101, 200, 7);
    rig_drain(g);
    rig_expect(g, "orders", 1, 200, 0);
    assert_true(records(g, 2) > 0 && records(g, 3) > 0);
}

/* Partition 0 of each topic does not answer: each question takes as long as it may. */
static enum ferry_err silent_cursor(void *ctx, const char *topic, int32_t partition, int timeout_ms,
                                    struct ferry_cursor *cursor)
{
    struct fake_link *link = ctx;
    if (partition == 0) {
        link->fake->now_us += (int64_t)timeout_ms * 1000;
        return FERRY_ERR_TIMEOUT;
    }
    return fake_cursor(ctx, topic, partition, timeout_ms, cursor);
}

static enum ferry_err silent_partitions(void *ctx, const char *topic, int timeout_ms,
                                        int32_t *partitions)
{
    const struct fake_link *link = ctx;
    link->fake->now_us += (int64_t)timeout_ms * 1000;
    return fake_partitions(ctx, topic, timeout_ms, partitions);
}

static size_t count_rows(struct rig *g, const char *topic)
{
    return fake_topic(&g->fake, topic)->partition[1].count;
}

/* Partitions that do not answer cost no relay its lease, and other partitions nothing. */
static void others_go_on_beside_partitions_that_do_not_answer(void **state)
{
    static const char *const topics[] = {"a", "b", "c", "orders"};
    struct rig *g = *state;
    for (int i = 0; i < 4; i++) {
        fake_create(&g->fake, topics[i], 2);
        rig_put(g, topics[i], 10 * i + 1, 10 * i + 10, 2);
    }
    rig_drain(g);
    restart(g, 2);
    g->broker.cursor = silent_cursor;
    g->broker.partitions_now = silent_partitions;
    for (int i = 0; i < 4; i++) {
        rig_put(g, topics[i], 100 + 10 * i, 109 + 10 * i, 2);
    }
    rig_run(g, 30000);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(count_rows(g, topics[i]), 10);
    }
    assert_in_range(rig_status(g).stats.elections, 1, 3);
    g->broker.cursor = fake_cursor;
    rig_drain(g);
}

static int fences[FAKE_PARTITIONS];

static enum ferry_err count_fence(void *ctx, const char *topic, int32_t partition, uint64_t version,
                                  int timeout_ms)
{
    fences[partition]++;
    return fake_fence(ctx, topic, partition, version, timeout_ms);
}

/* An append of the relay before may still be on its way, unless some mark tells all. */
static void partitions_are_fenced_when_the_number_is_in_doubt(void **state)
{
    struct rig *g = *state;
    fake_create(&g->fake, "orders", 2);
    memset(fences, 0, sizeof(fences));
    g->broker.fence = count_fence;
    rig_put(g, "orders", 1, 20, 7);
    rig_drain(g);
    assert_int_equal(fences[0] + fences[1], 2); /* Nothing was there. */
    restart(g, 2);
    g->broker.fence = count_fence;
    rig_put(g, "orders", 21, 40, 7);
    rig_drain(g);
    assert_int_equal(fences[0] + fences[1], 2); /* A mark says 2. */
    grow(g, "orders", 4);
    restart(g, 3);
    g->broker.fence = count_fence;
    rig_put(g, "orders", 41, 60, 7);
    rig_drain(g);
    for (int p = 0; p < 4; p++) {
        assert_int_equal(fences[p], p < 2 ? 2 : 1);
    }
    rig_expect(g, "orders", 1, 60, 0);
}

static void a_mark_comes_back(void **state)
{
    (void)state;
    struct relay_kept_blob blob;
    struct bytes mark;
    struct err_text e;
    int32_t partitions = 0;
    relay_kept_mark_encode(1000, bytes_of_string("the driver's"), &blob);
    assert_int_equal(relay_kept_mark_decode(bytes_of(blob.data, blob.size), &partitions, &mark, &e),
                     FERRY_OK);
    assert_int_equal(partitions, 1000);
    assert_true(bytes_equal(mark, bytes_of_string("the driver's")));
    for (size_t size = 2; size < RELAY_KEPT_MARK_HEAD; size++) {
        assert_int_equal(relay_kept_mark_decode(bytes_of(blob.data, size), &partitions, &mark, &e),
                         FERRY_ERR_CORRUPT);
    }
    blob.data[1]++;
    assert_int_equal(relay_kept_mark_decode(bytes_of(blob.data, blob.size), &partitions, &mark, &e),
                     FERRY_ERR_NEWER_FORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(rows_placed_before_are_not_doubled_by_a_restart),
        RIG_TEST(it_may_grow_at_any_moment),
        RIG_TEST(marks_of_before_are_read),
        RIG_TEST(rows_go_on_while_it_cannot_change_over),
        RIG_TEST(the_number_is_asked_anew_by_who_is_elected),
        RIG_TEST(a_deleted_topic_keeps_no_other_from_growing),
        RIG_TEST(rows_go_on_while_nothing_can_be_deleted),
        RIG_TEST(others_go_on_beside_partitions_that_do_not_answer),
        RIG_TEST(partitions_are_fenced_when_the_number_is_in_doubt),
        cmocka_unit_test(a_mark_comes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
