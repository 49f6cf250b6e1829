/* Leases with fencing tokens: who has one, and until when. */
#include "base/mem.h"
#include "cluster/meta_internal.h"
#include "wire/pack.h"

#define FORGET_MAX 256u /* In one entry. */

/* ---- In memory ---- */

static int compare_name(const struct lease *l, struct bytes name)
{
    size_t length = strlen(l->name);
    int order = memcmp(l->name, name.data, length < name.size ? length : name.size);
    if (order != 0) {
        return order;
    }
    return length < name.size ? -1 : length > name.size;
}

static size_t lower_bound(const struct meta *m, struct bytes name)
{
    size_t low = 0, high = m->lease_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare_name(m->leases[middle], name) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

struct lease *meta_lease_row(const struct meta *m, struct bytes name)
{
    size_t at = lower_bound(m, name);
    return at < m->lease_count && compare_name(m->leases[at], name) == 0 ? m->leases[at] : NULL;
}

static struct lease *new_lease(struct bytes name)
{
    struct lease *l = mem_zalloc(1, sizeof(*l));
    if (l != NULL) {
        memcpy(l->name, name.data, name.size);
        list_init(&l->line);
        heap_node_init(&l->timer);
    }
    return l;
}

enum ferry_err meta_lease_reserve(struct meta *m, struct bytes name, struct lease **l)
{
    *l = meta_lease_row(m, name);
    if (*l != NULL) {
        return FERRY_OK;
    }
    struct lease *made = new_lease(name);
    if (made == NULL || !heap_reserve(&m->lease_timers, m->lease_count + 1) ||
        !mem_grow((void **)&m->leases, &m->lease_capacity, m->lease_count + 1,
                  sizeof(struct lease *))) {
        mem_free(made);
        return FERRY_ERR_NO_MEMORY;
    }
    size_t at = lower_bound(m, name);
    memmove(m->leases + at + 1, m->leases + at, (m->lease_count - at) * sizeof(*m->leases));
    m->leases[at] = made;
    m->lease_count++;
    *l = made;
    return FERRY_OK;
}

void meta_lease_drop_if_empty(struct meta *m, struct lease *l)
{
    if (l->token != 0 || l->pending != 0 || l->waiting > 0) {
        return;
    }
    size_t at = lower_bound(m, bytes_of_string(l->name));
    must(m->leases[at] == l);
    memmove(m->leases + at, m->leases + at + 1, (m->lease_count - at - 1) * sizeof(*m->leases));
    m->lease_count--;
    heap_remove(&m->lease_timers, &l->timer);
    mem_free(l);
}

void meta_leases_free(struct meta *m)
{
    while (m->lease_count > 0) {
        struct lease *l = m->leases[--m->lease_count];
        must(l->waiting == 0);
        heap_remove(&m->lease_timers, &l->timer);
        mem_free(l);
    }
    mem_free(m->leases);
    m->leases = NULL;
    m->lease_capacity = 0;
}

void meta_leases_check(const struct meta *m)
{
    uint32_t places = 0;
    for (size_t i = 0; i < m->lease_count; i++) {
        const struct lease *l = m->leases[i];
        must(i == 0 || strcmp(m->leases[i - 1]->name, l->name) < 0);
        must(l->token <= m->last_token && (l->token != 0) == (l->holder[0] != '\0'));
        must(l->token != 0 || l->pending != 0 || l->waiting > 0);
        places += l->waiting;
    }
    must(places == m->places && m->last_token <= m->proposed_token);
    heap_check(&m->lease_timers);
    heap_check(&m->place_timers);
}

/* ---- The clock ---- */

static bool is_held(const struct lease *l, int64_t now_us)
{
    return l->token != 0 && now_us < l->until_us;
}

bool meta_lease_is_free(const struct lease *l, int64_t now_us)
{
    return l->pending == 0 && !is_held(l, now_us);
}

static bool is_holder(const struct lease *l, struct bytes holder)
{
    return l->token != 0 && bytes_equal(bytes_of_string(l->holder), holder);
}

/* The one that is to have it now: whoever is first in line when it is free; the present holder when
 * it is in line itself, because it did not hear that it has it. */
static struct lease_place *next_in_line(const struct lease *l, int64_t now_us)
{
    if (l->pending != 0) {
        return NULL;
    }
    if (!is_held(l, now_us)) {
        return meta_line_first(l);
    }
    struct lease_place *own = meta_line_find(l, bytes_of_string(l->holder));
    return own != NULL && own->ticket != NULL ? own : NULL;
}

void meta_lease_schedule(struct meta *m, struct lease *l, int64_t not_before_us)
{
    int64_t due = l->until_us + META_LEASE_LINGER_MS * 1000LL;
    if (l->pending != 0 || (l->token == 0 && meta_line_first(l) == NULL)) {
        heap_remove(&m->lease_timers, &l->timer);
        return;
    }
    if (l->token == 0 || next_in_line(l, l->until_us - 1) != NULL) {
        due = 0;
    } else if (meta_line_first(l) != NULL) {
        due = l->until_us;
    }
    heap_set(&m->lease_timers, &l->timer, due > not_before_us ? due : not_before_us);
}

void meta_leases_wait_out(struct meta *m, int64_t now_us)
{
    for (size_t i = 0; i < m->lease_count; i++) {
        struct lease *l = m->leases[i];
        l->until_us = meta_until_us(now_us, l->ttl_ms);
#ifdef MUT_52 /* a new leader does not wait out what its predecessor granted */
        l->until_us = now_us;
#endif
        meta_lease_schedule(m, l, 0);
    }
}

void meta_leases_resign(struct meta *m)
{
    for (struct list *n; (n = list_pop_front(&m->confirming)) != NULL;) {
        meta_answer(m, list_entry(n, struct meta_ticket, base.node), FERRY_ERR_NOT_LEADER);
    }
    for (size_t i = m->lease_count; i > 0; i--) {
        struct lease *l = m->leases[i - 1];
        l->pending = 0;
        meta_line_answer_all(m, l, FERRY_ERR_NOT_LEADER);
        heap_remove(&m->lease_timers, &l->timer);
        meta_lease_drop_if_empty(m, l);
    }
}

int64_t meta_leases_deadline_us(const struct meta *m)
{
    const struct heap_node *lease = heap_first(&m->lease_timers);
    const struct heap_node *place = heap_first(&m->place_timers);
    int64_t due = lease != NULL ? lease->due : RAFT_NEVER;
    return place != NULL && place->due < due ? place->due : due;
}

/* ---- Granting ---- */

static void encode_grant(struct buf *b, const struct lease *l, struct bytes holder, uint64_t token,
                         uint32_t ttl_ms)
{
    buf_clear(b);
    pack_array(b, 5);
    pack_uint(b, META_LEASE_GRANT);
    pack_str(b, bytes_of_string(l->name));
    pack_str(b, holder);
    pack_uint(b, token);
    pack_uint(b, ttl_ms);
}

/* Grants, with a new token, or makes longer, with the same. */
static enum ferry_err propose(struct meta *m, struct lease *l, struct bytes holder, uint64_t token,
                              uint32_t ttl_ms, struct meta_ticket *t, int64_t now_ms,
                              int64_t now_us)
{
    encode_grant(&t->payload, l, holder, token, ttl_ms);
    enum ferry_err err = meta_propose(m, t, now_ms, now_us);
    if (err == FERRY_OK) {
        t->token = token;
        l->pending = t->base.index;
        l->pending_token = token;
        l->pending_until_us = meta_until_us(now_us, ttl_ms);
        heap_remove(&m->lease_timers, &l->timer);
    }
    return err;
}

enum ferry_err meta_lease_propose_grant(struct meta *m, struct lease *l, struct bytes holder,
                                        uint32_t ttl_ms, struct meta_ticket *t, int64_t now_ms,
                                        int64_t now_us)
{
#ifdef MUT_53 /* the next holder gets the token of the one before */
    uint64_t token = l->token != 0 ? l->token : m->proposed_token + 1;
#else
    uint64_t token = m->proposed_token + 1;
#endif
    enum ferry_err err = propose(m, l, holder, token, ttl_ms, t, now_ms, now_us);
    if (err == FERRY_OK) {
        m->proposed_token = token > m->proposed_token ? token : m->proposed_token;
    }
    return err;
}

static bool may_have_now(const struct lease *l, struct bytes holder, int64_t now_us)
{
    if (l->pending == 0 && is_held(l, now_us)) {
        return is_holder(l, holder);
    }
    const struct lease_place *first = meta_line_first(l);
    return meta_lease_is_free(l, now_us) &&
           (first == NULL || bytes_equal(bytes_of_string(first->holder), holder));
}

/* It has the lease or soon will: its place in line is over. */
static void leave_line(struct meta *m, struct lease *l, struct bytes holder)
{
    struct lease_place *p = meta_line_find(l, holder);
    if (p != NULL) {
        if (p->ticket != NULL) {
            meta_answer(m, p->ticket, FERRY_ERR_LEASE_HELD);
        }
        meta_line_leave(m, p);
    }
}

static enum ferry_err acquire(struct meta *m, struct lease *l, struct bytes holder, uint32_t ttl_ms,
                              uint32_t wait_ms, int64_t now_ms, int64_t now_us,
                              struct meta_ticket *t)
{
    if (!may_have_now(l, holder, now_us)) {
        return wait_ms == 0 ? FERRY_ERR_LEASE_HELD
                            : meta_line_join(m, l, holder, ttl_ms, wait_ms, now_us, t);
    }
    enum ferry_err err = meta_lease_propose_grant(m, l, holder, ttl_ms, t, now_ms, now_us);
    if (err == FERRY_OK) {
        leave_line(m, l, holder);
    }
    return err;
}

enum ferry_err meta_lease_acquire(struct meta *m, struct bytes name, struct bytes holder,
                                  uint32_t ttl_ms, uint32_t wait_ms, int64_t now_ms, int64_t now_us,
                                  struct meta_ticket *t)
{
    if (!name_is_valid(name) || !name_is_valid(holder)) {
        return FERRY_ERR_BAD_NAME;
    }
    if (!meta_ttl_is_valid(ttl_ms)) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    if (!replica_is_ready(m->replica)) {
        return replica_check_leader(m->replica);
    }
    meta_wait_out(m, now_us);
    if (m->lease_count >= META_LEASES_MAX && meta_lease_row(m, name) == NULL) {
        return FERRY_ERR_LIMIT_REACHED;
    }
    struct lease *l = NULL;
    enum ferry_err err = meta_lease_reserve(m, name, &l);
    if (err != FERRY_OK) {
        return err;
    }
    err = acquire(m, l, holder, ttl_ms, wait_ms, now_ms, now_us, t);
    meta_lease_schedule(m, l, 0);
    meta_lease_drop_if_empty(m, l);
    return err;
}

/* ---- Renewing and releasing ---- */

/* Has the holder this lease, as far as is known, and nothing on the way that takes it away? */
static bool is_owner(const struct lease *l, struct bytes holder, uint64_t token)
{
    return l != NULL && token != 0 && l->token == token && is_holder(l, holder) &&
           (l->pending == 0 || l->pending_token == token);
}

enum ferry_err meta_lease_renew(struct meta *m, struct bytes name, struct bytes holder,
                                uint64_t token, uint32_t ttl_ms, int64_t now_ms, int64_t now_us,
                                struct meta_ticket *t)
{
    if (!meta_ttl_is_valid(ttl_ms)) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    if (!replica_is_ready(m->replica)) {
        return replica_check_leader(m->replica);
    }
    meta_wait_out(m, now_us);
    struct lease *l = meta_lease_row(m, name);
    if (!is_owner(l, holder, token)) {
        return FERRY_ERR_LEASE_LOST;
    }
    /* A longer lease than the log knows goes through the log, or a new leader would not wait it
     * out.
     */
    if (ttl_ms > l->ttl_ms) {
        return propose(m, l, holder, token, ttl_ms, t, now_ms, now_us);
    }
    t->token = token;
    return meta_confirm_ask(m, t, META_CONFIRM_LEASE, name, ttl_ms, now_us);
}

static void encode_end(struct buf *b, struct lease *const *leases, uint32_t count)
{
    pack_array(b, 2);
    pack_uint(b, META_LEASE_END);
    pack_array(b, count);
    for (uint32_t i = 0; i < count; i++) {
        pack_array(b, 2);
        pack_str(b, bytes_of_string(leases[i]->name));
        pack_uint(b, leases[i]->token);
    }
}

static void await_end(struct meta *m, struct lease *l, uint64_t index)
{
    l->pending = index;
    l->pending_token = 0;
    heap_remove(&m->lease_timers, &l->timer);
}

enum ferry_err meta_lease_release(struct meta *m, struct bytes name, struct bytes holder,
                                  uint64_t token, int64_t now_ms, int64_t now_us,
                                  struct meta_ticket *t)
{
    if (!replica_is_ready(m->replica)) {
        return replica_check_leader(m->replica);
    }
    meta_wait_out(m, now_us);
    struct lease *l = meta_lease_row(m, name);
    if (!is_owner(l, holder, token)) {
        return FERRY_ERR_LEASE_LOST;
    }
    encode_end(&t->payload, &l, 1);
    enum ferry_err err = meta_propose(m, t, now_ms, now_us);
    if (err == FERRY_OK) {
        await_end(m, l, t->base.index);
    }
    return err;
}

/* ---- Applying ---- */

enum ferry_err meta_apply_lease_grant(struct meta *m, struct unpack *u)
{
    struct bytes name = unpack_str(u, NAME_MAX_BYTES);
    struct bytes holder = unpack_str(u, NAME_MAX_BYTES);
    uint64_t token = unpack_uint(u, UINT64_MAX);
    uint32_t ttl_ms = (uint32_t)unpack_uint(u, META_LEASE_MAX_MS);
    if (unpack_end(u) != FERRY_OK || name.size == 0 || holder.size == 0 || token == 0) {
        return FERRY_ERR_CORRUPT;
    }
    struct lease *l = NULL;
    enum ferry_err err = meta_lease_reserve(m, name, &l);
    if (err != FERRY_OK) {
        return err;
    }
    meta_take_text(l->holder, holder);
    l->token = token;
    l->ttl_ms = ttl_ms;
    l->dirty = true;
    m->last_token = token > m->last_token ? token : m->last_token;
    m->proposed_token = m->last_token > m->proposed_token ? m->last_token : m->proposed_token;
    if (l->pending == m->applying) {
        l->pending = 0;
        l->until_us = l->pending_until_us;
        meta_lease_schedule(m, l, 0);
    }
    return FERRY_OK;
}

static enum ferry_err end_lease(struct meta *m, struct lease *l)
{
    enum ferry_err err = meta_kill_row(m, META_TABLE_LEASES, bytes_of_string(l->name));
    if (err != FERRY_OK) {
        return err;
    }
    l->token = 0;
    l->holder[0] = '\0';
    if (l->pending <= m->applying) {
        l->pending = 0;
    }
    meta_lease_schedule(m, l, 0);
    meta_lease_drop_if_empty(m, l);
    return FERRY_OK;
}

enum ferry_err meta_apply_lease_end(struct meta *m, struct unpack *u)
{
    enum ferry_err err = FERRY_OK;
    uint32_t count = unpack_array(u, FORGET_MAX);
    for (uint32_t i = 0; i < count && err == FERRY_OK && !u->failed; i++) {
        (void)unpack_array(u, 2);
        struct bytes name = unpack_str(u, NAME_MAX_BYTES);
        uint64_t token = unpack_uint(u, UINT64_MAX);
        unpack_array_end(u);
        struct lease *l = u->failed ? NULL : meta_lease_row(m, name);
        err = l != NULL && l->token != 0 && l->token == token ? end_lease(m, l) : FERRY_OK;
    }
    unpack_array_end(u);
    return err == FERRY_OK && unpack_end(u) != FERRY_OK ? FERRY_ERR_CORRUPT : err;
}

/* ---- What a leader does by itself ---- */

struct forgotten {
    struct lease *leases[FORGET_MAX];
    uint32_t count;
};

static bool is_forgettable(const struct lease *l, int64_t now_us)
{
    return l->token != 0 && l->pending == 0 &&
           now_us >= l->until_us + META_LEASE_LINGER_MS * 1000LL;
}

/* Its time has come: gives it to the next, or puts it on the list of those to be forgotten. */
static void look_at(struct meta *m, struct lease *l, struct forgotten *f, int64_t now_ms,
                    int64_t now_us)
{
    struct lease_place *next = next_in_line(l, now_us);
    if (next != NULL) {
        enum ferry_err err = meta_lease_propose_grant(m, l, bytes_of_string(next->holder),
                                                      next->ttl_ms, next->ticket, now_ms, now_us);
        if (err == FERRY_OK) {
            meta_line_leave(m, next);
        } else {
            meta_lease_schedule(m, l, now_us + META_RETRY_US);
        }
    } else if (is_forgettable(l, now_us) && f->count < FORGET_MAX) {
        heap_remove(&m->lease_timers, &l->timer);
        f->leases[f->count++] = l;
    } else {
        meta_lease_schedule(m, l, is_forgettable(l, now_us) ? now_us + META_RETRY_US : 0);
    }
}

static void forget(struct meta *m, const struct forgotten *f, int64_t now_ms, int64_t now_us)
{
    struct buf *b = f->count > 0 ? meta_decision(m) : NULL;
    bool decided = false;
    if (b != NULL) {
        encode_end(b, f->leases, f->count);
        decided = meta_decide(m, now_ms, now_us);
    }
    for (uint32_t i = 0; i < f->count; i++) {
        if (decided) {
            await_end(m, f->leases[i], m->decided);
        } else {
            meta_lease_schedule(m, f->leases[i], now_us + META_RETRY_US);
        }
    }
}

void meta_leases_tick(struct meta *m, int64_t now_ms, int64_t now_us)
{
    struct forgotten f = {.count = 0};
    meta_line_tick(m, now_us);
    size_t bound = m->lease_count;
    for (size_t i = 0; i < bound; i++) {
        struct heap_node *first = heap_first(&m->lease_timers);
        if (first == NULL || first->due > now_us) {
            break;
        }
        look_at(m, list_entry(first, struct lease, timer), &f, now_ms, now_us);
    }
    forget(m, &f, now_ms, now_us);
}

/* ---- Asking ---- */

static void show(const struct lease *l, int64_t now_us, struct meta_lease_view *view)
{
    *view = (struct meta_lease_view){.name = bytes_of_string(l->name),
                                     .holder = bytes_of_string(l->holder),
                                     .token = l->token,
                                     .ttl_ms = l->ttl_ms,
                                     .left_ms = meta_left_ms(l->until_us, now_us),
                                     .waiting = l->waiting};
}

bool meta_lease_find(const struct meta *m, struct bytes name, int64_t now_us,
                     struct meta_lease_view *view)
{
    const struct lease *l = name.size > 0 ? meta_lease_row(m, name) : NULL;
    if (l == NULL || l->token == 0) {
        return false;
    }
    show(l, now_us, view);
    return true;
}

bool meta_lease_after(const struct meta *m, struct bytes after, int64_t now_us,
                      struct meta_lease_view *view)
{
    size_t at = after.size > 0 ? lower_bound(m, after) : 0;
    bool is_there =
        after.size > 0 && at < m->lease_count && compare_name(m->leases[at], after) == 0;
    at += is_there ? 1 : 0;
    while (at < m->lease_count && m->leases[at]->token == 0) {
        at++;
    }
    if (at >= m->lease_count) {
        return false;
    }
    show(m->leases[at], now_us, view);
    return true;
}
