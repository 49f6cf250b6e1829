/* Everything at random: a restart at any point gives the state that was there, and the log applied
 * anew by somebody else gives the same. */
#include <stdio.h>

#include "base/mem.h"
#include "base/prng.h"
#include "cluster/meta_internal.h"
#include "lib/meta_fixture.h"
#include "wire/pack.h"

#define SEED      0x4d455441u
#define ROUNDS    8
#define OPS       160
#define TICKETS   4
#define NODES     9
#define NAMES_MAX 6

struct world {
    struct meta_fixture *f;
    struct prng prng;
    struct meta_node nodes[NODES + 1]; /* The present life of each folder. */
    uint64_t next_topic;
    struct meta_ticket tickets[TICKETS];
    int ticket_count;
    uint32_t answers[2]; /* Done, refused. */
    bool faults;         /* Requests may find no memory. */
    uint32_t failed;     /* Did so. */
};

static uint32_t below(struct world *w, uint32_t bound)
{
    return (uint32_t)prng_below(&w->prng, bound);
}

static struct bytes name_of(struct world *w, char text[16], const char *prefix)
{
    (void)snprintf(text, 16, "%s%u", prefix, below(w, NAMES_MAX));
    return bytes_of_string(text);
}

/* ---- One request each ---- */

static enum ferry_err op_register(struct world *w, struct meta_ticket *t)
{
    struct meta_fixture *f = w->f;
    struct meta_node *n = &w->nodes[1 + below(w, NODES)];
    switch (below(w, 5)) {
    case 0: /* A wiped folder. */
        n->member += 1ull << 32;
        n->boot = 1;
        break;
    case 1: /* A copy from before. */
        n->boot -= n->boot > 1 ? 1 : 0;
        break;
    default:
        n->boot++;
    }
    n->boot_id = prng_next(&w->prng);
    return meta_node_register(f->m, n, f->now_ms, f->now_us, t, &f->detail);
}

static enum ferry_err op_change(struct world *w, struct meta_ticket *t)
{
    struct meta_fixture *f = w->f;
    static const enum meta_node_change_kind kinds[] = {
        META_NODE_DRAIN, META_NODE_UNDRAIN, META_NODE_UNDRAIN, META_NODE_REMOVE, META_NODE_WEIGHT};
    enum meta_node_change_kind kind = kinds[below(w, 5)];
    return meta_node_change(f->m, 1 + below(w, NODES), kind, below(w, 4), f->now_ms, f->now_us, t,
                            &f->detail);
}

static enum ferry_err op_topic(struct world *w, struct meta_ticket *t)
{
    char text[16];
    struct meta_fixture *f = w->f;
    struct bytes name = name_of(w, text, "t");
    if (below(w, 3) == 0) {
        return meta_topic_delete(f->m, name, f->now_ms, f->now_us, t);
    }
    struct topic_create_request spec = meta_spec(text, 1 + below(w, 20), below(w, 4));
    spec.retention_acked = below(w, 3) == 0;
    return meta_try_topic(f, &spec, w->next_topic++, t);
}

static enum ferry_err op_moves(struct world *w, struct meta_ticket *t)
{
    struct meta_fixture *f = w->f;
    struct plan plan;
    if (below(w, 5) == 0) {
        return meta_abort_moves(f->m, f->now_ms, f->now_us, t);
    }
    plan_init(&plan);
    enum ferry_err err = meta_plan(f->m, &plan);
    uint64_t id = plan.id;
    plan_fini(&plan);
    return err != FERRY_OK ? err : meta_apply_plan(f->m, id, f->now_ms, f->now_us, t);
}

static enum ferry_err op_done(struct world *w, struct meta_ticket *t)
{
    struct meta_fixture *f = w->f;
    size_t count = meta_move_count(f->m);
    if (count == 0) {
        return FERRY_OK;
    }
    const struct plan_step *s = &meta_move_at(f->m, below(w, (uint32_t)count))->step;
    const uint32_t *nodes = below(w, 4) == 0 ? s->from : s->to;
    return meta_move_done(f->m, s->group, nodes, s->replicas, f->now_ms, f->now_us, t);
}

static enum ferry_err op_lease(struct world *w, struct meta_ticket *t)
{
    char name[16], holder[16];
    struct meta_fixture *f = w->f;
    struct bytes n = name_of(w, name, "l"), h = name_of(w, holder, "h");
    struct meta_lease_view view;
    if (below(w, 3) == 0 && meta_lease_find(f->m, n, f->now_us, &view)) {
        return meta_lease_release(f->m, n, view.holder, view.token, f->now_ms, f->now_us, t);
    }
    if (below(w, 4) == 0) {
        return meta_worker_id(f->m, h, 1000 + below(w, 3) * 1000, f->now_ms, f->now_us, t);
    }
    return meta_lease_acquire(f->m, n, h, 1000 + below(w, 3) * 1000, 0, f->now_ms, f->now_us, t);
}

static enum ferry_err op_producer(struct world *w, struct meta_ticket *t)
{
    char text[16];
    struct meta_fixture *f = w->f;
    return meta_producer_init(f->m, name_of(w, text, "p"), f->now_ms, f->now_us, t);
}

static enum ferry_err op_quota(struct world *w, struct meta_ticket *t)
{
    char client[16], topic[16];
    struct meta_fixture *f = w->f;
    struct quota q = {.client = name_of(w, client, "c"), .topic = name_of(w, topic, "t")};
    q.client.size = below(w, 4) == 0 ? 0 : q.client.size;
    q.topic.size = below(w, 4) == 0 ? 0 : q.topic.size;
    q.bytes_per_second = below(w, 3) == 0 ? 0 : prng_next(&w->prng);
    q.requests_per_second = q.bytes_per_second / 1000;
    return meta_quota_set(f->m, &q, f->now_ms, f->now_us, t, &f->detail);
}

typedef enum ferry_err request(struct world *w, struct meta_ticket *t);
static request *const requests[] = {op_register, op_register, op_change, op_topic,  op_topic,
                                    op_moves,    op_done,     op_done,   op_done,   op_lease,
                                    op_lease,    op_producer, op_done,   op_change, op_done,
                                    op_quota,    op_quota};

/* ---- Running ---- */

static bool is_expected(enum ferry_err err)
{
    return err != FERRY_ERR_NO_MEMORY && err != FERRY_ERR_CORRUPT && err != FERRY_ERR_STORE_FAILED;
}

static void ask(struct world *w)
{
    struct meta_ticket *t = &w->tickets[w->ticket_count];
    meta_ticket_init(t);
    request *op = requests[below(w, sizeof(requests) / sizeof(requests[0]))];
    mem_test_fail_after(w->faults && below(w, 2) == 0 ? 1 + below(w, 8) : 0);
    enum ferry_err err = op(w, t);
    mem_test_fail_after(0);
    assert_true(is_expected(err) || (w->faults && err == FERRY_ERR_NO_MEMORY));
    w->failed += err == FERRY_ERR_NO_MEMORY ? 1 : 0;
    meta_check(w->f->m);
    w->answers[err == FERRY_OK ? 0 : 1]++;
    if (err == FERRY_OK && t->waits) {
        w->ticket_count++;
    } else {
        meta_ticket_fini(t);
    }
}

static void answer_all(struct world *w)
{
    for (struct meta_ticket *t; (t = meta_next_done(w->f->m)) != NULL;) {
        assert_true(is_expected(t->base.err));
    }
    while (w->ticket_count > 0) {
        meta_ticket_fini(&w->tickets[--w->ticket_count]);
    }
    meta_forget_changes(w->f);
}

/* Some requests on the way together, then all of their entries. */
static void ask_some(struct world *w)
{
    uint32_t count = 1 + below(w, TICKETS);
    for (uint32_t i = 0; i < count; i++) {
        ask(w);
    }
    if (below(w, 3) == 0) {
        meta_pass_ms(w->f, below(w, 1500));
    }
    meta_turn(w->f);
    answer_all(w);
}

static void restart_and_compare(struct world *w)
{
    struct meta_fixture *f = w->f;
    if (below(w, 2) == 0) {
        meta_flush(f);
    }
    char *before = meta_dump(f->m);
    meta_crash(f);
    meta_start(f);
    char *after = meta_dump(f->m);
    assert_string_equal(before, after);
    mem_free(before);
    mem_free(after);
}

/* Turns without ticks: only what the log says. */
static void follow(struct meta_fixture *g)
{
    struct replica *r = meta_replica(g->m);
    for (int i = 0; replica_wants_write(r, g->now_us) && i < 1000; i++) {
        uint32_t rows_left = REPLICA_FLUSH_ROWS_TURN;
        assert_int_equal(store_begin(g->store), FERRY_OK);
        assert_int_equal(replica_write(r, g->now_us, &rows_left), FERRY_OK);
        assert_int_equal(store_commit(g->store), FERRY_OK);
        assert_int_equal(replica_stored(r, g->now_us), FERRY_OK);
    }
}

/* Gives every entry of f's log to g, and one that does nothing for each that leaders made by
 * themselves: the same indexes. */
static void replay(struct meta_fixture *f, struct meta_fixture *g)
{
    struct buf nothing;
    buf_init(&nothing, 100);
    pack_array(&nothing, 2);
    pack_uint(&nothing, META_TOPIC_DELETE);
    pack_str(&nothing, bytes_of_string("nobody-s"));
    struct store_cursor c = {0};
    struct store_entry entry;
    uint64_t index = 0, first = 0, last = 0, given = 0;
    assert_int_equal(store_read_begin(f->store), FERRY_OK);
    assert_int_equal(store_log_bounds(f->store, META_GROUP, &first, &last), FERRY_OK);
    assert_int_equal(first, 1); /* Nothing was trimmed. */
    assert_int_equal(store_cursor_open(f->store, META_GROUP, 1, &c), FERRY_OK);
    while (store_cursor_next(&c, &index, &entry) == FERRY_OK) {
        if (index == 1) {
            continue; /* g has its own. */
        }
        entry.payload = entry.type == STORE_ENTRY_CONTROL ? entry.payload : buf_bytes(&nothing);
        entry.type = STORE_ENTRY_CONTROL;
        assert_int_equal(replica_propose(meta_replica(g->m), &entry, g->now_us, &given), FERRY_OK);
        assert_int_equal(given, index);
        follow(g);
    }
    buf_fini(&nothing);
    store_cursor_close(&c);
    store_read_end(f->store);
}

static void compare_with_another(struct world *w)
{
    struct meta_fixture *g = meta_fixture_new();
    assert_non_null(g);
    meta_start(g);
    replay(w->f, g);
    meta_check(g->m);
    char *a = meta_dump(w->f->m);
    char *b = meta_dump(g->m);
    assert_string_equal(a, b);
    mem_free(a);
    mem_free(b);
    meta_fixture_free(g);
}

static void a_restart_anywhere_and_another_node_give_the_same_state(void **state)
{
    struct meta_fixture *unused = *state;
    meta_start(unused);
    uint32_t moves = 0, done = 0, refused = 0;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        struct world w = {.f = meta_fixture_new(), .next_topic = 1};
        assert_non_null(w.f);
        prng_init(&w.prng, SEED + round);
        for (uint32_t id = 1; id <= NODES; id++) {
            w.nodes[id] = meta_node_with(id, id % 3 == 0 ? "a" : (id % 3 == 1 ? "b" : ""));
        }
        meta_start(w.f);
        for (int i = 0; i < OPS; i++) {
            ask_some(&w);
            moves = meta_move_count(w.f->m) > moves ? (uint32_t)meta_move_count(w.f->m) : moves;
            if (below(&w, 8) == 0) {
                restart_and_compare(&w);
            }
        }
        compare_with_another(&w);
        done += w.answers[0];
        refused += w.answers[1];
        meta_fixture_free(w.f);
    }
    printf("seed %#x: %u requests taken, %u refused, up to %u moves\n", SEED, done, refused, moves);
    assert_true(done > 1000 && refused > 100 && moves > 20);
}

/* A request that finds no memory is refused, and the next ones go on from what was there. */
static void a_request_without_memory_changes_nothing(void **state)
{
    struct world w = {.f = *state, .next_topic = 1, .faults = true};
    prng_init(&w.prng, SEED);
    for (uint32_t id = 1; id <= NODES; id++) {
        w.nodes[id] = meta_node_with(id, "");
    }
    meta_start(w.f);
    for (int i = 0; i < OPS; i++) {
        ask_some(&w);
    }
    restart_and_compare(&w);
    compare_with_another(&w);
    assert_true(w.failed > 20 && w.answers[0] > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        meta_unit(a_restart_anywhere_and_another_node_give_the_same_state),
        meta_unit(a_request_without_memory_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
