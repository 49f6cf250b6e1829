#include "client/call.h"

#include <stdio.h>

#include "base/clock.h"
#include "client/admin_text.h"
#include "client/metadata.h"

#define MISPLACED_MAX 20u /* As of streams: metadata may be behind for some moments. */

static void on_reply(struct request *r, const struct reply *reply);
static void on_timer(struct timer *timer);
static void attempt(struct call *call);

void call_init(struct call *call, enum command command, enum call_route route, call_encode *encode,
               const void *request, int timeout_ms)
{
    int64_t wait_us = timeout_ms < 0 ? INT64_MAX / 2 : (int64_t)timeout_ms * 1000;
    *call = (struct call){.command = command,
                          .route = route,
                          .encode = encode,
                          .request = request,
                          .deadline_us = clock_monotonic_us() + wait_us,
                          .unreachable = true};
    net_message_init(&call->message);
    list_init(&call->node);
    list_init(&call->started_node);
    request_init(&call->wire, on_reply);
}

void call_to_partition(struct call *call, struct topic *topic, int32_t partition)
{
    call->topic = topic;
    call->partition = partition;
}

void call_fini(struct call *call)
{
    net_message_close(&call->message);
    request_fini(&call->wire);
}

void call_begin(struct ferry_client *c, struct call *calls, size_t count)
{
    bool wake = false;
    pthread_mutex_lock(&c->lock);
    for (size_t i = 0; i < count; i++) {
        if (c->closing) {
            calls[i].err = FERRY_ERR_CLOSED;
            calls[i].finished = true;
        } else {
            wake = client_add_work(c, &c->work_calls, &calls[i].node) || wake;
        }
    }
    pthread_mutex_unlock(&c->lock);
    client_wake(c, wake);
}

bool call_all_finished(struct ferry_client *c, const struct call *calls, size_t count)
{
    bool all = true;
    pthread_mutex_lock(&c->lock);
    for (size_t i = 0; i < count && all; i++) {
        all = calls[i].finished;
    }
    pthread_mutex_unlock(&c->lock);
    return all;
}

void call_wait(struct ferry_client *c, const struct call *calls, size_t count)
{
    pthread_mutex_lock(&c->lock);
    for (size_t i = 0; i < count; i++) {
        while (!calls[i].finished) {
            must(!c->stepped); /* Nobody would end the wait. */
            pthread_cond_wait(&c->task_changed, &c->lock);
        }
    }
    pthread_mutex_unlock(&c->lock);
}

/* With the lock. */
static bool any_finished(const struct call *calls, const bool *begun, size_t count, bool *any_begun)
{
    *any_begun = false;
    for (size_t i = 0; i < count; i++) {
        *any_begun = *any_begun || begun[i];
        if (begun[i] && calls[i].finished) {
            return true;
        }
    }
    return false;
}

bool call_wait_any(struct ferry_client *c, const struct call *calls, const bool *begun,
                   size_t count)
{
    bool any_begun;
    pthread_mutex_lock(&c->lock);
    while (!any_finished(calls, begun, count, &any_begun) && any_begun) {
        must(!c->stepped); /* Nobody would end the wait. */
        pthread_cond_wait(&c->task_changed, &c->lock);
    }
    pthread_mutex_unlock(&c->lock);
    return any_begun;
}

void call_run(struct ferry_client *c, struct call *calls, size_t count)
{
    call_begin(c, calls, count);
    call_wait(c, calls, count);
}

void call_keep_detail(struct ferry_client *c, const char *text)
{
    pthread_mutex_lock(&c->lock);
    (void)snprintf(c->last_detail.text, sizeof(c->last_detail.text), "%s", text);
    pthread_mutex_unlock(&c->lock);
}

enum ferry_err call_run_one(struct ferry_client *c, struct call *call)
{
    call_keep_detail(c, "");
    call_run(c, call, 1);
    if (call->err != FERRY_OK) {
        call_keep_detail(c, call->detail.text);
    }
    return call->err;
}

void ferry_error_detail(struct ferry_client *client, char *detail, size_t detail_bytes)
{
    pthread_mutex_lock(&client->lock);
    if (detail_bytes > 0) {
        admin_copy_text(detail, detail_bytes, bytes_of_string(client->last_detail.text));
    }
    pthread_mutex_unlock(&client->lock);
}

/* Answered by any broker, though asked of the controller first, which knows most. */
static bool anybody_answers(enum command command)
{
    return command == COMMAND_TOPIC_LIST || command == COMMAND_NODE_LIST ||
           command == COMMAND_MOVE_LIST;
}

void calls_fail(struct ferry_client *c)
{
    struct list *node;
    while ((node = list_pop_front(&c->calls)) != NULL) {
        call_finish(list_entry(node, struct call, started_node), FERRY_ERR_CLOSED, "");
    }
}

void call_cancel(struct ferry_client *c, struct call *call)
{
    pthread_mutex_lock(&c->lock);
    bool finished = call->finished;
    if (!finished && call->client == NULL) {
        list_remove(&call->node); /* Not started yet. */
    }
    pthread_mutex_unlock(&c->lock);
    if (!finished && call->client != NULL) {
        timer_drop(&c->timers, &call->timer);
        list_remove(&call->node);
        list_remove(&call->started_node);
    }
    call_fini(call);
}

void call_finish(struct call *call, enum ferry_err err, const char *detail)
{
    struct ferry_client *c = call->client;
    timer_drop(&c->timers, &call->timer);
    request_cancel(&call->wire);
    list_remove(&call->node);
    list_remove(&call->started_node);
    call->err = err;
    if (detail[0] != '\0') {
        (void)err_set(&call->detail, err, "%s", detail);
    }
    if (call->done != NULL) {
        call->done(c, call);
        return;
    }
    pthread_mutex_lock(&c->lock);
    call->finished = true;
    pthread_cond_broadcast(&c->task_changed);
    pthread_mutex_unlock(&c->lock);
}

void call_start(struct ferry_client *c, struct call *call)
{
    call->client = c;
    list_push_back(&c->calls, &call->started_node);
    if (!timer_add(&c->timers, &call->timer, on_timer)) {
        call_finish(call, FERRY_ERR_NO_MEMORY, "");
        return;
    }
    attempt(call);
}

static void out_of_time(struct call *call)
{
    if (call->unreachable) {
        char detail[ERR_TEXT_MAX];
        (void)snprintf(detail, sizeof(detail),
                       "%.300s: no broker answered in time: is ferryd running there?",
                       call->client->options.servers);
        call_finish(call, FERRY_ERR_UNREACHABLE, detail);
    } else {
        call_finish(call, FERRY_ERR_TIMEOUT, "no answer in time");
    }
}

static void try_later(struct call *call, int64_t pause_us)
{
    int64_t now_us = clock_monotonic_us();
    if (now_us >= call->deadline_us) {
        out_of_time(call);
        return;
    }
    int64_t due_us = now_us + pause_us;
    timer_set(&call->client->timers, &call->timer,
              due_us < call->deadline_us ? due_us : call->deadline_us);
}

static void await_metadata(struct call *call)
{
    list_remove(&call->node);
    list_push_back(&call->topic->calls, &call->node);
    timer_set(&call->client->timers, &call->timer, call->deadline_us);
    metadata_want(call->topic);
}

/* The leader's; NULL when the call waits or has ended. */
static struct connection *find_leader(struct call *call, uint64_t *group)
{
    if (!call->topic->known) {
        await_metadata(call);
        return NULL;
    }
    if (call->partition < 0 || call->partition >= call->topic->partition_count) {
        call_finish(call, FERRY_ERR_UNKNOWN_PARTITION, "the topic has no such partition");
        return NULL;
    }
    struct partition *p = call->topic->partitions[call->partition];
    if (p->leader == NULL) {
        await_metadata(call);
        return NULL;
    }
    if (p->leader->suspect) {
        metadata_want(call->topic);
    }
    *group = p->group;
    return p->leader;
}

static struct connection *find_endpoint(struct call *call)
{
    struct connection *k;
    struct err_text e = {.text = ""};
    enum ferry_err err = connection_get(call->client, bytes_of_string(call->endpoint), &k, &e);
    if (err != FERRY_OK) {
        call_finish(call, err, e.text);
        return NULL;
    }
    return k;
}

/* The connection to ask; NULL when the call waits or has ended. */
static struct connection *find_way(struct call *call, uint64_t *group)
{
    struct ferry_client *c = call->client;
    struct connection *k = call->hinted;
    *group = 0;
    call->hinted = NULL;
    if (call->route == ROUTE_PARTITION) {
        return find_leader(call, group);
    }
    if (call->route == ROUTE_ENDPOINT) {
        return find_endpoint(call);
    }
    if (k == NULL && call->route == ROUTE_CONTROLLER) {
        k = c->controller;
    }
    if (k == NULL || (k->suspect && route_has_other(c, k))) {
        k = route_any(c, call->attempts);
    }
    if (k == NULL) {
        try_later(call, route_pause_us(c, call->attempts + 1));
    }
    return k;
}

static void attempt(struct call *call)
{
    struct ferry_client *c = call->client;
    int64_t now_us = clock_monotonic_us();
    if (now_us >= call->deadline_us) {
        out_of_time(call);
        return;
    }
    uint64_t group;
    struct connection *k = find_way(call, &group);
    if (k == NULL) {
        return;
    }
    int64_t left_ms = (call->deadline_us - now_us + 999) / 1000;
    int64_t timeout_ms =
        left_ms < c->options.request_timeout_ms ? left_ms : c->options.request_timeout_ms;
    call->attempts++;
    call->asked = k;
    timer_stop(&c->timers, &call->timer);
    timeout_ms = timeout_ms > call->patience_ms ? timeout_ms : call->patience_ms + timeout_ms;
    timeout_ms = timeout_ms < left_ms ? timeout_ms : left_ms;
    if (request_begin(&call->wire, k, call->command, timeout_ms) != FERRY_OK) {
        try_later(call, client_backoff_us(c, call->attempts));
        return;
    }
    call->wire.patience_us = call->patience_ms * 1000;
    call->encode(&call->wire.frame, call, group);
    if (request_submit(&call->wire) != FERRY_OK) {
        call_finish(call, FERRY_ERR_NO_MEMORY, "");
    }
}

/* Keeps the answer: its frame points into the call's own message from now on. */
static enum ferry_err keep_message(struct call *call, const struct reply *reply)
{
    net_message_move(&call->message, reply->message);
    call->answered = true;
    return frame_parse(net_message_bytes(&call->message), &call->frame, &call->detail);
}

static void finish_answered(struct call *call, const struct reply *reply)
{
    char words[DETAIL_MAX_BYTES + 1];
    size_t size = reply->detail.size < DETAIL_MAX_BYTES ? reply->detail.size : DETAIL_MAX_BYTES;
    (void)snprintf(words, sizeof(words), "%.*s", (int)size,
                   size > 0 ? (const char *)reply->detail.data : "");
    enum ferry_err err = reply->err;
    enum ferry_err parsed = keep_message(call, reply);
    call_finish(call, err != FERRY_OK ? err : parsed, words);
}

static bool is_retried(const struct reply *reply)
{
    if (!reply->answered) {
        return reply->err != FERRY_ERR_CLOSED;
    }
    switch (reply->err) {
    case FERRY_ERR_CURSOR_CONFLICT: /* An answer that the caller must look at. */
    case FERRY_ERR_PLAN_CHANGED:
    case FERRY_ERR_VERSION_CONFLICT:
    case FERRY_ERR_LEASE_HELD:
        return false;
    default:
        return ferry_err_is_retriable(reply->err);
    }
}

/* What we know of the place may be old: replicas move, and a topic deleted and made again has other
 * groups. */
static bool is_misplaced(struct call *call, const struct reply *reply)
{
    bool unknown =
        reply->err == FERRY_ERR_UNKNOWN_TOPIC || reply->err == FERRY_ERR_UNKNOWN_PARTITION;
    return call->route == ROUTE_PARTITION && unknown && ++call->misplaced <= MISPLACED_MAX;
}

/* True when the hint leads to another broker, to be asked at once. */
static bool follow(struct call *call, const struct reply *reply)
{
    struct ferry_client *c = call->client;
    if (reply->err != FERRY_ERR_NOT_LEADER || call->hops >= ROUTE_HOPS_MAX ||
        call->route == ROUTE_ENDPOINT) {
        return false;
    }
    if (call->route == ROUTE_PARTITION) {
        return partition_follow(call->topic->partitions[call->partition], reply->detail);
    }
    struct connection *k = route_hint(c, reply->detail);
    if (k == NULL || k == call->asked) {
        return false;
    }
    call->hops++;
    call->hinted = k;
    return true;
}

/* The one that was asked does not lead, or not now. */
static void forget_way(struct call *call)
{
    if (call->route == ROUTE_PARTITION) {
        call->topic->partitions[call->partition]->leader = NULL; /* Asked for again. */
    } else if (call->route == ROUTE_CONTROLLER && call->client->controller == call->asked) {
        call->client->controller = NULL;
    }
}

static bool is_busy(enum ferry_err err)
{
    return err == FERRY_ERR_THROTTLED || err == FERRY_ERR_STORAGE_FULL ||
           err == FERRY_ERR_NO_MEMORY;
}

static void try_again(struct call *call, const struct reply *reply)
{
    struct ferry_client *c = call->client;
    call->doubtful = call->doubtful || (!reply->answered && reply->written);
    if (follow(call, reply)) {
        attempt(call);
        return;
    }
    bool busy = reply->answered && is_busy(reply->err);
    if (!busy) {
        forget_way(call);
    }
    if (!busy && (call->route == ROUTE_ANY || call->route == ROUTE_CONTROLLER)) {
        route_refresh(c);
    }
    call->hops = 0;
    int64_t pause_us =
        busy ? client_backoff_us(c, call->attempts) : route_pause_us(c, call->attempts);
    int64_t asked_us = (int64_t)reply->retry_after_ms * 1000;
    try_later(call, asked_us > pause_us ? asked_us : pause_us);
}

static void on_reply(struct request *r, const struct reply *reply)
{
    struct call *call = list_entry(r, struct call, wire);
    call->unreachable = call->unreachable && reply->err == FERRY_ERR_UNREACHABLE;
    if (is_retried(reply) || is_misplaced(call, reply)) {
        try_again(call, reply);
        return;
    }
    if (!reply->answered) {
        call_finish(call, reply->err, "");
        return;
    }
    if (call->route == ROUTE_CONTROLLER && !anybody_answers(call->command)) {
        call->client->controller = call->asked; /* It answered as nobody else would. */
    } else if (call->route == ROUTE_PARTITION) {
        call->topic->partitions[call->partition]->hops = 0;
    }
    finish_answered(call, reply);
}

/* ---- Tries that wait for the wrong one. */

static void withdraw(struct call *call)
{
    call->doubtful = call->doubtful || call->wire.written;
    request_cancel(&call->wire);
    attempt(call);
}

/* A call that is tried again may end and go: the walk begins anew after each. */
static struct call *find_stray(struct ferry_client *c, const struct topic *t)
{
    for (struct list *n = c->calls.next; n != &c->calls; n = n->next) {
        struct call *call = list_entry(n, struct call, started_node);
        const struct connection *k = call->wire.connection;
        if (call->route != ROUTE_PARTITION || call->topic != t || k == NULL ||
            call->partition >= t->partition_count) {
            continue;
        }
        const struct connection *leader = t->partitions[call->partition]->leader;
        if (leader != NULL && leader != k) {
            return call;
        }
        if (k->suspect) {
            metadata_want(call->topic);
        }
    }
    return NULL;
}

void calls_metadata_changed(struct topic *t)
{
    struct call *call;
    while ((call = find_stray(t->client, t)) != NULL) {
        withdraw(call); /* Is at its leader's now, or has ended. */
    }
}

static struct call *find_waiting_at(struct ferry_client *c, const struct connection *k)
{
    for (struct list *n = c->calls.next; n != &c->calls; n = n->next) {
        struct call *call = list_entry(n, struct call, started_node);
        bool movable = call->route == ROUTE_ANY || call->route == ROUTE_CONTROLLER;
        if (movable && call->wire.connection == k) {
            return call;
        }
    }
    return NULL;
}

void calls_suspect(struct ferry_client *c, const struct connection *k)
{
    struct call *call;
    size_t count = 0;
    for (struct list *n = c->calls.next; n != &c->calls; n = n->next) {
        call = list_entry(n, struct call, started_node);
        count++;
        if (call->route == ROUTE_PARTITION && call->wire.connection == k) {
            metadata_want(call->topic);
        }
    }
    for (; count > 0 && route_has_other(c, k); count--) {
        call = find_waiting_at(c, k);
        if (call == NULL) {
            return;
        }
        withdraw(call); /* Goes to another: `k` is a suspect. */
    }
}

static void on_timer(struct timer *timer)
{
    struct call *call = list_entry(timer, struct call, timer);
    if (!list_is_empty(&call->node) && clock_monotonic_us() < call->deadline_us) {
        return; /* Awaits metadata. */
    }
    attempt(call);
}

void call_resume(struct call *call)
{
    list_remove(&call->node);
    enum ferry_err err = call->topic->err;
    if (err != FERRY_OK && !ferry_err_is_retriable(err)) {
        call_finish(call, err, "");
        return;
    }
    if (err == FERRY_OK) {
        attempt(call);
    } else {
        try_later(call, route_pause_us(call->client, call->attempts + 1));
    }
}
