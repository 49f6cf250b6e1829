#include "lib/fake_broker_inner.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/checksum.h"
#include "base/mem.h"

/* ---- Replies. */

struct answer {
    struct buf frame;
    enum ferry_err err;
};

void fake_begin(struct buf *frame, const struct frame *f, enum ferry_err err)
{
    frame_begin_reply(frame, f->command, f->request_id, err);
}

void fake_refuse(struct buf *frame, const struct frame *f, enum ferry_err err, const char *why)
{
    struct error_reply error = {.detail = bytes_of_string(why), .retry_after_ms = 1};
    buf_clear(frame);
    fake_begin(frame, f, err);
    error_reply_encode(frame, &error);
}

static struct fake_partition *partition_of(struct fake_broker *b, uint64_t group)
{
    bool known = group >= FAKE_GROUP && group < FAKE_GROUP + (uint64_t)b->shared->partition_count;
    return known && !b->shared->dropped ? &b->shared->partitions[group - FAKE_GROUP] : NULL;
}

/* ---- Who is to be asked. */

static void send_on(struct fake_broker *b, struct buf *frame, const struct frame *f, int leader)
{
    const struct fake_shared *shared = b->shared;
    const char *hint = shared->no_hint           ? ""
                       : shared->hint[0] != '\0' ? shared->hint
                       : leader >= 0             ? shared->brokers[leader]->endpoint
                                                 : "";
    fake_refuse(frame, f, FERRY_ERR_NOT_LEADER, hint);
}

/* Bodies of requests to a partition all begin with its group. */
static uint64_t group_of(const struct frame *f)
{
    struct partition_info_request request;
    assert_int_equal(partition_info_request_decode(f->body, &request), FERRY_OK);
    return request.group;
}

bool fake_opens_can(struct fake_broker *b, struct buf *frame, const struct frame *f)
{
    size_t found = CANS_MAX, count = 0;
    for (size_t i = b->can_count; i > 0; i--) {
        if (b->cans[i - 1].command == f->command) {
            found = i - 1; /* The first one given. */
            count++;
        }
    }
    if (count == 0) {
        return false;
    }
    fake_begin(frame, f, FERRY_OK);
    buf_append_bytes(frame, buf_bytes(&b->cans[found].body));
    if (count > 1) {
        b->cans[found].command = 0; /* Used up. */
    }
    return true;
}

bool fake_sends_on(struct fake_broker *b, struct buf *frame, const struct frame *f)
{
    const struct fake_partition *p;
    switch (f->command) {
    case COMMAND_HELLO:
    case COMMAND_METADATA:
    case COMMAND_TOPIC_LIST:
    case COMMAND_BROKER_STATUS:
    case COMMAND_NODE_LIST:
    case COMMAND_MOVE_LIST:
    case COMMAND_GROUP_LIST:
    case COMMAND_FETCH: /* Told by item. */
    case COMMAND_RECEIVE:
        return false;
    case COMMAND_TOPIC_CREATE:
    case COMMAND_TOPIC_DELETE:
    case COMMAND_PRODUCER_INIT:
    case COMMAND_SOURCE_ELECT:
    case COMMAND_SOURCE_RESIGN:
    case COMMAND_SOURCE_CHECKPOINT:
    case COMMAND_NODE_CHANGE:
    case COMMAND_CLUSTER_PLAN:
    case COMMAND_CLUSTER_APPLY:
    case COMMAND_CLUSTER_ABORT:
    case COMMAND_LEASE_ACQUIRE:
    case COMMAND_LEASE_RENEW:
    case COMMAND_LEASE_RELEASE:
    case COMMAND_LEASE_LIST:
    case COMMAND_WORKER_ID:
    case COMMAND_QUOTA_SET:
    case COMMAND_QUOTA_LIST:
        if (b->shared->controller != b->node) {
            send_on(b, frame, f, b->shared->controller);
            return true;
        }
        return false;
    default:
        p = partition_of(b, group_of(f));
        if (p != NULL && p->leader != b->node) {
            send_on(b, frame, f, p->leader);
            return true;
        }
        return false;
    }
}

static void answer_hello(struct buf *frame, const struct frame *f)
{
    struct hello_reply hello = {.broker_version = bytes_of_string("fake"),
                                .node_id = 1,
                                .message_max_bytes = 1 << 20,
                                .batch_max_bytes = 4 << 20,
                                .fetch_max_bytes = 8 << 20,
                                .inflight_max = 64};
    fake_begin(frame, f, FERRY_OK);
    hello_reply_encode(frame, &hello);
}

static void answer_metadata(struct fake_broker *b, struct buf *frame, const struct frame *f)
{
    struct metadata_request request;
    static const char topic[] = FAKE_TOPIC;
    static const char dead[] = FAKE_TOPIC DEAD_NAME_MARK FAKE_DEAD_OF;
    if (metadata_request_decode(f->body, &request) != FERRY_OK || b->shared->dropped ||
        (request.topic.size > 0 && !bytes_equal(request.topic, bytes_of_string(topic)) &&
         !bytes_equal(request.topic, bytes_of_string(dead)))) {
        fake_refuse(frame, f, FERRY_ERR_UNKNOWN_TOPIC, "no such topic");
        return;
    }
    struct metadata_reply *m = mem_zalloc(1, sizeof(*m));
    assert_non_null(m);
    /* The controller's first: places are swapped. */
    int first = b->shared->controller >= 0 ? b->shared->controller : b->node;
    m->endpoint_count = (uint32_t)b->shared->nodes;
    for (int i = 0; i < b->shared->nodes; i++) {
        int node = i == 0 ? first : i == first ? 0 : i;
        m->endpoints[i] = (struct metadata_endpoint){
            .node_id = (uint32_t)node + 1,
            .endpoint = bytes_of_string(b->shared->brokers[node]->endpoint)};
    }
    m->topic_id.bytes[0] = 7;
    if (bytes_equal(request.topic, bytes_of_string(dead))) {
        m->dead_of = bytes_of_string(FAKE_DEAD_OF);
    }
    m->replicas = 1;
    m->partition_count = (uint32_t)b->shared->partition_count;
    for (int i = 0; i < b->shared->partition_count; i++) {
        int told = b->shared->partitions[i].told >= 0 ? b->shared->partitions[i].told : 0;
        m->partitions[i] = (struct metadata_partition){.group = FAKE_GROUP + (uint64_t)i,
                                                       .endpoint = (uint32_t)(told == first ? 0
                                                                              : told == 0   ? first
                                                                                          : told)};
    }
    fake_begin(frame, f, FERRY_OK);
    metadata_reply_encode(frame, m);
    mem_free(m);
}

static void answer_producer_init(struct fake_broker *b, struct buf *frame, const struct frame *f)
{
    struct producer_init_request request;
    assert_int_equal(producer_init_request_decode(f->body, &request), FERRY_OK);
    bool named = request.name.size > 0;
    struct producer_init_reply reply = {.producer_id = named ? 1 : ++b->shared->next_producer + 1,
                                        .epoch = named ? (uint32_t)++b->shared->next_producer : 0};
    fake_begin(frame, f, FERRY_OK);
    producer_init_reply_encode(frame, &reply);
}

/* ---- Produce. */

static void remember_bytes(struct fake_broker *b, uint64_t group, const struct batch_header *h)
{
    for (size_t i = 0; i < b->shared->seen_count; i++) {
        struct seen *s = &b->shared->seen[i];
        if (s->group == group && s->producer_id == h->producer_id &&
            s->epoch == h->producer_epoch && s->sequence == h->first_sequence &&
            s->checksum != h->checksum) {
            b->shared->differing++;
        }
    }
    if (b->shared->seen_count < SEEN_MAX) {
        b->shared->seen[b->shared->seen_count++] = (struct seen){.group = group,
                                                                 .producer_id = h->producer_id,
                                                                 .sequence = h->first_sequence,
                                                                 .checksum = h->checksum,
                                                                 .epoch = h->producer_epoch};
    }
}

int64_t fake_store_batch(struct fake_partition *p, struct bytes batch, uint32_t count)
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
    reply->base_offset = (h->flags & BATCH_HAS_DUE) != 0 ? fake_delay_batch(p, batch, h)
                                                         : fake_store_batch(p, batch, h->count);
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
        fake_refuse(frame, f, err, "by the rules of sequences");
        return;
    }
    reply.scheduled = (h.flags & BATCH_HAS_DUE) != 0;
    fake_begin(frame, f, FERRY_OK);
    produce_reply_encode(frame, &reply);
    frame_begin_attachment(frame);
    for (uint32_t i = 0; reply.scheduled && i < h.count; i++) {
        buf_append_le64(frame, (uint64_t)fake_due(f->attachment, &h, i));
    }
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
        fake_refuse(frame, f, FERRY_ERR_UNKNOWN_PARTITION, "no such partition");
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
        fake_begin(frame, f, err);
        append_cas_refusal_encode(frame, &refusal);
        return;
    }
    p->cursor_version++;
    p->cursor_epoch = request.epoch;
    p->cursor_bytes = request.cursor.size;
    memcpy(p->cursor, request.cursor.data, request.cursor.size);
    struct append_cas_reply reply = {.version = p->cursor_version,
                                     .base_offset = fake_store_batch(p, f->attachment, h.count)};
    fake_begin(frame, f, FERRY_OK);
    append_cas_reply_encode(frame, &reply);
}

/* ---- Fetch. */

/* Every batch is dead, whole, with numbers that leave gaps. */
static void fetch_dead(struct fake_partition *p, const struct fetch_item *item,
                       struct fetch_reply_item *out, struct buf *data)
{
    size_t before = data->size;
    out->end_offset = 0;
    for (struct list *n = p->log.next; n != &p->log; n = n->next) {
        struct stored *s = list_entry(n, struct stored, node);
        int64_t number = s->base_offset * FAKE_DEAD_GAP;
        out->end_offset = number + s->count;
        if (out->end_offset > item->offset) {
            struct fetch_entry entry = {
                .base_offset = number, .append_time_ms = 1, .batch = bytes_of(s->data, s->size)};
            fetch_entry_append(data, &entry);
        }
    }
    out->data_bytes = (uint32_t)(data->size - before);
}

static void fetch_item(struct fake_broker *b, const struct fetch_item *item,
                       struct fetch_reply_item *out, struct buf *data, size_t max_bytes)
{
    struct fake_partition *p = partition_of(b, item->group);
    *out = (struct fetch_reply_item){.group = item->group};
    if (p == NULL) {
        out->status = FERRY_ERR_UNKNOWN_PARTITION;
        return;
    }
    if (p->leader != b->node) {
        out->status = FERRY_ERR_NOT_LEADER;
        return;
    }
    out->start_offset = p->start;
    out->end_offset = p->end - p->lag;
    if (item->dead_of.size == 0 && (item->offset < p->start || item->offset > out->end_offset)) {
        out->status = FERRY_ERR_OFFSET_OUT_OF_RANGE;
        return;
    }
    size_t before = data->size;
    if (item->dead_of.size > 0) {
        fetch_dead(p, item, out, data);
        return;
    }
    for (struct list *n = p->log.next; n != &p->log && data->size < max_bytes; n = n->next) {
        struct stored *s = list_entry(n, struct stored, node);
        if (s->base_offset + s->count > item->offset && s->base_offset < out->end_offset) {
            struct fetch_entry entry = {.base_offset = s->base_offset,
                                        .append_time_ms = 1000 + s->base_offset,
                                        .batch = bytes_of(s->data, s->size)};
            fetch_entry_append(data, &entry);
        }
    }
    out->data_bytes = (uint32_t)(data->size - before);
}

/* False when there is nothing yet: the fetch waits. */
bool fake_try_fetch(struct fake_broker *b, struct buf *frame, const struct frame *f,
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
        fake_begin(frame, f, FERRY_OK);
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
        fake_refuse(frame, f, FERRY_ERR_UNKNOWN_PARTITION, "no such partition");
        return;
    }
    if (is_create && p->committed < 0) {
        p->committed = create.from == FERRY_FROM_START ? p->start
                       : create.from == FERRY_FROM_END ? p->end
                                                       : create.from;
    }
    if (p->committed < 0) {
        fake_refuse(frame, f, FERRY_ERR_UNKNOWN_SUBSCRIPTION, "no such subscription");
        return;
    }
    if (commit.epoch > 0 && commit.epoch < p->claimed) {
        fake_refuse(frame, f, FERRY_ERR_MEMBER_FENCED, "a younger assignment has it");
        return;
    }
    fake_begin(frame, f, FERRY_OK);
    if (is_create) {
        struct subscription_create_reply reply = {.position = p->committed};
        subscription_create_reply_encode(frame, &reply);
    } else if (is_get) {
        struct subscription_get_reply reply = {.mode = b->shared->mode > 0 ? b->shared->mode
                                                                           : SUBSCRIPTION_STREAM,
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
        fake_refuse(frame, f, FERRY_ERR_UNKNOWN_PARTITION, "no such partition");
        return;
    }
    fake_begin(frame, f, FERRY_OK);
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
    fake_begin(frame, f, FERRY_OK);
    if (f->command == COMMAND_SOURCE_ELECT) {
        struct source_elect_reply reply = {.granted = true,
                                           .epoch = ++b->shared->elected_epoch,
                                           .checkpoint = buf_bytes(&b->shared->checkpoint)};
        source_elect_reply_encode(frame, &reply);
    } else if (f->command == COMMAND_SOURCE_CHECKPOINT) {
        assert_int_equal(source_checkpoint_request_decode(f->body, &checkpoint), FERRY_OK);
        buf_clear(&b->shared->checkpoint);
        buf_append_bytes(&b->shared->checkpoint, checkpoint.checkpoint);
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
        b->shared->dropped = false;
        fake_begin(frame, f, FERRY_OK);
        topic_create_reply_encode(frame, &created);
        return;
    case COMMAND_TOPIC_LIST:
    case COMMAND_SUBSCRIPTION_LIST:
        names = mem_zalloc(1, sizeof(*names));
        assert_non_null(names);
        names->count = 2;
        names->names[0] = bytes_of_string("a");
        names->names[1] = bytes_of_string("b");
        fake_begin(frame, f, FERRY_OK);
        names_reply_encode(frame, names);
        mem_free(names);
        return;
    case COMMAND_BROKER_STATUS:
        fake_begin(frame, f, FERRY_OK);
        broker_status_reply_encode(frame, &status);
        return;
    default:
        fake_refuse(frame, f, FERRY_ERR_UNKNOWN_COMMAND, "not in the fake");
        return;
    }
}

void fake_answer(struct fake_broker *b, struct buf *frame, const struct frame *f)
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
    case COMMAND_SETTLE:
        fake_answer_settle(b, frame, f);
        return;
    case COMMAND_MEMBER_HEARTBEAT:
        fake_answer_heartbeat(b, frame, f);
        return;
    case COMMAND_MEMBER_LEAVE:
        fake_answer_leave(b, frame, f);
        return;
    case COMMAND_SUBSCRIPTION_CLAIM:
        fake_answer_claim(b, frame, f);
        return;
    case COMMAND_PUBLISH:
        fake_answer_publish(b, frame, f);
        return;
    case COMMAND_KEY_VERSION:
        fake_answer_version(b, frame, f);
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
