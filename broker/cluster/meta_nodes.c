/* Nodes: which lives of which folders are in the cluster, and how they may be used. */
#include "base/mem.h"
#include "cluster/meta_internal.h"
#include "wire/pack.h"

/* ---- In memory ---- */

static size_t lower_bound(const struct meta *m, uint32_t id)
{
    size_t at = 0;
    while (at < m->node_count && m->nodes[at]->node.id < id) {
        at++;
    }
    return at;
}

struct node_row *meta_node_row(const struct meta *m, uint32_t id)
{
    size_t at = lower_bound(m, id);
    return at < m->node_count && m->nodes[at]->node.id == id ? m->nodes[at] : NULL;
}

size_t meta_node_count(const struct meta *m)
{
    return m->node_count;
}

const struct meta_node *meta_node_at(const struct meta *m, size_t i)
{
    return i < m->node_count ? &m->nodes[i]->node : NULL;
}

const struct meta_node *meta_node_find(const struct meta *m, uint32_t id)
{
    const struct node_row *row = meta_node_row(m, id);
    return row != NULL ? &row->node : NULL;
}

const struct meta_node *meta_node_of_member(const struct meta *m, raft_id member)
{
    const struct meta_node *node = meta_node_find(m, (uint32_t)member);
    return node != NULL && node->member == member ? node : NULL;
}

struct bytes meta_endpoint(const char *joined, uint32_t shard)
{
    for (uint32_t i = 0; i < shard && *joined != '\0'; i++) {
        joined += strcspn(joined, " ");
        joined += *joined == ' ' ? 1 : 0;
    }
    return bytes_of(joined, strcspn(joined, " "));
}

struct node_row *meta_node_row_new(const struct meta_node *node)
{
    size_t client = strlen(node->client_endpoints) + 1;
    size_t peer = strlen(node->peer_endpoints) + 1;
    struct node_row *row = mem_zalloc(1, sizeof(*row) + client + peer);
    if (row == NULL) {
        return NULL;
    }
    row->node = *node;
    memcpy(row->texts, node->client_endpoints, client);
    memcpy(row->texts + client, node->peer_endpoints, peer);
    row->node.client_endpoints = row->texts;
    row->node.peer_endpoints = row->texts + client;
    return row;
}

void meta_node_insert(struct meta *m, struct node_row *row)
{
    must(m->node_count < META_NODES_MAX);
    size_t at = lower_bound(m, row->node.id);
    memmove(m->nodes + at + 1, m->nodes + at, (m->node_count - at) * sizeof(*m->nodes));
    m->nodes[at] = row;
    m->node_count++;
}

static void remove_node(struct meta *m, uint32_t id)
{
    size_t at = lower_bound(m, id);
    must(m->nodes[at]->node.id == id);
    mem_free(m->nodes[at]);
    memmove(m->nodes + at, m->nodes + at + 1, (m->node_count - at - 1) * sizeof(*m->nodes));
    m->node_count--;
}

static size_t gone_bound(const struct meta *m, raft_id member)
{
    size_t low = 0, high = m->gone_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (m->gone[middle].member < member) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

bool meta_member_is_gone(const struct meta *m, raft_id member)
{
    size_t at = gone_bound(m, member);
    return at < m->gone_count && m->gone[at].member == member;
}

enum ferry_err meta_gone_add(struct meta *m, raft_id member, bool dirty)
{
    must(!meta_member_is_gone(m, member));
    if (!mem_grow((void **)&m->gone, &m->gone_capacity, m->gone_count + 1, sizeof(*m->gone))) {
        return FERRY_ERR_NO_MEMORY;
    }
    size_t at = gone_bound(m, member);
    memmove(m->gone + at + 1, m->gone + at, (m->gone_count - at) * sizeof(*m->gone));
    m->gone[at] = (struct gone_row){.member = member, .dirty = dirty};
    m->gone_count++;
    return FERRY_OK;
}

void meta_nodes_free(struct meta *m)
{
    while (m->node_count > 0) {
        mem_free(m->nodes[--m->node_count]);
    }
    mem_free(m->gone);
    m->gone = NULL;
    m->gone_count = m->gone_capacity = 0;
}

/* ---- Asking ---- */

size_t meta_plan_nodes(const struct meta *m, struct plan_node *nodes)
{
    for (size_t i = 0; i < m->node_count; i++) {
        const struct meta_node *node = &m->nodes[i]->node;
        nodes[i] = (struct plan_node){.id = node->id,
                                      .member = node->member,
                                      .weight = node->weight,
                                      .draining = node->draining};
        memcpy(nodes[i].zone, node->zone, sizeof(node->zone));
    }
    return m->node_count;
}

bool meta_ids_are_nodes(const struct meta *m, const uint32_t *ids, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (meta_node_row(m, ids[i]) == NULL) {
            return false;
        }
    }
    return true;
}

void meta_count_replicas(const struct meta *m, uint32_t counts[META_NODES_MAX])
{
    memset(counts, 0, META_NODES_MAX * sizeof(*counts));
    for (size_t i = 0; i < m->topic_count; i++) {
        const struct meta_topic *t = &m->topics[i]->topic;
        for (size_t k = 0; k < (size_t)t->partitions * t->replicas; k++) {
            size_t at = lower_bound(m, t->placement[k]);
            if (at < m->node_count && m->nodes[at]->node.id == t->placement[k]) {
                counts[at]++;
            }
        }
    }
}

static uint32_t usable_weight(const struct meta_node *node)
{
    return node->draining ? 0 : node->weight;
}

uint32_t meta_ring_permille(const struct meta *m, uint32_t id)
{
    uint32_t all = 0;
    for (size_t i = 0; i < m->node_count; i++) {
        all += usable_weight(&m->nodes[i]->node);
    }
    const struct meta_node *node = meta_node_find(m, id);
    return node != NULL && all > 0 ? usable_weight(node) * 1000 / all : 0;
}

/* Those in force whose node has not registered, and that are not gone: a founder that is starting.
 */
static size_t add_unregistered(const struct meta *m, const raft_id *ids, uint32_t id_count,
                               struct plan_node *nodes, size_t count)
{
    for (uint32_t i = 0; i < id_count; i++) {
#ifdef MUT_55 /* founders that have not registered yet are thrown out */
        continue;
#endif
        if (meta_node_find(m, (uint32_t)ids[i]) == NULL && !meta_member_is_gone(m, ids[i])) {
            nodes[count++] = (struct plan_node){.id = (uint32_t)ids[i], .member = ids[i]};
        }
    }
    return count;
}

void meta_wanted_members(const struct meta *m, struct raft_members *members)
{
    struct plan_node nodes[META_NODES_MAX + RAFT_VOTERS_MAX + RAFT_LEARNERS_MAX];
    const struct raft_members *now = replica_members(m->replica);
    size_t count = meta_plan_nodes(m, nodes);
    count = add_unregistered(m, now->voters, now->voter_count, nodes, count);
    count = add_unregistered(m, now->learners, now->learner_count, nodes, count);
    plan_members(nodes, count, now, members);
}

/* ---- Registering ---- */

static bool is_same_start(const struct meta_node *a, const struct meta_node *b)
{
    return a->member == b->member && a->boot == b->boot && a->boot_id == b->boot_id;
}

/* Against what is applied. Nothing here depends on anything else: it is asked again by apply. */
static enum ferry_err check_life(const struct meta *m, const struct meta_node *node)
{
    const struct meta_node *known = meta_node_find(m, node->id);
#ifndef MUT_51 /* a life that was replaced comes back */
    if (meta_member_is_gone(m, node->member)) {
        return FERRY_ERR_NODE_REPLACED;
    }
#endif
    if (known == NULL) {
        return m->node_count < META_NODES_MAX ? FERRY_OK : FERRY_ERR_LIMIT_REACHED;
    }
    if (known->member != node->member) {
        return m->gone_count < META_GONE_MAX ? FERRY_OK : FERRY_ERR_LIMIT_REACHED;
    }
#ifndef MUT_50 /* a folder restored from a copy goes on as if nothing were */
    if (node->boot <= known->boot && !is_same_start(known, node)) {
        return FERRY_ERR_OLD_FOLDER;
    }
#endif
    return FERRY_OK;
}

/* Single endpoints, not empty, one for each shard. */
static bool has_endpoints(const char *joined, uint32_t shards)
{
    size_t bytes = strlen(joined);
    if (bytes > META_ENDPOINTS_MAX_BYTES) {
        return false;
    }
    for (uint32_t i = 0; i < shards; i++) {
        struct bytes endpoint = meta_endpoint(joined, i);
        if (endpoint.size == 0 || endpoint.size > ENDPOINT_MAX_BYTES) {
            return false;
        }
    }
    return meta_endpoint(joined, shards).size == 0;
}

static enum ferry_err check_form(const struct meta_node *node, struct err_text *e)
{
    if (node->id == 0 || node->id > META_NODE_ID_MAX || (uint32_t)node->member != node->id) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT, "node id: 1 to %u", META_NODE_ID_MAX);
    }
    if (node->weight > RING_WEIGHT_MAX) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT, "weight: 0 to %u", RING_WEIGHT_MAX);
    }
    if (memchr(node->zone, '\0', sizeof(node->zone)) == NULL) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT, "zone: at most %u bytes", ZONE_MAX_BYTES);
    }
    if (node->shards == 0 || node->shards > META_SHARDS_MAX ||
        !has_endpoints(node->client_endpoints, node->shards) ||
        !has_endpoints(node->peer_endpoints, node->shards)) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT,
                       "shards: 1 to %u, with an endpoint each for clients and for peers",
                       META_SHARDS_MAX);
    }
    return FERRY_OK;
}

static bool says_nothing_new(const struct meta_node *known, const struct meta_node *node)
{
    return known != NULL && is_same_start(known, node) && known->shards == node->shards &&
           strcmp(known->zone, node->zone) == 0 &&
           strcmp(known->client_endpoints, node->client_endpoints) == 0 &&
           strcmp(known->peer_endpoints, node->peer_endpoints) == 0;
}

static void encode_register(struct buf *b, const struct meta_node *node)
{
    pack_array(b, 10);
    pack_uint(b, META_NODE_REGISTER);
    pack_uint(b, node->id);
    pack_uint(b, node->member);
    pack_uint(b, node->boot);
    pack_uint(b, node->boot_id);
    pack_uint(b, node->weight);
    pack_uint(b, node->shards);
    pack_str(b, bytes_of_string(node->zone));
    pack_str(b, bytes_of_string(node->client_endpoints));
    pack_str(b, bytes_of_string(node->peer_endpoints));
}

enum ferry_err meta_node_register(struct meta *m, const struct meta_node *node, int64_t now_ms,
                                  int64_t now_us, struct meta_ticket *t, struct err_text *e)
{
    enum ferry_err err = check_form(node, e);
    if (err != FERRY_OK) {
        return err;
    }
    if (!replica_is_ready(m->replica)) {
        return replica_check_leader(m->replica);
    }
    err = check_life(m, node);
    if (err == FERRY_ERR_LIMIT_REACHED) {
        return err_set(e, err, "nodes: at most %u, and %u lives of folders that are gone",
                       META_NODES_MAX, META_GONE_MAX);
    }
    if (err != FERRY_OK || says_nothing_new(meta_node_find(m, node->id), node)) {
        return err;
    }
    encode_register(&t->payload, node);
    return meta_propose(m, t, now_ms, now_us);
}

/* ---- Applying a registration ---- */

static enum ferry_err read_register(struct unpack *u, struct meta_node *node,
                                    struct node_texts *texts)
{
    *node = (struct meta_node){.client_endpoints = texts->client, .peer_endpoints = texts->peer};
    node->id = (uint32_t)unpack_uint(u, META_NODE_ID_MAX);
    node->member = unpack_uint(u, UINT64_MAX);
    node->boot = unpack_uint(u, UINT64_MAX);
    node->boot_id = unpack_uint(u, UINT64_MAX);
    node->weight = (uint32_t)unpack_uint(u, RING_WEIGHT_MAX);
    node->shards = (uint32_t)unpack_uint(u, META_SHARDS_MAX);
    meta_take_text(node->zone, unpack_str(u, RING_ZONE_BYTES - 1));
    meta_take_text(texts->client, unpack_str(u, META_ENDPOINTS_MAX_BYTES));
    meta_take_text(texts->peer, unpack_str(u, META_ENDPOINTS_MAX_BYTES));
    return unpack_end(u) == FERRY_OK && node->id != 0 ? FERRY_OK : FERRY_ERR_CORRUPT;
}

/* The first node of a folder from before there were nodes: what has no place is on it. */
static enum ferry_err place_old_topics(struct meta *m, uint32_t id)
{
    bool any = false;
    for (size_t i = 0; i < m->topic_count; i++) {
        struct topic_row *row = m->topics[i];
        for (size_t k = 0; k < (size_t)row->topic.partitions * row->topic.replicas; k++) {
            row->nodes[k] = id;
        }
        row->dirty = true;
        any = true;
    }
    return any ? meta_push_change(m, META_ALL_CHANGED, NULL, 0, 0) : FERRY_OK;
}

/* Another life takes over what the old one was meant to hold; what people set stays. */
static enum ferry_err replace_row(struct meta *m, const struct node_row *known,
                                  struct node_row *row)
{
    row->node.weight = known->node.weight;
    row->node.draining = known->node.draining;
    row->emptying = known->emptying;
    return known->node.member != row->node.member ? meta_gone_add(m, known->node.member, true)
                                                  : FERRY_OK;
}

static enum ferry_err take_in(struct meta *m, const struct meta_node *node)
{
    struct node_row *row = meta_node_row_new(node);
    const struct node_row *known = meta_node_row(m, node->id);
    if (row == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    bool same = known != NULL && known->node.member == node->member;
    row->node.member_index = same ? known->node.member_index : m->applying;
    enum ferry_err err = FERRY_OK;
    if (known != NULL) {
        err = replace_row(m, known, row);
    } else if (m->node_count == 0) {
        err = place_old_topics(m, node->id);
    }
    if (err != FERRY_OK) {
        mem_free(row);
        return err;
    }
    if (known != NULL) {
        remove_node(m, node->id);
    }
    row->dirty = true;
    m->must_look = true;
    meta_node_insert(m, row);
    return meta_push_change(m, META_NODE_CHANGED, NULL, 0, node->id);
}

enum ferry_err meta_apply_register(struct meta *m, struct unpack *u)
{
    struct meta_node node;
    struct node_texts texts;
    enum ferry_err err = read_register(u, &node, &texts);
    if (err != FERRY_OK) {
        return err;
    }
    enum ferry_err refusal = check_life(m, &node);
    return refusal != FERRY_OK ? meta_refuse(m, refusal) : take_in(m, &node);
}

/* ---- Changing ---- */

static enum ferry_err check_remove(const struct meta *m, uint32_t id, struct err_text *e)
{
    if (m->node_count == 1) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT, "it is the only node");
    }
    if (m->gone_count >= META_GONE_MAX) {
        return err_set(e, FERRY_ERR_LIMIT_REACHED, "%u lives of folders are gone already",
                       META_GONE_MAX);
    }
    return meta_topics_name(m, id) || meta_moves_name(m, id) ? FERRY_ERR_NODE_NOT_EMPTY : FERRY_OK;
}

static enum ferry_err check_change(const struct meta *m, uint32_t id,
                                   enum meta_node_change_kind kind, uint32_t weight,
                                   struct err_text *e)
{
    if (meta_node_find(m, id) == NULL) {
        return FERRY_ERR_UNKNOWN_NODE;
    }
    if (kind == META_NODE_WEIGHT && weight > RING_WEIGHT_MAX) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT, "weight: 0 to %u", RING_WEIGHT_MAX);
    }
    return kind == META_NODE_REMOVE ? check_remove(m, id, e) : FERRY_OK;
}

enum ferry_err meta_node_change(struct meta *m, uint32_t id, enum meta_node_change_kind kind,
                                uint32_t weight, int64_t now_ms, int64_t now_us,
                                struct meta_ticket *t, struct err_text *e)
{
    if (kind < META_NODE_DRAIN || kind > META_NODE_WEIGHT) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT, "no such change of a node");
    }
    if (!replica_is_ready(m->replica)) {
        return replica_check_leader(m->replica);
    }
    enum ferry_err err = check_change(m, id, kind, weight, e);
    if (err != FERRY_OK) {
        return err;
    }
    if (kind == META_NODE_DRAIN) {
        return meta_drain(m, meta_node_row(m, id), now_ms, now_us, t, e);
    }
    pack_array(&t->payload, 4);
    pack_uint(&t->payload, META_NODE_SET);
    pack_uint(&t->payload, id);
    pack_uint(&t->payload, kind);
    pack_uint(&t->payload, weight);
    return meta_propose(m, t, now_ms, now_us);
}

static enum ferry_err apply_remove(struct meta *m, uint32_t id)
{
    uint8_t key[4];
    put_be32(key, id);
    enum ferry_err err = meta_gone_add(m, meta_node_find(m, id)->member, true);
    if (err == FERRY_OK) {
        err = meta_kill_row(m, META_TABLE_NODES, bytes_of(key, sizeof(key)));
    }
    if (err == FERRY_OK) {
        remove_node(m, id);
    }
    return err;
}

static enum ferry_err apply_set(struct meta *m, uint32_t id, enum meta_node_change_kind kind,
                                uint32_t weight)
{
    struct node_row *row = meta_node_row(m, id);
    row->dirty = true;
    switch (kind) {
    case META_NODE_UNDRAIN:
        row->node.draining = row->emptying = false;
        return meta_moves_undrain(m, id);
    case META_NODE_REMOVE:
        return apply_remove(m, id);
    case META_NODE_WEIGHT:
        row->node.weight = weight;
        return FERRY_OK;
    default:
        return FERRY_ERR_CORRUPT;
    }
}

enum ferry_err meta_apply_node_set(struct meta *m, struct unpack *u)
{
    struct err_text ignored = {0};
    uint32_t id = (uint32_t)unpack_uint(u, META_NODE_ID_MAX);
    enum meta_node_change_kind kind = (enum meta_node_change_kind)unpack_uint(u, UINT8_MAX);
    uint32_t weight = (uint32_t)unpack_uint(u, RING_WEIGHT_MAX);
    if (unpack_end(u) != FERRY_OK) {
        return FERRY_ERR_CORRUPT;
    }
    enum ferry_err refusal = check_change(m, id, kind, weight, &ignored);
    if (refusal != FERRY_OK) {
        return meta_refuse(m, refusal);
    }
    enum ferry_err err = apply_set(m, id, kind, weight);
    m->must_look = true;
    return err != FERRY_OK ? err : meta_push_change(m, META_NODE_CHANGED, NULL, 0, id);
}
