/* The metadata group: opening, applying, and what a leader does by its clock. */
#include "cluster/meta_internal.h"

#include "base/mem.h"
#include "wire/pack.h"

/* The largest entry: the steps of a plan, each an array of a group and its nodes. */
#define STEP_MAX_BYTES         (1u + 9u + 1u + 5u * RING_REPLICAS_MAX)
#define META_PAYLOAD_MAX_BYTES (PLAN_STEPS_MAX * STEP_MAX_BYTES + 1024u)
_Static_assert(PLAN_STEPS_MAX *(3u + RING_REPLICAS_MAX) < UNPACK_OBJECTS_MAX, "a plan is an entry");
_Static_assert(META_NODES_MAX <= RAFT_LEARNERS_MAX && META_NODES_MAX <= NODES_MAX, "all follow");
_Static_assert(RING_REPLICAS_MAX == REPLICAS_MAX && RING_ZONE_BYTES == ZONE_MAX_BYTES + 1,
               "as on the wire");

void meta_ticket_init(struct meta_ticket *t)
{
    *t = (struct meta_ticket){0};
    ticket_init(&t->base);
    buf_init(&t->payload, META_PAYLOAD_MAX_BYTES);
}

void meta_ticket_fini(struct meta_ticket *t)
{
    must(list_is_empty(&t->base.node));
    buf_fini(&t->payload);
}

/* ---- Applying ---- */

enum ferry_err meta_refuse(struct meta *m, enum ferry_err err)
{
    m->refusal = err;
    return FERRY_OK;
}

enum ferry_err meta_push_change(struct meta *m, enum meta_change_kind kind,
                                const struct meta_topic *topic, uint64_t group, uint32_t node_id)
{
    size_t nodes = topic != NULL ? (size_t)topic->partitions * topic->replicas : 0;
    struct meta_change *change = mem_zalloc(1, sizeof(*change) + nodes * sizeof(*topic->placement));
    if (change == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    list_init(&change->node);
    change->kind = kind;
    change->group = group;
    change->node_id = node_id;
    if (topic != NULL) {
        change->topic = *topic;
        change->topic.placement = (uint32_t *)(void *)(change + 1);
        memcpy(change->topic.placement, topic->placement, nodes * sizeof(*topic->placement));
    }
    list_push_back(&m->changes, &change->node);
    return FERRY_OK;
}

enum ferry_err meta_kill_row(struct meta *m, enum meta_table table, struct bytes key)
{
    struct dead_row *row = mem_alloc(sizeof(*row) + key.size);
    if (row == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    list_init(&row->node);
    row->table = table;
    row->key_bytes = key.size;
    memcpy(row->key, key.data, key.size);
    list_push_back(&m->dead_rows, &row->node);
    return FERRY_OK;
}

static enum ferry_err apply_cluster(struct meta *m, enum meta_kind kind, struct unpack *u)
{
    switch (kind) {
    case META_NODE_REGISTER:
        return meta_apply_register(m, u);
    case META_NODE_SET:
        return meta_apply_node_set(m, u);
    case META_MOVES_ADD:
        return meta_apply_moves_add(m, u);
    case META_MOVES_ACTIVATE:
        return meta_apply_activate(m, u);
    case META_MOVES_ABORT:
        return meta_apply_abort(m, u);
    case META_MOVE_DONE:
        return meta_apply_move_done(m, u);
    case META_LEASE_GRANT:
        return meta_apply_lease_grant(m, u);
    case META_LEASE_END:
        return meta_apply_lease_end(m, u);
    case META_WORKER_GRANT:
        return meta_apply_worker(m, u);
    case META_QUOTA_SET:
        return meta_apply_quota(m, u);
    default:
        return FERRY_ERR_CORRUPT;
    }
}

static enum ferry_err apply_kind(struct meta *m, enum meta_kind kind, struct unpack *u)
{
    switch (kind) {
    case META_TOPIC_CREATE:
        return meta_apply_create(m, u);
    case META_TOPIC_DELETE:
        return meta_apply_delete(m, u);
    case META_PRODUCER_INIT:
        return meta_apply_producer(m, u);
    case META_SOURCE_ELECT:
        return meta_apply_elect(m, u);
    case META_SOURCE_CHECKPOINT:
        return meta_apply_checkpoint(m, u);
    default:
        return apply_cluster(m, kind, u);
    }
}

/* Who waits for this entry. */
static struct meta_ticket *find_asker(struct meta *m, uint64_t index)
{
    if (list_is_empty(&m->tickets.waiting)) {
        return NULL;
    }
    struct meta_ticket *first = list_entry(m->tickets.waiting.next, struct meta_ticket, base.node);
    return first->base.index == index ? first : NULL;
}

static enum ferry_err apply(void *machine, uint64_t index, const struct store_entry *entry)
{
    struct meta *m = machine;
    if (entry->type != STORE_ENTRY_CONTROL) {
        return FERRY_ERR_CORRUPT;
    }
    struct unpack u;
    unpack_begin(&u, entry->payload);
    m->applying = index;
    m->refusal = FERRY_OK;
    m->asker = find_asker(m, index);
    enum ferry_err err = apply_kind(m, (enum meta_kind)unpack_uint(&u, UINT8_MAX), &u);
    if (err != FERRY_OK) {
        return err;
    }
    m->last_time_ms =
        entry->append_time_ms > m->last_time_ms ? entry->append_time_ms : m->last_time_ms;
    ticket_queue_applied(&m->tickets, index);
    if (m->asker != NULL) {
        m->asker->base.err = m->refusal;
    }
    m->asker = NULL;
    m->decided = m->decided <= index ? 0 : m->decided;
    return FERRY_OK;
}

/* ---- Office ---- */

static void forget_proposed(struct meta *m)
{
    m->proposed_next_group = m->next_group;
    m->proposed_next_producer = m->next_producer;
    m->proposed_token = m->last_token;
    m->decided = 0;
    size_t at = 0;
    for (struct meta_producer *p; (p = map_next(&m->producers, &at)) != NULL;) {
        p->proposed_epoch = p->epoch;
        p->id = p->epoch == 0 ? 0 : p->id; /* Never applied: the id goes to somebody else. */
    }
    at = 0;
    for (struct meta_source *s; (s = map_next(&m->sources, &at)) != NULL;) {
        s->proposed_epoch = s->epoch;
    }
}

static void role_changed(void *machine, bool ready)
{
    struct meta *m = machine;
    forget_proposed(m);
    m->must_wait_out = ready;
    m->must_look = ready;
    m->look_us = 0;
    if (!ready) {
        ticket_queue_fail(&m->tickets, FERRY_ERR_NOT_LEADER);
        meta_leases_resign(m);
        meta_workers_resign(m);
    }
}

void meta_wait_out(struct meta *m, int64_t now_us)
{
    if (!m->must_wait_out) {
        return;
    }
    m->must_wait_out = false;
    meta_sources_wait_out(m, now_us);
    meta_leases_wait_out(m, now_us);
    meta_workers_wait_out(m, now_us);
}

void meta_tick(struct meta *m, int64_t now_ms, int64_t now_us)
{
    if (!replica_is_ready(m->replica)) {
        return;
    }
    meta_wait_out(m, now_us);
    meta_confirm_tick(m);
    meta_leases_tick(m, now_ms, now_us);
    meta_moves_tick(m, now_ms, now_us);
}

int64_t meta_deadline_us(const struct meta *m)
{
    if (!replica_is_ready(m->replica)) {
        return RAFT_NEVER;
    }
    if (m->must_wait_out) {
        return 0;
    }
    int64_t due = meta_leases_deadline_us(m);
    bool may_look = m->must_look && m->decided == 0;
    return may_look && m->look_us < due ? m->look_us : due;
}

/* ---- Proposing ---- */

static enum ferry_err propose(struct meta *m, const struct buf *payload, int64_t now_ms,
                              int64_t now_us, uint64_t *index)
{
    if (!buf_ok(payload)) {
        return FERRY_ERR_NO_MEMORY;
    }
    int64_t time_ms = now_ms > m->last_time_ms ? now_ms : m->last_time_ms;
    time_ms = time_ms > m->proposed_time_ms ? time_ms : m->proposed_time_ms;
    struct store_entry entry = {
        .type = STORE_ENTRY_CONTROL, .append_time_ms = time_ms, .payload = buf_bytes(payload)};
    enum ferry_err err = replica_propose(m->replica, &entry, now_us, index);
    if (err == FERRY_OK) {
        m->proposed_time_ms = time_ms; /* Not last_time_ms, which is a row: all have the same. */
    }
    return err;
}

enum ferry_err meta_propose(struct meta *m, struct meta_ticket *t, int64_t now_ms, int64_t now_us)
{
    uint64_t index = 0;
    enum ferry_err err = propose(m, &t->payload, now_ms, now_us, &index);
    if (err == FERRY_OK) {
        ticket_queue_wait(&m->tickets, &t->base, index);
        t->waits = true;
    }
    return err;
}

struct buf *meta_decision(struct meta *m)
{
    if (m->decided != 0) {
        return NULL;
    }
    buf_clear(&m->decision);
    return &m->decision;
}

bool meta_decide(struct meta *m, int64_t now_ms, int64_t now_us)
{
    must(m->decided == 0);
    uint64_t index = 0;
    if (propose(m, &m->decision, now_ms, now_us, &index) != FERRY_OK) {
        return false;
    }
    m->decided = index;
    return true;
}

void meta_answer(struct meta *m, struct meta_ticket *t, enum ferry_err err)
{
    t->base.err = err;
    list_push_back(&m->tickets.done, &t->base.node);
}

struct meta_ticket *meta_next_done(struct meta *m)
{
    struct ticket *t = ticket_queue_next_done(&m->tickets);
    return t != NULL ? list_entry(t, struct meta_ticket, base) : NULL;
}

struct meta_change *meta_next_change(struct meta *m)
{
    struct list *node = list_pop_front(&m->changes);
    return node != NULL ? list_entry(node, struct meta_change, node) : NULL;
}

/* ---- The machine ---- */

static enum ferry_err flush(void *machine, struct store *store)
{
    struct meta *m = machine;
    uint64_t applied = replica_applied(m->replica);
    if (applied > META_LOG_KEEP) {
        replica_trim(m->replica, applied - META_LOG_KEEP);
    }
    return meta_rows_flush(m, store);
}

static int64_t next_offset(const struct store_entry *entry)
{
    return entry->base_offset; /* Its log holds no records. */
}

static uint32_t flush_rows(const void *machine)
{
    (void)machine;
    return 1; /* Few and small: time and entries decide. */
}

/* Everything that rows say, as before the first entry. */
static void init_tables(struct meta *m)
{
    m->next_group = META_GROUP + 1;
    m->next_producer = 1;
    m->last_token = 0;
    m->moves_done = 0;
    m->last_time_ms = 0;
    map_init(&m->producers);
    map_init(&m->sources);
    memset(m->workers, 0, sizeof(m->workers));
}

static void free_items(struct map *map)
{
    size_t at = 0;
    for (void *item; (item = map_next(map, &at)) != NULL;) {
        mem_free(item);
    }
    map_fini(map);
}

static void free_tables(struct meta *m)
{
    meta_topics_free(m);
    meta_nodes_free(m);
    meta_leases_free(m);
    meta_quotas_free(m);
    free_items(&m->producers);
    free_items(&m->sources);
    mem_free(m->moves);
    m->moves = NULL;
    m->move_count = m->move_capacity = 0;
    for (struct list *n; (n = list_pop_front(&m->dead_rows)) != NULL;) {
        mem_free(list_entry(n, struct dead_row, node));
    }
}

/* A snapshot was installed. Nobody waits: this is no leader. */
static enum ferry_err load(void *machine, struct store *store, uint64_t *applied, int64_t *offset)
{
    struct meta *m = machine;
    free_tables(m);
    init_tables(m);
    *offset = 0; /* Its log holds no records. */
    enum ferry_err err = meta_rows_load(m, store, applied);
    return err != FERRY_OK ? err : meta_push_change(m, META_ALL_CHANGED, NULL, 0, 0);
}

static const struct machine_ops meta_ops = {.apply = apply,
                                            .role_changed = role_changed,
                                            .flush = flush,
                                            .flush_rows = flush_rows,
                                            .next_offset = next_offset,
                                            .load = load};

/* ---- Opening and closing ---- */

static struct meta *new_meta(const struct meta_config *config)
{
    struct meta *m = mem_zalloc(1, sizeof(*m));
    if (m == NULL) {
        return NULL;
    }
    m->config = *config;
    ticket_queue_init(&m->tickets);
    list_init(&m->changes);
    list_init(&m->dead_rows);
    list_init(&m->confirming);
    heap_init(&m->lease_timers);
    heap_init(&m->place_timers);
    buf_init(&m->decision, META_PAYLOAD_MAX_BYTES);
    init_tables(m);
    return m;
}

/* Rows of half a snapshot do not fit together: they are left alone, and go when it begins anew. */
static enum ferry_err load_whole(struct meta *m, uint64_t *applied)
{
    struct store_group g;
    enum ferry_err err = store_get_group(m->config.store, META_GROUP, &g);
    if (err == FERRY_OK && g.installing) {
        return FERRY_OK;
    }
    bool readable = err == FERRY_OK || err == FERRY_ERR_UNKNOWN_PARTITION;
    return readable ? meta_rows_load(m, m->config.store, applied) : err;
}

static enum ferry_err load_first(struct meta *m, uint64_t *applied, struct err_text *e)
{
    enum ferry_err err = store_read_begin(m->config.store);
    if (err == FERRY_OK) {
        err = load_whole(m, applied);
        store_read_end(m->config.store);
    }
    if (err != FERRY_OK) {
        (void)err_set(e, err, "the metadata tables cannot be read: %s", ferry_err_text(err));
    }
    return err;
}

enum ferry_err meta_open(const struct meta_config *config, int64_t now_us, struct meta **out,
                         struct err_text *e)
{
    struct meta *m = new_meta(config);
    if (m == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    uint64_t applied = 0;
    enum ferry_err err = load_first(m, &applied, e);
    if (err == FERRY_OK) {
        struct replica_config r = {.group = META_GROUP,
                                   .self = config->self,
                                   .initial = config->initial,
                                   .election_min_us = config->election_min_us,
                                   .election_max_us = config->election_max_us,
                                   .heartbeat_us = config->heartbeat_us,
                                   .seed = config->seed,
                                   .store = config->store,
                                   .ops = &meta_ops,
                                   .machine = m,
                                   .applied = applied};
        err = replica_open(&r, now_us, &m->replica, e);
    }
    if (err != FERRY_OK) {
        meta_close(&m);
        return err;
    }
    *out = m;
    return FERRY_OK;
}

void meta_close(struct meta **mm)
{
    struct meta *m = *mm;
    if (m == NULL) {
        return;
    }
    must(ticket_queue_is_empty(&m->tickets) && list_is_empty(&m->confirming));
    replica_close(&m->replica);
    free_tables(m);
    for (struct meta_change *c; (c = meta_next_change(m)) != NULL;) {
        mem_free(c);
    }
    heap_fini(&m->lease_timers);
    heap_fini(&m->place_timers);
    buf_fini(&m->decision);
    mem_free(m);
    *mm = NULL;
}

struct replica *meta_replica(struct meta *m)
{
    return m->replica;
}

/* Invariants 1, 7 and 9; moves and leases have their own. */
static void check_topics(const struct meta *m)
{
    for (size_t i = 0; i < m->topic_count; i++) {
        const struct meta_topic *t = &m->topics[i]->topic;
        must(t->first_group + t->partitions <= m->next_group);
        must(i == 0 || strcmp(m->topics[i - 1]->topic.name, t->name) < 0);
        must(i == 0 || m->groups[i - 1]->topic.first_group + m->groups[i - 1]->topic.partitions <=
                           m->groups[i]->topic.first_group);
        must(t->placement[0] == 0 ||
             meta_ids_are_nodes(m, t->placement, (size_t)t->partitions * t->replicas));
    }
}

void meta_check(const struct meta *m)
{
    replica_check(m->replica);
    ticket_queue_check(&m->tickets, replica_applied(m->replica));
    must(m->next_group <= m->proposed_next_group || !replica_is_ready(m->replica));
    check_topics(m);
    meta_moves_check(m);
    meta_leases_check(m);
    meta_quotas_check(m);
}
