/* Topics, and where their partitions are. */
#include "base/mem.h"
#include "cluster/meta_internal.h"
#include "wire/pack.h"

/* ---- In memory ---- */

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
        if (compare_name(&m->topics[middle]->topic, name) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static bool is_at(const struct meta *m, size_t at, struct bytes name)
{
    return at < m->topic_count && compare_name(&m->topics[at]->topic, name) == 0;
}

/* The first topic whose groups end after `group`. */
static size_t group_bound(const struct meta *m, uint64_t group)
{
    size_t low = 0, high = m->topic_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct meta_topic *t = &m->groups[middle]->topic;
        if (t->first_group + t->partitions <= group) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

const struct meta_topic *meta_topic_find(const struct meta *m, struct bytes name)
{
    size_t at = lower_bound(m, name);
    return is_at(m, at, name) ? &m->topics[at]->topic : NULL;
}

const struct meta_topic *meta_topic_at(const struct meta *m, size_t i)
{
    return i < m->topic_count ? &m->topics[i]->topic : NULL;
}

size_t meta_topic_after(const struct meta *m, struct bytes after)
{
    if (after.size == 0) {
        return 0;
    }
    size_t at = lower_bound(m, after);
    return is_at(m, at, after) ? at + 1 : at;
}

struct topic_row *meta_topic_row_of(const struct meta *m, uint64_t group, uint32_t *partition)
{
    size_t at = group_bound(m, group);
    if (at >= m->topic_count || m->groups[at]->topic.first_group > group) {
        return NULL;
    }
    *partition = (uint32_t)(group - m->groups[at]->topic.first_group);
    return m->groups[at];
}

const struct meta_topic *meta_topic_of_group(const struct meta *m, uint64_t group,
                                             uint32_t *partition)
{
    const struct topic_row *row = meta_topic_row_of(m, group, partition);
    return row != NULL ? &row->topic : NULL;
}

struct topic_row *meta_topic_row_new(const struct meta_topic *topic)
{
    size_t nodes = (size_t)topic->partitions * topic->replicas;
    struct topic_row *row = mem_zalloc(1, sizeof(*row) + nodes * sizeof(*row->nodes));
    if (row == NULL) {
        return NULL;
    }
    row->topic = *topic;
    row->topic.placement = row->nodes;
    if (topic->placement != NULL) {
        memcpy(row->nodes, topic->placement, nodes * sizeof(*row->nodes));
    }
    return row;
}

static void insert(struct topic_row **rows, size_t count, size_t at, struct topic_row *row)
{
    memmove(rows + at + 1, rows + at, (count - at) * sizeof(*rows));
    rows[at] = row;
}

static void remove_at(struct topic_row **rows, size_t count, size_t at)
{
    memmove(rows + at, rows + at + 1, (count - at - 1) * sizeof(*rows));
}

static void take_groups(struct meta *m, const struct meta_topic *topic)
{
    uint64_t after = topic->first_group + topic->partitions;
    m->next_group = after > m->next_group ? after : m->next_group;
    m->proposed_next_group =
        m->next_group > m->proposed_next_group ? m->next_group : m->proposed_next_group;
}

enum ferry_err meta_topic_add(struct meta *m, struct topic_row **row)
{
    const struct meta_topic *topic = &(*row)->topic;
    if (!mem_grow((void **)&m->topics, &m->topic_capacity, m->topic_count + 1,
                  sizeof(struct topic_row *)) ||
        !mem_grow((void **)&m->groups, &m->group_capacity, m->topic_count + 1,
                  sizeof(struct topic_row *))) {
        return FERRY_ERR_NO_MEMORY;
    }
    insert(m->topics, m->topic_count, lower_bound(m, bytes_of_string(topic->name)), *row);
    insert(m->groups, m->topic_count, group_bound(m, topic->first_group), *row);
    m->topic_count++;
    take_groups(m, topic);
    *row = NULL;
    return FERRY_OK;
}

static void remove_topic(struct meta *m, size_t at)
{
    struct topic_row *row = m->topics[at];
    size_t by_group = group_bound(m, row->topic.first_group);
    must(m->groups[by_group] == row);
    remove_at(m->topics, m->topic_count, at);
    remove_at(m->groups, m->topic_count, by_group);
    m->topic_count--;
    mem_free(row);
}

void meta_topics_free(struct meta *m)
{
    while (m->topic_count > 0) {
        remove_topic(m, m->topic_count - 1);
    }
    mem_free(m->topics);
    mem_free(m->groups);
    m->topics = m->groups = NULL;
    m->topic_capacity = m->group_capacity = 0;
}

bool meta_topics_name(const struct meta *m, uint32_t node)
{
    for (size_t i = 0; i < m->topic_count; i++) {
        const struct meta_topic *t = &m->topics[i]->topic;
        for (size_t k = 0; k < (size_t)t->partitions * t->replicas; k++) {
            if (t->placement[k] == node) {
                return true;
            }
        }
    }
    return false;
}

/* ---- Where a group is ---- */

uint32_t meta_placement(const struct meta *m, uint64_t group, uint32_t nodes[RING_REPLICAS_MAX])
{
    uint32_t partition = 0;
    const struct meta_topic *t = meta_topic_of_group(m, group, &partition);
    if (t == NULL || t->placement[0] == 0) {
        return 0;
    }
    memcpy(nodes, t->placement + (size_t)partition * t->replicas, t->replicas * sizeof(*nodes));
    return t->replicas;
}

uint32_t meta_target(const struct meta *m, uint64_t group, uint32_t nodes[RING_REPLICAS_MAX])
{
    const struct meta_move *move = meta_move_of(m, group);
    if (move == NULL || move->state != META_MOVE_ACTIVE) {
        return meta_placement(m, group, nodes);
    }
    memcpy(nodes, move->step.to, move->step.replicas * sizeof(*nodes));
    return move->step.replicas;
}

static bool is_among(const uint32_t *nodes, uint32_t count, uint32_t node)
{
    for (uint32_t k = 0; k < count; k++) {
        if (nodes[k] == node) {
            return true;
        }
    }
    return false;
}

uint32_t meta_holders(const struct meta *m, uint64_t group, uint32_t nodes[2 * RING_REPLICAS_MAX])
{
#ifdef MUT_59 /* the old replicas are dropped as soon as a move begins */
    return meta_target(m, group, nodes);
#endif
    uint32_t count = meta_placement(m, group, nodes);
    const struct meta_move *move = meta_move_of(m, group);
    if (move == NULL || move->state == META_MOVE_PLANNED) {
        return count;
    }
    for (uint32_t k = 0; k < move->step.replicas; k++) {
        if (!is_among(nodes, count, move->step.to[k])) {
            nodes[count++] = move->step.to[k];
        }
    }
    return count;
}

bool meta_holds(const struct meta *m, uint64_t group, uint32_t node)
{
    uint32_t nodes[2 * RING_REPLICAS_MAX];
    return is_among(nodes, meta_holders(m, group, nodes), node);
}

/* ---- Applying ---- */

static enum ferry_err read_placement(struct unpack *u, struct meta_topic *t, struct topic_row **row)
{
    *row = meta_topic_row_new(t);
    if (*row == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    if (unpack_has_more(u)) {
        uint32_t count = unpack_array(u, PARTITIONS_MAX * RING_REPLICAS_MAX);
        for (uint32_t i = 0; i < count && count == t->partitions * t->replicas; i++) {
            (*row)->nodes[i] = (uint32_t)unpack_uint(u, META_NODE_ID_MAX);
        }
        u->failed = u->failed || count != t->partitions * t->replicas || (*row)->nodes[0] == 0;
        unpack_array_end(u);
    }
    if (unpack_has_more(u)) {
        (*row)->topic.settings.retention_acked = unpack_bool(u);
    }
    return FERRY_OK;
}

static enum ferry_err read_create(struct unpack *u, struct topic_row **row)
{
    struct meta_topic topic = {0};
    struct bytes name = unpack_str(u, NAME_MAX_BYTES);
    topic.id = unpack_id(u);
    topic.partitions = (uint32_t)unpack_uint(u, PARTITIONS_MAX);
    topic.replicas = (uint32_t)unpack_uint(u, RING_REPLICAS_MAX);
    topic.settings.retention_ms = unpack_int(u);
    topic.settings.retention_bytes = unpack_int(u);
    topic.settings.dedupe_window_ms = unpack_int(u);
    topic.first_group = unpack_uint(u, UINT64_MAX - PARTITIONS_MAX);
    if (u->failed || !name_is_valid(name) || topic.partitions == 0 || topic.replicas == 0) {
        return FERRY_ERR_CORRUPT;
    }
    memcpy(topic.name, name.data, name.size);
    enum ferry_err err = read_placement(u, &topic, row);
    if (err == FERRY_OK && unpack_end(u) != FERRY_OK) {
        err = FERRY_ERR_CORRUPT;
    }
    return err;
}

/* One from before there were nodes belongs to the node that was alone then. When that one has
 * registered, no such entry follows. */
static bool is_placed_well(const struct meta *m, const struct topic_row *row)
{
    size_t count = (size_t)row->topic.partitions * row->topic.replicas;
#ifdef MUT_58 /* a topic is placed on a node that was removed meanwhile */
    return true;
#endif
    return m->node_count == 0 ? row->nodes[0] == 0 : meta_ids_are_nodes(m, row->nodes, count);
}

static enum ferry_err add_created(struct meta *m, struct topic_row **row)
{
    struct topic_row *added = *row;
    enum ferry_err err = meta_topic_add(m, row);
    if (err != FERRY_OK) {
        return err;
    }
    added->dirty = true;
    added->topic.created_index = added->nodes[0] != 0 ? m->applying : 0;
    return meta_push_change(m, META_TOPIC_CREATED, &added->topic, added->topic.first_group, 0);
}

static bool are_alike(const struct topic_settings *a, const struct topic_settings *b)
{
    return a->retention_ms == b->retention_ms && a->retention_bytes == b->retention_bytes &&
           a->dedupe_window_ms == b->dedupe_window_ms && a->retention_acked == b->retention_acked;
}

/* Two creations were under way: the first one made it. */
static enum ferry_err answer_found(struct meta *m, const struct meta_topic *found,
                                   const struct meta_topic *wanted)
{
    if (m->asker != NULL) {
        m->asker->topic_id = found->id;
    }
    bool same = found->partitions == wanted->partitions && found->replicas == wanted->replicas &&
                are_alike(&found->settings, &wanted->settings);
    return same ? FERRY_OK : meta_refuse(m, FERRY_ERR_TOPIC_EXISTS);
}

enum ferry_err meta_apply_create(struct meta *m, struct unpack *u)
{
    struct topic_row *row = NULL;
    enum ferry_err err = read_create(u, &row);
    if (err != FERRY_OK) {
        mem_free(row);
        return err;
    }
    take_groups(m, &row->topic); /* Also when nothing comes of it: never again. */
    const struct meta_topic *found = meta_topic_find(m, bytes_of_string(row->topic.name));
    if (found != NULL) {
        err = answer_found(m, found, &row->topic);
    } else {
        err = is_placed_well(m, row) ? add_created(m, &row) : meta_refuse(m, FERRY_ERR_NOT_READY);
    }
    mem_free(row);
    return err;
}

enum ferry_err meta_apply_delete(struct meta *m, struct unpack *u)
{
    struct bytes name = unpack_str(u, NAME_MAX_BYTES);
    if (unpack_end(u) != FERRY_OK) {
        return FERRY_ERR_CORRUPT;
    }
    size_t at = lower_bound(m, name);
    if (!is_at(m, at, name)) {
        return FERRY_OK;
    }
    const struct meta_topic *t = &m->topics[at]->topic;
    enum ferry_err err = meta_push_change(m, META_TOPIC_DELETED, t, t->first_group, 0);
    if (err == FERRY_OK) {
        err = meta_kill_row(m, META_TABLE_TOPICS, name);
    }
    if (err == FERRY_OK) {
        err = meta_moves_forget(m, t->first_group, t->partitions);
    }
    if (err == FERRY_OK) {
        remove_topic(m, at);
    }
    return err;
}

/* ---- Requests ---- */

static bool has_settings(const struct meta_topic *topic, const struct topic_create_request *spec)
{
    struct topic_settings wanted = {.retention_ms = spec->retention_ms,
                                    .retention_bytes = spec->retention_bytes,
                                    .dedupe_window_ms = spec->dedupe_window_ms,
                                    .retention_acked = spec->retention_acked};
    return topic->partitions == spec->partitions &&
           (spec->replicas == 0 || topic->replicas == spec->replicas) &&
           are_alike(&topic->settings, &wanted);
}

static enum ferry_err check_spec(const struct topic_create_request *spec, struct err_text *e)
{
    if (!name_is_valid(spec->name)) {
        return FERRY_ERR_BAD_NAME;
    }
    if (name_is_of_dead(spec->name)) {
        return err_set(e, FERRY_ERR_BAD_NAME,
                       "a name with " DEAD_NAME_MARK " in it stands for a subscription's dead "
                       "letters: choose another");
    }
    if (spec->partitions == 0 || spec->partitions > PARTITIONS_MAX) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT, "partitions: 1 to %u", PARTITIONS_MAX);
    }
    if (spec->replicas > RING_REPLICAS_MAX) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT, "replicas: 1 to %u", RING_REPLICAS_MAX);
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
                          const struct meta_topic *t)
{
    uint32_t nodes = t->partitions * t->replicas;
    pack_array(b, 11);
    pack_uint(b, META_TOPIC_CREATE);
    pack_str(b, spec->name);
    pack_id(b, &t->id);
    pack_uint(b, t->partitions);
    pack_uint(b, t->replicas);
    pack_int(b, spec->retention_ms);
    pack_int(b, spec->retention_bytes);
    pack_int(b, spec->dedupe_window_ms);
    pack_uint(b, t->first_group);
    pack_array(b, nodes);
    for (uint32_t i = 0; i < nodes; i++) {
        pack_uint(b, t->placement[i]);
    }
    pack_bool(b, spec->retention_acked);
}

/* As many as asked for; 0: three, or as many as there are nodes. */
static enum ferry_err choose_replicas(const struct topic_create_request *spec, size_t usable,
                                      struct meta_topic *t, struct err_text *e)
{
    t->replicas = spec->replicas != 0 ? spec->replicas : 3;
    if (spec->replicas == 0 && usable > 0 && usable < 3) {
        t->replicas = (uint32_t)usable;
    }
    if (t->replicas > usable) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT,
                       "replicas: %u asked for, and %zu nodes can take one: ask for fewer, or add "
                       "nodes (`ferry node list` shows which are draining or of weight 0)",
                       t->replicas, usable);
    }
    return FERRY_OK;
}

/* Plans the placement and writes the entry. */
static enum ferry_err prepare(const struct meta *m, const struct topic_create_request *spec,
                              struct meta_topic *t, struct buf *payload, struct err_text *e)
{
    struct plan_node nodes[META_NODES_MAX];
    size_t count = meta_plan_nodes(m, nodes);
    enum ferry_err err = choose_replicas(spec, plan_usable(nodes, count), t, e);
    if (err != FERRY_OK) {
        return err;
    }
    t->partitions = spec->partitions;
    t->first_group = m->proposed_next_group;
    t->placement = mem_zalloc((size_t)t->partitions * t->replicas, sizeof(*t->placement));
    if (t->placement == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    err = plan_place(nodes, count, &t->id, t->partitions, t->replicas, t->placement);
    if (err == FERRY_OK) {
        encode_create(payload, spec, t);
    }
    mem_free(t->placement);
    return err;
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
    if (m->node_count == 0) {
        return FERRY_ERR_NOT_READY;
    }
    const struct meta_topic *topic = meta_topic_find(m, spec->name);
    if (topic != NULL) {
        t->topic_id = topic->id;
        return has_settings(topic, spec) ? FERRY_OK : FERRY_ERR_TOPIC_EXISTS;
    }
    if (m->topic_count >= META_TOPICS_MAX) {
        return err_set(e, FERRY_ERR_LIMIT_REACHED, "there are %u topics already", META_TOPICS_MAX);
    }
    struct meta_topic made = {.id = *new_id};
    err = prepare(m, spec, &made, &t->payload, e);
    if (err == FERRY_OK) {
        err = meta_propose(m, t, now_ms, now_us);
    }
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
