/* What may be appended: produce (idempotent by sequence and by message id) and append_cas (a
 * source's records together with its cursor). Decided once, by the leader; the decision travels in
 * the entry. */
#include "base/id.h"
#include "partition/partition_internal.h"

/* ---- Idempotence by sequence ---- */

static enum ferry_err refuse_producer(const struct producer_answer *a, const struct batch_header *h,
                                      struct err_text *e)
{
    unsigned long long id = (unsigned long long)h->producer_id;
    unsigned long long first = (unsigned long long)h->first_sequence;
    switch (a->verdict) {
    case PRODUCER_GAP:
        return err_set(e, FERRY_ERR_SEQUENCE_GAP, "producer %llu: sequence %llu came, %llu is next",
                       id, first, (unsigned long long)a->expected_sequence);
    case PRODUCER_STALE:
        return err_set(e, FERRY_ERR_SEQUENCE_STALE,
                       "producer %llu: sequence %llu is older than the last %u batches", id, first,
                       PRODUCER_BATCHES);
    case PRODUCER_OLD_EPOCH:
        return err_set(e, FERRY_ERR_PRODUCER_FENCED, "producer %llu: epoch %u is over", id,
                       h->producer_epoch);
    case PRODUCER_TABLE_FULL:
        return err_set(e, FERRY_ERR_LIMIT_REACHED,
                       "%u producers were active on this partition in the last %d minutes: reuse "
                       "clients, or name them",
                       PARTITION_PRODUCERS_MAX, PRODUCER_IDLE_MS / 60000);
    case PRODUCER_NEXT:
    case PRODUCER_REPEAT:
        break;
    }
    must(false);
    return FERRY_ERR_INVALID_ARGUMENT;
}

/* ---- Dedupe by message id ---- */

static void add_skip(struct partition_ticket *t, uint32_t record, int64_t offset)
{
    buf_append_le32(&t->skips, record);
    buf_append_le32(&t->duplicates, record);
    buf_append_le64(&t->duplicates, (uint64_t)offset);
    t->duplicate_count++;
}

/* Two records of one batch with one id: the second is a duplicate of the first. Looked for by
 * noting each id as it is let in, under the index the entry will have; taken back on failure. */
enum ferry_err partition_judge_ids(struct partition *p, struct bytes batch,
                                   const struct batch_header *h, int64_t time_ms, uint64_t index,
                                   int64_t first_offset, struct partition_ticket *t)
{
    int64_t not_before = time_ms - p->config.settings.dedupe_window_ms;
    int64_t offset = first_offset;
    if (p->ids.count >= IDS_PENDING_MAX) {
        return FERRY_ERR_THROTTLED; /* Ids go through memory to the store, bounded. */
    }
    for (uint32_t i = 0; i < h->count; i++) {
        struct ferry_id id = batch_id(batch, h, i);
        bool found = false;
        int64_t known_offset = -1;
        if (!id_is_zero(&id)) {
            enum ferry_err err = ids_find(&p->ids, p->config.store, p->config.group, &id,
                                          not_before, &found, &known_offset);
            if (err == FERRY_OK && !found) {
                err = ids_note(&p->ids, &id, offset, time_ms, index);
            }
            if (err != FERRY_OK) {
                return err;
            }
        }
        if (found) {
            add_skip(t, i, known_offset);
        } else {
            offset += offset >= 0;
        }
    }
    return buf_ok(&t->skips) && buf_ok(&t->duplicates) ? FERRY_OK : FERRY_ERR_NO_MEMORY;
}

bool partition_looks_up_ids(const struct partition *p, const struct batch_header *h)
{
    return (h->flags & BATCH_HAS_IDS) != 0 && p->config.settings.dedupe_window_ms > 0;
}

/* ---- Repeats ---- */

/* Retention dropped the entry, and with it the list of records that were dropped by id: which
 * offsets the others had cannot be told any more. What the ids still know is told, the rest is -1;
 * counting on from the first offset would name other messages' offsets. */
static enum ferry_err repeat_without_entry(struct partition *p, struct bytes batch,
                                           const struct batch_header *h, struct partition_ticket *t)
{
    enum ferry_err err = FERRY_OK;
    for (uint32_t i = 0; i < h->count && err == FERRY_OK; i++) {
        struct ferry_id id = batch_id(batch, h, i);
        bool found = false;
        int64_t offset = -1;
        if (!id_is_zero(&id)) {
            err = ids_find(&p->ids, p->config.store, p->config.group, &id, INT64_MIN, &found,
                           &offset);
        }
        add_skip(t, i, found ? offset : -1);
    }
    t->base_offset = -1;
    return err;
}

/* The first answer named the records dropped by id; so does the answer to the repeat. Their list is
 * in the entry, where the first ones are is in the ids. Errors: NOT_READY, CORRUPT. */
static enum ferry_err repeat_skips(struct partition *p, struct bytes batch,
                                   const struct batch_header *h, uint64_t index,
                                   struct partition_ticket *t)
{
    struct store_entry entry;
    enum ferry_err err = store_get_entry(p->config.store, p->config.group, index, &entry);
    if (err == FERRY_ERR_OFFSET_OUT_OF_RANGE) {
        return repeat_without_entry(p, batch, h, t);
    }
    if (err == FERRY_ERR_CORRUPT) {
        return partition_damaged(p, index);
    }
    for (uint32_t i = 0; i < entry.skip_count && err == FERRY_OK; i++) {
        uint32_t record = get_le32(entry.skips + (size_t)i * 4);
        if (record >= h->count) {
            return FERRY_ERR_CORRUPT;
        }
        struct ferry_id id = batch_id(batch, h, record);
        bool found = false;
        int64_t offset = -1;
        err = ids_find(&p->ids, p->config.store, p->config.group, &id, INT64_MIN, &found, &offset);
        add_skip(t, record, found ? offset : -1);
    }
    return err;
}

/* Due times after the append are told by the entry; without it, they are not known any more. */
static enum ferry_err repeat_dues(struct partition *p, struct bytes batch,
                                  const struct batch_header *h, uint64_t index,
                                  struct partition_ticket *t)
{
    struct store_entry entry = {.append_time_ms = -1};
    enum ferry_err err = store_get_entry(p->config.store, p->config.group, index, &entry);
    if (err == FERRY_ERR_CORRUPT) {
        return partition_damaged(p, index);
    }
    return partition_schedule_tell(batch, h, err == FERRY_OK ? entry.append_time_ms : -1, t);
}

static enum ferry_err answer_repeat(struct partition *p, struct bytes batch,
                                    const struct batch_header *h, const struct producer_answer *a,
                                    struct partition_ticket *t)
{
    bool on_its_way = a->index > replica_applied(p->replica);
    bool delayed = (h->flags & BATCH_HAS_DUE) != 0;
    bool looks_up_ids = partition_looks_up_ids(p, h);
    enum ferry_err err = FERRY_OK;
    t->duplicate = true;
    t->base_offset = a->base_offset;
    if (on_its_way && (looks_up_ids || delayed)) {
        return FERRY_ERR_NOT_READY; /* Its entry must be read for the answer. */
    }
    if (on_its_way) {
        ticket_queue_wait(&p->tickets, &t->base, a->index);
        return FERRY_OK;
    }
    if (looks_up_ids) {
        err = repeat_skips(p, batch, h, a->index, t);
    }
    return err == FERRY_OK && delayed ? repeat_dues(p, batch, h, a->index, t) : err;
}

/* ---- Produce ---- */

enum ferry_err partition_check_batch(const struct partition *p, struct bytes batch,
                                     struct batch_header *h, struct err_text *e)
{
    if (batch.size > p->config.batch_max_bytes) {
        return err_set(
            e, FERRY_ERR_TOO_LARGE,
            "the batch has %zu bytes, limit.message_max_bytes allows batches of %zu: send "
            "less, or raise it on the broker",
            batch.size, p->config.batch_max_bytes);
    }
    return batch_check(batch, h, e);
}

static enum ferry_err propose_batch(struct partition *p, const struct batch_header *h,
                                    struct store_entry *entry, int64_t now_us,
                                    struct partition_ticket *t)
{
    bool delayed = (h->flags & BATCH_HAS_DUE) != 0;
    int64_t first = delayed ? (int64_t)p->schedule.proposed_next_number : p->proposed_next_offset;
    enum ferry_err err = FERRY_OK;
    entry->skip_count = t->duplicate_count;
    entry->skips = t->skips.data;
    t->base_offset = t->duplicate_count == h->count ? -1 : first;
    t->append_time_ms = entry->append_time_ms;
    if (delayed) {
        err = partition_schedule_tell(entry->payload, h, entry->append_time_ms, t);
    }
    if (err == FERRY_OK) {
        err = partition_propose(p, entry, now_us, t);
    }
    if (err == FERRY_OK && delayed) {
        schedule_note_batch(&p->schedule, h, h->count - t->duplicate_count);
    }
    return err;
}

static enum ferry_err append_batch(struct partition *p, struct bytes batch,
                                   const struct batch_header *h, int64_t now_ms, int64_t now_us,
                                   struct partition_ticket *t)
{
    struct store_entry entry = {.type = STORE_ENTRY_BATCH,
                                .append_time_ms = partition_next_time(p, now_ms),
                                .payload = batch};
    uint64_t index = replica_last_index(p->replica) + 1;
    bool delayed = (h->flags & BATCH_HAS_DUE) != 0;
    enum ferry_err err = FERRY_OK;
    if (partition_looks_up_ids(p, h)) {
        err = partition_judge_ids(p, batch, h, entry.append_time_ms, index,
                                  delayed ? -1 : p->proposed_next_offset, t);
    }
    if (err == FERRY_OK) {
        err = propose_batch(p, h, &entry, now_us, t);
    }
    if (err != FERRY_OK) {
        ids_forget(&p->ids, index - 1);
        return err;
    }
    must(t->base.index == index);
    if (h->producer_id != 0) {
        producers_note(&p->producers, h, index, t->base_offset, entry.append_time_ms);
    }
    return FERRY_OK;
}

/* Makes room in a full table by letting go of who was silent longest; takes effect when applied. */
static void let_idle_producer_go(struct partition *p, int64_t now_ms, int64_t now_us)
{
    uint64_t idle = producers_idle(&p->producers, now_ms - PRODUCER_IDLE_MS);
    if (idle == 0 || p->housekeeping) {
        return;
    }
    struct control c = {.kind = CONTROL_REMOVE_PRODUCER, .producer_id = idle};
    enum ferry_err ignored = partition_propose_housekeeping(p, &c, now_ms, now_us);
    (void)ignored; /* Asked again by the next batch that finds the table full. */
}

enum ferry_err partition_produce(struct partition *p, struct bytes batch, int64_t now_ms,
                                 int64_t now_us, struct partition_ticket *t, struct err_text *e)
{
    struct batch_header h = {0};
    enum ferry_err err = partition_check_leader(p);
    if (err == FERRY_OK) {
        err = partition_check_batch(p, batch, &h, e);
    }
    if (err == FERRY_OK && (h.flags & BATCH_HAS_DUE) != 0) {
        err = partition_schedule_judge(p, batch, &h, now_ms, e);
    } else if (err == FERRY_OK) {
        err = batch_check_records(batch, &h, e);
    }
    if (err != FERRY_OK || h.producer_id == 0) {
        return err != FERRY_OK ? err : append_batch(p, batch, &h, now_ms, now_us, t);
    }
    struct producer_answer a = producers_judge(&p->producers, &h);
    if (a.verdict == PRODUCER_REPEAT) {
        return answer_repeat(p, batch, &h, &a, t);
    }
    if (a.verdict == PRODUCER_TABLE_FULL) {
        let_idle_producer_go(p, now_ms, now_us);
    }
    if (a.verdict != PRODUCER_NEXT) {
        return refuse_producer(&a, &h, e);
    }
    err = producers_reserve(&p->producers, h.producer_id);
    return err != FERRY_OK ? err : append_batch(p, batch, &h, now_ms, now_us, t);
}

/* ---- append_cas ---- */

static void show_cursor(const struct source_cursor *cursor, struct append_cas_refusal *refusal)
{
    if (cursor != NULL) {
        refusal->version = cursor->version;
        refusal->epoch = cursor->epoch;
        refusal->cursor = bytes_of(cursor->blob, cursor->blob_bytes);
    }
}

static enum ferry_err refuse_epoch(uint64_t epoch, uint64_t present, struct err_text *e)
{
    return err_set(e, FERRY_ERR_SOURCE_FENCED, "epoch %llu is over, %llu is the present one",
                   (unsigned long long)epoch, (unsigned long long)present);
}

/* By what is proposed: the log has the epochs in the order in which they are judged here. */
static enum ferry_err judge_cursor(const struct source_cursor *cursor, const struct append_cas *c,
                                   struct append_cas_refusal *refusal, struct err_text *e)
{
    uint64_t version = cursor != NULL ? cursor->version : 0;
    uint64_t epoch = cursor != NULL ? cursor->epoch : 0;
    show_cursor(cursor, refusal);
    if (c->epoch < epoch) {
        return refuse_epoch(c->epoch, epoch, e);
    }
    if (c->expect_version != version) {
        return err_set(e, FERRY_ERR_CURSOR_CONFLICT, "the cursor is at version %llu, not %llu",
                       (unsigned long long)version, (unsigned long long)c->expect_version);
    }
    return FERRY_OK;
}

/* Names the first record that this broker does not take, so that a relay can set it aside. */
static enum ferry_err judge_records(const struct partition *p, struct bytes batch,
                                    const struct batch_header *h, int64_t now_ms,
                                    struct append_cas_refusal *refusal, struct err_text *e)
{
    struct batch_reader reader;
    struct batch_record record;
    enum ferry_err err = FERRY_OK;
    int64_t i = 0;
    batch_reader_init(&reader, batch);
    for (; batch_reader_next(&reader, &record, &err); i++) {
        size_t bytes = record.key.size + record.headers.size + record.payload.size;
        if (bytes > p->config.message_max_bytes) {
            refusal->refused_index = i;
            return err_set(e, FERRY_ERR_TOO_LARGE,
                           "it has %zu bytes, limit.message_max_bytes is %zu", bytes,
                           p->config.message_max_bytes);
        }
        if (record.headers.size > 0 && batch_check_headers(record.headers) != FERRY_OK) {
            refusal->refused_index = i;
            return err_set(e, FERRY_ERR_BAD_BATCH,
                           "its headers are not a msgpack map of str to "
                           "bin");
        }
        if ((h->flags & BATCH_HAS_DUE) != 0) {
            err = partition_schedule_judge_due(batch, h, (uint32_t)i, now_ms, e);
            if (err != FERRY_OK) {
                refusal->refused_index = i;
                return err;
            }
        }
    }
    refusal->refused_index = err != FERRY_OK ? i : -1;
    return err;
}

static enum ferry_err build_cas_payload(const struct append_cas *c, struct partition_ticket *t)
{
    struct control control = {.kind = CONTROL_SOURCE_CURSOR,
                              .source = c->source,
                              .lane = c->lane,
                              .epoch = c->epoch,
                              .version = c->expect_version + 1,
                              .blob = c->cursor};
    buf_clear(&t->payload);
    buf_append_le32(&t->payload, 0);
    control_encode(&t->payload, &control);
    if (!buf_ok(&t->payload)) {
        return FERRY_ERR_NO_MEMORY;
    }
    put_le32(t->payload.data, (uint32_t)(t->payload.size - 4));
    buf_append_bytes(&t->payload, c->batch);
    return buf_ok(&t->payload) ? FERRY_OK : FERRY_ERR_NO_MEMORY;
}

/* A batch with due times is kept aside as by produce, in the entry that moves the cursor. */
static enum ferry_err propose_cas(struct partition *p, const struct append_cas *c,
                                  const struct batch_header *h, int64_t now_ms, int64_t now_us,
                                  struct partition_ticket *t)
{
    bool delayed = (h->flags & BATCH_HAS_DUE) != 0;
    struct source_cursor *cursor = NULL;
    enum ferry_err err = cursors_reserve(&p->cursors, &c->source, c->lane, &cursor);
    if (err == FERRY_OK) {
        err = build_cas_payload(c, t);
    }
    if (err != FERRY_OK) {
        return err;
    }
    struct store_entry entry = {.type = STORE_ENTRY_BATCH_CAS,
                                .append_time_ms = partition_next_time(p, now_ms),
                                .payload = buf_bytes(&t->payload)};
    t->base_offset = delayed ? -1 : p->proposed_next_offset; /* It has none before it is due. */
    t->version = c->expect_version + 1;
    err = partition_propose(p, &entry, now_us, t);
    if (err == FERRY_OK) {
        cursor_note(cursor, t->version, c->epoch, c->cursor);
    }
    if (err == FERRY_OK && delayed) {
        schedule_note_batch(&p->schedule, h, h->count);
    }
    return err;
}

enum ferry_err partition_append_cas(struct partition *p, const struct append_cas *c, int64_t now_ms,
                                    int64_t now_us, struct partition_ticket *t,
                                    struct append_cas_refusal *refusal, struct err_text *e)
{
    struct batch_header h = {0};
    *refusal = (struct append_cas_refusal){.refused_index = -1};
    enum ferry_err err = partition_check_leader(p);
    if (err == FERRY_OK) {
        err = judge_cursor(cursors_find(&p->cursors, &c->source, c->lane), c, refusal, e);
    }
    if (err == FERRY_OK) {
        err = partition_check_batch(p, c->batch, &h, e);
    }
    if (err == FERRY_OK) {
        err = judge_records(p, c->batch, &h, now_ms, refusal, e);
    }
    if (err == FERRY_OK && h.producer_id != 0) {
        err = err_set(e, FERRY_ERR_BAD_BATCH, "a source's batch has no producer id");
    }
    if (err == FERRY_OK && (h.flags & BATCH_HAS_DUE) != 0) {
        err = partition_schedule_room(p);
    }
    return err != FERRY_OK ? err : propose_cas(p, c, &h, now_ms, now_us, t);
}

/* One that is asked again gets an entry of its own, unless it is applied: the answer must not come
 * before the log has it. */
enum ferry_err partition_source_fence(struct partition *p, const struct source_fence_request *q,
                                      int64_t now_ms, int64_t now_us, struct partition_ticket *t,
                                      struct err_text *e)
{
    struct source_cursor *cursor = NULL;
    struct control control = {.kind = CONTROL_SOURCE_FENCE,
                              .source = q->source,
                              .lane = q->lane,
                              .epoch = q->epoch,
                              .version = q->version};
    enum ferry_err err = partition_check_leader(p);
    if (err == FERRY_OK && q->epoch == 0) {
        err = err_set(e, FERRY_ERR_INVALID_ARGUMENT, "epoch 0 is no relay's");
    }
    if (err == FERRY_OK && q->version > INT64_MAX) {
        err = err_set(e, FERRY_ERR_INVALID_ARGUMENT, "no cursor comes to version %llu",
                      (unsigned long long)q->version);
    }
    if (err == FERRY_OK) {
        err = cursors_reserve(&p->cursors, &q->source, q->lane, &cursor);
    }
    if (err == FERRY_OK && q->epoch < cursor->epoch) {
        err = refuse_epoch(q->epoch, cursor->epoch, e);
    }
    if (err != FERRY_OK ||
        (cursor->applied_epoch == q->epoch && cursor->applied_version >= q->version)) {
        return err;
    }
    err = partition_propose_control(p, &control, now_ms, now_us, t);
    if (err == FERRY_OK) {
        cursor_note_fence(cursor, q->version, q->epoch);
    }
    return err;
}

void partition_cursor_get(const struct partition *p, const struct ferry_id *source, uint32_t lane,
                          struct cursor_get_reply *reply)
{
    const struct source_cursor *c = cursors_find(&p->cursors, source, lane);
    *reply = (struct cursor_get_reply){0};
    if (c != NULL) {
        reply->version = c->applied_version;
        reply->epoch = c->applied_epoch;
        reply->cursor = bytes_of(c->applied_blob, c->applied_blob_bytes);
    }
}
