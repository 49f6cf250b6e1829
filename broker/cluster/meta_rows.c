/* The metadata tables are written. */
#include "base/mem.h"
#include "cluster/meta_internal.h"
#include "wire/pack.h"

/* A topic's nodes, or a node's endpoints, are the largest. */
#define ROW_MAX_BYTES (PARTITIONS_MAX * RING_REPLICAS_MAX * 5u + 2u * META_ENDPOINTS_MAX_BYTES)

static enum ferry_err put_row(struct store *store, enum meta_table table, struct bytes key,
                              struct buf *row)
{
    enum ferry_err err = FERRY_ERR_NO_MEMORY;
    if (buf_ok(row)) {
        err = store_put(store, META_GROUP, (uint8_t)table, key, buf_bytes(row));
    }
    buf_fini(row);
    return err;
}

static enum ferry_err put_numbered(struct store *store, enum meta_table table, uint64_t number,
                                   size_t key_bytes, struct buf *row)
{
    uint8_t key[8];
    put_be64(key, number);
    return put_row(store, table, bytes_of(key + 8 - key_bytes, key_bytes), row);
}

static enum ferry_err write_base(const struct meta *m, struct store *store)
{
    struct buf row;
    buf_init(&row, ROW_MAX_BYTES);
    pack_array(&row, 6);
    pack_uint(&row, replica_applied(m->replica));
    pack_uint(&row, m->next_group);
    pack_uint(&row, m->next_producer);
    pack_int(&row, m->last_time_ms);
    pack_uint(&row, m->last_token);
    pack_uint(&row, m->moves_done);
    return put_row(store, META_TABLE_BASE, bytes_of(NULL, 0), &row);
}

static enum ferry_err delete_dead(struct meta *m, struct store *store)
{
    enum ferry_err err = FERRY_OK;
    for (struct list *n; err == FERRY_OK && (n = list_pop_front(&m->dead_rows)) != NULL;) {
        struct dead_row *row = list_entry(n, struct dead_row, node);
        err = store_delete(store, META_GROUP, (uint8_t)row->table,
                           bytes_of(row->key, row->key_bytes));
        mem_free(row);
    }
    return err;
}

static void pack_nodes(struct buf *b, const uint32_t *nodes, uint32_t count)
{
    pack_array(b, count);
    for (uint32_t k = 0; k < count; k++) {
        pack_uint(b, nodes[k]);
    }
}

static enum ferry_err write_topic(const struct meta_topic *t, struct store *store)
{
    struct buf row;
    bool is_placed = t->placement[0] != 0;
    buf_init(&row, ROW_MAX_BYTES);
    pack_array(&row, is_placed ? 10 : 7);
    pack_id(&row, &t->id);
    pack_uint(&row, t->partitions);
    pack_uint(&row, t->replicas);
    pack_int(&row, t->settings.retention_ms);
    pack_int(&row, t->settings.retention_bytes);
    pack_int(&row, t->settings.dedupe_window_ms);
    pack_uint(&row, t->first_group);
    if (is_placed) {
        pack_nodes(&row, t->placement, t->partitions * t->replicas);
        pack_uint(&row, t->created_index);
        pack_bool(&row, t->settings.retention_acked);
    }
    return put_row(store, META_TABLE_TOPICS, bytes_of_string(t->name), &row);
}

static enum ferry_err write_topics(struct meta *m, struct store *store)
{
    enum ferry_err err = FERRY_OK;
    for (size_t i = 0; i < m->topic_count && err == FERRY_OK; i++) {
        if (m->topics[i]->dirty) {
            err = write_topic(&m->topics[i]->topic, store);
            m->topics[i]->dirty = false;
        }
    }
    return err;
}

static enum ferry_err write_producers(struct meta *m, struct store *store)
{
    enum ferry_err err = FERRY_OK;
    size_t at = 0;
    for (struct meta_producer *p; err == FERRY_OK && (p = map_next(&m->producers, &at)) != NULL;) {
        if (!p->dirty) {
            continue;
        }
        struct buf row;
        buf_init(&row, ROW_MAX_BYTES);
        pack_array(&row, 2);
        pack_uint(&row, p->id);
        pack_uint(&row, p->epoch);
        err = put_row(store, META_TABLE_PRODUCERS, bytes_of_string(p->name), &row);
        p->dirty = false;
    }
    return err;
}

static enum ferry_err write_source(const struct meta_source *s, struct store *store)
{
    uint8_t key[20];
    memcpy(key, s->source.bytes, 16);
    put_be32(key + 16, s->lane);
    struct buf row;
    buf_init(&row, ROW_MAX_BYTES);
    pack_array(&row, 4);
    pack_uint(&row, s->epoch);
    pack_str(&row, bytes_of(s->holder, s->holder_bytes));
    pack_uint(&row, s->ttl_ms);
    pack_bin(&row, bytes_of(s->checkpoint, s->checkpoint_bytes));
    return put_row(store, META_TABLE_SOURCES, bytes_of(key, sizeof(key)), &row);
}

static enum ferry_err write_sources(struct meta *m, struct store *store)
{
    enum ferry_err err = FERRY_OK;
    size_t at = 0;
    for (struct meta_source *s; err == FERRY_OK && (s = map_next(&m->sources, &at)) != NULL;) {
        if (s->dirty) {
            err = write_source(s, store);
            s->dirty = false;
        }
    }
    return err;
}

static enum ferry_err write_node(const struct node_row *n, struct store *store)
{
    struct buf row;
    buf_init(&row, ROW_MAX_BYTES);
    pack_array(&row, 11);
    pack_uint(&row, n->node.member);
    pack_uint(&row, n->node.boot);
    pack_uint(&row, n->node.boot_id);
    pack_uint(&row, n->node.weight);
    pack_bool(&row, n->node.draining);
    pack_bool(&row, n->emptying);
    pack_uint(&row, n->node.shards);
    pack_str(&row, bytes_of_string(n->node.zone));
    pack_str(&row, bytes_of_string(n->node.client_endpoints));
    pack_str(&row, bytes_of_string(n->node.peer_endpoints));
    pack_uint(&row, n->node.member_index);
    return put_numbered(store, META_TABLE_NODES, n->node.id, 4, &row);
}

static enum ferry_err write_nodes(struct meta *m, struct store *store)
{
    enum ferry_err err = FERRY_OK;
    for (size_t i = 0; i < m->node_count && err == FERRY_OK; i++) {
        if (m->nodes[i]->dirty) {
            err = write_node(m->nodes[i], store);
            m->nodes[i]->dirty = false;
        }
    }
    for (size_t i = 0; i < m->gone_count && err == FERRY_OK; i++) {
        if (m->gone[i].dirty) {
            struct buf row;
            buf_init(&row, ROW_MAX_BYTES);
            pack_array(&row, 0);
            err = put_numbered(store, META_TABLE_GONE, m->gone[i].member, 8, &row);
            m->gone[i].dirty = false;
        }
    }
    return err;
}

static enum ferry_err write_moves(struct meta *m, struct store *store)
{
    enum ferry_err err = FERRY_OK;
    for (size_t i = 0; i < m->move_count && err == FERRY_OK; i++) {
        const struct meta_move *move = &m->moves[i].move;
        if (m->moves[i].dirty) {
            struct buf row;
            buf_init(&row, ROW_MAX_BYTES);
            pack_array(&row, 2);
            pack_uint(&row, move->state);
            pack_nodes(&row, move->step.to, move->step.replicas);
            err = put_numbered(store, META_TABLE_MOVES, move->step.group, 8, &row);
            m->moves[i].dirty = false;
        }
    }
    return err;
}

static enum ferry_err write_leases(struct meta *m, struct store *store)
{
    enum ferry_err err = FERRY_OK;
    for (size_t i = 0; i < m->lease_count && err == FERRY_OK; i++) {
        struct lease *l = m->leases[i];
        if (l->dirty && l->token != 0) {
            struct buf row;
            buf_init(&row, ROW_MAX_BYTES);
            pack_array(&row, 3);
            pack_str(&row, bytes_of_string(l->holder));
            pack_uint(&row, l->token);
            pack_uint(&row, l->ttl_ms);
            err = put_row(store, META_TABLE_LEASES, bytes_of_string(l->name), &row);
        }
        l->dirty = false;
    }
    return err;
}

static enum ferry_err write_workers(struct meta *m, struct store *store)
{
    enum ferry_err err = FERRY_OK;
    for (uint32_t i = 0; i < META_WORKERS && err == FERRY_OK; i++) {
        struct worker *w = &m->workers[i];
        if (w->dirty) {
            struct buf row;
            buf_init(&row, ROW_MAX_BYTES);
            pack_array(&row, 2);
            pack_str(&row, bytes_of_string(w->holder));
            pack_uint(&row, w->ttl_ms);
            err = put_numbered(store, META_TABLE_WORKERS, i, 4, &row);
            w->dirty = false;
        }
    }
    return err;
}

static enum ferry_err write_quota(const struct meta_quota *q, struct store *store)
{
    struct buf key, row;
    meta_quota_key(q, &key);
    buf_init(&row, ROW_MAX_BYTES);
    pack_array(&row, 3);
    pack_uint(&row, q->bytes_per_second);
    pack_uint(&row, q->messages_per_second);
    pack_uint(&row, q->requests_per_second);
    enum ferry_err err = put_row(store, META_TABLE_QUOTAS, buf_bytes(&key), &row);
    err = buf_ok(&key) ? err : FERRY_ERR_NO_MEMORY;
    buf_fini(&key);
    return err;
}

static enum ferry_err write_quotas(struct meta *m, struct store *store)
{
    enum ferry_err err = FERRY_OK;
    for (size_t i = 0; i < m->quota_count && err == FERRY_OK; i++) {
        if (m->quotas[i].dirty) {
            err = write_quota(&m->quotas[i].quota, store);
            m->quotas[i].dirty = false;
        }
    }
    return err;
}

typedef enum ferry_err write_table(struct meta *m, struct store *store);

/* A row may have died and been made anew since the last flush: deletions first. */
static write_table *const write_tables[] = {delete_dead,   write_topics,  write_producers,
                                            write_sources, write_nodes,   write_moves,
                                            write_leases,  write_workers, write_quotas};

enum ferry_err meta_rows_flush(struct meta *m, struct store *store)
{
    enum ferry_err err = write_base(m, store);
    for (size_t i = 0; i < sizeof(write_tables) / sizeof(write_tables[0]) && err == FERRY_OK; i++) {
        err = write_tables[i](m, store);
    }
    return err;
}
