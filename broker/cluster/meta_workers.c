/* Worker ids of snowflake ids: 1024 leases without names, each holder has one at most. */
#include "base/checksum.h"
#include "base/id.h"
#include "base/mem.h"
#include "cluster/meta_internal.h"
#include "wire/pack.h"

_Static_assert(META_WORKERS == ID_WORKERS_MAX, "ten bits");

struct worker *meta_worker_of(struct meta *m, struct bytes holder)
{
    for (uint32_t i = 0; i < META_WORKERS; i++) {
        if (m->workers[i].holder[0] != '\0' &&
            bytes_equal(bytes_of_string(m->workers[i].holder), holder)) {
            return &m->workers[i];
        }
    }
    return NULL;
}

void meta_worker_set(struct worker *w, struct bytes holder, uint32_t ttl_ms)
{
    must(holder.size <= NAME_MAX_BYTES);
    if (holder.size > 0) {
        memcpy(w->holder, holder.data, holder.size);
    }
    w->holder[holder.size] = '\0';
    w->ttl_ms = ttl_ms;
}

void meta_workers_wait_out(struct meta *m, int64_t now_us)
{
    for (uint32_t i = 0; i < META_WORKERS; i++) {
        m->workers[i].until_us = meta_until_us(now_us, m->workers[i].ttl_ms);
    }
}

void meta_workers_resign(struct meta *m)
{
    for (uint32_t i = 0; i < META_WORKERS; i++) {
        m->workers[i].pending = 0;
    }
}

/* One that nobody ever had, else the one that has been free for longest; NULL. */
static struct worker *find_free(struct meta *m, int64_t now_us)
{
    struct worker *best = NULL;
    for (uint32_t i = 0; i < META_WORKERS; i++) {
        struct worker *w = &m->workers[i];
        if (w->pending != 0 || (w->holder[0] != '\0' && now_us < w->until_us)) {
            continue;
        }
        if (w->holder[0] == '\0') {
            return w;
        }
        best = best == NULL || w->until_us < best->until_us ? w : best;
    }
    return best;
}

static bool is_on_the_way(const struct meta *m, uint64_t hash)
{
    bool found = false;
    for (uint32_t i = 0; i < META_WORKERS; i++) {
        found = found || (m->workers[i].pending != 0 && m->workers[i].pending_hash == hash);
    }
    return found;
}

static enum ferry_err grant(struct meta *m, struct worker *w, struct bytes holder, uint32_t ttl_ms,
                            int64_t now_ms, int64_t now_us, struct meta_ticket *t)
{
    pack_array(&t->payload, 4);
    pack_uint(&t->payload, META_WORKER_GRANT);
    pack_uint(&t->payload, (uint64_t)(w - m->workers));
    pack_str(&t->payload, holder);
    pack_uint(&t->payload, ttl_ms);
    enum ferry_err err = meta_propose(m, t, now_ms, now_us);
    if (err == FERRY_OK) {
        w->pending = t->base.index;
        w->pending_hash = checksum_of(holder.data, holder.size);
        w->pending_until_us = meta_until_us(now_us, ttl_ms);
        t->worker_id = (uint32_t)(w - m->workers);
    }
    return err;
}

enum ferry_err meta_worker_id(struct meta *m, struct bytes holder, uint32_t ttl_ms, int64_t now_ms,
                              int64_t now_us, struct meta_ticket *t)
{
    if (!name_is_valid(holder)) {
        return FERRY_ERR_BAD_NAME;
    }
    if (!meta_ttl_is_valid(ttl_ms)) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    if (!replica_is_ready(m->replica)) {
        return replica_check_leader(m->replica);
    }
    if (is_on_the_way(m, checksum_of(holder.data, holder.size))) {
        return FERRY_ERR_NOT_READY;
    }
    meta_wait_out(m, now_us);
    struct worker *own = meta_worker_of(m, holder);
    if (own != NULL && own->pending == 0) {
        t->worker_id = (uint32_t)(own - m->workers);
        return ttl_ms <= own->ttl_ms
                   ? meta_confirm_ask(m, t, META_CONFIRM_WORKER, holder, ttl_ms, now_us)
                   : grant(m, own, holder, ttl_ms, now_ms, now_us, t);
    }
    struct worker *w = find_free(m, now_us);
    return w != NULL ? grant(m, w, holder, ttl_ms, now_ms, now_us, t) : FERRY_ERR_LIMIT_REACHED;
}

enum ferry_err meta_apply_worker(struct meta *m, struct unpack *u)
{
    uint32_t id = (uint32_t)unpack_uint(u, META_WORKERS - 1);
    struct bytes holder = unpack_str(u, NAME_MAX_BYTES);
    uint32_t ttl_ms = (uint32_t)unpack_uint(u, META_LEASE_MAX_MS);
    if (unpack_end(u) != FERRY_OK || holder.size == 0) {
        return FERRY_ERR_CORRUPT;
    }
    struct worker *other = meta_worker_of(m, holder);
    if (other != NULL && other != &m->workers[id]) {
        meta_worker_set(other, bytes_of(NULL, 0), 0);
        other->dirty = true;
    }
    struct worker *w = &m->workers[id];
    meta_worker_set(w, holder, ttl_ms);
    w->dirty = true;
    if (w->pending == m->applying) {
        w->pending = 0;
        w->until_us = w->pending_until_us;
    }
    return FERRY_OK;
}
