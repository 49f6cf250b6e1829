/* Deliveries against a naive twin, an array of messages: random entries, invalid ones too, compared
 * after each. Three instances take in the same: one that is never flushed, one that is flushed, one
 * that is loaded again and again; their rows are the same bytes in the end. Seeds are printed. */
#include "delivery_fixture.h"

#define MESSAGES   400
#define FIRST      3900 /* The segments' border at 4,096 is within. */
#define LEASES     6000
#define LETTERS    6000
#define KEYS       12
#define MEMBERS    4
#define STEPS      4000
#define INSTANCES  3
#define PARTS_MAX  6
#define ITEMS_MAX  4
#define RECORD_MAX 12

struct twin_failure {
    int64_t time_ms;
    uint32_t kind, member, reason;
};
struct twin_history {
    uint32_t count;
    struct twin_failure items[HISTORY_MAX];
};
struct twin_message {
    enum delivery_state state;
    uint32_t handed, failed;
    uint64_t lease, key, dead;
    int64_t due_ms;
    struct twin_history history;
};
struct twin_lease {
    bool kept;
    uint32_t member, left, lease_ms;
    uint64_t ended;
    uint8_t settled[MESSAGES]; /* How each message was. */
};
struct twin_letter {
    bool kept, revived;
    int64_t offset, died_ms;
    uint32_t handed, failed, version; /* Of the record. */
    uint64_t key;
    struct twin_history history;
};
struct twin {
    bool keyed;
    int64_t start, floor, end, time_ms;
    uint64_t next_lease, next_letter, ended;
    struct delivery_counters counters;
    struct twin_message messages[MESSAGES];
    struct twin_lease leases[LEASES];
    struct twin_letter letters[LETTERS];
    uint32_t parked[KEYS + 1];
    bool seen_waiting[MESSAGES]; /* What the changes told of. */
};

static char *member_name(uint32_t member)
{
    static char names[MEMBERS + 1][8] = {"m0", "m1", "m2", "m3", "asker"};
    return names[member];
}

static char *reason_text(uint32_t reason)
{
    static char reasons[4][16] = {"", "late", "broken", "again"};
    return reasons[reason];
}

static struct twin_message *message_at(struct twin *t, int64_t offset)
{
    assert_true(offset >= FIRST && offset < FIRST + MESSAGES);
    return &t->messages[offset - FIRST];
}

/* Below where it was made all is done; beyond the end nothing is ever asked. */
static bool is_known(const struct twin *t, int64_t offset)
{
    return offset >= FIRST && offset < t->end;
}

/* ---- What the twin does ---- */

static void twin_fail(struct twin_history *h, struct twin_failure failure)
{
    if (h->count == HISTORY_MAX) {
        memmove(h->items, h->items + 1, (HISTORY_MAX - 1) * sizeof(failure));
        h->count--;
    }
    h->items[h->count++] = failure;
}

static void twin_done(struct twin_message *m)
{
    *m = (struct twin_message){.state = DELIVERY_DONE};
}

/* A message leaves its lease; the lease may end with it. */
static void twin_leave(struct twin *t, struct twin_message *m)
{
    struct twin_lease *lease = &t->leases[m->lease];
    m->lease = 0;
    if (--lease->left > 0) {
        return;
    }
    lease->ended = ++t->ended;
    for (size_t i = 0; i < LEASES; i++) {
        if (t->leases[i].kept && t->leases[i].ended != 0 &&
            t->leases[i].ended + DELIVERY_SETTLED_KEPT <= t->ended) {
            t->leases[i].kept = false;
        }
    }
}

static void twin_floor(struct twin *t)
{
    while (t->floor < t->end) {
        const struct twin_message *m = message_at(t, t->floor);
        if (m->state != DELIVERY_DONE && m->dead == 0) {
            return;
        }
        t->floor++;
    }
}

static bool key_is_leased(const struct twin *t, uint64_t key)
{
    for (size_t i = 0; i < MESSAGES; i++) {
        if (t->messages[i].state == DELIVERY_LEASED && t->messages[i].key == key) {
            return true;
        }
    }
    return false;
}

static void twin_hand_out(struct twin *t, const struct delivery_hand_out *h, uint32_t member)
{
    if (h->lease < t->next_lease) {
        return;
    }
    t->next_lease = h->lease + 1;
    struct twin_lease *lease = &t->leases[h->lease];
    *lease = (struct twin_lease){.member = member, .lease_ms = h->lease_ms};
    for (uint32_t i = 0; i < h->range_count; i++) {
        const struct delivery_range *range = &h->ranges[i];
        for (uint32_t k = 0; k < range->count && (range->key_hash == 0 || range->count == 1); k++) {
            struct twin_message *m = message_at(t, range->first + k);
            if (m->state != DELIVERY_FRESH && m->state != DELIVERY_WAITING) {
                continue;
            }
            uint64_t key = m->state == DELIVERY_WAITING ? m->key : (t->keyed ? range->key_hash : 0);
            if (key != 0 && key_is_leased(t, key)) {
                continue;
            }
            m->state = DELIVERY_LEASED;
            m->handed++;
            m->key = key;
            m->due_ms = 0;
            m->lease = h->lease;
            lease->left++;
            t->counters.handed_out++;
        }
    }
    lease->kept = lease->left > 0;
}

static void twin_forget_letter(struct twin *t, uint64_t number)
{
    t->letters[number].kept = false;
    t->letters[number].revived = false;
    if (--t->counters.dead == 0) {
        memset(t->parked, 0, sizeof(t->parked));
    }
}

static void twin_die(struct twin *t, int64_t offset, const struct delivery_dead *dead,
                     struct twin_failure failure)
{
    struct twin_message *m = message_at(t, offset);
    uint64_t number = m->dead;
    if (number == 0) {
        number = t->next_letter++;
        t->counters.dead++;
    }
    struct twin_letter *letter = &t->letters[number];
    *letter = (struct twin_letter){.kept = true,
                                   .offset = offset,
                                   .died_ms = failure.time_ms,
                                   .handed = m->handed,
                                   .failed = m->failed + (failure.kind != FAILURE_PARKED),
                                   .version = dead->record.data[0],
                                   .key = dead->key_hash,
                                   .history = m->history};
    twin_fail(&letter->history, failure);
    t->parked[dead->key_hash] += dead->key_hash != 0;
    t->counters.died++;
    if (m->state == DELIVERY_LEASED) {
        twin_leave(t, m);
    }
    twin_done(m);
}

static const struct delivery_dead *twin_dead(const struct delivery_settlement *s, int64_t offset)
{
    for (uint32_t i = 0; i < s->dead_count; i++) {
        if (s->dead[i].offset == offset) {
            return &s->dead[i];
        }
    }
    return NULL;
}

static void twin_wait(struct twin *t, struct twin_message *m, int64_t due_ms)
{
    if (m->state == DELIVERY_LEASED) {
        twin_leave(t, m);
    }
    m->state = DELIVERY_WAITING;
    m->due_ms = due_ms;
}

static void twin_fail_message(struct twin *t, const struct delivery_settlement *s,
                              const struct delivery_settle_item *item, int64_t offset,
                              struct twin_failure failure)
{
    struct twin_message *m = message_at(t, offset);
    const struct delivery_dead *dead = twin_dead(s, offset);
    int64_t due_ms = item->due_ms;
    for (uint32_t i = 0; i < s->due_count; i++) {
        if (offset >= s->dues[i].first && offset < s->dues[i].first + s->dues[i].count) {
            due_ms = s->dues[i].due_ms;
        }
    }
    t->counters.failed++;
    if (dead != NULL) {
        twin_die(t, offset, dead, failure);
        return;
    }
    twin_fail(&m->history, failure);
    m->failed++;
    twin_wait(t, m, due_ms);
}

static void twin_settle_message(struct twin *t, const struct delivery_settlement *s,
                                const struct delivery_settle_item *item, int64_t offset,
                                struct twin_failure failure)
{
    struct twin_message *m = message_at(t, offset);
    switch (item->kind) {
    case SETTLE_ACK:
        t->counters.acked++;
        if (m->dead != 0) {
            twin_forget_letter(t, m->dead);
        }
        twin_leave(t, m);
        twin_done(m);
        return;
    case SETTLE_RELEASE:
        t->counters.released++;
        twin_wait(t, m, t->time_ms);
        return;
    case SETTLE_REJECT:
        failure.kind = FAILURE_REJECT;
        t->counters.failed++;
        twin_die(t, offset, twin_dead(s, offset), failure);
        return;
    default:
        failure.kind = item->kind == DELIVERY_EXPIRE ? FAILURE_EXPIRED : FAILURE_NACK;
        twin_fail_message(t, s, item, offset, failure);
    }
}

static bool is_of(struct twin *t, uint64_t lease, int64_t offset)
{
    return is_known(t, offset) && message_at(t, offset)->state == DELIVERY_LEASED &&
           message_at(t, offset)->lease == lease;
}

static uint16_t twin_range(struct twin *t, const struct delivery_settlement *s,
                           const struct delivery_settle_item *item, struct twin_failure failure)
{
    struct twin_lease *lease = &t->leases[item->lease];
    for (int64_t o = item->first; o < item->first + item->count; o++) {
        if (is_of(t, item->lease, o)) {
            if (item->kind == SETTLE_REJECT && twin_dead(s, o) == NULL) {
                return FERRY_ERR_CORRUPT;
            }
        } else if (!is_known(t, o) || lease->settled[o - FIRST] != item->kind) {
            return FERRY_ERR_LEASE_EXPIRED;
        }
    }
    for (int64_t o = item->first; o < item->first + item->count; o++) {
        if (is_of(t, item->lease, o)) {
            lease->settled[o - FIRST] = (uint8_t)item->kind;
            twin_settle_message(t, s, item, o, failure);
        }
    }
    return FERRY_OK;
}

static uint16_t twin_park(struct twin *t, const struct delivery_settlement *s,
                          const struct delivery_settle_item *item, struct twin_failure failure)
{
    failure.kind = FAILURE_PARKED;
    failure.member = MEMBERS;
    for (int64_t o = item->first; o < item->first + item->count; o++) {
        if (!is_known(t, o) || twin_dead(s, o) == NULL ||
            (message_at(t, o)->state != DELIVERY_FRESH &&
             message_at(t, o)->state != DELIVERY_WAITING)) {
            return FERRY_ERR_INVALID_ARGUMENT;
        }
    }
    for (int64_t o = item->first; o < item->first + item->count; o++) {
        twin_die(t, o, twin_dead(s, o), failure);
    }
    return FERRY_OK;
}

static uint16_t twin_item(struct twin *t, const struct delivery_settlement *s,
                          const struct delivery_settle_item *item, uint32_t reason)
{
    const struct ferry_id token = token_of(item->lease);
    struct twin_lease *lease = &t->leases[item->lease];
    bool asks = item->kind <= SETTLE_EXTEND;
    struct twin_failure failure = {
        .time_ms = t->time_ms, .member = lease->member, .reason = reason};
    if (item->kind != SETTLE_EXTEND && item->kind != DELIVERY_EXPIRE && item->count == 0) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    if (item->kind == DELIVERY_PARK) {
        return twin_park(t, s, item, failure);
    }
    if (!lease->kept || (asks && memcmp(&token, &item->token, sizeof(token)) != 0)) {
        return FERRY_ERR_LEASE_EXPIRED;
    }
    if (asks && item->kind != SETTLE_EXTEND) {
        return twin_range(t, s, item, failure);
    }
    if (lease->left == 0) {
        return FERRY_ERR_LEASE_EXPIRED;
    }
    if (item->kind == SETTLE_EXTEND) {
        lease->lease_ms = item->extend_ms;
        return FERRY_OK;
    }
    for (int64_t o = FIRST; o < t->end; o++) {
        bool named = item->count == 0 || (o >= item->first && o < item->first + item->count);
        if (named && is_of(t, item->lease, o)) {
            twin_settle_message(t, s, item, o, failure);
        }
    }
    return FERRY_OK;
}

static void twin_trim(struct twin *t, int64_t start)
{
    for (int64_t o = t->floor; o < start; o++) {
        struct twin_message *m = message_at(t, o);
        if (m->dead != 0 || m->state == DELIVERY_DONE) {
            continue;
        }
        t->counters.expired++;
        if (m->state == DELIVERY_LEASED) {
            twin_leave(t, m);
        }
        twin_done(m);
    }
    t->floor = start > t->floor ? start : t->floor;
    twin_floor(t);
}

static void twin_reset(struct twin *t, int64_t to)
{
    for (int64_t o = FIRST; o < FIRST + MESSAGES; o++) {
        *message_at(t, o) = (struct twin_message){.state = o < to ? DELIVERY_DONE : DELIVERY_FRESH};
    }
    for (size_t i = 0; i < LEASES; i++) {
        t->leases[i].kept = false;
    }
    for (size_t i = 0; i < LETTERS; i++) {
        t->letters[i].revived = false;
    }
    memset(t->parked, 0, sizeof(t->parked));
    t->counters = (struct delivery_counters){.dead = t->counters.dead};
    t->start = t->floor = to;
}

static bool twin_replay(struct twin *t, const struct dead_change_part *part, uint32_t version)
{
    struct twin_letter *letter = &t->letters[part->number];
    if (!letter->kept || letter->revived || message_at(t, letter->offset)->state != DELIVERY_DONE) {
        return false;
    }
    letter->revived = true;
    letter->version = version != 0 ? version : letter->version;
    t->parked[letter->key] -= t->parked[letter->key] > 0;
    t->counters.revived++;
    *message_at(t, letter->offset) = (struct twin_message){.state = DELIVERY_WAITING,
                                                           .due_ms = t->time_ms,
                                                           .key = t->keyed ? part->key_hash : 0,
                                                           .dead = part->number,
                                                           .history = letter->history};
    return true;
}

static bool twin_drop(struct twin *t, uint64_t number)
{
    struct twin_letter *letter = &t->letters[number];
    if (!letter->kept) {
        return false;
    }
    if (letter->revived) {
        struct twin_message *m = message_at(t, letter->offset);
        t->counters.died++;
        if (m->state == DELIVERY_LEASED) {
            twin_leave(t, m);
        }
        twin_done(m);
        twin_floor(t);
    } else {
        t->parked[letter->key] -= t->parked[letter->key] > 0;
    }
    twin_forget_letter(t, number);
    return true;
}

/* ---- The instances ---- */

struct instance {
    struct delivery *d;
    struct rows dead_rows;
    uint64_t group;
};
struct world {
    struct store *store;
    struct prng p;
    struct twin *t;
    struct instance instances[INSTANCES];
};

static uint64_t below(struct world *w, uint64_t bound)
{
    return prng_below(&w->p, bound);
}

static int64_t any_offset(struct world *w)
{
    return FIRST + (int64_t)below(w, (uint64_t)(w->t->end - FIRST));
}

static uint64_t key_of(const struct twin *t, int64_t offset)
{
    return t->keyed ? (uint64_t)(offset * 7 % 17 % (KEYS + 1)) : 0;
}

static void step_hand_out(struct world *w)
{
    struct delivery_range ranges[PARTS_MAX];
    uint32_t member = (uint32_t)below(w, MEMBERS);
    struct delivery_hand_out h = {.lease = w->t->next_lease,
                                  .lease_ms = 100 + (uint32_t)below(w, 5),
                                  .member = bytes_of_string(member_name(member)),
                                  .ranges = ranges};
    uint64_t odd = below(w, 20);
    h.lease = odd == 0 ? 1 + below(w, h.lease) : h.lease + (odd == 1 ? below(w, 3) : 0);
    h.token = token_of(h.lease);
    int64_t next = any_offset(w);
    for (uint32_t i = 0; i < PARTS_MAX && next < w->t->end; i++) {
        struct delivery_range range = {.first = next};
        bool one = w->t->keyed && below(w, 8) != 0;
        range.count = one ? 1 : 1 + (uint32_t)below(w, 20);
        range.count = range.first + range.count > w->t->end ? (uint32_t)(w->t->end - range.first)
                                                            : range.count;
        range.key_hash = range.count == 1 ? key_of(w->t, next) : 0;
        next += range.count + (int64_t)below(w, 6);
        ranges[h.range_count++] = range;
    }
    twin_hand_out(w->t, &h, member);
    for (size_t i = 0; i < INSTANCES; i++) {
        assert_int_equal(delivery_apply_hand_out(w->instances[i].d, &h), FERRY_OK);
    }
}

static const uint8_t records[256] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};

static uint32_t random_dead(struct world *w, struct delivery_dead *dead)
{
    uint32_t count = 0;
    uint64_t one_of = 1 + below(w, 5);
    if (below(w, 3) != 0) {
        return 0;
    }
    for (int64_t o = FIRST; o < w->t->end; o++) {
        if (below(w, one_of) == 0) {
            bool parks = w->t->keyed && below(w, 2) == 0;
            dead[count++] =
                (struct delivery_dead){.offset = o,
                                       .append_time_ms = 100 + o,
                                       .key_hash = parks ? key_of(w->t, o) : 0,
                                       .record = bytes_of(records + below(w, RECORD_MAX), 1)};
        }
    }
    return count;
}

static uint32_t random_dues(struct world *w, struct delivery_due *dues)
{
    uint32_t count = 0;
    for (int64_t o = FIRST + (int64_t)below(w, 30); o < w->t->end && count < MESSAGES;) {
        dues[count] = (struct delivery_due){.first = o,
                                            .count = 1 + (uint32_t)below(w, 30),
                                            .due_ms = w->t->time_ms + (int64_t)below(w, 3)};
        o += dues[count++].count + (int64_t)below(w, 30);
    }
    return count;
}

/* Mostly of what is held: else little would ever happen. */
static struct delivery_settle_item random_item(struct world *w)
{
    static const uint32_t kinds[] = {1, 1, 1, 1, 1, 2, 2, 2, 3, 4, 5, 6, 6, 7};
    int64_t at = any_offset(w);
    for (int i = 0; i < 30 && message_at(w->t, at)->state != DELIVERY_LEASED; i++) {
        at = any_offset(w);
    }
    uint64_t lease = message_at(w->t, at)->lease;
    if (lease == 0 || below(w, 20) == 0) {
        lease = below(w, w->t->next_lease);
    }
    struct delivery_settle_item item = item_of(kinds[below(w, 14)], lease, at, 1);
    while (below(w, 6) != 0 && item.first > FIRST && is_of(w->t, lease, item.first - 1)) {
        item.first--;
        item.count++;
    }
    while (below(w, 6) != 0 && is_of(w->t, lease, item.first + item.count)) {
        item.count++;
    }
    item.count += below(w, 15) == 0 ? (uint32_t)below(w, 6) : 0;
    item.count = below(w, 30) == 0 ? 0 : item.count;
    item.token.bytes[3] ^= below(w, 30) == 0 ? 1 : 0;
    item.due_ms = w->t->time_ms + (int64_t)below(w, 3);
    item.extend_ms = (uint32_t)below(w, 1000);
    return item;
}

static void step_settle(struct world *w)
{
    struct delivery_settle_item items[ITEMS_MAX];
    struct delivery_dead dead[MESSAGES];
    struct delivery_due dues[MESSAGES];
    uint16_t expected[ITEMS_MAX];
    struct delivery_settlement s = {.subscription = SUBSCRIPTION,
                                    .member = bytes_of_string("asker"),
                                    .count = 1 + (uint32_t)below(w, ITEMS_MAX),
                                    .items = items,
                                    .dues = dues,
                                    .dead = dead};
    s.dead_count = random_dead(w, dead);
    s.due_count = random_dues(w, dues);
    for (uint32_t i = 0; i < s.count; i++) {
        uint32_t reason = (uint32_t)below(w, 4);
        items[i] = random_item(w);
        if (i > 0 && below(w, 4) == 0) {
            items[i] = items[i - 1]; /* The same again. */
        }
        items[i].reason = bytes_of_string(reason_text(reason));
        expected[i] = twin_item(w->t, &s, &items[i], reason);
        twin_floor(w->t);
    }
    for (size_t i = 0; i < INSTANCES; i++) {
        uint16_t status[ITEMS_MAX];
        struct instance *in = &w->instances[i];
        assert_int_equal(
            delivery_apply_settlement(in->d, &s, w->t->time_ms, &in->dead_rows, status), FERRY_OK);
        assert_memory_equal(status, expected, s.count * sizeof(status[0]));
    }
}

/* As the leader reads it. */
static void make_letter(const struct twin *t, uint64_t number, uint32_t version, struct buf *out)
{
    const struct twin_letter *from = &t->letters[number];
    struct dead_letter letter = {.offset = from->offset,
                                 .append_time_ms = 100 + from->offset,
                                 .died_ms = from->died_ms,
                                 .handed_out = from->handed,
                                 .failed = from->failed,
                                 .key_hash = from->key,
                                 .failure_count = from->history.count};
    for (uint32_t i = 0; i < from->history.count; i++) {
        const struct twin_failure *f = &from->history.items[i];
        letter.failures[i] = (struct failure){.time_ms = f->time_ms,
                                              .kind = f->kind,
                                              .member = bytes_of_string(member_name(f->member)),
                                              .reason = bytes_of_string(reason_text(f->reason))};
    }
    letter.record = version != 0 ? bytes_of(records + version - 1, 1) : letter.record;
    dead_encode(out, &letter);
    assert_true(buf_ok(out));
}

static void step_dead_change(struct world *w)
{
    static struct dead_change_entry e;
    struct buf letters[PARTS_MAX];
    uint32_t expected = 0;
    e.change = below(w, 4) == 0 ? DEAD_DROP : DEAD_REPLAY;
    e.count = 1 + (uint32_t)below(w, PARTS_MAX);
    for (uint32_t i = 0; i < e.count; i++) {
        uint64_t number = below(w, w->t->next_letter + 2);
        for (int k = 0; k < 20 && !w->t->letters[number].kept; k++) {
            number = below(w, w->t->next_letter);
        }
        uint32_t version = below(w, 3) == 0 ? 1 + (uint32_t)below(w, RECORD_MAX) : 0;
        const struct twin_letter *letter = &w->t->letters[number];
        buf_init(&letters[i], 8192);
        make_letter(w->t, number, version, &letters[i]);
        e.parts[i] = (struct dead_change_part){.number = number,
                                               .key_hash = key_of(w->t, letter->offset),
                                               .parked = letter->key,
                                               .letter = buf_bytes(&letters[i])};
        expected += e.change == DEAD_DROP ? twin_drop(w->t, number)
                                          : twin_replay(w->t, &e.parts[i], version);
    }
    for (size_t i = 0; i < INSTANCES; i++) {
        uint32_t done = 0;
        struct instance *in = &w->instances[i];
        assert_int_equal(
            delivery_apply_dead_change(in->d, &e, w->t->time_ms, &in->dead_rows, &done), FERRY_OK);
        assert_int_equal(done, expected);
    }
    for (uint32_t i = 0; i < e.count; i++) {
        buf_fini(&letters[i]);
    }
}

static void step_trim(struct world *w)
{
    int64_t start = w->t->floor - 3 + (int64_t)below(w, 6);
    start = start > w->t->end ? w->t->end : start;
    twin_trim(w->t, start);
    for (size_t i = 0; i < INSTANCES; i++) {
        assert_int_equal(delivery_apply_trim(w->instances[i].d, start), FERRY_OK);
    }
}

static void step_reset(struct world *w)
{
    int64_t to = any_offset(w);
    twin_reset(w->t, to);
    for (size_t i = 0; i < INSTANCES; i++) {
        assert_int_equal(delivery_apply_reset(w->instances[i].d, to), FERRY_OK);
    }
}

/* The log is as long as it gets, and little is left to do. */
static bool is_idle(const struct twin *t)
{
    return t->end == FIRST + MESSAGES && t->floor > t->end - 20;
}

static void random_step(struct world *w)
{
    uint64_t what = below(w, 1000);
    w->t->time_ms += (int64_t)below(w, 3);
    if (is_idle(w->t) && what > 950) {
        step_reset(w);
    } else if (what < 100) {
        int64_t grown = w->t->end + (int64_t)below(w, 12);
        w->t->end = grown < FIRST + MESSAGES ? grown : FIRST + MESSAGES;
    } else if (what < 450) {
        step_hand_out(w);
    } else if (what < 900) {
        step_settle(w);
    } else if (what < 970) {
        step_dead_change(w);
    } else if (what < 998) {
        step_trim(w);
    } else {
        step_reset(w);
    }
    if (below(w, 40) == 0) {
        struct instance *in = &w->instances[1];
        flush_delivery(in->d, &in->dead_rows, w->store, in->group);
    }
    if (below(w, 40) == 0) {
        struct instance *in = &w->instances[2];
        reload_delivery(&in->d, &in->dead_rows, w->store, in->group);
    }
}

/* ---- Comparing ---- */

static void compare_failures(const struct failure *got, uint32_t count,
                             const struct twin_history *expected)
{
    assert_int_equal(count, expected->count);
    for (uint32_t i = 0; i < count; i++) {
        const struct twin_failure *f = &expected->items[i];
        assert_int_equal(got[i].time_ms, f->time_ms);
        assert_int_equal(got[i].kind, f->kind);
        assert_true(bytes_equal(got[i].member, bytes_of_string(member_name(f->member))));
        assert_true(bytes_equal(got[i].reason, bytes_of_string(reason_text(f->reason))));
    }
}

static void compare_message(const struct delivery *d, const struct twin *t, int64_t offset)
{
    const struct twin_message *m = &t->messages[offset - FIRST];
    struct delivery_run run = delivery_at(d, offset, t->end);
    struct failure failures[HISTORY_MAX];
    assert_true(run.first <= offset && run.first + run.count > offset);
    assert_int_equal(run.state, m->state);
    assert_int_equal(run.handed, m->handed);
    assert_int_equal(run.failed, m->failed);
    assert_int_equal(run.lease, m->lease);
    assert_int_equal(run.due_ms, m->due_ms);
    assert_int_equal(run.key_hash, m->key);
    assert_int_equal(run.dead, m->dead);
    compare_failures(failures, delivery_failures(&run, failures), &m->history);
}

static void compare_leases(const struct delivery *d, const struct twin *t)
{
    uint64_t active = 0;
    uint32_t held[MEMBERS] = {0};
    for (uint64_t n = 1; n < t->next_lease; n++) {
        const struct twin_lease *expected = &t->leases[n];
        const struct delivery_lease *lease = delivery_find_lease(d, n);
        assert_int_equal(lease != NULL, expected->kept);
        if (lease == NULL) {
            continue;
        }
        assert_int_equal(lease->left, expected->left);
        assert_int_equal(lease->lease_ms, expected->lease_ms);
        if (expected->left > 0) {
            const struct delivery_lease *next = delivery_next_lease(d, active);
            assert_true(next == lease);
            active = n;
            held[expected->member] += expected->left;
        }
    }
    assert_null(delivery_next_lease(d, active));
    assert_int_equal(delivery_next_lease_number(d), t->next_lease);
    for (uint32_t i = 0; i < MEMBERS; i++) {
        assert_int_equal(delivery_held(d, bytes_of_string(member_name(i))), held[i]);
    }
}

static void compare_counters(const struct delivery *d, struct twin *t)
{
    t->counters.leased = t->counters.waiting = 0;
    for (size_t i = 0; i < MESSAGES; i++) {
        t->counters.leased += t->messages[i].state == DELIVERY_LEASED;
        t->counters.waiting += t->messages[i].state == DELIVERY_WAITING;
    }
    assert_memory_equal(delivery_counters(d), &t->counters, sizeof(t->counters));
    assert_int_equal(delivery_floor(d), t->floor);
    size_t parked = 0;
    for (uint64_t key = 1; key <= KEYS; key++) {
        assert_int_equal(delivery_key_is_parked(d, key), t->parked[key] > 0);
        parked += t->parked[key] > 0;
    }
    assert_int_equal(delivery_parked(d), parked);
}

static void compare_fresh(const struct delivery *d, struct twin *t, int64_t from)
{
    int64_t first = from < t->floor ? t->floor : from;
    int64_t got;
    while (first < t->end && message_at(t, first)->state != DELIVERY_FRESH) {
        first++;
    }
    int64_t until = first;
    while (until < t->end && message_at(t, until)->state == DELIVERY_FRESH) {
        until++;
    }
    assert_int_equal(delivery_next_fresh(d, from, t->end, &got), until - first);
    assert_true(until == first || got == first);
}

static void compare_letters(struct instance *in, struct store *store, struct twin *t)
{
    assert_int_equal(store_read_begin(store), FERRY_OK);
    for (uint64_t n = 1; n < t->next_letter; n++) {
        const struct twin_letter *expected = &t->letters[n];
        struct dead_letter letter;
        uint8_t key[16];
        bool found;
        struct bytes row;
        int64_t offset;
        dead_key(SUBSCRIPTION, n, key);
        assert_int_equal(
            rows_get(&in->dead_rows, store, in->group, bytes_of(key, 16), &found, &row), FERRY_OK);
        assert_int_equal(found, expected->kept);
        assert_int_equal(delivery_dead_is_kept(in->d, n), expected->kept);
        assert_int_equal(delivery_is_revived(in->d, n, &offset), expected->revived);
        if (!found) {
            continue;
        }
        assert_int_equal(dead_decode(bytes_of(key, 16), row, &letter), FERRY_OK);
        assert_int_equal(letter.offset, expected->offset);
        assert_int_equal(letter.died_ms, expected->died_ms);
        assert_int_equal(letter.handed_out, expected->handed);
        assert_int_equal(letter.failed, expected->failed);
        assert_int_equal(letter.key_hash, expected->key);
        assert_int_equal(letter.record.size, 1);
        assert_int_equal(letter.record.data[0], expected->version);
        compare_failures(letter.failures, letter.failure_count, &expected->history);
    }
    store_read_end(store);
}

/* Whoever follows the changes knows of every message that waits. */
static void follow_changes(struct delivery *d, struct twin *t)
{
    struct delivery_change change;
    while (delivery_next_change(d, &change)) {
        if (change.kind == DELIVERY_CHANGED_RESET) {
            for (int64_t o = FIRST; o < t->end; o++) {
                t->seen_waiting[o - FIRST] = message_at(t, o)->state == DELIVERY_WAITING;
            }
        } else if (change.kind == DELIVERY_CHANGED_WAITING) {
            struct delivery_run run = delivery_at(d, change.first, t->end);
            for (int64_t o = run.first; o < run.first + run.count; o++) {
                t->seen_waiting[o - FIRST] = true;
            }
        }
    }
    for (int64_t o = FIRST; o < t->end; o++) {
        bool waits = message_at(t, o)->state == DELIVERY_WAITING;
        assert_true(!waits || t->seen_waiting[o - FIRST]);
        t->seen_waiting[o - FIRST] = waits;
    }
}

static void compare_all(struct world *w, uint32_t step)
{
    for (size_t i = 0; i < INSTANCES; i++) {
        struct instance *in = &w->instances[i];
        delivery_check(in->d, w->t->end);
        for (int64_t o = FIRST; o < w->t->end; o++) {
            compare_message(in->d, w->t, o);
        }
        compare_leases(in->d, w->t);
        compare_counters(in->d, w->t);
        compare_fresh(in->d, w->t, any_offset(w));
        if (step % 20 == 0) {
            compare_letters(in, w->store, w->t);
        }
    }
    follow_changes(w->instances[0].d, w->t);
}

/* ---- Rows ---- */

static enum ferry_err take_row(struct bytes key, struct bytes value, bool *stop, void *arg)
{
    (void)stop;
    struct buf *b = arg;
    buf_append_le32(b, (uint32_t)key.size);
    buf_append_bytes(b, key);
    buf_append_le32(b, (uint32_t)value.size);
    buf_append_bytes(b, value);
    return FERRY_OK;
}

static struct buf rows_of(struct world *w, const struct instance *in)
{
    static const uint8_t tables[] = {TABLE_RUNS,   TABLE_LEASES,    TABLE_DEAD,
                                     TABLE_PARKED, TABLE_HISTORIES, TABLE_DEAD_NUMBERS};
    struct buf all = base_of(in->d);
    all.limit = 64u << 20;
    for (size_t i = 0; i < sizeof(tables); i++) {
        assert_int_equal(
            store_each_row(w->store, in->group, tables[i], bytes_of(NULL, 0), take_row, &all),
            FERRY_OK);
    }
    assert_true(buf_ok(&all));
    return all;
}

static void rows_are_the_same(struct world *w)
{
    struct buf rows[INSTANCES];
    for (size_t i = 0; i < INSTANCES; i++) {
        struct instance *in = &w->instances[i];
        flush_delivery(in->d, &in->dead_rows, w->store, in->group);
    }
    assert_int_equal(store_read_begin(w->store), FERRY_OK);
    for (size_t i = 0; i < INSTANCES; i++) {
        rows[i] = rows_of(w, &w->instances[i]);
        assert_true(bytes_equal(buf_bytes(&rows[0]), buf_bytes(&rows[i])));
    }
    store_read_end(w->store);
    for (size_t i = 0; i < INSTANCES; i++) {
        buf_fini(&rows[i]);
    }
}

/* ---- Runs ---- */

static void random_run(struct fixture *f, uint64_t seed, bool keyed)
{
    struct world w = {.store = f->store, .t = calloc(1, sizeof(*w.t))};
    assert_non_null(w.t);
    prng_init(&w.p, seed);
    print_message("seed %llu %s\n", (unsigned long long)seed, keyed ? "keyed" : "queue");
    *w.t = (struct twin){.keyed = keyed, .time_ms = 1000, .next_lease = 1, .next_letter = 1};
    twin_reset(w.t, FIRST + 10);
    w.t->end = FIRST + 20;
    for (size_t i = 0; i < INSTANCES; i++) {
        w.instances[i].d = delivery_made(keyed, FIRST + 10);
        w.instances[i].group = seed * 10 + i + (keyed ? 5 : 0);
        rows_init(&w.instances[i].dead_rows, TABLE_DEAD);
    }
    delivery_watch(w.instances[0].d, true);
    for (uint32_t step = 0; step < STEPS; step++) {
        random_step(&w);
        compare_all(&w, step);
    }
    rows_are_the_same(&w);
    for (size_t i = 0; i < INSTANCES; i++) {
        delivery_free(&w.instances[i].d);
        rows_fini(&w.instances[i].dead_rows);
    }
    free(w.t);
}

/* Mode queue. */
static void random_entries_leave_what_a_naive_twin_has(void **state)
{
    fixture_open(*state);
    for (uint64_t seed = 1; seed <= 2; seed++) {
        random_run(*state, seed, false);
    }
}

/* Mode keyed: one of a key at a time, parked keys. */
static void random_keyed_entries_leave_what_a_naive_twin_has(void **state)
{
    fixture_open(*state);
    for (uint64_t seed = 1; seed <= 2; seed++) {
        random_run(*state, seed, true);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        store_test(random_entries_leave_what_a_naive_twin_has),
        store_test(random_keyed_entries_leave_what_a_naive_twin_has),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
