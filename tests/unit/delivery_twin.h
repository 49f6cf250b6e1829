/* A naive twin of a delivery: an array of messages, each rule in the plainest way. */
#ifndef FERRY_DELIVERY_TWIN_H
#define FERRY_DELIVERY_TWIN_H

#include "delivery_fixture.h"

#define MESSAGES 400
#define FIRST    3900 /* The segments' border at 4,096 is within. */
#define LEASES   6000
#define LETTERS  6000
#define KEYS     12
#define MEMBERS  4

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

static inline char *twin_member(uint32_t member)
{
    static char names[MEMBERS + 1][8] = {"m0", "m1", "m2", "m3", "asker"};
    return names[member];
}

static inline char *reason_text(uint32_t reason)
{
    static char reasons[4][16] = {"", "late", "broken", "again"};
    return reasons[reason];
}

static inline struct twin_message *message_at(struct twin *t, int64_t offset)
{
    assert_true(offset >= FIRST && offset < FIRST + MESSAGES);
    return &t->messages[offset - FIRST];
}

/* Below where it was made all is done; beyond the end nothing is ever asked. */
static inline bool is_known(const struct twin *t, int64_t offset)
{
    return offset >= FIRST && offset < t->end;
}

/* ---- What the twin does ---- */

static inline void twin_fail(struct twin_history *h, struct twin_failure failure)
{
    if (h->count == HISTORY_MAX) {
        memmove(h->items, h->items + 1, (HISTORY_MAX - 1) * sizeof(failure));
        h->count--;
    }
    h->items[h->count++] = failure;
}

static inline void twin_done(struct twin_message *m)
{
    *m = (struct twin_message){.state = DELIVERY_DONE};
}

/* A message leaves its lease; the lease may end with it. */
static inline void twin_leave(struct twin *t, struct twin_message *m)
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

static inline void twin_floor(struct twin *t)
{
    while (t->floor < t->end) {
        const struct twin_message *m = message_at(t, t->floor);
        if (m->state != DELIVERY_DONE && m->dead == 0) {
            return;
        }
        t->floor++;
    }
}

static inline bool key_is_leased(const struct twin *t, uint64_t key)
{
    for (size_t i = 0; i < MESSAGES; i++) {
        if (t->messages[i].state == DELIVERY_LEASED && t->messages[i].key == key) {
            return true;
        }
    }
    return false;
}

static inline void twin_hand_out(struct twin *t, const struct delivery_hand_out *h, uint32_t member)
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

static inline void twin_forget_letter(struct twin *t, uint64_t number)
{
    t->letters[number].kept = false;
    t->letters[number].revived = false;
    if (--t->counters.dead == 0) {
        memset(t->parked, 0, sizeof(t->parked));
    }
}

static inline void twin_die(struct twin *t, int64_t offset, const struct delivery_dead *dead,
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

static inline const struct delivery_dead *twin_dead(const struct delivery_settlement *s,
                                                    int64_t offset)
{
    for (uint32_t i = 0; i < s->dead_count; i++) {
        if (s->dead[i].offset == offset) {
            return &s->dead[i];
        }
    }
    return NULL;
}

static inline void twin_wait(struct twin *t, struct twin_message *m, int64_t due_ms)
{
    if (m->state == DELIVERY_LEASED) {
        twin_leave(t, m);
    }
    m->state = DELIVERY_WAITING;
    m->due_ms = due_ms;
}

static inline void twin_fail_message(struct twin *t, const struct delivery_settlement *s,
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

static inline void twin_settle_message(struct twin *t, const struct delivery_settlement *s,
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

static inline bool is_of(struct twin *t, uint64_t lease, int64_t offset)
{
    return is_known(t, offset) && message_at(t, offset)->state == DELIVERY_LEASED &&
           message_at(t, offset)->lease == lease;
}

static inline uint16_t twin_range(struct twin *t, const struct delivery_settlement *s,
                                  const struct delivery_settle_item *item,
                                  struct twin_failure failure)
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

static inline uint16_t twin_park(struct twin *t, const struct delivery_settlement *s,
                                 const struct delivery_settle_item *item,
                                 struct twin_failure failure)
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

static inline uint16_t twin_item(struct twin *t, const struct delivery_settlement *s,
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

static inline void twin_trim(struct twin *t, int64_t start)
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

static inline void twin_reset(struct twin *t, int64_t to)
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

static inline bool twin_replay(struct twin *t, const struct dead_change_part *part,
                               uint32_t version)
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

static inline bool twin_drop(struct twin *t, uint64_t number)
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

#endif
