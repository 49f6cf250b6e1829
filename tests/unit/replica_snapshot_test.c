/* Snapshots: to a member with nothing, over a network that loses and repeats, with crashes in the
 * middle and leaders that change; and that nothing of half a one is ever used (E23). */
#include "lib/replica_cluster.h"

#include <stdio.h>

#include "lib/partition_fixture.h"
#include "partition/peer_item.h"

static void produce_many(struct cluster *c, uint64_t first, uint64_t count, size_t bytes)
{
    for (uint64_t i = 0; i < count; i++) {
        struct ferry_id id = part_id(first + i);
        replicas_produce(
            c, &(struct cluster_batch){.content = first + i, .payload_bytes = bytes, .ids = &id});
    }
}

/* Three nodes with so little retention that who was away for a while is behind the trim. */
static struct cluster *trimming(uint64_t seed)
{
    struct cluster *c = replicas_new(3, seed);
    c->settings = (struct topic_settings){
        .retention_ms = -1, .retention_bytes = 60000, .dedupe_window_ms = INT32_MAX};
    for (int i = 0; i < 3; i++) {
        replicas_start(c, i);
    }
    return c;
}

/* A subscription and how far it is: a small table that points into the others. */
static void commit_subscription(struct cluster *c, bool create)
{
    struct bytes name = bytes_of_string("readers");
    int leader = replicas_wait_leader(c);
    struct partition *p = c->nodes[leader].p;
    struct partition_ticket *t = replicas_ticket(c, leader);
    enum ferry_err err =
        create ? partition_subscription_create(p, name, SUBSCRIPTION_STREAM, FERRY_FROM_START,
                                               c->now_ms, c->now_us, t)
               : partition_subscription_commit(p, name, partition_end_offset(p), c->now_ms,
                                               c->now_us, t);
    assert_int_equal(err, FERRY_OK);
    replicas_run_ms(c, 500);
}

/* Any follower, down since before the first batch that is still there. */
static int leave_one_behind(struct cluster *c)
{
    int leader = replicas_wait_leader(c);
    int away = (leader + 1) % 3;
    commit_subscription(c, true);
    replicas_crash(c, away);
    for (uint64_t round = 0; round < 5; round++) {
        produce_many(c, 1 + round * 40, 40, 1000);
        commit_subscription(c, false);
        replicas_run_ms(c, 1500); /* Retention looks once a second. */
    }
    leader = replicas_wait_leader(c);
    assert_true(replica_first_index(replicas_replica(c, leader)) > 60);
    return away;
}

static void wait_for_state(struct cluster *c, int i, enum replica_state state)
{
    for (int k = 0; k < 2000 && replica_state(replicas_replica(c, i)) != state; k++) {
        replicas_run_ms(c, 5);
    }
    assert_int_equal(replica_state(replicas_replica(c, i)), state);
}

static void expect_all_same(struct cluster *c)
{
    replicas_settle(c);
    replicas_compare(c);
    uint64_t rows = 0;
    for (int i = 0; i < c->count; i++) {
        (void)replicas_rows_hash(c, i, &rows);
        assert_true(rows > 400); /* Two for each id: they came along. */
    }
}

static void a_member_behind_the_trim_gets_a_snapshot(void **state)
{
    (void)state;
    struct cluster *c = trimming(1);
    int away = leave_one_behind(c);
    replicas_start(c, away);
    wait_for_state(c, away, REPLICA_INSTALLING);
    wait_for_state(c, away, REPLICA_FOLLOWING);
    assert_true(replica_first_index(replicas_replica(c, away)) > 60);
    expect_all_same(c);
    /* It is a member like any other: the others go, one by one. */
    for (int i = 0; i < 3; i++) {
        replicas_crash(c, i);
        produce_many(c, 1000 + 10 * (uint64_t)i, 10, 100);
        replicas_start(c, i);
        replicas_run_ms(c, 1000);
    }
    expect_all_same(c);
    replicas_free(c);
}

/* What the others remember as repeats is a repeat for it, too. */
static void a_repeat_is_known_to_who_got_a_snapshot(void **state)
{
    (void)state;
    struct cluster *c = trimming(2);
    int away = leave_one_behind(c);
    replicas_start(c, away);
    expect_all_same(c);
    int leader = replicas_wait_leader(c);
    assert_int_not_equal(leader, away);
    assert_int_equal(replica_transfer(replicas_replica(c, leader), c->nodes[away].self, c->now_us),
                     FERRY_OK);
    replicas_run_ms(c, 1000);
    assert_int_equal(replicas_leader(c), away);
    struct ferry_id id = part_id(3); /* Dropped from the log long ago. */
    enum ferry_err err = FERRY_OK;
    struct partition_ticket *t =
        replicas_send(c, away, &(struct cluster_batch){.content = 7, .ids = &id}, &err);
    assert_non_null(t);
    replicas_run_ms(c, 500);
    assert_int_equal(t->duplicate_count, 1);
    replicas_free(c);
}

static void fence_source(struct cluster *c, const struct ferry_id *source, uint64_t epoch)
{
    struct source_fence_request q = {.source = *source, .epoch = epoch};
    int leader = replicas_wait_leader(c);
    struct partition_ticket *t = replicas_ticket(c, leader);
    assert_int_equal(partition_source_fence(c->nodes[leader].p, &q, c->now_ms, c->now_us, t, NULL),
                     FERRY_OK);
    replicas_run_ms(c, 500);
}

/* The fence's entry is trimmed away; the cursor that it made has version 0. */
static void a_fence_is_known_to_who_got_a_snapshot(void **state)
{
    (void)state;
    struct cluster *c = trimming(4);
    struct ferry_id source = part_id(77);
    struct cursor_get_reply cursor;
    struct append_cas_refusal refusal;
    fence_source(c, &source, 5);
    int away = leave_one_behind(c);
    replicas_start(c, away);
    expect_all_same(c);
    int leader = replicas_wait_leader(c);
    assert_int_equal(replica_transfer(replicas_replica(c, leader), c->nodes[away].self, c->now_us),
                     FERRY_OK);
    replicas_run_ms(c, 1000);
    assert_int_equal(replicas_leader(c), away);
    partition_cursor_get(c->nodes[away].p, &source, 0, &cursor);
    assert_int_equal(cursor.version, 0);
    assert_int_equal(cursor.epoch, 5);
    struct append_cas older = {.source = source, .epoch = 4};
    assert_int_equal(partition_append_cas(c->nodes[away].p, &older, c->now_ms, c->now_us,
                                          replicas_ticket(c, away), &refusal, NULL),
                     FERRY_ERR_SOURCE_FENCED);
    replicas_free(c);
}

/* A wiped folder comes back as another member, by configuration, with no memory of its votes. */
static void a_new_member_with_an_empty_folder_is_filled(void **state)
{
    (void)state;
    struct cluster *c = trimming(3);
    int away = leave_one_behind(c);
    struct raft_members had = *replica_members(replicas_replica(c, replicas_wait_leader(c)));
    raft_id old = c->nodes[away].self;
    replicas_wipe(c, away);
    replicas_start(c, away);
    assert_int_not_equal(c->nodes[away].self, old);
    struct raft_members learning = had;
    learning.learner_count = 1;
    learning.learners[0] = c->nodes[away].self;
    int leader = replicas_wait_leader(c);
    assert_int_equal(replica_configure(replicas_replica(c, leader), &learning, c->now_us),
                     FERRY_OK);
    wait_for_state(c, away, REPLICA_INSTALLING);
    wait_for_state(c, away, REPLICA_FOLLOWING);
    struct raft_members wanted = replicas_members(c, (int[]){0, 1, 2}, 3);
    replicas_run_ms(c, 1000);
    leader = replicas_wait_leader(c);
    assert_int_equal(replica_configure(replicas_replica(c, leader), &wanted, c->now_us), FERRY_OK);
    expect_all_same(c);
    for (int i = 0; i < 3; i++) {
        assert_true(raft_members_equal(replica_members(replicas_replica(c, i)), &wanted));
    }
    replicas_free(c);
}

/* Lost, delayed, out of order: a chunk that is not the next one changes nothing. */
static void a_snapshot_arrives_over_a_lossy_network(void **state)
{
    (void)state;
    struct cluster *c = trimming(4);
    int away = leave_one_behind(c);
    replicas_start(c, away);
    c->loss_percent = 30;
    replicas_run_ms(c, 20000);
    c->loss_percent = 0;
    expect_all_same(c);
    replicas_free(c);
}

static bool is_snapshot(const struct peer_item *item)
{
    return item->kind >= PEER_SNAPSHOT_BEGIN && item->kind <= PEER_SNAPSHOT_END;
}

/* Delivers every chunk twice, and once more after its successor. */
struct repeating {
    int to;
    uint8_t kind;
    struct buf before;
};

static bool repeat_chunks(struct cluster *c, int from, int to, const struct peer_item *item)
{
    struct repeating *r = c->filter_arg;
    if (to != r->to || !is_snapshot(item)) {
        return true;
    }
    (void)from;
    struct replica *replica = replicas_replica(c, to);
    (void)!replica_receive(replica, item, c->now_us);
    if (r->before.size > 0) {
        struct peer_item old = *item;
        old.kind = r->kind;
        old.body = buf_bytes(&r->before);
        (void)!replica_receive(replica, &old, c->now_us);
    }
    buf_clear(&r->before);
    buf_append_bytes(&r->before, item->body);
    r->kind = item->kind;
    c->counter++;
    return true;
}

static void chunks_that_come_twice_or_late_are_not_taken_again(void **state)
{
    (void)state;
    struct cluster *c = trimming(5);
    struct repeating r = {.to = leave_one_behind(c)};
    buf_init(&r.before, PEER_FRAME_MAX_BYTES);
    c->filter = repeat_chunks;
    c->filter_arg = &r;
    replicas_start(c, r.to);
    expect_all_same(c);
    assert_true(c->counter >= 4); /* BEGIN, rows, entries, END. */
    c->filter = NULL;
    buf_fini(&r.before);
    replicas_free(c);
}

/* The receiver ends after its n-th turn of installing, with or without its transaction; for every
 * n. Half a snapshot on disk is marked, votes for nobody and becomes whole. */
static void a_crash_in_the_middle_of_an_install_starts_it_over(void **state)
{
    (void)state;
    int crashed = 0;
    for (int turns = 1; turns < 14; turns++) {
        struct cluster *c = trimming(100 + (uint64_t)turns);
        int away = leave_one_behind(c);
        replicas_start(c, away);
        wait_for_state(c, away, REPLICA_INSTALLING);
        for (int i = 0; i < turns && c->nodes[away].store != NULL; i++) {
            replicas_run_ms(c, CLUSTER_STEP_US / 1000);
        }
        if (replica_state(replicas_replica(c, away)) == REPLICA_INSTALLING) {
            replicas_turn(c, away, turns % 2 == 0 ? CRASH_WITHOUT_COMMIT : CRASH_AFTER_COMMIT);
            if (c->nodes[away].store != NULL) {
                replicas_crash(c, away);
            }
            replicas_start(c, away);
            enum replica_state now = replica_state(replicas_replica(c, away));
            assert_true(now == REPLICA_INSTALLING || now == REPLICA_FOLLOWING);
            crashed += now == REPLICA_INSTALLING;
        }
        expect_all_same(c);
        replicas_free(c);
    }
    assert_true(crashed > 3);
}

static bool count_chunks(struct cluster *c, int from, int to, const struct peer_item *item)
{
    (void)from;
    (void)to;
    c->counter += is_snapshot(item);
    return true;
}

/* The leader dies with the snapshot half sent: the next one begins another. */
static void a_new_leader_begins_the_snapshot_anew(void **state)
{
    (void)state;
    for (uint64_t chunks = 1; chunks < 4; chunks++) {
        struct cluster *c = trimming(200 + chunks);
        int away = leave_one_behind(c);
        int leader = replicas_wait_leader(c);
        c->filter = count_chunks;
        replicas_start(c, away);
        for (int i = 0; i < 2000 && c->counter < chunks; i++) {
            replicas_run_ms(c, 5);
        }
        assert_true(c->counter >= chunks);
        replicas_crash(c, leader);
        assert_int_equal(replica_state(replicas_replica(c, away)), REPLICA_INSTALLING);
        /* It votes by the log that it had: the third member leads, whatever becomes of the first.
         */
        replicas_run_ms(c, 5000);
        int next = replicas_leader(c);
        assert_true(next >= 0 && next != leader && next != away);
        replicas_start(c, leader);
        expect_all_same(c);
        replicas_free(c);
    }
}

/* An older leader's snapshot, and one that says less than is here, change nothing. */
static bool replay_begin(struct cluster *c, int from, int to, const struct peer_item *item)
{
    struct repeating *r = c->filter_arg;
    (void)from;
    if (to == r->to && item->kind == PEER_SNAPSHOT_BEGIN && r->before.size == 0) {
        buf_append_bytes(&r->before, item->body);
    }
    return true;
}

static void a_snapshot_older_than_the_log_is_not_installed(void **state)
{
    (void)state;
    struct cluster *c = trimming(6);
    struct repeating r = {.to = leave_one_behind(c)};
    buf_init(&r.before, PEER_FRAME_MAX_BYTES);
    c->filter = replay_begin;
    c->filter_arg = &r;
    replicas_start(c, r.to);
    expect_all_same(c);
    c->filter = NULL;
    assert_true(r.before.size > 0);
    struct replica *replica = replicas_replica(c, r.to);
    uint64_t applied = replica_applied(replica);
    struct peer_item item = {.group = CLUSTER_GROUP,
                             .kind = PEER_SNAPSHOT_BEGIN,
                             .from = c->nodes[(r.to + 1) % 3].self,
                             .body = buf_bytes(&r.before)};
    assert_int_equal(replica_receive(replica, &item, c->now_us), FERRY_OK);
    assert_int_equal(replica_state(replica), REPLICA_FOLLOWING);
    replicas_run_ms(c, 1000);
    assert_true(replica_applied(replica) >= applied);
    buf_fini(&r.before);
    expect_all_same(c);
    replicas_free(c);
}

/* A chunk with one flipped byte anywhere ends in nothing worse than another try. */
static bool flip_once(struct cluster *c, int from, int to, const struct peer_item *item)
{
    struct repeating *r = c->filter_arg;
    (void)from;
    if (to != r->to || !is_snapshot(item) || item->body.size < 32 || prng_below(&c->prng, 3) != 0) {
        return true;
    }
    struct peer_item bad = *item;
    buf_clear(&r->before);
    buf_append_bytes(&r->before, item->body);
    r->before.data[24 + prng_below(&c->prng, item->body.size - 24)] ^= 0x40;
    bad.body = buf_bytes(&r->before);
    if (item->kind == PEER_SNAPSHOT_ENTRIES || item->kind == PEER_SNAPSHOT_END) {
        (void)!replica_receive(replicas_replica(c, to), &bad, c->now_us);
        c->counter++;
    }
    return true;
}

static void a_damaged_chunk_is_not_installed(void **state)
{
    (void)state;
    for (uint64_t seed = 300; seed < 310; seed++) {
        struct cluster *c = trimming(seed);
        struct repeating r = {.to = leave_one_behind(c)};
        buf_init(&r.before, PEER_FRAME_MAX_BYTES);
        c->filter = flip_once;
        c->filter_arg = &r;
        replicas_start(c, r.to);
        expect_all_same(c);
        c->filter = NULL;
        buf_fini(&r.before);
        replicas_free(c);
    }
}

/* Ten thousand ids and large batches: many chunks, tables by key over many turns, while more comes
 * in. */
static void a_large_snapshot_is_sent_while_batches_come_in(void **state)
{
    (void)state;
    struct cluster *c = replicas_new(3, 7);
    c->settings = (struct topic_settings){
        .retention_ms = -1, .retention_bytes = 6 << 20, .dedupe_window_ms = INT32_MAX};
    for (int i = 0; i < 3; i++) {
        replicas_start(c, i);
    }
    int away = (replicas_wait_leader(c) + 1) % 3;
    replicas_crash(c, away);
    static struct ferry_id ids[1000];
    for (uint64_t round = 0; round < 40; round++) {
        for (uint64_t i = 0; i < 1000; i++) {
            ids[i] = part_id(round * 1000 + i + 1);
        }
        replicas_produce(c, &(struct cluster_batch){
                                .content = round, .count = 1000, .ids = ids, .payload_bytes = 300});
        replicas_run_ms(c, 300);
    }
    c->filter = count_chunks;
    replicas_start(c, away);
    for (uint64_t round = 0; round < 20; round++) {
        ids[0] = part_id(100000 + round);
        replicas_produce(c, &(struct cluster_batch){.content = round, .count = 1, .ids = ids});
    }
    expect_all_same(c);
    assert_true(c->counter > 12);
    replicas_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_member_behind_the_trim_gets_a_snapshot),
        cmocka_unit_test(a_repeat_is_known_to_who_got_a_snapshot),
        cmocka_unit_test(a_fence_is_known_to_who_got_a_snapshot),
        cmocka_unit_test(a_new_member_with_an_empty_folder_is_filled),
        cmocka_unit_test(a_snapshot_arrives_over_a_lossy_network),
        cmocka_unit_test(chunks_that_come_twice_or_late_are_not_taken_again),
        cmocka_unit_test(a_crash_in_the_middle_of_an_install_starts_it_over),
        cmocka_unit_test(a_new_leader_begins_the_snapshot_anew),
        cmocka_unit_test(a_snapshot_older_than_the_log_is_not_installed),
        cmocka_unit_test(a_damaged_chunk_is_not_installed),
        cmocka_unit_test(a_large_snapshot_is_sent_while_batches_come_in),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
