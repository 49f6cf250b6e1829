#include "client/consumer.h"

#include <stdio.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"
#include "client/call.h"
#include "client/group.h"

#define LEAVE_TIMEOUT_MS 2000

/* ---- What is asked of a partition. */

static void encode_offset_find(struct buf *b, const struct call *call, uint64_t group)
{
    struct offset_find_request request = *(const struct offset_find_request *)call->request;
    request.group = group;
    offset_find_request_encode(b, &request);
}

static void encode_commit(struct buf *b, const struct call *call, uint64_t group)
{
    struct subscription_commit_request request =
        *(const struct subscription_commit_request *)call->request;
    request.group = group;
    subscription_commit_request_encode(b, &request);
}

enum ferry_err consumer_take_found(const struct call *call, int64_t *position)
{
    struct offset_find_reply reply;
    if (call->err == FERRY_OK && offset_find_reply_decode(call->frame.body, &reply) != FERRY_OK) {
        return FERRY_ERR_BAD_FRAME;
    }
    if (call->err == FERRY_OK) {
        *position = reply.offset;
    }
    return call->err;
}

/* ---- Open and close. */

struct ferry_consumer *consumer_new(struct ferry_client *c, struct topic *t,
                                    const char *subscription)
{
    struct ferry_consumer *s = mem_zalloc(1, sizeof(*s));
    if (s == NULL) {
        return NULL;
    }
    pthread_mutex_lock(&c->lock);
    s->partition_count = t->partition_count;
    s->topic_id = t->id;
    pthread_mutex_unlock(&c->lock);
    s->readers = mem_zalloc((size_t)s->partition_count, sizeof(*s->readers));
    if (s->readers == NULL) {
        mem_free(s);
        return NULL;
    }
    for (int32_t i = 0; i < s->partition_count; i++) {
        s->readers[i].position = -1;
        s->readers[i].end_offset = -1;
    }
    s->client = c;
    s->topic = t;
    (void)snprintf(s->subscription, sizeof(s->subscription), "%s", subscription);
    list_init(&s->ready);
    list_init(&s->work_node);
    list_init(&s->node);
    list_init(&s->fetchers);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&s->changed, &attr);
    pthread_condattr_destroy(&attr);
    return s;
}

void consumer_free(struct ferry_consumer *s)
{
    struct list *node;
    while ((node = list_pop_front(&s->ready)) != NULL) {
        struct ferry_batch *b = list_entry(node, struct ferry_batch, node);
        ferry_batch_free(&b);
    }
    pthread_cond_destroy(&s->changed);
    group_free(s->group);
    mem_free(s->readers);
    mem_free(s);
}

static void detach(struct ferry_client *c, void *arg)
{
    (void)c;
    consumer_detach(arg);
}

static void stop_group(struct ferry_client *c, void *arg)
{
    struct ferry_consumer *s = arg;
    (void)c;
    group_stop(s->group);
}

void consumer_leave_begin(struct ferry_consumer *s, int timeout_ms, struct member_leaving *leaving)
{
    must(s->group != NULL);
    client_run_task(s->client, stop_group, s);
    member_leave_begin(&s->group->member, "closed", timeout_ms, leaving);
}

/* So that others have its partitions at once, not when its session is over. */
static void leave(struct ferry_consumer *s)
{
    struct member_leaving leaving;
    int64_t timeout_ms = s->client->options.request_timeout_ms;
    timeout_ms = timeout_ms < LEAVE_TIMEOUT_MS ? timeout_ms : LEAVE_TIMEOUT_MS;
    member_leave_begin(&s->group->member, "closed", (int)timeout_ms, &leaving);
    call_wait(s->client, &leaving.call, 1);
    member_leave_end(&leaving);
}

void ferry_consumer_close(struct ferry_consumer **consumer)
{
    struct ferry_consumer *s = *consumer;
    if (s == NULL) {
        return;
    }
    *consumer = NULL;
    if (s->group != NULL) {
        group_tell_all_gone(s->group);
    }
    client_run_task(s->client, detach, s);
    if (s->group != NULL && !s->client->stepped && s->failed != FERRY_ERR_MEMBER_FENCED) {
        leave(s);
    }
    consumer_free(s);
}

/* ---- Reading. */

/* With the lock: takes the first view or event off the list. */
static struct ferry_batch *take_ready(struct ferry_consumer *s, bool *wake)
{
    struct list *node = list_pop_front(&s->ready);
    if (node == NULL) {
        return NULL;
    }
    struct ferry_batch *b = list_entry(node, struct ferry_batch, node);
    struct reader *r = &s->readers[b->partition];
    must(s->queued_bytes >= b->bytes);
    s->queued_bytes -= b->bytes;
    r->ready--;
    r->position = b->next_offset;
    if (s->starved && s->queued_bytes <= (size_t)s->client->options.fetch_queue_bytes / 2) {
        s->starved = false;
        *wake = client_add_work(s->client, &s->client->work_consumers, &s->work_node);
    }
    return b;
}

static bool wait_for_ready(struct ferry_consumer *s, int64_t deadline_us)
{
    if (clock_monotonic_us() >= deadline_us) {
        return false;
    }
    must(!s->client->stepped); /* Nobody would end the wait. */
    struct timespec until = {.tv_sec = deadline_us / 1000000,
                             .tv_nsec = (deadline_us % 1000000) * 1000};
    (void)pthread_cond_timedwait(&s->changed, &s->client->lock, &until);
    return true;
}

/* With the lock: a partition that came or goes must be told of first. */
static bool has_event(const struct ferry_consumer *s)
{
    return s->group != NULL && !list_is_empty(&s->group->events);
}

/* With the lock, which is let go of while the application is told of partitions. */
static struct ferry_batch *take_next(struct ferry_consumer *s, bool *wake)
{
    while (has_event(s)) { /* Each is told once; new ones come with answers of the broker. */
        pthread_mutex_unlock(&s->client->lock);
        (void)group_tell(s->group);
        pthread_mutex_lock(&s->client->lock);
    }
    return take_ready(s, wake);
}

enum ferry_err ferry_consumer_fetch(struct ferry_consumer *consumer, int timeout_ms,
                                    struct ferry_batch **batch)
{
    struct ferry_client *c = consumer->client;
    int64_t wait_us = timeout_ms < 0 ? INT64_MAX / 2 : (int64_t)timeout_ms * 1000;
    int64_t deadline_us = wait_us == 0 ? 0 : clock_monotonic_us() + wait_us;
    bool wake = false;
    enum ferry_err err = FERRY_ERR_TIMEOUT;
    pthread_mutex_lock(&c->lock);
    struct ferry_batch *b = take_next(consumer, &wake);
    while (b == NULL && consumer->failed == FERRY_OK && wait_for_ready(consumer, deadline_us)) {
        b = take_next(consumer, &wake);
    }
    if (b == NULL && consumer->failed != FERRY_OK) {
        err = consumer->failed;
    }
    pthread_mutex_unlock(&c->lock);
    client_wake(c, wake);
    if (b == NULL) {
        return err;
    }
    if (b->event != FERRY_OK) {
        err = b->event;
        ferry_batch_free(&b);
        return err;
    }
    *batch = b;
    return FERRY_OK;
}

/* ---- Seeking. */

/* With the lock. */
static void drop_ready(struct ferry_consumer *s, int32_t partition)
{
    struct list *n = s->ready.next;
    while (n != &s->ready) {
        struct ferry_batch *b = list_entry(n, struct ferry_batch, node);
        n = n->next;
        if (b->partition == partition) {
            s->queued_bytes -= b->bytes;
            s->readers[partition].ready--;
            list_remove(&b->node);
            ferry_batch_free(&b);
        }
    }
}

void consumer_start_reading(struct ferry_consumer *s, int32_t partition, int64_t position)
{
    struct reader *r = &s->readers[partition];
    r->generation++;
    drop_ready(s, partition);
    must(r->ready == 0);
    r->position = position;
    r->next_offset = position;
    r->end_offset = -1;
    r->reached = false;
    r->above_since_us = 0;
}

void consumer_stop_reading(struct ferry_consumer *s, int32_t partition)
{
    consumer_start_reading(s, partition, -1);
}

static void move_to(struct ferry_consumer *s, int32_t partition, int64_t offset)
{
    struct ferry_client *c = s->client;
    pthread_mutex_lock(&c->lock);
    consumer_start_reading(s, partition, offset);
    bool wake = client_add_work(c, &c->work_consumers, &s->work_node);
    pthread_mutex_unlock(&c->lock);
    client_wake(c, wake);
}

static enum ferry_err find_and_move(struct ferry_consumer *s, int32_t partition,
                                    const struct offset_find_request *find, int timeout_ms)
{
    struct call call;
    int64_t offset = -1;
    call_init(&call, COMMAND_OFFSET_FIND, ROUTE_PARTITION, encode_offset_find, find, timeout_ms);
    call_to_partition(&call, s->topic, partition);
    call_run(s->client, &call, 1);
    enum ferry_err err = consumer_take_found(&call, &offset);
    call_fini(&call);
    if (err == FERRY_OK && offset < 0) {
        err = FERRY_ERR_BAD_FRAME;
    }
    if (err == FERRY_OK) {
        move_to(s, partition, offset);
    }
    return err;
}

static bool has_partition(const struct ferry_consumer *s, int32_t partition)
{
    return partition >= 0 && partition < s->partition_count;
}

enum ferry_err ferry_consumer_seek(struct ferry_consumer *consumer, int32_t partition,
                                   int64_t offset)
{
    if (!has_partition(consumer, partition)) {
        return FERRY_ERR_UNKNOWN_PARTITION;
    }
    bool from_end = offset == FERRY_FROM_END && consumer->topic->of_dead;
    if (offset < FERRY_FROM_START || from_end) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    if (consumer->topic->of_dead && offset == FERRY_FROM_START) {
        offset = 0;
    }
    if (offset >= 0) {
        move_to(consumer, partition, offset);
        return FERRY_OK;
    }
    struct offset_find_request find = {.kind =
                                           offset == FERRY_FROM_START ? OFFSET_START : OFFSET_END};
    return find_and_move(consumer, partition, &find,
                         (int)consumer->client->options.request_timeout_ms);
}

enum ferry_err ferry_consumer_seek_time(struct ferry_consumer *consumer, int32_t partition,
                                        int64_t time_ms, int timeout_ms)
{
    if (!has_partition(consumer, partition)) {
        return FERRY_ERR_UNKNOWN_PARTITION;
    }
    if (consumer->topic->of_dead) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    struct offset_find_request find = {.kind = OFFSET_TIME, .time_ms = time_ms};
    return find_and_move(consumer, partition, &find, timeout_ms);
}

/* ---- Commit and questions. */

/* The io thread. A member lets a partition go only when its commits are answered. */
static void on_committed(struct ferry_client *c, struct call *call)
{
    struct ferry_consumer *s = call->arg;
    pthread_mutex_lock(&c->lock);
    group_commit_end(s->group, call->partition, call->err);
    bool wake = client_add_work(c, &c->work_consumers, &s->work_node);
    call->finished = true;
    pthread_cond_broadcast(&c->task_changed);
    pthread_mutex_unlock(&c->lock);
    client_wake(c, wake);
}

/* With what epoch the partition may be committed. */
static enum ferry_err begin_as_member(struct ferry_consumer *s, int32_t partition,
                                      struct consumer_commit *commit)
{
    pthread_mutex_lock(&s->client->lock);
    bool ours = group_commit_begin(s->group, partition, &commit->request.epoch);
    pthread_mutex_unlock(&s->client->lock);
    return ours ? FERRY_OK : FERRY_ERR_MEMBER_FENCED;
}

enum ferry_err consumer_commit_begin(struct ferry_consumer *s, int32_t partition, int64_t offset,
                                     int timeout_ms, struct consumer_commit *commit)
{
    if (s->subscription[0] == '\0') {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    if (!has_partition(s, partition)) {
        return FERRY_ERR_UNKNOWN_PARTITION;
    }
    commit->request = (struct subscription_commit_request){.name = bytes_of_string(s->subscription),
                                                           .position = offset};
    if (s->group != NULL) {
        enum ferry_err err = begin_as_member(s, partition, commit);
        if (err != FERRY_OK) {
            return err;
        }
    }
    call_init(&commit->call, COMMAND_SUBSCRIPTION_COMMIT, ROUTE_PARTITION, encode_commit,
              &commit->request, timeout_ms);
    commit->call.done = s->group != NULL ? on_committed : NULL;
    commit->call.arg = s;
    call_to_partition(&commit->call, s->topic, partition);
    call_begin(s->client, &commit->call, 1);
    return FERRY_OK;
}

enum ferry_err ferry_consumer_commit(struct ferry_consumer *consumer, int32_t partition,
                                     int64_t offset, int timeout_ms)
{
    struct consumer_commit commit;
    enum ferry_err err = consumer_commit_begin(consumer, partition, offset, timeout_ms, &commit);
    if (err != FERRY_OK) {
        return err;
    }
    call_wait(consumer->client, &commit.call, 1);
    err = commit.call.err;
    call_fini(&commit.call);
    return err;
}

int32_t ferry_consumer_partitions(const struct ferry_consumer *consumer)
{
    return consumer->partition_count;
}

int64_t ferry_consumer_position(const struct ferry_consumer *consumer, int32_t partition)
{
    if (!has_partition(consumer, partition)) {
        return -1;
    }
    pthread_mutex_lock(&consumer->client->lock);
    int64_t position = consumer->readers[partition].position;
    pthread_mutex_unlock(&consumer->client->lock);
    return position;
}

bool ferry_consumer_at_end(const struct ferry_consumer *consumer)
{
    bool at_end = true;
    pthread_mutex_lock(&consumer->client->lock);
    for (int32_t i = 0; i < consumer->partition_count && at_end; i++) {
        const struct reader *r = &consumer->readers[i];
        if (consumer->group != NULL && !group_has(consumer->group, i)) {
            continue;
        }
        at_end = r->ready == 0 && r->end_offset >= 0 && r->position >= r->end_offset;
    }
    pthread_mutex_unlock(&consumer->client->lock);
    return at_end;
}

struct ferry_id ferry_consumer_topic_id(const struct ferry_consumer *consumer)
{
    return consumer->topic_id;
}

const char *ferry_consumer_topic(const struct ferry_consumer *consumer)
{
    return consumer->topic->name;
}
