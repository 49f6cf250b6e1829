/* Producer ids and epochs; sources and their leases. */
#include "base/checksum.h"
#include "base/mem.h"
#include "cluster/meta_internal.h"
#include "wire/pack.h"

/* ---- Producers ---- */

static bool producer_has_name(const void *item, const void *key)
{
    const struct bytes *name = key;
    return bytes_equal(bytes_of_string(((const struct meta_producer *)item)->name), *name);
}

struct meta_producer *meta_producer_find(const struct meta *m, struct bytes name)
{
    return map_find(&m->producers, checksum_of(name.data, name.size), producer_has_name, &name);
}

enum ferry_err meta_producer_reserve(struct meta *m, struct bytes name, struct meta_producer **p)
{
    *p = meta_producer_find(m, name);
    if (*p != NULL) {
        return FERRY_OK;
    }
    if (m->producers.count >= META_PRODUCERS_MAX) {
        return FERRY_ERR_LIMIT_REACHED;
    }
    struct meta_producer *made = mem_zalloc(1, sizeof(*made));
    if (made == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    memcpy(made->name, name.data, name.size);
    if (!map_add(&m->producers, checksum_of(name.data, name.size), made)) {
        mem_free(made);
        return FERRY_ERR_NO_MEMORY;
    }
    *p = made;
    return FERRY_OK;
}

static void encode_producer(struct buf *b, struct bytes name, uint64_t id, uint32_t epoch)
{
    pack_array(b, 4);
    pack_uint(b, META_PRODUCER_INIT);
    pack_str(b, name);
    pack_uint(b, id);
    pack_uint(b, epoch);
}

enum ferry_err meta_producer_init(struct meta *m, struct bytes name, int64_t now_ms, int64_t now_us,
                                  struct meta_ticket *t)
{
    if (!replica_is_ready(m->replica)) {
        return FERRY_ERR_NOT_READY;
    }
    if (name.size > 0 && !name_is_valid(name)) {
        return FERRY_ERR_BAD_NAME;
    }
    struct meta_producer *p = NULL;
    enum ferry_err err = name.size > 0 ? meta_producer_reserve(m, name, &p) : FERRY_OK;
    if (err != FERRY_OK) {
        return err;
    }
    bool is_new = p == NULL || p->id == 0;
    t->producer_id = is_new ? m->proposed_next_producer : p->id;
    t->producer_epoch = p == NULL ? 0 : p->proposed_epoch + 1;
    encode_producer(&t->payload, name, t->producer_id, t->producer_epoch);
    err = meta_propose(m, t, now_ms, now_us);
    if (err != FERRY_OK) {
        return err;
    }
    m->proposed_next_producer += is_new ? 1 : 0;
    if (p != NULL) {
        p->id = t->producer_id;
        p->proposed_epoch = t->producer_epoch;
    }
    return FERRY_OK;
}

enum ferry_err meta_apply_producer(struct meta *m, struct unpack *u)
{
    struct bytes name = unpack_str(u, NAME_MAX_BYTES);
    uint64_t id = unpack_uint(u, UINT64_MAX - 1);
    uint32_t epoch = (uint32_t)unpack_uint(u, UINT32_MAX);
    if (unpack_end(u) != FERRY_OK) {
        return FERRY_ERR_CORRUPT;
    }
    m->next_producer = id + 1 > m->next_producer ? id + 1 : m->next_producer;
    if (name.size == 0) {
        return FERRY_OK;
    }
    struct meta_producer *p = NULL;
    enum ferry_err err = meta_producer_reserve(m, name, &p);
    if (err == FERRY_OK) {
        p->id = id;
        p->epoch = epoch;
        p->proposed_epoch = epoch > p->proposed_epoch ? epoch : p->proposed_epoch;
        p->dirty = true;
    }
    return err;
}

/* ---- Sources ---- */

struct source_key {
    struct ferry_id source;
    uint32_t lane;
};

static uint64_t source_hash(const struct ferry_id *source, uint32_t lane)
{
    return checksum_of(source->bytes, sizeof(source->bytes)) ^ map_hash_u64(lane);
}

static bool source_matches(const void *item, const void *key)
{
    const struct meta_source *s = item;
    const struct source_key *k = key;
    return s->lane == k->lane && memcmp(&s->source, &k->source, sizeof(k->source)) == 0;
}

struct meta_source *meta_source_find(const struct meta *m, const struct ferry_id *source,
                                     uint32_t lane)
{
    struct source_key key = {.source = *source, .lane = lane};
    return map_find(&m->sources, source_hash(source, lane), source_matches, &key);
}

enum ferry_err meta_source_reserve(struct meta *m, const struct ferry_id *source, uint32_t lane,
                                   struct meta_source **s)
{
    *s = meta_source_find(m, source, lane);
    if (*s != NULL) {
        return FERRY_OK;
    }
    if (m->sources.count >= META_SOURCES_MAX) {
        return FERRY_ERR_LIMIT_REACHED;
    }
    struct meta_source *made = mem_zalloc(1, sizeof(*made));
    if (made == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    made->source = *source;
    made->lane = lane;
    if (!map_add(&m->sources, source_hash(source, lane), made)) {
        mem_free(made);
        return FERRY_ERR_NO_MEMORY;
    }
    *s = made;
    return FERRY_OK;
}

void meta_source_set_holder(struct meta_source *s, struct bytes holder)
{
    must(holder.size <= sizeof(s->holder));
    s->holder_bytes = (uint32_t)holder.size;
    if (holder.size > 0) {
        memcpy(s->holder, holder.data, holder.size);
    }
}

void meta_sources_wait_out(struct meta *m, int64_t now_us)
{
    size_t at = 0;
    for (struct meta_source *s; (s = map_next(&m->sources, &at)) != NULL;) {
        s->lease_until_us = meta_until_us(now_us, s->ttl_ms);
    }
}

static bool is_holder(const struct meta_source *s, struct bytes holder)
{
    return bytes_equal(bytes_of(s->holder, s->holder_bytes), holder);
}

static void encode_elect(struct buf *b, const struct source_elect_request *r, uint64_t epoch)
{
    pack_array(b, 6);
    pack_uint(b, META_SOURCE_ELECT);
    pack_id(b, &r->source);
    pack_uint(b, r->lane);
    pack_uint(b, epoch);
    pack_str(b, r->holder);
    pack_uint(b, r->ttl_ms);
}

enum ferry_err meta_source_elect(struct meta *m, const struct source_elect_request *r,
                                 int64_t now_ms, int64_t now_us, struct meta_ticket *t,
                                 bool *granted)
{
    *granted = false;
    if (!replica_is_ready(m->replica)) {
        return FERRY_ERR_NOT_READY;
    }
    if (!name_is_valid(r->holder)) {
        return FERRY_ERR_BAD_NAME;
    }
    if (!meta_ttl_is_valid(r->ttl_ms)) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    meta_wait_out(m, now_us);
    struct meta_source *s = NULL;
    enum ferry_err err = meta_source_reserve(m, &r->source, r->lane, &s);
    if (err != FERRY_OK) {
        return err;
    }
    int64_t until_us = meta_until_us(now_us, r->ttl_ms);
    /* A longer lease than the log knows goes through the log, or a restart would not wait it out.
     */
    bool renews = r->epoch != 0 && r->epoch == s->proposed_epoch && is_holder(s, r->holder);
    if (renews && r->ttl_ms <= s->ttl_ms) {
        s->lease_until_us = until_us;
        t->source_epoch = s->proposed_epoch;
        *granted = true;
        return FERRY_OK;
    }
    if (now_us < s->lease_until_us && !is_holder(s, r->holder)) {
        return FERRY_OK;
    }
    t->source_epoch = s->proposed_epoch + 1;
    encode_elect(&t->payload, r, t->source_epoch);
    err = meta_propose(m, t, now_ms, now_us);
    if (err == FERRY_OK) {
        s->proposed_epoch = t->source_epoch;
        s->lease_until_us = until_us;
        meta_source_set_holder(s, r->holder);
        *granted = true;
    }
    return err;
}

void meta_source_show(const struct meta *m, const struct ferry_id *source, uint32_t lane,
                      int64_t now_us, struct source_elect_reply *reply)
{
    const struct meta_source *s = meta_source_find(m, source, lane);
    *reply = (struct source_elect_reply){0};
    if (s == NULL) {
        return;
    }
    reply->epoch = s->epoch;
    reply->retry_ms = meta_left_ms(s->lease_until_us, now_us);
    reply->checkpoint = bytes_of(s->checkpoint, s->checkpoint_bytes);
    reply->holder = bytes_of(s->holder, s->holder_bytes);
}

enum ferry_err meta_source_resign(struct meta *m, const struct source_resign_request *r,
                                  int64_t now_us)
{
    struct meta_source *s = meta_source_find(m, &r->source, r->lane);
    if (!replica_is_ready(m->replica)) {
        return FERRY_ERR_NOT_READY;
    }
    if (s == NULL || s->proposed_epoch != r->epoch) {
        return FERRY_ERR_SOURCE_FENCED;
    }
    meta_wait_out(m, now_us);
    s->lease_until_us = now_us;
    return FERRY_OK;
}

enum ferry_err meta_source_checkpoint(struct meta *m, const struct source_checkpoint_request *r,
                                      int64_t now_ms, int64_t now_us, struct meta_ticket *t)
{
    const struct meta_source *s = meta_source_find(m, &r->source, r->lane);
    if (!replica_is_ready(m->replica)) {
        return FERRY_ERR_NOT_READY;
    }
    if (s == NULL || s->proposed_epoch != r->epoch) {
        return FERRY_ERR_SOURCE_FENCED;
    }
    pack_array(&t->payload, 4);
    pack_uint(&t->payload, META_SOURCE_CHECKPOINT);
    pack_id(&t->payload, &r->source);
    pack_uint(&t->payload, r->lane);
    pack_bin(&t->payload, r->checkpoint);
    return meta_propose(m, t, now_ms, now_us);
}

enum ferry_err meta_apply_elect(struct meta *m, struct unpack *u)
{
    struct ferry_id source = unpack_id(u);
    uint32_t lane = (uint32_t)unpack_uint(u, UINT32_MAX);
    uint64_t epoch = unpack_uint(u, UINT64_MAX);
    struct bytes holder = unpack_str(u, NAME_MAX_BYTES);
    uint32_t ttl_ms = (uint32_t)unpack_uint(u, UINT32_MAX);
    if (unpack_end(u) != FERRY_OK) {
        return FERRY_ERR_CORRUPT;
    }
    struct meta_source *s = NULL;
    enum ferry_err err = meta_source_reserve(m, &source, lane, &s);
    if (err != FERRY_OK) {
        return err;
    }
    s->epoch = epoch;
    s->proposed_epoch = epoch > s->proposed_epoch ? epoch : s->proposed_epoch;
    s->ttl_ms = ttl_ms;
    meta_source_set_holder(s, holder);
    s->dirty = true;
    return FERRY_OK;
}

enum ferry_err meta_apply_checkpoint(struct meta *m, struct unpack *u)
{
    struct ferry_id source = unpack_id(u);
    uint32_t lane = (uint32_t)unpack_uint(u, UINT32_MAX);
    struct bytes checkpoint = unpack_bin(u, CHECKPOINT_MAX_BYTES);
    if (unpack_end(u) != FERRY_OK) {
        return FERRY_ERR_CORRUPT;
    }
    struct meta_source *s = NULL;
    enum ferry_err err = meta_source_reserve(m, &source, lane, &s);
    if (err != FERRY_OK) {
        return err;
    }
    s->checkpoint_bytes = (uint32_t)checkpoint.size;
    if (checkpoint.size > 0) {
        memcpy(s->checkpoint, checkpoint.data, checkpoint.size);
    }
    s->dirty = true;
    return FERRY_OK;
}
