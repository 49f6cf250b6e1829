/* Delayed messages: taking them in, releasing what is due, listing and cancelling.
 *
 * A release is one entry {keys, batch}: the messages leave the table and are in the log in the same
 * step, on every replica, so no crash and no change of leaders can do one without the other. Only
 * the leader looks at a clock, and only at its wall clock: a message is never early by it. One
 * release is on its way at a time; it takes what a turn can carry. */
#include "base/id.h"
#include "partition/partition_internal.h"

/* What one release appends: a message over the goal goes alone. */
#define RELEASE_BYTES_GOAL  (1u << 20)
#define RELEASE_RECORDS_MAX SCHEDULE_KEYS_MAX
/* While something waits its leader looks at least so often: its wall clock may have been set. */
#define SCHEDULE_LOOK_US 1000000
/* After which it looks again when the tables must be flushed first, or the turn is full. */
#define SCHEDULE_AGAIN_US 1000

_Static_assert(RELEASE_RECORDS_MAX <= BATCH_IDS_MAX, "records with ids fit");

/* ---- Taking in ---- */

enum ferry_err partition_schedule_judge_due(struct bytes batch, const struct batch_header *h,
                                            uint32_t i, int64_t now_ms, struct err_text *e)
{
    int64_t due = batch_due(batch, h, i);
    if (due > now_ms + DELAY_MAX_MS || due < -DELAY_MAX_MS) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT,
                       "record %u of the batch is due in more than 365 days", i);
    }
    return FERRY_OK;
}

enum ferry_err partition_schedule_room(struct partition *p)
{
    if (schedule_is_full(&p->schedule)) {
        replica_ask_flush(p->replica);
        return FERRY_ERR_THROTTLED; /* They go through memory to the store, bounded. */
    }
    return FERRY_OK;
}

/* Every record is read once here, so that nobody meets a malformed one later, alone with it. */
enum ferry_err partition_schedule_judge(struct partition *p, struct bytes batch,
                                        const struct batch_header *h, int64_t now_ms,
                                        struct err_text *e)
{
    struct batch_reader reader;
    struct batch_record r;
    enum ferry_err err = FERRY_OK;
    batch_reader_init(&reader, batch);
    while (batch_reader_next(&reader, &r, &err)) {
        size_t bytes = r.key.size + r.headers.size + r.payload.size;
        if (bytes > p->config.message_max_bytes) {
            return err_set(e, FERRY_ERR_TOO_LARGE,
                           "a record has %zu bytes, limit.message_max_bytes is %zu", bytes,
                           p->config.message_max_bytes);
        }
        err = partition_schedule_judge_due(batch, h, reader.index - 1, now_ms, e);
        if (err != FERRY_OK) {
            return err;
        }
    }
    if (err != FERRY_OK) {
        return err_set(e, err, "record %u of the batch is malformed", reader.index);
    }
    return partition_schedule_room(p);
}

enum ferry_err partition_schedule_tell(struct bytes batch, const struct batch_header *h,
                                       int64_t append_ms, struct partition_ticket *t)
{
    uint32_t next = 0;
    t->scheduled = true;
    buf_clear(&t->dues);
    for (uint32_t i = 0; i < h->count; i++) {
        const uint8_t *dropped = t->duplicates.data + (size_t)next * PRODUCE_DUPLICATE_BYTES;
        bool is_dropped = next < t->duplicate_count && get_le32(dropped) == i;
        next += is_dropped;
        int64_t due = is_dropped || append_ms < 0 ? 0 : schedule_due(batch, h, i, append_ms);
        buf_append_le64(&t->dues, (uint64_t)due);
    }
    return buf_ok(&t->dues) ? FERRY_OK : FERRY_ERR_NO_MEMORY;
}

/* ---- Applying ---- */

enum ferry_err partition_schedule_apply(struct partition *p, uint64_t index, enum control_kind kind,
                                        struct bytes control)
{
    struct recurring_entry e;
    if (kind == CONTROL_SCHEDULE_CANCEL || kind == CONTROL_SCHEDULE_RELEASE) {
        return schedule_apply_keys(&p->schedule, index, kind, control);
    }
    enum ferry_err err = recurring_entry_decode(control, &e);
    return err == FERRY_OK ? recurring_apply(&p->recurring, index, &e) : err;
}

/* ---- Releasing ---- */

struct collecting {
    struct schedule *schedule;
    int64_t now_ms;
    struct schedule_keys keys;
    struct batch_writer writer;
    int64_t next_due_ms; /* Of the first that is not due. */
    bool more;           /* Due, and for the next release. */
};

static bool has_room(const struct collecting *c, const struct batch_record *r)
{
    size_t bytes = BATCH_RECORD_OVERHEAD_BYTES + sizeof(r->id) + r->key.size + r->headers.size +
                   r->payload.size + 1;
    return c->writer.count == 0 || (c->writer.count < RELEASE_RECORDS_MAX &&
                                    batch_writer_bytes(&c->writer) + bytes <= RELEASE_BYTES_GOAL &&
                                    batch_writer_fits(&c->writer, r));
}

static enum ferry_err collect(struct bytes bytes, struct bytes row, bool *stop, void *arg)
{
    struct collecting *c = arg;
    struct schedule_key key;
    struct batch_record r;
    int64_t added_ms;
    enum ferry_err err = schedule_read_key(bytes, &key);
    if (err != FERRY_OK) {
        return err;
    }
    if (key.due_ms > c->now_ms) {
        c->next_due_ms = key.due_ms;
        *stop = true;
        return FERRY_OK;
    }
#ifndef MUT_72 /* a message that was cancelled comes anyway */
    if (schedule_is_claimed(c->schedule, &key)) {
        return FERRY_OK;
    }
#endif
    err = schedule_read_row(row, &added_ms, &r);
    if (err != FERRY_OK) {
        return err;
    }
    c->more = !has_room(c, &r);
    *stop = c->more;
    if (!c->more) {
        err = batch_writer_add(&c->writer, &r);
        schedule_keys_add(&c->keys, &key);
    }
    return err;
}

static enum ferry_err collect_due(struct partition *p, struct collecting *c)
{
    enum ferry_err err = store_read_begin(p->config.store);
    if (err == FERRY_OK) {
        err = rows_each(&p->schedule.rows, p->config.store, p->config.group, bytes_of(NULL, 0),
                        collect, c);
        store_read_end(p->config.store);
    }
    return err;
}

/* {u32 control_bytes, control, batch}. */
static enum ferry_err build_payload(struct partition *p, struct collecting *c)
{
    struct bytes batch;
    struct buf *b = &p->schedule.release_payload;
    enum ferry_err err = batch_writer_finish(&c->writer, 0, 0, 0, &batch);
    if (err != FERRY_OK) {
        return err;
    }
    buf_clear(b);
    buf_append_le32(b, 0);
    schedule_keys_encode(b, CONTROL_SCHEDULE_RELEASE, &c->keys);
    if (!buf_ok(b)) {
        return FERRY_ERR_NO_MEMORY;
    }
    put_le32(b->data, (uint32_t)(b->size - 4));
    buf_append_bytes(b, batch);
    return buf_ok(b) ? FERRY_OK : FERRY_ERR_NO_MEMORY;
}

static enum ferry_err propose_release(struct partition *p, struct collecting *c, int64_t now_ms,
                                      int64_t now_us)
{
    struct schedule *t = &p->schedule;
    uint64_t index = replica_last_index(p->replica) + 1;
    enum ferry_err err = build_payload(p, c);
    struct store_entry entry = {.type = STORE_ENTRY_BATCH_CAS,
                                .append_time_ms = partition_next_time(p, now_ms),
                                .payload = buf_bytes(&t->release_payload)};
    if (err == FERRY_OK) {
        err = partition_propose(p, &entry, now_us, NULL);
    }
    if (err == FERRY_OK) {
        t->release_index = index;
        t->release_last = c->keys.last;
        partition_spend(p, entry.payload.size);
    }
    return err;
}

static void look_again(struct schedule *t, const struct collecting *c, int64_t now_us)
{
    t->next_due_ms = c->next_due_ms;
    int64_t wait_us = SCHEDULE_LOOK_US;
    if (c->next_due_ms == SCHEDULE_NEVER) {
        t->look_us = SCHEDULE_NEVER; /* What comes in is seen. */
        return;
    }
    if (c->next_due_ms - c->now_ms < SCHEDULE_LOOK_US / 1000) {
        wait_us = (c->next_due_ms - c->now_ms) * 1000;
    }
    t->look_us = now_us + wait_us;
}

static enum ferry_err release(struct partition *p, int64_t now_ms, int64_t now_us)
{
    struct schedule *t = &p->schedule;
    struct collecting c = {.schedule = t, .now_ms = now_ms, .next_due_ms = SCHEDULE_NEVER};
    schedule_keys_init(&c.keys);
    batch_writer_init(&c.writer, BATCH_MAX_BYTES);
    enum ferry_err err = collect_due(p, &c);
    if (err == FERRY_OK) {
        look_again(t, &c, now_us);
    }
    if (err == FERRY_OK && c.keys.count > 0) {
        err = propose_release(p, &c, now_ms, now_us);
    } else if (err == FERRY_OK) {
        buf_fini(&t->release_payload); /* Large, and not needed for now. */
    }
    if (err != FERRY_OK) {
        t->next_due_ms = SCHEDULE_NEVER; /* Not known: what comes in makes it look, too. */
        t->look_us = now_us + (err == FERRY_ERR_THROTTLED ? SCHEDULE_AGAIN_US : SCHEDULE_LOOK_US);
    }
    batch_writer_fini(&c.writer);
    schedule_keys_fini(&c.keys);
    return err == FERRY_ERR_NO_MEMORY ? FERRY_OK : err; /* It is late, and comes. */
}

int64_t partition_schedule_deadline_us(const struct partition *p)
{
    int64_t delayed = p->schedule.look_us;
    int64_t recurring = p->recurring.look_us;
    return delayed < recurring ? delayed : recurring;
}

/* Those that were released have their ids noted again, with their offsets. */
static bool must_flush_first(const struct partition *p)
{
    return rows_is_full(&p->schedule.rows) || p->ids.count >= IDS_PENDING_MAX;
}

enum ferry_err partition_schedule_tick(struct partition *p, int64_t now_ms, int64_t now_us)
{
    struct schedule *t = &p->schedule;
    if (t->look_us > now_us) {
        return FERRY_OK;
    }
    if (!replica_is_ready(p->replica) || t->release_index != 0 || t->waiting == 0) {
        t->look_us = SCHEDULE_NEVER; /* Whoever changes one of these looks. */
        t->next_due_ms = SCHEDULE_NEVER;
        return FERRY_OK;
    }
    if (must_flush_first(p)) {
        replica_ask_flush(p->replica);
        t->look_us = now_us + SCHEDULE_AGAIN_US;
        return FERRY_OK;
    }
    if (!partition_may_spend(p)) {
        t->look_us = now_us + SCHEDULE_AGAIN_US;
        return FERRY_OK;
    }
    if (!store_has_room(p->config.store, RELEASE_BYTES_GOAL)) {
        t->look_us = now_us + SCHEDULE_LOOK_US; /* As for who produces: not while it is full. */
        return FERRY_OK;
    }
    return release(p, now_ms, now_us);
}

/* ---- Listing ---- */

struct listing {
    struct schedule_list_reply *reply;
};

static enum ferry_err list_row(struct bytes bytes, struct bytes row, bool *stop, void *arg)
{
    struct schedule_list_reply *reply = ((struct listing *)arg)->reply;
    struct schedule_key key;
    struct batch_record r;
    if (reply->count == SCHEDULE_LIST_MAX) {
        reply->more = true;
        *stop = true;
        return FERRY_OK;
    }
    struct schedule_item *item = &reply->items[reply->count];
    enum ferry_err err = schedule_read_key(bytes, &key);
    if (err == FERRY_OK) {
        err = schedule_read_row(row, &item->added_ms, &r);
    }
    if (err != FERRY_OK) {
        return err;
    }
    item->due_ms = key.due_ms;
    item->number = key.number;
    item->id = r.id;
    item->key = bytes_of(r.key.data, r.key.size < REASON_MAX_BYTES ? r.key.size : REASON_MAX_BYTES);
    item->record_bytes = (uint32_t)(r.key.size + r.headers.size + r.payload.size);
    reply->count++;
    return FERRY_OK;
}

enum ferry_err partition_schedule_list(struct partition *p, const struct schedule_list_request *q,
                                       struct schedule_list_reply *reply)
{
    uint8_t from[SCHEDULE_KEY_BYTES];
    struct schedule_key after = {.due_ms = q->after_due_ms, .number = q->after_number + 1};
    struct listing l = {.reply = reply};
    enum ferry_err err = partition_check_leader(p);
    reply->total = p->schedule.waiting;
    reply->more = false;
    reply->count = 0;
    if (err != FERRY_OK) {
        return err;
    }
    schedule_put_key(from, &after);
    bool first = q->after_due_ms == 0 && q->after_number == 0;
    return rows_each(&p->schedule.rows, p->config.store, p->config.group,
                     bytes_of(from, first ? 0 : sizeof(from)), list_row, &l);
}

/* ---- Cancelling ---- */

static enum ferry_err claim_items(struct partition *p, const struct schedule_cancel_request *q,
                                  uint64_t index, struct schedule_keys *keys)
{
    struct schedule *t = &p->schedule;
    enum ferry_err err = FERRY_OK;
    for (uint32_t i = 0; i < q->count && err == FERRY_OK; i++) {
        struct schedule_key key = {.due_ms = q->items[i].due_ms, .number = q->items[i].number};
        bool found = false;
        err = schedule_find(t, p->config.store, p->config.group, &key, &found);
        if (err == FERRY_OK && found) {
            err = schedule_claim(t, &key, index);
        }
        if (err == FERRY_OK && found) {
            schedule_keys_add(keys, &key);
        }
    }
    return err;
}

static enum ferry_err propose_cancel(struct partition *p, const struct schedule_keys *keys,
                                     int64_t now_ms, int64_t now_us, struct partition_ticket *t)
{
    buf_clear(&t->payload);
    schedule_keys_encode(&t->payload, CONTROL_SCHEDULE_CANCEL, keys);
    if (!buf_ok(&t->payload)) {
        return FERRY_ERR_NO_MEMORY;
    }
    struct store_entry entry = {.type = STORE_ENTRY_CONTROL,
                                .append_time_ms = partition_next_time(p, now_ms),
                                .payload = buf_bytes(&t->payload)};
    t->count = keys->count;
    return partition_propose(p, &entry, now_us, t);
}

enum ferry_err partition_schedule_cancel(struct partition *p,
                                         const struct schedule_cancel_request *q, int64_t now_ms,
                                         int64_t now_us, struct partition_ticket *t)
{
    uint64_t index = replica_last_index(p->replica) + 1;
    struct schedule_keys keys;
    enum ferry_err err = partition_check_leader(p);
    if (err != FERRY_OK) {
        return err;
    }
    if (rows_is_full(&p->schedule.rows)) {
        replica_ask_flush(p->replica);
        return FERRY_ERR_THROTTLED;
    }
    schedule_keys_init(&keys);
    err = claim_items(p, q, index, &keys);
    if (err == FERRY_OK && keys.count > 0) {
        err = propose_cancel(p, &keys, now_ms, now_us, t);
    }
    if (err != FERRY_OK) {
        schedule_unclaim(&p->schedule, index);
    }
    schedule_keys_fini(&keys);
    return err;
}
