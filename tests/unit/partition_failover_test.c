/* Delivery on three replicas: leases and counters survive their leader, what was acked is never
 * handed out again, one lease at a time; the replicas' rows stay the same bytes (INV-Q02 to
 * INV-Q05).
 */
#include "lib/replica_cluster.h"

#include <string.h>

#include "base/mem.h"

#define S            "s"
#define LEASE_MS     3000
#define MESSAGES_MAX 4000
#define HANDS_MAX    4000

/* A hand-out that was confirmed. */
struct given {
    uint64_t lease;
    struct ferry_id token;
    uint32_t count;
    int64_t offsets[64];
};

static struct cluster *started(uint64_t seed)
{
    struct cluster *c = replicas_new(3, seed);
    for (int i = 0; i < 3; i++) {
        replicas_start(c, i);
    }
    return c;
}

/* Runs until the ticket is answered, or its node ended: false, or with its error. */
static bool answered(struct cluster *c, int node, struct partition_ticket *t)
{
    for (int i = 0; i < 2000 && c->nodes[node].store != NULL; i++) {
        if (list_is_empty(&t->base.node)) {
            return t->base.err == FERRY_OK;
        }
        replicas_run_ms(c, 5);
    }
    return false;
}

static void make(struct cluster *c, uint32_t mode)
{
    struct subscription_create_request q = {.name = bytes_of_string(S),
                                            .mode = mode,
                                            .from = FERRY_FROM_START,
                                            .lease_ms = LEASE_MS,
                                            .max_deliveries = 5,
                                            .backoff_min_ms = 200,
                                            .backoff_max_ms = 400,
                                            .priority_age_ms = UINT32_MAX};
    int leader = replicas_wait_leader(c);
    struct partition_ticket *t = replicas_ticket(c, leader);
    assert_int_equal(partition_subscription_make(c->nodes[leader].p, &q, bytes_of(NULL, 0),
                                                 c->now_ms, c->now_us, t),
                     FERRY_OK);
    assert_true(answered(c, leader, t));
}

/* Proposed; NULL: nothing to hand out, or not now. */
static struct partition_ticket *propose_receive(struct cluster *c, int node, uint32_t max)
{
    struct receive r = {.subscription = bytes_of_string(S),
                        .member = bytes_of_string("m"),
                        .max_messages = max,
                        .max_bytes = 1 << 20};
    enum receive_answer answer;
    struct partition_ticket *t = replicas_ticket(c, node);
    assert_int_equal(store_read_begin(c->nodes[node].store), FERRY_OK);
    enum ferry_err err = partition_receive(c->nodes[node].p, &r, c->now_ms, c->now_us, t, &answer);
    store_read_end(c->nodes[node].store);
    return err == FERRY_OK && answer == RECEIVE_PROPOSED ? t : NULL;
}

static void read_given(struct cluster *c, int node, struct partition_ticket *t, struct given *g)
{
    struct buf repeats, out;
    struct err_text e;
    buf_init(&repeats, 1 << 20);
    buf_init(&out, 16 << 20);
    *g = (struct given){.lease = t->lease, .token = t->token};
    assert_int_equal(store_read_begin(c->nodes[node].store), FERRY_OK);
    enum ferry_err err = partition_read_delivery(c->nodes[node].p, t, &repeats, &out);
    store_read_end(c->nodes[node].store);
    for (struct bytes rest = buf_bytes(&out); err == FERRY_OK && rest.size > 0;) {
        struct fetch_entry entry;
        struct batch_header h;
        assert_int_equal(fetch_entry_next(&rest, &entry, &h, &e), FERRY_OK);
        for (uint32_t i = 0; i < h.count; i++) {
            g->offsets[g->count++] = entry.base_offset + i;
        }
    }
    buf_fini(&repeats);
    buf_fini(&out);
}

static struct given take(struct cluster *c, uint32_t count)
{
    struct given g;
    int leader = replicas_wait_leader(c);
    struct partition_ticket *t = propose_receive(c, leader, count);
    assert_non_null(t);
    assert_true(answered(c, leader, t));
    read_given(c, leader, t, &g);
    assert_int_equal(g.count, count);
    return g;
}

static struct partition_ticket *propose_settle(struct cluster *c, int node, const struct given *g,
                                               uint32_t kind, int64_t offset)
{
    struct settle_request *q = mem_zalloc(1, sizeof(*q));
    struct partition_ticket *t = replicas_ticket(c, node);
    assert_non_null(q);
    q->subscription = bytes_of_string(S);
    q->member = bytes_of_string("m");
    q->count = 1;
    q->items[0] = (struct settle_item){.lease = g->lease,
                                       .token = g->token,
                                       .kind = kind,
                                       .first = offset,
                                       .count = 1,
                                       .delay_ms = -1};
    assert_int_equal(store_read_begin(c->nodes[node].store), FERRY_OK);
    enum ferry_err err = partition_settle(c->nodes[node].p, q, c->now_ms, c->now_us, t);
    store_read_end(c->nodes[node].store);
    mem_free(q);
    return err == FERRY_OK ? t : NULL;
}

static enum ferry_err status_of(const struct partition_ticket *t)
{
    return t->statuses.size == 0 ? FERRY_OK : (enum ferry_err)get_le16(t->statuses.data);
}

static enum ferry_err settle(struct cluster *c, const struct given *g, uint32_t kind,
                             int64_t offset)
{
    int leader = replicas_wait_leader(c);
    struct partition_ticket *t = propose_settle(c, leader, g, kind, offset);
    assert_non_null(t);
    assert_true(answered(c, leader, t));
    return status_of(t);
}

static struct subscription_get_reply get(struct cluster *c)
{
    struct subscription_get_reply r;
    int leader = replicas_wait_leader(c);
    assert_int_equal(store_read_begin(c->nodes[leader].store), FERRY_OK);
    assert_int_equal(
        partition_subscription_get(c->nodes[leader].p, bytes_of_string(S), c->now_ms, &r),
        FERRY_OK);
    store_read_end(c->nodes[leader].store);
    return r;
}

static void crash_leader(struct cluster *c)
{
    int leader = replicas_wait_leader(c);
    replicas_crash(c, leader);
    (void)replicas_wait_leader(c);
    replicas_start(c, leader);
}

/* As the nodes do when they do not hear of one another: quiet groups look around. */
static void cut_off(struct cluster *c, int node)
{
    replicas_isolate(c, node, true);
    for (int i = 0; i < 3; i++) {
        if (i != node && c->nodes[i].store != NULL) {
            (void)!replica_wake(replicas_replica(c, i), c->nodes[node].self, c->now_us);
            if (c->nodes[node].store != NULL) {
                (void)!replica_wake(replicas_replica(c, node), c->nodes[i].self, c->now_us);
            }
        }
    }
}

/* The next leader holds the leases of the one before, and gives each its whole time again. */
static void leases_survive_their_leader(void **state)
{
    (void)state;
    struct cluster *c = started(11);
    make(c, SUBSCRIPTION_QUEUE);
    replicas_produce(c, &(struct cluster_batch){.count = 6});
    struct given g = take(c, 4);
    assert_int_equal(settle(c, &g, SETTLE_ACK, 0), FERRY_OK);
    assert_int_equal(settle(c, &g, SETTLE_NACK, 1), FERRY_OK);
    crash_leader(c);
    struct subscription_get_reply r = get(c);
    assert_true(r.leased == 2 && r.acked == 1 && r.failed == 1 && r.handed_out == 4);
    replicas_run_ms(c, 500);
    struct given next = take(c, 3);
    for (uint32_t i = 0; i < 3; i++) {
        assert_true(next.offsets[i] == 1 || next.offsets[i] >= 4);
    }
    assert_int_equal(settle(c, &g, SETTLE_ACK, 2), FERRY_OK);
    assert_int_equal(settle(c, &g, SETTLE_ACK, 0), FERRY_OK);
    replicas_run_ms(c, LEASE_MS + 200);
    assert_int_equal(settle(c, &g, SETTLE_ACK, 3), FERRY_ERR_LEASE_EXPIRED);
    r = get(c);
    assert_true(r.leased == 0 && r.acked == 2 && r.failed == 5 && r.handed_out == 7);
    replicas_settle(c);
    replicas_compare(c);
    replicas_free(c);
}

/* A leader that nobody hears ends no lease: only an entry does. */
static void a_cut_off_leader_ends_no_lease(void **state)
{
    (void)state;
    struct cluster *c = started(12);
    make(c, SUBSCRIPTION_QUEUE);
    replicas_produce(c, &(struct cluster_batch){.count = 2});
    struct given g = take(c, 2);
    int old = replicas_leader(c);
    replicas_run_ms(c, LEASE_MS - 500);
    cut_off(c, old);
    replicas_run_ms(c, 2500); /* The old one's clock is over; the next one's has begun anew. */
    int leader = replicas_wait_leader(c);
    assert_int_not_equal(leader, old);
    assert_null(propose_receive(c, leader, 2));
    assert_int_equal(settle(c, &g, SETTLE_ACK, 0), FERRY_OK);
    assert_int_equal(settle(c, &g, SETTLE_ACK, 1), FERRY_OK);
    replicas_isolate(c, old, false);
    replicas_run_ms(c, 2000);
    struct subscription_get_reply r = get(c);
    assert_true(r.acked == 2 && r.failed == 0 && r.leased == 0);
    replicas_settle(c);
    replicas_compare(c);
    replicas_free(c);
}

/* Who was away so long that the log has passed it by gets the tables, and can lead by them. */
static void a_snapshot_brings_leases_and_dead_letters(void **state)
{
    (void)state;
    struct cluster *c = replicas_new(3, 13);
    c->settings.retention_bytes = 20000;
    for (int i = 0; i < 3; i++) {
        replicas_start(c, i);
    }
    make(c, SUBSCRIPTION_QUEUE);
    replicas_produce(c, &(struct cluster_batch){.count = 20});
    struct given g = take(c, 10);
    assert_int_equal(settle(c, &g, SETTLE_REJECT, 3), FERRY_OK);
    int away = (replicas_wait_leader(c) + 1) % 3;
    replicas_crash(c, away);
    assert_int_equal(settle(c, &g, SETTLE_REJECT, 4), FERRY_OK);
    assert_int_equal(settle(c, &g, SETTLE_ACK, 0), FERRY_OK);
    for (int i = 0; i < 60; i++) {
        replicas_produce(c, &(struct cluster_batch){.payload_bytes = 1000, .content = 100});
    }
    replicas_run_ms(c, 2000);
    int leader = replicas_wait_leader(c);
    uint64_t first = replica_first_index(replicas_replica(c, leader));
    struct given second = take(c, 5);
    replicas_start(c, away);
    assert_true(replica_applied(replicas_replica(c, away)) + 1 < first);
    replicas_settle(c);
    replicas_compare(c);
    (void)!replica_transfer(replicas_replica(c, leader), c->nodes[away].self, c->now_us);
    replicas_run_ms(c, 1000);
    struct subscription_get_reply r = get(c);
    assert_int_equal(replicas_leader(c), away);
    assert_int_equal(r.dead, 2);
    assert_int_equal(r.acked, 1);
    assert_int_equal(r.end_offset, r.acked + r.died + r.expired + r.ready + r.leased + r.waiting);
    if (r.leased > 0) {
        assert_int_equal(settle(c, &second, SETTLE_EXTEND, 0), FERRY_ERR_INVALID_ARGUMENT);
        assert_int_equal(settle(c, &second, SETTLE_ACK, second.offsets[0]), FERRY_OK);
    }
    replicas_settle(c);
    replicas_compare(c);
    replicas_free(c);
}

static enum ferry_err replay(struct cluster *c, int node, uint64_t number)
{
    struct dead_change_request q = {
        .subscription = bytes_of_string(S), .kind = DEAD_REPLAY, .count = 1};
    struct err_text e;
    q.items[0].number = number;
    assert_int_equal(store_read_begin(c->nodes[node].store), FERRY_OK);
    enum ferry_err err =
        partition_dead_change(c->nodes[node].p, &q, bytes_of(NULL, 0), bytes_of(NULL, 0), c->now_ms,
                              c->now_us, replicas_ticket(c, node), &e);
    store_read_end(c->nodes[node].store);
    return err;
}

/* A change of dead letters that was lost with its leader holds up none after it. */
static void a_lost_change_of_dead_letters_holds_up_none(void **state)
{
    (void)state;
    struct cluster *c = started(14);
    make(c, SUBSCRIPTION_QUEUE);
    replicas_produce(c, &(struct cluster_batch){.count = 3});
    struct given g = take(c, 3);
    assert_int_equal(settle(c, &g, SETTLE_REJECT, 0), FERRY_OK);
    int old = replicas_leader(c);
    cut_off(c, old);
    for (int i = 0; i < 50; i++) {
        assert_non_null(propose_settle(c, old, &g, SETTLE_ACK, 1));
    }
    assert_int_equal(replay(c, old, 1), FERRY_OK);
    assert_int_equal(replay(c, old, 1), FERRY_ERR_THROTTLED);
    replicas_run_ms(c, 2500);
    int leader = replicas_wait_leader(c);
    assert_int_not_equal(leader, old);
    replicas_isolate(c, old, false);
    replicas_settle(c);
    (void)!replica_transfer(replicas_replica(c, leader), c->nodes[old].self, c->now_us);
    replicas_run_ms(c, 1000);
    assert_int_equal(replicas_wait_leader(c), old);
    assert_int_equal(replay(c, old, 1), FERRY_OK);
    replicas_settle(c);
    replicas_compare(c);
    replicas_free(c);
}

/* ---- Random ---- */

struct chaos {
    struct cluster *c;
    int64_t count;
    bool acked[MESSAGES_MAX];     /* Confirmed. */
    uint64_t lease[MESSAGES_MAX]; /* The latest hand-out of it that was confirmed. */
    uint32_t given_count;
    struct given given[HANDS_MAX];
    uint64_t confirmed;
};

static void chaos_receive(struct chaos *x)
{
    int leader = replicas_leader(x->c);
    struct partition_ticket *t =
        leader >= 0 ? propose_receive(x->c, leader, 1 + (uint32_t)prng_below(&x->c->prng, 20))
                    : NULL;
    if (t == NULL || !answered(x->c, leader, t) || x->given_count == HANDS_MAX) {
        return;
    }
    struct given *g = &x->given[x->given_count++];
    read_given(x->c, leader, t, g);
    for (uint32_t i = 0; i < g->count; i++) {
        assert_false(x->acked[g->offsets[i]]);
        assert_true(g->lease > x->lease[g->offsets[i]]);
        x->lease[g->offsets[i]] = g->lease;
    }
}

/* An ack that is confirmed is of the latest lease: of an older one it is refused. */
static void chaos_settle(struct chaos *x)
{
    int leader = replicas_leader(x->c);
    if (leader < 0 || x->given_count == 0) {
        return;
    }
    uint32_t back = (uint32_t)prng_below(&x->c->prng, x->given_count < 8 ? x->given_count : 8);
    const struct given *g = &x->given[x->given_count - 1 - back];
    uint32_t kind = prng_below(&x->c->prng, 4) > 0 ? SETTLE_ACK : SETTLE_RELEASE;
    for (uint32_t i = 0; i < g->count; i++) {
        int64_t offset = g->offsets[i];
        struct partition_ticket *t = propose_settle(x->c, leader, g, kind, offset);
        if (t == NULL || !answered(x->c, leader, t)) {
            return; /* The outcome is not known. */
        }
        if (status_of(t) == FERRY_OK && kind == SETTLE_ACK) {
            assert_int_equal(g->lease, x->lease[offset]);
            x->confirmed += x->acked[offset] ? 0 : 1;
            x->acked[offset] = true;
        }
    }
}

static void chaos_fault(struct chaos *x)
{
    struct cluster *c = x->c;
    int node = (int)prng_below(&c->prng, 3);
    if (c->nodes[node].store == NULL) {
        replicas_start(c, node);
    } else if (prng_below(&c->prng, 2) == 0) {
        cut_off(c, node);
        replicas_run_ms(c, (int64_t)prng_below(&c->prng, 3000));
        replicas_isolate(c, node, false);
    } else {
        for (int i = 0; i < 3; i++) {
            if (c->nodes[i].store == NULL) {
                replicas_start(c, i);
            }
        }
        replicas_crash(c, node);
    }
}

static void chaos_step(struct chaos *x)
{
    switch (prng_below(&x->c->prng, 12)) {
    case 0:
        if (replicas_leader(x->c) >= 0 && x->count + 10 < MESSAGES_MAX) {
            replicas_produce(x->c, &(struct cluster_batch){.count = 10});
            x->count = partition_end_offset(x->c->nodes[replicas_wait_leader(x->c)].p);
        }
        break;
    case 1:
        chaos_fault(x);
        break;
    case 2:
        replicas_run_ms(x->c, (int64_t)prng_below(&x->c->prng, 1500));
        break;
    case 3:
    case 4:
    case 5:
        chaos_receive(x);
        break;
    default:
        chaos_settle(x);
    }
}

static void drain(struct chaos *x)
{
    for (int i = 0; i < 3; i++) {
        if (x->c->nodes[i].store == NULL) {
            replicas_start(x->c, i);
        }
    }
    for (int rounds = 0; rounds < 300; rounds++) {
        uint32_t before = x->given_count;
        chaos_receive(x);
        if (x->given_count == before) {
            replicas_run_ms(x->c, 100);
            continue;
        }
        const struct given *g = &x->given[x->given_count - 1];
        for (uint32_t i = 0; i < g->count; i++) {
            assert_int_equal(settle(x->c, g, SETTLE_ACK, g->offsets[i]), FERRY_OK);
            x->acked[g->offsets[i]] = true;
        }
    }
}

static void chaos(uint64_t seed, uint32_t mode)
{
    struct chaos *x = mem_zalloc(1, sizeof(*x));
    assert_non_null(x);
    x->c = started(seed);
    make(x->c, mode);
    for (int i = 0; i < 500; i++) {
        chaos_step(x);
    }
    drain(x);
    struct subscription_get_reply r = get(x->c);
    assert_int_equal(r.end_offset, r.acked + r.died);
    assert_true(r.acked >= x->confirmed);
    replicas_settle(x->c);
    replicas_compare(x->c);
    print_message("seed %llu: %lld messages, %u hand-outs\n", (unsigned long long)seed,
                  (long long)r.end_offset, x->given_count);
    replicas_free(x->c);
    mem_free(x);
}

static void nothing_is_lost_or_comes_twice_under_faults(void **state)
{
    (void)state;
    for (uint64_t seed = 21; seed < 25; seed++) {
        chaos(seed, SUBSCRIPTION_QUEUE);
    }
    chaos(25, SUBSCRIPTION_KEYED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(leases_survive_their_leader),
        cmocka_unit_test(a_cut_off_leader_ends_no_lease),
        cmocka_unit_test(a_snapshot_brings_leases_and_dead_letters),
        cmocka_unit_test(a_lost_change_of_dead_letters_holds_up_none),
        cmocka_unit_test(nothing_is_lost_or_comes_twice_under_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
