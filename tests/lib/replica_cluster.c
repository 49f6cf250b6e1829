#include "lib/replica_cluster.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checksum.h"
#include "base/mem.h"
#include "lib/partition_fixture.h"
#include "partition/control.h"
#include "partition/peer_item.h"

#define SEND_BUDGET   (8u << 20)
#define DELAY_MAX_US  15000
#define SETTLE_MS_MAX 60000

struct wire_frame {
    struct list node;
    int from, to;
    raft_id to_member;
    int64_t due_us;
    struct buf frame;
};

struct owned {
    struct list node;
    struct partition_ticket *ticket; /* Or bytes behind this struct. */
};

/* ---- Life of the cluster ---- */

static raft_id member_of(int i, uint32_t life)
{
    return (raft_id)life << 32 | (raft_id)(i + 1);
}

static int node_of(raft_id member)
{
    return (int)(member & 0xffff) - 1;
}

struct raft_members replicas_members(const struct cluster *c, const int *voters, uint32_t count)
{
    struct raft_members m = {.voter_count = count};
    for (uint32_t i = 0; i < count; i++) {
        m.voters[i] = c->nodes[voters[i]].self;
    }
    /* Sorted: lives may not be in the order of the nodes. */
    for (uint32_t i = 1; i < count; i++) {
        for (uint32_t at = i; at > 0 && m.voters[at - 1] > m.voters[at]; at--) {
            raft_id id = m.voters[at];
            m.voters[at] = m.voters[at - 1];
            m.voters[at - 1] = id;
        }
    }
    return m;
}

struct cluster *replicas_new(int count, uint64_t seed)
{
    struct cluster *c = mem_zalloc(1, sizeof(*c));
    assert_non_null(c);
    const char *base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    (void)snprintf(c->root, sizeof(c->root), "%s/ferry-cluster-XXXXXX", base);
    assert_non_null(mkdtemp(c->root));
    c->seed = seed;
    prng_init(&c->prng, seed);
    c->count = count;
    c->now_us = 1000000;
    c->now_ms = PART_START_MS;
    c->settings =
        (struct topic_settings){.retention_ms = -1, .retention_bytes = -1, .dedupe_window_ms = -1};
    c->send_budget = SEND_BUDGET;
    list_init(&c->wire);
    int all[CLUSTER_NODES_MAX];
    for (int i = 0; i < count; i++) {
        struct cluster_node *n = &c->nodes[i];
        (void)snprintf(n->folder, sizeof(n->folder), "%s/node-%d", c->root, i + 1);
        n->self = member_of(i, 0);
        list_init(&n->inbox);
        list_init(&n->owned);
        all[i] = i;
    }
    for (int i = 0; i < count; i++) {
        c->nodes[i].initial = replicas_members(c, all, (uint32_t)count);
    }
    return c;
}

static void drop_frames(struct list *l, int of)
{
    for (struct list *n = l->next; n != l;) {
        struct wire_frame *f = list_entry(n, struct wire_frame, node);
        n = n->next;
        if (of < 0 || f->from == of || f->to == of) {
            list_remove(&f->node);
            buf_fini(&f->frame);
            mem_free(f);
        }
    }
}

static void drop_owned(struct cluster_node *n)
{
    for (struct list *at; (at = list_pop_front(&n->owned)) != NULL;) {
        struct owned *o = list_entry(at, struct owned, node);
        if (o->ticket != NULL) {
            partition_ticket_fini(o->ticket);
            mem_free(o->ticket);
        }
        mem_free(o);
    }
}

void replicas_free(struct cluster *c)
{
    for (int i = 0; i < c->count; i++) {
        replicas_crash(c, i);
    }
    drop_frames(&c->wire, -1);
    fixture_remove_tree(c->root);
    mem_free(c);
}

struct replica *replicas_replica(const struct cluster *c, int i)
{
    return partition_replica(c->nodes[i].p);
}

/* ---- Life of a node ---- */

static void route_all(struct cluster *c, struct peer_outbox *out, int self)
{
    for (int i = 0; i < c->count; i++) {
        struct peer_route route = {.member = c->nodes[i].self, .shards = 1};
        if (i != self) {
            assert_int_equal(peer_outbox_route(out, &route), FERRY_OK);
        }
    }
}

static void wake_others(struct cluster *c, int i)
{
    for (int k = 0; k < c->count; k++) {
        if (k != i && c->nodes[k].p != NULL) {
            (void)!replica_wake(replicas_replica(c, k), c->nodes[i].self, c->now_us);
        }
    }
}

enum ferry_err replicas_try_start(struct cluster *c, int i)
{
    struct cluster_node *n = &c->nodes[i];
    assert_null(n->store);
    struct err_text e = {{0}};
    struct store_config store = {.path = n->folder,
                                 .cluster_id = {{1}},
                                 .node_id = (uint32_t)i + 1,
                                 .shards = 1,
                                 .incarnation = n->life + 1,
                                 .max_bytes = 1LL << 30,
                                 .grow_bytes = 4 << 20,
                                 .reserve_bytes = 1 << 20};
    enum ferry_err err = store_open(&store, &n->store, &e);
    struct partition_config config = {.group = CLUSTER_GROUP,
                                      .self = n->self,
                                      .initial = n->initial,
                                      .seed = c->seed * 31 + (uint64_t)i,
                                      .store = n->store,
                                      .settings = c->settings,
                                      .message_max_bytes = 1 << 20,
                                      .batch_max_bytes = (1 << 20) + (64 << 10)};
    if (err == FERRY_OK) {
        err = partition_open(&config, c->now_us, &n->p, &e);
    }
    if (err != FERRY_OK) {
        store_close(&n->store);
        return err;
    }
    struct peer_outbox_config out = {
        .cluster_id = {{1}}, .self = n->self, .boot = CLUSTER_BOOT + n->life};
    assert_int_equal(peer_outbox_new(&out, &n->out), FERRY_OK);
    route_all(c, n->out, i);
    wake_others(c, i);
    return FERRY_OK;
}

void replicas_start(struct cluster *c, int i)
{
    assert_string_equal(ferry_err_name(replicas_try_start(c, i)), ferry_err_name(FERRY_OK));
}

static void take_answers(struct cluster_node *n)
{
    for (struct partition_ticket *t; (t = partition_next_done(n->p)) != NULL;) {
        *(t->base.err == FERRY_OK ? &n->done : &n->failed) += 1;
    }
}

void replicas_crash(struct cluster *c, int i)
{
    struct cluster_node *n = &c->nodes[i];
    if (n->store == NULL) {
        return;
    }
    replica_fail(partition_replica(n->p), FERRY_ERR_SHUTTING_DOWN);
    take_answers(n);
    partition_close(&n->p);
    peer_outbox_free(&n->out);
    store_close(&n->store);
    drop_frames(&n->inbox, -1);
    drop_frames(&c->wire, i);
    drop_owned(n);
    wake_others(c, i);
}

void replicas_wipe(struct cluster *c, int i)
{
    struct cluster_node *n = &c->nodes[i];
    replicas_crash(c, i);
    fixture_remove_tree(n->folder);
    n->life++;
    n->self = member_of(i, n->life);
    n->initial = (struct raft_members){0};
    for (int k = 0; k < c->count; k++) {
        if (c->nodes[k].out != NULL) {
            route_all(c, c->nodes[k].out, k);
        }
    }
}

/* ---- The network ---- */

void replicas_isolate(struct cluster *c, int i, bool isolated)
{
    for (int k = 0; k < c->count; k++) {
        if (k != i) {
            c->cut[i][k] = isolated;
            c->cut[k][i] = isolated;
        }
    }
}

/* Nothing that says "stored" or "voted" may be in what leaves now (invariant 5 of replica.h). */
static void check_promises(struct bytes frame)
{
    struct peer_header h;
    struct peer_item item;
    struct err_text e = {{0}};
    size_t at = 0;
    assert_int_equal(peer_frame_parse(frame, &h, &e), FERRY_OK);
    while (peer_frame_next(frame, &h, &at, &item)) {
        struct peer_raft m;
        if (item.kind == PEER_RAFT && peer_take_raft(&item, h.to, &m) == FERRY_OK) {
            bool promise = m.message.type == RAFT_VOTE_REPLY || m.message.type == RAFT_APPEND_REPLY;
            assert_false(promise && m.message.success);
        }
    }
}

static void post(struct cluster *c, int i, enum peer_phase phase)
{
    raft_id member = 0;
    uint32_t shard = 0;
    struct buf frame;
    while (peer_outbox_next(c->nodes[i].out, false, &member, &shard, &frame)) {
        int to = node_of(member);
        c->frames++;
        if (phase == PEER_NOW) {
            check_promises(buf_bytes(&frame));
        }
        if (c->cut[i][to] || prng_below(&c->prng, 100) < c->loss_percent) {
            buf_fini(&frame);
            continue;
        }
        struct wire_frame *f = mem_zalloc(1, sizeof(*f));
        assert_non_null(f);
        list_init(&f->node);
        f->from = i;
        f->to = to;
        f->to_member = member;
        f->frame = frame;
        f->due_us = c->now_us + (int64_t)prng_below(&c->prng, DELAY_MAX_US);
        list_push_back(&c->wire, &f->node);
    }
}

static void deliver(struct cluster *c)
{
    for (struct list *n = c->wire.next; n != &c->wire;) {
        struct wire_frame *f = list_entry(n, struct wire_frame, node);
        n = n->next;
        if (f->due_us > c->now_us) {
            continue;
        }
        list_remove(&f->node);
        struct cluster_node *to = &c->nodes[f->to];
        if (to->store == NULL || to->self != f->to_member || c->cut[f->from][f->to]) {
            buf_fini(&f->frame);
            mem_free(f);
        } else {
            list_push_back(&to->inbox, &f->node);
        }
    }
}

static void receive_frame(struct cluster *c, int i, const struct wire_frame *f)
{
    struct peer_header h;
    struct peer_item item;
    struct err_text e = {{0}};
    size_t at = 0;
    struct bytes frame = buf_bytes(&f->frame);
    assert_int_equal(peer_frame_parse(frame, &h, &e), FERRY_OK);
    assert_int_equal(h.to, c->nodes[i].self);
    while (peer_frame_next(frame, &h, &at, &item)) {
        assert_int_equal(item.group, CLUSTER_GROUP);
        if (c->filter == NULL || c->filter(c, f->from, i, &item)) {
            (void)!replica_receive(replicas_replica(c, i), &item, c->now_us);
        }
    }
}

/* ---- A turn ---- */

static void send_phase(struct cluster *c, int i, enum peer_phase phase)
{
    size_t budget = c->send_budget;
    (void)!replica_send(replicas_replica(c, i), phase, c->now_us, &budget, c->nodes[i].out);
    post(c, i, phase);
}

/* False: the node ended here. */
static bool write_phase(struct cluster *c, int i, enum replicas_crash crash)
{
    struct cluster_node *n = &c->nodes[i];
    struct replica *r = partition_replica(n->p);
    if (replica_wants_write(r, c->now_us)) {
        uint32_t rows_left = REPLICA_FLUSH_ROWS_TURN;
        assert_int_equal(store_begin(n->store), FERRY_OK);
        assert_int_equal(replica_write(r, c->now_us, &rows_left), FERRY_OK);
        if (crash == CRASH_WITHOUT_COMMIT) {
            store_abort(n->store);
            replicas_crash(c, i);
            return false;
        }
        assert_int_equal(store_commit(n->store), FERRY_OK);
    }
    if (crash != CRASH_NEVER) {
        replicas_crash(c, i);
        return false;
    }
    if (replica_has_written(r) || replica_wants_stored(r)) {
        (void)!replica_stored(r, c->now_us);
    }
    return true;
}

void replicas_turn(struct cluster *c, int i, enum replicas_crash crash)
{
    struct cluster_node *n = &c->nodes[i];
    if (n->store == NULL) {
        return;
    }
    for (struct list *at = n->inbox.next; at != &n->inbox; at = at->next) {
        receive_frame(c, i, list_entry(at, struct wire_frame, node));
    }
    if (partition_deadline_us(n->p) <= c->now_us) {
        (void)!partition_tick(n->p, c->now_ms, c->now_us);
    }
    send_phase(c, i, PEER_NOW);
    if (!write_phase(c, i, crash)) {
        return;
    }
    send_phase(c, i, PEER_AFTER_SYNC);
    send_phase(c, i, PEER_NOW);
    take_answers(n);
    drop_frames(&n->inbox, -1);
    partition_check(n->p);
}

void replicas_run_ms(struct cluster *c, int64_t ms)
{
    for (int64_t end = c->now_us + ms * 1000; c->now_us < end;) {
        c->now_us += CLUSTER_STEP_US;
        c->now_ms += CLUSTER_STEP_US / 1000;
        deliver(c);
        for (int i = 0; i < c->count; i++) {
            replicas_turn(c, i, CRASH_NEVER);
        }
    }
}

int replicas_leader(const struct cluster *c)
{
    int leader = -1;
    uint64_t term = 0;
    for (int i = 0; i < c->count; i++) {
        if (c->nodes[i].store != NULL && replica_is_ready(replicas_replica(c, i)) &&
            replica_term(replicas_replica(c, i)) > term) {
            leader = i;
            term = replica_term(replicas_replica(c, i));
        }
    }
    return leader;
}

/* For the person who reads a failure. */
static void show_nodes(const struct cluster *c)
{
    for (int i = 0; i < c->count; i++) {
        if (c->nodes[i].store == NULL) {
            continue;
        }
        const struct replica *r = replicas_replica(c, i);
        const struct raft_members *m = replica_members(r);
        print_message("node %d: state %d term %llu applied %llu commit %llu last %llu leader %llx: "
                      "%s; voters",
                      i, (int)replica_state(r), (unsigned long long)replica_term(r),
                      (unsigned long long)replica_applied(r), (unsigned long long)replica_commit(r),
                      (unsigned long long)replica_last_index(r),
                      (unsigned long long)replica_leader(r), ferry_err_name(replica_failure(r)));
        for (uint32_t k = 0; k < m->voter_count; k++) {
            print_message(" %llx", (unsigned long long)m->voters[k]);
        }
        print_message(" old");
        for (uint32_t k = 0; k < m->old_voter_count; k++) {
            print_message(" %llx", (unsigned long long)m->old_voters[k]);
        }
        print_message("\n");
    }
}

int replicas_wait_leader(struct cluster *c)
{
    for (int i = 0; i < 1000 && replicas_leader(c) < 0; i++) {
        replicas_run_ms(c, 20);
    }
    int leader = replicas_leader(c);
    if (leader < 0) {
        show_nodes(c);
        fail_msg("seed %llu: nobody leads", (unsigned long long)c->seed);
    }
    return leader;
}

/* What all have applied; 0 while they differ. */
static uint64_t settled_at(const struct cluster *c)
{
    uint64_t applied = 0;
    for (int i = 0; i < c->count; i++) {
        if (c->nodes[i].store == NULL) {
            continue;
        }
        const struct replica *r = replicas_replica(c, i);
        assert_int_equal(replica_failure(r), FERRY_OK);
        if (replica_state(r) == REPLICA_INSTALLING || replica_state(r) == REPLICA_DAMAGED ||
            replica_applied(r) != replica_last_index(r) ||
            (applied != 0 && replica_applied(r) != applied)) {
            return 0;
        }
        applied = replica_applied(r);
    }
    return applied;
}

void replicas_settle(struct cluster *c)
{
    for (int64_t ms = 0; ms < SETTLE_MS_MAX; ms += 100) {
        replicas_run_ms(c, 100);
        uint64_t applied = settled_at(c);
        if (applied != 0) {
            replicas_run_ms(c, 2 * REPLICA_FLUSH_MS); /* The rows are written. */
            if (settled_at(c) == applied) {
                return;
            }
        }
    }
    show_nodes(c);
    fail_msg("seed %llu: the replicas do not become the same", (unsigned long long)c->seed);
}

/* ---- Requests ---- */

static struct owned *own(struct cluster_node *n, size_t size)
{
    struct owned *o = mem_zalloc(1, sizeof(*o) + size);
    assert_non_null(o);
    list_init(&o->node);
    list_push_back(&n->owned, &o->node);
    return o;
}

struct partition_ticket *replicas_ticket(struct cluster *c, int i)
{
    struct owned *o = own(&c->nodes[i], 0);
    o->ticket = mem_zalloc(1, sizeof(*o->ticket));
    assert_non_null(o->ticket);
    partition_ticket_init(o->ticket);
    return o->ticket;
}

static struct bytes make_batch(struct cluster *c, int i, const struct cluster_batch *b)
{
    struct batch_writer w;
    size_t size = b->payload_bytes < 8 ? 8 : b->payload_bytes;
    uint8_t *payload = mem_zalloc(1, size);
    assert_non_null(payload);
    batch_writer_init(&w, BATCH_MAX_BYTES);
    for (uint32_t k = 0; k < (b->count == 0 ? 1 : b->count); k++) {
        put_le64(payload, b->content + k);
        struct batch_record r = {.timestamp_ms = c->now_ms, .payload = bytes_of(payload, size)};
        if (b->ids != NULL) {
            r.id = b->ids[k];
        }
        r.due = b->due;
        assert_int_equal(batch_writer_add(&w, &r), FERRY_OK);
    }
    struct bytes batch;
    assert_int_equal(batch_writer_finish(&w, b->producer, 0, b->first_sequence, &batch), FERRY_OK);
    struct owned *o = own(&c->nodes[i], batch.size);
    memcpy(o + 1, batch.data, batch.size);
    batch = bytes_of(o + 1, batch.size);
    batch_writer_fini(&w);
    mem_free(payload);
    return batch;
}

struct partition_ticket *replicas_send(struct cluster *c, int i, const struct cluster_batch *b,
                                       enum ferry_err *err)
{
    struct cluster_node *n = &c->nodes[i];
    struct err_text e = {{0}};
    struct bytes batch = make_batch(c, i, b);
    struct partition_ticket *t = replicas_ticket(c, i);
    assert_int_equal(store_read_begin(n->store), FERRY_OK);
    *err = partition_produce(n->p, batch, c->now_ms, c->now_us, t, &e);
    store_read_end(n->store);
    return *err == FERRY_OK ? t : NULL;
}

void replicas_produce(struct cluster *c, const struct cluster_batch *b)
{
    for (int tries = 0; tries < 50; tries++) {
        int leader = replicas_wait_leader(c);
        uint32_t life = c->nodes[leader].life;
        enum ferry_err err = FERRY_OK;
        struct partition_ticket *t = replicas_send(c, leader, b, &err);
        for (int i = 0; t != NULL && i < 400; i++) {
            if (list_is_empty(&t->base.node)) {
                break;
            }
            replicas_run_ms(c, 5);
            assert_int_equal(life, c->nodes[leader].life);
        }
        if (t != NULL && list_is_empty(&t->base.node) && t->base.err == FERRY_OK) {
            return;
        }
        replicas_run_ms(c, 50);
    }
    fail_msg("seed %llu: nothing can be produced", (unsigned long long)c->seed);
}

/* ---- What is on disk ---- */

static size_t take_batch(const struct store_entry *entry, struct bytes batch, uint64_t *contents,
                         size_t count, size_t max)
{
    struct batch_reader reader;
    struct batch_record record;
    enum ferry_err err = FERRY_OK;
    uint32_t skip = 0;
    batch_reader_init(&reader, batch);
    for (uint32_t i = 0; batch_reader_next(&reader, &record, &err); i++) {
        if (skip < entry->skip_count && get_le32(entry->skips + (size_t)skip * 4) == i) {
            skip++;
            continue;
        }
        assert_true(count < max);
        contents[count++] = get_le64(record.payload.data);
    }
    return count;
}

static bool adds_records(const struct store_entry *entry, struct bytes batch)
{
    struct batch_header h;
    if (entry->type != STORE_ENTRY_BATCH && entry->type != STORE_ENTRY_BATCH_CAS) {
        return false;
    }
    batch_header_read(batch, &h);
    return (h.flags & BATCH_HAS_DUE) == 0;
}

size_t replicas_contents(struct cluster *c, int i, uint64_t *contents, size_t max)
{
    const struct replica *r = replicas_replica(c, i);
    struct store *store = c->nodes[i].store;
    size_t count = 0;
    assert_int_equal(store_read_begin(store), FERRY_OK);
    for (uint64_t at = replica_first_index(r); at <= replica_applied(r); at++) {
        struct store_entry entry;
        assert_int_equal(store_get_entry(store, CLUSTER_GROUP, at, &entry), FERRY_OK);
        struct bytes control;
        struct bytes batch = entry.payload;
        if (entry.type == STORE_ENTRY_BATCH_CAS) {
            assert_int_equal(control_split_cas(entry.payload, &control, &batch), FERRY_OK);
        }
        if (adds_records(&entry, batch)) {
            count = take_batch(&entry, batch, contents, count, max);
        }
    }
    store_read_end(store);
    return count;
}

struct hashing {
    uint64_t hash, rows;
    uint8_t table;
};

static enum ferry_err hash_row(struct bytes key, struct bytes value, bool *stop, void *arg)
{
    (void)stop;
    struct hashing *h = arg;
    uint64_t parts[4] = {h->hash, h->table, checksum_of(key.data, key.size),
                         checksum_of(value.data, value.size)};
    h->hash = checksum_of(parts, sizeof(parts));
    h->rows++;
    return FERRY_OK;
}

static void hash_table(struct cluster *c, int i, struct hashing *h)
{
    assert_int_equal(
        store_each_row(c->nodes[i].store, CLUSTER_GROUP, h->table, bytes_of(NULL, 0), hash_row, h),
        FERRY_OK);
}

uint64_t replicas_rows_hash(struct cluster *c, int i, uint64_t *rows)
{
    struct hashing h = {0};
    assert_int_equal(store_read_begin(c->nodes[i].store), FERRY_OK);
    for (uint32_t table = 1; table <= PEER_ROWS_TABLE_MAX; table++) {
        h.table = (uint8_t)table;
        hash_table(c, i, &h);
    }
    store_read_end(c->nodes[i].store);
    *rows = h.rows;
    return h.hash;
}

static uint64_t log_hash(struct cluster *c, int i)
{
    const struct replica *r = replicas_replica(c, i);
    struct store *store = c->nodes[i].store;
    uint64_t hash = replica_first_index(r);
    assert_int_equal(store_read_begin(store), FERRY_OK);
    for (uint64_t at = replica_first_index(r); at <= replica_applied(r); at++) {
        struct store_entry entry;
        assert_int_equal(store_get_entry(store, CLUSTER_GROUP, at, &entry), FERRY_OK);
        uint64_t parts[6] = {hash,
                             entry.term,
                             (uint64_t)entry.type,
                             (uint64_t)entry.base_offset,
                             checksum_of(entry.payload.data, entry.payload.size),
                             checksum_of(entry.skips, (size_t)entry.skip_count * 4)};
        hash = checksum_of(parts, sizeof(parts));
    }
    store_read_end(store);
    return hash;
}

/* Which table differs: for the person who reads the failure. */
static void show_tables(struct cluster *c, int a, int b)
{
    for (uint32_t table = 1; table <= PEER_ROWS_TABLE_MAX; table++) {
        struct hashing h[2] = {{.table = (uint8_t)table}, {.table = (uint8_t)table}};
        int nodes[2] = {a, b};
        for (int k = 0; k < 2; k++) {
            assert_int_equal(store_read_begin(c->nodes[nodes[k]].store), FERRY_OK);
            hash_table(c, nodes[k], &h[k]);
            store_read_end(c->nodes[nodes[k]].store);
        }
        if (h[0].hash != h[1].hash) {
            print_message("table %u: %llu rows on node %d, %llu on node %d\n", table,
                          (unsigned long long)h[0].rows, a, (unsigned long long)h[1].rows, b);
        }
    }
}

void replicas_compare(struct cluster *c)
{
    int first = -1;
    uint64_t rows = 0, want = 0, want_log = 0;
    for (int i = 0; i < c->count; i++) {
        if (c->nodes[i].store == NULL) {
            continue;
        }
        uint64_t here = 0, hash = replicas_rows_hash(c, i, &here), log = log_hash(c, i);
        if (first < 0) {
            first = i;
            rows = here;
            want = hash;
            want_log = log;
            continue;
        }
        if (hash != want || here != rows) {
            show_tables(c, first, i);
            fail_msg("seed %llu: the rows of nodes %d and %d differ", (unsigned long long)c->seed,
                     first, i);
        }
        if (log != want_log) {
            fail_msg("seed %llu: the logs of nodes %d and %d differ", (unsigned long long)c->seed,
                     first, i);
        }
    }
}

static int open_data(const struct cluster *c, int i)
{
    char path[340];
    (void)snprintf(path, sizeof(path), "%s/data.mdb", c->nodes[i].folder);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

/* Flips the byte `back` before each place that holds the needle; before the batch's beginning when
 * that is asked for. */
static void flip_at(struct cluster *c, int i, struct bytes needle, bool of_batch, size_t back)
{
    int fd = open_data(c, i), found = 0;
    off_t end = lseek(fd, 0, SEEK_END);
    uint8_t *all = mem_alloc((size_t)end);
    assert_non_null(all);
    assert_int_equal(pread(fd, all, (size_t)end, 0), end);
    for (uint8_t *at = all;
         (at = memmem(at, (size_t)(all + end - at), needle.data, needle.size)) != NULL; at++) {
        uint8_t *bad = at;
        for (size_t k = 0; of_batch && k < 4096 && memcmp(bad, "FRB1", 4) != 0; k++) {
            bad--;
        }
        bad -= back;
        uint8_t flipped = *bad ^ 1;
        assert_int_equal(pwrite(fd, &flipped, 1, bad - all), 1);
        found++;
    }
    assert_true(found > 0);
    mem_free(all);
    (void)close(fd);
}

void replicas_damage(struct cluster *c, int i, uint64_t content, bool header)
{
    /* In the header: its base offset, 40 bytes before the payload. */
    flip_at(c, i, bytes_of(&content, sizeof(content)), header, header ? 40 : 0);
}

void replicas_damage_at(struct cluster *c, int i, uint64_t index)
{
    struct store_entry entry;
    uint8_t bytes[8192];
    assert_int_equal(store_read_begin(c->nodes[i].store), FERRY_OK);
    assert_int_equal(store_get_entry(c->nodes[i].store, CLUSTER_GROUP, index, &entry), FERRY_OK);
    assert_true(store_entry_bytes(&entry) <= sizeof(bytes));
    store_entry_encode(bytes, &entry);
    store_read_end(c->nodes[i].store);
    flip_at(c, i, bytes_of(bytes, 48), false, 0);
}

enum ferry_err replicas_check_log(struct cluster *c, int i)
{
    const struct replica *r = replicas_replica(c, i);
    enum ferry_err err = store_read_begin(c->nodes[i].store);
    for (uint64_t at = replica_first_index(r); err == FERRY_OK && at <= replica_last_index(r);
         at++) {
        struct store_entry entry;
        err = store_get_entry(c->nodes[i].store, CLUSTER_GROUP, at, &entry);
        if (err == FERRY_OK) {
            err = peer_entry_check(&entry);
        }
    }
    store_read_end(c->nodes[i].store);
    return err;
}
