/* Entries that do not match their checksum: found before any byte of them is used, given again by
 * the peers, and until then a reason not to vote, lead or acknowledge (INV-D04, INV-R17). */
#include "lib/replica_cluster.h"

#include <stdio.h>

#include "lib/partition_fixture.h"
#include "partition/peer_item.h"

#define CONTENTS_MAX 2000
#define MARK         0x7ea51e0000000000u /* Contents that are found on the disk. */

static uint64_t contents[CONTENTS_MAX];

static struct cluster *started(int count, uint64_t seed)
{
    struct cluster *c = replicas_new(count, seed);
    for (int i = 0; i < count; i++) {
        replicas_start(c, i);
    }
    return c;
}

static void produce_many(struct cluster *c, uint64_t first, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        replicas_produce(
            c, &(struct cluster_batch){.content = MARK + first + i, .payload_bytes = 200});
    }
}

static void expect_whole(struct cluster *c, uint64_t count)
{
    replicas_settle(c);
    replicas_compare(c);
    for (int i = 0; i < c->count; i++) {
        assert_int_equal(replicas_check_log(c, i), FERRY_OK);
        assert_int_equal(replicas_contents(c, i, contents, CONTENTS_MAX), count);
        for (uint64_t k = 0; k < count; k++) {
            assert_int_equal(contents[k], MARK + k);
        }
    }
}

static void crash_all(struct cluster *c)
{
    for (int i = 0; i < c->count; i++) {
        replicas_crash(c, i);
    }
}

static void start_all(struct cluster *c)
{
    for (int i = 0; i < c->count; i++) {
        replicas_start(c, i);
    }
}

/* The end of the log is read in full when it is opened; what is damaged there is given again. Both
 * kinds: the payload, whose entry's term is known, and the header, where nothing is. */
static void a_damaged_entry_at_the_end_is_repaired_at_the_start(void **state)
{
    (void)state;
    for (int header = 0; header < 2; header++) {
        for (uint64_t which = 5; which < 10; which++) {
            struct cluster *c = started(3, 10 + which);
            produce_many(c, 0, 10);
            replicas_settle(c);
            crash_all(c);
            replicas_damage(c, 1, MARK + which, header == 1);
            start_all(c);
            assert_int_equal(replica_state(replicas_replica(c, 1)), REPLICA_DAMAGED);
            expect_whole(c, 10);
            replicas_free(c);
        }
    }
}

/* Rows are not flushed: the entries are applied again, and the damaged one is met then. */
static void a_damaged_entry_is_not_applied(void **state)
{
    (void)state;
    for (int header = 0; header < 2; header++) {
        struct cluster *c = started(3, 30 + (uint64_t)header);
        replicas_settle(c);
        produce_many(c, 0, 40);
        crash_all(c);
        replicas_damage(c, 2, MARK + 7, header == 1);
        start_all(c);
        expect_whole(c, 40);
        replicas_free(c);
    }
}

static enum ferry_err read_all(struct cluster *c, int i)
{
    struct buf out;
    buf_init(&out, 64 << 20);
    assert_int_equal(store_read_begin(c->nodes[i].store), FERRY_OK);
    enum ferry_err err = FERRY_OK;
    for (int64_t offset = 0; err == FERRY_OK && offset < 30; offset++) {
        buf_clear(&out);
        err = partition_read(c->nodes[i].p, offset, 1, &out);
    }
    store_read_end(c->nodes[i].store);
    buf_fini(&out);
    return err;
}

/* A leader that meets a bad entry when it serves it gives up its office; it, or another, serves the
 * same records a moment later. */
static void a_leader_that_cannot_read_an_entry_steps_down_and_is_repaired(void **state)
{
    (void)state;
    for (int header = 0; header < 2; header++) {
        struct cluster *c = started(3, 40 + (uint64_t)header);
        produce_many(c, 0, 30);
        replicas_settle(c);
        int leader = replicas_wait_leader(c);
        assert_int_equal(read_all(c, leader), FERRY_OK);
        replicas_damage(c, leader, MARK + 11, header == 1);
        enum ferry_err err = read_all(c, leader);
        assert_true(err == FERRY_ERR_NOT_LEADER || err == FERRY_ERR_NOT_READY);
        assert_int_equal(replica_state(replicas_replica(c, leader)), REPLICA_DAMAGED);
        assert_false(replica_is_ready(replicas_replica(c, leader)));
        replicas_run_ms(c, 5000);
        assert_int_equal(read_all(c, replicas_wait_leader(c)), FERRY_OK);
        expect_whole(c, 30);
        replicas_free(c);
    }
}

/* What a leader would send to a follower that was away is read, and found bad, before it leaves. */
static void a_damaged_entry_is_not_replicated(void **state)
{
    (void)state;
    struct cluster *c = started(3, 50);
    produce_many(c, 0, 10);
    int leader = replicas_wait_leader(c);
    int away = (leader + 1) % 3;
    replicas_crash(c, away);
    produce_many(c, 10, 20);
    replicas_run_ms(c, 3000);
    replicas_damage(c, leader, MARK + 17, false);
    replicas_start(c, away);
    expect_whole(c, 30);
    replicas_free(c);
}

/* Every replica has lost another entry: together they have all. */
static void damage_at_another_place_on_every_replica_is_repaired(void **state)
{
    (void)state;
    for (uint64_t seed = 60; seed < 64; seed++) {
        struct cluster *c = started(3, seed);
        produce_many(c, 0, 20);
        replicas_settle(c);
        crash_all(c);
        bool header = seed % 2 == 1;
        replicas_damage(c, 0, MARK + 19, header);
        replicas_damage(c, 1, MARK + 18, header);
        replicas_damage(c, 2, MARK + 17, header);
        replicas_damage(c, 2, MARK + 16, header);
        start_all(c);
        for (int i = 0; i < 3; i++) {
            assert_int_equal(replica_state(replicas_replica(c, i)), REPLICA_DAMAGED);
        }
        expect_whole(c, 20);
        replicas_free(c);
    }
}

/* The same entry on all: nobody has it, so nobody serves it, and nobody goes on without it. */
static void damage_at_the_same_place_on_every_replica_stops_the_group(void **state)
{
    (void)state;
    struct cluster *c = started(3, 70);
    produce_many(c, 0, 10);
    replicas_settle(c);
    crash_all(c);
    for (int i = 0; i < 3; i++) {
        replicas_damage(c, i, MARK + 9, false);
    }
    start_all(c);
    replicas_run_ms(c, 10000);
    assert_int_equal(replicas_leader(c), -1);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(replica_state(replicas_replica(c, i)), REPLICA_DAMAGED);
    }
    replicas_free(c);
}

/* Node A holds the last acknowledged entry, damaged; node B never had it; node C, which has it, is
 * down. A and B together are a majority, and must not be one (NATS #7587). */
static void a_damaged_member_and_an_outdated_one_are_no_majority(void **state)
{
    (void)state;
    for (int header = 0; header < 2; header++) {
        struct cluster *c = started(3, 80 + (uint64_t)header);
        produce_many(c, 0, 5);
        replicas_settle(c);
        int a = replicas_wait_leader(c), b = (a + 1) % 3, third = (a + 2) % 3;
        replicas_crash(c, b);
        produce_many(c, 5, 3);
        crash_all(c);
        replicas_damage(c, a, MARK + 7, header == 1);
        replicas_start(c, a);
        replicas_start(c, b);
        replicas_run_ms(c, 15000);
        assert_int_equal(replicas_leader(c), -1);
        assert_int_equal(replica_state(replicas_replica(c, a)), REPLICA_DAMAGED);
        replicas_start(c, third);
        expect_whole(c, 8);
        replicas_free(c);
    }
}

/* The no-op of a new term is the end of the log, and its header is gone: what is guessed of its
 * term is wrong, and put right by the repair. */
static void a_damaged_entry_of_another_term_than_guessed_is_repaired(void **state)
{
    (void)state;
    struct cluster *c = started(3, 85);
    produce_many(c, 0, 5);
    replicas_settle(c);
    int old = replicas_wait_leader(c);
    replicas_crash(c, old);
    int leader = replicas_wait_leader(c);
    replicas_start(c, old);
    replicas_settle(c);
    uint64_t last = replica_last_index(replicas_replica(c, old));
    for (int i = 0; i < 3; i++) {
        if (i != leader) {
            replicas_damage_at(c, i, last);
            replicas_crash(c, i);
            replicas_start(c, i);
            assert_int_equal(replica_state(replicas_replica(c, i)), REPLICA_DAMAGED);
        }
    }
    expect_whole(c, 5);
    replicas_free(c);
}

/* What a leader took while it was cut off is damaged on its disk: nobody has it, and nobody needs
 * it. */
static void a_damaged_entry_that_never_committed_is_cut_away(void **state)
{
    (void)state;
    for (int header = 0; header < 2; header++) {
        struct cluster *c = started(3, 86 + (uint64_t)header);
        produce_many(c, 0, 5);
        replicas_settle(c);
        int old = replicas_wait_leader(c);
        replicas_isolate(c, old, true);
        enum ferry_err err = FERRY_OK;
        for (uint64_t i = 0; i < 6; i++) {
            (void)replicas_send(c, old, &(struct cluster_batch){.content = MARK + 900 + i}, &err);
        }
        replicas_run_ms(c, 3000);
        replicas_crash(c, old);
        replicas_damage(c, old, MARK + 903, header == 1);
        produce_many(c, 5, 5);
        replicas_start(c, old);
        assert_int_equal(replica_state(replicas_replica(c, old)), REPLICA_DAMAGED);
        replicas_run_ms(c, 1000);
        replicas_isolate(c, old, false);
        expect_whole(c, 10);
        replicas_free(c);
    }
}

/* A peer's answer is checked like anything else that comes from outside. */
static bool spoil_repairs(struct cluster *c, int from, int to, const struct peer_item *item)
{
    (void)from;
    struct peer_repair_reply reply;
    if (item->kind != PEER_REPAIR_REPLY || peer_take_repair_reply(item->body, &reply) != FERRY_OK ||
        !reply.given) {
        return true;
    }
    uint8_t copy[4096];
    assert_true(item->body.size <= sizeof(copy));
    for (size_t at = 0; at < item->body.size; at += 7) {
        memcpy(copy, item->body.data, item->body.size);
        copy[at] ^= 0x10;
        struct peer_item bad = *item;
        bad.body = bytes_of(copy, item->body.size);
        assert_int_equal(replica_receive(replicas_replica(c, to), &bad, c->now_us), FERRY_OK);
        c->counter++;
        if (!replica_wants_write(replicas_replica(c, to), c->now_us)) {
            continue;
        }
        /* Only what is not part of the entry may have been changed. */
        replicas_turn(c, to, CRASH_NEVER);
        assert_int_equal(replicas_check_log(c, to), FERRY_OK);
    }
    return true;
}

static void a_spoiled_repair_is_not_taken(void **state)
{
    (void)state;
    struct cluster *c = started(3, 90);
    produce_many(c, 0, 10);
    replicas_settle(c);
    crash_all(c);
    replicas_damage(c, 0, MARK + 9, false);
    c->filter = spoil_repairs;
    start_all(c);
    expect_whole(c, 10);
    assert_true(c->counter > 20);
    replicas_free(c);
}

/* A group of one has nobody to ask: as before, the bad entry is refused and the others are served.
 */
static void a_group_of_one_goes_on_around_a_damaged_entry(void **state)
{
    (void)state;
    struct cluster *c = started(1, 95);
    produce_many(c, 0, 30);
    replicas_settle(c);
    replicas_damage(c, 0, MARK + 11, false);
    assert_int_equal(read_all(c, 0), FERRY_ERR_CORRUPT);
    assert_int_equal(replica_state(replicas_replica(c, 0)), REPLICA_READY);
    replicas_produce(c, &(struct cluster_batch){.content = 1});
    replicas_free(c);
}

/* Random damage while batches come in, never on a majority at one place. */
static void damage_here_and_there_loses_nothing(void **state)
{
    (void)state;
    for (uint64_t seed = 400; seed < 404; seed++) {
        struct cluster *c = started(3, seed);
        uint64_t made = 0;
        for (int round = 0; round < 8; round++) {
            uint64_t more = 1 + prng_below(&c->prng, 12);
            produce_many(c, made, more);
            made += more;
            replicas_settle(c);
            int victim = (int)prng_below(&c->prng, 3);
            uint64_t at = prng_below(&c->prng, made);
            bool header = prng_below(&c->prng, 2) == 0;
            bool restart = prng_below(&c->prng, 2) == 0;
            if (restart) {
                replicas_crash(c, victim);
            }
            replicas_damage(c, victim, MARK + at, header);
            if (restart) {
                replicas_start(c, victim);
            }
            replicas_run_ms(c, 1000);
            if (replicas_check_log(c, victim) != FERRY_OK) {
                /* Nobody has read it yet: somebody does. */
                uint64_t index = replica_first_index(replicas_replica(c, victim));
                for (; index <= replica_last_index(replicas_replica(c, victim)); index++) {
                    struct store_entry entry;
                    assert_int_equal(store_read_begin(c->nodes[victim].store), FERRY_OK);
                    enum ferry_err err =
                        store_get_entry(c->nodes[victim].store, CLUSTER_GROUP, index, &entry);
                    err = err == FERRY_OK ? peer_entry_check(&entry) : err;
                    store_read_end(c->nodes[victim].store);
                    if (err != FERRY_OK) {
                        replica_damaged(replicas_replica(c, victim), index);
                    }
                }
            }
        }
        expect_whole(c, made);
        replicas_free(c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_damaged_entry_at_the_end_is_repaired_at_the_start),
        cmocka_unit_test(a_damaged_entry_is_not_applied),
        cmocka_unit_test(a_leader_that_cannot_read_an_entry_steps_down_and_is_repaired),
        cmocka_unit_test(a_damaged_entry_is_not_replicated),
        cmocka_unit_test(damage_at_another_place_on_every_replica_is_repaired),
        cmocka_unit_test(damage_at_the_same_place_on_every_replica_stops_the_group),
        cmocka_unit_test(a_damaged_member_and_an_outdated_one_are_no_majority),
        cmocka_unit_test(a_damaged_entry_of_another_term_than_guessed_is_repaired),
        cmocka_unit_test(a_damaged_entry_that_never_committed_is_cut_away),
        cmocka_unit_test(a_spoiled_repair_is_not_taken),
        cmocka_unit_test(a_group_of_one_goes_on_around_a_damaged_entry),
        cmocka_unit_test(damage_here_and_there_loses_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
