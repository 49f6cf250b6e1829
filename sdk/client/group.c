#include "client/group.h"

#include <stdio.h>

#include "base/clock.h"
#include "base/mem.h"
#include "client/metadata.h"

/* ---- Made and freed. */

enum ferry_err group_new(struct ferry_client *c, const struct ferry_join_spec *spec,
                         struct group **group)
{
    const struct ferry_join_spec none = {0};
    spec = spec != NULL ? spec : &none;
    if (spec->member != NULL && !name_is_valid(bytes_of_string(spec->member))) {
        return FERRY_ERR_BAD_NAME;
    }
    bool usual = spec->session_ms == 0;
    if (!usual && (spec->session_ms < (int)MEMBER_SESSION_MIN_MS ||
                   spec->session_ms > (int)MEMBER_SESSION_MAX_MS)) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    struct group *g = mem_zalloc(1, sizeof(*g));
    if (g == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    list_init(&g->events);
    g->session_ms = usual ? MEMBER_SESSION_DEFAULT_MS : (uint32_t)spec->session_ms;
    if (spec->member != NULL) {
        (void)snprintf(g->name, sizeof(g->name), "%s", spec->member);
    } else {
        member_make_name(c, g->name, sizeof(g->name));
    }
    *group = g;
    return FERRY_OK;
}

void group_free(struct group *g)
{
    if (g != NULL) {
        mem_free(g->shares);
        mem_free(g);
    }
}

/* ---- Shares. With the lock. */

bool group_reads(const struct group *g, int32_t partition)
{
    enum share_state state = g->shares[partition].state;
    return !g->paused && (state == SHARE_GIVEN || state == SHARE_HELD);
}

bool group_has(const struct group *g, int32_t partition)
{
    enum share_state state = g->shares[partition].state;
    return state == SHARE_HELD || state == SHARE_GOING;
}

bool group_commit_begin(struct group *g, int32_t partition, uint64_t *epoch)
{
    struct share *share = &g->shares[partition];
    if (!group_has(g, partition) || g->consumer->failed == FERRY_ERR_MEMBER_FENCED) {
        return false;
    }
    share->commits++;
    *epoch = share->epoch;
    return true;
}

/* Nothing of it is out any more: the next heartbeat does not name it. */
static void let_go_when_done(struct group *g, struct share *share)
{
    if (share->state == SHARE_GONE && share->commits == 0) {
        share->state = SHARE_NONE;
        g->hurry = true;
    }
}

void group_commit_end(struct group *g, int32_t partition, enum ferry_err err)
{
    struct share *share = &g->shares[partition];
    must(share->commits > 0);
    share->commits--;
    g->hurry = g->hurry || err == FERRY_ERR_MEMBER_FENCED;
    let_go_when_done(g, share);
}

static void push_event(struct group *g, struct share *share)
{
    list_push_back(&g->events, &share->event_node);
    pthread_cond_broadcast(&g->consumer->changed);
}

static int32_t partition_of(const struct group *g, const struct share *share)
{
    return (int32_t)(share - g->shares);
}

/* It is not ours any more, or not for long. What the application has not been told of needs no
 * telling. */
static void revoke(struct group *g, struct share *share)
{
    if (share->state == SHARE_GIVEN) {
        list_remove(&share->event_node);
        share->state = SHARE_NONE;
        g->hurry = true;
    } else {
        must(share->state == SHARE_HELD);
        share->state = SHARE_GOING;
        push_event(g, share);
    }
    consumer_stop_reading(g->consumer, partition_of(g, share));
}

static void revoke_all(struct group *g)
{
    for (int32_t i = 0; i < g->consumer->partition_count; i++) {
        if (g->shares[i].state == SHARE_HELD || g->shares[i].state == SHARE_GIVEN) {
            revoke(g, &g->shares[i]);
        }
    }
}

/* ---- Telling the application. */

/* With the lock: the next event; NULL: none. */
static struct share *next_event(struct group *g, bool *given)
{
    struct list *node = list_pop_front(&g->events);
    if (node == NULL) {
        return NULL;
    }
    struct share *share = list_entry(node, struct share, event_node);
    *given = share->state == SHARE_GIVEN;
    must(*given || share->state == SHARE_GOING);
    if (*given) {
        share->state = SHARE_HELD;
    }
    return share;
}

/* With the lock, which is let go of meanwhile. */
static void tell_one(struct group *g, struct share *share, bool given)
{
    struct ferry_client *c = g->consumer->client;
    ferry_assignment_cb *callback = g->callback;
    void *arg = g->arg;
    pthread_mutex_unlock(&c->lock);
    if (callback != NULL) {
        callback(g->consumer, partition_of(g, share), given, arg);
    }
    pthread_mutex_lock(&c->lock);
    if (!given) {
        must(share->state == SHARE_GOING);
        share->state = SHARE_GONE;
        let_go_when_done(g, share);
    }
}

bool group_tell(struct group *g)
{
    struct ferry_consumer *s = g->consumer;
    struct ferry_client *c = s->client;
    struct share *share;
    bool given, any = false;
    pthread_mutex_lock(&c->lock);
    while ((share = next_event(g, &given)) != NULL) {
        any = true;
        tell_one(g, share, given);
    }
    bool wake = any && client_add_work(c, &c->work_consumers, &s->work_node);
    pthread_mutex_unlock(&c->lock);
    client_wake(c, wake);
    return any;
}

void group_tell_all_gone(struct group *g)
{
    struct ferry_client *c = g->consumer->client;
    pthread_mutex_lock(&c->lock);
    revoke_all(g);
    pthread_mutex_unlock(&c->lock);
    (void)group_tell(g);
}

/* ---- Claiming. The io thread. */

static void encode_claim(struct buf *b, const struct call *call, uint64_t group)
{
    struct subscription_claim_request request =
        *(const struct subscription_claim_request *)call->request;
    request.group = group;
    subscription_claim_request_encode(b, &request);
}

static void on_claimed(struct ferry_client *c, struct call *call)
{
    struct share *share = call->arg;
    struct group *g = share->group;
    struct subscription_claim_reply reply = {.position = -1};
    enum ferry_err err = call->err;
    if (err == FERRY_OK && (subscription_claim_reply_decode(call->frame.body, &reply) != FERRY_OK ||
                            reply.position < 0)) {
        c->bad_replies++;
        err = FERRY_ERR_BAD_FRAME;
    }
    call_fini(call);
    pthread_mutex_lock(&c->lock);
    must(share->state == SHARE_CLAIMING);
    if (err == FERRY_OK) {
        share->state = SHARE_GIVEN;
        consumer_start_reading(g->consumer, partition_of(g, share), reply.position);
        push_event(g, share);
    } else {
        share->state = SHARE_NONE; /* The next answer tells whether it is ours. */
    }
    pthread_mutex_unlock(&c->lock);
    if (err == FERRY_ERR_MEMBER_FENCED) {
        member_hurry(&g->member);
    }
    consumer_pump(g->consumer);
}

static void claim(struct group *g, struct share *share, uint64_t epoch)
{
    struct ferry_consumer *s = g->consumer;
    pthread_mutex_lock(&s->client->lock);
    share->state = SHARE_CLAIMING;
    share->epoch = epoch;
    pthread_mutex_unlock(&s->client->lock);
    share->request = (struct subscription_claim_request){.name = bytes_of_string(s->subscription),
                                                         .member = bytes_of_string(g->name),
                                                         .epoch = epoch};
    call_init(&share->claim, COMMAND_SUBSCRIPTION_CLAIM, ROUTE_PARTITION, encode_claim,
              &share->request, (int)g->session_ms);
    call_to_partition(&share->claim, s->topic, partition_of(g, share));
    share->claim.done = on_claimed;
    share->claim.arg = share;
    call_start(s->client, &share->claim);
}

static void drop_claim(struct group *g, struct share *share)
{
    struct ferry_client *c = g->consumer->client;
    call_cancel(c, &share->claim);
    pthread_mutex_lock(&c->lock);
    share->state = SHARE_NONE;
    pthread_mutex_unlock(&c->lock);
}

static void drop_claims(struct group *g)
{
    for (int32_t i = 0; i < g->consumer->partition_count; i++) {
        if (g->shares[i].state == SHARE_CLAIMING) {
            drop_claim(g, &g->shares[i]);
        }
    }
}

/* ---- Answers to heartbeats. The io thread. */

static void fill(struct member *m, struct member_heartbeat_request *request)
{
    struct group *g = list_entry(m, struct group, member);
    struct ferry_consumer *s = g->consumer;
    pthread_mutex_lock(&s->client->lock);
    for (int32_t i = 0; i < s->partition_count; i++) {
        const struct share *share = &g->shares[i];
        if (share->state >= SHARE_GIVEN) {
            request->held[request->held_count++] =
                (struct assigned_partition){.partition = (uint32_t)i, .epoch = share->epoch};
        }
    }
    g->hurry = false;
    pthread_mutex_unlock(&s->client->lock);
}

/* `epoch` 0: the partition is not ours. */
static void assign(struct group *g, struct share *share, uint64_t epoch)
{
    struct ferry_client *c = g->consumer->client;
    bool same = share->epoch == epoch;
    if (share->state == SHARE_CLAIMING && !same) {
        drop_claim(g, share);
    }
    pthread_mutex_lock(&c->lock);
    if ((share->state == SHARE_GIVEN || share->state == SHARE_HELD) && !same) {
        revoke(g, share);
    }
    bool wanted = share->state == SHARE_NONE && epoch != 0;
    pthread_mutex_unlock(&c->lock);
    if (wanted) {
        claim(g, share, epoch);
    }
}

static void assign_all(struct group *g, const struct member_heartbeat_reply *reply)
{
    struct ferry_consumer *s = g->consumer;
    uint64_t epochs[PARTITIONS_MAX] = {0};
    for (uint32_t i = 0; reply != NULL && i < reply->count; i++) {
        epochs[reply->assigned[i].partition] = reply->assigned[i].epoch;
    }
    for (int32_t i = 0; i < s->partition_count; i++) {
        assign(g, &g->shares[i], epochs[i]);
    }
}

static bool is_for_good(enum ferry_err err)
{
    return err == FERRY_ERR_MEMBER_FENCED || err == FERRY_ERR_UNKNOWN_COMMAND ||
           err == FERRY_ERR_SUBSCRIPTION_EXISTS || err == FERRY_ERR_UNKNOWN_TOPIC;
}

/* All goes in one step with the error, so that whoever is told of it was told of the partitions. */
static void end_for_good(struct group *g, enum ferry_err err)
{
    struct ferry_consumer *s = g->consumer;
    drop_claims(g);
    pthread_mutex_lock(&s->client->lock);
    revoke_all(g);
    s->failed = s->failed == FERRY_OK ? err : s->failed;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->client->lock);
}

static void on_answer(struct member *m, enum ferry_err err,
                      const struct member_heartbeat_reply *reply)
{
    struct group *g = list_entry(m, struct group, member);
    struct ferry_consumer *s = g->consumer;
    int64_t silent_us = clock_monotonic_us() - m->heard_us;
    if (err == FERRY_OK) {
        pthread_mutex_lock(&s->client->lock);
        g->paused = reply->paused;
        pthread_mutex_unlock(&s->client->lock);
        assign_all(g, reply);
    } else if (is_for_good(err)) {
        end_for_good(g, err);
    } else if (silent_us >= m->session_ms * INT64_C(1000)) {
        assign_all(g, NULL); /* Others may have them by now. */
    }
    consumer_pump(s);
}

/* ---- The activity. */

bool group_bind(struct group *g, struct ferry_consumer *s)
{
    g->shares = mem_zalloc((size_t)s->partition_count, sizeof(*g->shares));
    if (g->shares == NULL) {
        return false;
    }
    for (int32_t i = 0; i < s->partition_count; i++) {
        g->shares[i].group = g;
        list_init(&g->shares[i].event_node);
    }
    g->consumer = s;
    s->group = g;
    member_init(&g->member, s->client, s->topic);
    g->member.subscription = s->subscription;
    g->member.name = g->name;
    g->member.session_ms = g->session_ms;
    g->member.partitions = (uint32_t)s->partition_count;
    g->member.fill = fill;
    g->member.answer = on_answer;
    return true;
}

bool group_start(struct group *g)
{
    return member_start(&g->member);
}

void group_stop(struct group *g)
{
    member_stop(&g->member);
    drop_claims(g);
}

void group_pump(struct group *g)
{
    struct ferry_client *c = g->consumer->client;
    pthread_mutex_lock(&c->lock);
    bool hurry = g->hurry;
    pthread_mutex_unlock(&c->lock);
    if (hurry) {
        member_hurry(&g->member);
    }
}

/* ---- What ferry.h offers. */

bool ferry_consumer_has(const struct ferry_consumer *consumer, int32_t partition)
{
    const struct group *g = consumer->group;
    if (partition < 0 || partition >= consumer->partition_count) {
        return false;
    }
    pthread_mutex_lock(&consumer->client->lock);
    bool has = g == NULL || group_has(g, partition);
    pthread_mutex_unlock(&consumer->client->lock);
    return has;
}

void ferry_consumer_on_assignment(struct ferry_consumer *consumer, ferry_assignment_cb *callback,
                                  void *arg)
{
    struct group *g = consumer->group;
    if (g != NULL) {
        pthread_mutex_lock(&consumer->client->lock);
        g->callback = callback;
        g->arg = arg;
        pthread_mutex_unlock(&consumer->client->lock);
    }
}
