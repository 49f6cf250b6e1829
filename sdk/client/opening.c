/* opening: a consumer's way to its positions. Declared in consumer.h. */
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"
#include "client/call.h"
#include "client/consumer.h"
#include "client/group.h"

enum opening_stage {
    OPENING_TOPIC,  /* Where the partitions are. */
    OPENING_GET,    /* What the subscription has committed. */
    OPENING_CREATE, /* The subscription, where it is not there yet. */
    OPENING_FIND,   /* The start or the end, without a subscription. */
    OPENING_OVER
};

struct consumer_opening {
    struct ferry_client *client;
    struct topic *topic;
    struct ferry_consumer *consumer; /* Once the topic is known. */
    struct group *group;             /* The consumer's, once it is there. NULL: no member. */
    char subscription[NAME_MAX_BYTES + 1];
    int64_t from;
    int64_t deadline_us;
    enum opening_stage stage;
    struct call *calls; /* Of the stage. */
    size_t count;
    enum ferry_err err;
};

/* ---- What is asked. */

static void encode_partition_info(struct buf *b, const struct call *call, uint64_t group)
{
    (void)call;
    struct partition_info_request request = {.group = group};
    partition_info_request_encode(b, &request);
}

static void encode_subscription_get(struct buf *b, const struct call *call, uint64_t group)
{
    const struct consumer_opening *o = call->request;
    struct subscription_get_request request = {.group = group,
                                               .name = bytes_of_string(o->subscription)};
    subscription_get_request_encode(b, &request);
}

static void encode_subscription_create(struct buf *b, const struct call *call, uint64_t group)
{
    const struct consumer_opening *o = call->request;
    struct subscription_create_request request = {.group = group,
                                                  .name = bytes_of_string(o->subscription),
                                                  .mode = SUBSCRIPTION_STREAM,
                                                  .from = o->from};
    subscription_create_request_encode(b, &request);
}

static void encode_offset_find(struct buf *b, const struct call *call, uint64_t group)
{
    const struct consumer_opening *o = call->request;
    struct offset_find_request request = {
        .group = group, .kind = o->from == FERRY_FROM_START ? OFFSET_START : OFFSET_END};
    offset_find_request_encode(b, &request);
}

/* ---- What is answered. */

static enum ferry_err take_subscription(const struct call *call, int64_t *position)
{
    struct subscription_get_reply reply;
    if (call->err != FERRY_OK) {
        return call->err;
    }
    if (subscription_get_reply_decode(call->frame.body, &reply) != FERRY_OK) {
        return FERRY_ERR_BAD_FRAME;
    }
    if (reply.mode != SUBSCRIPTION_STREAM) {
        return FERRY_ERR_SUBSCRIPTION_EXISTS;
    }
    *position = reply.position;
    return FERRY_OK;
}

static enum ferry_err take_created(const struct call *call, int64_t *position)
{
    struct subscription_create_reply reply;
    if (call->err == FERRY_OK &&
        subscription_create_reply_decode(call->frame.body, &reply) != FERRY_OK) {
        return FERRY_ERR_BAD_FRAME;
    }
    if (call->err == FERRY_OK) {
        *position = reply.position;
    }
    return call->err;
}

static enum ferry_err take_position(const struct consumer_opening *o, const struct call *call,
                                    int64_t *position)
{
    switch (o->stage) {
    case OPENING_GET:
        return take_subscription(call, position);
    case OPENING_CREATE:
        return take_created(call, position);
    default:
        return consumer_take_found(call, position);
    }
}

/* A partition without the subscription stays unknown: it is made next. */
static void take_positions(struct consumer_opening *o)
{
    struct ferry_consumer *s = o->consumer;
    for (size_t i = 0; i < o->count; i++) {
        struct reader *r = &s->readers[o->calls[i].partition];
        enum ferry_err one = take_position(o, &o->calls[i], &r->position);
        bool missing = o->stage == OPENING_GET && one == FERRY_ERR_UNKNOWN_SUBSCRIPTION;
        if (one == FERRY_OK && r->position < 0) {
            one = FERRY_ERR_BAD_FRAME;
        }
        if (one != FERRY_OK && !missing) {
            r->position = -1;
            o->err = one;
        }
    }
}

/* ---- The stages. */

static int left_ms(int64_t deadline_us)
{
    int64_t left_us = deadline_us - clock_monotonic_us();
    return left_us > 0 ? (int)((left_us + 999) / 1000) : 0;
}

static void free_calls(struct consumer_opening *o)
{
    for (size_t i = 0; i < o->count; i++) {
        call_fini(&o->calls[i]);
    }
    mem_free(o->calls);
    o->calls = NULL;
    o->count = 0;
}

static bool make_calls(struct consumer_opening *o, size_t count)
{
    o->calls = mem_zalloc(count, sizeof(*o->calls));
    if (o->calls == NULL) {
        o->err = FERRY_ERR_NO_MEMORY;
        o->stage = OPENING_OVER;
    }
    return o->calls != NULL;
}

/* A question to partition 0 is answered once the topic is known; any leader's answer will do. */
static void ask_topic(struct consumer_opening *o)
{
    if (make_calls(o, 1)) {
        o->count = 1;
        call_init(&o->calls[0], COMMAND_PARTITION_INFO, ROUTE_PARTITION, encode_partition_info,
                  NULL, left_ms(o->deadline_us));
        call_to_partition(&o->calls[0], o->topic, 0);
        call_begin(o->client, o->calls, o->count);
    }
}

/* Asks all partitions whose position is not known, at the same time. */
static void ask_positions(struct consumer_opening *o, enum opening_stage stage,
                          enum command command, call_encode *encode)
{
    struct ferry_consumer *s = o->consumer;
    o->stage = stage;
    if (!make_calls(o, (size_t)s->partition_count)) {
        return;
    }
    for (int32_t i = 0; i < s->partition_count; i++) {
        if (s->readers[i].position < 0) {
            struct call *call = &o->calls[o->count++];
            call_init(call, command, ROUTE_PARTITION, encode, o, left_ms(o->deadline_us));
            call_to_partition(call, o->topic, i);
        }
    }
    call_begin(o->client, o->calls, o->count);
}

static void attach(struct ferry_client *c, void *arg)
{
    struct consumer_opening *o = arg;
    (void)c;
    o->err = consumer_attach(o->consumer);
}

static void start_reading(struct consumer_opening *o)
{
    struct ferry_consumer *s = o->consumer;
    o->stage = OPENING_OVER;
    for (int32_t i = 0; i < s->partition_count; i++) {
        struct reader *r = &s->readers[i];
        r->position = s->group != NULL ? -1 : r->position; /* A claim tells it. */
        r->next_offset = r->position;
    }
    client_run_task(s->client, attach, o);
}

/* From now on the group is the consumer's. */
static bool bind_group(struct consumer_opening *o)
{
    if (o->group == NULL) {
        return true;
    }
    if (!group_bind(o->group, o->consumer)) {
        return false;
    }
    o->group = NULL;
    return true;
}

static void after_topic(struct consumer_opening *o)
{
    o->consumer = consumer_new(o->client, o->topic, o->subscription);
    if (o->consumer == NULL || !bind_group(o)) {
        o->err = FERRY_ERR_NO_MEMORY;
        o->stage = OPENING_OVER;
    } else if (o->subscription[0] != '\0') {
        ask_positions(o, OPENING_GET, COMMAND_SUBSCRIPTION_GET, encode_subscription_get);
    } else if (o->from < 0) {
        ask_positions(o, OPENING_FIND, COMMAND_OFFSET_FIND, encode_offset_find);
    } else {
        for (int32_t i = 0; i < o->consumer->partition_count; i++) {
            o->consumer->readers[i].position = o->from;
        }
        start_reading(o);
    }
}

static void finish_stage(struct consumer_opening *o)
{
    if (o->stage == OPENING_TOPIC) {
        o->err = o->calls[0].err;
    } else {
        take_positions(o);
    }
    free_calls(o);
    if (o->err != FERRY_OK) {
        o->stage = OPENING_OVER;
    } else if (o->stage == OPENING_TOPIC) {
        after_topic(o);
    } else if (o->stage == OPENING_GET) {
        ask_positions(o, OPENING_CREATE, COMMAND_SUBSCRIPTION_CREATE, encode_subscription_create);
    } else {
        start_reading(o);
    }
}

bool consumer_opening_step(struct consumer_opening *o)
{
    while (o->stage != OPENING_OVER && call_all_finished(o->client, o->calls, o->count)) {
        finish_stage(o); /* Each leads to a later stage. */
    }
    return o->stage == OPENING_OVER;
}

enum ferry_err consumer_opening_begin(struct ferry_client *c, const char *topic,
                                      const char *subscription, int64_t from, int timeout_ms,
                                      struct consumer_opening **opening)
{
    struct topic *t;
    if (subscription != NULL && !name_is_valid(bytes_of_string(subscription))) {
        return FERRY_ERR_BAD_NAME;
    }
    if (from < FERRY_FROM_START) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    pthread_mutex_lock(&c->lock);
    enum ferry_err err = topic_get(c, topic, &t);
    pthread_mutex_unlock(&c->lock);
    if (err == FERRY_OK && t->of_dead) {
        err =
            subscription != NULL || from == FERRY_FROM_END ? FERRY_ERR_INVALID_ARGUMENT : FERRY_OK;
        from = from < 0 ? 0 : from; /* Numbers, of which any may be missing. */
    }
    if (err != FERRY_OK) {
        return err;
    }
    struct consumer_opening *o = mem_zalloc(1, sizeof(*o));
    if (o == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    o->client = c;
    o->topic = t;
    o->from = from;
    o->deadline_us = clock_monotonic_us() + (int64_t)timeout_ms * 1000;
    if (subscription != NULL) {
        memcpy(o->subscription, subscription, strlen(subscription));
    }
    topic_forget_leader(t);
    ask_topic(o);
    *opening = o;
    return FERRY_OK;
}

enum ferry_err consumer_opening_begin_join(struct ferry_client *c, const char *topic,
                                           const char *subscription, int64_t from,
                                           const struct ferry_join_spec *spec, int timeout_ms,
                                           struct consumer_opening **opening)
{
    struct group *group;
    if (subscription == NULL) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    enum ferry_err err = group_new(c, spec, &group);
    if (err != FERRY_OK) {
        return err;
    }
    err = consumer_opening_begin(c, topic, subscription, from, timeout_ms, opening);
    if (err != FERRY_OK) {
        group_free(group);
        return err;
    }
    (*opening)->group = group;
    return FERRY_OK;
}

enum ferry_err consumer_opening_end(struct consumer_opening **opening,
                                    struct ferry_consumer **consumer)
{
    struct consumer_opening *o = *opening;
    enum ferry_err err = o->err;
    *opening = NULL;
    must(o->stage == OPENING_OVER);
    must(o->count == 0);
    group_free(o->group);
    if (err != FERRY_OK && o->consumer != NULL) {
        consumer_free(o->consumer);
    } else if (err == FERRY_OK) {
        *consumer = o->consumer;
    }
    mem_free(o);
    return err;
}

static enum ferry_err finish(struct consumer_opening *o, struct ferry_consumer **consumer)
{
    while (!consumer_opening_step(o)) {
        call_wait(o->client, o->calls, o->count);
    }
    return consumer_opening_end(&o, consumer);
}

enum ferry_err ferry_consumer_open(struct ferry_consumer **consumer, struct ferry_client *client,
                                   const char *topic, const char *subscription, int64_t from,
                                   int timeout_ms)
{
    struct consumer_opening *o;
    enum ferry_err err = consumer_opening_begin(client, topic, subscription, from, timeout_ms, &o);
    if (err != FERRY_OK) {
        return err;
    }
    return finish(o, consumer);
}

enum ferry_err ferry_consumer_join(struct ferry_consumer **consumer, struct ferry_client *client,
                                   const char *topic, const char *subscription, int64_t from,
                                   const struct ferry_join_spec *spec, int timeout_ms)
{
    struct consumer_opening *o;
    enum ferry_err err =
        consumer_opening_begin_join(client, topic, subscription, from, spec, timeout_ms, &o);
    return err != FERRY_OK ? err : finish(o, consumer);
}
