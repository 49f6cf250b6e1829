/* Replicas of one partition, on real stores, over a network that delays and loses: election,
 * replication, restart, truncation, membership, transfer; and that all of them keep the same rows.
 */
#include "lib/replica_cluster.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "lib/partition_fixture.h"
#include "partition/replica_drop.h"

#define CONTENTS_MAX 20000

static uint64_t contents[2][CONTENTS_MAX];

static struct cluster *started(int count, uint64_t seed)
{
    struct cluster *c = replicas_new(count, seed);
    for (int i = 0; i < count; i++) {
        replicas_start(c, i);
    }
    return c;
}

static void produce_many(struct cluster *c, uint64_t first, uint64_t count, size_t bytes)
{
    for (uint64_t i = 0; i < count; i++) {
        replicas_produce(c, &(struct cluster_batch){.content = first + i, .payload_bytes = bytes});
    }
}

/* Every replica holds first..first + count - 1, in order, and no others. */
static void expect_contents(struct cluster *c, uint64_t first, uint64_t count)
{
    for (int i = 0; i < c->count; i++) {
        if (c->nodes[i].store == NULL) {
            continue;
        }
        assert_int_equal(replicas_contents(c, i, contents[0], CONTENTS_MAX), count);
        for (uint64_t k = 0; k < count; k++) {
            assert_int_equal(contents[0][k], first + k);
        }
    }
}

/* Three members elect one; what it is given is on all of them. */
static void a_batch_acknowledged_by_the_leader_is_on_every_replica(void **state)
{
    (void)state;
    struct cluster *c = started(3, 1);
    produce_many(c, 1000, 50, 0);
    replicas_settle(c);
    replicas_compare(c);
    expect_contents(c, 1000, 50);
    replicas_free(c);
}

/* A quarter of all frames is lost, and batches are larger than what one item holds. */
static void a_lossy_network_delays_and_loses_nothing(void **state)
{
    (void)state;
    struct cluster *c = started(5, 2);
    c->loss_percent = 25;
    produce_many(c, 1, 30, 300000);
    c->loss_percent = 0;
    replicas_settle(c);
    replicas_compare(c);
    replicas_free(c);
}

/* A leader that dies takes nothing with it that it acknowledged, and comes back as a follower. */
static void what_was_acknowledged_survives_its_leader(void **state)
{
    (void)state;
    struct cluster *c = started(3, 3);
    for (uint64_t round = 0; round < 5; round++) {
        produce_many(c, 100 + round * 10, 10, 0);
        int leader = replicas_leader(c);
        assert_true(leader >= 0);
        replicas_crash(c, leader);
        int next = replicas_wait_leader(c);
        assert_int_not_equal(next, leader);
        replicas_start(c, leader);
    }
    replicas_settle(c);
    replicas_compare(c);
    expect_contents(c, 100, 50);
    replicas_free(c);
}

/* All at once, with rows flushed or not. */
static void all_replicas_may_crash_and_go_on_from_disk(void **state)
{
    (void)state;
    struct cluster *c = started(3, 4);
    for (uint64_t round = 0; round < 4; round++) {
        produce_many(c, 1 + round * 7, 7, 0);
        if (round % 2 == 1) {
            replicas_run_ms(c, 2000);
        }
        for (int i = 0; i < 3; i++) {
            replicas_crash(c, i);
        }
        for (int i = 0; i < 3; i++) {
            replicas_start(c, i);
        }
    }
    replicas_settle(c);
    replicas_compare(c);
    expect_contents(c, 1, 28);
    replicas_free(c);
}

/* A leader cut off from the others goes on taking batches that never commit; they are not applied
 * anywhere, its tickets say that nobody knows, and its log becomes that of the others. */
static void what_a_cut_off_leader_took_is_cut_away(void **state)
{
    (void)state;
    struct cluster *c = started(3, 5);
    produce_many(c, 1, 5, 0);
    int old = replicas_leader(c);
    replicas_isolate(c, old, true);
    enum ferry_err err = FERRY_OK;
    for (uint64_t i = 0; i < 20; i++) {
        struct ferry_id id = part_id(i);
        (void)replicas_send(
            c, old, &(struct cluster_batch){.content = 900 + i, .ids = &id, .producer = i}, &err);
    }
    assert_int_equal(err, FERRY_OK);
    replicas_run_ms(c, 3000);
    assert_int_equal(c->nodes[old].failed, 20);
    assert_false(replica_is_ready(replicas_replica(c, old)));
    produce_many(c, 6, 5, 0);
    replicas_isolate(c, old, false);
    replicas_settle(c);
    replicas_compare(c);
    expect_contents(c, 1, 10);
    replicas_free(c);
}

/* Who does not lead says so, and that somebody else does. */
static void a_follower_refuses_with_not_leader(void **state)
{
    (void)state;
    struct cluster *c = started(3, 6);
    int leader = replicas_wait_leader(c);
    replicas_run_ms(c, 200);
    enum ferry_err err = FERRY_OK;
    for (int i = 0; i < 3; i++) {
        if (i != leader) {
            assert_null(replicas_send(c, i, &(struct cluster_batch){.content = 1}, &err));
            assert_int_equal(err, FERRY_ERR_NOT_LEADER);
            assert_int_equal(replica_leader(replicas_replica(c, i)), c->nodes[leader].self);
        }
    }
    for (int i = 0; i < 3; i++) {
        if (i != leader) {
            replicas_crash(c, i);
        }
    }
    replicas_run_ms(c, 3000); /* Alone it is nobody's leader. */
    assert_null(replicas_send(c, leader, &(struct cluster_batch){.content = 1}, &err));
    assert_int_equal(err, FERRY_ERR_NOT_READY);
    replicas_free(c);
}

/* Leadership goes where it is asked to go, and loses nothing. */
static void leadership_is_handed_over_on_request(void **state)
{
    (void)state;
    struct cluster *c = started(3, 7);
    produce_many(c, 1, 5, 0);
    for (int round = 0; round < 4; round++) {
        int leader = replicas_wait_leader(c);
        int to = (leader + 1) % 3;
        assert_int_equal(
            replica_transfer(replicas_replica(c, leader), c->nodes[to].self, c->now_us), FERRY_OK);
        replicas_run_ms(c, 500);
        assert_int_equal(replicas_leader(c), to);
        produce_many(c, 6 + (uint64_t)round, 1, 0);
    }
    replicas_settle(c);
    replicas_compare(c);
    expect_contents(c, 1, 9);
    replicas_free(c);
}

static void configure(struct cluster *c, const struct raft_members *m)
{
    for (int tries = 0; tries < 100; tries++) {
        int leader = replicas_wait_leader(c);
        enum ferry_err err = replica_configure(replicas_replica(c, leader), m, c->now_us);
        if (err == FERRY_OK) {
            return;
        }
        replicas_run_ms(c, 50);
    }
    fail_msg("the members cannot be changed");
}

static void wait_members(struct cluster *c, const struct raft_members *m)
{
    for (int tries = 0; tries < 400; tries++) {
        int leader = replicas_wait_leader(c);
        if (raft_members_equal(replica_members(replicas_replica(c, leader)), m) &&
            replica_applied(replicas_replica(c, leader)) ==
                replica_last_index(replicas_replica(c, leader))) {
            return;
        }
        replicas_run_ms(c, 25);
    }
    fail_msg("the members do not become what was asked for");
}

/* Whoever deletes a replica because it is no member any more waits until that is committed. */
static void members_in_force_are_final_once_they_are_committed(void **state)
{
    (void)state;
    struct cluster *c = replicas_new(4, 23);
    struct raft_members first = replicas_members(c, (int[]){0, 1, 2}, 3);
    for (int i = 0; i < 4; i++) {
        c->nodes[i].initial = i < 3 ? first : (struct raft_members){0};
        replicas_start(c, i);
    }
    produce_many(c, 1, 5, 0);
    int leader = replicas_wait_leader(c);
    struct raft_members learning = first;
    learning.learner_count = 1;
    learning.learners[0] = c->nodes[3].self;
    assert_true(replica_members_are_final(replicas_replica(c, leader)));
    replicas_isolate(c, leader, true);
    assert_int_equal(replica_configure(replicas_replica(c, leader), &learning, c->now_us),
                     FERRY_OK);
    replicas_run_ms(c, 100);
    assert_true(raft_members_equal(replica_members(replicas_replica(c, leader)), &learning));
    assert_false(replica_members_are_final(replicas_replica(c, leader)));
    replicas_isolate(c, leader, false);
    configure(c, &learning);
    wait_members(c, &learning);
    replicas_run_ms(c, 100);
    assert_true(replica_members_are_final(replicas_replica(c, replicas_wait_leader(c))));
    replicas_free(c);
}

/* As a shard does with a partition that is moved away. */
static void drop_data(struct cluster *c, int i)
{
    struct replica_drop drop = {.group = CLUSTER_GROUP};
    struct store *store = c->nodes[i].store;
    bool done = false;
    replica_fail(replicas_replica(c, i), FERRY_ERR_UNKNOWN_TOPIC);
    for (int steps = 0; !done; steps++) {
        assert_in_range(steps, 0, 1000);
        assert_int_equal(replica_drop_prepare(&drop, store), FERRY_OK);
        assert_int_equal(store_begin(store), FERRY_OK);
        assert_int_equal(replica_drop_write(&drop, store, &done), FERRY_OK);
        assert_int_equal(store_commit(store), FERRY_OK);
    }
}

static void cut_halves(struct cluster *c, bool cut)
{
    for (int a = 0; a < 4; a++) {
        for (int b = 0; b < 4; b++) {
            bool apart = (a == 1 || a == 2) != (b == 1 || b == 2);
            c->cut[a][b] = cut && apart;
        }
    }
}

/* {1, 2, 3} become {1, 2, 4}; node 2 is cut off meanwhile and knows nothing of it; node 3 deletes
 * its data, and is started again by one who has not heard either. By its old members node 2 has the
 * votes of two of three, and lacks what the others acknowledge. */
static void a_member_that_dropped_its_data_helps_nobody_who_lacks_what_it_had(void **state)
{
    (void)state;
    struct cluster *c = replicas_new(4, 21);
    struct raft_members first = replicas_members(c, (int[]){0, 1, 2}, 3);
    for (int i = 0; i < 4; i++) {
        c->nodes[i].initial = i < 3 ? first : (struct raft_members){0};
        replicas_start(c, i);
    }
    produce_many(c, 1, 10, 0);
    replicas_run_ms(c, 500);
    replicas_isolate(c, 1, true);
    struct raft_members learning = first;
    learning.learner_count = 1;
    learning.learners[0] = c->nodes[3].self;
    struct raft_members last = replicas_members(c, (int[]){0, 1, 3}, 3);
    configure(c, &learning);
    wait_members(c, &learning);
    configure(c, &last);
    wait_members(c, &last);
    drop_data(c, 2);
    replicas_crash(c, 2);
    replicas_start(c, 2);
    replicas_isolate(c, 1, false);
    cut_halves(c, true);
    for (int steps = 0; steps < 200; steps++) {
        replicas_run_ms(c, 50);
        assert_int_not_equal(replica_state(replicas_replica(c, 1)), REPLICA_READY);
        assert_int_not_equal(replica_state(replicas_replica(c, 2)), REPLICA_READY);
    }
    produce_many(c, 11, 10, 0);
    cut_halves(c, false);
    /* Fed again, it is a member like the others. */
    struct raft_members back = last;
    back.learner_count = 1;
    back.learners[0] = c->nodes[2].self;
    configure(c, &back);
    wait_members(c, &back);
    struct raft_members all = replicas_members(c, (int[]){0, 1, 2, 3}, 4);
    configure(c, &all);
    wait_members(c, &all);
    replicas_settle(c);
    replicas_compare(c);
    expect_contents(c, 1, 20);
    replicas_crash(c, 0);
    produce_many(c, 21, 10, 0);
    replicas_free(c);
}

/* The process ends in the middle of a drop: half of the data is no replica. The group's log was
 * never trimmed, so nothing but its own word tells the leader that it wants a snapshot. */
static void a_member_that_died_while_it_dropped_its_data_is_fed_from_the_start(void **state)
{
    (void)state;
    struct cluster *c = started(3, 22);
    produce_many(c, 1, 10, 0);
    replicas_settle(c);
    int node = (replicas_wait_leader(c) + 1) % 3;
    struct replica_drop drop = {.group = CLUSTER_GROUP};
    struct store *store = c->nodes[node].store;
    bool done = false;
    replica_fail(replicas_replica(c, node), FERRY_ERR_UNKNOWN_TOPIC);
    for (int steps = 0; steps < 2; steps++) { /* The mark, and the entries. */
        assert_int_equal(replica_drop_prepare(&drop, store), FERRY_OK);
        assert_int_equal(store_begin(store), FERRY_OK);
        assert_int_equal(replica_drop_write(&drop, store, &done), FERRY_OK);
        assert_int_equal(store_commit(store), FERRY_OK);
    }
    assert_false(done);
    for (int i = 0; i < 3; i++) { /* In this term the others remember what it once had. */
        replicas_crash(c, i);
        replicas_start(c, i);
    }
    assert_int_equal(replica_state(replicas_replica(c, node)), REPLICA_INSTALLING);
    produce_many(c, 11, 10, 0);
    replicas_settle(c);
    replicas_compare(c);
    expect_contents(c, 1, 20);
    replicas_free(c);
}

/* One by one from {1, 2, 3} to {3, 4, 5}: by learners, then jointly; restarts between. */
static void members_are_exchanged_while_batches_come_in(void **state)
{
    (void)state;
    struct cluster *c = replicas_new(5, 8);
    struct raft_members first = replicas_members(c, (int[]){0, 1, 2}, 3);
    for (int i = 0; i < 5; i++) {
        c->nodes[i].initial = i < 3 ? first : (struct raft_members){0};
        replicas_start(c, i);
    }
    produce_many(c, 1, 20, 0);
    struct raft_members learning = first;
    learning.learner_count = 2;
    learning.learners[0] = c->nodes[3].self;
    learning.learners[1] = c->nodes[4].self;
    struct raft_members last = replicas_members(c, (int[]){2, 3, 4}, 3);
    int leader = replicas_wait_leader(c);
    /* A voter to be learns first. */
    assert_int_equal(replica_configure(replicas_replica(c, leader), &last, c->now_us),
                     FERRY_ERR_NOT_READY);
    configure(c, &learning);
    wait_members(c, &learning);
    produce_many(c, 21, 20, 0);
    configure(c, &last);
    produce_many(c, 41, 20, 0);
    wait_members(c, &last);
    replicas_crash(c, 0);
    replicas_crash(c, 1);
    for (int i = 2; i < 5; i++) {
        replicas_crash(c, i);
        replicas_start(c, i); /* What is in force is on disk, whatever `initial` says. */
    }
    produce_many(c, 61, 20, 0);
    replicas_settle(c);
    for (int i = 2; i < 5; i++) {
        assert_true(raft_members_equal(replica_members(replicas_replica(c, i)), &last));
    }
    replicas_compare(c);
    expect_contents(c, 1, 80);
    replicas_free(c);
}

/* A read that is confirmed is at least as new as anything acknowledged before it was asked. */
static void a_confirmed_read_knows_all_that_was_acknowledged(void **state)
{
    (void)state;
    struct cluster *c = started(3, 9);
    produce_many(c, 1, 3, 0);
    int leader = replicas_leader(c);
    uint64_t number = 0, lost = 0;
    uint64_t applied = replica_applied(replicas_replica(c, leader));
    assert_int_equal(replica_read(replicas_replica(c, leader), c->now_us, &number), FERRY_OK);
    assert_int_equal(replica_read_done(replicas_replica(c, leader), number), REPLICA_READ_WAITING);
    replicas_run_ms(c, 200);
    assert_int_equal(replica_read_done(replicas_replica(c, leader), number), REPLICA_READ_DONE);
    assert_true(replica_applied(replicas_replica(c, leader)) >= applied);
    replicas_isolate(c, leader, true);
    assert_int_equal(replica_read(replicas_replica(c, leader), c->now_us, &lost), FERRY_OK);
    replicas_run_ms(c, 3000);
    assert_int_equal(replica_read_done(replicas_replica(c, leader), lost), REPLICA_READ_LOST);
    assert_int_equal(replica_read_done(replicas_replica(c, leader), number), REPLICA_READ_DONE);
    replicas_free(c);
    c = started(1, 9); /* Nobody to ask: at once. */
    produce_many(c, 1, 3, 0);
    assert_int_equal(replica_read(replicas_replica(c, 0), c->now_us, &number), FERRY_OK);
    assert_int_equal(replica_read_done(replicas_replica(c, 0), number), REPLICA_READ_DONE);
    replicas_free(c);
}

/* A group that is asked nothing stops talking, and wakes when a node dies. */
static void a_group_that_is_idle_goes_quiet_and_wakes(void **state)
{
    (void)state;
    struct cluster *c = started(3, 10);
    produce_many(c, 1, 3, 0);
    replicas_run_ms(c, 10000);
    int leader = replicas_leader(c);
    for (int i = 0; i < 3; i++) {
        assert_true(replica_is_quiet(replicas_replica(c, i)));
    }
    uint64_t frames = c->frames;
    replicas_run_ms(c, 5000);
    assert_int_equal(c->frames, frames);
    replicas_crash(c, leader);
    assert_int_not_equal(replicas_wait_leader(c), leader);
    produce_many(c, 4, 3, 0);
    replicas_start(c, leader);
    replicas_settle(c);
    replicas_compare(c);
    replicas_free(c);
}

/* One transaction carries many groups. When it fails, none of them may believe that its part is on
 * disk, whoever tells it so (E31). */
static void a_failed_commit_is_no_groups_success(void **state)
{
    (void)state;
    struct cluster *c = started(3, 11);
    produce_many(c, 1, 3, 0);
    int leader = replicas_wait_leader(c);
    struct replica *r = replicas_replica(c, leader);
    enum ferry_err err = FERRY_OK;
    struct partition_ticket *t =
        replicas_send(c, leader, &(struct cluster_batch){.content = 4}, &err);
    assert_non_null(t);
    uint64_t applied = replica_applied(r);
    uint32_t rows_left = REPLICA_FLUSH_ROWS_TURN;
    struct rlimit had, none;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &had), 0);
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = had.rlim_max};
    assert_true(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
    assert_int_equal(store_begin(c->nodes[leader].store), FERRY_OK);
    assert_int_equal(replica_write(r, c->now_us, &rows_left), FERRY_OK);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
    err = store_commit(c->nodes[leader].store);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &had), 0);
    assert_int_equal(err, FERRY_ERR_STORE_FAILED);
    assert_int_equal(replica_stored(r, c->now_us), FERRY_ERR_STORE_FAILED);
    assert_int_equal(replica_failure(r), FERRY_ERR_STORE_FAILED);
    assert_int_equal(replica_applied(r), applied);
    size_t budget = 1 << 20;
    assert_int_equal(replica_send(r, PEER_AFTER_SYNC, c->now_us, &budget, c->nodes[leader].out),
                     FERRY_ERR_STORE_FAILED);
    assert_true(partition_next_done(c->nodes[leader].p) == t);
    assert_int_not_equal(t->base.err, FERRY_OK);
    replicas_crash(c, leader);
    assert_int_not_equal(replicas_wait_leader(c), leader); /* The others go on. */
    replicas_start(c, leader);
    replicas_settle(c);
    replicas_compare(c);
    replicas_free(c);
}

/* ---- Random operations ---- */

struct ops {
    struct cluster *c;
    struct prng prng;
    uint64_t sequence[4]; /* Next of each producer; a repeat takes an older one. */
    uint64_t version[3];  /* Of each source's cursor, as far as it is known. */
    uint64_t content;
};

static uint64_t draw(struct ops *o, uint64_t below)
{
    return prng_below(&o->prng, below);
}

static void random_produce(struct ops *o, int node)
{
    struct ferry_id ids[4];
    uint32_t count = 1 + (uint32_t)draw(o, 4);
    uint64_t producer = draw(o, 4);
    for (uint32_t i = 0; i < count; i++) {
        ids[i] = part_id(1 + draw(o, 200));
    }
    uint64_t sequence = o->sequence[producer];
    struct cluster_batch b = {.count = count,
                              .content = o->content,
                              .ids = draw(o, 2) == 0 ? ids : NULL,
                              .producer = producer == 0 ? 0 : producer,
                              .first_sequence = producer == 0 ? 0 : sequence,
                              .payload_bytes = 8 + draw(o, 600)};
    enum ferry_err err = FERRY_OK;
    o->content += 10;
    if (replicas_send(o->c, node, &b, &err) != NULL && draw(o, 10) != 0) {
        o->sequence[producer] += count;
    } else if (err == FERRY_ERR_SEQUENCE_GAP && sequence > 0) {
        o->sequence[producer] -= sequence > count ? count : sequence; /* Some were lost. */
    }
}

static void random_cas(struct ops *o, int node)
{
    struct cluster_node *n = &o->c->nodes[node];
    uint64_t source = draw(o, 3);
    uint8_t blob[8];
    struct batch_writer w;
    struct bytes batch;
    put_le64(blob, o->content++);
    batch_writer_init(&w, BATCH_MAX_BYTES);
    struct batch_record r = {.timestamp_ms = o->c->now_ms, .payload = bytes_of(blob, 8)};
    assert_int_equal(batch_writer_add(&w, &r), FERRY_OK);
    assert_int_equal(batch_writer_finish(&w, 0, 0, 0, &batch), FERRY_OK);
    struct append_cas cas = {.source = part_id(1000 + source),
                             .epoch = 1,
                             .expect_version = o->version[source],
                             .cursor = bytes_of(blob, 8),
                             .batch = batch};
    struct append_cas_refusal refusal;
    struct err_text e;
    struct partition_ticket *t = replicas_ticket(o->c, node);
    enum ferry_err err =
        partition_append_cas(n->p, &cas, o->c->now_ms, o->c->now_us, t, &refusal, &e);
    if (err == FERRY_OK) {
        o->version[source]++;
    } else if (err == FERRY_ERR_CURSOR_CONFLICT) {
        o->version[source] = refusal.version;
    }
    batch_writer_fini(&w);
}

static void random_member(struct ops *o, struct partition *p, struct bytes name,
                          struct partition_ticket *t)
{
    static const char *const members[] = {"m1", "m2", "m3"};
    static struct member_heartbeat_request q;
    q = (struct member_heartbeat_request){.subscription = name,
                                          .member = bytes_of_string(members[draw(o, 3)]),
                                          .instance = part_id(1 + draw(o, 2)),
                                          .session_ms = 1000,
                                          .partitions = 4 + (uint32_t)draw(o, 3)};
    struct member_leave_request leave = {
        .subscription = name, .member = q.member, .instance = q.instance};
    if (draw(o, 4) == 0) {
        (void)!partition_member_leave(p, &leave, o->c->now_ms, o->c->now_us, t);
    } else {
        (void)!partition_member_heartbeat(p, &q, bytes_of_string("client"), o->c->now_ms,
                                          o->c->now_us, t);
    }
}

static void random_change(struct ops *o, struct partition *p, struct bytes name,
                          struct partition_ticket *t)
{
    struct bytes who = bytes_of_string("admin");
    int64_t end = partition_end_offset(p);
    struct subscription_alter_request alter = {
        .name = name, .pause = (uint32_t)draw(o, 3), .lease_ms = 1000 + (uint32_t)draw(o, 1000)};
    struct subscription_reset_request reset = {.name = name,
                                               .to = (int64_t)draw(o, (uint64_t)end + 1)};
    struct subscription_claim_request claim = {
        .name = name, .member = who, .epoch = 1 + draw(o, 5)};
    switch (draw(o, 3)) {
    case 0:
        (void)!partition_subscription_alter(p, &alter, who, o->c->now_ms, o->c->now_us, t);
        return;
    case 1:
        (void)!partition_subscription_reset(p, &reset, who, o->c->now_ms, o->c->now_us, t);
        return;
    default:
        (void)!partition_subscription_claim(p, &claim, o->c->now_ms, o->c->now_us, t);
    }
}

static void random_subscription(struct ops *o, int node)
{
    struct cluster_node *n = &o->c->nodes[node];
    static const char *const names[] = {"a", "bb", "ccc", "dddd"};
    struct bytes name = bytes_of_string(names[draw(o, 4)]);
    struct partition_ticket *t = replicas_ticket(o->c, node);
    int64_t end = partition_end_offset(n->p);
    struct subscription_create_request make = {
        .name = name, .mode = SUBSCRIPTION_STREAM + (uint32_t)draw(o, 2), .from = FERRY_FROM_START};
    switch (draw(o, 8)) {
    case 0:
        (void)!partition_subscription_make(n->p, &make, bytes_of_string("admin"), o->c->now_ms,
                                           o->c->now_us, t);
        return;
    case 1:
        (void)!partition_subscription_delete(n->p, name, o->c->now_ms, o->c->now_us, t);
        return;
    case 2:
    case 3:
        random_change(o, n->p, name, t);
        return;
    case 4:
    case 5:
        random_member(o, n->p, name, t);
        return;
    default:
        (void)!partition_subscription_commit_as(n->p, name, (int64_t)draw(o, (uint64_t)end + 1),
                                                draw(o, 6), o->c->now_ms, o->c->now_us, t);
        return;
    }
}

static void random_trouble(struct ops *o)
{
    struct cluster *c = o->c;
    int i = (int)draw(o, (uint64_t)c->count);
    switch (draw(o, 6)) {
    case 0:
    case 1:
        if (c->nodes[i].store != NULL) {
            replicas_turn(c, i, draw(o, 2) == 0 ? CRASH_WITHOUT_COMMIT : CRASH_AFTER_COMMIT);
        }
        return;
    case 2:
        replicas_isolate(c, i, true);
        return;
    case 3:
        replicas_isolate(c, i, false);
        return;
    case 4:
        c->loss_percent = (uint32_t)draw(o, 20);
        return;
    default:
        if (replicas_leader(c) >= 0) {
            (void)!replica_transfer(replicas_replica(c, replicas_leader(c)), c->nodes[i].self,
                                    c->now_us);
        }
        return;
    }
}

static void random_step(struct ops *o)
{
    struct cluster *c = o->c;
    if (draw(o, 25) == 0) {
        random_trouble(o);
    }
    for (int i = 0; i < c->count; i++) {
        if (c->nodes[i].store == NULL && draw(o, 40) == 0) {
            replicas_start(c, i);
        }
        /* Whoever believes it leads is asked, also one that others have left already. */
        if (c->nodes[i].store != NULL && replica_is_ready(replicas_replica(c, i))) {
            for (uint64_t k = draw(o, 6); k > 0; k--) {
                uint64_t what = draw(o, 10);
                what < 7 ? random_produce(o, i)
                         : (what < 8 ? random_cas(o, i) : random_subscription(o, i));
            }
        }
    }
    replicas_run_ms(c, 5 * (1 + (int64_t)draw(o, 6)));
}

static void heal(struct cluster *c)
{
    c->loss_percent = 0;
    for (int i = 0; i < c->count; i++) {
        replicas_isolate(c, i, false);
        if (c->nodes[i].store == NULL) {
            replicas_start(c, i);
        }
    }
}

static void set_topic(struct cluster *c, struct topic_settings settings)
{
    c->settings = settings;
    for (int i = 0; i < c->count; i++) {
        if (c->nodes[i].store != NULL) {
            partition_configure(c->nodes[i].p, &settings);
        }
    }
}

static void run_random(uint64_t seed, struct topic_settings settings)
{
    struct cluster *c = replicas_new(3, seed);
    struct ops o = {.c = c, .content = 1};
    prng_init(&o.prng, seed);
    c->settings = settings;
    for (int i = 0; i < 3; i++) {
        replicas_start(c, i);
    }
    for (int round = 0; round < 3; round++) {
        for (int step = 0; step < 300; step++) {
            random_step(&o);
        }
        heal(c);
        /* Nothing more is dropped, else there is always one more entry that says so. */
        struct topic_settings calm = {
            .retention_ms = -1, .retention_bytes = -1, .dedupe_window_ms = INT32_MAX};
        set_topic(c, calm);
        replicas_settle(c);
        replicas_compare(c);
        set_topic(c, settings);
    }
    print_message("seed %llu: %llu entries, %llu frames\n", (unsigned long long)seed,
                  (unsigned long long)replica_applied(replicas_replica(c, 0)),
                  (unsigned long long)c->frames);
    replicas_free(c);
}

/* Repeated ids, sequences and cursors, crashes at all points, cuts, losses, leaders that change. */
static void replicas_keep_the_same_rows_whatever_happens(void **state)
{
    (void)state;
    struct topic_settings keep = {
        .retention_ms = -1, .retention_bytes = -1, .dedupe_window_ms = 3600 * 1000};
    for (uint64_t seed = 100; seed < 106; seed++) {
        run_random(seed, keep);
    }
}

/* With a window of seconds ids expire all the time; with so little retention whoever was away needs
 * a snapshot. */
static void replicas_keep_the_same_rows_when_much_is_dropped(void **state)
{
    (void)state;
    struct topic_settings drop = {
        .retention_ms = -1, .retention_bytes = 30000, .dedupe_window_ms = 1500};
    for (uint64_t seed = 200; seed < 206; seed++) {
        run_random(seed, drop);
    }
}

/* Asks for three voters of the five nodes, and perhaps a learner, whatever was before. Those who
 * have not caught up must learn first. */
static void random_members(struct ops *o)
{
    struct cluster *c = o->c;
    int leader = replicas_leader(c), skip = (int)draw(o, 5), also = (int)draw(o, 5), voters[3];
    uint32_t count = 0;
    for (int i = 0; i < 5 && count < 3; i++) {
        if (i != skip && i != also) {
            voters[count++] = i;
        }
    }
    if (leader < 0) {
        return;
    }
    struct raft_members m = replicas_members(c, voters, count);
    struct raft_members now = *replica_members(replicas_replica(c, leader));
    if (!raft_members_has_voter(&m, c->nodes[skip].self) && draw(o, 2) == 0) {
        m.learners[m.learner_count++] = c->nodes[skip].self;
    }
    if (replica_configure(replicas_replica(c, leader), &m, c->now_us) == FERRY_OK ||
        now.old_voter_count > 0) {
        return;
    }
    now.learner_count = 0;
    for (int i = 0; i < 5; i++) {
        if (!raft_members_has_voter(&now, c->nodes[i].self)) {
            now.learners[now.learner_count++] = c->nodes[i].self;
        }
    }
    (void)!replica_configure(replicas_replica(c, leader), &now, c->now_us);
}

/* The others are not told of what goes on any more. */
static void leave_only_members(struct cluster *c)
{
    replicas_run_ms(c, 3000);
    struct raft_members m = *replica_members(replicas_replica(c, replicas_wait_leader(c)));
    for (int i = 0; i < c->count; i++) {
        if (!raft_members_has(&m, c->nodes[i].self)) {
            replicas_crash(c, i);
        }
    }
}

static void run_members(uint64_t seed)
{
    struct topic_settings drop = {
        .retention_ms = -1, .retention_bytes = 30000, .dedupe_window_ms = 1500};
    struct topic_settings calm = {
        .retention_ms = -1, .retention_bytes = -1, .dedupe_window_ms = INT32_MAX};
    struct cluster *c = replicas_new(5, seed);
    struct ops o = {.c = c, .content = 1};
    prng_init(&o.prng, seed);
    struct raft_members first = replicas_members(c, (int[]){0, 1, 2}, 3);
    for (int i = 0; i < 5; i++) {
        c->nodes[i].initial = i < 3 ? first : (struct raft_members){0};
        c->settings = drop;
        replicas_start(c, i);
    }
    for (int round = 0; round < 3; round++) {
        for (int step = 0; step < 300; step++) {
            random_step(&o);
            if (draw(&o, 15) == 0) {
                random_members(&o);
            }
        }
        heal(c);
        leave_only_members(c);
        set_topic(c, calm);
        replicas_settle(c);
        replicas_compare(c);
        heal(c);
        set_topic(c, drop);
    }
    print_message("seed %llu: %llu frames\n", (unsigned long long)seed,
                  (unsigned long long)c->frames);
    replicas_free(c);
}

/* Voters and learners come and go while everything else goes wrong, too. */
static void replicas_keep_the_same_rows_while_members_change(void **state)
{
    (void)state;
    for (uint64_t seed = 300; seed < 304; seed++) {
        run_members(seed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_batch_acknowledged_by_the_leader_is_on_every_replica),
        cmocka_unit_test(a_lossy_network_delays_and_loses_nothing),
        cmocka_unit_test(what_was_acknowledged_survives_its_leader),
        cmocka_unit_test(all_replicas_may_crash_and_go_on_from_disk),
        cmocka_unit_test(what_a_cut_off_leader_took_is_cut_away),
        cmocka_unit_test(a_follower_refuses_with_not_leader),
        cmocka_unit_test(leadership_is_handed_over_on_request),
        cmocka_unit_test(members_are_exchanged_while_batches_come_in),
        cmocka_unit_test(members_in_force_are_final_once_they_are_committed),
        cmocka_unit_test(a_member_that_dropped_its_data_helps_nobody_who_lacks_what_it_had),
        cmocka_unit_test(a_member_that_died_while_it_dropped_its_data_is_fed_from_the_start),
        cmocka_unit_test(a_confirmed_read_knows_all_that_was_acknowledged),
        cmocka_unit_test(a_group_that_is_idle_goes_quiet_and_wakes),
        cmocka_unit_test(a_failed_commit_is_no_groups_success),
        cmocka_unit_test(replicas_keep_the_same_rows_whatever_happens),
        cmocka_unit_test(replicas_keep_the_same_rows_when_much_is_dropped),
        cmocka_unit_test(replicas_keep_the_same_rows_while_members_change),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
