#include "lib/fake_broker.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/checksum.h"
#include "base/clock.h"
#include "base/list.h"
#include "base/mem.h"
#include "base/prng.h"
#include "wire/frame.h"

#define RULES_MAX     64
#define COMMANDS_MAX  32
#define REMEMBERED    16 /* Batches of a producer. */
#define PRODUCERS_MAX 64
#define SEEN_MAX      65536
#define FRAME_LIMIT   FRAME_MAX_BYTES

struct rule {
    enum command command;
    int skip, count;
    enum fake_action action;
    int value;
};

struct stored {
    struct list node;
    int64_t base_offset;
    uint32_t count;
    size_t size;
    uint8_t data[];
};

struct producer_memory {
    uint64_t id;
    uint32_t epoch;
    uint64_t next_sequence;
    struct {
        uint64_t sequence;
        int64_t base_offset;
        bool used;
    } last[REMEMBERED];
    size_t at;
};

struct fake_partition {
    struct list log;
    int64_t start, end;
    struct producer_memory producers[PRODUCERS_MAX];
    size_t producer_count;
    int64_t committed; /* -1: no subscription. */
    uint64_t cursor_version, cursor_epoch;
    size_t cursor_bytes;
    uint8_t cursor[CURSOR_MAX_BYTES];
};

/* A reply that waits: a delay, a hold, or a long poll. */
struct pending {
    struct list node;
    net_peer peer;
    uint16_t command;
    uint64_t request_id;
    int64_t due_us;
    bool held;
    struct buf frame; /* Empty for a fetch: made when it is answered. */
    struct fetch_request fetch;
};

struct seen {
    uint64_t group, producer_id, sequence, checksum;
    uint32_t epoch;
};

struct fake_broker {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct net_wake wake;
    struct ferry_context *context;
    bool owns_context;
    struct net_server *server;
    char endpoint[ENDPOINT_MAX_BYTES + 1];
    bool stopping, want_down, is_down;
    int partition_count;
    bool dropped;
    struct fake_partition partitions[FAKE_PARTITIONS_MAX];
    struct rule rules[RULES_MAX];
    size_t rule_count;
    int requests[COMMANDS_MAX];
    uint64_t next_producer;
    uint64_t elected_epoch;
    struct buf checkpoint;
    struct list pending;
    struct seen *seen;
    size_t seen_count;
    int differing;
    struct prng prng;
};

/* ---- Rules. */

void fake_rule(struct fake_broker *b, enum command command, int skip, int count,
               enum fake_action action, int value)
{
    pthread_mutex_lock(&b->lock);
    assert_true(b->rule_count < RULES_MAX);
    b->rules[b->rule_count++] = (struct rule){command, skip, count, action, value};
    pthread_mutex_unlock(&b->lock);
}

void fake_rules_clear(struct fake_broker *b)
{
    pthread_mutex_lock(&b->lock);
    b->rule_count = 0;
    pthread_mutex_unlock(&b->lock);
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

/* ---- Replies. */

struct answer {
    struct buf frame;
    enum ferry_err err;
};

static void begin(struct buf *frame, const struct frame *f, enum ferry_err err)
{
    frame_begin_reply(frame, f->command, f->request_id, err);
}

static void refuse(struct buf *frame, const struct frame *f, enum ferry_err err, const char *why)
{
    struct error_reply error = {.detail = bytes_of_string(why), .retry_after_ms = 1};
    buf_clear(frame);
    begin(frame, f, err);
    error_reply_encode(frame, &error);
}

static struct fake_partition *partition_of(struct fake_broker *b, uint64_t group)
{
    bool known = group >= FAKE_GROUP && group < FAKE_GROUP + (uint64_t)b->partition_count;
    return known && !b->dropped ? &b->partitions[group - FAKE_GROUP] : NULL;
}

static void answer_hello(struct buf *frame, const struct frame *f)
{
    struct hello_reply hello = {.broker_version = bytes_of_string("fake"),
                                .node_id = 1,
                                .message_max_bytes = 1 << 20,
                                .batch_max_bytes = 4 << 20,
                                .fetch_max_bytes = 8 << 20,
                                .inflight_max = 64};
    begin(frame, f, FERRY_OK);
    hello_reply_encode(frame, &hello);
}

static void answer_metadata(struct fake_broker *b, struct buf *frame, const struct frame *f)
{
    struct metadata_request request;
    static const char topic[] = FAKE_TOPIC;
    if (metadata_request_decode(f->body, &request) != FERRY_OK || b->dropped ||
        !bytes_equal(request.topic, bytes_of_string(topic))) {
        refuse(frame, f, FERRY_ERR_UNKNOWN_TOPIC, "no such topic");
        return;
    }
    struct metadata_reply *m = mem_zalloc(1, sizeof(*m));
    assert_non_null(m);
    m->endpoint_count = 1;
    m->endpoints[0] = (struct metadata_endpoint){
        .node_id = 1, .shard = 0, .endpoint = bytes_of_string(b->endpoint)};
    m->topic_id.bytes[0] = 7;
    m->replicas = 1;
    m->partition_count = (uint32_t)b->partition_count;
    for (int i = 0; i < b->partition_count; i++) {
        m->partitions[i] = (struct metadata_partition){.group = FAKE_GROUP + (uint64_t)i};
    }
    begin(frame, f, FERRY_OK);
    metadata_reply_encode(frame, m);
    mem_free(m);
}

static void answer_producer_init(struct fake_broker *b, struct buf *frame, const struct frame *f)
{
    struct producer_init_request request;
    assert_int_equal(producer_init_request_decode(f->body, &request), FERRY_OK);
    bool named = request.name.size > 0;
    struct producer_init_reply reply = {.producer_id = named ? 1 : ++b->next_producer + 1,
                                        .epoch = named ? (uint32_t)++b->next_producer : 0};
    begin(frame, f, FERRY_OK);
    producer_init_reply_encode(frame, &reply);
}

/* ---- Produce. */

static void remember_bytes(struct fake_broker *b, uint64_t group, const struct batch_header *h)
{
    for (size_t i = 0; i < b->seen_count; i++) {
        struct seen *s = &b->seen[i];
        if (s->group == group && s->producer_id == h->producer_id &&
            s->epoch == h->producer_epoch && s->sequence == h->first_sequence &&
            s->checksum != h->checksum) {
            b->differing++;
        }
    }
    if (b->seen_count < SEEN_MAX) {
        b->seen[b->seen_count++] = (struct seen){.group = group,
                                                 .producer_id = h->producer_id,
                                                 .sequence = h->first_sequence,
                                                 .checksum = h->checksum,
                                                 .epoch = h->producer_epoch};
    }
}

static int64_t store_batch(struct fake_partition *p, struct bytes batch, uint32_t count)
{
    struct stored *s = mem_alloc(sizeof(*s) + batch.size);
    assert_non_null(s);
    list_init(&s->node);
    s->base_offset = p->end;
    s->count = count;
    s->size = batch.size;
    memcpy(s->data, batch.data, batch.size);
    list_push_back(&p->log, &s->node);
    p->end += count;
    return s->base_offset;
}

static struct producer_memory *memory_of(struct fake_partition *p, const struct batch_header *h)
{
    for (size_t i = 0; i < p->producer_count; i++) {
        if (p->producers[i].id == h->producer_id) {
            return &p->producers[i];
        }
    }
    assert_true(p->producer_count < PRODUCERS_MAX);
    struct producer_memory *m = &p->producers[p->producer_count++];
    *m = (struct producer_memory){.id = h->producer_id, .epoch = h->producer_epoch};
    return m;
}

static enum ferry_err sequence(struct fake_partition *p, const struct batch_header *h,
                               struct bytes batch, struct produce_reply *reply)
{
    struct producer_memory *m = memory_of(p, h);
    if (h->producer_epoch < m->epoch) {
        return FERRY_ERR_PRODUCER_FENCED;
    }
    if (h->producer_epoch > m->epoch) {
        *m = (struct producer_memory){.id = h->producer_id, .epoch = h->producer_epoch};
    }
    for (size_t i = 0; i < REMEMBERED; i++) {
        if (m->last[i].used && m->last[i].sequence == h->first_sequence) {
            reply->base_offset = m->last[i].base_offset;
            reply->duplicate = true;
            return FERRY_OK;
        }
    }
    if (h->first_sequence != m->next_sequence) {
        return h->first_sequence > m->next_sequence ? FERRY_ERR_SEQUENCE_GAP
                                                    : FERRY_ERR_SEQUENCE_STALE;
    }
    reply->base_offset = store_batch(p, batch, h->count);
    m->next_sequence += h->count;
    m->last[m->at].sequence = h->first_sequence;
    m->last[m->at].base_offset = reply->base_offset;
    m->last[m->at].used = true;
    m->at = (m->at + 1) % REMEMBERED;
    return FERRY_OK;
}

static void answer_produce(struct fake_broker *b, struct buf *frame, const struct frame *f)
{
    struct produce_request request;
    struct produce_reply reply = {.base_offset = -1};
    struct batch_header h;
    struct err_text e;
    assert_int_equal(produce_request_decode(f->body, &request), FERRY_OK);
    assert_int_equal(batch_check(f->attachment, &h, &e), FERRY_OK);
    struct fake_partition *p = partition_of(b, request.group);
    enum ferry_err err = FERRY_ERR_UNKNOWN_PARTITION;
    remember_bytes(b, request.group, &h);
    if (p != NULL) {
        err = sequence(p, &h, f->attachment, &reply);
    }
    if (err != FERRY_OK) {
        refuse(frame, f, err, "by the rules of sequences");
        return;
    }
    begin(frame, f, FERRY_OK);
    produce_reply_encode(frame, &reply);
}

static void answer_append(struct fake_broker *b, struct buf *frame, const struct frame *f)
{
    struct append_cas_request request;
    struct batch_header h;
    struct err_text e;
    assert_int_equal(append_cas_request_decode(f->body, &request), FERRY_OK);
    assert_int_equal(batch_check(f->attachment, &h, &e), FERRY_OK);
    struct fake_partition *p = partition_of(b, request.group);
    if (p == NULL) {
        refuse(frame, f, FERRY_ERR_UNKNOWN_PARTITION, "no such partition");
        return;
    }
    enum ferry_err err = request.epoch < p->cursor_epoch               ? FERRY_ERR_SOURCE_FENCED
                         : request.expect_version != p->cursor_version ? FERRY_ERR_CURSOR_CONFLICT
                                                                       : FERRY_OK;
    if (err != FERRY_OK) {
        struct append_cas_refusal refusal = {.version = p->cursor_version,
                                             .epoch = p->cursor_epoch,
                                             .cursor = bytes_of(p->cursor, p->cursor_bytes),
                                             .refused_index = -1};
        begin(frame, f, err);
        append_cas_refusal_encode(frame, &refusal);
        return;
    }
    p->cursor_version++;
    p->cursor_epoch = request.epoch;
    p->cursor_bytes = request.cursor.size;
    memcpy(p->cursor, request.cursor.data, request.cursor.size);
    struct append_cas_reply reply = {.version = p->cursor_version,
                                     .base_offset = store_batch(p, f->attachment, h.count)};
    begin(frame, f, FERRY_OK);
    append_cas_reply_encode(frame, &reply);
}

/* ---- Fetch. */

static void fetch_item(struct fake_broker *b, const struct fetch_item *item,
                       struct fetch_reply_item *out, struct buf *data, size_t max_bytes)
{
    struct fake_partition *p = partition_of(b, item->group);
    *out = (struct fetch_reply_item){.group = item->group};
    if (p == NULL) {
        out->status = FERRY_ERR_UNKNOWN_PARTITION;
        return;
    }
    out->start_offset = p->start;
    out->end_offset = p->end;
    if (item->offset < p->start || item->offset > p->end) {
        out->status = FERRY_ERR_OFFSET_OUT_OF_RANGE;
        return;
    }
    size_t before = data->size;
    for (struct list *n = p->log.next; n != &p->log && data->size < max_bytes; n = n->next) {
        struct stored *s = list_entry(n, struct stored, node);
        if (s->base_offset + s->count > item->offset) {
            struct fetch_entry entry = {.base_offset = s->base_offset,
                                        .append_time_ms = 1000 + s->base_offset,
                                        .batch = bytes_of(s->data, s->size)};
            fetch_entry_append(data, &entry);
        }
    }
    out->data_bytes = (uint32_t)(data->size - before);
}

/* False when there is nothing yet: the fetch waits. */
static bool try_fetch(struct fake_broker *b, struct buf *frame, const struct frame *f,
                      const struct fetch_request *request, bool anyway)
{
    struct fetch_reply *reply = mem_zalloc(1, sizeof(*reply));
    struct buf data;
    assert_non_null(reply);
    buf_init(&data, FRAME_LIMIT);
    bool told = anyway;
    reply->count = request->count;
    for (uint32_t i = 0; i < request->count; i++) {
        fetch_item(b, &request->items[i], &reply->items[i], &data, request->max_bytes);
        told = told || reply->items[i].status != 0 || reply->items[i].data_bytes > 0;
    }
    if (told) {
        buf_clear(frame);
        begin(frame, f, FERRY_OK);
        fetch_reply_encode(frame, reply);
        frame_begin_attachment(frame);
        buf_append_bytes(frame, buf_bytes(&data));
    }
    buf_fini(&data);
    mem_free(reply);
    return told;
}

/* ---- The rest. */

static void answer_subscription(struct fake_broker *b, struct buf *frame, const struct frame *f)
{
    struct subscription_create_request create = {.group = 0};
    struct subscription_get_request get = {.group = 0};
    struct subscription_commit_request commit = {.group = 0};
    bool is_create = f->command == COMMAND_SUBSCRIPTION_CREATE;
    bool is_get = f->command == COMMAND_SUBSCRIPTION_GET;
    if (is_create) {
        assert_int_equal(subscription_create_request_decode(f->body, &create), FERRY_OK);
    } else if (is_get) {
        assert_int_equal(subscription_get_request_decode(f->body, &get), FERRY_OK);
    } else {
        assert_int_equal(subscription_commit_request_decode(f->body, &commit), FERRY_OK);
    }
    struct fake_partition *p = partition_of(b, create.group + get.group + commit.group);
    if (p == NULL) {
        refuse(frame, f, FERRY_ERR_UNKNOWN_PARTITION, "no such partition");
        return;
    }
    if (is_create && p->committed < 0) {
        p->committed = create.from == FERRY_FROM_START ? p->start
                       : create.from == FERRY_FROM_END ? p->end
                                                       : create.from;
    }
    if (p->committed < 0) {
        refuse(frame, f, FERRY_ERR_UNKNOWN_SUBSCRIPTION, "no such subscription");
        return;
    }
    begin(frame, f, FERRY_OK);
    if (is_create) {
        struct subscription_create_reply reply = {.position = p->committed};
        subscription_create_reply_encode(frame, &reply);
    } else if (is_get) {
        struct subscription_get_reply reply = {.mode = SUBSCRIPTION_STREAM,
                                               .position = p->committed,
                                               .start_offset = p->start,
                                               .end_offset = p->end};
        subscription_get_reply_encode(frame, &reply);
    } else {
        p->committed = commit.position > p->committed ? commit.position : p->committed;
        struct subscription_commit_reply reply = {.position = p->committed};
        subscription_commit_reply_encode(frame, &reply);
    }
}

static void answer_partition(struct fake_broker *b, struct buf *frame, const struct frame *f)
{
    bool is_info = f->command == COMMAND_PARTITION_INFO;
    struct partition_info_request info = {.group = 0};
    struct offset_find_request find = {.group = 0};
    if (is_info) {
        assert_int_equal(partition_info_request_decode(f->body, &info), FERRY_OK);
    } else {
        assert_int_equal(offset_find_request_decode(f->body, &find), FERRY_OK);
    }
    struct fake_partition *p = partition_of(b, info.group + find.group);
    if (p == NULL) {
        refuse(frame, f, FERRY_ERR_UNKNOWN_PARTITION, "no such partition");
        return;
    }
    begin(frame, f, FERRY_OK);
    if (is_info) {
        struct partition_info_reply reply = {
            .leader_node = 1, .start_offset = p->start, .end_offset = p->end, .size_bytes = 1};
        partition_info_reply_encode(frame, &reply);
    } else {
        int64_t by_time = find.time_ms - 1000; /* Append times are 1000 + offset. */
        struct offset_find_reply reply = {.offset = find.kind == OFFSET_START ? p->start
                                                    : find.kind == OFFSET_END ? p->end
                                                                              : by_time,
                                          .start_offset = p->start,
                                          .end_offset = p->end};
        offset_find_reply_encode(frame, &reply);
    }
}

static void answer_source(struct fake_broker *b, struct buf *frame, const struct frame *f)
{
    struct source_checkpoint_request checkpoint;
    struct cursor_get_request get;
    begin(frame, f, FERRY_OK);
    if (f->command == COMMAND_SOURCE_ELECT) {
        struct source_elect_reply reply = {
            .granted = true, .epoch = ++b->elected_epoch, .checkpoint = buf_bytes(&b->checkpoint)};
        source_elect_reply_encode(frame, &reply);
    } else if (f->command == COMMAND_SOURCE_CHECKPOINT) {
        assert_int_equal(source_checkpoint_request_decode(f->body, &checkpoint), FERRY_OK);
        buf_clear(&b->checkpoint);
        buf_append_bytes(&b->checkpoint, checkpoint.checkpoint);
        empty_encode(frame);
    } else if (f->command == COMMAND_CURSOR_GET) {
        assert_int_equal(cursor_get_request_decode(f->body, &get), FERRY_OK);
        struct fake_partition *p = partition_of(b, get.group);
        assert_non_null(p);
        struct cursor_get_reply reply = {.version = p->cursor_version,
                                         .epoch = p->cursor_epoch,
                                         .cursor = bytes_of(p->cursor, p->cursor_bytes)};
        cursor_get_reply_encode(frame, &reply);
    } else {
        empty_encode(frame);
    }
}

static void answer_rest(struct fake_broker *b, struct buf *frame, const struct frame *f)
{
    struct topic_create_reply created = {.topic_id.bytes = {7}};
    struct names_reply *names;
    struct broker_status_reply status = {.json = bytes_of_string("{\"fake\":true}")};
    switch (f->command) {
    case COMMAND_TOPIC_CREATE:
        b->dropped = false;
        begin(frame, f, FERRY_OK);
        topic_create_reply_encode(frame, &created);
        return;
    case COMMAND_TOPIC_LIST:
    case COMMAND_SUBSCRIPTION_LIST:
        names = mem_zalloc(1, sizeof(*names));
        assert_non_null(names);
        names->count = 2;
        names->names[0] = bytes_of_string("a");
        names->names[1] = bytes_of_string("b");
        begin(frame, f, FERRY_OK);
        names_reply_encode(frame, names);
        mem_free(names);
        return;
    case COMMAND_BROKER_STATUS:
        begin(frame, f, FERRY_OK);
        broker_status_reply_encode(frame, &status);
        return;
    default:
        refuse(frame, f, FERRY_ERR_UNKNOWN_COMMAND, "not in the fake");
        return;
    }
}

static void answer(struct fake_broker *b, struct buf *frame, const struct frame *f)
{
    switch (f->command) {
    case COMMAND_HELLO:
        answer_hello(frame, f);
        return;
    case COMMAND_METADATA:
        answer_metadata(b, frame, f);
        return;
    case COMMAND_PRODUCER_INIT:
        answer_producer_init(b, frame, f);
        return;
    case COMMAND_PRODUCE:
        answer_produce(b, frame, f);
        return;
    case COMMAND_APPEND_CAS:
        answer_append(b, frame, f);
        return;
    case COMMAND_SUBSCRIPTION_CREATE:
    case COMMAND_SUBSCRIPTION_GET:
    case COMMAND_SUBSCRIPTION_COMMIT:
        answer_subscription(b, frame, f);
        return;
    case COMMAND_PARTITION_INFO:
    case COMMAND_OFFSET_FIND:
        answer_partition(b, frame, f);
        return;
    case COMMAND_SOURCE_ELECT:
    case COMMAND_SOURCE_RESIGN:
    case COMMAND_SOURCE_CHECKPOINT:
    case COMMAND_CURSOR_GET:
        answer_source(b, frame, f);
        return;
    default:
        answer_rest(b, frame, f);
        return;
    }
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
        begin(frame, f, FERRY_OK);
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
    if (try_fetch(b, &frame, f, request, rule != NULL)) {
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

static void handle(struct fake_broker *b, net_peer peer, struct net_message *m)
{
    struct frame f;
    struct err_text e;
    struct rule rule;
    struct buf frame;
    assert_int_equal(frame_parse(net_message_bytes(m), &f, &e), FERRY_OK);
    assert_true(f.command < COMMANDS_MAX);
    b->requests[f.command]++;
    pthread_cond_broadcast(&b->changed);
    bool ruled = next_rule(b, f.command, &rule);
    if (ruled && rule.action == FAKE_DROP_REQUEST) {
        return;
    }
    buf_init(&frame, FRAME_LIMIT);
    if (ruled && rule.action == FAKE_REFUSE) {
        refuse(&frame, &f, (enum ferry_err)rule.value, "told to refuse");
        ruled = false;
    } else if (f.command == COMMAND_FETCH) {
        handle_fetch(b, peer, &f, ruled ? &rule : NULL);
        buf_fini(&frame);
        return;
    } else {
        answer(b, &frame, &f);
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
            if (!try_fetch(b, &p->frame, &f, &p->fetch, due)) {
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
        pthread_mutex_lock(&b->lock);
        turn(b, &m);
        stopping = b->stopping;
        bool waiting = !list_is_empty(&b->pending);
        struct net_poll_item items[2] = {{.fd = b->wake.fd}, {.server = b->server, .fd = -1}};
        size_t count = b->server != NULL ? 2 : 1;
        pthread_mutex_unlock(&b->lock);
        if (!stopping) {
            (void)net_poll(items, count, waiting ? 2 : 50);
            net_wake_clear(&b->wake);
        }
    }
    net_message_close(&m);
    return NULL;
}

struct fake_broker *fake_broker_start(int partitions, struct ferry_context *context,
                                      const char *endpoint)
{
    struct fake_broker *b = mem_zalloc(1, sizeof(*b));
    assert_non_null(b);
    b->seen = mem_zalloc(SEEN_MAX, sizeof(*b->seen));
    assert_non_null(b->seen);
    b->partition_count = partitions;
    for (int i = 0; i < FAKE_PARTITIONS_MAX; i++) {
        list_init(&b->partitions[i].log);
        b->partitions[i].committed = -1;
    }
    list_init(&b->pending);
    buf_init(&b->checkpoint, CHECKPOINT_MAX_BYTES);
    prng_init(&b->prng, 42);
    b->owns_context = context == NULL;
    b->context = context;
    if (b->owns_context) {
        assert_int_equal(net_context_new(1, &b->context), FERRY_OK);
    }
    assert_int_equal(net_wake_init(&b->wake), FERRY_OK);
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->changed, NULL);
    open_server(b, endpoint != NULL ? endpoint : "tcp://127.0.0.1:*");
    assert_int_equal(pthread_create(&b->thread, NULL, run, b), 0);
    return b;
}

void fake_broker_stop(struct fake_broker **broker)
{
    struct fake_broker *b = *broker;
    pthread_mutex_lock(&b->lock);
    b->stopping = true;
    pthread_mutex_unlock(&b->lock);
    net_wake_signal(&b->wake);
    pthread_join(b->thread, NULL);
    net_server_close(&b->server);
    while (!list_is_empty(&b->pending)) {
        pending_free(list_entry(b->pending.next, struct pending, node));
    }
    for (int i = 0; i < FAKE_PARTITIONS_MAX; i++) {
        struct list *node;
        while ((node = list_pop_front(&b->partitions[i].log)) != NULL) {
            mem_free(list_entry(node, struct stored, node));
        }
    }
    buf_fini(&b->checkpoint);
    net_wake_fini(&b->wake);
    if (b->owns_context) {
        net_context_free(&b->context);
    }
    pthread_cond_destroy(&b->changed);
    pthread_mutex_destroy(&b->lock);
    mem_free(b->seen);
    mem_free(b);
    *broker = NULL;
}

static void set_down(struct fake_broker *b, bool down)
{
    pthread_mutex_lock(&b->lock);
    b->want_down = down;
    net_wake_signal(&b->wake);
    while (b->is_down != down) {
        pthread_cond_wait(&b->changed, &b->lock);
    }
    pthread_mutex_unlock(&b->lock);
}

void fake_broker_kill(struct fake_broker *b)
{
    set_down(b, true);
}

void fake_broker_revive(struct fake_broker *b)
{
    set_down(b, false);
}

/* ---- For the test's eyes. */

const char *fake_broker_endpoint(const struct fake_broker *b)
{
    return b->endpoint;
}

void fake_forget_producers(struct fake_broker *b)
{
    pthread_mutex_lock(&b->lock);
    for (int i = 0; i < FAKE_PARTITIONS_MAX; i++) {
        b->partitions[i].producer_count = 0;
    }
    pthread_mutex_unlock(&b->lock);
}

void fake_drop_topic(struct fake_broker *b)
{
    pthread_mutex_lock(&b->lock);
    b->dropped = true;
    pthread_mutex_unlock(&b->lock);
}

void fake_trim(struct fake_broker *b, int64_t records)
{
    pthread_mutex_lock(&b->lock);
    for (int i = 0; i < b->partition_count; i++) {
        b->partitions[i].start = records;
    }
    pthread_mutex_unlock(&b->lock);
}

int fake_requests(struct fake_broker *b, enum command command)
{
    pthread_mutex_lock(&b->lock);
    int requests = b->requests[command];
    pthread_mutex_unlock(&b->lock);
    return requests;
}

int fake_retries_that_differ(struct fake_broker *b)
{
    pthread_mutex_lock(&b->lock);
    int differing = b->differing;
    pthread_mutex_unlock(&b->lock);
    return differing;
}

int64_t fake_end(struct fake_broker *b, int partition)
{
    pthread_mutex_lock(&b->lock);
    int64_t end = b->partitions[partition].end;
    pthread_mutex_unlock(&b->lock);
    return end;
}

int64_t fake_committed(struct fake_broker *b, int partition)
{
    pthread_mutex_lock(&b->lock);
    int64_t committed = b->partitions[partition].committed;
    pthread_mutex_unlock(&b->lock);
    return committed;
}

static struct list *next_stored(struct fake_broker *b, struct list *n)
{
    pthread_mutex_lock(&b->lock);
    struct list *next = n->next;
    pthread_mutex_unlock(&b->lock);
    return next;
}

void fake_each_record(struct fake_broker *b, int partition,
                      void (*visit)(const struct batch_record *record, int64_t offset, void *arg),
                      void *arg)
{
    struct list *log = &b->partitions[partition].log;
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
    pthread_mutex_lock(&b->lock);
    (void)store_batch(&b->partitions[partition], batch, h.count);
    pthread_mutex_unlock(&b->lock);
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
