/* The producer table: which batches of which producer are in the log (invariant 2 of partition.h).
 */
#include "base/mem.h"
#include "partition/tables.h"
#include "wire/pack.h"

struct producer_batch {
    uint64_t first_sequence;
    uint32_t count;
    int64_t base_offset;
    uint64_t index;
};

/* Oldest first; the newest ones. */
struct batch_list {
    uint32_t count;
    struct producer_batch items[PRODUCER_BATCHES];
};

/* What is applied is made of applied entries alone, so it is the same on every replica; what a
 * leader has proposed stands beside it. */
struct producer {
    uint64_t id;
    uint32_t applied_epoch;
    uint64_t applied_next_sequence;
    int64_t applied_time_ms;
    struct batch_list applied; /* Of applied_epoch. */
    /* With what is proposed. */
    uint32_t epoch;
    uint64_t next_sequence;
    int64_t last_time_ms;
    struct batch_list proposed; /* Of `epoch`. */
    struct list node;           /* In dirty or removed; alone when clean. */
};

#define PRODUCER_ROW_MAX_BYTES 1024u

void producers_init(struct producers *t)
{
    map_init(&t->by_id);
    list_init(&t->dirty);
    list_init(&t->removed);
}

void producers_fini(struct producers *t)
{
    size_t at = 0;
    for (struct producer *p; (p = map_next(&t->by_id, &at)) != NULL;) {
        mem_free(p);
    }
    map_fini(&t->by_id);
    for (struct list *n; (n = list_pop_front(&t->removed)) != NULL;) {
        mem_free(list_entry(n, struct producer, node));
    }
    producers_init(t);
}

static bool has_id(const void *item, const void *key)
{
    return ((const struct producer *)item)->id == *(const uint64_t *)key;
}

static struct producer *find(const struct producers *t, uint64_t id)
{
    return map_find(&t->by_id, map_hash_u64(id), has_id, &id);
}

static void push_batch(struct batch_list *l, const struct producer_batch *b)
{
    if (l->count == PRODUCER_BATCHES) {
        memmove(l->items, l->items + 1, (PRODUCER_BATCHES - 1) * sizeof(l->items[0]));
        l->count--;
    }
    l->items[l->count++] = *b;
}

static const struct producer_batch *find_in(const struct batch_list *l, uint64_t first,
                                            uint32_t count)
{
    for (uint32_t i = 0; i < l->count; i++) {
        if (l->items[i].first_sequence == first && l->items[i].count == count) {
            return &l->items[i];
        }
    }
    return NULL;
}

/* The batch that holds exactly these sequences; a repeat is a repeat of the same bytes. */
static const struct producer_batch *find_batch(const struct producer *p, uint64_t first,
                                               uint32_t count)
{
    const struct producer_batch *b = find_in(&p->proposed, first, count);
    if (b == NULL && p->applied_epoch == p->epoch) {
        b = find_in(&p->applied, first, count);
    }
    return b;
}

struct producer_answer producers_judge(const struct producers *t, const struct batch_header *h)
{
    const struct producer *p = find(t, h->producer_id);
    struct producer_answer answer = {.verdict = PRODUCER_NEXT};
    if (p == NULL) {
        if (h->first_sequence != 0) {
            answer.verdict = PRODUCER_GAP;
        } else if (t->by_id.count >= PARTITION_PRODUCERS_MAX) {
            answer.verdict = PRODUCER_TABLE_FULL;
        }
        return answer;
    }
    if (h->producer_epoch < p->epoch) {
        answer.verdict = PRODUCER_OLD_EPOCH;
        return answer;
    }
    uint64_t expected = h->producer_epoch > p->epoch ? 0 : p->next_sequence;
    answer.expected_sequence = expected;
    if (h->first_sequence > expected) {
        answer.verdict = PRODUCER_GAP;
    } else if (h->first_sequence < expected) {
        const struct producer_batch *b = find_batch(p, h->first_sequence, h->count);
        answer.verdict = b != NULL ? PRODUCER_REPEAT : PRODUCER_STALE;
        answer.base_offset = b != NULL ? b->base_offset : -1;
        answer.index = b != NULL ? b->index : 0;
    }
    return answer;
}

enum ferry_err producers_reserve(struct producers *t, uint64_t producer_id)
{
    if (find(t, producer_id) != NULL) {
        return FERRY_OK;
    }
    struct producer *p = mem_zalloc(1, sizeof(*p));
    if (p == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    p->id = producer_id;
    list_init(&p->node);
    if (!map_add(&t->by_id, map_hash_u64(producer_id), p)) {
        mem_free(p);
        return FERRY_ERR_NO_MEMORY;
    }
    return FERRY_OK;
}

static struct producer_batch batch_of(const struct batch_header *h, uint64_t index,
                                      int64_t base_offset)
{
    return (struct producer_batch){.first_sequence = h->first_sequence,
                                   .count = h->count,
                                   .base_offset = base_offset,
                                   .index = index};
}

void producers_note(struct producers *t, const struct batch_header *h, uint64_t index,
                    int64_t base_offset, int64_t time_ms)
{
    struct producer *p = find(t, h->producer_id);
    must(p != NULL);
    if (h->producer_epoch > p->epoch) {
        p->epoch = h->producer_epoch;
        p->proposed.count = 0; /* A repeat of the old epoch is refused anyway. */
    }
    struct producer_batch b = batch_of(h, index, base_offset);
    push_batch(&p->proposed, &b);
    p->next_sequence = h->first_sequence + h->count;
    p->last_time_ms = time_ms;
}

/* Nothing is proposed beyond what is applied. */
static void forget_proposed(struct producer *p)
{
    p->proposed.count = 0;
    p->epoch = p->applied_epoch;
    p->next_sequence = p->applied_next_sequence;
    p->last_time_ms = p->applied_time_ms;
}

void producers_apply(struct producers *t, const struct batch_header *h, uint64_t index,
                     int64_t base_offset, int64_t time_ms)
{
    struct producer *p = find(t, h->producer_id);
    must(p != NULL);
    if (h->producer_epoch > p->applied_epoch) {
        p->applied_epoch = h->producer_epoch;
        p->applied.count = 0;
    }
    struct producer_batch b = batch_of(h, index, base_offset);
    push_batch(&p->applied, &b);
    p->applied_next_sequence = h->first_sequence + h->count;
    p->applied_time_ms = time_ms;
    struct batch_list *l = &p->proposed;
    if (l->count == 0 || l->items[l->count - 1].index <= index) {
        forget_proposed(p);
    }
    if (list_is_empty(&p->node)) {
        list_push_back(&t->dirty, &p->node);
    }
}

void producers_forget(struct producers *t)
{
    size_t at = 0;
    for (struct producer *p; (p = map_next(&t->by_id, &at)) != NULL;) {
        forget_proposed(p);
    }
}

uint64_t producers_idle(const struct producers *t, int64_t before_ms)
{
    const struct producer *oldest = NULL;
    size_t at = 0;
    for (const struct producer *p; (p = map_next(&t->by_id, &at)) != NULL;) {
        bool older = oldest == NULL || p->last_time_ms < oldest->last_time_ms ||
                     (p->last_time_ms == oldest->last_time_ms && p->id < oldest->id);
        oldest = older ? p : oldest;
    }
    return oldest != NULL && oldest->last_time_ms < before_ms ? oldest->id : 0;
}

void producers_remove(struct producers *t, uint64_t producer_id)
{
    struct producer *p = find(t, producer_id);
    if (p == NULL) {
        return;
    }
    map_remove(&t->by_id, map_hash_u64(producer_id), p);
    if (!list_is_empty(&p->node)) {
        list_remove(&p->node);
    }
    list_push_back(&t->removed, &p->node);
}

/* ---- Rows: [epoch, next sequence, last time, [first, count, offset, index]…] ---- */

static struct bytes row_key(uint64_t id, uint8_t key[8])
{
    put_be64(key, id);
    return bytes_of(key, 8);
}

static enum ferry_err write_row(const struct producer *p, struct store *store, uint64_t group)
{
    struct buf row;
    buf_init(&row, PRODUCER_ROW_MAX_BYTES);
    pack_array(&row, 3 + p->applied.count);
    pack_uint(&row, p->applied_epoch);
    pack_uint(&row, p->applied_next_sequence);
    pack_int(&row, p->applied_time_ms);
    for (uint32_t i = 0; i < p->applied.count; i++) {
        pack_array(&row, 4);
        pack_uint(&row, p->applied.items[i].first_sequence);
        pack_uint(&row, p->applied.items[i].count);
        pack_int(&row, p->applied.items[i].base_offset);
        pack_uint(&row, p->applied.items[i].index);
    }
    uint8_t key[8];
    enum ferry_err err = FERRY_ERR_NO_MEMORY;
    if (buf_ok(&row)) {
        err = store_put(store, group, TABLE_PRODUCERS, row_key(p->id, key), buf_bytes(&row));
    }
    buf_fini(&row);
    return err;
}

static enum ferry_err delete_row(const struct producer *p, struct store *store, uint64_t group)
{
    uint8_t key[8];
    return store_delete(store, group, TABLE_PRODUCERS, row_key(p->id, key));
}

enum ferry_err producers_flush(struct producers *t, struct store *store, uint64_t group)
{
    enum ferry_err err = FERRY_OK;
    for (struct list *n; err == FERRY_OK && (n = list_pop_front(&t->removed)) != NULL;) {
        struct producer *p = list_entry(n, struct producer, node);
        err = delete_row(p, store, group);
        mem_free(p);
    }
    for (struct list *n; err == FERRY_OK && (n = list_pop_front(&t->dirty)) != NULL;) {
        err = write_row(list_entry(n, struct producer, node), store, group);
    }
    return err;
}

static enum ferry_err load_row(struct bytes key, struct bytes value, bool *stop, void *arg)
{
    (void)stop;
    struct producers *t = arg;
    if (key.size != 8) {
        return FERRY_ERR_CORRUPT;
    }
    uint64_t id = get_be64(key.data);
    enum ferry_err err = producers_reserve(t, id);
    if (err != FERRY_OK) {
        return err;
    }
    struct producer *p = find(t, id);
    struct unpack u;
    unpack_begin(&u, value);
    p->epoch = p->applied_epoch = (uint32_t)unpack_uint(&u, UINT32_MAX);
    p->next_sequence = p->applied_next_sequence = unpack_uint(&u, UINT64_MAX);
    p->last_time_ms = p->applied_time_ms = unpack_int(&u);
    p->applied.count = 0;
    while (unpack_has_more(&u) && p->applied.count < PRODUCER_BATCHES) {
        struct producer_batch *b = &p->applied.items[p->applied.count++];
        (void)unpack_array(&u, 16);
        b->first_sequence = unpack_uint(&u, UINT64_MAX);
        b->count = (uint32_t)unpack_uint(&u, UINT32_MAX);
        b->base_offset = unpack_int(&u);
        b->index = unpack_uint(&u, UINT64_MAX);
        unpack_array_end(&u);
    }
    return unpack_end(&u) == FERRY_OK ? FERRY_OK : FERRY_ERR_CORRUPT;
}

enum ferry_err producers_load(struct producers *t, struct store *store, uint64_t group)
{
    return store_each_row(store, group, TABLE_PRODUCERS, bytes_of(NULL, 0), load_row, t);
}
