/* The metadata group: opening, applying, topics. */
#include "cluster/meta_internal.h"

#include "base/id.h"
#include "base/mem.h"
#include "wire/pack.h"

#define META_PAYLOAD_MAX_BYTES (CHECKPOINT_MAX_BYTES + 1024u)

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

/* ---- Topics in memory ---- */

static int compare_name(const struct meta_topic *topic, struct bytes name)
{
    size_t length = strlen(topic->name);
    int order = memcmp(topic->name, name.data, length < name.size ? length : name.size);
    if (order != 0) {
        return order;
    }
    return length < name.size ? -1 : length > name.size;
}

static size_t lower_bound(const struct meta *m, struct bytes name)
{
    size_t low = 0, high = m->topic_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare_name(m->topics[middle], name) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static bool is_at(const struct meta *m, size_t at, struct bytes name)
{
    return at < m->topic_count && compare_name(m->topics[at], name) == 0;
}

const struct meta_topic *meta_topic_find(const struct meta *m, struct bytes name)
{
    size_t at = lower_bound(m, name);
    return is_at(m, at, name) ? m->topics[at] : NULL;
}

const struct meta_topic *meta_topic_at(const struct meta *m, size_t i)
{
    return i < m->topic_count ? m->topics[i] : NULL;
}

size_t meta_topic_after(const struct meta *m, struct bytes after)
{
    if (after.size == 0) {
        return 0;
    }
    size_t at = lower_bound(m, after);
    return is_at(m, at, after) ? at + 1 : at;
}

enum ferry_err meta_add_topic(struct meta *m, const struct meta_topic *topic)
{
    struct meta_topic *copy = mem_dup(topic, sizeof(*topic));
    if (copy == NULL || !mem_grow((void **)&m->topics, &m->topic_capacity, m->topic_count + 1,
                                  sizeof(struct meta_topic *))) {
        mem_free(copy);
        return FERRY_ERR_NO_MEMORY;
    }
    size_t at = lower_bound(m, bytes_of_string(topic->name));
    memmove(m->topics + at + 1, m->topics + at, (m->topic_count - at) * sizeof(*m->topics));
    m->topics[at] = copy;
    m->topic_count++;
    uint64_t after = topic->first_group + topic->partitions;
    m->next_group = after > m->next_group ? after : m->next_group;
    return FERRY_OK;
}

static void remove_topic(struct meta *m, size_t at)
{
    mem_free(m->topics[at]);
    memmove(m->topics + at, m->topics + at + 1, (m->topic_count - at - 1) * sizeof(*m->topics));
    m->topic_count--;
}

/* ---- Applying ---- */

static enum ferry_err push_change(struct meta *m, bool created, const struct meta_topic *topic)
{
    struct meta_change *change = mem_zalloc(1, sizeof(*change));
    struct topic_row_change *row = mem_zalloc(1, sizeof(*row));
    if (change == NULL || row == NULL) {
        mem_free(change);
        mem_free(row);
        return FERRY_ERR_NO_MEMORY;
    }
    list_init(&change->node);
    list_init(&row->node);
    change->created = created;
    change->topic = *topic;
    row->deleted = !created;
    row->topic = *topic;
    list_push_back(&m->changes, &change->node);
    list_push_back(&m->dirty_topics, &row->node);
    return FERRY_OK;
}

static enum ferry_err apply_create(struct meta *m, struct unpack *u)
{
    struct meta_topic topic = {0};
    struct bytes name = unpack_str(u, NAME_MAX_BYTES);
    topic.id = unpack_id(u);
    topic.partitions = (uint32_t)unpack_uint(u, PARTITIONS_MAX);
    topic.replicas = (uint32_t)unpack_uint(u, UINT32_MAX);
    topic.settings.retention_ms = unpack_int(u);
    topic.settings.retention_bytes = unpack_int(u);
    topic.settings.dedupe_window_ms = unpack_int(u);
    topic.first_group = unpack_uint(u, UINT64_MAX);
    if (unpack_end(u) != FERRY_OK || !name_is_valid(name)) {
        return FERRY_ERR_CORRUPT;
    }
    memcpy(topic.name, name.data, name.size);
    uint64_t after = topic.first_group + topic.partitions;
    m->next_group = after > m->next_group ? after : m->next_group;
    if (meta_topic_find(m, name) != NULL) {
        return FERRY_OK; /* Two creations were under way: the first one made it. */
    }
    enum ferry_err err = meta_add_topic(m, &topic);
    return err != FERRY_OK ? err : push_change(m, true, &topic);
}

static enum ferry_err apply_delete(struct meta *m, struct unpack *u)
{
    struct bytes name = unpack_str(u, NAME_MAX_BYTES);
    if (unpack_end(u) != FERRY_OK) {
        return FERRY_ERR_CORRUPT;
    }
    size_t at = lower_bound(m, name);
    if (!is_at(m, at, name)) {
        return FERRY_OK;
    }
    enum ferry_err err = push_change(m, false, m->topics[at]);
    if (err == FERRY_OK) {
        remove_topic(m, at);
    }
    return err;
}

static enum ferry_err apply(void *machine, uint64_t index, const struct store_entry *entry)
{
    struct meta *m = machine;
    if (entry->type != STORE_ENTRY_CONTROL) {
        return FERRY_ERR_CORRUPT;
    }
    struct unpack u;
    unpack_begin(&u, entry->payload);
    enum ferry_err err = FERRY_ERR_CORRUPT;
    switch ((enum meta_kind)unpack_uint(&u, UINT8_MAX)) {
    case META_TOPIC_CREATE:
        err = apply_create(m, &u);
        break;
    case META_TOPIC_DELETE:
        err = apply_delete(m, &u);
        break;
    case META_PRODUCER_INIT:
        err = meta_apply_producer(m, &u);
        break;
    case META_SOURCE_ELECT:
        err = meta_apply_elect(m, &u);
        break;
    case META_SOURCE_CHECKPOINT:
        err = meta_apply_checkpoint(m, &u);
        break;
    }
    if (err == FERRY_OK) {
        /* What is proposed behind this entry may be later already. */
        m->last_time_ms =
            entry->append_time_ms > m->last_time_ms ? entry->append_time_ms : m->last_time_ms;
        ticket_queue_applied(&m->tickets, index);
    }
    return err;
}

static void forget_proposed(struct meta *m)
{
    m->proposed_next_group = m->next_group;
    m->proposed_next_producer = m->next_producer;
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
    if (!ready) {
        ticket_queue_fail(&m->tickets, FERRY_ERR_NOT_LEADER);
        return;
    }
    /* Whoever held a lease may still believe so: wait it out (invariant 4). */
    size_t at = 0;
    for (struct meta_source *s; (s = map_next(&m->sources, &at)) != NULL;) {
        s->lease_until_us = m->opened_us + (int64_t)s->ttl_ms * 1000;
    }
}

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

/* ---- Opening and closing ---- */

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
    while (m->topic_count > 0) {
        remove_topic(m, m->topic_count - 1);
    }
    free_items(&m->producers);
    free_items(&m->sources);
    for (struct meta_change *c; (c = meta_next_change(m)) != NULL;) {
        mem_free(c);
    }
    for (struct list *n; (n = list_pop_front(&m->dirty_topics)) != NULL;) {
        mem_free(list_entry(n, struct topic_row_change, node));
    }
}

static enum ferry_err load(void *machine, struct store *store, uint64_t *applied,
                           int64_t *next_offset)
{
    struct meta *m = machine;
    must(store == m->config.store);
    free_tables(m);
    m->next_group = META_GROUP + 1;
    m->next_producer = 1;
    *next_offset = 0; /* Its log holds no records. */
    return meta_rows_load(m, applied);
}

static const struct machine_ops meta_ops = {.apply = apply,
                                            .role_changed = role_changed,
                                            .flush = flush,
                                            .flush_rows = flush_rows,
                                            .next_offset = next_offset,
                                            .load = load};

static struct meta *new_meta(const struct meta_config *config, int64_t now_us)
{
    struct meta *m = mem_zalloc(1, sizeof(*m));
    if (m == NULL) {
        return NULL;
    }
    m->config = *config;
    m->opened_us = now_us;
    m->next_group = META_GROUP + 1;
    m->next_producer = 1;
    ticket_queue_init(&m->tickets);
    list_init(&m->changes);
    list_init(&m->dirty_topics);
    map_init(&m->producers);
    map_init(&m->sources);
    return m;
}

enum ferry_err meta_open(const struct meta_config *config, int64_t now_us, struct meta **out,
                         struct err_text *e)
{
    struct meta *m = new_meta(config, now_us);
    if (m == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    uint64_t applied = 0;
    int64_t next_record = 0;
    enum ferry_err err = store_read_begin(config->store);
    if (err == FERRY_OK) {
        err = load(m, config->store, &applied, &next_record);
        store_read_end(config->store);
    }
    if (err != FERRY_OK) {
        (void)err_set(e, err, "the metadata tables cannot be read: %s", ferry_err_text(err));
    } else {
        struct replica_config r = {.group = META_GROUP,
                                   .self = config->self,
                                   .initial = config->initial,
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
    must(ticket_queue_is_empty(&m->tickets));
    replica_close(&m->replica);
    free_tables(m);
    mem_free(m->topics);
    mem_free(m);
    *mm = NULL;
}

struct replica *meta_replica(struct meta *m)
{
    return m->replica;
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

/* ---- Requests on topics ---- */

enum ferry_err meta_propose(struct meta *m, struct meta_ticket *t, int64_t now_ms, int64_t now_us)
{
    if (!buf_ok(&t->payload)) {
        return FERRY_ERR_NO_MEMORY;
    }
    int64_t time_ms = now_ms > m->last_time_ms ? now_ms : m->last_time_ms;
    struct store_entry entry = {
        .type = STORE_ENTRY_CONTROL, .append_time_ms = time_ms, .payload = buf_bytes(&t->payload)};
    uint64_t index = 0;
    enum ferry_err err = replica_propose(m->replica, &entry, now_us, &index);
    if (err == FERRY_OK) {
        m->last_time_ms = time_ms;
        ticket_queue_wait(&m->tickets, &t->base, index);
    }
    return err;
}

static bool has_settings(const struct meta_topic *topic, const struct topic_create_request *spec)
{
    return topic->partitions == spec->partitions && topic->replicas == spec->replicas &&
           topic->settings.retention_ms == spec->retention_ms &&
           topic->settings.retention_bytes == spec->retention_bytes &&
           topic->settings.dedupe_window_ms == spec->dedupe_window_ms;
}

static enum ferry_err check_spec(const struct topic_create_request *spec, struct err_text *e)
{
    if (!name_is_valid(spec->name)) {
        return FERRY_ERR_BAD_NAME;
    }
    if (spec->partitions == 0 || spec->partitions > PARTITIONS_MAX) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT, "partitions: 1 to %u", PARTITIONS_MAX);
    }
    if (spec->replicas != 1) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT,
                       "replicas: this cluster has one node, so 1 is all there can be");
    }
    if (spec->retention_ms > META_TIME_MAX_MS || spec->dedupe_window_ms > META_TIME_MAX_MS) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT,
                       "a time is at most 36500 days, or -1 for no limit");
    }
    if (spec->retention_ms < -1 || spec->retention_bytes < -1 || spec->dedupe_window_ms < -1) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT, "a limit is a number, or -1 for none");
    }
    return FERRY_OK;
}

static void encode_create(struct buf *b, const struct topic_create_request *spec,
                          const struct ferry_id *id, uint64_t first_group)
{
    pack_array(b, 9);
    pack_uint(b, META_TOPIC_CREATE);
    pack_str(b, spec->name);
    pack_id(b, id);
    pack_uint(b, spec->partitions);
    pack_uint(b, spec->replicas);
    pack_int(b, spec->retention_ms);
    pack_int(b, spec->retention_bytes);
    pack_int(b, spec->dedupe_window_ms);
    pack_uint(b, first_group);
}

enum ferry_err meta_topic_create(struct meta *m, const struct topic_create_request *spec,
                                 const struct ferry_id *new_id, int64_t now_ms, int64_t now_us,
                                 struct meta_ticket *t, struct err_text *e)
{
    enum ferry_err err = check_spec(spec, e);
    if (err != FERRY_OK) {
        return err;
    }
    if (!replica_is_ready(m->replica)) {
        return replica_check_leader(m->replica);
    }
    const struct meta_topic *topic = meta_topic_find(m, spec->name);
    if (topic != NULL) {
        t->topic_id = topic->id;
        return has_settings(topic, spec) ? FERRY_OK : FERRY_ERR_TOPIC_EXISTS;
    }
    if (m->topic_count >= META_TOPICS_MAX) {
        return err_set(e, FERRY_ERR_LIMIT_REACHED, "there are %u topics already", META_TOPICS_MAX);
    }
    encode_create(&t->payload, spec, new_id, m->proposed_next_group);
    err = meta_propose(m, t, now_ms, now_us);
    if (err == FERRY_OK) {
        m->proposed_next_group += spec->partitions;
        t->topic_id = *new_id;
    }
    return err;
}

enum ferry_err meta_topic_delete(struct meta *m, struct bytes name, int64_t now_ms, int64_t now_us,
                                 struct meta_ticket *t)
{
    if (!replica_is_ready(m->replica)) {
        return replica_check_leader(m->replica);
    }
    if (meta_topic_find(m, name) == NULL) {
        return FERRY_ERR_UNKNOWN_TOPIC;
    }
    pack_array(&t->payload, 2);
    pack_uint(&t->payload, META_TOPIC_DELETE);
    pack_str(&t->payload, name);
    return meta_propose(m, t, now_ms, now_us);
}

void meta_check(const struct meta *m)
{
    replica_check(m->replica);
    ticket_queue_check(&m->tickets, replica_applied(m->replica));
    for (size_t i = 0; i < m->topic_count; i++) {
        must(m->topics[i]->first_group + m->topics[i]->partitions <= m->next_group);
        must(i == 0 || strcmp(m->topics[i - 1]->name, m->topics[i]->name) < 0);
    }
}
