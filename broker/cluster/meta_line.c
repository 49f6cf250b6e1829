/* Lines of those who wait for a lease; and renewals that wait for a quorum. All of it is a leader's
 * and in memory: it is gone with the office, and everybody is answered then. */
#include "base/mem.h"
#include "cluster/meta_internal.h"

static struct lease_place *place_of(struct list *node)
{
    return list_entry(node, struct lease_place, node);
}

struct lease_place *meta_line_first(const struct lease *l)
{
    for (struct list *n = l->line.next; n != &l->line; n = n->next) {
        if (place_of(n)->ticket != NULL) {
            return place_of(n);
        }
    }
    return NULL;
}

struct lease_place *meta_line_find(const struct lease *l, struct bytes holder)
{
    for (struct list *n = l->line.next; n != &l->line; n = n->next) {
        if (bytes_equal(bytes_of_string(place_of(n)->holder), holder)) {
            return place_of(n);
        }
    }
    return NULL;
}

static struct lease_place *new_place(struct meta *m, struct lease *l, struct bytes holder)
{
    struct lease_place *p = mem_zalloc(1, sizeof(*p));
    if (p == NULL || !heap_reserve(&m->place_timers, m->places + 1)) {
        mem_free(p);
        return NULL;
    }
    list_init(&p->node);
    heap_node_init(&p->timer);
    p->lease = l;
    memcpy(p->holder, holder.data, holder.size);
    list_push_back(&l->line, &p->node);
    l->waiting++;
    m->places++;
    return p;
}

enum ferry_err meta_line_join(struct meta *m, struct lease *l, struct bytes holder, uint32_t ttl_ms,
                              uint32_t wait_ms, int64_t now_us, struct meta_ticket *t)
{
    struct lease_place *p = meta_line_find(l, holder);
    if (p == NULL && m->places >= META_LEASE_WAITERS_MAX) {
        return FERRY_ERR_LIMIT_REACHED;
    }
    p = p != NULL ? p : new_place(m, l, holder);
    if (p == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    if (p->ticket != NULL) {
        meta_answer(m, p->ticket, FERRY_ERR_LEASE_HELD);
    }
    uint32_t wait = wait_ms < META_LEASE_WAIT_MAX_MS ? wait_ms : META_LEASE_WAIT_MAX_MS;
    p->ticket = t;
    p->ttl_ms = ttl_ms;
    t->waits = true;
    heap_set(&m->place_timers, &p->timer, meta_until_us(now_us, wait));
    return FERRY_OK;
}

void meta_line_leave(struct meta *m, struct lease_place *p)
{
    must(p->lease->waiting > 0 && m->places > 0);
    heap_remove(&m->place_timers, &p->timer);
    list_remove(&p->node);
    p->lease->waiting--;
    m->places--;
    mem_free(p);
}

void meta_line_answer_all(struct meta *m, struct lease *l, enum ferry_err err)
{
    while (!list_is_empty(&l->line)) {
        struct lease_place *p = place_of(l->line.next);
        if (p->ticket != NULL) {
            meta_answer(m, p->ticket, err);
        }
        meta_line_leave(m, p);
    }
}

/* A wait is over: the place is kept for a while. That is over too: it is gone. */
static void time_out(struct meta *m, struct lease_place *p, int64_t now_us)
{
    struct lease *l = p->lease;
    if (p->ticket != NULL) {
        meta_answer(m, p->ticket, FERRY_ERR_LEASE_HELD);
        p->ticket = NULL;
        heap_set(&m->place_timers, &p->timer, meta_until_us(now_us, META_LEASE_PLACE_MS));
    } else {
        meta_line_leave(m, p);
    }
    meta_lease_schedule(m, l, 0);
    meta_lease_drop_if_empty(m, l);
}

void meta_line_tick(struct meta *m, int64_t now_us)
{
    uint32_t bound = m->places;
    for (uint32_t i = 0; i < bound; i++) {
        struct heap_node *first = heap_first(&m->place_timers);
        if (first == NULL || first->due > now_us) {
            break;
        }
        time_out(m, list_entry(first, struct lease_place, timer), now_us);
    }
}

/* ---- Renewals that only have to be confirmed ---- */

/* Why a quorum is asked: a leader that was deposed and does not know it yet must not prolong what
 * its successor is waiting out. Confirmed after it was asked means: any successor came later, and
 * waits from then on. */
enum ferry_err meta_confirm_ask(struct meta *m, struct meta_ticket *t, enum meta_confirm what,
                                struct bytes name, uint32_t ttl_ms, int64_t now_us)
{
    buf_append_bytes(&t->payload, name);
    if (!buf_ok(&t->payload)) {
        return FERRY_ERR_NO_MEMORY;
    }
    enum ferry_err err = replica_read(m->replica, now_us, &t->read_number);
    if (err != FERRY_OK) {
        return err;
    }
    t->confirms = what;
    t->ttl_ms = ttl_ms;
    t->asked_us = now_us;
    t->waits = true;
    list_push_back(&m->confirming, &t->base.node);
    return FERRY_OK;
}

static enum ferry_err renew_lease(struct meta *m, const struct meta_ticket *t)
{
    struct lease *l = meta_lease_row(m, buf_bytes(&t->payload));
    if (l == NULL || l->token != t->token || (l->pending != 0 && l->pending_token != t->token)) {
        return FERRY_ERR_LEASE_LOST;
    }
    int64_t until_us = meta_until_us(t->asked_us, t->ttl_ms);
    l->until_us = until_us > l->until_us ? until_us : l->until_us;
    meta_lease_schedule(m, l, 0);
    return FERRY_OK;
}

static enum ferry_err renew_worker(struct meta *m, const struct meta_ticket *t)
{
    struct worker *w = meta_worker_of(m, buf_bytes(&t->payload));
    if (w == NULL || w->pending != 0 || w != &m->workers[t->worker_id]) {
        return FERRY_ERR_NOT_READY;
    }
    int64_t until_us = meta_until_us(t->asked_us, t->ttl_ms);
    w->until_us = until_us > w->until_us ? until_us : w->until_us;
    return FERRY_OK;
}

static enum ferry_err renew(struct meta *m, const struct meta_ticket *t)
{
    return t->confirms == META_CONFIRM_LEASE ? renew_lease(m, t) : renew_worker(m, t);
}

static enum replica_read_state ask_state(const struct meta *m, const struct meta_ticket *t)
{
#ifdef MUT_56 /* a renewal is answered without asking the others */
    return REPLICA_READ_DONE;
#endif
    return replica_read_done(m->replica, t->read_number);
}

void meta_confirm_tick(struct meta *m)
{
    while (!list_is_empty(&m->confirming)) {
        struct meta_ticket *t = list_entry(m->confirming.next, struct meta_ticket, base.node);
        enum replica_read_state state = ask_state(m, t);
        if (state == REPLICA_READ_WAITING) {
            return; /* Those behind it were asked later. */
        }
        list_remove(&t->base.node);
        meta_answer(m, t, state == REPLICA_READ_DONE ? renew(m, t) : FERRY_ERR_NOT_LEADER);
    }
}
