/* The metadata tables are read. */
#include "base/mem.h"
#include "cluster/meta_internal.h"
#include "wire/pack.h"

static enum ferry_err checked(struct unpack *u)
{
    return unpack_end(u) == FERRY_OK ? FERRY_OK : FERRY_ERR_CORRUPT;
}

static uint32_t load_nodes(struct unpack *u, uint32_t *nodes, uint32_t max)
{
    uint32_t count = unpack_array(u, max);
    for (uint32_t k = 0; k < count; k++) {
        nodes[k] = (uint32_t)unpack_uint(u, META_NODE_ID_MAX);
    }
    unpack_array_end(u);
    return count;
}

static void load_placement(struct unpack *u, struct topic_row *row)
{
    uint32_t nodes = row->topic.partitions * row->topic.replicas;
    if (unpack_has_more(u)) {
        u->failed = load_nodes(u, row->nodes, nodes) != nodes || u->failed;
        row->topic.created_index = unpack_uint(u, UINT64_MAX);
    }
    if (unpack_has_more(u)) { /* Not in rows from before there were queues. */
        row->topic.settings.retention_acked = unpack_bool(u);
    }
}

static enum ferry_err load_topic(struct bytes key, struct bytes value, bool *stop, void *arg)
{
    (void)stop;
    struct meta_topic t = {0};
    struct unpack u;
    unpack_begin(&u, value);
    t.id = unpack_id(&u);
    t.partitions = (uint32_t)unpack_uint(&u, PARTITIONS_MAX);
    t.replicas = (uint32_t)unpack_uint(&u, RING_REPLICAS_MAX);
    t.settings.retention_ms = unpack_int(&u);
    t.settings.retention_bytes = unpack_int(&u);
    t.settings.dedupe_window_ms = unpack_int(&u);
    t.first_group = unpack_uint(&u, UINT64_MAX - PARTITIONS_MAX);
    if (u.failed || t.partitions == 0 || t.replicas == 0 || !name_is_valid(key)) {
        return FERRY_ERR_CORRUPT;
    }
    memcpy(t.name, key.data, key.size);
    struct topic_row *row = meta_topic_row_new(&t);
    if (row == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    load_placement(&u, row);
    enum ferry_err err = checked(&u);
    err = err == FERRY_OK ? meta_topic_add(arg, &row) : err;
    mem_free(row);
    return err;
}

static enum ferry_err load_producer(struct bytes key, struct bytes value, bool *stop, void *arg)
{
    (void)stop;
    struct unpack u;
    unpack_begin(&u, value);
    uint64_t id = unpack_uint(&u, UINT64_MAX);
    uint32_t epoch = (uint32_t)unpack_uint(&u, UINT32_MAX);
    if (checked(&u) != FERRY_OK || !name_is_valid(key)) {
        return FERRY_ERR_CORRUPT;
    }
    struct meta_producer *p = NULL;
    enum ferry_err err = meta_producer_reserve(arg, key, &p);
    if (err == FERRY_OK) {
        p->id = id;
        p->epoch = p->proposed_epoch = epoch;
    }
    return err;
}

static enum ferry_err load_source(struct bytes key, struct bytes value, bool *stop, void *arg)
{
    (void)stop;
    struct unpack u;
    unpack_begin(&u, value);
    uint64_t epoch = unpack_uint(&u, UINT64_MAX);
    struct bytes holder = unpack_str(&u, NAME_MAX_BYTES);
    uint32_t ttl_ms = (uint32_t)unpack_uint(&u, UINT32_MAX);
    struct bytes checkpoint = unpack_bin(&u, CHECKPOINT_MAX_BYTES);
    if (checked(&u) != FERRY_OK || key.size != 20) {
        return FERRY_ERR_CORRUPT;
    }
    struct ferry_id source;
    memcpy(source.bytes, key.data, 16);
    struct meta_source *s = NULL;
    enum ferry_err err = meta_source_reserve(arg, &source, get_be32(key.data + 16), &s);
    if (err != FERRY_OK) {
        return err;
    }
    s->epoch = s->proposed_epoch = epoch;
    s->ttl_ms = ttl_ms;
    meta_source_set_holder(s, holder);
    s->checkpoint_bytes = (uint32_t)checkpoint.size;
    if (checkpoint.size > 0) {
        memcpy(s->checkpoint, checkpoint.data, checkpoint.size);
    }
    return FERRY_OK;
}

static enum ferry_err load_node(struct bytes key, struct bytes value, bool *stop, void *arg)
{
    (void)stop;
    struct meta *m = arg;
    struct node_texts texts;
    struct meta_node n = {.client_endpoints = texts.client, .peer_endpoints = texts.peer};
    struct unpack u;
    unpack_begin(&u, value);
    n.member = unpack_uint(&u, UINT64_MAX);
    n.boot = unpack_uint(&u, UINT64_MAX);
    n.boot_id = unpack_uint(&u, UINT64_MAX);
    n.weight = (uint32_t)unpack_uint(&u, RING_WEIGHT_MAX);
    n.draining = unpack_bool(&u);
    bool emptying = unpack_bool(&u);
    n.shards = (uint32_t)unpack_uint(&u, META_SHARDS_MAX);
    meta_take_text(n.zone, unpack_str(&u, RING_ZONE_BYTES - 1));
    meta_take_text(texts.client, unpack_str(&u, META_ENDPOINTS_MAX_BYTES));
    meta_take_text(texts.peer, unpack_str(&u, META_ENDPOINTS_MAX_BYTES));
    n.member_index = unpack_uint(&u, UINT64_MAX);
    if (checked(&u) != FERRY_OK || key.size != 4 || m->node_count >= META_NODES_MAX) {
        return FERRY_ERR_CORRUPT;
    }
    n.id = get_be32(key.data);
    struct node_row *row = meta_node_row_new(&n);
    if (row == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    row->emptying = emptying;
    meta_node_insert(m, row);
    return FERRY_OK;
}

static enum ferry_err load_gone(struct bytes key, struct bytes value, bool *stop, void *arg)
{
    (void)stop;
    struct unpack u;
    unpack_begin(&u, value);
    if (checked(&u) != FERRY_OK || key.size != 8) {
        return FERRY_ERR_CORRUPT;
    }
    return meta_gone_add(arg, get_be64(key.data), false);
}

static enum ferry_err load_move(struct bytes key, struct bytes value, bool *stop, void *arg)
{
    (void)stop;
    struct move_row row = {0};
    struct plan_step *step = &row.move.step;
    struct unpack u;
    unpack_begin(&u, value);
    row.move.state = (enum meta_move_state)unpack_uint(&u, META_MOVE_REVERTING);
    step->replicas = load_nodes(&u, step->to, RING_REPLICAS_MAX);
    if (checked(&u) != FERRY_OK || key.size != 8 || row.move.state < META_MOVE_PLANNED) {
        return FERRY_ERR_CORRUPT;
    }
    step->group = get_be64(key.data);
    if (meta_placement(arg, step->group, step->from) != step->replicas) {
        return FERRY_ERR_CORRUPT;
    }
    return meta_move_insert(arg, &row);
}

static enum ferry_err load_lease(struct bytes key, struct bytes value, bool *stop, void *arg)
{
    (void)stop;
    struct unpack u;
    unpack_begin(&u, value);
    struct bytes holder = unpack_str(&u, NAME_MAX_BYTES);
    uint64_t token = unpack_uint(&u, UINT64_MAX);
    uint32_t ttl_ms = (uint32_t)unpack_uint(&u, META_LEASE_MAX_MS);
    if (checked(&u) != FERRY_OK || !name_is_valid(key) || holder.size == 0 || token == 0) {
        return FERRY_ERR_CORRUPT;
    }
    struct lease *l = NULL;
    enum ferry_err err = meta_lease_reserve(arg, key, &l);
    if (err == FERRY_OK) {
        meta_take_text(l->holder, holder);
        l->token = token;
        l->ttl_ms = ttl_ms;
    }
    return err;
}

static enum ferry_err load_worker(struct bytes key, struct bytes value, bool *stop, void *arg)
{
    (void)stop;
    struct meta *m = arg;
    struct unpack u;
    unpack_begin(&u, value);
    struct bytes holder = unpack_str(&u, NAME_MAX_BYTES);
    uint32_t ttl_ms = (uint32_t)unpack_uint(&u, META_LEASE_MAX_MS);
    if (checked(&u) != FERRY_OK || key.size != 4 || get_be32(key.data) >= META_WORKERS) {
        return FERRY_ERR_CORRUPT;
    }
    meta_worker_set(&m->workers[get_be32(key.data)], holder, ttl_ms);
    return FERRY_OK;
}

static enum ferry_err load_quota(struct bytes key, struct bytes value, bool *stop, void *arg)
{
    (void)stop;
    struct quota q = {0};
    struct unpack u;
    unpack_begin(&u, value);
    q.bytes_per_second = unpack_uint(&u, UINT64_MAX);
    q.messages_per_second = unpack_uint(&u, UINT64_MAX);
    q.requests_per_second = unpack_uint(&u, UINT64_MAX);
    if (checked(&u) != FERRY_OK || !meta_quota_of_key(key, &q)) {
        return FERRY_ERR_CORRUPT;
    }
    enum ferry_err err = meta_quota_put(arg, &q, false);
    return err == FERRY_ERR_LIMIT_REACHED ? FERRY_ERR_CORRUPT : err;
}

static enum ferry_err load_base(struct meta *m, struct store *store, uint64_t *applied)
{
    struct bytes row;
    bool found = false;
    *applied = 0;
    enum ferry_err err =
        store_get(store, META_GROUP, META_TABLE_BASE, bytes_of(NULL, 0), &found, &row);
    if (err != FERRY_OK || !found) {
        return err;
    }
    struct unpack u;
    unpack_begin(&u, row);
    *applied = unpack_uint(&u, UINT64_MAX);
    m->next_group = unpack_uint(&u, UINT64_MAX);
    m->next_producer = unpack_uint(&u, UINT64_MAX);
    m->last_time_ms = unpack_int(&u);
    if (unpack_has_more(&u)) { /* Not in folders from before there were nodes. */
        m->last_token = m->proposed_token = unpack_uint(&u, UINT64_MAX);
        m->moves_done = unpack_uint(&u, UINT64_MAX);
    }
    return checked(&u);
}

/* Moves need their topics. */
static const struct load_table {
    enum meta_table table;
    store_row_cb *load;
} load_tables[] = {{META_TABLE_TOPICS, load_topic},   {META_TABLE_PRODUCERS, load_producer},
                   {META_TABLE_SOURCES, load_source}, {META_TABLE_NODES, load_node},
                   {META_TABLE_GONE, load_gone},      {META_TABLE_MOVES, load_move},
                   {META_TABLE_LEASES, load_lease},   {META_TABLE_WORKERS, load_worker},
                   {META_TABLE_QUOTAS, load_quota}};

enum ferry_err meta_rows_load(struct meta *m, struct store *store, uint64_t *applied)
{
    enum ferry_err err = load_base(m, store, applied);
    for (size_t i = 0; i < sizeof(load_tables) / sizeof(load_tables[0]) && err == FERRY_OK; i++) {
        err = store_each_row(store, META_GROUP, (uint8_t)load_tables[i].table, bytes_of(NULL, 0),
                             load_tables[i].load, m);
    }
    return err;
}
