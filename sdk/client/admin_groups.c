/* admin_groups: what every shard of the cluster has, asked of all at the same time. */
#include "base/clock.h"
#include "base/mem.h"
#include "client/admin_text.h"
#include "client/call.h"

/* The questions: at most one to each shard at a time, for its next page. */
struct survey {
    struct ferry_client *client;
    const struct ferry_nodes *nodes;
    struct ferry_groups *groups;
    int64_t deadline_us;
    struct call *calls; /* By shard, as all below. */
    struct group_list_request *requests;
    bool *begun; /* The call is on its way, or finished and not taken. */
    size_t *capacities;
};

static void encode_group_list(struct buf *b, const struct call *call, uint64_t group)
{
    (void)group;
    group_list_request_encode(b, call->request);
}

static void fill_group(struct ferry_group *g, const struct group_list_item *item)
{
    *g = (struct ferry_group){.group = item->group,
                              .partition = (int32_t)item->partition,
                              .state = (enum ferry_group_state)item->state,
                              .term = item->term,
                              .commit = item->commit,
                              .applied = item->applied,
                              .last = item->last,
                              .leader_node = item->leader_node,
                              .start_offset = item->start_offset,
                              .end_offset = item->end_offset,
                              .size_bytes = item->size_bytes,
                              .quiet = item->quiet,
                              .copied_bytes = item->copied_bytes,
                              .copy_total_bytes = item->copy_total_bytes,
                              .member_count = item->member_count};
    admin_copy_text(g->topic, sizeof(g->topic), item->topic);
    for (uint32_t i = 0; i < item->member_count; i++) {
        const struct group_member *m = &item->members[i];
        g->members[i] = (struct ferry_group_member){.node_id = m->node_id,
                                                    .member = m->member,
                                                    .kind = (enum ferry_member_kind)m->kind,
                                                    .match = m->match,
                                                    .silent_ms = m->silent_ms,
                                                    .snapshotting = m->snapshotting};
    }
}

static enum ferry_err take_page(struct ferry_shard_groups *shard, size_t *capacity,
                                struct bytes body, bool *more)
{
    struct group_list_reply *page = mem_alloc(sizeof(*page));
    if (page == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    enum ferry_err err = group_list_reply_decode(body, page);
    if (err == FERRY_OK && !mem_grow((void **)&shard->groups, capacity,
                                     shard->count + page->count + 1, sizeof(*shard->groups))) {
        err = FERRY_ERR_NO_MEMORY;
    }
    for (uint32_t i = 0; err == FERRY_OK && i < page->count; i++) {
        fill_group(&shard->groups[shard->count++], &page->items[i]);
    }
    *more = err == FERRY_OK && page->more && page->count > 0;
    mem_free(page);
    return err;
}

static void ask(struct survey *v, size_t i)
{
    const struct ferry_shard_groups *shard = &v->groups->shards[i];
    int64_t left_us = v->deadline_us - clock_monotonic_us();
    v->requests[i] = (struct group_list_request){
        .after = shard->count > 0 ? shard->groups[shard->count - 1].group : 0,
        .include_metadata = shard->count == 0};
    call_init(&v->calls[i], COMMAND_GROUP_LIST, ROUTE_ENDPOINT, encode_group_list, &v->requests[i],
              left_us > 0 ? (int)((left_us + 999) / 1000) : 0);
    v->calls[i].endpoint = v->nodes->shards[i].endpoint;
    v->begun[i] = true;
    call_begin(v->client, &v->calls[i], 1);
}

/* Takes the answer; true when another page follows. */
static bool take(struct survey *v, size_t i)
{
    struct ferry_shard_groups *shard = &v->groups->shards[i];
    bool more = false;
    v->begun[i] = false;
    shard->err = v->calls[i].err;
    if (shard->err == FERRY_OK) {
        shard->err = take_page(shard, &v->capacities[i], v->calls[i].frame.body, &more);
    }
    call_fini(&v->calls[i]);
    return more;
}

static void run(struct survey *v)
{
    size_t count = v->groups->count;
    for (size_t i = 0; i < count; i++) {
        ask(v, i);
    }
    while (call_wait_any(v->client, v->calls, v->begun, count)) { /* The deadline ends each. */
        for (size_t i = 0; i < count; i++) {
            bool finished = v->begun[i] && call_all_finished(v->client, &v->calls[i], 1);
            if (finished && take(v, i)) {
                ask(v, i);
            }
        }
    }
}

static bool survey_init(struct survey *v)
{
    size_t count = v->nodes->shard_count;
    v->groups = mem_zalloc(1, sizeof(*v->groups));
    v->calls = mem_zalloc(count + 1, sizeof(*v->calls));
    v->requests = mem_zalloc(count + 1, sizeof(*v->requests));
    v->begun = mem_zalloc(count + 1, sizeof(*v->begun));
    v->capacities = mem_zalloc(count + 1, sizeof(*v->capacities));
    if (v->groups == NULL || v->calls == NULL || v->requests == NULL || v->begun == NULL ||
        v->capacities == NULL) {
        return false;
    }
    v->groups->shards = mem_zalloc(count + 1, sizeof(*v->groups->shards));
    if (v->groups->shards == NULL) {
        return false;
    }
    v->groups->count = count;
    for (size_t i = 0; i < count; i++) {
        v->groups->shards[i].node_id = v->nodes->shards[i].node_id;
        v->groups->shards[i].shard = v->nodes->shards[i].shard;
    }
    return true;
}

static void survey_fini(struct survey *v)
{
    mem_free(v->calls);
    mem_free(v->requests);
    mem_free(v->begun);
    mem_free(v->capacities);
}

enum ferry_err ferry_groups_list(struct ferry_client *client, const struct ferry_nodes *nodes,
                                 int timeout_ms, struct ferry_groups **groups)
{
    struct survey v = {.client = client,
                       .nodes = nodes,
                       .deadline_us = clock_monotonic_us() + (int64_t)timeout_ms * 1000};
    if (!survey_init(&v)) {
        survey_fini(&v);
        ferry_groups_free(&v.groups);
        return FERRY_ERR_NO_MEMORY;
    }
    run(&v);
    survey_fini(&v);
    *groups = v.groups;
    return FERRY_OK;
}

void ferry_groups_free(struct ferry_groups **groups)
{
    if (*groups == NULL) {
        return;
    }
    for (size_t i = 0; (*groups)->shards != NULL && i < (*groups)->count; i++) {
        mem_free((*groups)->shards[i].groups);
    }
    mem_free((*groups)->shards);
    mem_free(*groups);
    *groups = NULL;
}
