/* identity: the producer id and epoch of a client, asked for and asked for again. Declared in
 * producer.h. */
#include "base/clock.h"
#include "base/mem.h"
#include "client/call.h"
#include "client/metadata.h"

static void on_identity(struct ferry_client *c, struct call *call);

static void encode_init(struct buf *b, const struct call *call, uint64_t group)
{
    (void)group;
    producer_init_request_encode(b, call->request);
}

struct asking {
    struct call call;
    struct producer_init_request request;
};

void producer_ask(struct ferry_client *c)
{
    struct asking *a = (struct asking *)c->producer.asking;
    must(c->producer.state == PRODUCER_NONE);
    c->producer.state = PRODUCER_ASKING;
    a->request.name = bytes_of_string(c->options.producer_name);
    call_init(&a->call, COMMAND_PRODUCER_INIT, ROUTE_CONTROLLER, encode_init, &a->request,
              (int)c->options.request_timeout_ms);
    a->call.done = on_identity;
    call_start(c, &a->call);
}

static void on_ask_again(struct timer *timer)
{
    struct producer *producer = list_entry(timer, struct producer, timer);
    struct ferry_client *c = list_entry(producer, struct ferry_client, producer);
    if (producer->state == PRODUCER_NONE && !list_is_empty(&producer->waiting)) {
        producer_ask(c);
    }
}

bool producer_init(struct ferry_client *c)
{
    struct asking *a = mem_zalloc(1, sizeof(*a));
    if (a == NULL) {
        return false;
    }
    c->producer.asking = &a->call;
    list_init(&c->producer.waiting);
    net_message_init(&a->call.message);
    if (!timer_add(&c->timers, &c->producer.timer, on_ask_again)) {
        mem_free(a);
        c->producer.asking = NULL;
        return false;
    }
    return true;
}

void producer_fini(struct ferry_client *c)
{
    timer_drop(&c->timers, &c->producer.timer);
    if (c->producer.asking != NULL) {
        mem_free(c->producer.asking);
        c->producer.asking = NULL;
    }
}

static void take_identity(struct producer *producer, struct call *call)
{
    struct producer_init_reply reply;
    if (call->err == FERRY_OK && producer_init_reply_decode(call->frame.body, &reply) != FERRY_OK) {
        call->err = FERRY_ERR_NOT_READY; /* Not an answer: asked again. */
    }
    if (call->err == FERRY_OK) {
        producer->id = reply.producer_id;
        producer->epoch = reply.epoch;
        producer->state = PRODUCER_READY;
        producer->attempts = 0;
    }
}

static void on_identity(struct ferry_client *c, struct call *call)
{
    struct producer *producer = &c->producer;
    producer->state = PRODUCER_NONE;
    take_identity(producer, call);
    enum ferry_err err = call->err;
    call_fini(call);
    if (err == FERRY_ERR_CLOSED) {
        return;
    }
    if (err != FERRY_OK && ferry_err_is_retriable(err)) {
        producer->attempts++;
        timer_set(&c->timers, &producer->timer,
                  clock_monotonic_us() + client_backoff_us(c, producer->attempts));
        return;
    }
    struct list waiting;
    struct list *node;
    list_init(&waiting);
    while ((node = list_pop_front(&producer->waiting)) != NULL) {
        list_push_back(&waiting, node);
    }
    while ((node = list_pop_front(&waiting)) != NULL) {
        struct partition *p = list_entry(node, struct partition, stream.identity_node);
        if (err != FERRY_OK) {
            stream_end_unsent(p, err);
        }
        stream_pump(p);
    }
}
