/* The metadata group on several nodes: who answers, what a change of leaders means for leases, what
 * a node gets that comes late. The network is in memory, the clock is the test's. */
#include <stdio.h>

#include "base/mem.h"
#include "cluster/meta_internal.h"
#include "lib/meta_fixture.h"
#include "partition/peer.h"

#define NODES_AT_MOST 4
#define STEP_US       5000
#define TTL_MS        4000

struct wire {
    struct list node;
    int from, to;
    struct buf frame;
};

struct member {
    char folder[300];
    struct store *store; /* NULL: down. */
    struct meta *m;
    struct peer_outbox *out;
    struct list inbox; /* Frames of this turn; borrowed until it ends. */
};

struct net {
    char root[256];
    struct member nodes[NODES_AT_MOST];
    bool isolated[NODES_AT_MOST];
    struct list wire;
    int64_t now_ms, now_us;
    struct err_text detail;
};

/* ---- Life ---- */

static raft_id member_of(int i)
{
    return (5ull << 32) | (uint32_t)(i + 1);
}

static void start(struct net *n, int i, uint32_t founders)
{
    struct member *node = &n->nodes[i];
    struct store_config sc = {.path = node->folder,
                              .cluster_id = {{1}},
                              .node_id = (uint32_t)i + 1,
                              .shards = 1,
                              .incarnation = 5,
                              .max_bytes = 1LL << 30,
                              .grow_bytes = 4 << 20,
                              .reserve_bytes = 1 << 20};
    struct meta_config config = {.self = member_of(i), .seed = 17 * (uint64_t)i + 3};
    for (uint32_t k = 0; k < founders; k++) {
        config.initial.voters[config.initial.voter_count++] = member_of((int)k);
    }
    assert_int_equal(store_open(&sc, &node->store, &n->detail), FERRY_OK);
    config.store = node->store;
    assert_int_equal(meta_open(&config, n->now_us, &node->m, &n->detail), FERRY_OK);
    struct peer_outbox_config out = {
        .cluster_id = {{1}}, .self = member_of(i), .boot = 9 + (uint64_t)i};
    assert_int_equal(peer_outbox_new(&out, &node->out), FERRY_OK);
    for (int k = 0; k < NODES_AT_MOST; k++) {
        struct peer_route route = {.member = member_of(k), .shards = 1};
        if (k != i) {
            assert_int_equal(peer_outbox_route(node->out, &route), FERRY_OK);
        }
    }
}

static void drop_frames(struct list *l)
{
    for (struct list *at; (at = list_pop_front(l)) != NULL;) {
        struct wire *w = list_entry(at, struct wire, node);
        buf_fini(&w->frame);
        mem_free(w);
    }
}

static void stop(struct net *n, int i)
{
    struct member *node = &n->nodes[i];
    if (node->store == NULL) {
        return;
    }
    replica_fail(meta_replica(node->m), FERRY_ERR_SHUTTING_DOWN);
    while (meta_next_done(node->m) != NULL) {
    }
    meta_close(&node->m);
    peer_outbox_free(&node->out);
    store_close(&node->store);
    drop_frames(&node->inbox);
}

static int setup(void **state)
{
    struct net *n = mem_zalloc(1, sizeof(*n));
    if (n == NULL || fixture_make_folder(n->root, sizeof(n->root), "net") != 0) {
        mem_free(n);
        return -1;
    }
    n->now_ms = PART_START_MS;
    n->now_us = 1000000;
    list_init(&n->wire);
    for (int i = 0; i < NODES_AT_MOST; i++) {
        list_init(&n->nodes[i].inbox);
        (void)snprintf(n->nodes[i].folder, sizeof(n->nodes[i].folder), "%s/node-%d", n->root, i);
    }
    for (int i = 0; i < 3; i++) {
        start(n, i, 3);
    }
    *state = n;
    return 0;
}

static int teardown(void **state)
{
    struct net *n = *state;
    for (int i = 0; i < NODES_AT_MOST; i++) {
        stop(n, i);
    }
    drop_frames(&n->wire);
    fixture_remove_tree(n->root);
    mem_free(n);
    return 0;
}

/* ---- Turns ---- */

static void post(struct net *n, int i)
{
    raft_id member = 0;
    uint32_t shard = 0;
    struct buf frame;
    while (peer_outbox_next(n->nodes[i].out, false, &member, &shard, &frame)) {
        int to = (int)(uint32_t)member - 1;
        if (n->isolated[i] || n->isolated[to]) {
            buf_fini(&frame);
            continue;
        }
        struct wire *w = mem_zalloc(1, sizeof(*w));
        assert_non_null(w);
        list_init(&w->node);
        w->from = i;
        w->to = to;
        w->frame = frame;
        list_push_back(&n->wire, &w->node);
    }
}

static void deliver(struct net *n)
{
    for (struct list *at; (at = list_pop_front(&n->wire)) != NULL;) {
        struct wire *w = list_entry(at, struct wire, node);
        if (n->nodes[w->to].store == NULL || n->isolated[w->from] || n->isolated[w->to]) {
            buf_fini(&w->frame);
            mem_free(w);
        } else {
            list_push_back(&n->nodes[w->to].inbox, &w->node);
        }
    }
}

static void receive(struct net *n, int i)
{
    struct list *inbox = &n->nodes[i].inbox;
    for (struct list *at = inbox->next; at != inbox; at = at->next) {
        struct bytes frame = buf_bytes(&list_entry(at, struct wire, node)->frame);
        struct peer_header h;
        struct peer_item item;
        size_t offset = 0;
        assert_int_equal(peer_frame_parse(frame, &h, &n->detail), FERRY_OK);
        while (peer_frame_next(frame, &h, &offset, &item)) {
            assert_int_equal(replica_receive(meta_replica(n->nodes[i].m), &item, n->now_us),
                             FERRY_OK);
        }
    }
}

static void send(struct net *n, int i, enum peer_phase phase)
{
    size_t budget = 8u << 20;
    assert_int_equal(
        replica_send(meta_replica(n->nodes[i].m), phase, n->now_us, &budget, n->nodes[i].out),
        FERRY_OK);
}

static void turn(struct net *n, int i)
{
    struct member *node = &n->nodes[i];
    struct replica *r = meta_replica(node->m);
    receive(n, i);
    if (replica_deadline_us(r) <= n->now_us) {
        assert_int_equal(replica_tick(r, n->now_us), FERRY_OK);
    }
    send(n, i, PEER_NOW);
    post(n, i);
    if (replica_wants_write(r, n->now_us)) {
        uint32_t rows_left = REPLICA_FLUSH_ROWS_TURN;
        assert_int_equal(store_begin(node->store), FERRY_OK);
        assert_int_equal(replica_write(r, n->now_us, &rows_left), FERRY_OK);
        assert_int_equal(store_commit(node->store), FERRY_OK);
    }
    if (replica_has_written(r) || replica_wants_stored(r)) {
        assert_int_equal(replica_stored(r, n->now_us), FERRY_OK);
    }
    send(n, i, PEER_AFTER_SYNC);
    send(n, i, PEER_NOW);
    post(n, i);
    meta_tick(node->m, n->now_ms, n->now_us);
    drop_frames(&node->inbox);
    meta_check(node->m);
}

static void run_ms(struct net *n, int64_t ms)
{
    for (int64_t end = n->now_us + ms * 1000; n->now_us < end;) {
        n->now_us += STEP_US;
        n->now_ms += STEP_US / 1000;
        deliver(n);
        for (int i = 0; i < NODES_AT_MOST; i++) {
            if (n->nodes[i].store != NULL) {
                turn(n, i);
            }
        }
    }
}

/* The node that is ready in the highest term; -1: none. */
static int leader(const struct net *n)
{
    int found = -1;
    uint64_t term = 0;
    for (int i = 0; i < NODES_AT_MOST; i++) {
        struct replica *r = n->nodes[i].store != NULL ? meta_replica(n->nodes[i].m) : NULL;
        if (r != NULL && replica_is_ready(r) && replica_term(r) > term) {
            found = i;
            term = replica_term(r);
        }
    }
    return found;
}

static int wait_leader(struct net *n, int not_this_one)
{
    for (int i = 0; i < 2000; i++) {
        if (leader(n) >= 0 && leader(n) != not_this_one) {
            return leader(n);
        }
        run_ms(n, 5);
    }
    fail_msg("nobody leads");
    return -1;
}

/* Runs until the ticket is answered. */
static enum ferry_err await(struct net *n, int i, struct meta_ticket *t, enum ferry_err err)
{
    for (int turns = 0; err == FERRY_OK && t->waits && turns < 2000; turns++) {
        run_ms(n, 5);
        struct meta_ticket *done = meta_next_done(n->nodes[i].m);
        if (done != NULL) {
            assert_ptr_equal(done, t);
            err = t->base.err;
            t->waits = false;
        }
    }
    assert_false(err == FERRY_OK && t->waits);
    meta_ticket_fini(t);
    return err;
}

static enum ferry_err join(struct net *n, int at, int i)
{
    struct meta_ticket t;
    struct meta_node node = meta_node_with((uint32_t)i + 1, "");
    node.member = member_of(i);
    meta_ticket_init(&t);
    return await(n, at, &t,
                 meta_node_register(n->nodes[at].m, &node, n->now_ms, n->now_us, &t, &n->detail));
}

static int start_with_leader(struct net *n)
{
    int at = wait_leader(n, -1);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(join(n, at, i), FERRY_OK);
    }
    return at;
}

static void make_topic(struct net *n, int at, const char *name, uint32_t partitions)
{
    struct meta_ticket t;
    struct topic_create_request spec = meta_spec(name, partitions, 0);
    struct ferry_id id = part_id(partitions);
    meta_ticket_init(&t);
    assert_int_equal(
        await(n, at, &t,
              meta_topic_create(n->nodes[at].m, &spec, &id, n->now_ms, n->now_us, &t, &n->detail)),
        FERRY_OK);
}

static enum ferry_err take(struct net *n, int at, const char *holder, uint32_t wait_ms,
                           uint64_t *token)
{
    struct meta_ticket t;
    meta_ticket_init(&t);
    enum ferry_err err =
        await(n, at, &t,
              meta_lease_acquire(n->nodes[at].m, bytes_of_string("lease"), bytes_of_string(holder),
                                 TTL_MS, wait_ms, n->now_ms, n->now_us, &t));
    *token = t.token;
    return err;
}

static void expect_same(struct net *n, int count)
{
    run_ms(n, 500);
    char *first = meta_dump(n->nodes[0].m);
    for (int i = 1; i < count; i++) {
        char *other = meta_dump(n->nodes[i].m);
        assert_string_equal(first, other);
        mem_free(other);
    }
    mem_free(first);
}

/* ---- Tests ---- */

static void every_node_comes_to_the_same_metadata(void **state)
{
    struct net *n = *state;
    uint64_t token = 0;
    int at = start_with_leader(n);
    make_topic(n, at, "t", 12);
    assert_int_equal(take(n, at, "a", 0, &token), FERRY_OK);
    expect_same(n, 3);
    n->isolated[at] = true;
    int next = wait_leader(n, at);
    make_topic(n, next, "u", 5);
    n->isolated[at] = false;
    run_ms(n, 3000);
    expect_same(n, 3);
    assert_non_null(meta_topic_find(n->nodes[at].m, bytes_of_string("u")));
}

static void who_does_not_lead_says_so(void **state)
{
    struct net *n = *state;
    int at = start_with_leader(n);
    int other = (at + 1) % 3;
    struct meta *m = n->nodes[other].m;
    struct meta_ticket t;
    struct meta_node node = meta_node_with(1, "");
    struct bytes name = bytes_of_string("x");
    meta_ticket_init(&t);
    assert_int_equal(meta_node_register(m, &node, n->now_ms, n->now_us, &t, &n->detail),
                     FERRY_ERR_NOT_LEADER);
    assert_int_equal(
        meta_node_change(m, 1, META_NODE_DRAIN, 0, n->now_ms, n->now_us, &t, &n->detail),
        FERRY_ERR_NOT_LEADER);
    assert_int_equal(meta_apply_plan(m, 1, n->now_ms, n->now_us, &t), FERRY_ERR_NOT_LEADER);
    assert_int_equal(meta_abort_moves(m, n->now_ms, n->now_us, &t), FERRY_ERR_NOT_LEADER);
    assert_int_equal(meta_lease_acquire(m, name, name, 1000, 0, n->now_ms, n->now_us, &t),
                     FERRY_ERR_NOT_LEADER);
    assert_int_equal(meta_lease_renew(m, name, name, 1, 1000, n->now_ms, n->now_us, &t),
                     FERRY_ERR_NOT_LEADER);
    assert_int_equal(meta_lease_release(m, name, name, 1, n->now_ms, n->now_us, &t),
                     FERRY_ERR_NOT_LEADER);
    assert_int_equal(meta_worker_id(m, name, 1000, n->now_ms, n->now_us, &t), FERRY_ERR_NOT_LEADER);
    assert_int_equal(meta_deadline_us(m), RAFT_NEVER);
    meta_ticket_fini(&t);
}

/* Invariant 4: the successor grants only after everything that its predecessor may have promised.
 */
static void a_new_leader_waits_out_the_lease(void **state)
{
    struct net *n = *state;
    uint64_t token = 0, next_token = 0;
    int at = start_with_leader(n);
    assert_int_equal(take(n, at, "a", 0, &token), FERRY_OK);
    run_ms(n, TTL_MS - 200);
    struct meta_ticket t;
    meta_ticket_init(&t);
    int64_t asked_us = n->now_us;
    assert_int_equal(
        await(n, at, &t,
              meta_lease_renew(n->nodes[at].m, bytes_of_string("lease"), bytes_of_string("a"),
                               token, TTL_MS, n->now_ms, n->now_us, &t)),
        FERRY_OK);
    n->isolated[at] = true;
    int next = wait_leader(n, at);
    assert_int_equal(take(n, next, "b", 0, &next_token), FERRY_ERR_LEASE_HELD);
    assert_int_equal(take(n, next, "b", 60000, &next_token), FERRY_OK);
    assert_true(next_token > token);
    assert_true(n->now_us >= asked_us + TTL_MS * 1000);
}

/* A leader that nobody hears any more must not prolong what its successor is waiting out. */
static void a_leader_that_is_cut_off_renews_nothing(void **state)
{
    struct net *n = *state;
    uint64_t token = 0;
    struct meta_ticket lease, worker;
    int at = start_with_leader(n);
    struct meta *m = n->nodes[at].m;
    struct bytes holder = bytes_of_string("a");
    meta_ticket_init(&worker);
    assert_int_equal(take(n, at, "a", 0, &token), FERRY_OK);
    assert_int_equal(
        await(n, at, &worker, meta_worker_id(m, holder, TTL_MS, n->now_ms, n->now_us, &worker)),
        FERRY_OK);
    meta_ticket_init(&lease);
    meta_ticket_init(&worker);
    n->isolated[at] = true;
    assert_int_equal(meta_lease_renew(m, bytes_of_string("lease"), holder, token, TTL_MS, n->now_ms,
                                      n->now_us, &lease),
                     FERRY_OK);
    assert_int_equal(meta_worker_id(m, holder, TTL_MS, n->now_ms, n->now_us, &worker), FERRY_OK);
    assert_true(lease.waits && worker.waits);
    assert_int_equal(await(n, at, &lease, FERRY_OK), FERRY_ERR_NOT_LEADER);
    assert_int_equal(await(n, at, &worker, FERRY_OK), FERRY_ERR_NOT_LEADER);
}

static void who_waits_in_line_is_told_that_the_leader_lost_its_office(void **state)
{
    struct net *n = *state;
    uint64_t token = 0;
    struct meta_ticket t;
    int at = start_with_leader(n);
    assert_int_equal(take(n, at, "a", 0, &token), FERRY_OK);
    meta_ticket_init(&t);
    enum ferry_err err =
        meta_lease_acquire(n->nodes[at].m, bytes_of_string("lease"), bytes_of_string("b"), TTL_MS,
                           60000, n->now_ms, n->now_us, &t);
    n->isolated[at] = true;
    assert_int_equal(await(n, at, &t, err), FERRY_ERR_NOT_LEADER);
}

/* The fourth node has nothing and the beginning of the log is gone: it gets the tables. */
static void a_node_that_comes_late_gets_all_tables(void **state)
{
    struct net *n = *state;
    uint64_t token = 0;
    int at = start_with_leader(n);
    make_topic(n, at, "t", 12);
    assert_int_equal(take(n, at, "a", 0, &token), FERRY_OK);
    for (uint32_t i = 0; i < META_LOG_KEEP + 500; i += 100) {
        struct meta_ticket t[100];
        for (int k = 0; k < 100; k++) {
            meta_ticket_init(&t[k]);
            assert_int_equal(meta_producer_init(n->nodes[at].m, bytes_of_string("p"), n->now_ms,
                                                n->now_us, &t[k]),
                             FERRY_OK);
        }
        run_ms(n, 100);
        for (int k = 0; k < 100; k++) {
            assert_ptr_equal(meta_next_done(n->nodes[at].m), &t[k]);
            meta_ticket_fini(&t[k]);
        }
    }
    run_ms(n, 3000); /* Rows are written, the log is trimmed. */
    assert_true(replica_first_index(meta_replica(n->nodes[at].m)) > 1);
    assert_int_equal(join(n, at, 3), FERRY_OK);
    start(n, 3, 0);
    struct raft_members wanted;
    meta_wanted_members(n->nodes[at].m, &wanted);
    assert_true(wanted.voter_count == 3 && wanted.learner_count == 1);
    assert_int_equal(replica_configure(meta_replica(n->nodes[at].m), &wanted, n->now_us), FERRY_OK);
    run_ms(n, 5000);
    expect_same(n, 4);
    bool all_changed = false;
    for (struct meta_change *c; (c = meta_next_change(n->nodes[3].m)) != NULL;) {
        all_changed = all_changed || c->kind == META_ALL_CHANGED;
        mem_free(c);
    }
    assert_true(all_changed);
    make_topic(n, at, "u", 3);
    expect_same(n, 4);
    stop(n, 3);
    start(n, 3, 0);
    expect_same(n, 4);
}

#define net_unit(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        net_unit(every_node_comes_to_the_same_metadata),
        net_unit(who_does_not_lead_says_so),
        net_unit(a_new_leader_waits_out_the_lease),
        net_unit(a_leader_that_is_cut_off_renews_nothing),
        net_unit(who_waits_in_line_is_told_that_the_leader_lost_its_office),
        net_unit(a_node_that_comes_late_gets_all_tables),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
