/* The coordinator: the leader of partition 0 hears its members, decides who is in and who has what,
 * and says so in entries, one of a subscription at a time (members.h has what follows from them).
 */
#include <stdlib.h>

#include "base/mem.h"
#include "partition/assign.h"
#include "partition/partition_internal.h"

/* Of all subscriptions of a partition: their rows are part of every snapshot. */
#define PARTITION_MEMBERS_MAX 8192u
/* A member beats so many times a session, and faster while something is about to change for it. */
#define BEATS_A_SESSION  3u
#define HURRY_MS         500u
#define PROPOSE_AGAIN_US 100000

/* ---- Deciding ---- */

/* The group after the change. */
struct next_member {
    struct bytes name, zone;
    struct member *old; /* NULL: new. */
};
struct decision {
    struct members_entry entry;
    uint32_t count;
    struct next_member next[MEMBERS_MAX];
    int32_t owners[PARTITIONS_MAX];
    struct bytes member_zones[MEMBERS_MAX];
    struct bytes partition_zones[PARTITIONS_MAX];
};

static int64_t session_ends_us(const struct member *member)
{
    return member->heard_us + (int64_t)member->session_ms * 1000;
}

static bool is_expired(const struct member *member, int64_t now_us)
{
#ifdef MUT_78 /* a new leader takes everybody it has not heard of yet for dead */
    if (member->heard_us == MEMBER_NOT_HEARD) {
        return true;
    }
#endif
    return member->heard_us != MEMBER_NOT_HEARD && session_ends_us(member) <= now_us;
}

static bool is_out(const struct member *member, int64_t now_us)
{
    return member->leaving || is_expired(member, now_us);
}

/* Who shall have it may be given it now. */
static bool is_free(const struct member_share *s, uint32_t partition)
{
#ifdef MUT_75 /* a partition is given before the one who had it has let go */
    return s != NULL && partition < PARTITIONS_MAX;
#endif
    return s->holder == NULL || partition_set_has(&s->holder->released, partition);
}

static bool wants_change(const struct subscription *s, int64_t now_us)
{
    const struct members *m = s->members;
    if (m->joining_count > 0 || (m->count > 0 && m->partitions_seen > m->partitions)) {
        return true;
    }
    for (size_t i = 0; i < m->count; i++) {
        if (is_out(m->items[i], now_us)) {
            return true;
        }
    }
    for (uint32_t p = 0; p < m->partitions; p++) {
        const struct member_share *share = &m->shares[p];
        if (share->target != NULL && share->holder != share->target && is_free(share, p)) {
            return true;
        }
    }
    return false;
}

static void decide_outs(struct decision *d, const struct members *m, int64_t now_us)
{
    static const char silent[] = "not heard of for its whole session";
    for (size_t i = 0; i < m->count; i++) {
        struct member *member = m->items[i];
        if (!is_out(member, now_us) || d->entry.out_count == MEMBERS_ENTRY_OUT_MAX) {
            d->next[d->count++] =
                (struct next_member){.name = member_name(member),
                                     .zone = bytes_of(member->zone, member->zone_bytes),
                                     .old = member};
            continue;
        }
        d->entry.out[d->entry.out_count++] = (struct member_out){
            .name = member_name(member),
            .cause = member->leaving ? MEMBER_LEFT : MEMBER_EXPIRED,
            .reason = member->leaving ? bytes_of(member->reason, member->reason_bytes)
                                      : bytes_of_string(silent)};
    }
}

static bool is_named(const struct decision *d, struct bytes name)
{
    for (uint32_t i = 0; i < d->count; i++) {
        if (bytes_equal(d->next[i].name, name)) {
            return true;
        }
    }
    return false;
}

static int compare_next(const void *a, const void *b)
{
    struct bytes x = ((const struct next_member *)a)->name;
    struct bytes y = ((const struct next_member *)b)->name;
    int order = memcmp(x.data, y.data, x.size < y.size ? x.size : y.size);
    if (order != 0) {
        return order;
    }
    return x.size < y.size ? -1 : x.size > y.size;
}

static void decide_ins(struct decision *d, const struct members *m)
{
    for (size_t i = 0; i < m->joining_count && d->entry.in_count < MEMBERS_ENTRY_IN_MAX; i++) {
        const struct member *member = m->joining[i];
        struct bytes zone = bytes_of(member->zone, member->zone_bytes);
        d->entry.in[d->entry.in_count++] =
            (struct member_in){.name = member_name(member),
                               .instance = member->instance,
                               .zone = zone,
                               .client = bytes_of(member->client, member->client_bytes),
                               .session_ms = member->session_ms};
        if (!is_named(d, member_name(member)) && d->count < MEMBERS_MAX) {
            d->next[d->count++] = (struct next_member){.name = member_name(member), .zone = zone};
        }
    }
    qsort(d->next, d->count, sizeof(d->next[0]), compare_next);
}

static int32_t place_of(const struct decision *d, const struct member *member)
{
    for (uint32_t i = 0; member != NULL && i < d->count; i++) {
        if (d->next[i].old == member) {
            return (int32_t)i;
        }
    }
    return ASSIGN_NOBODY;
}

/* "a b - c" */
static void split_zones(struct decision *d, struct bytes zones)
{
    size_t at = 0;
    for (uint32_t p = 0; p < d->entry.partitions; p++) {
        size_t start = at;
        while (at < zones.size && zones.data[at] != ' ') {
            at++;
        }
        struct bytes zone = bytes_of(zones.data + start, at - start);
        bool none = zone.size == 0 || (zone.size == 1 && zone.data[0] == '-');
        d->partition_zones[p] = none ? bytes_of(NULL, 0) : zone;
        at += at < zones.size ? 1 : 0;
    }
}

static void decide_targets(struct decision *d, const struct members *m)
{
    d->entry.target_count = d->entry.partitions;
    for (uint32_t p = 0; p < d->entry.partitions; p++) {
        d->owners[p] = p < m->partitions ? place_of(d, m->shares[p].target) : ASSIGN_NOBODY;
    }
    for (uint32_t i = 0; i < d->count; i++) {
        d->member_zones[i] = d->next[i].zone;
    }
    if (m->zones.size > 0) {
        split_zones(d, buf_bytes(&m->zones));
    }
    struct assign a = {.member_count = d->count,
                       .partition_count = d->entry.partitions,
                       .member_zones = d->member_zones,
                       .partition_zones = m->zones.size > 0 ? d->partition_zones : NULL};
    assign_balance(&a, d->owners);
    for (uint32_t p = 0; p < d->entry.partitions; p++) {
        d->entry.targets[p] = (uint32_t)(d->owners[p] + 1);
    }
}

static void keep_targets(struct decision *d, const struct members *m)
{
    for (uint32_t p = 0; p < d->entry.partitions; p++) {
        d->owners[p] = place_of(d, m->shares[p].target);
    }
}

static void decide_gives(struct decision *d, const struct members *m)
{
    static const struct member_share untouched = {0};
    for (uint32_t p = 0; p < d->entry.partitions; p++) {
        const struct member_share *s = p < m->partitions ? &m->shares[p] : &untouched;
        if (d->owners[p] == ASSIGN_NOBODY) {
            continue;
        }
        int32_t holder = place_of(d, s->holder);
        if (holder != d->owners[p] && (holder == ASSIGN_NOBODY || is_free(s, p))) {
            d->entry.gives[d->entry.give_count++] = p;
        }
    }
}

static void decide(struct decision *d, const struct subscription *s, int64_t now_us)
{
    const struct members *m = s->members;
    d->entry.subscription = s->number;
    d->entry.partitions = m->partitions_seen > m->partitions ? m->partitions_seen : m->partitions;
    decide_outs(d, m, now_us);
    decide_ins(d, m);
    bool grown = d->entry.partitions > m->partitions;
    bool changed = d->entry.out_count > 0 || d->entry.in_count > 0 || grown;
    d->entry.epoch = m->epoch + (changed ? 1 : 0);
    if (s->mode != SUBSCRIPTION_STREAM) {
        return;
    }
    if (changed) {
        decide_targets(d, m);
    } else {
        keep_targets(d, m);
    }
    decide_gives(d, m);
}

static enum ferry_err propose(struct partition *p, struct members *m, const struct members_entry *e,
                              int64_t now_ms, int64_t now_us, struct partition_ticket *t)
{
    buf_clear(&m->payload);
    members_entry_encode(&m->payload, e);
    if (!buf_ok(&m->payload)) {
        return FERRY_ERR_NO_MEMORY;
    }
    struct store_entry entry = {.type = STORE_ENTRY_CONTROL,
                                .append_time_ms = partition_next_time(p, now_ms),
                                .payload = buf_bytes(&m->payload)};
    enum ferry_err err = partition_propose(p, &entry, now_us, t);
    m->in_flight = err == FERRY_OK;
    return err;
}

/* Makes the entry that is due, if one is and none is under way. */
static enum ferry_err change(struct partition *p, struct subscription *s, int64_t now_ms,
                             int64_t now_us, struct partition_ticket *t)
{
    if (s->members->in_flight || !wants_change(s, now_us)) {
        return FERRY_OK;
    }
    struct decision *d = mem_zalloc(1, sizeof(*d));
    if (d == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    decide(d, s, now_us);
    enum ferry_err err = propose(p, s->members, &d->entry, now_ms, now_us, t);
    mem_free(d);
    return err;
}

/* ---- Hearing ---- */

static enum ferry_err find(const struct partition *p, struct bytes name, struct subscription **s)
{
    enum ferry_err err = partition_check_leader(p);
    *s = NULL;
    if (err == FERRY_OK && p->config.partition != 0) {
        err = FERRY_ERR_INVALID_ARGUMENT;
    }
    if (err == FERRY_OK) {
        *s = subscriptions_find(&p->subscriptions, name);
        err = *s != NULL ? FERRY_OK : FERRY_ERR_UNKNOWN_SUBSCRIPTION;
    }
    return err;
}

static enum ferry_err check_heartbeat(const struct member_heartbeat_request *q)
{
    if (!name_is_valid(q->member)) {
        return FERRY_ERR_BAD_NAME;
    }
    bool session = q->session_ms >= MEMBER_SESSION_MIN_MS && q->session_ms <= MEMBER_SESSION_MAX_MS;
    bool partitions = q->partitions >= 1 && q->partitions <= PARTITIONS_MAX;
    bool zones = q->zone.size <= ZONE_MAX_BYTES && q->zones.size <= ZONES_MAX_BYTES;
    bool held = q->held_count <= PARTITIONS_MAX;
    for (uint32_t i = 0; held && i < q->held_count; i++) {
        held = q->held[i].partition < PARTITIONS_MAX;
    }
    return session && partitions && zones && held ? FERRY_OK : FERRY_ERR_INVALID_ARGUMENT;
}

/* What it had to let go and does not report, it has let go, if its last answer did not name it. */
static void note_released(const struct members *m, struct member *member)
{
    for (uint32_t p = 0; p < m->partitions; p++) {
        const struct member_share *s = &m->shares[p];
        bool released = s->holder == member && s->target != member &&
                        !partition_set_has(&member->held, p) &&
                        !partition_set_has(&member->told, p);
        partition_set_put(&member->released, p, released);
    }
}

static void hear(struct members *m, struct member *member, const struct member_heartbeat_request *q,
                 int64_t now_us)
{
    member->heard_us = now_us;
    member->held_count = q->held_count;
    memset(&member->held, 0, sizeof(member->held));
    for (uint32_t i = 0; i < q->held_count; i++) {
        partition_set_put(&member->held, q->held[i].partition, true);
    }
    m->partitions_seen = q->partitions > m->partitions_seen ? q->partitions : m->partitions_seen;
    if (q->zones.size > 0) {
        buf_clear(&m->zones);
        buf_append_bytes(&m->zones, q->zones);
        m->zones.size = buf_ok(&m->zones) ? m->zones.size : 0;
    }
}

static bool is_instance(const struct member *member, const struct ferry_id *instance)
{
    return memcmp(&member->instance, instance, sizeof(*instance)) == 0;
}

static struct member *find_joining(const struct members *m, struct bytes name,
                                   const struct ferry_id *instance, size_t *at)
{
    for (size_t i = 0; i < m->joining_count; i++) {
        if (bytes_equal(member_name(m->joining[i]), name) && is_instance(m->joining[i], instance)) {
            *at = i;
            return m->joining[i];
        }
    }
    return NULL;
}

static size_t count_members(const struct partition *p)
{
    size_t count = 0;
    for (size_t i = 0; i < p->subscriptions.count; i++) {
        const struct members *m = p->subscriptions.items[i]->members;
        count += m != NULL ? m->count + m->joining_count : 0;
    }
    return count;
}

static enum ferry_err add_joining(struct partition *p, struct members *m,
                                  const struct member_heartbeat_request *q, struct bytes client,
                                  struct member **member)
{
    bool new_name = members_find(m, q->member) == NULL;
    bool full =
        m->count + m->joining_count >= MEMBERS_MAX || count_members(p) >= PARTITION_MEMBERS_MAX;
    if ((new_name && full) || m->joining_count >= MEMBERS_MAX) {
        return FERRY_ERR_LIMIT_REACHED;
    }
    struct member_in in = {.name = q->member,
                           .zone = q->zone,
                           .client = client,
                           .instance = q->instance,
                           .session_ms = q->session_ms};
    *member = member_new(&in);
    if (*member == NULL || !mem_grow((void **)&m->joining, &m->joining_capacity,
                                     m->joining_count + 1, sizeof(struct member *))) {
        mem_free(*member);
        return FERRY_ERR_NO_MEMORY;
    }
    m->joining[m->joining_count++] = *member;
    return FERRY_OK;
}

static enum ferry_err make_members(struct subscription *s)
{
    if (s->members == NULL) {
        s->members = members_new(s->number);
    }
    return s->members != NULL ? FERRY_OK : FERRY_ERR_NO_MEMORY;
}

static void due_by(struct partition *p, int64_t at_us)
{
    p->members_due_us = at_us < p->members_due_us ? at_us : p->members_due_us;
}

/* The member who asks: in the group, or about to be. */
static enum ferry_err admit(struct partition *p, struct members *m,
                            const struct member_heartbeat_request *q, struct bytes client,
                            struct member **member)
{
    size_t at;
    *member = members_find(m, q->member);
    if (*member != NULL && is_instance(*member, &q->instance)) {
        return FERRY_OK;
    }
#ifndef MUT_79 /* the older instance of a name takes it back */
    if (*member != NULL && member_was_fenced(*member, &q->instance)) {
        return FERRY_ERR_MEMBER_FENCED;
    }
#endif
    *member = find_joining(m, q->member, &q->instance, &at);
    return *member != NULL ? FERRY_OK : add_joining(p, m, q, client, member);
}

enum ferry_err partition_member_heartbeat(struct partition *p,
                                          const struct member_heartbeat_request *q,
                                          struct bytes client, int64_t now_ms, int64_t now_us,
                                          struct partition_ticket *t)
{
    struct subscription *s;
    struct member *member = NULL;
    enum ferry_err err = find(p, q->subscription, &s);
    if (err == FERRY_OK) {
        err = check_heartbeat(q);
    }
    if (err == FERRY_OK) {
        err = make_members(s);
    }
    if (err == FERRY_OK) {
        err = admit(p, s->members, q, client, &member);
    }
    if (err != FERRY_OK) {
        return err;
    }
    hear(s->members, member, q, now_us);
    note_released(s->members, member);
    due_by(p, session_ends_us(member));
    return change(p, s, now_ms, now_us, t);
}

enum ferry_err partition_member_leave(struct partition *p, const struct member_leave_request *q,
                                      int64_t now_ms, int64_t now_us, struct partition_ticket *t)
{
    struct subscription *s;
    size_t at;
    enum ferry_err err = find(p, q->subscription, &s);
    if (err != FERRY_OK || s->members == NULL) {
        return err;
    }
    if (find_joining(s->members, q->member, &q->instance, &at) != NULL && !s->members->in_flight) {
        members_drop_joining(s->members, at);
    }
    struct member *member = members_find(s->members, q->member);
    if (member == NULL) {
        return FERRY_OK;
    }
    if (!is_instance(member, &q->instance)) {
        return FERRY_ERR_MEMBER_FENCED;
    }
    member->leaving = true;
    member->reason_bytes =
        (uint32_t)(q->reason.size < REASON_MAX_BYTES ? q->reason.size : REASON_MAX_BYTES);
    if (member->reason_bytes > 0) {
        memcpy(member->reason, q->reason.data, member->reason_bytes);
    }
    return change(p, s, now_ms, now_us, t);
}

/* ---- Answering ---- */

static void answer_stream(struct members *m, struct member *member,
                          struct member_heartbeat_reply *reply)
{
    memset(&member->told, 0, sizeof(member->told));
    for (uint32_t p = 0; p < m->partitions; p++) {
        const struct member_share *s = &m->shares[p];
        bool shall = s->target == member, has = s->holder == member;
        if (shall && has) {
            reply->assigned[reply->count++] =
                (struct assigned_partition){.partition = p, .epoch = s->epoch};
            partition_set_put(&member->told, p, true);
            partition_set_put(&member->released, p, false);
        }
        if (shall != has && reply->heartbeat_ms > HURRY_MS) {
            reply->heartbeat_ms = HURRY_MS;
        }
    }
}

/* All partitions are everybody's, and never pass from one to another. */
static void answer_all(const struct members *m, struct member_heartbeat_reply *reply)
{
    for (uint32_t p = 0; p < m->partitions; p++) {
        reply->assigned[reply->count++] = (struct assigned_partition){.partition = p};
    }
}

enum ferry_err partition_member_assignment(struct partition *p, struct bytes subscription,
                                           struct bytes name, const struct ferry_id *instance,
                                           struct member_heartbeat_reply *reply)
{
    struct subscription *s;
    enum ferry_err err = find(p, subscription, &s);
    if (err != FERRY_OK) {
        return err;
    }
    struct members *m = s->members;
    struct member *member = m != NULL ? members_find(m, name) : NULL;
    reply->epoch = m != NULL ? m->epoch : 0;
    reply->heartbeat_ms = HURRY_MS;
    reply->count = 0;
    reply->paused = s->paused && s->mode == SUBSCRIPTION_STREAM;
    if (member == NULL || !is_instance(member, instance)) {
        bool fenced = member != NULL && member_was_fenced(member, instance);
        return fenced ? FERRY_ERR_MEMBER_FENCED : FERRY_OK; /* Its entry is to come. */
    }
    reply->heartbeat_ms = member->session_ms / BEATS_A_SESSION;
    if (s->mode == SUBSCRIPTION_STREAM) {
        answer_stream(m, member, reply);
    } else {
        answer_all(m, reply);
    }
    return FERRY_OK;
}

static uint32_t count_targets(const struct subscription *s, const struct member *member)
{
    const struct members *m = s->members;
    if (s->mode != SUBSCRIPTION_STREAM) {
        return m->partitions;
    }
    uint32_t count = 0;
    for (uint32_t p = 0; p < m->partitions; p++) {
        count += m->shares[p].target == member ? 1 : 0;
    }
    return count;
}

enum ferry_err partition_member_list(const struct partition *p, const struct member_list_request *q,
                                     int64_t now_us, struct member_list_reply *reply)
{
    struct subscription *s;
    enum ferry_err err = find(p, q->subscription, &s);
    reply->epoch = reply->count = 0;
    if (err != FERRY_OK || s->members == NULL) {
        return err;
    }
    const struct members *m = s->members;
    reply->epoch = m->epoch;
    for (size_t i = 0; i < m->count; i++) {
        const struct member *member = m->items[i];
        bool heard = member->heard_us != MEMBER_NOT_HEARD;
        reply->items[reply->count++] =
            (struct member_list_item){.member = member_name(member),
                                      .zone = bytes_of(member->zone, member->zone_bytes),
                                      .client = bytes_of(member->client, member->client_bytes),
                                      .joined_ms = member->joined_ms,
                                      .session_ms = member->session_ms,
                                      .silent_ms = heard ? (now_us - member->heard_us) / 1000 : 0,
                                      .assigned = count_targets(s, member),
                                      .held = member->held_count};
    }
    return FERRY_OK;
}

enum ferry_err partition_event_list(const struct partition *p, const struct event_list_request *q,
                                    struct event_list_reply *reply)
{
    struct subscription *s;
    enum ferry_err err = find(p, q->subscription, &s);
    reply->count = 0;
    reply->more = false;
    if (err == FERRY_OK && s->members != NULL) {
        members_events(s->members, q->after, reply);
    }
    return err;
}

/* ---- Applying ---- */

/* Whoever was waiting to join is in: what was heard of it is the member's now. */
static void settle_joining(struct members *m, const struct member_in *in)
{
    size_t at;
    const struct member *joining = find_joining(m, in->name, &in->instance, &at);
    if (joining == NULL) {
        return;
    }
    struct member *member = members_find(m, in->name);
    if (member != NULL && is_instance(member, &in->instance)) {
        member->heard_us = joining->heard_us;
        member->held = joining->held;
        member->held_count = joining->held_count;
        memset(&member->told, 0, sizeof(member->told));
        note_released(m, member);
    }
    members_drop_joining(m, at);
}

static enum ferry_err apply(struct partition *p, const struct members_entry *e, int64_t time_ms,
                            struct partition_ticket *t)
{
    struct subscription *s = subscriptions_by_number(&p->subscriptions, e->subscription);
    if (s == NULL) {
        partition_refuse(p, t, FERRY_ERR_UNKNOWN_SUBSCRIPTION);
        return FERRY_OK;
    }
    enum ferry_err err = make_members(s);
    if (err == FERRY_OK) {
        err = members_apply(s->members, e, time_ms);
    }
    if (err != FERRY_OK) {
        return err;
    }
    for (uint32_t i = 0; i < e->in_count; i++) {
        settle_joining(s->members, &e->in[i]);
    }
    s->members->in_flight = false;
    p->members_due_us = replica_is_ready(p->replica) ? 0 : RAFT_NEVER;
    return FERRY_OK;
}

enum ferry_err partition_apply_members(struct partition *p, uint64_t index,
                                       const struct store_entry *entry)
{
    struct members_entry *e = mem_alloc(sizeof(*e));
    if (e == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    enum ferry_err err = members_entry_decode(entry->payload, e);
    if (err == FERRY_OK) {
        err = apply(p, e, entry->append_time_ms, partition_waiting(p, index));
    }
    mem_free(e);
    return err;
}

enum ferry_err partition_note_event(struct partition *p, struct subscription *s,
                                    enum member_event_kind kind, int64_t time_ms, struct bytes who,
                                    struct bytes why)
{
    if (p->config.partition != 0) {
        return FERRY_OK;
    }
    enum ferry_err err = make_members(s);
    return err == FERRY_OK ? members_note(s->members, kind, time_ms, who, why) : err;
}

/* ---- Time ---- */

void partition_members_role(struct partition *p, bool ready)
{
    p->members_due_us = ready ? 0 : RAFT_NEVER;
    for (size_t i = 0; i < p->subscriptions.count; i++) {
        if (p->subscriptions.items[i]->members != NULL) {
            members_forget_volatile(p->subscriptions.items[i]->members);
        }
    }
}

/* A new leader has heard of nobody, and gives each a whole session. */
static void begin_sessions(struct members *m, int64_t now_us)
{
    for (size_t i = 0; i < m->count; i++) {
        if (m->items[i]->heard_us == MEMBER_NOT_HEARD) {
            m->items[i]->heard_us = now_us;
        }
    }
}

static void find_due(struct partition *p, const struct members *m)
{
    for (size_t i = 0; i < m->count; i++) {
        due_by(p, session_ends_us(m->items[i]));
    }
}

enum ferry_err partition_members_tick(struct partition *p, int64_t now_ms, int64_t now_us)
{
    p->members_due_us = RAFT_NEVER;
    if (!replica_is_ready(p->replica)) {
        return FERRY_OK;
    }
    for (size_t i = 0; i < p->subscriptions.count; i++) {
        struct subscription *s = p->subscriptions.items[i];
        if (s->members == NULL || s->members->in_flight) {
            continue; /* Applying it makes it due at once. */
        }
        enum ferry_err err = FERRY_OK;
#ifndef MUT_78
        begin_sessions(s->members, now_us);
        err = change(p, s, now_ms, now_us, NULL);
#else
        err = change(p, s, now_ms, now_us, NULL);
        begin_sessions(s->members, now_us);
#endif
        if (err != FERRY_OK) {
            due_by(p, now_us + PROPOSE_AGAIN_US);
        } else if (!s->members->in_flight) {
            find_due(p, s->members);
        }
    }
    return replica_failure(p->replica);
}
