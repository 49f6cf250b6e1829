/* admin_cluster: the calls of ferry.h about nodes, moves and placement. */
#include "base/clock.h"
#include "base/mem.h"
#include "client/admin_text.h"
#include "client/call.h"
#include "client/metadata.h"

_Static_assert(FERRY_REPLICAS_MAX == REPLICAS_MAX, "the public header says the same");
_Static_assert(FERRY_ENDPOINT_BYTES == ENDPOINT_MAX_BYTES + 1, "likewise");
_Static_assert(FERRY_ZONE_BYTES == ZONE_MAX_BYTES + 1, "likewise");

#define PAGES_MAX      10000 /* A broker that never says it was the last page is not believed. */
#define TOPICS_AT_ONCE 64u

static int left_ms(int64_t deadline_us)
{
    int64_t left_us = deadline_us - clock_monotonic_us();
    return left_us > 0 ? (int)((left_us + 999) / 1000) : 0;
}

static int64_t deadline_of(int timeout_ms)
{
    return clock_monotonic_us() + (int64_t)timeout_ms * 1000;
}

static void encode_empty(struct buf *b, const struct call *call, uint64_t group)
{
    (void)call;
    (void)group;
    empty_encode(b);
}

/* ---- Nodes. */

static void encode_metadata(struct buf *b, const struct call *call, uint64_t group)
{
    (void)group;
    metadata_request_encode(b, call->request);
}

static void fill_node(struct ferry_node *node, const struct node_list_item *item)
{
    *node = (struct ferry_node){.node_id = item->node_id,
                                .member = item->member,
                                .weight = item->weight,
                                .state = (enum ferry_node_state)item->state,
                                .draining = item->draining,
                                .metadata_role = (enum ferry_metadata_role)item->metadata_role,
                                .shards = item->shards,
                                .replicas = item->replicas,
                                .leaders = item->leaders,
                                .ring_permille = item->ring_permille,
                                .silent_ms = item->silent_ms};
    admin_copy_text(node->zone, sizeof(node->zone), item->zone);
    admin_copy_text(node->endpoint, sizeof(node->endpoint), item->endpoint);
}

static enum ferry_err fill_nodes(struct ferry_nodes *nodes, struct bytes body)
{
    struct node_list_reply *reply = mem_alloc(sizeof(*reply));
    if (reply == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    enum ferry_err err = node_list_reply_decode(body, reply);
    if (err == FERRY_OK) {
        nodes->nodes = mem_zalloc(reply->count + 1, sizeof(*nodes->nodes));
        err = nodes->nodes != NULL ? FERRY_OK : FERRY_ERR_NO_MEMORY;
    }
    if (err == FERRY_OK) {
        nodes->cluster_id = reply->cluster_id;
        nodes->leader_node = reply->leader_node;
        nodes->count = reply->count;
        for (uint32_t i = 0; i < reply->count; i++) {
            fill_node(&nodes->nodes[i], &reply->items[i]);
        }
    }
    mem_free(reply);
    return err;
}

static enum ferry_err fill_shards(struct ferry_nodes *nodes, struct bytes body)
{
    struct metadata_reply *reply = mem_alloc(sizeof(*reply));
    if (reply == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    enum ferry_err err = metadata_reply_decode(body, reply);
    if (err == FERRY_OK) {
        nodes->shards = mem_zalloc(reply->endpoint_count + 1, sizeof(*nodes->shards));
        err = nodes->shards != NULL ? FERRY_OK : FERRY_ERR_NO_MEMORY;
    }
    if (err == FERRY_OK) {
        nodes->shard_count = reply->endpoint_count;
        for (uint32_t i = 0; i < reply->endpoint_count; i++) {
            struct ferry_shard *shard = &nodes->shards[i];
            shard->node_id = reply->endpoints[i].node_id;
            shard->shard = reply->endpoints[i].shard;
            admin_copy_text(shard->endpoint, sizeof(shard->endpoint), reply->endpoints[i].endpoint);
        }
    }
    mem_free(reply);
    return err;
}

enum ferry_err ferry_nodes_list(struct ferry_client *client, int timeout_ms,
                                struct ferry_nodes **nodes)
{
    struct metadata_request all = {.topic = bytes_of(NULL, 0)};
    struct call calls[2];
    struct ferry_nodes *made = mem_zalloc(1, sizeof(*made));
    if (made == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    call_init(&calls[0], COMMAND_NODE_LIST, ROUTE_CONTROLLER, encode_empty, NULL, timeout_ms);
    call_init(&calls[1], COMMAND_METADATA, ROUTE_ANY, encode_metadata, &all, timeout_ms);
    call_run(client, calls, 2);
    enum ferry_err err = calls[0].err != FERRY_OK ? calls[0].err : calls[1].err;
    if (err == FERRY_OK) {
        err = fill_nodes(made, calls[0].frame.body);
    }
    if (err == FERRY_OK) {
        err = fill_shards(made, calls[1].frame.body);
    }
    call_fini(&calls[0]);
    call_fini(&calls[1]);
    if (err != FERRY_OK) {
        ferry_nodes_free(&made);
        return err;
    }
    *nodes = made;
    return FERRY_OK;
}

void ferry_nodes_free(struct ferry_nodes **nodes)
{
    if (*nodes != NULL) {
        mem_free((*nodes)->nodes);
        mem_free((*nodes)->shards);
        mem_free(*nodes);
        *nodes = NULL;
    }
}

static void encode_change(struct buf *b, const struct call *call, uint64_t group)
{
    (void)group;
    node_change_request_encode(b, call->request);
}

enum ferry_err ferry_node_change(struct ferry_client *client, uint32_t node_id,
                                 enum ferry_node_change change, uint32_t weight, int timeout_ms)
{
    struct call call;
    struct node_change_request request = {
        .node_id = node_id, .kind = (uint32_t)change, .weight = weight};
    if (node_id == 0 || node_id > NODE_ID_MAX) {
        return FERRY_ERR_UNKNOWN_NODE;
    }
    call_init(&call, COMMAND_NODE_CHANGE, ROUTE_CONTROLLER, encode_change, &request, timeout_ms);
    enum ferry_err err = call_run_one(client, &call);
    if (err == FERRY_ERR_UNKNOWN_NODE && change == FERRY_NODE_REMOVE && call.doubtful) {
        err = FERRY_OK; /* Our own first try removed it. */
    }
    call_fini(&call);
    return err;
}

/* ---- Moves. */

static enum ferry_err add_move(struct ferry_moves *moves, size_t *capacity,
                               const struct plan_move *m, enum ferry_move_state state)
{
    if (!mem_grow((void **)&moves->moves, capacity, moves->count + 1, sizeof(*moves->moves))) {
        return FERRY_ERR_NO_MEMORY;
    }
    struct ferry_move *move = &moves->moves[moves->count++];
    *move = (struct ferry_move){.group = m->group,
                                .partition = (int32_t)m->partition,
                                .from_count = m->from_count,
                                .to_count = m->to_count,
                                .bytes = m->bytes,
                                .state = state};
    admin_copy_text(move->topic, sizeof(move->topic), m->topic);
    memcpy(move->from, m->from, sizeof(move->from));
    memcpy(move->to, m->to, sizeof(move->to));
    return FERRY_OK;
}

void ferry_moves_free(struct ferry_moves **moves)
{
    if (*moves != NULL) {
        mem_free((*moves)->moves);
        mem_free(*moves);
        *moves = NULL;
    }
}

static void encode_plan(struct buf *b, const struct call *call, uint64_t group)
{
    (void)group;
    cluster_plan_request_encode(b, call->request);
}

/* A page of the plan. PLAN_CHANGED: it is another than that of the pages before. */
static enum ferry_err take_plan_page(struct ferry_moves *plan, size_t *capacity, struct bytes body,
                                     bool *more)
{
    struct cluster_plan_reply *page = mem_alloc(sizeof(*page));
    if (page == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    enum ferry_err err = cluster_plan_reply_decode(body, page);
    if (err == FERRY_OK && plan->count > 0 && page->plan_id != plan->plan_id) {
        err = FERRY_ERR_PLAN_CHANGED;
    }
    for (uint32_t i = 0; err == FERRY_OK && i < page->count; i++) {
        err = add_move(plan, capacity, &page->moves[i], FERRY_MOVE_PROPOSED);
    }
    if (err == FERRY_OK) {
        plan->plan_id = page->plan_id;
        plan->total_bytes = page->total_bytes;
        *more = plan->count < page->total && page->count > 0;
    }
    mem_free(page);
    return err;
}

static enum ferry_err ask_plan(struct ferry_client *client, int64_t deadline_us,
                               struct ferry_moves *plan)
{
    bool more = true;
    size_t capacity = 0;
    enum ferry_err err = FERRY_OK;
    for (int page = 0; err == FERRY_OK && more && page < PAGES_MAX; page++) {
        struct call call;
        struct cluster_plan_request request = {.after = (uint32_t)plan->count};
        call_init(&call, COMMAND_CLUSTER_PLAN, ROUTE_CONTROLLER, encode_plan, &request,
                  left_ms(deadline_us));
        err = call_run_one(client, &call);
        if (err == FERRY_OK) {
            err = take_plan_page(plan, &capacity, call.frame.body, &more);
        }
        call_fini(&call);
    }
    return err;
}

enum ferry_err ferry_cluster_plan(struct ferry_client *client, int timeout_ms,
                                  struct ferry_moves **plan)
{
    int64_t deadline_us = deadline_of(timeout_ms);
    enum ferry_err err;
    struct ferry_moves *made = NULL;
    do { /* The cluster may change between two pages; the deadline ends it. */
        ferry_moves_free(&made);
        made = mem_zalloc(1, sizeof(*made));
        if (made == NULL) {
            return FERRY_ERR_NO_MEMORY;
        }
        err = ask_plan(client, deadline_us, made);
    } while (err == FERRY_ERR_PLAN_CHANGED && clock_monotonic_us() < deadline_us);
    if (err != FERRY_OK) {
        ferry_moves_free(&made);
        return err;
    }
    *plan = made;
    return FERRY_OK;
}

static void encode_apply(struct buf *b, const struct call *call, uint64_t group)
{
    (void)group;
    cluster_apply_request_encode(b, call->request);
}

/* An earlier try was carried out, and its answer was lost. */
static enum ferry_err count_running(struct ferry_client *client, int timeout_ms, uint32_t *moves)
{
    struct ferry_moves *running;
    enum ferry_err err = ferry_moves_list(client, timeout_ms, &running);
    if (err == FERRY_OK) {
        *moves = (uint32_t)(running->count + running->done);
        ferry_moves_free(&running);
    }
    return err;
}

enum ferry_err ferry_cluster_apply(struct ferry_client *client, uint64_t plan_id, int timeout_ms,
                                   uint32_t *moves)
{
    struct call call;
    struct cluster_apply_request request = {.plan_id = plan_id};
    struct cluster_apply_reply reply = {.moves = 0};
    int64_t deadline_us = deadline_of(timeout_ms);
    call_init(&call, COMMAND_CLUSTER_APPLY, ROUTE_CONTROLLER, encode_apply, &request, timeout_ms);
    enum ferry_err err = call_run_one(client, &call);
    if (err == FERRY_ERR_MOVES_RUNNING && call.doubtful) {
        err = count_running(client, left_ms(deadline_us), &reply.moves);
    } else if (err == FERRY_OK) {
        err = cluster_apply_reply_decode(call.frame.body, &reply);
    }
    call_fini(&call);
    if (err == FERRY_OK && moves != NULL) {
        *moves = reply.moves;
    }
    return err;
}

enum ferry_err ferry_cluster_abort(struct ferry_client *client, int timeout_ms, uint32_t *dropped,
                                   uint32_t *reverting)
{
    struct call call;
    struct cluster_abort_reply reply;
    call_init(&call, COMMAND_CLUSTER_ABORT, ROUTE_CONTROLLER, encode_empty, NULL, timeout_ms);
    enum ferry_err err = call_run_one(client, &call);
    if (err == FERRY_OK) {
        err = cluster_abort_reply_decode(call.frame.body, &reply);
    }
    call_fini(&call);
    if (err == FERRY_OK) {
        *dropped = reply.dropped;
        *reverting = reply.reverting;
    }
    return err;
}

static void encode_move_list(struct buf *b, const struct call *call, uint64_t group)
{
    (void)group;
    move_list_request_encode(b, call->request);
}

static enum ferry_err take_moves_page(struct ferry_moves *moves, size_t *capacity,
                                      struct bytes body, bool *more)
{
    struct move_list_reply *page = mem_alloc(sizeof(*page));
    if (page == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    enum ferry_err err = move_list_reply_decode(body, page);
    for (uint32_t i = 0; err == FERRY_OK && i < page->count; i++) {
        const struct plan_move *m = &page->items[i].move;
        moves->total_bytes += m->bytes;
        err = add_move(moves, capacity, m, (enum ferry_move_state)page->items[i].state);
    }
    if (err == FERRY_OK) {
        moves->done = page->done_since_apply;
        *more = page->more && page->count > 0;
    }
    mem_free(page);
    return err;
}

enum ferry_err ferry_moves_list(struct ferry_client *client, int timeout_ms,
                                struct ferry_moves **moves)
{
    int64_t deadline_us = deadline_of(timeout_ms);
    bool more = true;
    size_t capacity = 0;
    enum ferry_err err = FERRY_OK;
    struct ferry_moves *made = mem_zalloc(1, sizeof(*made));
    if (made == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    for (int page = 0; err == FERRY_OK && more && page < PAGES_MAX; page++) {
        struct call call;
        struct move_list_request request = {
            .after_group = made->count > 0 ? made->moves[made->count - 1].group : 0};
        call_init(&call, COMMAND_MOVE_LIST, ROUTE_CONTROLLER, encode_move_list, &request,
                  left_ms(deadline_us));
        err = call_run_one(client, &call);
        if (err == FERRY_OK) {
            err = take_moves_page(made, &capacity, call.frame.body, &more);
        }
        call_fini(&call);
    }
    if (err != FERRY_OK) {
        ferry_moves_free(&made);
        return err;
    }
    *moves = made;
    return FERRY_OK;
}

/* ---- Placement. */

struct placing {
    struct ferry_placements *made;
    size_t capacity;
};

static enum ferry_err add_topic(struct placing *p, const char *topic, struct bytes body)
{
    struct metadata_reply *m = mem_alloc(sizeof(*m));
    if (m == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    enum ferry_err err = metadata_reply_decode(body, m);
    struct ferry_placements *made = p->made;
    if (err == FERRY_OK && !mem_grow((void **)&made->placements, &p->capacity,
                                     made->count + m->partition_count, sizeof(*made->placements))) {
        err = FERRY_ERR_NO_MEMORY;
    }
    for (uint32_t i = 0; err == FERRY_OK && i < m->partition_count; i++) {
        struct ferry_placement *placement = &made->placements[made->count++];
        const struct metadata_partition *partition = &m->partitions[i];
        *placement =
            (struct ferry_placement){.partition = (int32_t)i,
                                     .group = partition->group,
                                     .leader_node = m->endpoints[partition->endpoint].node_id,
                                     .replica_count = partition->replica_count,
                                     .wanted_replicas = m->replicas};
        memcpy(placement->replicas, partition->replicas, sizeof(placement->replicas));
        admin_copy_text(placement->topic, sizeof(placement->topic), bytes_of_string(topic));
    }
    mem_free(m);
    return err;
}

/* One batch of topics, asked at the same time. One that was deleted meanwhile is left out. */
static enum ferry_err ask_topics(struct ferry_client *client, struct placing *p, char *const *names,
                                 size_t count, bool must_exist, int64_t deadline_us)
{
    struct call calls[TOPICS_AT_ONCE];
    struct metadata_request requests[TOPICS_AT_ONCE];
    enum ferry_err err = FERRY_OK;
    must(count <= TOPICS_AT_ONCE);
    for (size_t i = 0; i < count; i++) {
        requests[i].topic = bytes_of_string(names[i]);
        call_init(&calls[i], COMMAND_METADATA, ROUTE_ANY, encode_metadata, &requests[i],
                  left_ms(deadline_us));
    }
    call_run(client, calls, count);
    for (size_t i = 0; i < count; i++) {
        bool gone = calls[i].err == FERRY_ERR_UNKNOWN_TOPIC && !must_exist;
        if (err == FERRY_OK && !gone) {
            err = calls[i].err != FERRY_OK ? calls[i].err
                                           : add_topic(p, names[i], calls[i].frame.body);
        }
        call_fini(&calls[i]);
    }
    return err;
}

static enum ferry_err ask_all_topics(struct ferry_client *client, struct placing *p,
                                     int64_t deadline_us)
{
    char **names;
    size_t count;
    enum ferry_err err = ferry_topic_list(client, left_ms(deadline_us), &names, &count);
    if (err != FERRY_OK) {
        return err;
    }
    for (size_t at = 0; err == FERRY_OK && at < count; at += TOPICS_AT_ONCE) {
        size_t batch = count - at < TOPICS_AT_ONCE ? count - at : TOPICS_AT_ONCE;
        err = ask_topics(client, p, names + at, batch, false, deadline_us);
    }
    ferry_names_free(&names);
    return err;
}

enum ferry_err ferry_placements_list(struct ferry_client *client, const char *topic, int timeout_ms,
                                     struct ferry_placements **placements)
{
    int64_t deadline_us = deadline_of(timeout_ms);
    char name[NAME_MAX_BYTES + 1];
    char *const names[] = {name};
    if (topic != NULL && !name_is_valid(bytes_of_string(topic))) {
        return FERRY_ERR_BAD_NAME;
    }
    struct placing p = {.made = mem_zalloc(1, sizeof(*p.made))};
    if (p.made == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    enum ferry_err err;
    if (topic != NULL) {
        memcpy(name, topic, strlen(topic) + 1);
        err = ask_topics(client, &p, names, 1, true, deadline_us);
    } else {
        err = ask_all_topics(client, &p, deadline_us);
    }
    if (err != FERRY_OK) {
        ferry_placements_free(&p.made);
        return err;
    }
    *placements = p.made;
    return FERRY_OK;
}

void ferry_placements_free(struct ferry_placements **placements)
{
    if (*placements != NULL) {
        mem_free((*placements)->placements);
        mem_free(*placements);
        *placements = NULL;
    }
}

/* ---- Transfer. */

/* Catching up and an election: the broker may rightly take so long. */
#define TRANSFER_PATIENCE_MS 5000

static void encode_transfer(struct buf *b, const struct call *call, uint64_t group)
{
    struct partition_transfer_request request = {.group = group,
                                                 .to_node = *(const uint32_t *)call->request};
    partition_transfer_request_encode(b, &request);
}

enum ferry_err ferry_partition_transfer(struct ferry_client *client, const char *topic,
                                        int32_t partition, uint32_t node_id, int timeout_ms)
{
    struct call call;
    struct topic *t;
    pthread_mutex_lock(&client->lock);
    enum ferry_err err = topic_get(client, topic, &t);
    pthread_mutex_unlock(&client->lock);
    if (err != FERRY_OK) {
        return err;
    }
    call_init(&call, COMMAND_PARTITION_TRANSFER, ROUTE_PARTITION, encode_transfer, &node_id,
              timeout_ms);
    call_to_partition(&call, t, partition);
    call.patience_ms = TRANSFER_PATIENCE_MS;
    err = call_run_one(client, &call);
    call_fini(&call);
    return err;
}
