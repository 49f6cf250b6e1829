#include "lib/meta_fixture.h"

#include <stdio.h>

#include "base/mem.h"
#include "cluster/meta_internal.h"

#define DUMP_MAX_BYTES (4u << 20)

/* ---- Life ---- */

struct meta_fixture *meta_fixture_new(void)
{
    struct meta_fixture *f = mem_zalloc(1, sizeof(*f));
    if (f == NULL || fixture_make_folder(f->root, sizeof(f->root), "meta") != 0) {
        mem_free(f);
        return NULL;
    }
    (void)snprintf(f->folder, sizeof(f->folder), "%s/shard", f->root);
    f->now_ms = PART_START_MS;
    f->now_us = 1000000;
    return f;
}

void meta_fixture_free(struct meta_fixture *f)
{
    meta_crash(f);
    fixture_remove_tree(f->root);
    mem_free(f);
}

int meta_setup(void **state)
{
    *state = meta_fixture_new();
    return *state != NULL ? 0 : -1;
}

int meta_teardown(void **state)
{
    meta_fixture_free(*state);
    return 0;
}

void meta_turn(struct meta_fixture *f)
{
    struct replica *r = meta_replica(f->m);
    if (replica_deadline_us(r) <= f->now_us) {
        assert_int_equal(replica_tick(r, f->now_us), FERRY_OK);
    }
    meta_tick(f->m, f->now_ms, f->now_us);
    for (int i = 0; replica_wants_write(r, f->now_us); i++) {
        uint32_t rows_left = REPLICA_FLUSH_ROWS_TURN;
        assert_true(i < 100000);
        assert_int_equal(store_begin(f->store), FERRY_OK);
        assert_int_equal(replica_write(r, f->now_us, &rows_left), FERRY_OK);
        assert_int_equal(store_commit(f->store), FERRY_OK);
        assert_int_equal(replica_stored(r, f->now_us), FERRY_OK);
        meta_tick(f->m, f->now_ms, f->now_us);
        meta_check(f->m);
    }
}

void meta_forget_changes(struct meta_fixture *f)
{
    for (struct meta_change *c; (c = meta_next_change(f->m)) != NULL;) {
        mem_free(c);
    }
}

void meta_start(struct meta_fixture *f)
{
    struct store_config sc = {.path = f->folder,
                              .node_id = 1,
                              .shards = 1,
                              .max_bytes = 1LL << 30,
                              .grow_bytes = 4 << 20,
                              .reserve_bytes = 1 << 20};
    if (store_open(&sc, &f->store, &f->detail) != FERRY_OK) {
        fail_msg("%s", f->detail.text);
    }
    struct meta_config config = {
        .store = f->store, .self = 1, .initial = {.voter_count = 1, .voters = {1}}, .seed = 1};
    enum ferry_err err = meta_open(&config, f->now_us, &f->m, &f->detail);
    if (err != FERRY_OK) {
        fail_msg("%s: %s", ferry_err_name(err), f->detail.text);
    }
    meta_turn(f);
    assert_true(replica_is_ready(meta_replica(f->m)));
    meta_forget_changes(f);
}

void meta_crash(struct meta_fixture *f)
{
    if (f->m != NULL) {
        replica_fail(meta_replica(f->m), FERRY_ERR_SHUTTING_DOWN);
        while (meta_next_done(f->m) != NULL) {
        }
        meta_close(&f->m);
    }
    store_close(&f->store);
}

bool meta_crash_in_turn(struct meta_fixture *f, int round)
{
    enum crash_point point = (enum crash_point)(round % CRASH_POINTS);
    f->now_us += round / CRASH_POINTS % 2 == 0 ? 0 : REPLICA_FLUSH_MS * 1000;
    uint32_t rows_left = REPLICA_FLUSH_ROWS_TURN;
    if (point != CRASH_BEFORE_WRITE) {
        assert_int_equal(store_begin(f->store), FERRY_OK);
        assert_int_equal(replica_write(meta_replica(f->m), f->now_us, &rows_left), FERRY_OK);
    }
    if (point == CRASH_BEFORE_COMMIT) {
        store_abort(f->store);
    } else if (point == CRASH_BEFORE_STORED) {
        assert_int_equal(store_commit(f->store), FERRY_OK);
    }
    meta_crash(f);
    meta_start(f);
    return point == CRASH_BEFORE_STORED;
}

void meta_flush(struct meta_fixture *f)
{
    meta_pass_ms(f, REPLICA_FLUSH_MS);
}

void meta_pass_ms(struct meta_fixture *f, int64_t ms)
{
    f->now_ms += ms;
    f->now_us += ms * 1000;
    meta_turn(f);
}

void meta_expect_done(struct meta_fixture *f, const struct meta_ticket *t, enum ferry_err err)
{
    assert_ptr_equal(meta_next_done(f->m), t);
    assert_int_equal(t->base.err, err);
}

/* The answer of a request: what it returned, or what its entry decided. */
static enum ferry_err answer(struct meta_fixture *f, struct meta_ticket *t, enum ferry_err err)
{
    if (err == FERRY_OK && t->waits) {
        meta_turn(f);
        assert_ptr_equal(meta_next_done(f->m), t);
        err = t->base.err;
    }
    meta_ticket_fini(t);
    return err;
}

/* ---- Nodes ---- */

struct meta_node meta_node_with(uint32_t id, const char *zone)
{
    struct meta_node node = {.id = id,
                             .member = (5ull << 32) | id,
                             .boot = 1,
                             .boot_id = 100 + id,
                             .weight = 1,
                             .shards = 1,
                             .client_endpoints = "tcp://127.0.0.1:7001",
                             .peer_endpoints = "tcp://127.0.0.1:7002"};
    (void)snprintf(node.zone, sizeof(node.zone), "%s", zone);
    return node;
}

enum ferry_err meta_join(struct meta_fixture *f, const struct meta_node *node)
{
    struct meta_ticket t;
    meta_ticket_init(&t);
    return answer(f, &t, meta_node_register(f->m, node, f->now_ms, f->now_us, &t, &f->detail));
}

void meta_join_all(struct meta_fixture *f, uint32_t first, uint32_t last)
{
    for (uint32_t id = first; id <= last; id++) {
        struct meta_node node = meta_node_with(id, "");
        assert_int_equal(meta_join(f, &node), FERRY_OK);
    }
}

enum ferry_err meta_change_node(struct meta_fixture *f, uint32_t id,
                                enum meta_node_change_kind kind, uint32_t weight)
{
    struct meta_ticket t;
    meta_ticket_init(&t);
    return answer(f, &t,
                  meta_node_change(f->m, id, kind, weight, f->now_ms, f->now_us, &t, &f->detail));
}

/* ---- Topics and moves ---- */

struct topic_create_request meta_spec(const char *name, uint32_t partitions, uint32_t replicas)
{
    return (struct topic_create_request){.name = bytes_of_string(name),
                                         .partitions = partitions,
                                         .replicas = replicas,
                                         .retention_ms = -1,
                                         .retention_bytes = -1,
                                         .dedupe_window_ms = -1};
}

enum ferry_err meta_try_topic(struct meta_fixture *f, const struct topic_create_request *spec,
                              uint64_t id, struct meta_ticket *t)
{
    struct ferry_id topic_id = part_id(id);
    return meta_topic_create(f->m, spec, &topic_id, f->now_ms, f->now_us, t, &f->detail);
}

const struct meta_topic *meta_make_topic(struct meta_fixture *f, const char *name,
                                         uint32_t partitions, uint32_t replicas, uint64_t id)
{
    struct meta_ticket t;
    struct topic_create_request spec = meta_spec(name, partitions, replicas);
    meta_ticket_init(&t);
    assert_int_equal(answer(f, &t, meta_try_topic(f, &spec, id, &t)), FERRY_OK);
    return meta_topic_find(f->m, spec.name);
}

void meta_drop_topic(struct meta_fixture *f, const char *name)
{
    struct meta_ticket t;
    meta_ticket_init(&t);
    assert_int_equal(
        answer(f, &t, meta_topic_delete(f->m, bytes_of_string(name), f->now_ms, f->now_us, &t)),
        FERRY_OK);
}

enum ferry_err meta_report_done(struct meta_fixture *f, uint64_t group, const uint32_t *nodes,
                                uint32_t count)
{
    struct meta_ticket t;
    meta_ticket_init(&t);
    return answer(f, &t, meta_move_done(f->m, group, nodes, count, f->now_ms, f->now_us, &t));
}

uint32_t meta_finish_moves(struct meta_fixture *f)
{
    uint32_t done = 0;
    while (meta_move_count(f->m) > 0) {
        uint64_t after = 0;
        uint32_t before = done;
        const struct meta_move *move;
        while ((move = meta_move_at(f->m, meta_move_after(f->m, after))) != NULL) {
            uint32_t nodes[RING_REPLICAS_MAX];
            after = move->step.group;
            bool runs = move->state != META_MOVE_PLANNED;
            uint32_t count = meta_target(f->m, after, nodes);
            assert_int_equal(meta_report_done(f, after, nodes, count), FERRY_OK);
            done += runs ? 1 : 0;
        }
        assert_true(done > before);
    }
    return done;
}

/* ---- The state as text ---- */

static void dump_nodes(const struct meta *m, struct buf *b)
{
    for (size_t i = 0; i < m->node_count; i++) {
        const struct node_row *row = m->nodes[i];
        const struct meta_node *n = &row->node;
        buf_printf(b,
                   "node %u member %llx since %llu boot %llu/%llu weight %u%s%s shards %u zone "
                   "'%s' %s %s\n",
                   n->id, (unsigned long long)n->member, (unsigned long long)n->member_index,
                   (unsigned long long)n->boot, (unsigned long long)n->boot_id, n->weight,
                   n->draining ? " draining" : "", row->emptying ? " emptying" : "", n->shards,
                   n->zone, n->client_endpoints, n->peer_endpoints);
    }
    for (size_t i = 0; i < m->gone_count; i++) {
        buf_printf(b, "gone %llx\n", (unsigned long long)m->gone[i].member);
    }
}

static void dump_topics(const struct meta *m, struct buf *b)
{
    for (size_t i = 0; i < m->topic_count; i++) {
        const struct meta_topic *t = &m->topics[i]->topic;
        buf_printf(b, "topic %s groups %llu+%u made by %llu%s:", t->name,
                   (unsigned long long)t->first_group, t->partitions,
                   (unsigned long long)t->created_index,
                   t->settings.retention_acked ? " acked" : "");
        for (uint32_t k = 0; k < t->partitions * t->replicas; k++) {
            buf_printf(b, "%s%u", k % t->replicas == 0 ? " " : ",", t->placement[k]);
        }
        buf_printf(b, "\n");
    }
    for (size_t i = 0; i < m->move_count; i++) {
        const struct meta_move *move = &m->moves[i].move;
        buf_printf(b, "move %llu state %u:", (unsigned long long)move->step.group, move->state);
        for (uint32_t k = 0; k < move->step.replicas; k++) {
            buf_printf(b, " %u>%u", move->step.from[k], move->step.to[k]);
        }
        buf_printf(b, "\n");
    }
}

static void dump_quotas(const struct meta *m, struct buf *b)
{
    for (size_t i = 0; i < m->quota_count; i++) {
        const struct meta_quota *q = &m->quotas[i].quota;
        buf_printf(b, "quota of '%s' on '%s': %llu bytes %llu messages %llu requests\n", q->client,
                   q->topic, (unsigned long long)q->bytes_per_second,
                   (unsigned long long)q->messages_per_second,
                   (unsigned long long)q->requests_per_second);
    }
}

char *meta_dump(const struct meta *m)
{
    struct buf b;
    size_t size = 0;
    buf_init(&b, DUMP_MAX_BYTES);
    buf_printf(&b, "next group %llu producer %llu token %llu done %llu\n",
               (unsigned long long)m->next_group, (unsigned long long)m->next_producer,
               (unsigned long long)m->last_token, (unsigned long long)m->moves_done);
    dump_nodes(m, &b);
    dump_topics(m, &b);
    for (size_t i = 0; i < m->lease_count; i++) {
        if (m->leases[i]->token != 0) {
            buf_printf(&b, "lease %s of %s token %llu ttl %u\n", m->leases[i]->name,
                       m->leases[i]->holder, (unsigned long long)m->leases[i]->token,
                       m->leases[i]->ttl_ms);
        }
    }
    for (uint32_t i = 0; i < META_WORKERS; i++) {
        if (m->workers[i].holder[0] != '\0') {
            buf_printf(&b, "worker %u of %s ttl %u\n", i, m->workers[i].holder,
                       m->workers[i].ttl_ms);
        }
    }
    dump_quotas(m, &b);
    buf_append_u8(&b, 0);
    assert_true(buf_ok(&b));
    return (char *)buf_steal(&b, &size);
}
