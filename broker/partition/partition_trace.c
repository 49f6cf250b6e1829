/* The life of a message, as the log itself tells it: its own entry, and those behind it that speak
 * of its offset. Nothing is kept for it, so it goes back as far as the log does.
 *
 * Who reads entries sees what was asked for, not always what came of it: a settlement under a lease
 * that had ended was refused when it was applied. So the walk follows each subscription's leases
 * and claims. A walk that goes on after an earlier answer begins without them, and then believes
 * what it reads; it may tell of a commit once more. */
#include "base/mem.h"
#include "partition/dead.h"
#include "partition/delivery_entry.h"
#include "partition/partition_internal.h"
#include "partition/schedule_entry.h"
#include "partition/subscription_entry.h"

/* What one call looks at. */
#define TRACE_ENTRIES_MAX 16384u
#define TRACE_BYTES_MAX   (32u << 20)
/* Subscriptions whose state is followed. */
#define TRACE_READERS_MAX 64u
/* Events of one entry; with less room than this the answer ends before it. */
#define TRACE_ENTRY_EVENTS_MAX 16u
/* Beside the index to go on after: that the message was trimmed has been told. */
#define TRACE_TRIM_TOLD (UINT64_C(1) << 63)

/* What is known of a subscription at this place of the log. */
struct trace_reader {
    uint64_t number;   /* Of queue and keyed; */
    struct bytes name; /* of stream. */
    bool lease_known;
    uint64_t lease; /* 0: none. */
    bool passed;
    uint64_t epoch;
    struct bytes member; /* That claimed it, or was handed it, last. */
};

struct trace {
    struct partition *p;
    int64_t offset;
    struct trace_reply *reply;
    bool from_start; /* Of the message's life: nothing before is unknown. */
    bool trim_told;
    uint64_t index;
    const struct store_entry *entry;
    uint64_t node_term; /* Whose node is known. */
    uint32_t node;
    size_t reader_count;
    struct trace_reader readers[TRACE_READERS_MAX];
    struct buf scratch;
    struct hand_out_entry hand_out;
    struct dead_change_entry dead_change;
};

/* ---- Who led ---- */

/* A leader's first entry of its term, the no-op, names it. */
static uint32_t node_in(const struct store_entry *noop)
{
    bool names = noop->type == STORE_ENTRY_NOOP && noop->payload.size == 8;
    return names ? (uint32_t)get_le64(noop->payload.data)
                 : 0; /* The node is a member's low half. */
}

/* Terms never decrease along the index: the first entry of the term is found by bisection. */
static enum ferry_err find_node(struct trace *t, uint64_t term)
{
    struct store_entry entry;
    uint64_t low = replica_first_index(t->p->replica), high = t->index;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        enum ferry_err err =
            store_get_entry(t->p->config.store, t->p->config.group, middle, &entry);
        if (err != FERRY_OK) {
            return err;
        }
        if (entry.term < term) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    enum ferry_err err = store_get_entry(t->p->config.store, t->p->config.group, low, &entry);
    t->node_term = term;
    t->node = err == FERRY_OK && entry.term == term ? node_in(&entry) : 0;
    return err;
}

/* ---- Events ---- */

static struct trace_event *add(struct trace *t, enum trace_kind kind)
{
    static const struct trace_event none = {0};
    struct trace_reply *r = t->reply;
    must(r->count < TRACE_EVENTS_MAX);
    struct trace_event *e = &r->events[r->count++];
    *e = none;
    e->index = t->index;
    e->kind = kind;
    e->time_ms = t->entry->append_time_ms;
    e->node = t->node;
    return e;
}

static bool has_room(const struct trace *t)
{
    return t->reply->count < TRACE_EVENTS_MAX;
}

static struct bytes name_of(const struct trace *t, uint64_t number)
{
    const struct subscription *s = subscriptions_by_number(&t->p->subscriptions, number);
    return s != NULL ? bytes_of(s->name, s->name_bytes) : bytes_of(NULL, 0);
}

static struct trace_event *add_delivery(struct trace *t, enum trace_kind kind,
                                        uint64_t subscription, uint32_t node, struct bytes member)
{
    struct trace_event *e = add(t, kind);
    e->subscription = name_of(t, subscription);
    e->node = node;
    e->member = member;
    return e;
}

/* NULL: too many to be followed. */
static struct trace_reader *reader_of(struct trace *t, uint64_t number, struct bytes name)
{
    for (size_t i = 0; i < t->reader_count; i++) {
        if (t->readers[i].number == number && bytes_equal(t->readers[i].name, name)) {
            return &t->readers[i];
        }
    }
    if (t->reader_count == TRACE_READERS_MAX) {
        return NULL;
    }
    struct trace_reader *r = &t->readers[t->reader_count++];
    *r = (struct trace_reader){.number = number, .name = name, .lease_known = t->from_start};
    return r;
}

/* ---- Its own entry ---- */

/* The record's place in the batch: records that were dropped as repeats have no offset. */
static uint32_t record_at(const struct store_entry *entry, int64_t offset)
{
    uint32_t record = (uint32_t)(offset - entry->base_offset);
    for (uint32_t i = 0; i < entry->skip_count; i++) {
        record += get_le32(entry->skips + (size_t)i * 4) <= record ? 1 : 0;
    }
    return record;
}

/* One that was due: it was kept until then. */
static enum ferry_err trace_release(struct trace *t)
{
    struct bytes control, batch;
    enum control_kind kind;
    struct schedule_key_reader keys;
    struct schedule_key key;
    enum ferry_err err = control_split_cas(t->entry->payload, &control, &batch);
    if (err == FERRY_OK) {
        err = control_kind_of(control, &kind);
    }
    if (err != FERRY_OK || kind != CONTROL_SCHEDULE_RELEASE) {
        return err;
    }
    err = schedule_keys_decode(control, &keys);
    uint32_t record = record_at(t->entry, t->offset);
    for (uint32_t i = 0; err == FERRY_OK && schedule_keys_next(&keys, &key, &err); i++) {
        if (i == record) {
            add(t, TRACE_SCHEDULED)->due_ms = key.due_ms;
        }
    }
    return err;
}

static enum ferry_err trace_batch(struct trace *t)
{
    struct bytes batch;
    struct batch_header h;
    if (partition_entry_is_delayed(t->entry)) {
        return FERRY_OK; /* It has no offsets yet. */
    }
    if (!partition_entry_batch(t->entry, &batch)) {
        return FERRY_ERR_CORRUPT;
    }
    batch_header_read(batch, &h);
    int64_t first = t->entry->base_offset, end = first + h.count - t->entry->skip_count;
    if (t->offset < first || t->offset >= end) {
        return FERRY_OK;
    }
    enum ferry_err err = t->entry->type == STORE_ENTRY_BATCH_CAS ? trace_release(t) : FERRY_OK;
    if (err == FERRY_OK) {
        (void)add(t, TRACE_APPENDED);
    }
    return err;
}

/* ---- Streams ---- */

static void trace_commit(struct trace *t, const struct subscription_entry *e,
                         struct trace_reader *r)
{
    if (r == NULL || e->epoch < r->epoch) {
        return; /* It was refused. */
    }
    r->epoch = e->epoch;
    if (!r->passed && e->position > t->offset) {
        r->passed = true;
        struct trace_event *event = add(t, TRACE_COMMITTED);
        event->subscription = e->name;
        event->member = r->member;
    }
}

static enum ferry_err trace_subscription(struct trace *t)
{
    struct subscription_entry e;
    enum ferry_err err = subscription_entry_decode(t->entry->payload, &e);
    if (err != FERRY_OK) {
        return err;
    }
    struct trace_reader *r = reader_of(t, 0, e.name);
    if (e.kind == CONTROL_SUBSCRIPTION_COMMIT) {
        trace_commit(t, &e, r);
    } else if (r != NULL && e.kind == CONTROL_SUBSCRIPTION_CLAIM && e.epoch >= r->epoch) {
        r->epoch = e.epoch;
        r->member = e.member;
    } else if (r != NULL && e.kind == CONTROL_SUBSCRIPTION_RESET) {
        r->passed = e.position > t->offset;
        r->epoch = 0;
        for (size_t i = 0; i < t->reader_count; i++) { /* Of queue and keyed: its leases end. */
            bool same = bytes_equal(name_of(t, t->readers[i].number), e.name);
            t->readers[i].lease = same ? 0 : t->readers[i].lease;
        }
    }
    return FERRY_OK;
}

/* ---- Queues ---- */

static bool covers(int64_t first, uint32_t count, int64_t offset)
{
    return offset >= first && offset - first < (int64_t)count;
}

static bool is_handed_out(const struct delivery_hand_out *h, int64_t offset)
{
    for (uint32_t i = 0; i < h->range_count; i++) {
        if (covers(h->ranges[i].first, h->ranges[i].count, offset)) {
            return true;
        }
    }
    return false;
}

static enum ferry_err trace_hand_out(struct trace *t)
{
    struct hand_out_entry *e = &t->hand_out;
    enum ferry_err err = hand_out_decode(t->entry->payload, &t->scratch, e);
    for (uint32_t i = 0; err == FERRY_OK && i < e->count; i++) {
        const struct delivery_hand_out *h = &e->hand_outs[i];
        if (!has_room(t) || !is_handed_out(h, t->offset)) {
            continue;
        }
        struct trace_reader *r = reader_of(t, e->subscription, bytes_of(NULL, 0));
        if (r != NULL) {
            r->lease_known = true;
            r->lease = h->lease;
            r->member = h->member;
        }
        add_delivery(t, TRACE_HANDED_OUT, e->subscription, e->node, h->member)->lease = h->lease;
    }
    return err;
}

static bool find_due(const struct delivery_settlement *s, int64_t offset, int64_t *due_ms)
{
    for (uint32_t i = 0; i < s->due_count; i++) {
        if (covers(s->dues[i].first, s->dues[i].count, offset)) {
            *due_ms = s->dues[i].due_ms;
            return true;
        }
    }
    return false;
}

static bool is_dead(const struct delivery_settlement *s, int64_t offset)
{
    for (uint32_t i = 0; i < s->dead_count; i++) {
        if (s->dead[i].offset == offset) {
            return true;
        }
    }
    return false;
}

/* The item is about the message, as far as can be known here. */
static bool concerns(const struct trace *t, const struct delivery_settlement *s,
                     const struct delivery_settle_item *item, const struct trace_reader *r)
{
    bool known = r != NULL && r->lease_known;
    bool range = covers(item->first, item->count, t->offset);
    int64_t due_ms;
    if (item->kind == DELIVERY_PARK) {
        return range && is_dead(s, t->offset);
    }
    if (known) {
        bool all =
            item->kind == SETTLE_EXTEND || (item->kind == DELIVERY_EXPIRE && item->count == 0);
        return r->lease == item->lease && (all || range);
    }
    return item->kind == DELIVERY_EXPIRE ? find_due(s, t->offset, &due_ms) || is_dead(s, t->offset)
                                         : range && item->kind != SETTLE_EXTEND;
}

static const struct {
    uint32_t kind;
    enum trace_kind event;
} settle_events[] = {{SETTLE_ACK, TRACE_ACKED},        {SETTLE_NACK, TRACE_NACKED},
                     {SETTLE_RELEASE, TRACE_RELEASED}, {SETTLE_REJECT, TRACE_REJECTED},
                     {SETTLE_EXTEND, TRACE_EXTENDED},  {DELIVERY_EXPIRE, TRACE_LEASE_EXPIRED},
                     {DELIVERY_PARK, TRACE_DEAD}};

static void trace_item(struct trace *t, const struct delivery_settlement *s,
                       const struct delivery_settle_item *item, struct trace_reader *r)
{
    for (size_t i = 0; i < sizeof(settle_events) / sizeof(settle_events[0]); i++) {
        if (settle_events[i].kind == item->kind) {
            struct trace_event *e =
                add_delivery(t, settle_events[i].event, s->subscription, s->node, s->member);
            bool back = item->kind == SETTLE_NACK || item->kind == DELIVERY_EXPIRE;
            e->lease = item->lease;
            e->reason = item->reason;
            if (item->kind == DELIVERY_EXPIRE && r != NULL && r->lease == item->lease) {
                e->member = r->member; /* Whoever had it, said nothing. */
            }
            if (back && !is_dead(s, t->offset) && !find_due(s, t->offset, &e->due_ms)) {
                e->due_ms = item->due_ms;
            }
        }
    }
    if (r != NULL && item->kind != SETTLE_EXTEND) {
        r->lease_known = true;
        r->lease = 0;
    }
    bool dies =
        item->kind == SETTLE_NACK || item->kind == SETTLE_REJECT || item->kind == DELIVERY_EXPIRE;
    if (dies && is_dead(s, t->offset) && has_room(t)) {
        add_delivery(t, TRACE_DEAD, s->subscription, s->node, s->member)->reason = item->reason;
    }
}

static enum ferry_err trace_settlement(struct trace *t)
{
    struct delivery_settlement s;
    enum ferry_err err = settlement_decode(t->entry->payload, &t->scratch, &s);
    if (err != FERRY_OK) {
        return err;
    }
    struct trace_reader *r = reader_of(t, s.subscription, bytes_of(NULL, 0));
    for (uint32_t i = 0; i < s.count && has_room(t); i++) {
        if (concerns(t, &s, &s.items[i], r)) {
            trace_item(t, &s, &s.items[i], r);
        }
    }
    return FERRY_OK;
}

/* ---- Dead letters. ---- */

static enum ferry_err is_its_letter(const struct trace *t, uint64_t subscription,
                                    const struct dead_change_part *part, bool *its)
{
    *its = false;
    if (part->letter.size == 0) {
        return FERRY_OK;
    }
    uint8_t key[16];
    struct dead_letter letter;
    dead_key(subscription, part->number, key);
    enum ferry_err err = dead_decode(bytes_of(key, sizeof(key)), part->letter, &letter);
    *its = err == FERRY_OK && letter.offset == t->offset;
    return err;
}

static enum ferry_err trace_dead_change(struct trace *t)
{
    struct dead_change_entry *e = &t->dead_change;
    enum ferry_err err = dead_change_decode(t->entry->payload, e);
    for (uint32_t i = 0; err == FERRY_OK && i < e->count && has_room(t); i++) {
        bool its = false;
        err = is_its_letter(t, e->subscription, &e->parts[i], &its);
        if (err == FERRY_OK && its) {
            enum trace_kind kind = e->change == DEAD_REPLAY ? TRACE_REVIVED : TRACE_DROPPED;
            (void)add_delivery(t, kind, e->subscription, e->node, e->member);
        }
    }
    return err;
}

/* ---- Walking ---- */

static enum ferry_err trace_trim(struct trace *t)
{
    struct control c;
    enum ferry_err err = control_decode(t->entry->payload, &c);
    if (err == FERRY_OK && !t->trim_told && c.start_offset > t->offset) {
        t->trim_told = true;
        (void)add(t, TRACE_TRIMMED);
    }
    return err;
}

static enum ferry_err trace_control(struct trace *t)
{
    enum control_kind kind;
    enum ferry_err err = control_kind_of(t->entry->payload, &kind);
    if (err != FERRY_OK) {
        return err;
    }
    switch (kind) {
    case CONTROL_SUBSCRIPTION_COMMIT:
    case CONTROL_SUBSCRIPTION_CLAIM:
    case CONTROL_SUBSCRIPTION_RESET:
        return trace_subscription(t);
    case CONTROL_TRIM:
        return trace_trim(t);
    case CONTROL_HAND_OUT:
        return trace_hand_out(t);
    case CONTROL_SETTLE:
    case CONTROL_EXPIRE_LEASES:
        return trace_settlement(t);
    case CONTROL_DEAD_CHANGE:
        return trace_dead_change(t);
    default:
        return FERRY_OK;
    }
}

static enum ferry_err trace_entry(struct trace *t, uint64_t index, const struct store_entry *entry)
{
    t->index = index;
    t->entry = entry;
    if (entry->term != t->node_term) {
        enum ferry_err err = find_node(t, entry->term);
        if (err != FERRY_OK) {
            return err;
        }
    }
    switch (entry->type) {
    case STORE_ENTRY_BATCH:
    case STORE_ENTRY_BATCH_CAS:
        return trace_batch(t);
    case STORE_ENTRY_CONTROL:
        return trace_control(t);
    default:
        return FERRY_OK;
    }
}

static enum ferry_err walk(struct trace *t, struct store_cursor *cursor, uint64_t applied)
{
    size_t bytes = 0;
    for (uint32_t i = 0; cursor->next_index <= applied; i++) {
        bool full = t->reply->count + TRACE_ENTRY_EVENTS_MAX > TRACE_EVENTS_MAX;
        if (full || i == TRACE_ENTRIES_MAX || bytes >= TRACE_BYTES_MAX) {
            t->reply->next = (cursor->next_index - 1) | (t->trim_told ? TRACE_TRIM_TOLD : 0);
            return FERRY_OK;
        }
        struct store_entry entry;
        uint64_t index = 0;
        enum ferry_err err = store_cursor_next(cursor, &index, &entry);
        if (err == FERRY_ERR_CORRUPT) {
            return partition_damaged(t->p, cursor->next_index);
        }
        if (err == FERRY_OK) {
            err = trace_entry(t, index, &entry);
        }
        if (err != FERRY_OK) {
            return err;
        }
        bytes += entry.payload.size;
    }
    return FERRY_OK;
}

static enum ferry_err trace_from(struct trace *t, uint64_t index)
{
    struct store_cursor cursor = {0};
    enum ferry_err err = store_cursor_open(t->p->config.store, t->p->config.group, index, &cursor);
    if (err == FERRY_OK) {
        err = walk(t, &cursor, replica_applied(t->p->replica));
    }
    store_cursor_close(&cursor);
    return err;
}

/* Where to begin, and whether that is the beginning of its life. */
static enum ferry_err find_begin(struct trace *t, const struct trace_request *q, uint64_t *index)
{
    uint64_t first = replica_first_index(t->p->replica);
    uint64_t after = q->after & ~TRACE_TRIM_TOLD;
    if (after != 0) {
        *index = after + 1 > first ? after + 1 : first;
        t->trim_told = (q->after & TRACE_TRIM_TOLD) != 0;
        return FERRY_OK;
    }
    t->from_start = q->offset >= t->p->start_offset;
    *index = first;
    return t->from_start ? partition_index_of(t->p, q->offset, index) : FERRY_OK;
}

enum ferry_err partition_trace(struct partition *p, const struct trace_request *q,
                               struct trace_reply *reply)
{
    enum ferry_err err = partition_check_leader(p);
    if (err != FERRY_OK) {
        return err;
    }
    if (q->offset < 0 || q->offset >= p->next_offset) {
        return FERRY_ERR_OFFSET_OUT_OF_RANGE;
    }
    struct trace *t = mem_zalloc(1, sizeof(*t));
    if (t == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    uint64_t index = 0;
    t->p = p;
    t->offset = q->offset;
    t->reply = reply;
    buf_init(&t->scratch, ENTRY_SCRATCH_MAX_BYTES);
    reply->next = 0;
    reply->end = replica_applied(p->replica);
    reply->count = 0;
    err = find_begin(t, q, &index);
    if (err == FERRY_OK) {
        err = trace_from(t, index);
    }
    buf_fini(&t->scratch);
    mem_free(t);
    return err;
}
