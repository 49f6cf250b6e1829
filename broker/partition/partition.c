/* Opening, applying, rows, tickets. The rules of what may be appended are in partition_produce.c
 * and partition_subscribe.c, reading in partition_read.c, retention in partition_retain.c. */
#include "base/id.h"
#include "base/mem.h"
#include "partition/partition_internal.h"
#include "partition/subscription_entry.h"
#include "wire/pack.h"

#define HOUSEKEEPING_MAX_BYTES 256u
#define FLUSH_ROW_BYTES        256u
/* Nobody waits for followers to apply: what they lack when they are elected, the next leader's
 * first entry commits. So the news of a commit travels with the next entries, if those come soon.
 */
#define COMMIT_NOTICE_US 10000

void partition_ticket_init(struct partition_ticket *t)
{
    *t = (struct partition_ticket){.base_offset = -1, .position = -1};
    ticket_init(&t->base);
    buf_init(&t->duplicates, (size_t)BATCH_RECORDS_MAX * PRODUCE_DUPLICATE_BYTES);
    buf_init(&t->payload, BATCH_MAX_BYTES + CURSOR_MAX_BYTES + 128);
    buf_init(&t->skips, (size_t)BATCH_RECORDS_MAX * 4);
    buf_init(&t->ranges, HAND_OUT_RANGES_MAX * sizeof(struct delivery_range));
    buf_init(&t->statuses, SETTLE_ITEMS_MAX * sizeof(uint16_t));
    buf_init(&t->dues, (size_t)BATCH_RECORDS_MAX * PRODUCE_DUE_BYTES);
}

void partition_ticket_fini(struct partition_ticket *t)
{
    must(list_is_empty(&t->base.node));
    buf_fini(&t->duplicates);
    buf_fini(&t->payload);
    buf_fini(&t->skips);
    buf_fini(&t->ranges);
    buf_fini(&t->statuses);
    buf_fini(&t->dues);
}

/* ---- Entries ---- */

static bool split_batch(const struct store_entry *entry, struct bytes *batch)
{
    struct bytes control;
    if (entry->type == STORE_ENTRY_BATCH) {
        *batch = entry->payload;
        return entry->payload.size >= BATCH_HEADER_BYTES;
    }
    return entry->type == STORE_ENTRY_BATCH_CAS &&
           control_split_cas(entry->payload, &control, batch) == FERRY_OK &&
           batch->size >= BATCH_HEADER_BYTES;
}

bool partition_entry_is_delayed(const struct store_entry *entry)
{
    struct batch_header h = {0};
    struct bytes batch;
    if (split_batch(entry, &batch)) {
        batch_header_read(batch, &h);
    }
    return (h.flags & BATCH_HAS_DUE) != 0;
}

bool partition_entry_batch(const struct store_entry *entry, struct bytes *batch)
{
    return split_batch(entry, batch) && !partition_entry_is_delayed(entry);
}

static int64_t next_offset_after(const struct store_entry *entry)
{
    struct bytes batch;
    if (!partition_entry_batch(entry, &batch)) {
        return entry->base_offset;
    }
    struct batch_header h;
    batch_header_read(batch, &h);
    return entry->base_offset + h.count - entry->skip_count;
}

int64_t partition_offset_after(const struct store_entry *entry)
{
    return next_offset_after(entry);
}

/* ---- Applying ---- */

static bool is_skipped(const struct store_entry *entry, uint32_t *next_skip, uint32_t record)
{
    if (*next_skip < entry->skip_count &&
        get_le32(entry->skips + (size_t)*next_skip * 4) == record) {
        (*next_skip)++;
        return true;
    }
    return false;
}

/* What is delayed has no offset yet; when it is released its ids are noted again, with theirs. */
enum ferry_err partition_apply_ids(struct partition *p, uint64_t index,
                                   const struct store_entry *entry, struct bytes batch)
{
    struct batch_header h;
    batch_header_read(batch, &h);
    if (!partition_looks_up_ids(p, &h)) {
        return FERRY_OK;
    }
    uint32_t next_skip = 0;
    int64_t offset = partition_entry_is_delayed(entry) ? -1 : entry->base_offset;
    for (uint32_t i = 0; i < h.count; i++) {
        if (is_skipped(entry, &next_skip, i)) {
            continue;
        }
        struct ferry_id id = batch_id(batch, &h, i);
        if (!id_is_zero(&id)) {
            int64_t time_ms = entry->append_time_ms;
#ifdef MUT_34 /* how long an id counts is told by each replica's own clock */
            time_ms += (int64_t)p->config.self;
#endif
            enum ferry_err err = ids_note(&p->ids, &id, offset, time_ms, index);
            if (err != FERRY_OK) {
                return err;
            }
        }
        offset += offset >= 0;
    }
    return FERRY_OK;
}

static enum ferry_err apply_batch(struct partition *p, uint64_t index,
                                  const struct store_entry *entry)
{
    struct batch_header h;
    batch_header_read(entry->payload, &h);
    if (h.producer_id != 0) {
        enum ferry_err err = producers_reserve(&p->producers, h.producer_id);
        if (err != FERRY_OK) {
            return err;
        }
        /* What the proposer answered: no offset when nothing was kept. */
        bool delayed = partition_entry_is_delayed(entry);
        int64_t first = delayed ? (int64_t)p->schedule.next_number : entry->base_offset;
        int64_t base_offset = entry->skip_count == h.count ? -1 : first;
        producers_apply(&p->producers, &h, index, base_offset, entry->append_time_ms);
    }
    if (partition_entry_is_delayed(entry)) {
        enum ferry_err err = schedule_apply_batch(&p->schedule, entry, entry->payload);
        if (err != FERRY_OK) {
            return err;
        }
    }
    return partition_apply_ids(p, index, entry, entry->payload);
}

static enum ferry_err apply_batch_cas(struct partition *p, uint64_t index,
                                      const struct store_entry *entry)
{
    struct bytes control_bytes, batch;
    struct control c;
    enum control_kind kind;
    enum ferry_err err = control_split_cas(entry->payload, &control_bytes, &batch);
    if (err == FERRY_OK) {
        err = control_kind_of(control_bytes, &kind);
    }
    if (err != FERRY_OK || batch.size < BATCH_HEADER_BYTES) {
        return FERRY_ERR_CORRUPT;
    }
    if (kind != CONTROL_SOURCE_CURSOR) {
        err = kind == CONTROL_PUBLISH ? versions_apply(&p->versions, index, control_bytes)
                                      : partition_schedule_apply(p, index, kind, control_bytes);
        return err == FERRY_OK ? partition_apply_ids(p, index, entry, batch) : err;
    }
    err = control_decode(control_bytes, &c);
    if (err != FERRY_OK) {
        return err;
    }
    struct source_cursor *cursor = NULL;
    err = cursors_reserve(&p->cursors, &c.source, c.lane, &cursor);
    if (err == FERRY_OK && partition_entry_is_delayed(entry)) {
        err = schedule_apply_batch(&p->schedule, entry, batch);
    }
    if (err == FERRY_OK) {
        cursor_apply(cursor, c.version, c.epoch, c.blob);
    }
    return err;
}

static enum ferry_err apply_fence(struct partition *p, const struct control *c)
{
    struct source_cursor *cursor = NULL;
    enum ferry_err err = cursors_reserve(&p->cursors, &c->source, c->lane, &cursor);
    if (err == FERRY_OK) {
        cursor_apply_fence(cursor, c->version, c->epoch);
    }
    return err;
}

static enum ferry_err apply_trim(struct partition *p, const struct control *c)
{
    if (c->trim_index > replica_applied(p->replica)) {
        return FERRY_ERR_CORRUPT; /* Nobody drops what is still to come. */
    }
    p->housekeeping = false;
    p->start_offset = c->start_offset;
    p->size_bytes -= (int64_t)c->trim_bytes;
    uint64_t index = c->trim_index;
#ifdef MUT_35 /* only the leader drops what retention drops */
    index = replica_is_ready(p->replica) ? index : 0;
#endif
    replica_trim(p->replica, index);
    return deliver_apply_trim(p, c->start_offset);
}

static enum ferry_err apply_control(struct partition *p, uint64_t index,
                                    const struct store_entry *entry)
{
    struct control c;
    enum control_kind kind = 0;
    enum ferry_err err = control_kind_of(entry->payload, &kind);
    if (err == FERRY_OK && subscription_entry_is(kind)) {
        err = partition_apply_subscription(p, index, entry);
        deliver_subscription_applied(p, kind);
        return err;
    }
    if (err == FERRY_OK && deliver_applies(kind)) {
        return deliver_apply(p, index, kind, entry);
    }
    if (err == FERRY_OK && (kind == CONTROL_SCHEDULE_CANCEL || kind == CONTROL_RECURRING_SET)) {
        return partition_schedule_apply(p, index, kind, entry->payload);
    }
    if (err == FERRY_OK && kind == CONTROL_MEMBERS) {
        return partition_apply_members(p, index, entry);
    }
    if (err == FERRY_OK) {
        err = control_decode(entry->payload, &c);
    }
    if (err != FERRY_OK) {
        return err;
    }
    switch (c.kind) {
    case CONTROL_TRIM:
        return apply_trim(p, &c);
    case CONTROL_EXPIRE_IDS:
        p->housekeeping = false;
        p->ids.expire_before_ms = c.before_ms;
        p->ids.expiring = true;
        return FERRY_OK;
    case CONTROL_REMOVE_PRODUCER:
        p->housekeeping = false;
        producers_remove(&p->producers, c.producer_id);
        return FERRY_OK;
    case CONTROL_SOURCE_FENCE:
        return apply_fence(p, &c);
    default:
        break;
    }
    return FERRY_ERR_CORRUPT;
}

static enum ferry_err apply(void *machine, uint64_t index, const struct store_entry *entry)
{
    struct partition *p = machine;
    if (entry->base_offset != p->next_offset) {
        return FERRY_ERR_CORRUPT; /* Invariant 1. */
    }
    deliver_forget(p);
    enum ferry_err err = FERRY_ERR_CORRUPT;
    switch (entry->type) {
    case STORE_ENTRY_BATCH:
        err = entry->payload.size >= BATCH_HEADER_BYTES ? apply_batch(p, index, entry) : err;
        break;
    case STORE_ENTRY_BATCH_CAS:
        err = apply_batch_cas(p, index, entry);
        break;
    case STORE_ENTRY_CONTROL:
        err = apply_control(p, index, entry);
        break;
    case STORE_ENTRY_NOOP:
    case STORE_ENTRY_CONFIG:
        break; /* The replica's own. */
    }
    if (err != FERRY_OK) {
        return err;
    }
    p->next_offset = next_offset_after(entry);
    p->size_bytes += entry_size(entry);
    if (entry->type == STORE_ENTRY_BATCH || entry->type == STORE_ENTRY_BATCH_CAS) {
        p->readable_bytes += partition_entry_is_delayed(entry) ? 0 : entry->payload.size;
        p->deliver.appends++;
        partition_retain_soon(p);
    }
    p->applied_time_ms = entry->append_time_ms;
    if (entry->append_time_ms > p->last_append_time_ms) {
        p->last_append_time_ms = entry->append_time_ms;
    }
    /* What the tickets asked for is the log's: only now is their answer final. */
    ticket_queue_applied(&p->tickets, index);
    return FERRY_OK;
}

static void role_changed(void *machine, bool ready)
{
    struct partition *p = machine;
    uint64_t applied = p->replica != NULL ? replica_applied(p->replica) : 0;
    producers_forget(&p->producers);
    cursors_forget(&p->cursors);
    ids_forget(&p->ids, applied);
    deliver_role_changed(p, ready);
    schedule_forget(&p->schedule);
    recurring_forget(&p->recurring);
    versions_forget(&p->versions);
    p->proposed_next_offset = p->next_offset;
    p->proposed_index = 0;
    p->last_append_time_ms = p->applied_time_ms;
    p->housekeeping = false;
    p->retention_due_us = ready ? 0 : RAFT_NEVER;
    partition_members_role(p, ready);
    if (ready) {
        return;
    }
    ticket_queue_fail(&p->tickets, FERRY_ERR_NOT_LEADER);
}

/* ---- Rows. Base row: [applied, next offset, start offset, size, last time, ids before, next
 * number of a delayed message, delayed messages that wait] ---- */

static enum ferry_err flush_base(const struct partition *p, struct store *store)
{
    struct buf row;
    buf_init(&row, 128);
    pack_array(&row, 8);
    pack_uint(&row, replica_applied(p->replica));
    pack_int(&row, p->next_offset);
    pack_int(&row, p->start_offset);
    pack_int(&row, p->size_bytes);
    pack_int(&row, p->applied_time_ms);
    pack_int(&row, p->ids.expire_before_ms);
    pack_uint(&row, p->schedule.next_number);
    pack_uint(&row, p->schedule.waiting);
    enum ferry_err err = FERRY_ERR_NO_MEMORY;
    if (buf_ok(&row)) {
        err = store_put(store, p->config.group, TABLE_BASE, bytes_of(NULL, 0), buf_bytes(&row));
    }
    buf_fini(&row);
    return err;
}

static enum ferry_err flush(void *machine, struct store *store)
{
    struct partition *p = machine;
    uint64_t applied = replica_applied(p->replica);
    enum ferry_err err = flush_base(p, store);
    if (err == FERRY_OK) {
        err = producers_flush(&p->producers, store, p->config.group);
    }
    if (err == FERRY_OK) {
        err = cursors_flush(&p->cursors, store, p->config.group);
    }
    if (err == FERRY_OK) {
        err = subscriptions_flush(&p->subscriptions, store, p->config.group);
    }
    if (err == FERRY_OK) {
        err = ids_flush(&p->ids, store, p->config.group, applied);
    }
    if (err == FERRY_OK) {
        err = rows_flush(&p->dead, store, p->config.group);
    }
    if (err == FERRY_OK) {
        err = schedule_flush(&p->schedule, store, p->config.group);
    }
    if (err == FERRY_OK) {
        err = recurring_flush(&p->recurring, store, p->config.group);
    }
    if (err == FERRY_OK) {
        err = rows_flush(&p->versions.rows, store, p->config.group);
    }
    if (p->ids.expiring || subscriptions_are_leaving(&p->subscriptions)) {
        replica_ask_flush(p->replica); /* More is to go than one transaction deletes. */
    }
    return err;
}

/* Rows, and bytes as if rows had so many: what one transaction takes is bounded by both. */
static uint32_t rows_weight(const struct rows *t)
{
    uint32_t by_bytes = (uint32_t)(t->pending_bytes / FLUSH_ROW_BYTES);
    return rows_pending(t) > by_bytes ? rows_pending(t) : by_bytes;
}

static uint32_t flush_rows(const void *machine)
{
    const struct partition *p = machine;
    return (uint32_t)p->ids.count * 2 + subscriptions_dirty_rows(&p->subscriptions) +
           rows_weight(&p->dead) + rows_weight(&p->schedule.rows) + rows_weight(&p->versions.rows);
}

static enum ferry_err load_base(struct partition *p, struct bytes row, uint64_t *applied)
{
    struct unpack u;
    unpack_begin(&u, row);
    *applied = unpack_uint(&u, UINT64_MAX);
    p->next_offset = unpack_int(&u);
    p->start_offset = unpack_int(&u);
    p->size_bytes = unpack_int(&u);
    p->applied_time_ms = p->last_append_time_ms = unpack_int(&u);
    p->ids.expire_before_ms = unpack_int(&u);
    p->ids.expiring = true; /* It may have been interrupted. */
    if (unpack_has_more(&u)) {
        p->schedule.next_number = unpack_uint(&u, INT64_MAX);
        p->schedule.waiting = unpack_uint(&u, INT64_MAX);
    }
    return unpack_end(&u) == FERRY_OK ? FERRY_OK : FERRY_ERR_CORRUPT;
}

static void init_tables(struct partition *p)
{
    producers_init(&p->producers);
    cursors_init(&p->cursors);
    subscriptions_init(&p->subscriptions);
    ids_init(&p->ids);
    rows_init(&p->dead, TABLE_DEAD);
    schedule_init(&p->schedule, TABLE_SCHEDULE);
    recurring_init(&p->recurring);
    versions_init(&p->versions, TABLE_VERSIONS);
}

static void fini_tables(struct partition *p)
{
    producers_fini(&p->producers);
    cursors_fini(&p->cursors);
    subscriptions_fini(&p->subscriptions);
    ids_fini(&p->ids);
    rows_fini(&p->dead);
    schedule_fini(&p->schedule);
    recurring_fini(&p->recurring);
    versions_fini(&p->versions);
}

/* Whatever was in memory goes; what is waited for was answered when the office was lost. */
static void forget_tables(struct partition *p)
{
    fini_tables(p);
    p->next_offset = 0;
    p->start_offset = 0;
    p->size_bytes = 0;
    p->applied_time_ms = 0;
    p->last_append_time_ms = 0;
    p->housekeeping = false;
    memset(p->hints, 0, sizeof(p->hints));
}

/* Within a view. */
static enum ferry_err load(void *machine, struct store *store, uint64_t *applied,
                           int64_t *next_offset)
{
    struct partition *p = machine;
    uint64_t group = p->config.group;
    struct bytes row;
    bool found = false;
    *applied = 0;
    forget_tables(p);
    enum ferry_err err = store_get(store, group, TABLE_BASE, bytes_of(NULL, 0), &found, &row);
    if (err == FERRY_OK && found) {
        err = load_base(p, row, applied);
    }
    if (err == FERRY_OK) {
        err = producers_load(&p->producers, store, group);
    }
    if (err == FERRY_OK) {
        err = cursors_load(&p->cursors, store, group);
    }
    if (err == FERRY_OK) {
        err = subscriptions_load(&p->subscriptions, store, group);
    }
    if (err == FERRY_OK) {
        err = ids_load(&p->ids, store, group);
    }
    if (err == FERRY_OK) {
        err = rows_load(&p->dead, store, group);
    }
    if (err == FERRY_OK) {
        err = schedule_load(&p->schedule, store, group);
    }
    if (err == FERRY_OK) {
        err = recurring_load(&p->recurring, store, group);
    }
    if (err == FERRY_OK) {
        err = rows_load(&p->versions.rows, store, group);
    }
    p->proposed_next_offset = p->next_offset;
    *next_offset = p->next_offset;
    return err;
}

/* Ids by time before ids: between the two chunks of a snapshot a row may be written or expire, and
 * the one by time is what finds the other when it is over. */
static const struct machine_ops partition_ops = {.apply = apply,
                                                 .role_changed = role_changed,
                                                 .flush = flush,
                                                 .flush_rows = flush_rows,
                                                 .next_offset = next_offset_after,
                                                 .load = load,
                                                 .large_tables = {TABLE_ID_TIMES, TABLE_IDS,
                                                                  TABLE_DEAD, TABLE_EVENTS,
                                                                  TABLE_SCHEDULE, TABLE_VERSIONS}};

static enum ferry_err load_first(struct partition *p, uint64_t *applied, int64_t *next_offset)
{
    enum ferry_err err = store_read_begin(p->config.store);
    if (err == FERRY_OK) {
        err = load(p, p->config.store, applied, next_offset);
        store_read_end(p->config.store);
    }
    return err;
}

/* ---- Opening and closing ---- */

static int64_t notice_us(const struct partition_config *config)
{
    bool beats_faster = config->heartbeat_us != 0 && config->heartbeat_us < COMMIT_NOTICE_US;
    return beats_faster ? config->heartbeat_us : COMMIT_NOTICE_US;
}

enum ferry_err partition_open(const struct partition_config *config, int64_t now_us,
                              struct partition **out, struct err_text *e)
{
    struct partition *p = mem_zalloc(1, sizeof(*p));
    if (p == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    p->config = *config;
    init_tables(p);
    deliver_init(p);
    ticket_queue_init(&p->tickets);
    buf_init(&p->housekeeping_payload, HOUSEKEEPING_MAX_BYTES);
    p->retention_due_us = p->members_due_us = RAFT_NEVER;
    uint64_t applied = 0;
    int64_t next_offset = 0;
    enum ferry_err err = load_first(p, &applied, &next_offset);
    if (err != FERRY_OK) {
        (void)err_set(e, err, "group %llu: its tables cannot be read: %s",
                      (unsigned long long)config->group, ferry_err_text(err));
    } else {
        struct replica_config r = {.group = config->group,
                                   .self = config->self,
                                   .initial = config->initial,
                                   .election_min_us = config->election_min_us,
                                   .election_max_us = config->election_max_us,
                                   .heartbeat_us = config->heartbeat_us,
                                   .copy_bytes = config->copy_bytes,
                                   .notice_us = notice_us(config),
                                   .seed = config->seed,
                                   .store = config->store,
                                   .ops = &partition_ops,
                                   .machine = p,
                                   .applied = applied,
                                   .next_offset = next_offset};
        err = replica_open(&r, now_us, &p->replica, e);
    }
    if (err != FERRY_OK) {
        partition_close(&p);
        return err;
    }
    *out = p;
    return FERRY_OK;
}

void partition_close(struct partition **pp)
{
    struct partition *p = *pp;
    if (p == NULL) {
        return;
    }
    must(ticket_queue_is_empty(&p->tickets));
    replica_close(&p->replica);
    fini_tables(p);
    deliver_fini(p);
    buf_fini(&p->housekeeping_payload);
    mem_free(p);
    *pp = NULL;
}

struct replica *partition_replica(struct partition *p)
{
    return p->replica;
}

void partition_configure(struct partition *p, const struct topic_settings *settings)
{
    p->config.settings = *settings;
    p->retention_due_us = 0;
}

/* ---- Proposing ---- */

bool partition_may_spend(const struct partition *p)
{
    return p->config.own_bytes == NULL || *p->config.own_bytes > 0;
}

void partition_spend(struct partition *p, size_t bytes)
{
    if (p->config.own_bytes != NULL) {
        *p->config.own_bytes -= (int64_t)bytes;
    }
}

enum ferry_err partition_check_leader(const struct partition *p)
{
    return replica_check_leader(p->replica);
}

/* Invariant 7: the wall clock may step back, the log's time does not. */
int64_t partition_next_time(const struct partition *p, int64_t now_ms)
{
    return now_ms > p->last_append_time_ms ? now_ms : p->last_append_time_ms;
}

enum ferry_err partition_propose(struct partition *p, struct store_entry *entry, int64_t now_us,
                                 struct partition_ticket *t)
{
    uint64_t index = 0;
    /* What no replica can read would end all of them. */
    must(entry->type != STORE_ENTRY_CONTROL || unpack_check(entry->payload));
    entry->base_offset = p->proposed_next_offset;
    enum ferry_err err = replica_propose(p->replica, entry, now_us, &index);
    if (err != FERRY_OK) {
        return err;
    }
    p->last_append_time_ms = entry->append_time_ms;
    p->proposed_next_offset = next_offset_after(entry);
    p->proposed_index = index;
    if (t != NULL) {
        ticket_queue_wait(&p->tickets, &t->base, index);
    }
    return FERRY_OK;
}

enum ferry_err partition_propose_control(struct partition *p, const struct control *c,
                                         int64_t now_ms, int64_t now_us, struct partition_ticket *t)
{
    buf_clear(&t->payload); /* An earlier try may have been refused. */
    control_encode(&t->payload, c);
    return partition_propose_payload(p, now_ms, now_us, t);
}

enum ferry_err partition_propose_payload(struct partition *p, int64_t now_ms, int64_t now_us,
                                         struct partition_ticket *t)
{
    if (!buf_ok(&t->payload)) {
        return FERRY_ERR_NO_MEMORY;
    }
    struct store_entry entry = {.type = STORE_ENTRY_CONTROL,
                                .append_time_ms = partition_next_time(p, now_ms),
                                .payload = buf_bytes(&t->payload)};
    return partition_propose(p, &entry, now_us, t);
}

enum ferry_err partition_propose_housekeeping(struct partition *p, const struct control *c,
                                              int64_t now_ms, int64_t now_us)
{
    must(!p->housekeeping);
    buf_clear(&p->housekeeping_payload);
    control_encode(&p->housekeeping_payload, c);
    if (!buf_ok(&p->housekeeping_payload)) {
        return FERRY_ERR_NO_MEMORY;
    }
    struct store_entry entry = {.type = STORE_ENTRY_CONTROL,
                                .append_time_ms = partition_next_time(p, now_ms),
                                .payload = buf_bytes(&p->housekeeping_payload)};
    enum ferry_err err = partition_propose(p, &entry, now_us, NULL);
    p->housekeeping = err == FERRY_OK;
    return err;
}

struct partition_ticket *partition_waiting(const struct partition *p, uint64_t index)
{
    struct ticket *t = ticket_queue_find(&p->tickets, index);
    return t != NULL ? list_entry(t, struct partition_ticket, base) : NULL;
}

void partition_refuse(struct partition *p, struct partition_ticket *t, enum ferry_err err)
{
    if (t != NULL) {
        ticket_queue_refuse(&p->tickets, &t->base, err);
    }
}

struct partition_ticket *partition_next_done(struct partition *p)
{
    for (struct ticket *done; (done = ticket_queue_next_done(&p->tickets)) != NULL;) {
        struct partition_ticket *t = list_entry(done, struct partition_ticket, base);
        if (!t->own) {
            return t;
        }
        deliver_free_ticket(t);
    }
    return NULL;
}

/* ---- Asking ---- */

int64_t partition_start_offset(const struct partition *p)
{
    return p->start_offset;
}

int64_t partition_end_offset(const struct partition *p)
{
    return p->next_offset;
}

int64_t partition_size_bytes(const struct partition *p)
{
    return p->size_bytes;
}

uint64_t partition_readable_bytes(const struct partition *p)
{
    return p->readable_bytes;
}

void partition_check(const struct partition *p)
{
    replica_check(p->replica);
    if (replica_state(p->replica) == REPLICA_INSTALLING) {
        return; /* After a crash the tables are those of half a snapshot; nobody uses them. */
    }
    must(p->start_offset <= p->next_offset);
    must(p->size_bytes >= 0);
    ticket_queue_check(&p->tickets, replica_applied(p->replica));
    schedule_check(&p->schedule);
    for (size_t i = 0; i < p->subscriptions.count; i++) {
        const struct subscription *s = p->subscriptions.items[i];
        must(s->position <= p->next_offset);
        if (s->members != NULL) {
            members_check(s->members);
        }
    }
    deliver_check(p);
}
