/* The metadata tables on disk. Row values are msgpack arrays; to change one, add at its end. */
#include "base/mem.h"
#include "cluster/meta_internal.h"
#include "wire/pack.h"

#define ROW_MAX_BYTES (CHECKPOINT_MAX_BYTES + 1024u)

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

static enum ferry_err write_base(const struct meta *m, struct store *store)
{
    struct buf row;
    buf_init(&row, ROW_MAX_BYTES);
    pack_array(&row, 4);
    pack_uint(&row, replica_applied(m->replica));
    pack_uint(&row, m->next_group);
    pack_uint(&row, m->next_producer);
    pack_int(&row, m->last_time_ms);
    return put_row(store, META_TABLE_BASE, bytes_of(NULL, 0), &row);
}

static enum ferry_err write_topic(const struct meta_topic *t, struct store *store)
{
    struct buf row;
    buf_init(&row, ROW_MAX_BYTES);
    pack_array(&row, 7);
    pack_id(&row, &t->id);
    pack_uint(&row, t->partitions);
    pack_uint(&row, t->replicas);
    pack_int(&row, t->settings.retention_ms);
    pack_int(&row, t->settings.retention_bytes);
    pack_int(&row, t->settings.dedupe_window_ms);
    pack_uint(&row, t->first_group);
    return put_row(store, META_TABLE_TOPICS, bytes_of_string(t->name), &row);
}

static enum ferry_err write_topics(struct meta *m, struct store *store)
{
    enum ferry_err err = FERRY_OK;
    for (struct list *n; err == FERRY_OK && (n = list_pop_front(&m->dirty_topics)) != NULL;) {
        struct topic_row_change *c = list_entry(n, struct topic_row_change, node);
        err = c->deleted ? store_delete(store, META_GROUP, META_TABLE_TOPICS,
                                        bytes_of_string(c->topic.name))
                         : write_topic(&c->topic, store);
        mem_free(c);
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

enum ferry_err meta_rows_flush(struct meta *m, struct store *store)
{
    enum ferry_err err = write_base(m, store);
    if (err == FERRY_OK) {
        err = write_topics(m, store);
    }
    if (err == FERRY_OK) {
        err = write_producers(m, store);
    }
    size_t at = 0;
    for (struct meta_source *s; err == FERRY_OK && (s = map_next(&m->sources, &at)) != NULL;) {
        if (s->dirty) {
            err = write_source(s, store);
            s->dirty = false;
        }
    }
    return err;
}

/* ---- Loading ---- */

static enum ferry_err checked(struct unpack *u)
{
    return unpack_end(u) == FERRY_OK ? FERRY_OK : FERRY_ERR_CORRUPT;
}

static enum ferry_err load_topic(struct bytes key, struct bytes value, bool *stop, void *arg)
{
    (void)stop;
    struct meta_topic t = {0};
    struct unpack u;
    unpack_begin(&u, value);
    t.id = unpack_id(&u);
    t.partitions = (uint32_t)unpack_uint(&u, PARTITIONS_MAX);
    t.replicas = (uint32_t)unpack_uint(&u, UINT32_MAX);
    t.settings.retention_ms = unpack_int(&u);
    t.settings.retention_bytes = unpack_int(&u);
    t.settings.dedupe_window_ms = unpack_int(&u);
    t.first_group = unpack_uint(&u, UINT64_MAX);
    if (checked(&u) != FERRY_OK || !name_is_valid(key)) {
        return FERRY_ERR_CORRUPT;
    }
    memcpy(t.name, key.data, key.size);
    return meta_add_topic(arg, &t);
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

static enum ferry_err load_base(struct meta *m, uint64_t *applied)
{
    struct bytes row;
    bool found = false;
    *applied = 0;
    enum ferry_err err =
        store_get(m->config.store, META_GROUP, META_TABLE_BASE, bytes_of(NULL, 0), &found, &row);
    if (err != FERRY_OK || !found) {
        return err;
    }
    struct unpack u;
    unpack_begin(&u, row);
    *applied = unpack_uint(&u, UINT64_MAX);
    m->next_group = unpack_uint(&u, UINT64_MAX);
    m->next_producer = unpack_uint(&u, UINT64_MAX);
    m->last_time_ms = unpack_int(&u);
    return checked(&u);
}

enum ferry_err meta_rows_load(struct meta *m, uint64_t *applied)
{
    struct store *store = m->config.store;
    struct bytes start = bytes_of(NULL, 0);
    enum ferry_err err = load_base(m, applied);
    if (err == FERRY_OK) {
        err = store_each_row(store, META_GROUP, META_TABLE_TOPICS, start, load_topic, m);
    }
    if (err == FERRY_OK) {
        err = store_each_row(store, META_GROUP, META_TABLE_PRODUCERS, start, load_producer, m);
    }
    if (err == FERRY_OK) {
        err = store_each_row(store, META_GROUP, META_TABLE_SOURCES, start, load_source, m);
    }
    return err;
}
