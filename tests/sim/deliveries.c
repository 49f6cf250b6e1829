#include "sim/deliveries.h"

#include <stdlib.h>

#include "base/mem.h"
#include "sim/coverage.h"

#define ULL(x) ((unsigned long long)(x))

void deliveries_init(struct deliveries *d, struct history *h, const char *name, uint32_t topic,
                     bool keyed, uint32_t max_deliveries)
{
    *d = (struct deliveries){.history = h,
                             .name = name,
                             .topic = topic,
                             .keyed = keyed,
                             .max_deliveries = max_deliveries,
                             .exact_clocks = true,
                             .exact_times = true,
                             .count = 1};
}

void deliveries_fini(struct deliveries *d)
{
    mem_free(d->all);
    mem_free(d->of);
    *d = (struct deliveries){.count = 1};
}

static struct delivered *of_message(struct deliveries *d, uint64_t message)
{
    if (message >= d->of_count) {
        must(mem_grow((void **)&d->of, &d->of_capacity, message + 1, sizeof(*d->of)));
        memset(d->of + d->of_count, 0, (message + 1 - d->of_count) * sizeof(*d->of));
        d->of_count = message + 1;
    }
    return &d->of[message];
}

static const struct delivered *look_up(const struct deliveries *d, uint64_t message)
{
    static const struct delivered none;
    return message < d->of_count ? &d->of[message] : &none;
}

static const struct hand_out *last_of(const struct deliveries *d, const struct delivered *m)
{
    const struct hand_out *last = NULL;
    for (uint32_t i = m->first; i != 0; i = d->all[i].next) {
        last = &d->all[i];
    }
    return last;
}

static const char *place_of(const struct deliveries *d, uint64_t message)
{
    static char text[200];
    const struct history_message *m = &d->history->messages[message];
    (void)snprintf(text, sizeof(text), "%s: message %llu at %s/%d/%lld", d->name, ULL(message),
                   d->history->topics[m->topic].name, m->partition, (long long)m->offset);
    return text;
}

static bool is_terminal(enum ferry_settle settle)
{
    return settle == FERRY_ACK || settle == FERRY_REJECT;
}

/* ---- As it happens ---- */

/* A hand-out whose holder still has it, as it was promised. */
static bool is_promised(const struct hand_out *h)
{
    return h->state != OUT_REFUSED && !h->let_go && h->until_us > world_now() &&
           (h->asked == 0 || h->asked == FERRY_ACK);
}

static void compare(const struct deliveries *d, const struct hand_out *before,
                    const struct hand_out *now)
{
    bool settled = before->state == OUT_CONFIRMED && is_terminal(before->asked);
    if (before->handed == now->handed) {
        sim_fail(SIM_INVARIANT,
                 "INV-Q04: %s was handed out twice as hand-out %u, to programs %u "
                 "and %u",
                 place_of(d, now->message), now->handed, before->worker, now->worker);
    } else if (before->handed > now->handed && before->got_us < now->since_us) {
        sim_fail(SIM_INVARIANT, "INV-Q04: %s was handed out as hand-out %u after hand-out %u",
                 place_of(d, now->message), now->handed, before->handed);
    } else if (settled && before->handed < now->handed) {
        sim_fail(SIM_INVARIANT, "INV-Q03: %s came as hand-out %u, and hand-out %u is settled",
                 place_of(d, now->message), now->handed, before->handed);
    } else if (before->handed < now->handed && d->exact_clocks && is_promised(before)) {
        sim_fail(SIM_INVARIANT,
                 "INV-Q02: %s came as hand-out %u; the lease of hand-out %u lasts %lld ms more",
                 place_of(d, now->message), now->handed, before->handed,
                 (long long)((before->until_us - world_now()) / SIM_MS));
    }
}

static void check_new(const struct deliveries *d, const struct hand_out *now)
{
    const struct delivered *m = look_up(d, now->message);
    if (now->handed == 0 || now->failed >= now->handed || now->failed >= d->max_deliveries) {
        sim_fail(SIM_INVARIANT, "INV-Q04: %s was handed out %u times and failed %u of %u",
                 place_of(d, now->message), now->handed, now->failed, d->max_deliveries);
    }
    for (uint32_t i = m->first; i != 0; i = d->all[i].next) {
        const struct hand_out *before = &d->all[i];
        if (m->replays == 0) {
            compare(d, before, now);
        } else if (before->state == OUT_CONFIRMED && before->asked == FERRY_ACK &&
                   before->asked_us < now->since_us) {
            sim_fail(SIM_INVARIANT, "INV-Q03: %s was replayed, acked, and handed out again",
                     place_of(d, now->message));
        }
    }
}

static void insert(struct deliveries *d, uint32_t number)
{
    uint32_t *at = &of_message(d, d->all[number].message)->first;
    while (*at != 0 && d->all[*at].handed < d->all[number].handed) {
        at = &d->all[*at].next;
    }
    d->all[number].next = *at;
    *at = number;
}

uint32_t deliveries_got(struct deliveries *d, uint32_t worker, int64_t opened_us,
                        const struct ferry_delivery *delivery)
{
    const struct ferry_record *r = &delivery->record;
    uint64_t message =
        history_look(d->history, d->topic, r->partition, r->offset, r->payload, r->payload_bytes);
    if (message == 0 || sim->ended) {
        return 0;
    }
    history_appeared(d->history, message, r->append_time_ms);
    size_t capacity = d->capacity;
    must(mem_grow((void **)&d->all, &capacity, (size_t)d->count + 1, sizeof(*d->all)));
    d->capacity = (uint32_t)capacity;
    struct hand_out *now = &d->all[d->count];
    *now = (struct hand_out){.message = message,
                             .handed = delivery->handed_out,
                             .failed = delivery->failed,
                             .worker = worker,
                             .since_us = opened_us,
                             .got_us = world_now(),
                             .until_us = world_now() + delivery->lease_ms_left * SIM_MS};
    d->again += now->handed > 1;
    sim_say("%s as hand-out %u, failed %u: %u of receiver %u, for %lld ms", place_of(d, message),
            now->handed, now->failed, d->count, worker, (long long)delivery->lease_ms_left);
    if (!d->loose && now->handed > 1 && look_up(d, message)->first != 0 &&
        look_up(d, message)->replays == 0 && history_lies(d->history, LIE_AGAIN)) {
        now->handed = last_of(d, look_up(d, message))->handed;
    }
    if (!d->loose) {
        check_new(d, now);
    }
    insert(d, d->count);
    return d->count++;
}

void deliveries_asked(struct deliveries *d, uint32_t hand_out, enum ferry_settle settle,
                      int64_t delay_ms)
{
    struct hand_out *h = &d->all[hand_out];
    must(h->state == OUT_OPEN);
    h->asked = settle;
    h->delay_ms = delay_ms;
    h->state = OUT_ASKED;
    h->asked_us = world_now();
    sim_say("%s: hand-out %u is to be settled as %u", d->name, hand_out, settle);
    d->close +=
        h->asked_us > h->until_us - 100 * SIM_MS && h->asked_us < h->until_us + 100 * SIM_MS;
}

/* What was asked for at that time is confirmed: no later hand-out had been received by then. */
static void check_fenced(struct deliveries *d, const struct hand_out *h, int64_t asked_us,
                         const char *what)
{
    const struct delivered *m = look_up(d, h->message);
    for (uint32_t i = h->next; i != 0 && m->replays == 0; i = d->all[i].next) {
        if (d->all[i].got_us < asked_us) {
            sim_fail(SIM_INVARIANT,
                     "INV-Q02: %s: %s of hand-out %u is confirmed, asked for after hand-out %u "
                     "had been received",
                     place_of(d, h->message), what, h->handed, d->all[i].handed);
        }
    }
}

static void check_confirmed(struct deliveries *d, const struct hand_out *h)
{
    check_fenced(d, h, h->asked_us, "a settlement");
    if (is_terminal(h->asked) && h->next != 0 && look_up(d, h->message)->replays == 0) {
        sim_fail(SIM_INVARIANT, "INV-Q03: %s: hand-out %u is settled, and hand-out %u came",
                 place_of(d, h->message), h->handed, d->all[h->next].handed);
    }
}

void deliveries_told(struct deliveries *d, uint32_t hand_out, enum ferry_err err)
{
    struct hand_out *h = &d->all[hand_out];
    must(h->state == OUT_ASKED);
    sim_say("%s: hand-out %u is settled: %s", d->name, hand_out, ferry_err_name(err));
    if (err == FERRY_OK && h->asked == FERRY_NACK && !d->loose &&
        look_up(d, h->message)->replays == 0 && history_lies(d->history, LIE_UNDONE)) {
        h->asked = FERRY_ACK;
    }
    if (err == FERRY_OK) {
        h->state = OUT_CONFIRMED;
        d->confirmed[h->asked]++;
        if (!d->loose) {
            check_confirmed(d, h);
        }
    } else if (err == FERRY_ERR_LEASE_EXPIRED) {
        h->state = OUT_REFUSED;
        d->refused++;
        d->late += h->next != 0;
    } else {
        d->unknown++;
    }
}

void deliveries_extended(struct deliveries *d, uint32_t hand_out, int64_t asked_us,
                         uint32_t lease_ms, enum ferry_err err)
{
    struct hand_out *h = &d->all[hand_out];
    sim_say("%s: hand-out %u is extended by %u ms: %s", d->name, hand_out, lease_ms,
            ferry_err_name(err));
    if (err == FERRY_OK && !d->loose) {
        check_fenced(d, h, asked_us, "an extension");
    }
    if (err == FERRY_OK && asked_us + lease_ms * SIM_MS > h->until_us) {
        h->until_us = asked_us + lease_ms * SIM_MS;
    }
}

void deliveries_let_go(struct deliveries *d, uint32_t worker)
{
    sim_say("%s: receiver %u closes", d->name, worker);
    for (uint32_t i = 1; i < d->count; i++) {
        if (d->all[i].worker == worker && d->all[i].state == OUT_OPEN) {
            d->all[i].let_go = true;
        }
    }
}

void deliveries_resetting(struct deliveries *d, bool to_start)
{
    d->loose = true;
    d->skips |= !to_start;
}

static uint64_t message_at(const struct deliveries *d, int32_t partition, int64_t offset)
{
    const struct history_log *log = &d->history->topics[d->topic].logs[partition];
    return offset >= 0 && offset < (int64_t)log->size ? log->at[offset] : 0;
}

bool deliveries_replaying(struct deliveries *d, int32_t partition, int64_t offset)
{
    uint64_t message = message_at(d, partition, offset);
    if (message != 0) {
        of_message(d, message)->replays++;
    }
    return message != 0;
}

bool deliveries_dropping(struct deliveries *d, int32_t partition, int64_t offset)
{
    uint64_t message = message_at(d, partition, offset);
    if (message != 0) {
        of_message(d, message)->dropped = true;
    }
    return message != 0;
}

/* ---- Dead letters ---- */

static void check_limit(struct deliveries *d, uint64_t message, const struct ferry_dead *dead)
{
    const struct delivered *m = look_up(d, message);
    const struct hand_out *last = last_of(d, m);
    enum ferry_failure_kind how = dead->failure_count > 0
                                      ? dead->failures[dead->failure_count - 1].kind
                                      : FERRY_FAILURE_PARKED;
    bool by_limit = how == FERRY_FAILURE_NACK || how == FERRY_FAILURE_EXPIRED;
    d->poison += by_limit;
    if (by_limit && dead->failed != d->max_deliveries) {
        sim_fail(SIM_INVARIANT, "INV-Q04: %s is dead after %u failures, the limit is %u",
                 place_of(d, message), dead->failed, d->max_deliveries);
    } else if (m->replays == 0 && last != NULL && dead->handed_out < last->handed) {
        sim_fail(SIM_INVARIANT, "INV-Q04: %s died after hand-out %u, and hand-out %u came",
                 place_of(d, message), dead->handed_out, last->handed);
    } else if (m->replays == 0 && last != NULL && last->state == OUT_CONFIRMED &&
               last->asked == FERRY_ACK) {
        sim_fail(SIM_INVARIANT, "INV-Q04: %s is acked and a dead letter", place_of(d, message));
    }
}

void deliveries_dead(struct deliveries *d, const struct ferry_dead *dead)
{
    uint64_t message = message_at(d, dead->partition, dead->offset);
    d->dead++;
    if (message == 0) {
        if (!d->history->topics[d->topic].retained) {
            sim_fail(SIM_INVARIANT,
                     "INV-Q04: %s: dead letter %llu of partition %d is offset %lld, "
                     "which is no message",
                     d->name, ULL(dead->number), dead->partition, (long long)dead->offset);
        }
        return;
    }
    struct delivered *m = of_message(d, message);
    if (m->dead && !d->loose) {
        sim_fail(SIM_INVARIANT, "INV-Q04: %s is two dead letters", place_of(d, message));
    }
    m->dead = true;
    m->dead_handed = dead->handed_out;
    if (!d->loose) {
        check_limit(d, message, dead);
    }
}

void deliveries_read_dead(const struct deliveries *d, int32_t partition, uint64_t number)
{
    bool dropped = d->history->topics[d->topic].retained; /* Where it was is not known, then. */
    bool there = number != 0 && d->history->messages[number].topic == d->topic;
    bool here = there && d->history->messages[number].partition == partition;
    if (!there || (!dropped && (!here || !look_up(d, number)->dead))) {
        sim_fail(SIM_INVARIANT,
                 "INV-Q04: %s: message %llu is read as a dead letter of partition %d", d->name,
                 ULL(number), partition);
    }
}

uint64_t deliveries_unseen(const struct deliveries *d)
{
    uint64_t unseen = 0;
    for (uint64_t n = 1; n < d->of_count && !d->loose; n++) {
        uint32_t before = 0;
        for (uint32_t i = d->of[n].first; i != 0; i = d->all[i].next) {
            unseen += d->all[i].handed > before + 1;
            before = d->all[i].handed;
        }
    }
    return unseen;
}

/* ---- What the broker counts ---- */

struct tally {
    uint64_t acked_least, acked_most; /* Confirmed; and those whose answer is not known. */
    uint64_t dead;
    uint64_t handed; /* The number of the last hand-out, of each message. */
    bool certain;    /* ... and for all of them it is the last. */
};

/* The ack of a message, if it may have been carried out: asked for with its last hand-out. */
static const struct hand_out *possible_ack(const struct deliveries *d, const struct delivered *m)
{
    for (uint32_t i = m->first; i != 0; i = d->all[i].next) {
        const struct hand_out *h = &d->all[i];
        bool last = h->next == 0 || m->replays > 0 || d->loose;
        if (last && h->asked == FERRY_ACK && h->state != OUT_REFUSED) {
            return h;
        }
    }
    return NULL;
}

static struct tally tally_of(const struct deliveries *d, int32_t partition)
{
    struct tally t = {.certain = true};
    for (uint64_t n = 1; n < d->of_count; n++) {
        const struct history_message *at = &d->history->messages[n];
        const struct delivered *m = &d->of[n];
        if (at->topic != d->topic || at->partition != partition) {
            continue;
        }
        const struct hand_out *ack = possible_ack(d, m);
        const struct hand_out *last = last_of(d, m);
        t.acked_least += ack != NULL && ack->state == OUT_CONFIRMED;
        t.acked_most += ack != NULL;
        t.dead += m->dead;
        t.handed += m->dead ? m->dead_handed : last != NULL ? last->handed : 0;
        t.certain &= m->dead || ack != NULL;
        t.certain &= m->replays == 0 && !m->dropped;
    }
    return t;
}

void deliveries_counted(const struct deliveries *d, const struct ferry_subscription_partition *p)
{
    struct tally t = tally_of(d, p->partition);
    bool retained = d->history->topics[d->topic].retained;
    uint64_t remaining = p->ready + p->leased + p->waiting;
    uint64_t gone = p->acked + p->died + p->expired + remaining - p->revived;
    if (d->loose) {
        return;
    }
    if (gone != (uint64_t)p->end_offset) {
        sim_fail(SIM_INVARIANT,
                 "INV-Q05: %s/%d: %llu acked + %llu died + %llu expired + %llu remaining - %llu "
                 "revived is not the %lld enqueued",
                 d->name, p->partition, ULL(p->acked), ULL(p->died), ULL(p->expired),
                 ULL(remaining), ULL(p->revived), (long long)p->end_offset);
    } else if (p->acked < t.acked_least || p->acked > t.acked_most) {
        sim_fail(SIM_INVARIANT, "INV-Q05: %s/%d: %llu are acked, and %llu to %llu acks counted",
                 d->name, p->partition, ULL(p->acked), ULL(t.acked_least), ULL(t.acked_most));
    } else if (p->expired > 0 && (!retained || d->history->topics[d->topic].by_acks)) {
        sim_fail(SIM_INVARIANT, "INV-Q05: %s/%d: %llu expired, and the topic keeps what is needed",
                 d->name, p->partition, ULL(p->expired));
    } else if (p->dead != t.dead && !retained) {
        sim_fail(SIM_INVARIANT, "INV-Q05: %s/%d: %llu are dead, and the list has %llu", d->name,
                 p->partition, ULL(p->dead), ULL(t.dead));
    } else if (p->handed_out < t.handed ||
               (t.certain && !retained && remaining == 0 && p->handed_out != t.handed)) {
        sim_fail(SIM_INVARIANT, "INV-Q04: %s/%d: %llu hand-outs are counted, the messages say %llu",
                 d->name, p->partition, ULL(p->handed_out), ULL(t.handed));
    }
}

/* ---- The end ---- */

/* How many of the hand-outs from `h` to before number `until` failed: at least and at most. */
static void failures(const struct hand_out *h, uint32_t until, uint32_t *least, uint32_t *most)
{
    bool may_be_released = h->let_go || (h->asked == FERRY_RELEASE && h->state == OUT_ASKED);
    bool released = h->asked == FERRY_RELEASE && h->state == OUT_CONFIRMED;
    uint32_t unseen = until - h->handed - 1;
    *least = released || may_be_released ? 0 : 1;
    *most = (released ? 0 : 1) + unseen;
}

static void check_due(const struct deliveries *d, const struct hand_out *h,
                      const struct hand_out *after)
{
    bool nacked = h->asked == FERRY_NACK && h->state == OUT_CONFIRMED && h->delay_ms > 0;
    int64_t due_us = h->asked_us + h->delay_ms * SIM_MS;
    if (d->exact_times && nacked && after->got_us < due_us) {
        sim_fail(SIM_INVARIANT, "INV-Q04: %s came as hand-out %u, %lld ms before it was due",
                 place_of(d, h->message), after->handed,
                 (long long)((due_us - after->got_us) / SIM_MS));
    }
}

static void check_failed(const struct deliveries *d, const struct delivered *m)
{
    for (uint32_t i = m->first; i != 0 && m->replays == 0; i = d->all[i].next) {
        const struct hand_out *h = &d->all[i];
        uint32_t least;
        uint32_t most;
        if (h->next == 0) {
            return;
        }
        const struct hand_out *after = &d->all[h->next];
        failures(h, after->handed, &least, &most);
        check_due(d, h, after);
        if (after->failed < h->failed + least || after->failed > h->failed + most) {
            sim_fail(SIM_INVARIANT,
                     "INV-Q04: %s failed %u times at hand-out %u and %u at hand-out %u; in between "
                     "it did %u to %u times",
                     place_of(d, h->message), h->failed, h->handed, after->failed, after->handed,
                     least, most);
        }
    }
}

static bool is_done(const struct deliveries *d, const struct delivered *m)
{
    return m->dead || m->dropped || possible_ack(d, m) != NULL;
}

/* Q01: every message of the log came to an end. */
static void check_lost(const struct deliveries *d, int32_t partition)
{
    const struct history_topic *t = &d->history->topics[d->topic];
    const struct history_log *log = &t->logs[partition];
    bool all = t->by_acks || log->first_kept < 0; /* What was dropped had come to its end, too. */
    for (int64_t i = all ? 0 : log->first_kept; i < log->end && !d->skips; i++) {
        uint64_t message = message_at(d, partition, i);
        bool must_end = !t->retained || t->by_acks;
        if (message != 0 && must_end && !is_done(d, look_up(d, message))) {
            sim_fail(SIM_INVARIANT, "INV-Q01: %s is neither acked nor dead", place_of(d, message));
            return;
        }
    }
}

static int64_t first_got(const struct deliveries *d, const struct delivered *m)
{
    int64_t first = SIM_NEVER;
    for (uint32_t i = m->first; i != 0; i = d->all[i].next) {
        first = d->all[i].got_us < first ? d->all[i].got_us : first;
    }
    return first;
}

/* The earlier one of a key was done with before the later one came. */
static void check_pair(const struct deliveries *d, uint64_t earlier, uint64_t later)
{
    const struct delivered *m = look_up(d, earlier);
    const struct delivered *n = look_up(d, later);
    int64_t came = first_got(d, n);
    const struct hand_out *ack = possible_ack(d, m);
    bool free = came == SIM_NEVER || m->replays > 0 || n->replays > 0 || m->dead || m->dropped;
    if (!free && (ack == NULL || ack->asked_us > came)) {
        sim_fail(SIM_INVARIANT,
                 "INV-Q06: %s came at %lld us, message %llu before it of its key was not done with",
                 place_of(d, later), (long long)came, ULL(earlier));
    }
    for (uint32_t i = m->first; i != 0 && !free; i = d->all[i].next) {
        if (d->all[i].since_us > came) {
            sim_fail(SIM_INVARIANT, "INV-Q06: %s came again after message %llu behind it",
                     place_of(d, earlier), ULL(later));
        }
    }
}

static void check_keys(const struct deliveries *d, int32_t partition)
{
    uint64_t last_of_key[256] = {0};
    const struct history_topic *t = &d->history->topics[d->topic];
    const struct history_log *log = &t->logs[partition];
    for (int64_t i = log->first_kept < 0 ? 0 : log->first_kept; i < log->end; i++) {
        uint64_t message = message_at(d, partition, i);
        uint32_t key = message != 0 ? d->history->messages[message].key : 0;
        must(key < 256);
        if (key == 0) {
            continue;
        }
        if (last_of_key[key] != 0) {
            check_pair(d, last_of_key[key], message);
        }
        last_of_key[key] = message;
    }
}

void deliveries_check_end(const struct deliveries *d)
{
    const struct history_topic *t = &d->history->topics[d->topic];
    for (uint64_t n = 1; n < d->of_count && !d->loose && !sim->ended; n++) {
        check_failed(d, &d->of[n]);
    }
    for (uint32_t p = 0; p < t->partitions && !sim->ended; p++) {
        check_lost(d, (int32_t)p);
        if (d->keyed && !d->loose) {
            check_keys(d, (int32_t)p);
        }
    }
}
