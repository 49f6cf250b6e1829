/* METADATA: where things are, from this node's copy. */
#include "server/shard_internal.h"

/* A topic made a moment ago on the leader reaches the other copies with the next heartbeat: who
 * asks one of those is not told at once that there is none. Well below the time that clients
 * give each broker before they ask the next (METADATA_SHORT_TRY_MS). */
#define UNKNOWN_WAIT_US 150000

static void add_node(struct metadata_reply *reply, const struct node *n)
{
    if (reply->endpoint_count + n->shards > ENDPOINTS_MAX) {
        return; /* Clients that need it are sent there by NOT_LEADER. */
    }
    const char *at = n->client;
    for (uint32_t i = 0; i < n->shards; i++) {
        reply->endpoints[reply->endpoint_count++] = (struct metadata_endpoint){
            .node_id = n->id, .shard = i, .endpoint = meta_endpoint(at, 0)};
        at += strcspn(at, " ");
        at += *at == ' ' ? 1 : 0;
    }
}

/* Before this node is registered: itself. */
static void add_self(const struct shard *s, struct metadata_reply *reply)
{
    for (uint32_t i = 0; i < s->peer_count; i++) {
        reply->endpoints[reply->endpoint_count++] =
            (struct metadata_endpoint){.node_id = node_of_member(s->self),
                                       .shard = i,
                                       .endpoint = bytes_of_string(shard_endpoint(s->peers[i]))};
    }
}

/* The metadata leader's first; this node's own while none is known. */
static void fill_endpoints(const struct shard *s, struct metadata_reply *reply)
{
    uint32_t leader = shard_metadata_leader(s);
    const struct node *first = leader != 0 ? shard_find_node(s, leader) : NULL;
    first = first != NULL ? first : shard_find_node(s, node_of_member(s->self));
    reply->cluster_id = s->cluster_id;
    if (first == NULL) {
        add_self(s, reply);
    } else {
        add_node(reply, first);
    }
    for (size_t i = 0; i < s->node_count; i++) {
        if (s->nodes[i] != first) {
            add_node(reply, s->nodes[i]);
        }
    }
}

static uint32_t find_endpoint(const struct metadata_reply *reply, uint32_t node_id, uint64_t group,
                              const struct node *n)
{
    for (uint32_t i = 0; n != NULL && i < reply->endpoint_count; i++) {
        if (reply->endpoints[i].node_id == node_id) {
            /* Not all shards of all nodes may have fitted: any other says who leads. */
            uint32_t at = i + (uint32_t)(group % n->shards);
            return at < reply->endpoint_count ? at : i;
        }
    }
    must(reply->endpoint_count > 0);
    return (uint32_t)(group % reply->endpoint_count);
}

static void fill_partition(const struct shard *s, struct metadata_reply *reply, uint64_t group,
                           struct metadata_partition *p)
{
    uint32_t nodes[RING_REPLICAS_MAX];
    uint32_t count = meta_placement(s->meta, group, nodes);
    uint32_t leader = shard_leader_of(s, group);
    if (shard_find_node(s, leader) == NULL) {
        leader = count > 0 ? nodes[0] : node_of_member(s->self);
    }
    *p = (struct metadata_partition){.group = group,
                                     .replica_count = count < REPLICAS_MAX ? count : REPLICAS_MAX};
    memcpy(p->replicas, nodes, p->replica_count * sizeof(nodes[0]));
    p->endpoint = find_endpoint(reply, leader, group, shard_find_node(s, leader));
}

void shard_reply_metadata(struct shard *s, struct request *r, const struct meta_topic *topic,
                          struct bytes dead_of)
{
    struct metadata_reply *reply = s->metadata;
    *reply = (struct metadata_reply){0};
    fill_endpoints(s, reply);
    reply->dead_of = dead_of;
    if (topic != NULL) {
        reply->topic_id = topic->id;
        reply->replicas = topic->replicas;
        reply->retention_ms = topic->settings.retention_ms;
        reply->retention_bytes = topic->settings.retention_bytes;
        reply->dedupe_window_ms = topic->settings.dedupe_window_ms;
        reply->retention_acked = topic->settings.retention_acked;
        reply->partition_count = topic->partitions;
        for (uint32_t p = 0; p < topic->partitions; p++) {
            fill_partition(s, reply, topic->first_group + p, &reply->partitions[p]);
        }
    }
    struct buf b;
    shard_begin_reply(r, &b, FERRY_OK);
    metadata_reply_encode(&b, reply);
    shard_send_reply(s, r, &b);
}

/* ---- Topics that are not known here ---- */

static void handle_unknown(struct shard *s, struct request *r, struct bytes name)
{
    if (s->config.options->topic_auto_create && name_is_valid(name) && !name_is_of_dead(name)) {
        if (shard_leads_metadata(s, r)) {
            struct topic_create_request create = {.name = name};
            shard_create_topic(s, r, &create);
        }
        return;
    }
    if (s->meta_leads || r->confirmed) {
        shard_reply_error(s, r, FERRY_ERR_UNKNOWN_TOPIC, "");
        return;
    }
    r->due_us = s->now_us + UNKNOWN_WAIT_US;
    list_push_back(&s->unknown_topics, &r->parked);
}

void shard_answer_unknown_topics(struct shard *s, bool all)
{
    while (!list_is_empty(&s->unknown_topics)) {
        struct request *r = list_entry(s->unknown_topics.next, struct request, parked);
        if (!all && s->now_us < r->due_us) {
            return;
        }
        list_remove(&r->parked);
        r->confirmed = true;
        if (all) {
            shard_reply_error(s, r, FERRY_ERR_SHUTTING_DOWN, "");
        } else {
            shard_dispatch_again(s, r);
        }
    }
}

/* The topic of that name, or the one whose dead letters it stands for. Several marks in a name may
 * be meant: the first that makes a topic's name counts. */
static const struct meta_topic *find_topic(const struct shard *s, struct bytes name,
                                           struct bytes *dead_of)
{
    const struct meta_topic *topic = meta_topic_find(s->meta, name);
    struct bytes before;
    size_t next = 0;
    while (topic == NULL && dead_name_split(name, next, &before, dead_of, &next)) {
        topic = dead_of->size <= NAME_MAX_BYTES ? meta_topic_find(s->meta, before) : NULL;
    }
    return topic;
}

void shard_handle_metadata(struct shard *s, struct request *r, const struct frame *f)
{
    struct metadata_request q;
    enum ferry_err err = metadata_request_decode(f->body, &q);
    bool old = shard_is_clustered(s) ? !s->catalog_sent : !replica_is_ready(s->meta_seat->replica);
    if (err == FERRY_OK && old) {
        err = FERRY_ERR_NOT_READY;
    }
    const struct meta_topic *topic = NULL;
    struct bytes dead_of = bytes_of(NULL, 0);
    if (err == FERRY_OK && q.topic.size > 0) {
        topic = find_topic(s, q.topic, &dead_of);
        if (topic == NULL && shard_is_clustered(s) && !s->swept) {
            /* A copy from before the start, or an empty one, which is being filled. */
            shard_reply_error(s, r, FERRY_ERR_NOT_READY, "");
            return;
        }
        if (topic == NULL) {
            handle_unknown(s, r, q.topic);
            return;
        }
        const struct rollout *rollout = shard_find_rollout(s, &topic->id);
        err = rollout != NULL ? FERRY_ERR_NOT_READY : FERRY_OK; /* Not all is open yet. */
    }
    if (err != FERRY_OK) {
        shard_reply_error(s, r, err, "");
        return;
    }
    shard_reply_metadata(s, r, topic, dead_of);
}
