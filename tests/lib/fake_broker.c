#include "lib/fake_broker_inner.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"

/* ---- Rules. */

void fake_rule(struct fake_broker *b, enum command command, int skip, int count,
               enum fake_action action, int value)
{
    pthread_mutex_lock(&b->shared->lock);
    assert_true(b->rule_count < RULES_MAX);
    b->rules[b->rule_count++] = (struct rule){command, skip, count, action, value};
    pthread_mutex_unlock(&b->shared->lock);
}

void fake_can(struct fake_broker *b, enum command command, struct bytes body)
{
    pthread_mutex_lock(&b->shared->lock);
    assert_true(b->can_count < CANS_MAX);
    struct can *can = &b->cans[b->can_count++];
    can->command = (uint16_t)command;
    buf_init(&can->body, FRAME_LIMIT);
    buf_append_bytes(&can->body, body);
    pthread_mutex_unlock(&b->shared->lock);
}

void fake_rules_clear(struct fake_broker *b)
{
    pthread_mutex_lock(&b->shared->lock);
    b->rule_count = 0;
    pthread_mutex_unlock(&b->shared->lock);
}

/* The first rule of the command that is not used up decides. */
static bool next_rule(struct fake_broker *b, uint16_t command, struct rule *rule)
{
    for (size_t i = 0; i < b->rule_count; i++) {
        struct rule *r = &b->rules[i];
        if ((uint16_t)r->command != command || r->count == 0) {
            continue;
        }
        if (r->skip > 0) {
            r->skip--;
            return false;
        }
        r->count--;
        *rule = *r;
        return true;
    }
    return false;
}

/* ---- Sending, now or later. */

static void send_frame(struct fake_broker *b, net_peer peer, struct buf *frame)
{
    if (b->server != NULL) {
        (void)net_server_send(b->server, peer, frame);
    }
}

static void send_copy(struct fake_broker *b, net_peer peer, const struct buf *frame)
{
    struct buf copy;
    buf_init(&copy, FRAME_LIMIT);
    buf_append_bytes(&copy, buf_bytes(frame));
    send_frame(b, peer, &copy);
    buf_fini(&copy);
}

static struct pending *keep(struct fake_broker *b, net_peer peer, const struct frame *f)
{
    struct pending *p = mem_zalloc(1, sizeof(*p));
    assert_non_null(p);
    list_init(&p->node);
    buf_init(&p->frame, FRAME_LIMIT);
    p->peer = peer;
    p->command = f->command;
    p->request_id = f->request_id;
    list_push_back(&b->pending, &p->node);
    return p;
}

static void pending_free(struct pending *p)
{
    list_remove(&p->node);
    buf_fini(&p->frame);
    mem_free(p);
}

static void release_held(struct fake_broker *b, uint16_t command)
{
    struct list *n = b->pending.next;
    while (n != &b->pending) {
        struct pending *p = list_entry(n, struct pending, node);
        n = n->next;
        if (p->held && p->command == command) {
            send_frame(b, p->peer, &p->frame);
            pending_free(p);
        }
    }
}

static void fill_randomly(struct fake_broker *b, struct buf *frame, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        buf_append_u8(frame, (uint8_t)prng_next(&b->prng));
    }
}

static void flip_attachment(struct buf *frame)
{
    if (frame->size > 0) {
        frame->data[frame->size - 1] ^= 0x10;
    }
}

static void misbehave(struct fake_broker *b, net_peer peer, const struct frame *f,
                      const struct rule *rule, struct buf *frame)
{
    struct pending *p;
    switch (rule->action) {
    case FAKE_DELAY:
    case FAKE_HOLD:
        p = keep(b, peer, f);
        p->held = rule->action == FAKE_HOLD;
        p->due_us = p->held ? INT64_MAX : clock_monotonic_us() + (int64_t)rule->value * 1000;
        buf_append_bytes(&p->frame, buf_bytes(frame));
        return;
    case FAKE_DUPLICATE:
        send_copy(b, peer, frame);
        send_frame(b, peer, frame);
        return;
    case FAKE_GARBAGE:
        buf_clear(frame);
        fill_randomly(b, frame, (size_t)rule->value);
        send_frame(b, peer, frame);
        return;
    case FAKE_GARBLE:
        buf_clear(frame);
        fake_begin(frame, f, FERRY_OK);
        fill_randomly(b, frame, 1 + prng_below(&b->prng, 60));
        assert_true(frame_end(frame));
        send_frame(b, peer, frame);
        return;
    case FAKE_FLIP:
        flip_attachment(frame);
        send_frame(b, peer, frame);
        return;
    case FAKE_DROP_REQUEST:
    case FAKE_DROP_REPLY:
    case FAKE_REFUSE:
        return;
    }
}

static void handle_fetch(struct fake_broker *b, net_peer peer, const struct frame *f,
                         const struct rule *rule)
{
    struct buf frame;
    struct fetch_request *request = mem_zalloc(1, sizeof(*request));
    assert_non_null(request);
    buf_init(&frame, FRAME_LIMIT);
    assert_int_equal(fetch_request_decode(f->body, request), FERRY_OK);
    if (fake_try_fetch(b, &frame, f, request, rule != NULL)) {
        assert_true(frame_end(&frame));
        if (rule != NULL) {
            misbehave(b, peer, f, rule, &frame);
        } else {
            send_frame(b, peer, &frame);
        }
    } else {
        struct pending *p = keep(b, peer, f);
        p->due_us = clock_monotonic_us() + (int64_t)request->max_wait_ms * 1000;
        p->fetch = *request;
    }
    mem_free(request);
    buf_fini(&frame);
}

/* Those that wait are taken back. */
static void end_receives(struct fake_broker *b, net_peer peer)
{
    for (struct list *n = b->pending.next; n != &b->pending; n = n->next) {
        struct pending *p = list_entry(n, struct pending, node);
        if (p->command == COMMAND_RECEIVE && p->peer == peer && p->frame.size == 0) {
            p->due_us = 0;
        }
    }
}

static void handle_receive(struct fake_broker *b, net_peer peer, const struct frame *f,
                           const struct rule *rule)
{
    struct buf frame;
    struct receive_request *request = mem_zalloc(1, sizeof(*request));
    assert_non_null(request);
    buf_init(&frame, FRAME_LIMIT);
    assert_int_equal(receive_request_decode(f->body, request), FERRY_OK);
    bool back = request->max_messages == 0 && request->max_bytes == 0;
    if (back) {
        end_receives(b, peer);
    }
    bool told = (!back && fake_opens_can(b, &frame, f)) ||
                fake_try_receive(b, &frame, f, request, back || rule != NULL);
    if (told) {
        assert_true(frame_end(&frame));
        if (rule != NULL) {
            misbehave(b, peer, f, rule, &frame);
        } else {
            send_frame(b, peer, &frame);
        }
    } else {
        struct pending *p = keep(b, peer, f);
        p->due_us = clock_monotonic_us() + (int64_t)request->max_wait_ms * 1000;
        p->receive = *request;
    }
    mem_free(request);
    buf_fini(&frame);
}

static void handle(struct fake_broker *b, net_peer peer, struct net_message *m)
{
    struct frame f;
    struct err_text e;
    struct rule rule;
    struct buf frame;
    assert_int_equal(frame_parse(net_message_bytes(m), &f, &e), FERRY_OK);
    assert_true(f.command < COMMANDS_MAX);
    b->requests[f.command]++;
    fake_remember(b, &f);
    pthread_cond_broadcast(&b->changed);
    bool ruled = next_rule(b, f.command, &rule);
    if (ruled && rule.action == FAKE_DROP_REQUEST) {
        return;
    }
    buf_init(&frame, FRAME_LIMIT);
    if (ruled && rule.action == FAKE_REFUSE) {
        fake_refuse(&frame, &f, (enum ferry_err)rule.value, "told to refuse");
        ruled = false;
    } else if (fake_sends_on(b, &frame, &f)) {
        ruled = false;
    } else if (f.command == COMMAND_FETCH) {
        handle_fetch(b, peer, &f, ruled ? &rule : NULL);
        buf_fini(&frame);
        return;
    } else if (f.command == COMMAND_RECEIVE) {
        handle_receive(b, peer, &f, ruled ? &rule : NULL);
        buf_fini(&frame);
        return;
    } else if (!fake_opens_can(b, &frame, &f)) {
        fake_answer(b, &frame, &f);
    }
    assert_true(frame_end(&frame));
    if (ruled) {
        misbehave(b, peer, &f, &rule, &frame);
    } else {
        send_frame(b, peer, &frame);
        release_held(b, f.command);
    }
    buf_fini(&frame);
}

static void answer_pending(struct fake_broker *b, int64_t now_us)
{
    struct list *n = b->pending.next;
    while (n != &b->pending) {
        struct pending *p = list_entry(n, struct pending, node);
        n = n->next;
        bool due = p->due_us <= now_us;
        if (p->command == COMMAND_FETCH && p->frame.size == 0) {
            struct frame f = {.command = p->command, .request_id = p->request_id};
            if (!fake_try_fetch(b, &p->frame, &f, &p->fetch, due)) {
                continue;
            }
            assert_true(frame_end(&p->frame));
            due = true;
        }
        if (p->command == COMMAND_RECEIVE && p->frame.size == 0) {
            struct frame f = {.command = p->command, .request_id = p->request_id};
            if (!fake_try_receive(b, &p->frame, &f, &p->receive, due)) {
                continue;
            }
            assert_true(frame_end(&p->frame));
            due = true;
        }
        if (due) {
            send_frame(b, p->peer, &p->frame);
            pending_free(p);
        }
    }
}

/* ---- The thread. */

static void open_server(struct fake_broker *b, const char *endpoint)
{
    struct err_text e;
    struct net_server_config config = {.message_max_bytes = FRAME_LIMIT,
                                       .connections_max = 64,
                                       .queue_max = 1000,
                                       .replies_max = 1000,
                                       .unread_max_bytes = 64u << 20,
                                       .handshake_ms = 5000};
    enum ferry_err err = net_server_open(b->context, endpoint, &config, &b->server, &e);
    if (err != FERRY_OK) {
        fail_msg("the fake broker cannot listen: %s", e.text);
    }
    (void)snprintf(b->endpoint, sizeof(b->endpoint), "%s", net_server_endpoint(b->server));
}

static void go_down_or_up(struct fake_broker *b)
{
    char endpoint[ENDPOINT_MAX_BYTES + 1];
    if (b->want_down == b->is_down) {
        return;
    }
    if (b->want_down) {
        net_server_close(&b->server);
        while (!list_is_empty(&b->pending)) {
            pending_free(list_entry(b->pending.next, struct pending, node));
        }
    } else {
        (void)snprintf(endpoint, sizeof(endpoint), "%s", b->endpoint);
        open_server(b, endpoint);
    }
    b->is_down = b->want_down;
    pthread_cond_broadcast(&b->changed);
}

static void turn(struct fake_broker *b, struct net_message *m)
{
    net_peer peer;
    go_down_or_up(b);
    if (b->frozen) {
        return;
    }
    if (b->server != NULL) {
        for (int i = 0; i < 1000 && net_server_receive(b->server, &peer, m); i++) {
            handle(b, peer, m);
        }
        net_server_watch(b->server);
    }
    answer_pending(b, clock_monotonic_us());
}

static void *run(void *arg)
{
    struct fake_broker *b = arg;
    struct net_message m;
    bool stopping = false;
    net_message_init(&m);
    while (!stopping) {
        pthread_mutex_lock(&b->shared->lock);
        turn(b, &m);
        stopping = b->stopping;
        bool waiting = !list_is_empty(&b->pending) && !b->frozen;
        bool listening = b->server != NULL && !b->frozen;
        struct net_poll_item items[2] = {{.fd = b->wake.fd}, {.server = b->server, .fd = -1}};
        size_t count = listening ? 2 : 1;
        pthread_mutex_unlock(&b->shared->lock);
        if (!stopping) {
            (void)net_poll(items, count, waiting ? 2 : 50);
            net_wake_clear(&b->wake);
        }
    }
    net_message_close(&m);
    return NULL;
}

static struct fake_broker *start_node(struct fake_shared *shared, struct ferry_context *context,
                                      const char *endpoint)
{
    struct fake_broker *b = mem_zalloc(1, sizeof(*b));
    assert_non_null(b);
    b->shared = shared;
    list_init(&b->pending);
    prng_init(&b->prng, 42);
    b->owns_context = context == NULL;
    b->context = context;
    if (b->owns_context) {
        assert_int_equal(net_context_new(1, &b->context), FERRY_OK);
    }
    assert_int_equal(net_wake_init(&b->wake), FERRY_OK);
    pthread_cond_init(&b->changed, NULL);
    open_server(b, endpoint != NULL ? endpoint : "tcp://127.0.0.1:*");
    pthread_mutex_lock(&shared->lock);
    assert_true(shared->nodes < FAKE_NODES_MAX);
    b->node = shared->nodes++;
    shared->brokers[b->node] = b;
    pthread_mutex_unlock(&shared->lock);
    assert_int_equal(pthread_create(&b->thread, NULL, run, b), 0);
    return b;
}

struct fake_broker *fake_broker_start(int partitions, struct ferry_context *context,
                                      const char *endpoint)
{
    struct fake_shared *shared = mem_zalloc(1, sizeof(*shared));
    assert_non_null(shared);
    shared->seen = mem_zalloc(SEEN_MAX, sizeof(*shared->seen));
    assert_non_null(shared->seen);
    shared->partition_count = partitions;
    for (int i = 0; i < FAKE_PARTITIONS_MAX; i++) {
        list_init(&shared->partitions[i].log);
        shared->partitions[i].committed = -1;
        shared->partitions[i].owner = -1;
    }
    buf_init(&shared->checkpoint, CHECKPOINT_MAX_BYTES);
    pthread_mutex_init(&shared->lock, NULL);
    return start_node(shared, context, endpoint);
}

struct fake_broker *fake_broker_join(struct fake_broker *first)
{
    return start_node(first->shared, NULL, NULL);
}

static void shared_free(struct fake_shared *shared)
{
    for (int i = 0; i < FAKE_PARTITIONS_MAX; i++) {
        struct list *node;
        while ((node = list_pop_front(&shared->partitions[i].log)) != NULL) {
            mem_free(list_entry(node, struct stored, node));
        }
    }
    buf_fini(&shared->checkpoint);
    pthread_mutex_destroy(&shared->lock);
    mem_free(shared->seen);
    mem_free(shared);
}

void fake_broker_stop(struct fake_broker **broker)
{
    struct fake_broker *b = *broker;
    pthread_mutex_lock(&b->shared->lock);
    b->stopping = true;
    pthread_mutex_unlock(&b->shared->lock);
    net_wake_signal(&b->wake);
    pthread_join(b->thread, NULL);
    net_server_close(&b->server);
    while (!list_is_empty(&b->pending)) {
        pending_free(list_entry(b->pending.next, struct pending, node));
    }
    for (size_t i = 0; i < b->can_count; i++) {
        buf_fini(&b->cans[i].body);
    }
    fake_forget_asked(b);
    net_wake_fini(&b->wake);
    if (b->owns_context) {
        net_context_free(&b->context);
    }
    pthread_cond_destroy(&b->changed);
    if (b->node == 0) {
        shared_free(b->shared);
    }
    mem_free(b);
    *broker = NULL;
}

static void set_down(struct fake_broker *b, bool down)
{
    pthread_mutex_lock(&b->shared->lock);
    b->want_down = down;
    net_wake_signal(&b->wake);
    while (b->is_down != down) {
        pthread_cond_wait(&b->changed, &b->shared->lock);
    }
    pthread_mutex_unlock(&b->shared->lock);
}

void fake_broker_kill(struct fake_broker *b)
{
    set_down(b, true);
}

void fake_broker_revive(struct fake_broker *b)
{
    set_down(b, false);
}

void fake_broker_freeze(struct fake_broker *b, bool frozen)
{
    pthread_mutex_lock(&b->shared->lock);
    b->frozen = frozen;
    pthread_mutex_unlock(&b->shared->lock);
    net_wake_signal(&b->wake);
}

/* ---- Who leads. */

void fake_lead(struct fake_broker *b, int partition, int node, int told)
{
    pthread_mutex_lock(&b->shared->lock);
    for (int i = 0; i < FAKE_PARTITIONS_MAX; i++) {
        if (partition < 0 || partition == i) {
            b->shared->partitions[i].leader = node;
            b->shared->partitions[i].told = told;
        }
    }
    pthread_mutex_unlock(&b->shared->lock);
}

void fake_control(struct fake_broker *b, int node)
{
    pthread_mutex_lock(&b->shared->lock);
    b->shared->controller = node;
    pthread_mutex_unlock(&b->shared->lock);
}

void fake_hint(struct fake_broker *b, const char *endpoint)
{
    pthread_mutex_lock(&b->shared->lock);
    b->shared->no_hint = endpoint != NULL && endpoint[0] == '\0';
    (void)snprintf(b->shared->hint, sizeof(b->shared->hint), "%s",
                   endpoint != NULL ? endpoint : "");
    pthread_mutex_unlock(&b->shared->lock);
}

void fake_lag(struct fake_broker *b, int64_t records)
{
    pthread_mutex_lock(&b->shared->lock);
    for (int i = 0; i < FAKE_PARTITIONS_MAX; i++) {
        b->shared->partitions[i].lag = records;
    }
    pthread_mutex_unlock(&b->shared->lock);
}

/* ---- For the test's eyes. */

const char *fake_broker_endpoint(const struct fake_broker *b)
{
    return b->endpoint;
}

void fake_forget_producers(struct fake_broker *b)
{
    pthread_mutex_lock(&b->shared->lock);
    for (int i = 0; i < FAKE_PARTITIONS_MAX; i++) {
        b->shared->partitions[i].producer_count = 0;
    }
    pthread_mutex_unlock(&b->shared->lock);
}

void fake_drop_topic(struct fake_broker *b)
{
    pthread_mutex_lock(&b->shared->lock);
    b->shared->dropped = true;
    pthread_mutex_unlock(&b->shared->lock);
}

void fake_trim(struct fake_broker *b, int64_t records)
{
    pthread_mutex_lock(&b->shared->lock);
    for (int i = 0; i < b->shared->partition_count; i++) {
        b->shared->partitions[i].start = records;
    }
    pthread_mutex_unlock(&b->shared->lock);
}

int fake_requests(struct fake_broker *b, enum command command)
{
    pthread_mutex_lock(&b->shared->lock);
    int requests = b->requests[command];
    pthread_mutex_unlock(&b->shared->lock);
    return requests;
}

int fake_retries_that_differ(struct fake_broker *b)
{
    pthread_mutex_lock(&b->shared->lock);
    int differing = b->shared->differing;
    pthread_mutex_unlock(&b->shared->lock);
    return differing;
}

int64_t fake_end(struct fake_broker *b, int partition)
{
    pthread_mutex_lock(&b->shared->lock);
    int64_t end = b->shared->partitions[partition].end;
    pthread_mutex_unlock(&b->shared->lock);
    return end;
}

int64_t fake_committed(struct fake_broker *b, int partition)
{
    pthread_mutex_lock(&b->shared->lock);
    int64_t committed = b->shared->partitions[partition].committed;
    pthread_mutex_unlock(&b->shared->lock);
    return committed;
}

static struct list *next_stored(struct fake_broker *b, struct list *n)
{
    pthread_mutex_lock(&b->shared->lock);
    struct list *next = n->next;
    pthread_mutex_unlock(&b->shared->lock);
    return next;
}

void fake_each_record(struct fake_broker *b, int partition,
                      void (*visit)(const struct batch_record *record, int64_t offset, void *arg),
                      void *arg)
{
    struct list *log = &b->shared->partitions[partition].log;
    /* Stored batches stay until the end, so the visitor runs without the lock (it may fail). */
    for (struct list *n = next_stored(b, log); n != log; n = next_stored(b, n)) {
        struct stored *s = list_entry(n, struct stored, node);
        struct batch_reader reader;
        struct batch_record record;
        enum ferry_err err;
        batch_reader_init(&reader, bytes_of(s->data, s->size));
        for (int64_t i = 0; batch_reader_next(&reader, &record, &err); i++) {
            visit(&record, s->base_offset + i, arg);
        }
    }
}

void fake_store(struct fake_broker *b, int partition, struct bytes batch)
{
    struct batch_header h;
    batch_header_read(batch, &h);
    pthread_mutex_lock(&b->shared->lock);
    (void)fake_store_batch(&b->shared->partitions[partition], batch, h.count);
    pthread_mutex_unlock(&b->shared->lock);
    net_wake_signal(&b->wake);
}

void fake_set(struct ferry_conf *conf, const char *name, const char *value)
{
    char detail[ERR_TEXT_MAX];
    if (ferry_conf_set(conf, name, value, detail, sizeof(detail)) != FERRY_OK) {
        fail_msg("%s = %s: %s", name, value, detail);
    }
}

struct ferry_conf *fake_conf(struct fake_broker *b)
{
    struct ferry_conf *conf;
    assert_int_equal(ferry_conf_new(&conf), FERRY_OK);
    fake_set(conf, "servers", b->endpoint);
    fake_set(conf, "request.timeout_ms", "300ms");
    fake_set(conf, "retry.backoff_ms", "5ms");
    fake_set(conf, "retry.backoff_max_ms", "40ms");
    fake_set(conf, "fetch.max_wait_ms", "50ms");
    return conf;
}
