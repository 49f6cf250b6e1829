/* Queue and keyed delivery: handing out, reading what was handed out, applying, the timer. Settling
 * is in partition_settle.c, dead letters are in partition_dead.c. */
#include "base/mem.h"
#include "partition/partition_internal.h"

/* After a proposal of its own was refused. */
#define DELIVER_RETRY_US 50000
/* Of one entry's decoded lists. */
#define DECODED_MAX_BYTES  (16u << 20)
#define SCRATCH_MAX_BYTES  (32u << 20)
#define SCRATCH_KEPT_BYTES (64u << 10)
/* Between the wake sequences of two indexes of the same subscription. */
#define WAKE_STEP 32

/* ---- Life ---- */

void deliver_init(struct partition *p)
{
    struct deliver *d = &p->deliver;
    prng_init(&d->jitter, p->config.seed);
    id_gen_init_seeded(&d->random, prng_next(&d->jitter));
    d->due_us = PICK_NEVER;
    buf_init(&d->decoded, DECODED_MAX_BYTES);
    buf_init(&d->statuses, SETTLE_ITEMS_MAX * sizeof(uint16_t));
    buf_init(&d->items, SETTLE_ITEMS_MAX * sizeof(struct delivery_settle_item));
    buf_init(&d->dues, SETTLE_DUES_MAX * sizeof(struct delivery_due));
    buf_init(&d->dead, SETTLE_DEAD_MAX * sizeof(struct delivery_dead));
    buf_init(&d->records, SCRATCH_MAX_BYTES);
    buf_init(&d->piece, SCRATCH_MAX_BYTES);
}

void deliver_fini(struct partition *p)
{
    struct deliver *d = &p->deliver;
    buf_fini(&d->decoded);
    buf_fini(&d->statuses);
    buf_fini(&d->items);
    buf_fini(&d->dues);
    buf_fini(&d->dead);
    buf_fini(&d->records);
    buf_fini(&d->piece);
}

void deliver_release(struct buf *b)
{
    size_t limit = b->limit;
    if (b->capacity > SCRATCH_KEPT_BYTES) {
        buf_fini(b);
        buf_init(b, limit);
    }
}

void deliver_forget(struct partition *p)
{
    for (size_t i = 0; p->deliver.forget && i < p->subscriptions.count; i++) {
        pick_free(&p->subscriptions.items[i]->pick);
    }
    p->deliver.forget = false;
}

void deliver_role_changed(struct partition *p, bool ready)
{
    p->deliver.forget = true;
    if (ready) {
        deliver_forget(p);
    }
    p->deliver.due_us = ready ? 0 : PICK_NEVER; /* Leases count from now on. */
    p->deliver.retry_us = 0;
    p->deliver.dead_change_index = 0; /* What another leader dropped is on its way no more. */
}

struct partition_ticket *deliver_own_ticket(void)
{
    struct partition_ticket *t = mem_zalloc(1, sizeof(*t));
    if (t != NULL) {
        partition_ticket_init(t);
        t->own = true;
    }
    return t;
}

void deliver_free_ticket(struct partition_ticket *t)
{
    partition_ticket_fini(t);
    mem_free(t);
}

/* ---- The index ---- */

enum ferry_err deliver_find(const struct partition *p, struct bytes name, struct subscription **s)
{
    enum ferry_err err = partition_check_leader(p);
    if (err != FERRY_OK) {
        return err;
    }
    *s = subscriptions_find(&p->subscriptions, name);
    if (*s == NULL) {
        return FERRY_ERR_UNKNOWN_SUBSCRIPTION;
    }
    return (*s)->delivery != NULL ? FERRY_OK : FERRY_ERR_INVALID_ARGUMENT;
}

struct pick_clock deliver_clock(const struct partition *p, int64_t now_ms, int64_t now_us)
{
    return (struct pick_clock){.ms = partition_next_time(p, now_ms), .us = now_us};
}

enum ferry_err deliver_pick(struct partition *p, struct subscription *s,
                            const struct pick_clock *now)
{
    if (s->pick == NULL) {
        s->pick = pick_new(s->delivery, ++p->deliver.picks << WAKE_STEP, now);
    }
    return s->pick != NULL ? pick_update(s->pick, now) : FERRY_ERR_NO_MEMORY;
}

void deliver_look_again(struct partition *p, const struct subscription *s)
{
    int64_t due_us = s->pick != NULL ? pick_deadline_us(s->pick) : 0;
    p->deliver.due_us = due_us < p->deliver.due_us ? due_us : p->deliver.due_us;
}

static void touch(struct partition *p, struct subscription *s, bool freed)
{
    if (s->pick != NULL) {
        pick_touch(s->pick, freed);
        p->deliver.due_us = 0;
    }
}

/* ---- Receive ---- */

static enum ferry_err read_piece(void *arg, int64_t offset, struct pick_piece *piece)
{
    struct log_reader *r = arg;
    enum ferry_err err = log_reader_seek(r, offset, r->opens);
    *piece = r->piece;
    return err;
}

static enum ferry_err size_of_run(void *arg, const struct delivery_run *run, uint32_t *bytes_each)
{
    struct log_reader *r = arg;
    if (run->dead != 0) {
        struct dead_letter d;
        enum ferry_err err = dead_read(r->p, r->subscription, run->dead, &d);
        *bytes_each = err == FERRY_OK ? (uint32_t)d.record.size : 0;
        return err;
    }
    enum ferry_err err = log_reader_seek(r, run->first, false);
    if (err == FERRY_OK) {
        *bytes_each = (uint32_t)(r->piece.batch.size / r->piece.header.count);
    }
    return err;
}

static enum ferry_err propose_hand_out(struct partition *p, const struct subscription *s,
                                       const struct receive *r, int64_t now_ms, int64_t now_us,
                                       struct partition_ticket *t)
{
    struct id_gen *random = p->config.random != NULL ? p->config.random : &p->deliver.random;
    t->token = id_random(random);
    t->subscription = s->number;
    t->lease_ms = r->lease_ms != 0 ? r->lease_ms : s->settings.lease_ms;
    struct hand_out_entry e = {
        .subscription = s->number,
        .node = partition_node(p),
        .count = 1,
        .hand_outs = {{.lease = t->lease,
                       .token = t->token,
                       .lease_ms = t->lease_ms,
                       .member = r->member,
                       .range_count = (uint32_t)(t->ranges.size / sizeof(struct delivery_range)),
                       .ranges = (const void *)t->ranges.data}}};
    buf_clear(&t->payload);
    hand_out_encode(&t->payload, &e);
    return partition_propose_payload(p, now_ms, now_us, t);
}

static enum ferry_err check_receive(const struct receive *r)
{
    bool lease = r->lease_ms == 0 || (r->lease_ms >= LEASE_MIN_MS && r->lease_ms <= LEASE_MAX_MS);
    bool messages = r->max_messages > 0 && r->max_messages <= RECEIVE_MESSAGES_MAX;
    if (!name_is_valid(r->member)) {
        return FERRY_ERR_BAD_NAME;
    }
    return lease && messages ? FERRY_OK : FERRY_ERR_INVALID_ARGUMENT;
}

static enum ferry_err choose(struct partition *p, struct subscription *s, const struct receive *r,
                             const struct pick_clock *now, struct pick_choice *choice)
{
    struct log_reader reader = {.p = p, .subscription = s, .opens = delivery_is_keyed(s->delivery)};
    struct pick_log log = {
        .end = p->next_offset, .arg = &reader, .read = read_piece, .size = size_of_run};
    struct pick_ask ask = {
        .member = r->member, .max_messages = r->max_messages, .max_bytes = r->max_bytes};
    enum ferry_err err = pick_next(s->pick, &ask, &log, now, choice);
    log_reader_leave(&reader, pick_scanned(s->pick));
    if (err == FERRY_OK && choice->answer == PICK_NOTHING && pick_wants_more(s->pick)) {
        pick_rouse(s->pick); /* It looks further when it is asked again. */
    }
    return err;
}

static enum ferry_err receive(struct partition *p, struct subscription *s, const struct receive *r,
                              int64_t now_ms, int64_t now_us, struct partition_ticket *t,
                              enum receive_answer *answer)
{
    struct pick_clock now = deliver_clock(p, now_ms, now_us);
    struct pick_choice choice = {.ranges = &t->ranges};
    enum ferry_err err = deliver_pick(p, s, &now);
    if (err == FERRY_OK) {
        err = choose(p, s, r, &now, &choice);
    }
    if (err != FERRY_OK || choice.answer != PICK_SOME) {
        *answer = choice.answer == PICK_MEMBER_FULL ? RECEIVE_MEMBER_FULL : RECEIVE_NOTHING;
        return err;
    }
    t->lease = choice.lease;
    t->count = choice.count;
    err = propose_hand_out(p, s, r, now_ms, now_us, t);
    if (err != FERRY_OK) {
        pick_give_back(s->pick, choice.lease);
    }
    *answer = RECEIVE_PROPOSED;
    return err;
}

enum ferry_err partition_receive(struct partition *p, const struct receive *r, int64_t now_ms,
                                 int64_t now_us, struct partition_ticket *t,
                                 enum receive_answer *answer)
{
    struct subscription *s = NULL;
    *answer = RECEIVE_NOTHING;
    enum ferry_err err = deliver_find(p, r->subscription, &s);
    if (err == FERRY_OK) {
        err = check_receive(r);
    }
    if (err != FERRY_OK || s->paused) {
        return err;
    }
    err = receive(p, s, r, now_ms, now_us, t, answer);
    deliver_look_again(p, s);
    return err;
}

uint64_t partition_wake_sequence(const struct partition *p, struct bytes subscription)
{
    const struct subscription *s = subscriptions_find(&p->subscriptions, subscription);
    if (s == NULL) {
        return 0;
    }
    return 1 + p->deliver.appends + (s->pick != NULL ? pick_wake(s->pick) : 0);
}

/* ---- Reading what was handed out ---- */

struct delivering {
    struct partition *p;
    struct subscription *s;
    const struct partition_ticket *t;
    struct log_reader reader;
    struct buf *repeats, *out;
    uint32_t most, count; /* Messages: to be written, written. */
    bool cut;             /* There were more. */
    int64_t first, end;   /* Of the log, side by side, not written yet. */
};

static enum ferry_err append_entry(struct buf *out, const struct fetch_entry *entry)
{
    fetch_entry_append(out, entry);
    return buf_ok(out) ? FERRY_OK : FERRY_ERR_NO_MEMORY;
}

/* All that the entry keeps goes byte for byte as it is stored; else what was handed out of it
 * alone.
 */
static enum ferry_err write_piece(struct delivering *d, uint32_t count)
{
    const struct pick_piece *piece = &d->reader.piece;
    struct fetch_entry entry = {.base_offset = d->first,
                                .append_time_ms = piece->append_time_ms,
                                .skip_count = piece->skip_count,
                                .skips = piece->skips,
                                .batch = piece->batch};
    if (count == piece->count) {
        return append_entry(d->out, &entry);
    }
    buf_clear(&d->p->deliver.piece);
    enum ferry_err err = log_reader_repack(&d->reader, d->first, count, &d->p->deliver.piece);
    if (err != FERRY_OK) {
        return err;
    }
    entry.skip_count = 0;
    entry.batch = buf_bytes(&d->p->deliver.piece);
    return append_entry(d->out, &entry);
}

static enum ferry_err write_log(struct delivering *d)
{
    enum ferry_err err = FERRY_OK;
    while (d->first < d->end && err == FERRY_OK) {
        err = log_reader_seek(&d->reader, d->first, true);
        if (err == FERRY_OK) {
            const struct pick_piece *piece = &d->reader.piece;
            int64_t end =
                piece->first + piece->count < d->end ? piece->first + piece->count : d->end;
            err = write_piece(d, (uint32_t)(end - d->first));
            d->first = end;
        }
    }
    return err;
}

static enum ferry_err write_letter(struct delivering *d, const struct delivery_run *run)
{
    struct dead_letter letter;
    enum ferry_err err = write_log(d);
    if (err == FERRY_OK) {
        err = dead_read(d->p, d->s, run->dead, &letter);
    }
    if (err != FERRY_OK) {
        return err;
    }
    struct fetch_entry entry = {
        .base_offset = run->first, .append_time_ms = letter.append_time_ms, .batch = letter.record};
    return append_entry(d->out, &entry);
}

static void tell_repeats(struct delivering *d, const struct delivery_run *run)
{
    for (uint32_t i = 0; run->handed > 1 && i < run->count; i++) {
        buf_append_le64(d->repeats, (uint64_t)run->first + i);
        buf_append_le32(d->repeats, run->handed);
        buf_append_le32(d->repeats, run->failed);
    }
}

static enum ferry_err deliver_run(struct delivering *d, const struct delivery_run *run)
{
    enum ferry_err err = FERRY_OK;
    tell_repeats(d, run);
    d->count += run->count;
    if (run->dead != 0) {
        return write_letter(d, run);
    }
    if (run->first != d->end) {
        err = write_log(d);
        d->first = run->first;
    }
    d->end = run->first + run->count;
    return err;
}

/* What is not held under the lease any more, or never was, is left out: an entry before the
 * hand-out may have trimmed or reset it. */
static enum ferry_err deliver_range(struct delivering *d, const struct delivery_range *r)
{
    int64_t end = r->first + r->count;
    enum ferry_err err = FERRY_OK;
    for (int64_t at = r->first; at < end && err == FERRY_OK;) {
        struct delivery_run run = delivery_at(d->s->delivery, at, end);
        int64_t run_end = run.first + run.count < end ? run.first + run.count : end;
        uint32_t room = d->most - d->count;
        run.first = at;
        run.count = (uint32_t)(run_end - at);
        if (run.state == DELIVERY_LEASED && run.lease == d->t->lease) {
            d->cut = d->cut || run.count > room;
            run.count = run.count < room ? run.count : room;
            err = run.count > 0 ? deliver_run(d, &run) : err;
        }
        at = run_end;
    }
    return err;
}

static enum ferry_err deliver_all(struct delivering *d)
{
    const struct delivery_range *ranges = (const void *)d->t->ranges.data;
    size_t count = d->t->ranges.size / sizeof(*ranges);
    enum ferry_err err = FERRY_OK;
    for (size_t i = 0; i < count && err == FERRY_OK; i++) {
        err = deliver_range(d, &ranges[i]);
    }
    if (err == FERRY_OK) {
        err = write_log(d);
    }
    log_reader_leave(&d->reader, d->end);
    return err == FERRY_OK && !(buf_ok(d->repeats) && buf_ok(d->out)) ? FERRY_ERR_NO_MEMORY : err;
}

static void shrink(struct buf *b, size_t size)
{
    b->size = size;
    b->failed = false;
}

enum ferry_err partition_read_delivery(struct partition *p, struct partition_ticket *t,
                                       struct buf *repeats, struct buf *out)
{
    struct subscription *s = subscriptions_by_number(&p->subscriptions, t->subscription);
    size_t repeats_size = repeats->size, out_size = out->size;
    enum ferry_err err = partition_check_leader(p);
    uint32_t most = t->count;
    if (err != FERRY_OK || s == NULL) {
        t->count = 0;
        return err;
    }
    for (;; most /= 2) { /* How large they are was known by the mean of their batches only. */
        struct delivering d = {.p = p,
                               .s = s,
                               .t = t,
                               .reader = {.p = p},
                               .repeats = repeats,
                               .out = out,
                               .most = most};
        err = deliver_all(&d);
        t->count = d.count;
        t->cut = d.cut;
        if (err != FERRY_ERR_NO_MEMORY || most <= 1) {
            break;
        }
        shrink(repeats, repeats_size);
        shrink(out, out_size);
    }
    deliver_release(&p->deliver.piece);
    return err;
}

/* ---- Applying ---- */

static enum ferry_err apply_hand_out(struct partition *p, const struct store_entry *entry)
{
    struct hand_out_entry e;
    buf_clear(&p->deliver.decoded);
    enum ferry_err err = hand_out_decode(entry->payload, &p->deliver.decoded, &e);
    if (err != FERRY_OK) {
        return err;
    }
    struct subscription *s = subscriptions_by_number(&p->subscriptions, e.subscription);
    if (s == NULL || s->delivery == NULL) {
        return FERRY_OK; /* Deleted meanwhile. */
    }
    for (uint32_t i = 0; i < e.count && err == FERRY_OK; i++) {
        err = delivery_apply_hand_out(s->delivery, &e.hand_outs[i]);
    }
    deliver_release(&p->deliver.decoded);
    touch(p, s, false);
    return err;
}

/* The outcomes of the entry's items go where the request had them. */
static void tell_statuses(struct partition_ticket *t, const uint16_t *status, uint32_t count)
{
    uint32_t next = 0;
    bool all_good = true;
    for (size_t at = 0; t != NULL && at < t->statuses.size; at += sizeof(uint16_t)) {
        uint16_t now = get_le16(t->statuses.data + at);
        if (now == STATUS_FROM_ENTRY) {
            must(next < count);
            now = status[next++];
            put_le16(t->statuses.data + at, now);
        }
        all_good = all_good && now == FERRY_OK;
    }
    if (t != NULL && all_good) {
        buf_clear(&t->statuses);
    }
}

static void count(struct partition *p, const struct delivery_settlement *e, const uint16_t *status,
                  uint64_t died)
{
    if (!replica_is_ready(p->replica)) {
        return; /* Who leads counts, so that the sum over all nodes is right. */
    }
    p->deliver.totals.died += died;
    for (uint32_t i = 0; i < e->count; i++) {
        bool ended = e->items[i].kind == DELIVERY_EXPIRE && status[i] == FERRY_OK;
        p->deliver.totals.leases_ended += ended ? 1 : 0;
    }
}

struct partition_totals partition_totals(const struct partition *p)
{
    return p->deliver.totals;
}

static enum ferry_err apply_settlement(struct partition *p, uint64_t index,
                                       const struct store_entry *entry)
{
    struct delivery_settlement e;
    struct partition_ticket *t = partition_waiting(p, index);
    buf_clear(&p->deliver.decoded);
    enum ferry_err err = settlement_decode(entry->payload, &p->deliver.decoded, &e);
    if (err != FERRY_OK) {
        return err;
    }
    struct subscription *s = subscriptions_by_number(&p->subscriptions, e.subscription);
    if (s == NULL || s->delivery == NULL) {
        partition_refuse(p, t, FERRY_ERR_UNKNOWN_SUBSCRIPTION);
        return FERRY_OK;
    }
    buf_clear(&p->deliver.statuses);
    uint16_t *status = (void *)buf_extend(&p->deliver.statuses, e.count * sizeof(*status));
    if (status == NULL) {
        return e.count > SETTLE_ITEMS_MAX ? FERRY_ERR_CORRUPT : FERRY_ERR_NO_MEMORY;
    }
    uint64_t died = delivery_counters(s->delivery)->died;
    err = delivery_apply_settlement(s->delivery, &e, entry->append_time_ms, &p->dead, status);
    if (err == FERRY_OK) {
        count(p, &e, status, delivery_counters(s->delivery)->died - died);
    }
    tell_statuses(t, status, e.count);
    bool parked = e.count > 0 && e.items[0].kind == DELIVERY_PARK;
    deliver_release(&p->deliver.decoded);
    if (s->pick != NULL && parked) {
        pick_parked(s->pick);
    }
    touch(p, s, true);
    partition_retain_acked(p);
    return err;
}

static enum ferry_err apply_dead_change(struct partition *p, uint64_t index,
                                        const struct store_entry *entry)
{
    struct dead_change_entry e;
    struct partition_ticket *t = partition_waiting(p, index);
    enum ferry_err err = dead_change_decode(entry->payload, &e);
    if (err != FERRY_OK) {
        return err;
    }
    struct subscription *s = subscriptions_by_number(&p->subscriptions, e.subscription);
    if (s == NULL || s->delivery == NULL) {
        partition_refuse(p, t, FERRY_ERR_UNKNOWN_SUBSCRIPTION);
        return FERRY_OK;
    }
    uint32_t done = 0;
    err = delivery_apply_dead_change(s->delivery, &e, entry->append_time_ms, &p->dead, &done);
    if (t != NULL) {
        t->count = done;
    }
    touch(p, s, true);
    return err;
}

enum ferry_err deliver_apply(struct partition *p, uint64_t index, enum control_kind kind,
                             const struct store_entry *entry)
{
    switch (kind) {
    case CONTROL_HAND_OUT:
        return apply_hand_out(p, entry);
    case CONTROL_SETTLE:
    case CONTROL_EXPIRE_LEASES:
        return apply_settlement(p, index, entry);
    case CONTROL_DEAD_CHANGE:
        return apply_dead_change(p, index, entry);
    default:
        break;
    }
    must(false);
    return FERRY_ERR_CORRUPT;
}

bool deliver_applies(enum control_kind kind)
{
    return kind == CONTROL_HAND_OUT || kind == CONTROL_SETTLE || kind == CONTROL_EXPIRE_LEASES ||
           kind == CONTROL_DEAD_CHANGE;
}

enum ferry_err deliver_apply_trim(struct partition *p, int64_t start_offset)
{
    enum ferry_err err = FERRY_OK;
    for (size_t i = 0; i < p->subscriptions.count && err == FERRY_OK; i++) {
        struct subscription *s = p->subscriptions.items[i];
        if (s->delivery != NULL) {
            err = delivery_apply_trim(s->delivery, start_offset);
            touch(p, s, true);
        }
    }
    return err;
}

/* Paused, resumed, altered, reset: whoever waits asks again. */
void deliver_subscription_applied(struct partition *p, enum control_kind kind)
{
    bool changed = kind == CONTROL_SUBSCRIPTION_ALTER || kind == CONTROL_SUBSCRIPTION_RESET;
    partition_retain_acked(p);
    p->deliver.due_us = kind == CONTROL_SUBSCRIPTION_CREATE ? 0 : p->deliver.due_us;
    for (size_t i = 0; changed && i < p->subscriptions.count; i++) {
        struct subscription *s = p->subscriptions.items[i];
        touch(p, s, true);
        if (s->pick != NULL) {
            pick_rouse(s->pick);
        }
    }
}

int64_t deliver_least_position(const struct partition *p)
{
    int64_t least = INT64_MAX;
#ifdef MUT_68 /* what one of the subscriptions still needs is dropped */
    for (size_t i = 1; i < p->subscriptions.count; i++) {
#else
    for (size_t i = 0; i < p->subscriptions.count; i++) {
#endif
        int64_t position = subscription_position(p->subscriptions.items[i]);
        least = position < least ? position : least;
    }
    return least;
}

/* ---- The timer ---- */

int64_t deliver_deadline_us(const struct partition *p)
{
    const struct deliver *d = &p->deliver;
    return d->due_us > d->retry_us ? d->due_us : d->retry_us;
}

static enum ferry_err tick_one(struct partition *p, struct subscription *s, int64_t now_ms,
                               int64_t now_us)
{
    struct pick_clock now = deliver_clock(p, now_ms, now_us);
    enum ferry_err err = deliver_pick(p, s, &now);
    if (err == FERRY_OK) {
        err = settle_expired(p, s, now_ms, now_us);
    }
    if (err == FERRY_OK) {
        err = settle_parked(p, s, now_ms, now_us);
    }
    deliver_look_again(p, s);
    return err;
}

enum ferry_err deliver_tick(struct partition *p, int64_t now_ms, int64_t now_us)
{
    if (!replica_is_ready(p->replica)) {
        p->deliver.due_us = PICK_NEVER;
        return FERRY_OK;
    }
    enum ferry_err err = store_read_begin(p->config.store);
    if (err != FERRY_OK) {
        return err;
    }
    p->deliver.due_us = PICK_NEVER;
    /* One that cannot go on keeps no other from it. */
    for (size_t i = 0; i < p->subscriptions.count; i++) {
        struct subscription *s = p->subscriptions.items[i];
        enum ferry_err one = s->delivery != NULL ? tick_one(p, s, now_ms, now_us) : FERRY_OK;
        err = err == FERRY_OK ? one : err;
    }
    store_read_end(p->config.store);
    if (err != FERRY_OK) {
        p->deliver.due_us = 0;
        p->deliver.retry_us = now_us + DELIVER_RETRY_US;
    }
    /* The indexes are made anew when there is memory; what is in the log is not touched. */
    return err == FERRY_ERR_NO_MEMORY ? FERRY_OK : err;
}

void deliver_check(const struct partition *p)
{
    for (size_t i = 0; i < p->subscriptions.count; i++) {
        const struct subscription *s = p->subscriptions.items[i];
        must((s->delivery != NULL) == (s->mode != SUBSCRIPTION_STREAM));
        if (s->delivery != NULL) {
            delivery_check(s->delivery, p->next_offset);
        }
        if (s->pick != NULL) {
            pick_check(s->pick);
        }
    }
}
