/* receiver_opening: a receiver's way to its subscription. Declared in receiver.h. */
#include "base/clock.h"
#include "base/mem.h"
#include "client/receiver.h"

#define LEASE_USUAL_MS 30000u /* When the broker does not say. */

struct receiver_opening {
    struct ferry_client *client;
    struct topic *topic;
    struct ferry_receiver *receiver; /* Once the topic is known. */
    struct ferry_receiver_spec spec;
    char member[NAME_MAX_BYTES + 1];
    char subscription[NAME_MAX_BYTES + 1];
    struct call call; /* What partition 0 says of the subscription. */
    bool over;
    enum ferry_err err;
};

static void encode(struct buf *b, const struct call *call, uint64_t group)
{
    const struct receiver_opening *o = call->request;
    struct subscription_get_request request = {.group = group,
                                               .name = bytes_of_string(o->subscription)};
    subscription_get_request_encode(b, &request);
}

static enum ferry_err check_spec(const struct ferry_receiver_spec *spec)
{
    if (spec->member != NULL && !name_is_valid(bytes_of_string(spec->member))) {
        return FERRY_ERR_BAD_NAME;
    }
    bool lease =
        spec->lease_ms == 0 || (spec->lease_ms >= LEASE_MIN_MS && spec->lease_ms <= LEASE_MAX_MS);
    if (spec->inflight_max > RECEIVER_INFLIGHT_MAX || spec->batch_max > RECEIVE_MESSAGES_MAX ||
        !lease) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    return FERRY_OK;
}

enum ferry_err receiver_opening_begin(struct ferry_client *c, const char *topic,
                                      const char *subscription,
                                      const struct ferry_receiver_spec *spec, int timeout_ms,
                                      struct receiver_opening **opening)
{
    const struct ferry_receiver_spec none = {0};
    struct topic *t;
    spec = spec != NULL ? spec : &none;
    if (!name_is_valid(bytes_of_string(subscription))) {
        return FERRY_ERR_BAD_NAME;
    }
    enum ferry_err err = check_spec(spec);
    if (err == FERRY_OK) {
        pthread_mutex_lock(&c->lock);
        err = topic_get(c, topic, &t);
        pthread_mutex_unlock(&c->lock);
    }
    if (err == FERRY_OK && t->of_dead) {
        err = FERRY_ERR_BAD_NAME;
    }
    if (err != FERRY_OK) {
        return err;
    }
    struct receiver_opening *o = mem_zalloc(1, sizeof(*o));
    if (o == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    o->client = c;
    o->topic = t;
    o->spec = *spec;
    memcpy(o->subscription, subscription, strlen(subscription));
    if (spec->member != NULL) {
        memcpy(o->member, spec->member, strlen(spec->member));
        o->spec.member = o->member;
    }
    topic_forget_leader(t);
    call_init(&o->call, COMMAND_SUBSCRIPTION_GET, ROUTE_PARTITION, encode, o, timeout_ms);
    call_to_partition(&o->call, t, 0);
    call_begin(c, &o->call, 1);
    *opening = o;
    return FERRY_OK;
}

static void attach(struct ferry_client *c, void *arg)
{
    struct receiver_opening *o = arg;
    (void)c;
    o->err = receiver_attach(o->receiver);
}

static enum ferry_err take_subscription(const struct call *call,
                                        struct subscription_get_reply *reply)
{
    if (call->err != FERRY_OK) {
        return call->err;
    }
    if (subscription_get_reply_decode(call->frame.body, reply) != FERRY_OK) {
        return FERRY_ERR_BAD_FRAME;
    }
    bool handed_out = reply->mode == SUBSCRIPTION_QUEUE || reply->mode == SUBSCRIPTION_KEYED;
    return handed_out ? FERRY_OK : FERRY_ERR_SUBSCRIPTION_EXISTS;
}

bool receiver_opening_step(struct receiver_opening *o)
{
    struct subscription_get_reply reply;
    if (o->over || !call_all_finished(o->client, &o->call, 1)) {
        return o->over;
    }
    o->over = true;
    o->err = take_subscription(&o->call, &reply);
    if (o->err == FERRY_OK) {
        o->receiver = receiver_new(o->client, o->topic, o->subscription, &o->spec);
        o->err = o->receiver == NULL ? FERRY_ERR_NO_MEMORY : FERRY_OK;
    }
    if (o->err == FERRY_OK) {
        uint32_t usual_ms = reply.lease_ms > 0 ? reply.lease_ms : LEASE_USUAL_MS;
        o->receiver->by_priority = reply.mode == SUBSCRIPTION_QUEUE;
        o->receiver->usual_ms = o->spec.lease_ms > 0 ? o->spec.lease_ms : usual_ms;
        client_run_task(o->client, attach, o);
    }
    return true;
}

enum ferry_err receiver_opening_end(struct receiver_opening **opening,
                                    struct ferry_receiver **receiver)
{
    struct receiver_opening *o = *opening;
    enum ferry_err err = o->err;
    *opening = NULL;
    must(o->over);
    if (err == FERRY_OK) {
        *receiver = o->receiver;
    } else if (o->receiver != NULL) {
        receiver_free(o->receiver);
    }
    call_fini(&o->call);
    mem_free(o);
    return err;
}

enum ferry_err ferry_receiver_open(struct ferry_receiver **receiver, struct ferry_client *client,
                                   const char *topic, const char *subscription,
                                   const struct ferry_receiver_spec *spec, int timeout_ms)
{
    struct receiver_opening *o;
    enum ferry_err err = receiver_opening_begin(client, topic, subscription, spec, timeout_ms, &o);
    if (err != FERRY_OK) {
        return err;
    }
    while (!receiver_opening_step(o)) {
        call_wait(client, &o->call, 1);
    }
    return receiver_opening_end(&o, receiver);
}
