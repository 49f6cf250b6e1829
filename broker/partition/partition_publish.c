/* Publishing on condition: a batch that is appended whole, or not at all, when the keys that it
 * names are at the versions that it expects.
 *
 * Judged once, by the leader, against what is applied and what is on its way: entries are applied
 * in the order in which they were judged. Ids come first: a repeat of what is stored is answered as
 * the first one was, whatever the versions are by now. Some records being repeats, only the others
 * are appended, and only their expectations count. */
#include <stdlib.h>

#include "base/id.h"
#include "base/mem.h"
#include "partition/partition_internal.h"

/* An expectation with its key; its place in the request is what a refusal names. */
struct expected {
    uint32_t record;
    uint64_t version;
    struct version_key key;
    bool counts; /* The record is no repeat. */
};

struct publishing {
    const struct publish_request *q;
    struct bytes batch;
    struct batch_header h;
    struct expected *expected; /* By record. */
    uint64_t index;            /* The entry's. */
    int64_t time_ms;
};

static int by_record(const void *a, const void *b)
{
    uint32_t x = ((const struct expected *)a)->record;
    uint32_t y = ((const struct expected *)b)->record;
    return (x > y) - (x < y);
}

static enum ferry_err check_batch(const struct partition *p, struct publishing *u,
                                  struct err_text *e)
{
    enum ferry_err err = partition_check_batch(p, u->batch, &u->h, e);
    if (err != FERRY_OK) {
        return err;
    }
    if (u->h.producer_id != 0 || (u->h.flags & BATCH_HAS_DUE) != 0) {
        return err_set(e, FERRY_ERR_INVALID_ARGUMENT,
                       "what is published on condition has no producer id and no due times");
    }
    return FERRY_OK;
}

static enum ferry_err refuse_record(struct publish_refusal *refusal, uint32_t record,
                                    struct err_text *e, const char *why)
{
    refusal->record = record;
    return err_set(e, FERRY_ERR_INVALID_ARGUMENT, "record %u of the batch: %s", record, why);
}

static enum ferry_err sort_expected(struct publishing *u, struct publish_refusal *refusal,
                                    struct err_text *e)
{
    for (uint32_t i = 0; i < u->q->count; i++) {
        u->expected[i] = (struct expected){
            .record = u->q->expect[i].record, .version = u->q->expect[i].version, .counts = true};
    }
    qsort(u->expected, u->q->count, sizeof(u->expected[0]), by_record);
    for (uint32_t i = 0; i < u->q->count; i++) {
        uint32_t record = u->expected[i].record;
        if (record >= u->h.count) {
            return refuse_record(refusal, record, e, "there is no such record");
        }
        if (i > 0 && record == u->expected[i - 1].record) {
            return refuse_record(refusal, record, e, "it has two expectations");
        }
    }
    return FERRY_OK;
}

/* Every record is read, so that none of them is malformed. */
static enum ferry_err find_keys(struct publishing *u, struct publish_refusal *refusal,
                                struct err_text *e)
{
    struct batch_reader reader;
    struct batch_record r;
    enum ferry_err err = FERRY_OK;
    uint32_t next = 0;
    batch_reader_init(&reader, u->batch);
    for (uint32_t i = 0; batch_reader_next(&reader, &r, &err); i++) {
        if (next == u->q->count || u->expected[next].record != i) {
            continue;
        }
        if (!r.has_key) {
            return refuse_record(refusal, i, e, "a version is expected and it has no key");
        }
        u->expected[next++].key = version_key_of(r.key);
    }
    return err;
}

/* ---- Judging ---- */

static void leave_out_repeats(struct publishing *u, const struct partition_ticket *t)
{
    uint32_t next = 0;
    for (uint32_t i = 0; i < t->duplicate_count; i++) {
        uint32_t record = get_le32(t->duplicates.data + (size_t)i * PRODUCE_DUPLICATE_BYTES);
        while (next < u->q->count && u->expected[next].record < record) {
            next++;
        }
        if (next < u->q->count && u->expected[next].record == record) {
            u->expected[next].counts = false;
        }
    }
}

static bool has_earlier(const struct publishing *u, uint32_t i)
{
    for (uint32_t k = 0; k < i; k++) {
        if (u->expected[k].counts &&
            memcmp(u->expected[k].key.bytes, u->expected[i].key.bytes, VERSION_KEY_BYTES) == 0) {
            return true;
        }
    }
    return false;
}

static enum ferry_err judge_one(struct partition *p, const struct expected *x,
                                struct publish_refusal *refusal, struct err_text *e)
{
    uint64_t version = 0;
    enum ferry_err err =
        versions_expect(&p->versions, p->config.store, p->config.group, &x->key, &version);
    if (err == FERRY_OK && version != x->version && versions_is_moving(&p->versions, &x->key)) {
        return FERRY_ERR_THROTTLED; /* A refusal is for good, and must not rest on what may go. */
    }
    if (err == FERRY_OK && version != x->version) {
        refusal->record = x->record;
        refusal->version = version;
        return err_set(e, FERRY_ERR_VERSION_CONFLICT,
                       "the key of record %u is at version %llu, not %llu", x->record,
                       (unsigned long long)version, (unsigned long long)x->version);
    }
    return err == FERRY_OK ? versions_reserve(&p->versions, &x->key) : err;
}

static enum ferry_err judge_versions(struct partition *p, struct publishing *u,
                                     struct publish_refusal *refusal, struct err_text *e)
{
    enum ferry_err err = FERRY_OK;
    for (uint32_t i = 0; i < u->q->count && err == FERRY_OK; i++) {
        const struct expected *x = &u->expected[i];
        if (!x->counts) {
            continue;
        }
        if (has_earlier(u, i)) {
            return refuse_record(refusal, x->record, e, "its key is expected by another, too");
        }
        err = judge_one(p, x, refusal, e);
    }
    return err;
}

/* ---- Appending ---- */

static enum ferry_err build_payload(const struct publishing *u, struct partition_ticket *t)
{
    struct buf versions;
    buf_init(&versions, (size_t)PUBLISH_EXPECT_MAX * VERSION_BYTES);
    for (uint32_t i = 0; i < u->q->count; i++) {
        if (u->expected[i].counts) {
            buf_append(&versions, u->expected[i].key.bytes, VERSION_KEY_BYTES);
            buf_append_le64(&versions, u->expected[i].version + 1);
        }
    }
    buf_clear(&t->payload);
    buf_append_le32(&t->payload, 0);
    versions_encode(&t->payload, buf_bytes(&versions));
    bool good = buf_ok(&t->payload) && buf_ok(&versions);
    if (good) {
        put_le32(t->payload.data, (uint32_t)(t->payload.size - 4));
        buf_append_bytes(&t->payload, u->batch);
    }
    buf_fini(&versions);
    return good && buf_ok(&t->payload) ? FERRY_OK : FERRY_ERR_NO_MEMORY;
}

static void note_versions(struct partition *p, const struct publishing *u)
{
    for (uint32_t i = 0; i < u->q->count; i++) {
        const struct expected *x = &u->expected[i];
        if (x->counts) {
            versions_note(&p->versions, &x->key, x->version + 1, u->index);
        }
    }
}

static enum ferry_err propose(struct partition *p, const struct publishing *u, int64_t now_us,
                              struct partition_ticket *t)
{
    enum ferry_err err = build_payload(u, t);
    struct store_entry entry = {.type = STORE_ENTRY_BATCH_CAS,
                                .append_time_ms = u->time_ms,
                                .skip_count = t->duplicate_count,
                                .skips = t->skips.data,
                                .payload = buf_bytes(&t->payload)};
    t->base_offset = p->proposed_next_offset;
    t->append_time_ms = u->time_ms;
    if (err == FERRY_OK) {
        err = partition_propose(p, &entry, now_us, t);
    }
    if (err == FERRY_OK) {
        note_versions(p, u);
    }
    return err;
}

/* All is stored, or on its way: the duplicates say where the first ones are, once they are applied.
 */
static enum ferry_err answer_repeat(struct partition *p, struct partition_ticket *t)
{
    uint64_t last = p->proposed_index; /* An entry of the replica's own answers nobody. */
    int64_t offset = (int64_t)get_le64(t->duplicates.data + 4);
    bool readable = offset >= p->start_offset && offset < p->next_offset;
    t->duplicate = true;
    t->base_offset = -1;
    t->append_time_ms = 0; /* Of what retention has dropped, or is on its way, it is not known. */
    enum ferry_err err = readable ? partition_time_of(p, offset, &t->append_time_ms) : FERRY_OK;
    if (err == FERRY_OK && last > replica_applied(p->replica)) {
        ticket_queue_wait(&p->tickets, &t->base, last);
    }
    return err;
}

static enum ferry_err publish(struct partition *p, struct publishing *u, int64_t now_us,
                              struct partition_ticket *t, struct publish_refusal *refusal,
                              struct err_text *e)
{
    enum ferry_err err = FERRY_OK;
#ifdef MUT_74 /* a repeated publish is judged by the version */
    err = judge_versions(p, u, refusal, e);
    versions_unreserve(&p->versions);
    if (err != FERRY_OK) {
        return err;
    }
#endif
    if (partition_looks_up_ids(p, &u->h)) {
        err = partition_judge_ids(p, u->batch, &u->h, u->time_ms, u->index, p->proposed_next_offset,
                                  t);
    }
    if (err == FERRY_OK && t->duplicate_count == u->h.count) {
        return answer_repeat(p, t);
    }
    leave_out_repeats(u, t);
    if (err == FERRY_OK) {
        err = judge_versions(p, u, refusal, e);
    }
    if (err == FERRY_OK) {
        err = propose(p, u, now_us, t);
    }
    versions_unreserve(&p->versions);
    if (err != FERRY_OK) {
        ids_forget(&p->ids, u->index - 1);
    }
    return err;
}

enum ferry_err partition_publish(struct partition *p, const struct publish_request *q,
                                 struct bytes batch, int64_t now_ms, int64_t now_us,
                                 struct partition_ticket *t, struct publish_refusal *refusal,
                                 struct err_text *e)
{
    struct publishing u = {.q = q,
                           .batch = batch,
                           .index = replica_last_index(p->replica) + 1,
                           .time_ms = partition_next_time(p, now_ms)};
    *refusal = (struct publish_refusal){.record = -1};
    enum ferry_err err = partition_check_leader(p);
    if (err == FERRY_OK) {
        err = check_batch(p, &u, e);
    }
    if (err == FERRY_OK && versions_is_full(&p->versions)) {
        replica_ask_flush(p->replica);
        err = FERRY_ERR_THROTTLED;
    }
    if (err != FERRY_OK) {
        return err;
    }
    u.expected = mem_zalloc(q->count + 1, sizeof(u.expected[0]));
    err = u.expected != NULL ? sort_expected(&u, refusal, e) : FERRY_ERR_NO_MEMORY;
    if (err == FERRY_OK) {
        err = find_keys(&u, refusal, e);
    }
    if (err == FERRY_OK) {
        err = publish(p, &u, now_us, t, refusal, e);
    }
    mem_free(u.expected);
    return err;
}

/* ---- Asking ---- */

enum ferry_err partition_key_version(struct partition *p, struct bytes key, uint64_t *version)
{
    struct version_key v = version_key_of(key);
    enum ferry_err err = partition_check_leader(p);
    return err == FERRY_OK
               ? versions_get(&p->versions, p->config.store, p->config.group, &v, version)
               : err;
}

/* What is on its way counts as not there yet: its offset could still be another's. */
enum ferry_err partition_message_find(struct partition *p, const struct ferry_id *id, bool *found,
                                      int64_t *offset)
{
    enum ferry_err err = partition_check_leader(p);
    *found = false;
    *offset = -1;
    if (err == FERRY_OK) {
        err = ids_find(&p->ids, p->config.store, p->config.group, id, INT64_MIN, found, offset);
    }
    if (*offset >= p->next_offset) {
        *found = false;
        *offset = -1;
    }
    return err;
}
