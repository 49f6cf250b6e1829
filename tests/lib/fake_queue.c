/* fake_queue: the fake broker's subscriptions of mode queue and keyed, members and versions. One
 * subscription, whatever its name; leases do not run out by themselves (fake_expire). */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/checksum.h"
#include "base/mem.h"
#include "lib/fake_broker_inner.h"

#define LEASE_MS 30000u

static struct fake_partition *partition_of(struct fake_broker *b, uint64_t group)
{
    bool known = group >= FAKE_GROUP && group < FAKE_GROUP + (uint64_t)b->shared->partition_count;
    return known && !b->shared->dropped ? &b->shared->partitions[group - FAKE_GROUP] : NULL;
}

/* ---- Handing out. */

static struct fake_queued *queued_of(struct fake_partition *p, int64_t offset)
{
    assert_true(offset >= 0 && offset < FAKE_QUEUED_MAX);
    return &p->queued[offset];
}

static bool record_at(struct fake_partition *p, int64_t offset, struct batch_record *record)
{
    for (struct list *n = p->log.next; n != &p->log; n = n->next) {
        struct stored *s = list_entry(n, struct stored, node);
        struct batch_reader reader;
        enum ferry_err err;
        if (offset < s->base_offset || offset >= s->base_offset + s->count) {
            continue;
        }
        batch_reader_init(&reader, bytes_of(s->data, s->size));
        for (int64_t i = s->base_offset; batch_reader_next(&reader, record, &err); i++) {
            if (i == offset) {
                return true;
            }
        }
    }
    return false;
}

static void add_entry(struct buf *data, struct batch_writer *w, int64_t base_offset)
{
    struct bytes batch;
    assert_int_equal(batch_writer_finish(w, 0, 0, 0, &batch), FERRY_OK);
    struct fetch_entry entry = {.base_offset = base_offset, .append_time_ms = 1000, .batch = batch};
    fetch_entry_append(data, &entry);
    batch_writer_clear(w);
}

struct picking {
    struct fake_partition *partition;
    struct receive_reply *reply;
    struct buf *data, *repeats;
    struct batch_writer writer;
    int64_t run; /* Where the run of records in the writer begins. */
    int64_t last;
};

static void pick_one(struct picking *k, int64_t offset, const struct batch_record *record)
{
    struct fake_queued *q = queued_of(k->partition, offset);
    if (k->writer.count > 0 && (offset != k->last + 1 || !batch_writer_fits(&k->writer, record))) {
        add_entry(k->data, &k->writer, k->run);
    }
    k->run = k->writer.count == 0 ? offset : k->run;
    k->last = offset;
    assert_int_equal(batch_writer_add(&k->writer, record), FERRY_OK);
    q->state = FAKE_LEASED;
    q->lease = k->reply->lease;
    q->handed_out++;
    if (q->handed_out > 1) {
        buf_append_le64(k->repeats, (uint64_t)offset);
        buf_append_le32(k->repeats, q->handed_out);
        buf_append_le32(k->repeats, q->failed);
    }
    k->reply->count++;
}

static void pick(struct fake_partition *p, const struct receive_request *request,
                 struct receive_reply *reply, struct buf *data, struct buf *repeats)
{
    struct picking k = {.partition = p, .reply = reply, .data = data, .repeats = repeats};
    batch_writer_init(&k.writer, BATCH_MAX_BYTES);
    reply->lease = p->next_lease + 1;
    reply->token.bytes[0] = (uint8_t)reply->lease;
    reply->token.bytes[1] = (uint8_t)(reply->lease >> 8);
    reply->lease_ms = request->lease_ms > 0 ? request->lease_ms : LEASE_MS;
    for (int64_t offset = p->committed; offset < p->end && reply->count < request->max_messages;
         offset++) {
        struct batch_record record;
        if (queued_of(p, offset)->state == FAKE_READY && record_at(p, offset, &record)) {
            pick_one(&k, offset, &record);
        }
    }
    if (reply->count > 0) {
        add_entry(data, &k.writer, k.run);
        p->next_lease++;
    }
    batch_writer_fini(&k.writer);
}

static void receive_item(struct fake_broker *b, const struct receive_request *request,
                         uint64_t group, struct receive_reply *reply, struct buf *data,
                         struct buf *repeats)
{
    struct fake_partition *p = partition_of(b, group);
    enum ferry_err err = p == NULL               ? FERRY_ERR_UNKNOWN_PARTITION
                         : p->leader != b->node  ? FERRY_ERR_NOT_LEADER
                         : p->committed < 0      ? FERRY_ERR_UNKNOWN_SUBSCRIPTION
                         : b->shared->mode == 1u ? FERRY_ERR_SUBSCRIPTION_EXISTS
                                                 : FERRY_OK;
    if (err != FERRY_OK) {
        reply->refused[reply->refused_count++] =
            (struct receive_refusal){.group = group, .status = (uint16_t)err};
        return;
    }
    if (reply->count == 0) {
        pick(p, request, reply, data, repeats);
        reply->group = reply->count > 0 ? group : 0;
    }
}

bool fake_try_receive(struct fake_broker *b, struct buf *frame, const struct frame *f,
                      const struct receive_request *request, bool anyway)
{
    struct receive_reply *reply = mem_zalloc(1, sizeof(*reply));
    struct buf data, repeats;
    assert_non_null(reply);
    buf_init(&data, FRAME_LIMIT);
    buf_init(&repeats, FRAME_LIMIT);
    for (uint32_t i = 0; i < request->count; i++) {
        receive_item(b, request, request->items[i].group, reply, &data, &repeats);
    }
    bool told = anyway || reply->count > 0 || reply->refused_count == request->count;
    if (told) {
        reply->lease = reply->count > 0 ? reply->lease : 0;
        reply->repeats = buf_bytes(&repeats);
        buf_clear(frame);
        fake_begin(frame, f, FERRY_OK);
        receive_reply_encode(frame, reply);
        frame_begin_attachment(frame);
        buf_append_bytes(frame, buf_bytes(&data));
    }
    buf_fini(&data);
    buf_fini(&repeats);
    mem_free(reply);
    return told;
}

/* ---- Settling. */

static bool holds(struct fake_partition *p, const struct settle_item *item)
{
    for (uint32_t i = 0; i < item->count; i++) {
        const struct fake_queued *q = queued_of(p, item->first + i);
        if (q->state != FAKE_LEASED || q->lease != item->lease) {
            return false;
        }
    }
    return item->token.bytes[0] == (uint8_t)item->lease;
}

static void settle_one(struct fake_queued *q, const struct settle_item *item)
{
    static const enum fake_queue_state states[] = {[SETTLE_ACK] = FAKE_ACKED,
                                                   [SETTLE_NACK] = FAKE_READY,
                                                   [SETTLE_RELEASE] = FAKE_READY,
                                                   [SETTLE_REJECT] = FAKE_DEAD};
    q->state = states[item->kind];
    q->failed += item->kind == SETTLE_NACK ? 1 : 0;
    q->settled++;
}

static bool is_same(const struct settle_item *a, const struct fake_settled *b)
{
    return a->lease == b->lease && a->kind == b->kind && a->first == b->first &&
           a->count == b->count;
}

/* As the first time, if it was met before. */
static uint16_t settle(struct fake_partition *p, const struct settle_item *item)
{
    for (size_t i = 0; i < p->settled_count; i++) {
        if (is_same(item, &p->settled[i])) {
            return p->settled[i].status;
        }
    }
    if (item->kind == SETTLE_EXTEND) {
        p->extended++;
        return FERRY_OK;
    }
    if (p->reject_max > 0 && item->kind == SETTLE_REJECT && item->count > p->reject_max) {
        return FERRY_ERR_INVALID_ARGUMENT; /* Not remembered: nothing was done. */
    }
    uint16_t status = holds(p, item) ? FERRY_OK : FERRY_ERR_LEASE_EXPIRED;
    for (uint32_t i = 0; i < item->count && status == FERRY_OK; i++) {
        settle_one(queued_of(p, item->first + i), item);
    }
    if (p->settled_count < FAKE_QUEUED_MAX) {
        p->settled[p->settled_count++] =
            (struct fake_settled){item->lease, item->kind, item->first, item->count, status};
    }
    return status;
}

static bool refuses_item(struct fake_shared *shared)
{
    bool refuses = shared->items_refused > 0;
    shared->items_refused -= refuses ? 1 : 0;
    return refuses;
}

void fake_answer_settle(struct fake_broker *b, struct buf *frame, const struct frame *f)
{
    struct settle_request *request = mem_zalloc(1, sizeof(*request));
    struct settle_reply reply = {.count = 0};
    bool all = true;
    assert_non_null(request);
    assert_int_equal(settle_request_decode(f->body, request), FERRY_OK);
    struct fake_partition *p = partition_of(b, request->group);
    for (uint32_t i = 0; i < request->count; i++) {
        reply.results[i].status =
            refuses_item(b->shared) ? b->shared->item_refusal : settle(p, &request->items[i]);
        all = all && reply.results[i].status == FERRY_OK;
    }
    b->shared->items_settled += (int)request->count;
    reply.count = all ? 0 : request->count;
    fake_begin(frame, f, FERRY_OK);
    settle_reply_encode(frame, &reply);
    mem_free(request);
}

void fake_reject_max(struct fake_broker *b, int partition, uint32_t max)
{
    pthread_mutex_lock(&b->shared->lock);
    b->shared->partitions[partition].reject_max = max;
    pthread_mutex_unlock(&b->shared->lock);
}

void fake_expire(struct fake_broker *b, int partition, int64_t first, int64_t count)
{
    pthread_mutex_lock(&b->shared->lock);
    for (int64_t i = first; i < first + count; i++) {
        struct fake_queued *q = queued_of(&b->shared->partitions[partition], i);
        if (q->state == FAKE_LEASED) {
            q->state = FAKE_READY;
            q->failed++;
        }
    }
    pthread_mutex_unlock(&b->shared->lock);
    net_wake_signal(&b->wake);
}

int fake_queue_count(struct fake_broker *b, int partition, enum fake_queue_state state)
{
    int count = 0;
    pthread_mutex_lock(&b->shared->lock);
    struct fake_partition *p = &b->shared->partitions[partition];
    for (int64_t i = 0; i < p->end; i++) {
        count += queued_of(p, i)->state == state ? 1 : 0;
    }
    pthread_mutex_unlock(&b->shared->lock);
    return count;
}

void fake_refuse_items(struct fake_broker *b, int count, enum ferry_err err)
{
    pthread_mutex_lock(&b->shared->lock);
    b->shared->items_refused = count;
    b->shared->item_refusal = (uint16_t)err;
    pthread_mutex_unlock(&b->shared->lock);
}

int fake_items_settled(struct fake_broker *b)
{
    pthread_mutex_lock(&b->shared->lock);
    int items = b->shared->items_settled;
    pthread_mutex_unlock(&b->shared->lock);
    return items;
}

int fake_extended(struct fake_broker *b, int partition)
{
    pthread_mutex_lock(&b->shared->lock);
    int extended = b->shared->partitions[partition].extended;
    pthread_mutex_unlock(&b->shared->lock);
    return extended;
}

void fake_subscribe(struct fake_broker *b, uint32_t mode)
{
    pthread_mutex_lock(&b->shared->lock);
    b->shared->mode = mode;
    for (int i = 0; i < FAKE_PARTITIONS_MAX; i++) {
        b->shared->partitions[i].committed = mode > 0 ? 0 : -1;
    }
    pthread_mutex_unlock(&b->shared->lock);
}

/* ---- Members: partition i is to be read by member i % members; handed over once it is let go. */

static struct fake_member *member_of(struct fake_shared *shared, struct bytes name,
                                     const struct ferry_id *instance)
{
    for (size_t i = 0; i < shared->member_count; i++) {
        if (bytes_equal(bytes_of_string(shared->members[i].name), name)) {
            return &shared->members[i];
        }
    }
    assert_true(shared->member_count < FAKE_MEMBERS_MAX);
    struct fake_member *m = &shared->members[shared->member_count++];
    *m = (struct fake_member){.instance = *instance};
    memcpy(m->name, name.data, name.size);
    return m;
}

/* Those that it does not hold any more are nobody's. */
static void take_held(struct fake_shared *shared, int member,
                      const struct member_heartbeat_request *request)
{
    for (int i = 0; i < shared->partition_count; i++) {
        struct fake_partition *p = &shared->partitions[i];
        bool held = false;
        for (uint32_t k = 0; k < request->held_count; k++) {
            held = held || (request->held[k].partition == (uint32_t)i &&
                            request->held[k].epoch == p->owner_epoch);
        }
        if (p->owner == member && !held && p->wanted != member) {
            p->owner = -1;
        }
    }
}

static void assign(struct fake_shared *shared)
{
    for (int i = 0; i < shared->partition_count && shared->member_count > 0; i++) {
        struct fake_partition *p = &shared->partitions[i];
        p->wanted = i % (int)shared->member_count;
        if (p->owner < 0) {
            p->owner = p->wanted;
            p->owner_epoch = ++shared->epoch;
        }
    }
}

void fake_answer_heartbeat(struct fake_broker *b, struct buf *frame, const struct frame *f)
{
    struct fake_shared *shared = b->shared;
    struct member_heartbeat_request *request = mem_zalloc(1, sizeof(*request));
    struct member_heartbeat_reply *reply = mem_zalloc(1, sizeof(*reply));
    assert_non_null(request);
    assert_non_null(reply);
    assert_int_equal(member_heartbeat_request_decode(f->body, request), FERRY_OK);
    struct fake_member *m = member_of(shared, request->member, &request->instance);
    bool fenced = memcmp(&m->instance, &request->instance, sizeof(m->instance)) != 0;
    if (fenced) {
        fake_refuse(frame, f, FERRY_ERR_MEMBER_FENCED, "another instance has the name");
    } else {
        int member = (int)(m - shared->members);
        take_held(shared, member, request);
        assign(shared);
        reply->epoch = shared->epoch;
        reply->heartbeat_ms = 30;
        reply->paused = shared->paused;
        for (int i = 0; i < shared->partition_count; i++) {
            const struct fake_partition *p = &shared->partitions[i];
            if (p->owner == member && p->wanted == member) {
                reply->assigned[reply->count++] =
                    (struct assigned_partition){(uint32_t)i, p->owner_epoch};
            }
        }
        fake_begin(frame, f, FERRY_OK);
        member_heartbeat_reply_encode(frame, reply);
    }
    mem_free(request);
    mem_free(reply);
}

void fake_answer_leave(struct fake_broker *b, struct buf *frame, const struct frame *f)
{
    struct member_leave_request request;
    struct fake_shared *shared = b->shared;
    assert_int_equal(member_leave_request_decode(f->body, &request), FERRY_OK);
    for (size_t i = 0; i < shared->member_count; i++) {
        if (bytes_equal(bytes_of_string(shared->members[i].name), request.member)) {
            shared->left++;
            shared->members[i] = shared->members[--shared->member_count];
            for (int k = 0; k < shared->partition_count; k++) {
                int owner = shared->partitions[k].owner;
                shared->partitions[k].owner = owner == (int)i                      ? -1
                                              : owner == (int)shared->member_count ? (int)i
                                                                                   : owner;
            }
        }
    }
    assign(shared);
    fake_begin(frame, f, FERRY_OK);
    empty_encode(frame);
}

void fake_answer_claim(struct fake_broker *b, struct buf *frame, const struct frame *f)
{
    struct subscription_claim_request request;
    assert_int_equal(subscription_claim_request_decode(f->body, &request), FERRY_OK);
    struct fake_partition *p = partition_of(b, request.group);
    if (request.epoch < p->claimed) {
        fake_refuse(frame, f, FERRY_ERR_MEMBER_FENCED, "a younger assignment has it");
        return;
    }
    p->claimed = request.epoch;
    struct subscription_claim_reply reply = {.position = p->committed};
    fake_begin(frame, f, FERRY_OK);
    subscription_claim_reply_encode(frame, &reply);
}

void fake_usurp(struct fake_broker *b, const char *member)
{
    pthread_mutex_lock(&b->shared->lock);
    for (size_t i = 0; i < b->shared->member_count; i++) {
        if (strcmp(b->shared->members[i].name, member) == 0) {
            b->shared->members[i].instance.bytes[0] ^= 1;
        }
    }
    pthread_mutex_unlock(&b->shared->lock);
}

void fake_pause(struct fake_broker *b, bool paused)
{
    pthread_mutex_lock(&b->shared->lock);
    b->shared->paused = paused;
    pthread_mutex_unlock(&b->shared->lock);
}

int fake_members(struct fake_broker *b)
{
    pthread_mutex_lock(&b->shared->lock);
    int members = (int)b->shared->member_count;
    pthread_mutex_unlock(&b->shared->lock);
    return members;
}

/* ---- Delayed messages, which never come due here. */

int64_t fake_delay_batch(struct fake_partition *p, struct bytes batch, const struct batch_header *h)
{
    int64_t number = p->next_number;
    (void)batch;
    p->next_number += h->count;
    return number;
}

int64_t fake_due(struct bytes batch, const struct batch_header *h, uint32_t i)
{
    int64_t due = batch_due(batch, h, i);
    return due > 0 ? due : FAKE_NOW_MS - due;
}

int fake_delayed(struct fake_broker *b, int partition)
{
    pthread_mutex_lock(&b->shared->lock);
    int delayed = (int)b->shared->partitions[partition].next_number;
    pthread_mutex_unlock(&b->shared->lock);
    return delayed;
}

/* ---- Versions. One key's are kept: the last one's. */

static void conflict(struct buf *frame, const struct frame *f, uint32_t record, uint64_t version)
{
    struct publish_refusal refusal = {.error = {.detail = bytes_of_string("another version")},
                                      .record = record,
                                      .version = version};
    buf_clear(frame);
    fake_begin(frame, f, FERRY_ERR_VERSION_CONFLICT);
    publish_refusal_encode(frame, &refusal);
}

/* Where a batch is that is stored already, by its first id; -1: it is not. */
static int64_t find_repeat(struct fake_partition *p, const struct batch_header *h,
                           struct bytes batch)
{
    struct ferry_id id = batch_id(batch, h, 0);
    for (struct list *n = p->log.next; n != &p->log; n = n->next) {
        struct stored *s = list_entry(n, struct stored, node);
        struct batch_header stored;
        batch_header_read(bytes_of(s->data, s->size), &stored);
        struct ferry_id other = batch_id(bytes_of(s->data, s->size), &stored, 0);
        if (memcmp(&id, &other, sizeof(id)) == 0) {
            return s->base_offset;
        }
    }
    return -1;
}

void fake_answer_publish(struct fake_broker *b, struct buf *frame, const struct frame *f)
{
    struct publish_request request;
    struct batch_header h;
    struct err_text e;
    assert_int_equal(publish_request_decode(f->body, &request), FERRY_OK);
    assert_int_equal(batch_check(f->attachment, &h, &e), FERRY_OK);
    struct fake_partition *p = partition_of(b, request.group);
    struct publish_reply reply = {.base_offset = -1};
    int64_t first = find_repeat(p, &h, f->attachment);
    if (first >= 0) {
        reply.duplicate_count = h.count;
    } else {
        for (uint32_t i = 0; i < request.count; i++) {
            if (request.expect[i].version != p->key_version) {
                conflict(frame, f, request.expect[i].record, p->key_version);
                return;
            }
        }
        p->key_version += request.count > 0 ? 1 : 0;
        reply.base_offset = fake_store_batch(p, f->attachment, h.count);
    }
    fake_begin(frame, f, FERRY_OK);
    publish_reply_encode(frame, &reply);
    frame_begin_attachment(frame);
    for (uint32_t i = 0; i < reply.duplicate_count; i++) {
        buf_append_le32(frame, i);
        buf_append_le64(frame, (uint64_t)first + i);
    }
}

void fake_answer_version(struct fake_broker *b, struct buf *frame, const struct frame *f)
{
    struct key_version_request request;
    assert_int_equal(key_version_request_decode(f->body, &request), FERRY_OK);
    struct key_version_reply reply = {.version = partition_of(b, request.group)->key_version};
    fake_begin(frame, f, FERRY_OK);
    key_version_reply_encode(frame, &reply);
}
