#include "client/connection.h"

#include "base/clock.h"
#include "base/mem.h"
#include "client/client.h"
#include "wire/batch.h"

#define GREETING_MAX_MS    3000  /* A broker that is there greets sooner. */
#define LINK_FULL_PAUSE_US 10000 /* Between tries to hand a frame to a link that takes none. */

static void on_timer(struct timer *timer);
static void on_hello(struct request *r, const struct reply *reply);
static void write_waiting(struct connection *k);

struct connection *connection_find(struct ferry_client *c, struct bytes endpoint)
{
    for (struct list *n = c->connections.next; n != &c->connections; n = n->next) {
        struct connection *k = list_entry(n, struct connection, node);
        if (bytes_equal(bytes_of_string(k->endpoint), endpoint)) {
            return k;
        }
    }
    return NULL;
}

enum ferry_err connection_get(struct ferry_client *c, struct bytes endpoint,
                              struct connection **connection, struct err_text *e)
{
    struct connection *k = connection_find(c, endpoint);
    if (k != NULL) {
        *connection = k;
        return FERRY_OK;
    }
    if (endpoint.size == 0 || endpoint.size > ENDPOINT_MAX_BYTES) {
        return err_set(e, FERRY_ERR_BAD_OPTION_VALUE,
                       "an endpoint has 1 to %u bytes, like tcp://127.0.0.1:7400",
                       ENDPOINT_MAX_BYTES);
    }
    if (c->connection_count >= CONNECTIONS_MAX) {
        return err_set(e, FERRY_ERR_LIMIT_REACHED, "a client talks to at most %u endpoints",
                       CONNECTIONS_MAX);
    }
    k = mem_zalloc(1, sizeof(*k));
    if (k == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    k->client = c;
    memcpy(k->endpoint, endpoint.data, endpoint.size);
    list_init(&k->node);
    list_init(&k->waiting);
    list_init(&k->in_flight);
    request_init(&k->hello, on_hello);
    k->probe_after_us = PROBE_FIRST_US;
    enum ferry_err err = FERRY_ERR_NO_MEMORY;
    if (!timer_add(&c->timers, &k->timer, on_timer)) {
        goto no_timer;
    }
    err = net_link_open(c->context, k->endpoint, FRAME_MAX_BYTES, &k->link, e);
    if (err != FERRY_OK) {
        goto no_link;
    }
    list_push_back(&c->connections, &k->node);
    c->connection_count++;
    *connection = k;
    return FERRY_OK;

no_link:
    timer_drop(&c->timers, &k->timer);
no_timer:
    mem_free(k);
    return err;
}

/* Takes the request off its lists and its slot: it is idle afterwards. */
static void unlink_request(struct request *r)
{
    struct connection *k = r->connection;
    size_t slot = r->id & (CONNECTION_REQUESTS_MAX - 1);
    must(k->slots[slot] == r);
    k->slots[slot] = NULL;
    k->request_count--;
    list_remove(&r->node);
    if (r->written) {
        must(k->in_flight_count > 0);
        k->in_flight_count--;
    }
    r->connection = NULL;
    buf_clear(&r->frame);
}

static void finish(struct request *r, const struct reply *reply)
{
    unlink_request(r);
    r->done(r, reply);
}

static void fail(struct request *r, enum ferry_err err, const char *detail)
{
    struct reply reply = {.err = err, .written = r->written, .detail = bytes_of_string(detail)};
    finish(r, &reply);
}

/* Whether nobody has answered yet or somebody stopped to decides what a silence is called. */
static void fail_silent(struct connection *k, struct request *r)
{
    if (k->greeted) {
        fail(r, FERRY_ERR_TIMEOUT, "no answer within request.timeout_ms");
    } else {
        fail(r, FERRY_ERR_UNREACHABLE, "no broker has answered at this endpoint");
    }
}

/* Fails what is on the list now; `done` may put new requests on it, which are left alone. */
static void fail_all(struct connection *k, struct list *requests, enum ferry_err err,
                     const char *detail)
{
    uint64_t first_new_id = k->next_id;
    for (uint32_t i = 0; i < CONNECTION_REQUESTS_MAX && !list_is_empty(requests); i++) {
        struct request *r = list_entry(requests->next, struct request, node);
        if (r->id >= first_new_id) {
            return;
        }
        if (err == FERRY_OK) {
            fail_silent(k, r);
        } else {
            fail(r, err, detail);
        }
    }
}

void connection_free(struct connection *k)
{
    k->client->closing_connections = true;
    request_cancel(&k->hello);
    fail_all(k, &k->in_flight, FERRY_ERR_CLOSED, "the client is closing");
    fail_all(k, &k->waiting, FERRY_ERR_CLOSED, "the client is closing");
    must(k->request_count == 0);
    request_fini(&k->hello);
    timer_drop(&k->client->timers, &k->timer);
    net_link_close(&k->link);
    list_remove(&k->node);
    k->client->connection_count--;
    mem_free(k);
}

/* A new link with nothing queued on it. What was on the wire is told that nobody answered. */
static void start_again(struct connection *k)
{
    struct err_text e;
    net_link_close(&k->link);
    k->state = CONNECTION_NEW;
    k->probing = false;
    k->suspect = false; /* Nothing is known of the new link. */
    request_cancel(&k->hello);
    if (net_link_open(k->client->context, k->endpoint, FRAME_MAX_BYTES, &k->link, &e) != FERRY_OK) {
        k->link = NULL; /* Tried again when a request comes. */
    }
    fail_all(k, &k->in_flight, FERRY_OK, "");
}

static bool ensure_link(struct connection *k)
{
    struct err_text e;
    return k->link != NULL || net_link_open(k->client->context, k->endpoint, FRAME_MAX_BYTES,
                                            &k->link, &e) == FERRY_OK;
}

/* ---- Requests. */

void request_init(struct request *r, request_done *done)
{
    *r = (struct request){.done = done};
    list_init(&r->node);
    buf_init(&r->frame, FRAME_MAX_BYTES);
}

void request_fini(struct request *r)
{
    request_cancel(r);
    buf_fini(&r->frame);
}

void request_cancel(struct request *r)
{
    if (r->connection != NULL) {
        unlink_request(r);
    }
}

enum ferry_err request_begin(struct request *r, struct connection *k, enum command command,
                             int64_t timeout_ms)
{
    must(r->connection == NULL);
    must(timeout_ms >= 0);
    if (k->request_count >= CONNECTION_REQUESTS_MAX || k->client->closing_connections) {
        return FERRY_ERR_QUEUE_FULL;
    }
    while (k->slots[k->next_id & (CONNECTION_REQUESTS_MAX - 1)] != NULL) {
        k->next_id++; /* Bounded: a slot is free. */
    }
    r->id = k->next_id++;
    k->slots[r->id & (CONNECTION_REQUESTS_MAX - 1)] = r;
    k->request_count++;
    r->connection = k;
    r->command = (uint16_t)command;
    r->written = false;
    r->patience_us = 0;
    r->deadline_us = clock_monotonic_us() + timeout_ms * 1000;
    buf_clear(&r->frame);
    frame_begin_request(&r->frame, (uint16_t)command, r->id, (uint32_t)timeout_ms);
    return FERRY_OK;
}

/* Hands a frame to the link. False when the link's queue is full: it waits. */
static bool write_request(struct connection *k, struct request *r)
{
    if (!ensure_link(k) || net_link_send(k->link, &r->frame) != FERRY_OK) {
        return false;
    }
    r->written = true;
    r->written_us = clock_monotonic_us();
    k->in_flight_count++;
    list_remove(&r->node);
    list_push_back(&k->in_flight, &r->node);
    int64_t look_us = r != &k->hello ? k->probe_after_us
                      : k->probing   ? SUSPECT_PROBE_US
                                     : SUSPECT_GREETING_US;
    timer_set_sooner(&k->client->timers, &k->timer, r->written_us + look_us);
    return true;
}

static void greet(struct connection *k)
{
    struct client_options *o = &k->client->options;
    int64_t timeout_ms =
        o->request_timeout_ms < GREETING_MAX_MS ? o->request_timeout_ms : GREETING_MAX_MS;
    if (request_begin(&k->hello, k, COMMAND_HELLO, timeout_ms) != FERRY_OK) {
        return;
    }
    struct hello_request hello = {.client_name = bytes_of_string(o->client_name),
                                  .client_version = bytes_of_string(FERRY_VERSION)};
    hello_request_encode(&k->hello.frame, &hello);
    if (!frame_end(&k->hello.frame)) {
        request_cancel(&k->hello);
        return;
    }
    list_push_front(&k->waiting, &k->hello.node);
    timer_set_sooner(&k->client->timers, &k->timer, k->hello.deadline_us);
    if (k->state == CONNECTION_NEW) {
        k->state = CONNECTION_GREETING;
    }
}

static void write_waiting(struct connection *k)
{
    if (k->state == CONNECTION_NEW && !list_is_empty(&k->waiting) && request_is_idle(&k->hello)) {
        greet(k);
    }
    if (!request_is_idle(&k->hello) && !k->hello.written && !write_request(k, &k->hello)) {
        timer_set_sooner(&k->client->timers, &k->timer, clock_monotonic_us() + LINK_FULL_PAUSE_US);
        return;
    }
    if (k->state != CONNECTION_READY) {
        return;
    }
    while (!list_is_empty(&k->waiting) && k->in_flight_count < k->limits.inflight_max) {
        struct request *r = list_entry(k->waiting.next, struct request, node);
        if (!write_request(k, r)) {
            /* The link is full: looked at again after the next reply, or soon. */
            timer_set_sooner(&k->client->timers, &k->timer,
                             clock_monotonic_us() + LINK_FULL_PAUSE_US);
            return;
        }
    }
}

enum ferry_err request_submit(struct request *r)
{
    struct connection *k = r->connection;
    if (!frame_end(&r->frame)) {
        list_init(&r->node);
        unlink_request(r);
        return FERRY_ERR_NO_MEMORY;
    }
    list_push_back(&k->waiting, &r->node);
    timer_set_sooner(&k->client->timers, &k->timer, r->deadline_us);
    write_waiting(k);
    return FERRY_OK;
}

/* ---- Replies. */

static struct request *find_request(struct connection *k, const struct frame *f)
{
    struct request *r = k->slots[f->request_id & (CONNECTION_REQUESTS_MAX - 1)];
    bool ours = r != NULL && r->id == f->request_id && r->written && r->command == f->command;
    return ours ? r : NULL;
}

static void refused(const struct frame *f, struct reply *reply)
{
    struct error_reply error;
    reply->err = err_is_known(f->status) ? (enum ferry_err)f->status : FERRY_ERR_BAD_FRAME;
    if (error_reply_decode(f->body, &error) == FERRY_OK) {
        reply->detail = error.detail;
        reply->retry_after_ms = error.retry_after_ms;
    }
}

/* A broker with a slow disk is not a lost one: silence is measured by how long answers take here.
 */
static int64_t long_silence_us(const struct connection *k)
{
    int64_t silence_us = k->pace_us * PROBE_PACES;
    return silence_us > PROBE_FIRST_US ? silence_us : PROBE_FIRST_US;
}

static void learn_pace(struct connection *k, const struct request *r)
{
    int64_t took_us = k->received_us - r->written_us - r->patience_us;
    k->pace_us += ((took_us > 0 ? took_us : 0) - k->pace_us) / 8;
    int64_t silence_us = long_silence_us(k);
    k->probe_after_us = silence_us < PROBE_SOON_US ? silence_us : PROBE_SOON_US;
}

static void dispatch(struct connection *k, struct net_message *m)
{
    struct err_text e;
    struct frame f;
    if (frame_parse(net_message_bytes(m), &f, &e) != FERRY_OK || f.kind != FRAME_REPLY) {
        k->client->bad_replies++;
        return;
    }
    struct request *r = find_request(k, &f);
    if (r == NULL) {
        return; /* A late reply to a request that was given up. */
    }
    if (r != &k->hello) {
        learn_pace(k, r);
    }
    struct reply reply = {.answered = true, .written = true, .frame = f, .message = m};
    if (f.status != 0) {
        refused(&f, &reply);
    }
    finish(r, &reply);
}

bool connection_receive(struct connection *k, int messages_max)
{
    struct net_message m;
    int taken = 0;
    net_message_init(&m);
    while (taken < messages_max && k->link != NULL && net_link_receive(k->link, &m)) {
        taken++;
        k->received_us = clock_monotonic_us();
        dispatch(k, &m);
    }
    net_message_close(&m);
    if (taken > 0) {
        k->suspect = false;
        write_waiting(k);
    }
    return taken == messages_max;
}

/* ---- Greeting, silence, time. */

/* The broker is there, and these were sent before it was asked so twice: they are taken as lost.
 * Once is not enough: a busy broker greets at the beginning of a turn, and answers what it took in
 * with the greeting at the turn's end. */
static void give_up_unanswered(struct connection *k, int64_t probed_us)
{
    int64_t now_us = clock_monotonic_us();
    int64_t silence_us = long_silence_us(k);
    uint32_t looked_at = k->in_flight_count;
    struct list *n = k->in_flight.next;
    struct list lost;
    list_init(&lost);
    for (; looked_at > 0 && n != &k->in_flight; looked_at--) {
        struct request *r = list_entry(n, struct request, node);
        n = n->next;
        if (r->written_us < probed_us && now_us - r->written_us > r->patience_us + silence_us) {
            list_remove(&r->node);
            list_push_back(&lost, &r->node);
        }
    }
    while (!list_is_empty(&lost)) {
        fail_silent(k, list_entry(lost.next, struct request, node));
    }
}

static bool limits_are_sane(const struct hello_reply *h)
{
    return h->inflight_max >= CONNECTION_INFLIGHT_MIN && h->message_max_bytes > 0 &&
           h->batch_max_bytes > BATCH_HEADER_BYTES;
}

static void on_hello(struct request *r, const struct reply *reply)
{
    struct connection *k = list_entry(r, struct connection, hello);
    struct hello_reply h;
    bool probing = k->probing;
    int64_t probed_us = r->written_us;
    k->probing = false;
    if (reply->err == FERRY_OK &&
        (hello_reply_decode(reply->frame.body, &h) != FERRY_OK || !limits_are_sane(&h))) {
        k->client->bad_replies++;
        k->state = CONNECTION_NEW;
        fail_all(k, &k->waiting, FERRY_OK, ""); /* Not an answer: whoever asked tries again. */
        return;
    }
    if (!reply->answered) {
        start_again(k);
        fail_all(k, &k->waiting, FERRY_OK, "");
        return;
    }
    if (reply->err != FERRY_OK) {
        k->state = CONNECTION_NEW;
        fail_all(k, &k->waiting, reply->err, "the broker refused the greeting");
        return;
    }
    h.broker_version = bytes_of(NULL, 0);
    k->limits = h;
    k->state = CONNECTION_READY;
    k->greeted = true;
    client_learn_limits(k->client, &h);
    if (probing) {
        give_up_unanswered(k, k->probed_us);
        k->probed_us = probed_us;
    }
    write_waiting(k);
}

static int64_t earliest(const struct list *requests, int64_t soonest_us)
{
    for (const struct list *n = requests->next; n != requests; n = n->next) {
        const struct request *r = list_entry(n, struct request, node);
        soonest_us = r->deadline_us < soonest_us ? r->deadline_us : soonest_us;
    }
    return soonest_us;
}

/* Moves the overdue to `late`; they keep their slots until they are failed. */
static void collect_overdue(struct list *requests, int64_t now_us, struct list *late)
{
    struct list *n = requests->next;
    while (n != requests) {
        struct request *r = list_entry(n, struct request, node);
        n = n->next;
        if (r->deadline_us <= now_us) {
            list_remove(&r->node);
            list_push_back(late, &r->node);
        }
    }
}

/* Short tries at whoever may be there say nothing about the link when they fail. */
static bool is_long(const struct connection *k, const struct request *r)
{
    int64_t long_ms = k->client->options.request_timeout_ms;
    long_ms = long_ms < GREETING_MAX_MS ? long_ms : GREETING_MAX_MS;
    return r->deadline_us - r->written_us >= long_ms * 1000 / 2;
}

static void fail_overdue(struct connection *k, int64_t now_us)
{
    struct list late;
    bool silent = false;
    list_init(&late);
    collect_overdue(&k->in_flight, now_us, &late);
    collect_overdue(&k->waiting, now_us, &late);
    for (struct list *n = late.next; n != &late; n = n->next) {
        struct request *r = list_entry(n, struct request, node);
        silent = silent || (r->written && k->received_us < r->written_us && is_long(k, r));
    }
    while (!list_is_empty(&late)) {
        fail_silent(k, list_entry(late.next, struct request, node));
    }
    if (silent && k->state == CONNECTION_READY) {
        start_again(k);
    }
}

/* Since when the broker is silent though it should have answered the oldest request, or is so long
 * that one may ask whether it is there. */
static int64_t unanswered_since(const struct connection *k)
{
    for (const struct list *n = k->in_flight.next; n != &k->in_flight; n = n->next) {
        const struct request *r = list_entry(n, struct request, node);
        if (r != &k->hello) {
            return r->written_us +
                   (r->patience_us < PROBE_PATIENCE_US ? r->patience_us : PROBE_PATIENCE_US);
        }
    }
    return INT64_MAX;
}

/* When a request has waited for much longer than answers take, though others are answered: it may
 * have gone with a TCP connection that was mended since. Not before it would be taken as lost. */
static int64_t overtaken_at(const struct connection *k)
{
    int64_t wait_us = long_silence_us(k) > PROBE_SOON_US ? long_silence_us(k) : PROBE_SOON_US;
    int64_t soonest_us = INT64_MAX;
    for (const struct list *n = k->in_flight.next; n != &k->in_flight; n = n->next) {
        const struct request *r = list_entry(n, struct request, node);
        int64_t late_us = r->written_us + r->patience_us + wait_us;
        soonest_us = r != &k->hello && late_us < soonest_us ? late_us : soonest_us;
    }
    return soonest_us;
}

static int64_t probe_at(const struct connection *k)
{
    if (k->state != CONNECTION_READY || !request_is_idle(&k->hello)) {
        return INT64_MAX;
    }
    int64_t since_us = unanswered_since(k);
    if (since_us == INT64_MAX) {
        return INT64_MAX;
    }
    since_us = since_us > k->received_us ? since_us : k->received_us;
    int64_t silent_us = since_us + k->probe_after_us;
    int64_t late_us = overtaken_at(k);
    return silent_us < late_us ? silent_us : late_us;
}

/* When the hello that is out is overdue enough to look elsewhere. */
static int64_t suspect_at(const struct connection *k)
{
    if (k->suspect || request_is_idle(&k->hello) || !k->hello.written) {
        return INT64_MAX;
    }
    return k->hello.written_us + (k->probing ? SUSPECT_PROBE_US : SUSPECT_GREETING_US);
}

static void on_timer(struct timer *timer)
{
    struct connection *k = list_entry(timer, struct connection, timer);
    int64_t now_us = clock_monotonic_us();
    fail_overdue(k, now_us);
    if (suspect_at(k) <= now_us) {
        k->suspect = true;
        route_suspect(k->client, k);
    }
    if (probe_at(k) <= now_us) {
        k->probing = true;
        k->probe_after_us =
            k->probe_after_us * 2 < PROBE_LAST_US ? k->probe_after_us * 2 : PROBE_LAST_US;
        greet(k);
    }
    write_waiting(k);
    int64_t next_us = earliest(&k->waiting, earliest(&k->in_flight, probe_at(k)));
    next_us = suspect_at(k) < next_us ? suspect_at(k) : next_us;
    if (next_us != INT64_MAX) {
        timer_set_sooner(&k->client->timers, &k->timer, next_us);
    }
}
