/* Settling what was handed out: what members ask for, leases that end, messages behind a parked
 * key. The leader decides everything that is to be decided (when it is due again, whether it is
 * dead) and puts it into the entry, with the records of those that die: apply does as it says. */
#include <stdlib.h>

#include "base/mem.h"
#include "partition/partition_internal.h"

/* After an entry of the partition's own was refused, or could not hold all. */
#define AGAIN_US   50000
#define DAMAGED_US 1000000

struct settling {
    struct partition *p;
    struct subscription *s;
    int64_t time_ms; /* The entry's. */
    struct log_reader reader;
    bool has_dead;     /* An item before this one has dead letters. */
    bool revived_dies; /* One that was replayed may be a dead letter again. */
};

static void begin(struct settling *w, struct partition *p, struct subscription *s, int64_t now_ms)
{
    *w = (struct settling){
        .p = p, .s = s, .time_ms = partition_next_time(p, now_ms), .reader = {.p = p}};
    buf_clear(&p->deliver.items);
    buf_clear(&p->deliver.dues);
    buf_clear(&p->deliver.dead);
    buf_clear(&p->deliver.records);
}

static void end(struct settling *w)
{
    log_reader_close(&w->reader);
    deliver_release(&w->p->deliver.items);
    deliver_release(&w->p->deliver.dues);
    deliver_release(&w->p->deliver.dead);
    deliver_release(&w->p->deliver.records);
}

/* ---- What comes back ---- */

/* min * 2^(failed - 1), at most max, less a random part of up to a half. */
static int64_t backoff_ms(struct partition *p, const struct delivery_settings *s, uint32_t failed)
{
    uint64_t ms = s->backoff_min_ms;
    for (uint32_t i = 1; i < failed && ms < s->backoff_max_ms; i++) {
        ms *= 2;
    }
    ms = ms < s->backoff_max_ms ? ms : s->backoff_max_ms;
    return (int64_t)(ms - prng_below(&p->deliver.jitter, ms / 2 + 1));
}

static bool dies_of(const struct settling *w, const struct delivery_run *run)
{
#ifdef MUT_63 /* a message becomes a dead letter one failure too late */
    return run->failed + 1 > w->s->settings.max_deliveries;
#endif
    return run->failed + 1 >= w->s->settings.max_deliveries;
}

static enum ferry_err add_due(struct settling *w, const struct delivery_run *run)
{
    struct delivery_due due = {.first = run->first,
                               .count = run->count,
                               .due_ms =
                                   w->time_ms + backoff_ms(w->p, &w->s->settings, run->failed + 1)};
    buf_append(&w->p->deliver.dues, &due, sizeof(due));
    return buf_ok(&w->p->deliver.dues) ? FERRY_OK : FERRY_ERR_THROTTLED;
}

/* ---- What dies ---- */

static enum ferry_err find_record(struct settling *w, const struct delivery_run *run,
                                  int64_t offset, int64_t *append_time_ms)
{
    struct buf *records = &w->p->deliver.records;
    enum ferry_err err = FERRY_OK;
    if (run->dead != 0) {
        struct dead_letter letter;
        err = dead_read(w->p, w->s, run->dead, &letter);
        if (err == FERRY_OK) {
            buf_append_bytes(records, letter.record);
            *append_time_ms = letter.append_time_ms;
        }
    } else {
        err = log_reader_seek(&w->reader, offset, true);
        if (err == FERRY_OK) {
            err = log_reader_repack(&w->reader, offset, 1, records);
            *append_time_ms = w->reader.piece.append_time_ms;
        }
    }
    return err == FERRY_OK && !buf_ok(records) ? FERRY_ERR_NO_MEMORY : err;
}

/* THROTTLED: not now; with what is flushed, or with the next entry. */
static enum ferry_err may_die(const struct settling *w)
{
    if (rows_is_full(&w->p->dead)) {
        replica_ask_flush(w->p->replica);
        return FERRY_ERR_THROTTLED;
    }
    return partition_may_spend(w->p) ? FERRY_OK : FERRY_ERR_THROTTLED;
}

/* Errors: THROTTLED, CORRUPT, TOO_LARGE (the entry has no room for it), … */
static enum ferry_err add_dead(struct settling *w, const struct delivery_run *run, int64_t offset)
{
    struct deliver *d = &w->p->deliver;
    struct delivery_dead dead = {.offset = offset};
    size_t before = d->records.size;
    enum ferry_err err = may_die(w);
    if (err == FERRY_OK) {
        err = find_record(w, run, offset, &dead.append_time_ms);
    }
    if (err != FERRY_OK) {
        d->records.size = before;
        return err;
    }
    if (d->records.size > DEAD_ENTRY_MAX_BYTES && before > 0) {
        d->records.size = before;
        return FERRY_ERR_TOO_LARGE;
    }
    w->revived_dies = w->revived_dies || run->dead != 0;
    bool parks = w->s->settings.key_policy == KEY_POLICY_PARK;
    dead.key_hash = parks ? run->key_hash : 0;
    dead.record = bytes_of(NULL, d->records.size - before); /* The place follows. */
    buf_append(&d->dead, &dead, sizeof(dead));
    return buf_ok(&d->dead) ? FERRY_OK : FERRY_ERR_TOO_LARGE;
}

/* The whole run; stops at the first that does not fit, `*end` is behind what was added. */
static enum ferry_err add_dead_run(struct settling *w, const struct delivery_run *run, int64_t *end)
{
    enum ferry_err err = FERRY_OK;
    for (*end = run->first; *end < run->first + run->count && err == FERRY_OK;) {
        err = add_dead(w, run, *end);
        *end += err == FERRY_OK;
    }
    return err;
}

/* ---- The entry ---- */

static int dead_by_offset(const void *a, const void *b)
{
    int64_t x = ((const struct delivery_dead *)a)->offset;
    int64_t y = ((const struct delivery_dead *)b)->offset;
    return x < y ? -1 : x > y;
}

static int due_by_first(const void *a, const void *b)
{
    int64_t x = ((const struct delivery_due *)a)->first;
    int64_t y = ((const struct delivery_due *)b)->first;
    return x < y ? -1 : x > y;
}

/* Ascending, each offset once: a request may name a message twice. */
static uint32_t sort_dead(struct deliver *d)
{
    struct delivery_dead *dead = (void *)d->dead.data;
    size_t count = d->dead.size / sizeof(*dead);
    const uint8_t *at = d->records.data;
    for (size_t i = 0; i < count; i++) {
        dead[i].record.data = at;
        at += dead[i].record.size;
    }
    if (count > 1) {
        qsort(dead, count, sizeof(*dead), dead_by_offset);
    }
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (kept == 0 || dead[kept - 1].offset != dead[i].offset) {
            dead[kept++] = dead[i];
        }
    }
    return (uint32_t)kept;
}

static uint32_t sort_dues(struct deliver *d)
{
    struct delivery_due *due = (void *)d->dues.data;
    size_t count = d->dues.size / sizeof(*due);
    if (count > 1) {
        qsort(due, count, sizeof(*due), due_by_first);
    }
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (kept == 0 || due[kept - 1].first + due[kept - 1].count <= due[i].first) {
            due[kept++] = due[i];
        }
    }
    return (uint32_t)kept;
}

static struct delivery_settlement make_settlement(struct settling *w, struct bytes member)
{
    struct deliver *d = &w->p->deliver;
    return (struct delivery_settlement){
        .subscription = w->s->number,
        .node = partition_node(w->p),
        .member = member,
        .count = (uint32_t)(d->items.size / sizeof(struct delivery_settle_item)),
        .items = (const void *)d->items.data,
        .due_count = sort_dues(d),
        .dues = (const void *)d->dues.data,
        .dead_count = sort_dead(d),
        .dead = (const void *)d->dead.data};
}

static enum ferry_err propose(struct settling *w, enum control_kind kind, struct bytes member,
                              int64_t now_ms, int64_t now_us, struct partition_ticket *t)
{
    struct delivery_settlement e = make_settlement(w, member);
    buf_clear(&t->payload);
    settlement_encode(&t->payload, kind, &e);
    enum ferry_err err = partition_propose_payload(w->p, now_ms, now_us, t);
    if (err == FERRY_OK) {
        partition_spend(w->p, w->p->deliver.records.size);
        w->p->deliver.dead_change_index =
            w->revived_dies ? t->base.index : w->p->deliver.dead_change_index;
    }
    return err;
}

static bool add_item(struct settling *w, const struct delivery_settle_item *item)
{
    buf_append(&w->p->deliver.items, item, sizeof(*item));
    return buf_ok(&w->p->deliver.items);
}

/* An entry that nobody asked for. */
static enum ferry_err propose_own(struct settling *w, enum control_kind kind, struct bytes member,
                                  int64_t now_ms, int64_t now_us)
{
    struct partition_ticket *t = deliver_own_ticket();
#ifdef MUT_61 /* leases end by the leader's clock alone, without an entry */
    uint16_t status[PICK_EXPIRE_MAX];
    struct delivery_settlement e = make_settlement(w, bytes_of(NULL, 0));
    deliver_free_ticket(t);
    return delivery_apply_settlement(w->s->delivery, &e, w->time_ms, &w->p->dead, status);
#endif
    if (t == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    enum ferry_err err = propose(w, kind, member, now_ms, now_us, t);
    if (err != FERRY_OK) {
        deliver_free_ticket(t);
    }
    return err;
}

/* ---- Requests ---- */

static bool is_valid(const struct settle_item *i)
{
    bool range = i->first >= 0 && i->count > 0 && i->first <= INT64_MAX - i->count;
    bool reason = i->reason.size <= REASON_MAX_BYTES;
    switch (i->kind) {
    case SETTLE_ACK:
    case SETTLE_RELEASE:
        return range;
    case SETTLE_REJECT:
        return range && reason;
    case SETTLE_NACK:
        return range && reason && i->delay_ms >= -1 && i->delay_ms <= DELAY_MAX_MS;
    case SETTLE_EXTEND:
        return i->delay_ms >= LEASE_MIN_MS && i->delay_ms <= LEASE_MAX_MS;
    default:
        return false;
    }
}

static enum ferry_err end_run(struct settling *w, const struct settle_item *i,
                              const struct delivery_run *run)
{
    int64_t end = 0;
    if (i->kind == SETTLE_REJECT || (i->kind == SETTLE_NACK && dies_of(w, run))) {
        return add_dead_run(w, run, &end);
    }
    return i->kind == SETTLE_NACK && i->delay_ms < 0 ? add_due(w, run) : FERRY_OK;
}

/* What must be decided of what is held under the lease now; whether all of it is, is for apply. */
static enum ferry_err end_runs(struct settling *w, const struct settle_item *i)
{
    int64_t end = i->first + i->count;
    enum ferry_err err = FERRY_OK;
    if (i->kind != SETTLE_NACK && i->kind != SETTLE_REJECT) {
        return FERRY_OK;
    }
    for (int64_t at = i->first; at < end && err == FERRY_OK;) {
        struct delivery_run run = delivery_at(w->s->delivery, at, end);
        int64_t run_end = run.first + run.count < end ? run.first + run.count : end;
        run.first = at;
        run.count = (uint32_t)(run_end - at);
        if (run.state == DELIVERY_LEASED && run.lease == i->lease) {
            err = end_run(w, i, &run);
        }
        at = run_end;
    }
    return err;
}

/* So that its end is not proposed in front of the extension; the token must be right. Returns how
 * long it lasts: a lease never ends sooner than it would have. */
static uint32_t extend(struct settling *w, const struct settle_item *i, int64_t now_us)
{
    const struct delivery_lease *l = delivery_find_lease(w->s->delivery, i->lease);
    int64_t until_us = now_us + i->delay_ms * 1000;
    if (l != NULL && id_equal(&l->token, &i->token)) {
        until_us = pick_extend(w->s->pick, i->lease, until_us);
    }
    return (uint32_t)((until_us - now_us + 999) / 1000);
}

static enum ferry_err take_item(struct settling *w, const struct settle_item *i, int64_t now_us)
{
    if (!is_valid(i)) { /* Before anything is computed of it. */
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    int64_t delay_ms = i->kind == SETTLE_NACK && i->delay_ms > 0 ? i->delay_ms : 0;
    struct delivery_settle_item item = {.kind = i->kind,
                                        .lease = i->lease,
                                        .token = i->token,
                                        .first = i->first,
                                        .count = i->count,
                                        .due_ms = w->time_ms + delay_ms,
                                        .reason = i->reason};
    if (i->kind == SETTLE_EXTEND) {
        item.first = 0;
        item.count = 0;
        item.extend_ms = extend(w, i, now_us);
    }
    enum ferry_err err = end_runs(w, i);
    if (err == FERRY_ERR_TOO_LARGE) {
        err = w->has_dead ? FERRY_ERR_THROTTLED : FERRY_ERR_INVALID_ARGUMENT;
    }
    return err == FERRY_OK && !add_item(w, &item) ? FERRY_ERR_NO_MEMORY : err;
}

/* An item that is not taken leaves nothing behind. */
static enum ferry_err try_item(struct settling *w, const struct settle_item *i, int64_t now_us,
                               uint16_t *status)
{
    struct deliver *d = &w->p->deliver;
    size_t dues = d->dues.size, dead = d->dead.size, records = d->records.size;
    enum ferry_err err = take_item(w, i, now_us);
    if (err == FERRY_OK) {
        w->has_dead = w->has_dead || d->dead.size > dead;
        *status = STATUS_FROM_ENTRY;
        return FERRY_OK;
    }
    d->dues.size = dues;
    d->dead.size = dead;
    d->records.size = records;
    d->dues.failed = d->dead.failed = d->records.failed = false;
    *status = (uint16_t)err;
    bool of_item =
        err == FERRY_ERR_INVALID_ARGUMENT || err == FERRY_ERR_THROTTLED || err == FERRY_ERR_CORRUPT;
    return of_item ? FERRY_OK : err;
}

static enum ferry_err settle(struct settling *w, const struct settle_request *q, int64_t now_ms,
                             int64_t now_us, struct partition_ticket *t)
{
    uint8_t *statuses = buf_extend(&t->statuses, q->count * sizeof(uint16_t));
    enum ferry_err err = statuses != NULL ? FERRY_OK : FERRY_ERR_NO_MEMORY;
    for (uint32_t i = 0; i < q->count && err == FERRY_OK; i++) {
        uint16_t status = 0;
        err = try_item(w, &q->items[i], now_us, &status);
        put_le16(statuses + (size_t)i * 2, status);
    }
    if (err != FERRY_OK || w->p->deliver.items.size == 0) {
        return err; /* Nothing to carry out: answered at once. */
    }
    return propose(w, CONTROL_SETTLE, q->member, now_ms, now_us, t);
}

enum ferry_err partition_settle(struct partition *p, const struct settle_request *q, int64_t now_ms,
                                int64_t now_us, struct partition_ticket *t)
{
    struct subscription *s = NULL;
    struct settling w;
    enum ferry_err err = deliver_find(p, q->subscription, &s);
    if (err == FERRY_OK && (q->count == 0 || !name_is_valid(q->member))) {
        err = FERRY_ERR_INVALID_ARGUMENT;
    }
    if (err == FERRY_OK) {
        struct pick_clock now = deliver_clock(p, now_ms, now_us);
        err = deliver_pick(p, s, &now);
    }
    if (err == FERRY_OK) {
        begin(&w, p, s, now_ms);
        err = settle(&w, q, now_ms, now_us, t);
        end(&w);
        deliver_look_again(p, s);
    }
    if (err != FERRY_OK) {
        buf_clear(&t->statuses);
    }
    return err;
}

/* ---- What an answer had no room for ---- */

static enum ferry_err release_rest(struct settling *w, const struct delivery_lease *l,
                                   uint32_t kept)
{
    int64_t after = INT64_MIN;
    struct delivery_run run;
    enum ferry_err err = FERRY_OK;
    while (err == FERRY_OK && delivery_next_leased(w->s->delivery, l, &after, &run)) {
        uint32_t skipped = kept < run.count ? kept : run.count;
        struct delivery_settle_item item = {.kind = SETTLE_RELEASE,
                                            .lease = l->number,
                                            .token = l->token,
                                            .first = run.first + skipped,
                                            .count = run.count - skipped,
                                            .due_ms = w->time_ms};
        kept -= skipped;
        err = item.count == 0 || add_item(w, &item) ? FERRY_OK : FERRY_ERR_NO_MEMORY;
    }
    return err;
}

enum ferry_err partition_release_rest(struct partition *p, const struct partition_ticket *t,
                                      int64_t now_ms, int64_t now_us)
{
    struct subscription *s = subscriptions_by_number(&p->subscriptions, t->subscription);
    const struct delivery_lease *l =
        s != NULL && s->delivery != NULL ? delivery_find_lease(s->delivery, t->lease) : NULL;
    struct settling w;
    enum ferry_err err = partition_check_leader(p);
    if (err != FERRY_OK || l == NULL) {
        return err;
    }
    begin(&w, p, s, now_ms);
    err = release_rest(&w, l, t->count);
    if (err == FERRY_OK && p->deliver.items.size > 0) {
        struct bytes member = bytes_of(l->member, l->member_bytes);
        err = propose_own(&w, CONTROL_SETTLE, member, now_ms, now_us);
    }
    end(&w);
    return err;
}

/* ---- Leases that end ---- */

/* A message that cannot be read cannot be a dead letter either: it comes back once more. */
static enum ferry_err expire_run(struct settling *w, const struct delivery_run *run, int64_t *end)
{
    *end = run->first + run->count;
    if (!dies_of(w, run)) {
        return add_due(w, run);
    }
    enum ferry_err err = add_dead_run(w, run, end);
    if (err != FERRY_ERR_CORRUPT) {
        return err;
    }
    struct delivery_run bad = *run;
    bad.first = (*end)++;
    bad.count = 1;
    return add_due(w, &bad);
}

/* *whole: nothing of it is left for the next entry. */
static enum ferry_err expire_lease(struct settling *w, uint64_t number, bool *whole)
{
    const struct delivery_lease *l = delivery_find_lease(w->s->delivery, number);
    struct delivery_settle_item item = {.kind = DELIVERY_EXPIRE, .lease = number};
    struct delivery_run run;
    enum ferry_err err = FERRY_OK;
    int64_t end = 0;
    *whole = true;
    if (l == NULL) {
        return FERRY_OK;
    }
    item.due_ms = w->time_ms + backoff_ms(w->p, &w->s->settings, 1);
    for (int64_t after = INT64_MIN;
         err == FERRY_OK && delivery_next_leased(w->s->delivery, l, &after, &run);) {
        item.first = end == 0 ? run.first : item.first;
        while (run.count > 0 && err == FERRY_OK) {
            err = expire_run(w, &run, &end);
            run.count -= (uint32_t)(end - run.first);
            run.first = end;
        }
    }
    if (err == FERRY_ERR_THROTTLED || err == FERRY_ERR_TOO_LARGE) {
        *whole = false;
        item.count = (uint32_t)(end - item.first);
        err = FERRY_OK;
    } else {
        item.first = 0;
    }
    bool some = *whole || item.count > 0;
    return err == FERRY_OK && some && !add_item(w, &item) ? FERRY_ERR_NO_MEMORY : err;
}

static enum ferry_err expire_leases(struct settling *w, const uint64_t *leases, uint32_t count,
                                    int64_t now_ms, int64_t now_us)
{
    enum ferry_err err = FERRY_OK;
    bool whole = true;
    for (uint32_t i = 0; i < count && err == FERRY_OK; i++) {
        if (whole) {
            err = expire_lease(w, leases[i], &whole);
        }
        if (!whole) {
            pick_expire_later(w->s->pick, leases[i], now_us + AGAIN_US);
        }
    }
    if (err != FERRY_OK || w->p->deliver.items.size == 0) {
        return err;
    }
    return propose_own(w, CONTROL_EXPIRE_LEASES, bytes_of(NULL, 0), now_ms, now_us);
}

enum ferry_err settle_expired(struct partition *p, struct subscription *s, int64_t now_ms,
                              int64_t now_us)
{
    struct settling w;
    uint64_t leases[PICK_EXPIRE_MAX];
    struct pick_clock now = deliver_clock(p, now_ms, now_us);
    uint32_t count = pick_expired(s->pick, &now, leases);
    if (count == 0) {
        return FERRY_OK;
    }
    begin(&w, p, s, now_ms);
    enum ferry_err err = expire_leases(&w, leases, count, now_ms, now_us);
    end(&w);
    for (uint32_t i = 0; i < count && err != FERRY_OK; i++) {
        pick_expire_later(s->pick, leases[i], now_us + AGAIN_US);
    }
    return err;
}

/* ---- Behind a parked key ---- */

static enum ferry_err park(struct settling *w, const struct delivery_range *ranges, uint32_t count)
{
    enum ferry_err err = FERRY_OK;
    for (uint32_t i = 0; i < count && err == FERRY_OK; i++) {
        struct delivery_run run = {
            .first = ranges[i].first, .count = 1, .key_hash = ranges[i].key_hash};
        struct delivery_settle_item item = {
            .kind = DELIVERY_PARK, .first = run.first, .count = 1, .due_ms = w->time_ms};
        err = add_dead(w, &run, run.first);
        if (err == FERRY_OK && !add_item(w, &item)) {
            err = FERRY_ERR_NO_MEMORY;
        }
    }
    /* What did not fit comes with the next entry. */
    return w->p->deliver.items.size > 0 ? FERRY_OK : err;
}

enum ferry_err settle_parked(struct partition *p, struct subscription *s, int64_t now_ms,
                             int64_t now_us)
{
    struct settling w;
    struct delivery_range ranges[PICK_PARK_MAX];
    uint32_t count = pick_to_park(s->pick, ranges);
    if (count == 0) {
        return FERRY_OK;
    }
    begin(&w, p, s, now_ms);
    enum ferry_err err = park(&w, ranges, count);
    if (err == FERRY_OK) {
        err = propose_own(&w, CONTROL_EXPIRE_LEASES, bytes_of(NULL, 0), now_ms, now_us);
    }
    end(&w);
    if (err != FERRY_OK) {
        pick_parked(s->pick);
        p->deliver.retry_us = now_us + (err == FERRY_ERR_CORRUPT ? DAMAGED_US : AGAIN_US);
        err = err == FERRY_ERR_CORRUPT || err == FERRY_ERR_THROTTLED ? FERRY_OK : err;
    }
    return err;
}
