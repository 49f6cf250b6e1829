#include "sim/history.h"

#include "base/map.h"
#include "base/mem.h"

void history_init(struct history *h)
{
    *h = (struct history){.count = 1};
}

void history_fini(struct history *h)
{
    for (uint32_t i = 0; i < h->topic_count; i++) {
        for (size_t p = 0; p < HISTORY_PARTITIONS_MAX; p++) {
            mem_free(h->topics[i].logs[p].at);
        }
    }
    mem_free(h->messages);
}

uint32_t history_add_topic(struct history *h, const char *name, uint32_t partitions)
{
    must(h->topic_count < HISTORY_TOPICS_MAX && partitions <= HISTORY_PARTITIONS_MAX);
    struct history_topic *t = &h->topics[h->topic_count];
    *t = (struct history_topic){.partitions = partitions};
    (void)snprintf(t->name, sizeof(t->name), "%s", name);
    return h->topic_count++;
}

/* ---- Messages ---- */

uint64_t history_new(struct history *h, uint32_t topic, uint32_t producer)
{
    must(mem_grow((void **)&h->messages, &h->capacity, h->count + 1, sizeof(*h->messages)));
    h->messages[h->count] = (struct history_message){.topic = topic,
                                                     .producer = producer,
                                                     .partition = -1,
                                                     .offset = -1,
                                                     .sent_us = world_now(),
                                                     .acked_us = SIM_NEVER};
    return h->count++;
}

size_t history_payload(uint64_t number, uint8_t out[HISTORY_PAYLOAD_MAX])
{
    uint64_t hash = map_hash_u64(number);
    size_t size = HISTORY_PAYLOAD_MIN + (size_t)(hash % 200);
    if (hash % 50 == 0) {
        size = HISTORY_PAYLOAD_MAX;
    }
    memcpy(out, &number, 8);
    memcpy(out + 8, &hash, 8);
    for (size_t i = 16; i < size; i++) {
        out[i] = (uint8_t)(hash >> (i % 8 * 8)) ^ (uint8_t)i;
    }
    return size;
}

void history_sending(struct history *h, uint64_t number)
{
    h->messages[number].attempts++;
}

/* The log's place holds this message from now on; it may hold no other, and the message may be at
 * no other place. */
static void place(struct history *h, uint64_t number, uint32_t topic, int32_t partition,
                  int64_t offset)
{
    struct history_topic *t = &h->topics[topic];
    struct history_message *m = &h->messages[number];
    struct history_log *log = &t->logs[partition];
    if (t->loose) {
        return;
    }
    size_t at = (size_t)offset;
    if (at >= log->size) {
        must(mem_grow((void **)&log->at, &log->capacity, at + 1, sizeof(*log->at)));
        memset(log->at + log->size, 0, (at + 1 - log->size) * sizeof(*log->at));
        log->size = at + 1;
    }
    if (log->at[at] != 0 && log->at[at] != number) {
        sim_fail(SIM_INVARIANT, "INV-L02: %s/%d offset %lld is message %llu and message %llu",
                 t->name, partition, (long long)offset, (unsigned long long)log->at[at],
                 (unsigned long long)number);
        return;
    }
    bool elsewhere = m->offset >= 0 && (m->offset != offset || m->partition != partition);
    if (elsewhere) {
        sim_fail(SIM_INVARIANT, "INV-I01: message %llu of %s is at %d/%lld and at %d/%lld",
                 (unsigned long long)number, t->name, m->partition, (long long)m->offset, partition,
                 (long long)offset);
        return;
    }
    if (m->offset < 0) {
        sim_say("message %llu is at %s/%d/%lld", (unsigned long long)number, t->name, partition,
                (long long)offset);
    }
    log->at[at] = number;
    m->partition = partition;
    m->offset = offset;
}

bool history_lies(struct history *h, enum history_lie lie)
{
    bool now = h->lie == lie && h->acked > 20;
    h->lie = now ? LIE_NONE : h->lie;
    return now;
}

void history_outcome(struct history *h, uint64_t number, enum ferry_outcome outcome,
                     int32_t partition, int64_t offset, bool duplicate)
{
    bool may_lie = outcome == FERRY_STORED && offset >= 0 && h->messages[number].offset < 0 &&
                   !h->topics[h->messages[number].topic].loose &&
                   !h->topics[h->messages[number].topic].retained;
    if (may_lie && history_lies(h, LIE_LOST)) {
        offset += 1000000;
    } else if (may_lie && history_lies(h, LIE_MOVED)) {
        offset++;
    } else if (may_lie && history_lies(h, LIE_UNSAID)) {
        outcome = FERRY_NOT_STORED;
    } else if (may_lie && offset > 0 && history_lies(h, LIE_REORDERED)) {
        h->messages[number].acked_us = 0;
    }
    struct history_message *m = &h->messages[number];
    h->acked += outcome == FERRY_STORED;
    h->unknown += outcome == FERRY_UNKNOWN;
    h->not_stored += outcome == FERRY_NOT_STORED;
    h->duplicates += duplicate;
    if (outcome == FERRY_STORED) {
        m->state = HISTORY_STORED;
        m->acked_us = world_now() < m->acked_us ? world_now() : m->acked_us;
        if (offset >= 0) { /* Not told of a repeat whose first one has been dropped. */
            place(h, number, m->topic, partition, offset);
        }
    } else if (outcome == FERRY_NOT_STORED) {
        m->not_stored++;
        /* Only when no other attempt may have stored it. */
        bool never = m->state == HISTORY_PENDING && m->not_stored == m->attempts;
        m->state = never ? HISTORY_NOT_STORED : m->state;
        if (never && m->offset >= 0) {
            sim_fail(SIM_INVARIANT, "INV-L06: message %llu was read and is told to be not stored",
                     (unsigned long long)number);
        }
    } else if (m->state != HISTORY_STORED) {
        m->state = HISTORY_UNKNOWN;
    }
}

/* ---- Reading ---- */

uint64_t history_number(const struct history *h, const void *payload, size_t bytes)
{
    uint8_t expected[HISTORY_PAYLOAD_MAX];
    uint64_t number = 0;
    if (bytes < HISTORY_PAYLOAD_MIN) {
        return 0;
    }
    memcpy(&number, payload, 8);
    bool whole = number > 0 && number < h->count && history_payload(number, expected) == bytes &&
                 memcmp(expected, payload, bytes) == 0;
    return whole ? number : 0;
}

uint64_t history_look(struct history *h, uint32_t topic, int32_t partition, int64_t offset,
                      const void *payload, size_t bytes)
{
    const struct history_topic *t = &h->topics[topic];
    uint64_t number = history_number(h, payload, bytes);
    if (number == 0 || history_lies(h, LIE_FORGED)) {
        sim_fail(SIM_INVARIANT, "INV-L05: %s/%d offset %lld holds what nobody sent", t->name,
                 partition, (long long)offset);
        return 0;
    }
    const struct history_message *m = &h->messages[number];
    if (m->topic != topic) {
        sim_fail(SIM_INVARIANT, "INV-L05: message %llu of %s is in %s", (unsigned long long)number,
                 h->topics[m->topic].name, t->name);
    } else if (m->state == HISTORY_NOT_STORED) {
        sim_fail(SIM_INVARIANT, "INV-L06: message %llu of %s was told to be not stored",
                 (unsigned long long)number, t->name);
    } else if (m->cancelled) {
        sim_fail(SIM_INVARIANT, "INV-L06: message %llu of %s came after it had been cancelled",
                 (unsigned long long)number, t->name);
    } else {
        place(h, number, topic, partition, offset);
    }
    return number;
}

uint64_t history_saw(struct history *h, struct history_session *s, int64_t offset,
                     const void *payload, size_t bytes)
{
    h->read++;
    if (s->next >= 0 && offset != s->next) {
        sim_fail(SIM_INVARIANT, "INV-L04: a reader of %s/%d got offset %lld where %lld was next",
                 h->topics[s->topic].name, s->partition, (long long)offset, (long long)s->next);
    }
    s->next = offset + 1;
    return history_look(h, s->topic, s->partition, offset, payload, bytes);
}

/* ---- Delayed messages ---- */

void history_delaying(struct history *h, uint64_t number)
{
    h->messages[number].delayed = true;
}

void history_scheduled(struct history *h, uint64_t number, int64_t due_ms)
{
    h->messages[number].due_ms = due_ms;
}

void history_appeared(const struct history *h, uint64_t number, int64_t append_time_ms)
{
    const struct history_message *m = &h->messages[number];
    if (number != 0 && append_time_ms < m->due_ms) {
        sim_fail(SIM_INVARIANT, "INV-L05: message %llu was appended %lld ms before it was due",
                 (unsigned long long)number, (long long)(m->due_ms - append_time_ms));
    }
}

void history_cancelling(struct history *h, uint64_t number)
{
    h->messages[number].cancelling = true;
}

void history_cancelled(struct history *h, uint64_t number)
{
    struct history_message *m = &h->messages[number];
    m->cancelled = true;
    if (m->offset >= 0) {
        sim_fail(SIM_INVARIANT, "INV-L06: message %llu was cancelled, and is in the log",
                 (unsigned long long)number);
    }
}

/* ---- The end ---- */

void history_read_out(struct history *h, uint32_t topic, int32_t partition, int64_t first_kept,
                      int64_t end)
{
    struct history_log *log = &h->topics[topic].logs[partition];
    log->finally_read = true;
    log->first_kept = first_kept;
    log->end = end;
}

/* One producer's messages in the order in which it sent them: those whose send ended as unknown
 * too, for after one the client goes on with the next epoch of its id, which refuses a late copy.
 */
static bool check_order(const struct history *h, const struct history_topic *t, int32_t partition)
{
    const struct history_log *log = &t->logs[partition];
    uint64_t *last_of = mem_zalloc(h->count, sizeof(*last_of)); /* By producer, below count. */
    must(last_of != NULL);
    bool holds = true;
    for (int64_t i = log->first_kept < 0 ? 0 : log->first_kept; i < log->end && holds; i++) {
        uint64_t number = log->at[i];
        const struct history_message *m = &h->messages[number];
        if (number == 0 || m->attempts > 1 || m->delayed) {
            continue;
        }
        uint64_t *last = &last_of[m->producer];
        if (*last > number) {
            sim_fail(SIM_INVARIANT,
                     "INV-L03: %s/%d offset %lld: message %llu of producer %u comes after %llu",
                     t->name, partition, (long long)i, (unsigned long long)number, m->producer,
                     (unsigned long long)*last);
            holds = false;
        }
        *last = number;
    }
    mem_free(last_of);
    return holds;
}

static void check_log(const struct history *h, const struct history_topic *t, int32_t partition)
{
    const struct history_log *log = &t->logs[partition];
    int64_t sent_us = 0; /* The latest, of all messages so far. */
    for (int64_t i = log->first_kept < 0 ? 0 : log->first_kept; i < log->end; i++) {
        uint64_t number = i < (int64_t)log->size ? log->at[i] : 0;
        if (number == 0) {
            sim_fail(SIM_INVARIANT, "INV-L03: %s/%d has nothing at offset %lld", t->name, partition,
                     (long long)i);
            return;
        }
        const struct history_message *m = &h->messages[number];
        if (m->delayed) {
            continue;
        }
        if (m->acked_us < sent_us) {
            sim_fail(SIM_INVARIANT,
                     "INV-L09: %s/%d offset %lld: message %llu was acked before one in front of it "
                     "was sent",
                     t->name, partition, (long long)i, (unsigned long long)number);
            return;
        }
        sent_us = m->sent_us > sent_us ? m->sent_us : sent_us;
    }
    (void)check_order(h, t, partition);
}

static void check_message(const struct history *h, uint64_t number)
{
    const struct history_message *m = &h->messages[number];
    const struct history_topic *t = &h->topics[m->topic];
    if (m->delayed && m->offset < 0 && m->state == HISTORY_STORED && !m->cancelling && !t->loose &&
        !t->retained && m->due_ms > 0) {
        sim_fail(SIM_INVARIANT, "INV-L01: message %llu of %s was stored until due, and never came",
                 (unsigned long long)number, t->name);
    }
    if (m->offset < 0 || t->loose || !t->logs[m->partition].finally_read) {
        return;
    }
    const struct history_log *log = &t->logs[m->partition];
    bool kept = m->offset < log->end;
    bool dropped = m->offset < log->first_kept;
    if (!kept || (dropped && !t->retained)) {
        sim_fail(SIM_INVARIANT, "INV-L01: %s/%d offset %lld, message %llu, was %s and is lost",
                 t->name, m->partition, (long long)m->offset, (unsigned long long)number,
                 m->state == HISTORY_STORED ? "acked" : "read");
    }
}

void history_check_end(struct history *h)
{
    for (uint32_t i = 0; i < h->topic_count; i++) {
        for (uint32_t p = 0; p < h->topics[i].partitions && !h->topics[i].loose; p++) {
            check_log(h, &h->topics[i], (int32_t)p);
        }
    }
    for (uint64_t n = 1; n < h->count; n++) {
        check_message(h, n);
    }
}
