#include "client/worker.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/mem.h"
#include "client/call.h"

struct worker {
    struct ferry_client *client;
    struct timer timer; /* When to ask next. */
    struct call call;
    struct worker_id_request request;
    int64_t asked_us;
    unsigned attempts;
    char holder[32];
};

static void encode(struct buf *b, const struct call *call, uint64_t group)
{
    (void)group;
    worker_id_request_encode(b, call->request);
}

static void take(struct worker *w, uint32_t worker_id)
{
    struct ferry_client *c = w->client;
    pthread_mutex_lock(&c->lock);
    c->ids.worker_id = worker_id;
    c->worker_until_us = w->asked_us + WORKER_TTL_MS * INT64_C(1000);
    pthread_mutex_unlock(&c->lock);
}

static void on_answer(struct ferry_client *c, struct call *call)
{
    struct worker *w = call->arg;
    struct worker_id_reply reply;
    enum ferry_err err = call->err;
    if (err == FERRY_OK && (worker_id_reply_decode(call->frame.body, &reply) != FERRY_OK ||
                            reply.worker_id >= WORKER_IDS_MAX)) {
        c->bad_replies++;
        err = FERRY_ERR_BAD_FRAME;
    }
    call_fini(call);
    if (err == FERRY_ERR_CLOSED) {
        return;
    }
    int64_t now_us = clock_monotonic_us();
    if (err == FERRY_OK) {
        w->attempts = 0;
        take(w, reply.worker_id);
        timer_set(&c->timers, &w->timer, now_us + WORKER_RENEW_MS * INT64_C(1000));
    } else {
        timer_set(&c->timers, &w->timer, now_us + client_backoff_us(c, ++w->attempts));
    }
}

static void on_timer(struct timer *timer)
{
    struct worker *w = list_entry(timer, struct worker, timer);
    w->asked_us = clock_monotonic_us();
    w->request =
        (struct worker_id_request){.holder = bytes_of_string(w->holder), .ttl_ms = WORKER_TTL_MS};
    call_init(&w->call, COMMAND_WORKER_ID, ROUTE_CONTROLLER, encode, &w->request, WORKER_RENEW_MS);
    w->call.done = on_answer;
    w->call.arg = w;
    call_start(w->client, &w->call);
}

bool worker_start(struct ferry_client *c)
{
    struct worker *w = mem_zalloc(1, sizeof(*w));
    if (w == NULL || !timer_add(&c->timers, &w->timer, on_timer)) {
        mem_free(w);
        return false;
    }
    w->client = c;
    (void)snprintf(w->holder, sizeof(w->holder), "client-%016" PRIx64, prng_next(&c->prng));
    timer_set(&c->timers, &w->timer, clock_monotonic_us());
    c->worker = w;
    return true;
}

void worker_fini(struct ferry_client *c)
{
    if (c->worker != NULL) {
        timer_drop(&c->timers, &c->worker->timer);
        mem_free(c->worker);
        c->worker = NULL;
    }
}
