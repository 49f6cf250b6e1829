/* Delayed and recurring messages and versions on three replicas: once each, whoever leads, crashes
 * or is filled by a snapshot meanwhile; and the tables are the same bytes everywhere. */
#include <stdlib.h>

#include "base/mem.h"
#include "lib/partition_fixture.h"
#include "lib/replica_cluster.h"

#define CONTENTS_MAX 20000u

static struct cluster *three(uint64_t seed, int64_t retention_bytes)
{
    struct cluster *c = replicas_new(3, seed);
    c->settings = (struct topic_settings){
        .retention_ms = -1, .retention_bytes = retention_bytes, .dedupe_window_ms = INT32_MAX};
    for (int i = 0; i < 3; i++) {
        replicas_start(c, i);
    }
    return c;
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Contents 0 .. count - 1, each once, at every node; in whatever order. */
static void expect_each_once(struct cluster *c, uint64_t count)
{
    uint64_t *contents = mem_zalloc(CONTENTS_MAX, sizeof(*contents));
    assert_non_null(contents);
    for (int i = 0; i < c->count; i++) {
        size_t got = replicas_contents(c, i, contents, CONTENTS_MAX);
        qsort(contents, got, sizeof(*contents), by_value);
        for (size_t k = 0; k < got && k < count; k++) {
            if (contents[k] != k) {
                fail_msg("seed %llu: node %d has %llu where %zu should be",
                         (unsigned long long)c->seed, i, (unsigned long long)contents[k], k);
            }
        }
        assert_int_equal(got, count);
    }
    mem_free(contents);
}

static uint64_t waiting_at(struct cluster *c, int leader)
{
    static const struct schedule_list_request first_page;
    struct schedule_list_reply *reply = mem_zalloc(1, sizeof(*reply));
    assert_non_null(reply);
    assert_int_equal(store_read_begin(c->nodes[leader].store), FERRY_OK);
    assert_int_equal(partition_schedule_list(c->nodes[leader].p, &first_page, reply), FERRY_OK);
    store_read_end(c->nodes[leader].store);
    uint64_t total = reply->total;
    assert_true(reply->count == total || total > SCHEDULE_LIST_MAX);
    mem_free(reply);
    return total;
}

static void transfer(struct cluster *c, int to)
{
    for (int tries = 0; tries < 20 && replicas_leader(c) != to; tries++) {
        int leader = replicas_wait_leader(c);
        (void)!replica_transfer(replicas_replica(c, leader), c->nodes[to].self, c->now_us);
        replicas_run_ms(c, 500);
    }
    assert_int_equal(replicas_leader(c), to);
}

/* ---- Delayed ---- */

static void a_new_leader_does_not_release_again(void **state)
{
    (void)state;
    struct cluster *c = three(1, -1);
    int first = replicas_wait_leader(c);
    replicas_produce(c, &(struct cluster_batch){.count = 5, .due = c->now_ms + 500});
    replicas_run_ms(c, 2000);
    transfer(c, (first + 1) % 3);
    replicas_run_ms(c, 3000);
    assert_int_equal(waiting_at(c, (first + 1) % 3), 0);
    replicas_settle(c);
    replicas_compare(c);
    expect_each_once(c, 5);
    replicas_free(c);
}

static void a_new_leader_releases_what_its_predecessor_could_not(void **state)
{
    (void)state;
    struct cluster *c = three(2, -1);
    int first = replicas_wait_leader(c);
    replicas_produce(c, &(struct cluster_batch){.count = 5, .due = c->now_ms + 3000});
    replicas_run_ms(c, 100);
    replicas_crash(c, first);
    replicas_run_ms(c, 6000);
    assert_int_equal(waiting_at(c, replicas_wait_leader(c)), 0);
    replicas_start(c, first);
    replicas_settle(c);
    replicas_compare(c);
    expect_each_once(c, 5);
    replicas_free(c);
}

/* Proposed by a leader that nobody hears any more: what it proposed is cut, another does it. */
static void a_release_that_was_cut_off_comes_from_the_next_leader(void **state)
{
    (void)state;
    struct cluster *c = three(3, -1);
    int first = replicas_wait_leader(c);
    replicas_produce(c, &(struct cluster_batch){.count = 5, .due = c->now_ms + 1000});
    replicas_run_ms(c, 300);
    replicas_isolate(c, first, true);
    replicas_run_ms(c, 5000); /* It proposes the release to itself; then a quorum elects another. */
    assert_int_not_equal(replicas_wait_leader(c), first);
    replicas_isolate(c, first, false);
    replicas_run_ms(c, 1000);
    replicas_settle(c);
    replicas_compare(c);
    expect_each_once(c, 5);
    replicas_free(c);
}

static void shake(struct cluster *c)
{
    int node = (int)prng_below(&c->prng, 3);
    switch (prng_below(&c->prng, 5)) {
    case 0:
        replicas_crash(c, node);
        replicas_run_ms(c, (int64_t)prng_below(&c->prng, 1500));
        replicas_start(c, node);
        break;
    case 1:
        replicas_isolate(c, node, true);
        replicas_run_ms(c, (int64_t)prng_below(&c->prng, 2000));
        replicas_isolate(c, node, false);
        break;
    case 2:
        if (replicas_leader(c) >= 0) {
            node = replicas_leader(c);
            replicas_turn(c, node, CRASH_AFTER_COMMIT);
            replicas_run_ms(c, (int64_t)prng_below(&c->prng, 1500));
            replicas_start(c, node);
        }
        break;
    default:
        replicas_run_ms(c, (int64_t)prng_below(&c->prng, 400));
    }
}

static void due_exactly_once_over_failovers(void **state)
{
    (void)state;
    for (uint64_t seed = 10; seed < 14; seed++) {
        struct cluster *c = three(seed, -1);
        uint64_t sent = 0;
        c->loss_percent = 5;
        for (uint64_t i = 0; i < 25; i++) {
            uint32_t count = 1 + (uint32_t)prng_below(&c->prng, 20);
            int64_t delay = (int64_t)prng_below(&c->prng, 3000);
            replicas_produce(c, &(struct cluster_batch){.producer = 5,
                                                        .first_sequence = sent,
                                                        .count = count,
                                                        .content = sent,
                                                        .due = c->now_ms + delay});
            sent += count;
            shake(c);
        }
        c->loss_percent = 0;
        replicas_run_ms(c, 6000);
        assert_int_equal(waiting_at(c, replicas_wait_leader(c)), 0);
        replicas_settle(c);
        replicas_compare(c);
        expect_each_once(c, sent);
        replicas_free(c);
    }
}

/* ---- Snapshots ---- */

/* Rows go by key over many turns, so those that arrive are newer than the rest; entries that are
 * applied after it bring the same rows again, and take off what is gone already. */
static void a_snapshot_taken_while_messages_come_and_go_ends_the_same(void **state)
{
    (void)state;
    struct cluster *c = three(20, 300000);
    int away = (replicas_wait_leader(c) + 1) % 3;
    uint64_t sent = 0;
    replicas_crash(c, away);
    for (int i = 0; i < 60; i++) {
        replicas_produce(c, &(struct cluster_batch){.producer = 5,
                                                    .first_sequence = sent,
                                                    .count = 100,
                                                    .content = sent,
                                                    .payload_bytes = 200,
                                                    .due = c->now_ms + 3000 + 100 * i});
        sent += 100;
        replicas_run_ms(c, 50);
    }
    c->send_budget = 20000;
    replicas_start(c, away);
    for (int i = 0; i < 60; i++) {
        replicas_produce(c, &(struct cluster_batch){.producer = 5,
                                                    .first_sequence = sent,
                                                    .count = 20,
                                                    .content = sent,
                                                    .payload_bytes = 200,
                                                    .due = c->now_ms + 50 * i});
        sent += 20;
        replicas_run_ms(c, 50);
    }
    c->send_budget = 8u << 20;
    replicas_run_ms(c, 8000);
    replicas_settle(c);
    replicas_compare(c);
    transfer(c, away);
    assert_int_equal(waiting_at(c, away), 0);
    assert_int_equal(partition_end_offset(c->nodes[away].p), sent);
    replicas_free(c);
}

/* ---- Cancelling ---- */

static void what_a_confirmed_cancellation_named_never_comes(void **state)
{
    (void)state;
    for (uint64_t seed = 30; seed < 33; seed++) {
        struct cluster *c = three(seed, -1);
        uint64_t cancelled = 0;
        for (uint64_t i = 0; i < 12; i++) {
            int64_t due = c->now_ms + 200 + (int64_t)prng_below(&c->prng, 600);
            replicas_produce(c, &(struct cluster_batch){
                                    .producer = 5, .first_sequence = i, .content = i, .due = due});
            replicas_run_ms(c, (int64_t)prng_below(&c->prng, 800));
            int leader = replicas_wait_leader(c);
            struct schedule_cancel_request q = {.count = 1,
                                                .items = {{.due_ms = due, .number = i + 1}}};
            struct partition_ticket *t = replicas_ticket(c, leader);
            assert_int_equal(store_read_begin(c->nodes[leader].store), FERRY_OK);
            enum ferry_err err =
                partition_schedule_cancel(c->nodes[leader].p, &q, c->now_ms, c->now_us, t);
            store_read_end(c->nodes[leader].store);
            assert_int_equal(err, FERRY_OK);
            replicas_run_ms(c, 300);
            assert_true(list_is_empty(&t->base.node));
            assert_int_equal(t->base.err, FERRY_OK);
            cancelled += t->count;
            transfer(c, (leader + 1) % 3);
        }
        replicas_run_ms(c, 3000);
        replicas_settle(c);
        replicas_compare(c);
        assert_int_equal(partition_end_offset(c->nodes[0].p) + (int64_t)cancelled, 12);
        assert_true(cancelled > 0 && cancelled < 12);
        replicas_free(c);
    }
}

/* ---- Recurring ---- */

static void each_time_comes_once_over_failovers(void **state)
{
    (void)state;
    struct cluster *c = three(40, -1);
    int leader = replicas_wait_leader(c);
    struct batch_writer w;
    struct bytes batch;
    struct batch_record r = {.payload = bytes_of_string("12345678")};
    batch_writer_init(&w, 1000);
    assert_int_equal(batch_writer_add(&w, &r), FERRY_OK);
    assert_int_equal(batch_writer_finish(&w, 0, 0, 0, &batch), FERRY_OK);
    struct recurring_set_request q = {.name = bytes_of_string("tick"),
                                      .spec = bytes_of_string("@every 1s")};
    struct err_text e;
    assert_int_equal(partition_recurring_set(c->nodes[leader].p, &q, batch, c->now_ms, c->now_us,
                                             replicas_ticket(c, leader), &e),
                     FERRY_OK);
    batch_writer_fini(&w);
    int64_t start_ms = c->now_ms;
    replicas_run_ms(c, 300);
    for (int i = 0; i < 20; i++) {
        shake(c);
        replicas_run_ms(c, 700);
    }
    leader = replicas_wait_leader(c);
    struct recurring_list_reply *reply = mem_zalloc(1, sizeof(*reply));
    assert_non_null(reply);
    assert_int_equal(partition_recurring_list(c->nodes[leader].p, reply), FERRY_OK);
    int64_t end = partition_end_offset(c->nodes[leader].p);
    assert_int_equal(reply->items[0].fired, end);
    assert_true(end >= 10 && end <= (c->now_ms - start_ms) / 1000);
    mem_free(reply);
    q.spec = bytes_of_string("");
    assert_int_equal(partition_recurring_set(c->nodes[leader].p, &q, bytes_of(NULL, 0), c->now_ms,
                                             c->now_us, replicas_ticket(c, leader), &e),
                     FERRY_OK);
    replicas_settle(c);
    replicas_compare(c);
    replicas_free(c);
}

/* ---- Versions ---- */

static bool publish_at(struct cluster *c, int leader, uint64_t expect, struct bytes batch)
{
    struct publish_request q = {.count = 1, .expect = {{.version = expect}}};
    struct publish_refusal refusal;
    struct err_text e;
    struct partition_ticket *t = replicas_ticket(c, leader);
    assert_int_equal(store_read_begin(c->nodes[leader].store), FERRY_OK);
    enum ferry_err err =
        partition_publish(c->nodes[leader].p, &q, batch, c->now_ms, c->now_us, t, &refusal, &e);
    store_read_end(c->nodes[leader].store);
    uint32_t life = c->nodes[leader].life;
    for (int i = 0; err == FERRY_OK && i < 40 && !list_is_empty(&t->base.node); i++) {
        replicas_run_ms(c, 5);
        assert_int_equal(life, c->nodes[leader].life);
    }
    return err == FERRY_OK && list_is_empty(&t->base.node) && t->base.err == FERRY_OK;
}

static uint64_t version_at(struct cluster *c, int leader)
{
    uint64_t version = 0;
    assert_int_equal(store_read_begin(c->nodes[leader].store), FERRY_OK);
    assert_int_equal(partition_key_version(c->nodes[leader].p, bytes_of_string("key"), &version),
                     FERRY_OK);
    store_read_end(c->nodes[leader].store);
    return version;
}

/* Confirmed ones count once; of those with no answer, each once or not at all. */
static void a_version_counts_what_is_in_the_log_over_failovers(void **state)
{
    (void)state;
    struct cluster *c = three(50, 40000);
    struct batch_writer w;
    struct bytes batch;
    struct batch_record r = {
        .has_key = true, .key = bytes_of_string("key"), .payload = bytes_of_string("12345678")};
    uint64_t confirmed = 0;
    batch_writer_init(&w, 1000);
    assert_int_equal(batch_writer_add(&w, &r), FERRY_OK);
    assert_int_equal(batch_writer_finish(&w, 0, 0, 0, &batch), FERRY_OK);
    for (int i = 0; i < 60; i++) {
        int leader = replicas_wait_leader(c);
        uint64_t version = version_at(c, leader);
        assert_true(version >= confirmed);
        assert_int_equal(version, partition_end_offset(c->nodes[leader].p));
        confirmed = version + publish_at(c, leader, version, batch);
        if (i % 6 == 5) {
            shake(c);
        }
    }
    replicas_run_ms(c, 3000);
    replicas_settle(c);
    replicas_compare(c);
    assert_true(version_at(c, replicas_wait_leader(c)) >= confirmed);
    assert_true(confirmed > 40);
    batch_writer_fini(&w);
    replicas_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_leader_does_not_release_again),
        cmocka_unit_test(a_new_leader_releases_what_its_predecessor_could_not),
        cmocka_unit_test(a_release_that_was_cut_off_comes_from_the_next_leader),
        cmocka_unit_test(due_exactly_once_over_failovers),
        cmocka_unit_test(a_snapshot_taken_while_messages_come_and_go_ends_the_same),
        cmocka_unit_test(what_a_confirmed_cancellation_named_never_comes),
        cmocka_unit_test(each_time_comes_once_over_failovers),
        cmocka_unit_test(a_version_counts_what_is_in_the_log_over_failovers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
