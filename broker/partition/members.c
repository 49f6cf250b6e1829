#include "partition/members.h"

#include "base/mem.h"

/* Names whose rows go with the next flush: bounded by the entries between two flushes. */
#define REMOVED_MAX_BYTES (64u << 20)

/* ---- Life ---- */

struct members *members_new(uint64_t number)
{
    struct members *m = mem_zalloc(1, sizeof(*m));
    if (m != NULL) {
        m->number = number;
        m->epoch = number >> 63 == 0 ? number : 0;
        m->first_event = m->next_event = m->disk_first = m->disk_next = 1;
        m->dirty = true;
        buf_init(&m->removed, REMOVED_MAX_BYTES);
        buf_init(&m->payload, MEMBERS_ENTRY_BYTES);
        buf_init(&m->zones, ZONES_MAX_BYTES);
    }
    return m;
}

static void free_all(struct member **items, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        mem_free(items[i]);
    }
    mem_free(items);
}

void members_free(struct members **mm)
{
    struct members *m = *mm;
    if (m == NULL) {
        return;
    }
    free_all(m->items, m->count);
    free_all(m->joining, m->joining_count);
    for (size_t i = 0; m->events != NULL && i < EVENTS_MAX; i++) {
        mem_free(m->events[i]);
    }
    mem_free(m->events);
    mem_free(m->shares);
    buf_fini(&m->removed);
    buf_fini(&m->payload);
    buf_fini(&m->zones);
    mem_free(m);
    *mm = NULL;
}

static uint32_t copy_text(char *to, struct bytes text, size_t max)
{
    size_t size = text.size < max ? text.size : max;
    if (size > 0) {
        memcpy(to, text.data, size);
    }
    return (uint32_t)size;
}

static void describe(struct member *member, const struct member_in *in)
{
    member->instance = in->instance;
    member->session_ms = in->session_ms;
    member->zone_bytes = copy_text(member->zone, in->zone, ZONE_MAX_BYTES);
    member->client_bytes = copy_text(member->client, in->client, NAME_MAX_BYTES);
    member->dirty = true;
}

struct member *member_new(const struct member_in *in)
{
    struct member *member = mem_zalloc(1, sizeof(*member));
    if (member != NULL) {
        member->name_bytes = copy_text(member->name, in->name, NAME_MAX_BYTES);
        member->heard_us = MEMBER_NOT_HEARD;
        describe(member, in);
    }
    return member;
}

/* ---- By name ---- */

static int compare_name(const struct member *member, struct bytes name)
{
    size_t shorter = member->name_bytes < name.size ? member->name_bytes : name.size;
    int order = memcmp(member->name, name.data, shorter);
    if (order != 0) {
        return order;
    }
    return member->name_bytes < name.size ? -1 : member->name_bytes > name.size;
}

/* The place of the first name >= `name`. */
static size_t lower_bound(const struct members *m, struct bytes name)
{
    size_t low = 0, high = m->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare_name(m->items[middle], name) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

struct member *members_find(const struct members *m, struct bytes name)
{
    size_t at = lower_bound(m, name);
    return at < m->count && compare_name(m->items[at], name) == 0 ? m->items[at] : NULL;
}

bool member_was_fenced(const struct member *member, const struct ferry_id *instance)
{
    for (uint32_t i = 0; i < member->fenced_count; i++) {
        if (memcmp(&member->fenced[i], instance, sizeof(*instance)) == 0) {
            return true;
        }
    }
    return false;
}

enum ferry_err members_insert(struct members *m, struct member *member)
{
    must(m->count < MEMBERS_MAX);
    if (!mem_grow((void **)&m->items, &m->capacity, m->count + 1, sizeof(struct member *))) {
        return FERRY_ERR_NO_MEMORY;
    }
    size_t at = lower_bound(m, member_name(member));
    memmove(m->items + at + 1, m->items + at, (m->count - at) * sizeof(struct member *));
    m->items[at] = member;
    m->count++;
    return FERRY_OK;
}

enum ferry_err members_grow_shares(struct members *m, uint32_t partitions)
{
    must(partitions <= PARTITIONS_MAX);
    if (partitions <= m->partitions) {
        return FERRY_OK;
    }
    if (!mem_grow((void **)&m->shares, &m->share_capacity, partitions, sizeof(*m->shares))) {
        return FERRY_ERR_NO_MEMORY;
    }
    memset(m->shares + m->partitions, 0, (partitions - m->partitions) * sizeof(*m->shares));
    m->partitions = partitions;
    return FERRY_OK;
}

/* ---- Events ---- */

struct member_event *members_event(const struct members *m, uint64_t number)
{
    return number >= m->first_event && number < m->next_event ? m->events[number % EVENTS_MAX]
                                                              : NULL;
}

enum ferry_err members_put_event(struct members *m, const struct member_event *like,
                                 struct bytes who, struct bytes why)
{
    if (m->events == NULL) {
        m->events = mem_zalloc(EVENTS_MAX, sizeof(struct member_event *));
    }
    struct member_event *e = mem_alloc(sizeof(*e) + who.size + why.size);
    if (m->events == NULL || e == NULL) {
        mem_free(e);
        return FERRY_ERR_NO_MEMORY;
    }
    *e = *like;
    e->who_bytes = copy_text(e->text, who, who.size);
    e->why_bytes = copy_text(e->text + who.size, why, why.size);
    struct member_event **place = &m->events[like->number % EVENTS_MAX];
    mem_free(*place);
    *place = e;
    return FERRY_OK;
}

enum ferry_err members_note(struct members *m, enum member_event_kind kind, int64_t time_ms,
                            struct bytes who, struct bytes why)
{
    struct member_event like = {
        .number = m->next_event, .time_ms = time_ms, .kind = kind, .epoch = m->epoch};
    who.size = who.size < NAME_MAX_BYTES ? who.size : NAME_MAX_BYTES;
    why.size = why.size < REASON_MAX_BYTES ? why.size : REASON_MAX_BYTES;
    enum ferry_err err = members_put_event(m, &like, who, why);
    if (err != FERRY_OK) {
        return err;
    }
    m->next_event++;
    if (m->next_event - m->first_event > EVENTS_MAX) {
        m->first_event++;
    }
    m->dirty = true;
    return FERRY_OK;
}

static const char *event_text(enum member_event_kind kind)
{
    switch (kind) {
#define MEMBER_EVENT_TEXT(name, number, text)                                                      \
    case MEMBER_EVENT_##name:                                                                      \
        return text;
        MEMBER_EVENT_MAP(MEMBER_EVENT_TEXT)
#undef MEMBER_EVENT_TEXT
    }
    return "changed"; /* Written by a newer version. */
}

void members_events(const struct members *m, uint64_t after, struct event_list_reply *reply)
{
    uint64_t n = after + 1 > m->first_event ? after + 1 : m->first_event;
    reply->count = 0;
    for (; n < m->next_event && reply->count < EVENT_LIST_MAX; n++) {
        const struct member_event *e = members_event(m, n);
        reply->items[reply->count++] =
            (struct event_list_item){.number = e->number,
                                     .time_ms = e->time_ms,
                                     .kind = bytes_of_string(event_text(e->kind)),
                                     .who = bytes_of(e->text, e->who_bytes),
                                     .why = bytes_of(e->text + e->who_bytes, e->why_bytes),
                                     .epoch = e->epoch};
    }
    reply->more = n < m->next_event;
}

/* ---- Applying ---- */

static enum ferry_err apply_out(struct members *m, const struct member_out *out, int64_t time_ms)
{
    size_t at = lower_bound(m, out->name);
    struct member *member = members_find(m, out->name);
    if (member == NULL) {
        return FERRY_OK;
    }
    bool expired = out->cause == MEMBER_EXPIRED;
    enum ferry_err err = members_note(m, expired ? MEMBER_EVENT_EXPIRED : MEMBER_EVENT_LEFT,
                                      time_ms, out->name, out->reason);
    if (err != FERRY_OK || !buf_reserve(&m->removed, out->name.size + 1)) {
        return FERRY_ERR_NO_MEMORY;
    }
    buf_append_u8(&m->removed, (uint8_t)out->name.size);
    buf_append_bytes(&m->removed, out->name);
    for (uint32_t p = 0; p < m->partitions; p++) {
        struct member_share *s = &m->shares[p];
        s->target = s->target == member ? NULL : s->target;
        s->holder = s->holder == member ? NULL : s->holder;
    }
    memmove(m->items + at, m->items + at + 1, (m->count - at - 1) * sizeof(struct member *));
    m->count--;
    mem_free(member);
    return FERRY_OK;
}

/* The instance that had the name is out of the game; the name keeps what it had. */
static enum ferry_err take_over(struct members *m, struct member *member,
                                const struct member_in *in, int64_t time_ms)
{
    if (member->fenced_count == MEMBER_FENCED_KEPT) {
        member->fenced_count--;
        memmove(member->fenced, member->fenced + 1,
                member->fenced_count * sizeof(member->fenced[0]));
    }
    member->fenced[member->fenced_count++] = member->instance;
    describe(member, in);
    member->joined_ms = time_ms;
    member->taken_over = true;
    return members_note(m, MEMBER_EVENT_FENCED, time_ms, in->name,
                        bytes_of_string("a newer instance has its name"));
}

static enum ferry_err add_member(struct members *m, const struct member_in *in, int64_t time_ms)
{
    struct member *member = member_new(in);
    if (member == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    member->joined_ms = time_ms;
    enum ferry_err err = members_insert(m, member);
    if (err != FERRY_OK) {
        mem_free(member);
    }
    return err;
}

static enum ferry_err apply_in(struct members *m, const struct member_in *in, int64_t time_ms)
{
    struct member *member = members_find(m, in->name);
    enum ferry_err err = FERRY_OK;
    if (member != NULL) {
        err = take_over(m, member, in, time_ms);
    } else if (m->count == MEMBERS_MAX) {
        return FERRY_OK;
    } else {
        err = add_member(m, in, time_ms);
    }
    return err == FERRY_OK ? members_note(m, MEMBER_EVENT_JOINED, time_ms, in->name, in->client)
                           : err;
}

static void apply_targets(struct members *m, const struct members_entry *e)
{
    for (uint32_t p = 0; p < e->target_count && p < m->partitions; p++) {
        bool somebody = e->targets[p] > 0 && e->targets[p] <= m->count;
        m->shares[p].target = somebody ? m->items[e->targets[p] - 1] : NULL;
    }
}

static bool is_given_away(const struct members *m, const struct members_entry *e, uint32_t p)
{
    bool gives = false;
    for (uint32_t i = 0; i < e->give_count && !gives; i++) {
        gives = e->gives[i] == p;
    }
    return gives && m->shares[p].holder != m->shares[p].target;
}

/* A reset may have come in front of the entry and raised the epoch to the one that it was decided
 * with, and told it to those who had the partitions until now: others must have a greater one. */
static void raise_epoch(struct members *m, const struct members_entry *e)
{
    bool told = false;
    for (uint32_t p = 0; p < m->partitions && !told; p++) {
        const struct member_share *s = &m->shares[p];
        bool taken_over = s->holder != NULL && s->holder->taken_over;
        told = s->epoch == m->epoch && (taken_over || is_given_away(m, e, p));
    }
    m->epoch += told ? 1 : 0;
}

static void renew_epochs(struct members *m)
{
    for (uint32_t p = 0; p < m->partitions; p++) {
        struct member_share *s = &m->shares[p];
        if (s->holder != NULL && s->holder->taken_over) {
            s->epoch = m->epoch;
        }
    }
    for (size_t i = 0; i < m->count; i++) {
        m->items[i]->taken_over = false;
    }
}

/* "partitions 3 4 17", as far as there is room. */
struct given {
    struct member *to;
    bool moved;
    struct buf why;
};

static enum ferry_err note_given(struct members *m, struct given *g, int64_t time_ms)
{
    if (g->to == NULL) {
        return FERRY_OK;
    }
    enum ferry_err err = members_note(m, g->moved ? MEMBER_EVENT_MOVED : MEMBER_EVENT_ASSIGNED,
                                      time_ms, member_name(g->to), buf_bytes(&g->why));
    buf_fini(&g->why);
    *g = (struct given){0};
    return err;
}

static enum ferry_err give_to(struct members *m, const struct members_entry *e, struct member *to,
                              int64_t time_ms)
{
    struct given g = {0};
    for (uint32_t i = 0; i < e->give_count; i++) {
        uint32_t p = e->gives[i];
        struct member_share *s = p < m->partitions ? &m->shares[p] : NULL;
        if (s == NULL || s->target != to || s->holder == to) {
            continue;
        }
        if (g.to == NULL) {
            g.to = to;
            buf_init(&g.why, REASON_MAX_BYTES);
            buf_printf(&g.why, "partitions");
        }
        buf_printf(&g.why, " %u", p);
        g.moved = g.moved || s->holder != NULL;
        s->holder = to;
        s->epoch = m->epoch;
    }
    return note_given(m, &g, time_ms);
}

static enum ferry_err apply_gives(struct members *m, const struct members_entry *e, int64_t time_ms)
{
    enum ferry_err err = FERRY_OK;
    for (size_t i = 0; i < m->count && e->give_count > 0 && err == FERRY_OK; i++) {
        err = give_to(m, e, m->items[i], time_ms);
    }
    return err;
}

enum ferry_err members_apply(struct members *m, const struct members_entry *e, int64_t time_ms)
{
    enum ferry_err err = members_grow_shares(m, e->partitions);
    m->epoch = e->epoch > m->epoch ? e->epoch : m->epoch;
    m->dirty = true;
    for (uint32_t i = 0; i < e->out_count && err == FERRY_OK; i++) {
        err = apply_out(m, &e->out[i], time_ms);
    }
    for (uint32_t i = 0; i < e->in_count && err == FERRY_OK; i++) {
        err = apply_in(m, &e->in[i], time_ms);
    }
    if (err == FERRY_OK) {
        apply_targets(m, e);
        raise_epoch(m, e);
        renew_epochs(m);
        err = apply_gives(m, e, time_ms);
    }
    return err;
}

void members_give_anew(struct members *m)
{
    m->epoch++;
    m->dirty = true;
    for (uint32_t p = 0; p < m->partitions; p++) {
        if (m->shares[p].holder != NULL) {
            m->shares[p].epoch = m->epoch;
        }
    }
}

/* ---- Leader only ---- */

void members_forget_volatile(struct members *m)
{
    for (size_t i = 0; i < m->count; i++) {
        struct member *member = m->items[i];
        member->heard_us = MEMBER_NOT_HEARD;
        member->leaving = false;
        member->held_count = 0;
        memset(&member->held, 0, sizeof(member->held));
        memset(&member->released, 0, sizeof(member->released));
        memset(&member->told, 0xff, sizeof(member->told));
    }
    while (m->joining_count > 0) {
        members_drop_joining(m, m->joining_count - 1);
    }
    m->in_flight = false;
    m->partitions_seen = 0;
    buf_clear(&m->zones);
}

void members_drop_joining(struct members *m, size_t at)
{
    must(at < m->joining_count);
    mem_free(m->joining[at]);
    m->joining_count--;
    memmove(m->joining + at, m->joining + at + 1,
            (m->joining_count - at) * sizeof(struct member *));
}

/* ---- Checking ---- */

static bool is_member(const struct members *m, const struct member *member)
{
    return member == NULL || members_find(m, member_name(member)) == member;
}

void members_check(const struct members *m)
{
    must(m->count <= MEMBERS_MAX);
    for (size_t i = 1; i < m->count; i++) {
        must(compare_name(m->items[i - 1], member_name(m->items[i])) < 0);
    }
    for (uint32_t p = 0; p < m->partitions; p++) {
        const struct member_share *s = &m->shares[p];
        must(is_member(m, s->target) && is_member(m, s->holder));
        must(s->epoch <= m->epoch);
    }
    must(m->next_event - m->first_event <= EVENTS_MAX);
    for (uint64_t n = m->first_event; n < m->next_event; n++) {
        must(members_event(m, n) != NULL && members_event(m, n)->number == n);
    }
}
