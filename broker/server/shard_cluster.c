/* Nodes, plans and moves: questions to any copy of the metadata, orders to its leader. */
#include "server/shard_internal.h"

/* ---- NODE_LIST ---- */

static int64_t silent_ms(const struct shard *s, uint32_t id)
{
    const struct node *n = shard_find_node(s, id);
    if (n == NULL || n->member == s->self) {
        return 0;
    }
    int64_t heard_us = 0;
    for (uint32_t i = 0; i < n->shards; i++) {
        heard_us = n->far[i].heard_us > heard_us ? n->far[i].heard_us : heard_us;
    }
    return (s->now_us - heard_us) / 1000;
}

static enum metadata_role role_of(const struct shard *s, raft_id member)
{
    const struct raft_members *m = replica_members(s->meta_seat->replica);
    if (member == replica_leader(s->meta_seat->replica)) {
        return METADATA_LEADER;
    }
    if (raft_members_has_voter(m, member)) {
        return METADATA_VOTER;
    }
    return raft_members_has(m, member) ? METADATA_LEARNER : METADATA_NONE;
}

static enum node_state state_of(const struct shard *s, const struct node_list_item *item)
{
    if (item->silent_ms > s->config.options->election_max_ms) {
        return NODE_SILENT;
    }
    if (!item->draining) {
        return NODE_UP;
    }
    return item->replicas > 0 ? NODE_DRAINING : NODE_DRAINED;
}

static void fill_node(const struct shard *s, const struct meta_node *n, struct node_list_item *item)
{
    item->node_id = n->id;
    item->member = n->member;
    item->zone = bytes_of_string(n->zone);
    item->weight = n->weight;
    item->draining = n->draining;
    item->metadata_role = role_of(s, n->member);
    item->shards = n->shards;
    item->endpoint = meta_endpoint(n->client_endpoints, 0);
    item->ring_permille = meta_ring_permille(s->meta, n->id);
    item->silent_ms = silent_ms(s, n->id);
    item->state = state_of(s, item);
}

static void handle_node_list(struct shard *s, struct request *r, const struct frame *f)
{
    uint32_t replicas[META_NODES_MAX] = {0}, leaders[META_NODES_MAX] = {0};
    const struct meta_node *n;
    enum ferry_err err = empty_decode(f->body);
    if (err != FERRY_OK) {
        shard_reply_error(s, r, err, "");
        return;
    }
    struct node_list_reply *reply = s->node_list;
    *reply = (struct node_list_reply){.cluster_id = s->cluster_id,
                                      .leader_node = shard_metadata_leader(s)};
    meta_count_replicas(s->meta, replicas);
    shard_count_leaders(s, leaders);
    for (size_t i = 0; i < META_NODES_MAX && (n = meta_node_at(s->meta, i)) != NULL; i++) {
        struct node_list_item *item = &reply->items[reply->count++];
        item->replicas = replicas[i];
        item->leaders = leaders[i];
        fill_node(s, n, item);
    }
    struct buf b;
    shard_begin_reply(r, &b, FERRY_OK);
    node_list_reply_encode(&b, reply);
    shard_send_reply(s, r, &b);
}

/* ---- Moves ---- */

static void fill_move(const struct shard *s, const struct plan_step *step, struct plan_move *move)
{
    uint32_t partition = 0;
    const struct meta_topic *topic = meta_topic_of_group(s->meta, step->group, &partition);
    uint32_t count = step->replicas < REPLICAS_MAX ? step->replicas : REPLICAS_MAX;
    *move = (struct plan_move){.group = step->group,
                               .topic =
                                   topic != NULL ? bytes_of_string(topic->name) : bytes_of(NULL, 0),
                               .partition = partition,
                               .from_count = count,
                               .to_count = count};
    memcpy(move->from, step->from, count * sizeof(step->from[0]));
    memcpy(move->to, step->to, count * sizeof(step->to[0]));
    move->bytes = shard_bytes_of(s, step->group) * plan_step_copies(step);
}

static void handle_move_list(struct shard *s, struct request *r, const struct frame *f)
{
    struct move_list_request q;
    const struct meta_move *move;
    enum ferry_err err = move_list_request_decode(f->body, &q);
    if (err != FERRY_OK) {
        shard_reply_error(s, r, err, "");
        return;
    }
    struct move_list_reply *reply = s->move_list;
    *reply = (struct move_list_reply){.total = (uint32_t)meta_move_count(s->meta),
                                      .done_since_apply = meta_moves_done(s->meta)};
    size_t at = meta_move_after(s->meta, q.after_group);
    for (; reply->count < MOVE_LIST_MAX && (move = meta_move_at(s->meta, at)) != NULL; at++) {
        struct move_list_item *item = &reply->items[reply->count++];
        fill_move(s, &move->step, &item->move);
        item->state = (uint32_t)move->state;
    }
    reply->more = meta_move_at(s->meta, at) != NULL;
    struct buf b;
    shard_begin_reply(r, &b, FERRY_OK);
    move_list_reply_encode(&b, reply);
    shard_send_reply(s, r, &b);
}

static void handle_plan(struct shard *s, struct request *r, const struct frame *f)
{
    struct cluster_plan_request q;
    struct plan plan;
    plan_init(&plan);
    enum ferry_err err = cluster_plan_request_decode(f->body, &q);
    if (err == FERRY_OK) {
        err = meta_plan(s->meta, &plan);
    }
    if (err != FERRY_OK) {
        plan_fini(&plan);
        shard_reply_error(s, r, err, "");
        return;
    }
    struct cluster_plan_reply *reply = s->plan_reply;
    *reply = (struct cluster_plan_reply){.plan_id = plan.id, .total = (uint32_t)plan.count};
    for (size_t i = 0; i < plan.count; i++) {
        struct plan_move move;
        fill_move(s, &plan.steps[i], &move);
        reply->total_bytes += move.bytes;
        if (i >= q.after && reply->count < MOVE_LIST_MAX) {
            reply->moves[reply->count++] = move;
        }
    }
    plan_fini(&plan);
    struct buf b;
    shard_begin_reply(r, &b, FERRY_OK);
    cluster_plan_reply_encode(&b, reply);
    shard_send_reply(s, r, &b);
}

/* ---- Orders ---- */

static void finish_apply(struct shard *s, struct request *r)
{
    struct cluster_apply_reply reply = {.moves = r->meta_ticket.moves};
    struct buf b;
    shard_begin_reply(r, &b, FERRY_OK);
    cluster_apply_reply_encode(&b, &reply);
    shard_send_reply(s, r, &b);
}

static void finish_abort(struct shard *s, struct request *r)
{
    struct cluster_abort_reply reply = {.dropped = r->meta_ticket.dropped,
                                        .reverting = r->meta_ticket.reverting};
    struct buf b;
    shard_begin_reply(r, &b, FERRY_OK);
    cluster_abort_reply_encode(&b, &reply);
    shard_send_reply(s, r, &b);
}

bool shard_finish_cluster(struct shard *s, struct request *r, enum ferry_err err)
{
    bool ours = r->command == COMMAND_NODE_CHANGE || r->command == COMMAND_CLUSTER_APPLY ||
                r->command == COMMAND_CLUSTER_ABORT;
    if (!ours) {
        return false;
    }
    if (err != FERRY_OK) {
        shard_settle_meta(s, r, err, "");
    } else if (r->command == COMMAND_CLUSTER_APPLY) {
        finish_apply(s, r);
    } else if (r->command == COMMAND_CLUSTER_ABORT) {
        finish_abort(s, r);
    } else {
        shard_reply_empty(s, r);
    }
    return true;
}

/* Logged: the ticket waits. Else it is answered now. */
static void settle(struct shard *s, struct request *r, enum ferry_err err, const char *detail)
{
    bool waits = r->meta_ticket.waits;
    shard_settle_meta(s, r, err, detail);
    if (err == FERRY_OK && !waits) {
        must(shard_finish_cluster(s, r, FERRY_OK));
    }
}

static bool change_of(uint32_t kind, enum meta_node_change_kind *change)
{
    switch (kind) {
    case NODE_CHANGE_DRAIN:
        *change = META_NODE_DRAIN;
        return true;
    case NODE_CHANGE_UNDRAIN:
        *change = META_NODE_UNDRAIN;
        return true;
    case NODE_CHANGE_REMOVE:
        *change = META_NODE_REMOVE;
        return true;
    case NODE_CHANGE_WEIGHT:
        *change = META_NODE_WEIGHT;
        return true;
    default:
        return false;
    }
}

static void handle_node_change(struct shard *s, struct request *r, const struct frame *f)
{
    struct node_change_request q;
    struct err_text e = {{0}};
    enum meta_node_change_kind change = META_NODE_DRAIN;
    enum ferry_err err = node_change_request_decode(f->body, &q);
    if (err == FERRY_OK && !change_of(q.kind, &change)) {
        err = FERRY_ERR_INVALID_ARGUMENT;
    }
    if (err == FERRY_OK) {
        err = meta_node_change(s->meta, q.node_id, change, q.weight, s->now_ms, s->now_us,
                               &r->meta_ticket, &e);
    }
    settle(s, r, err, e.text);
}

static void handle_apply(struct shard *s, struct request *r, const struct frame *f)
{
    struct cluster_apply_request q;
    enum ferry_err err = cluster_apply_request_decode(f->body, &q);
    if (err == FERRY_OK) {
        err = meta_apply_plan(s->meta, q.plan_id, s->now_ms, s->now_us, &r->meta_ticket);
    }
    settle(s, r, err, "");
}

static void handle_abort(struct shard *s, struct request *r, const struct frame *f)
{
    enum ferry_err err = empty_decode(f->body);
    if (err == FERRY_OK) {
        err = meta_abort_moves(s->meta, s->now_ms, s->now_us, &r->meta_ticket);
    }
    settle(s, r, err, "");
}

request_handler *shard_find_cluster_handler(uint16_t command)
{
    switch (command) {
    case COMMAND_NODE_LIST:
        return handle_node_list;
    case COMMAND_MOVE_LIST:
        return handle_move_list;
    case COMMAND_CLUSTER_PLAN:
        return handle_plan;
    case COMMAND_NODE_CHANGE:
        return handle_node_change;
    case COMMAND_CLUSTER_APPLY:
        return handle_apply;
    case COMMAND_CLUSTER_ABORT:
        return handle_abort;
    default:
        return NULL;
    }
}
