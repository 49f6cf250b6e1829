/* Messages that were never handed out, of mode keyed: one of a key at a time, keys beside each
 * other. A message without a key is bound by nothing. */
#include <stdlib.h>

#include "base/checksum.h"
#include "base/mem.h"
#include "partition/pick_internal.h"

void keyed_init(struct pick *k)
{
    heap_init(&k->ready_ones);
    map_init(&k->keys);
    list_init(&k->parking);
    list_init(&k->parked);
    k->ones = 0;
    k->parking_count = 0;
}

static void free_one(struct pick *k, struct pick_one *one)
{
    must(k->ones > 0);
    k->ones--;
    mem_free(one);
}

static void free_list(struct pick *k, struct list *l)
{
    for (struct list *n; (n = list_pop_front(l)) != NULL;) {
        free_one(k, list_entry(n, struct pick_one, node));
    }
}

static void free_key(struct pick *k, struct pick_key *key)
{
    free_list(k, &key->behind);
    for (struct list *n; (n = list_pop_front(&key->blocked)) != NULL;) {
        mem_free(list_entry(n, struct pick_wait, node));
    }
    map_remove(&k->keys, key->hash, key);
    mem_free(key);
}

void keyed_fini(struct pick *k)
{
    for (struct heap_node *n; (n = heap_first(&k->ready_ones)) != NULL;) {
        heap_remove(&k->ready_ones, n);
        free_one(k, list_entry(n, struct pick_one, ready));
    }
    size_t at = 0;
    for (struct pick_key *key; (key = map_next(&k->keys, &at)) != NULL; at = 0) {
        free_key(k, key);
    }
    free_list(k, &k->parking);
    free_list(k, &k->parked);
    must(k->ones == 0);
    heap_fini(&k->ready_ones);
    map_fini(&k->keys);
    keyed_init(k);
}

/* ---- Keys ---- */

static bool is_key(const void *item, const void *hash)
{
    return ((const struct pick_key *)item)->hash == *(const uint64_t *)hash;
}

static struct pick_key *find_key(const struct pick *k, uint64_t hash)
{
    return map_find(&k->keys, hash, is_key, &hash);
}

static enum ferry_err get_key(struct pick *k, uint64_t hash, struct pick_key **key)
{
    *key = find_key(k, hash);
    if (*key != NULL) {
        return FERRY_OK;
    }
    struct pick_key *made = mem_zalloc(1, sizeof(*made));
    if (made == NULL || !map_add(&k->keys, hash, made)) {
        mem_free(made);
        return FERRY_ERR_NO_MEMORY;
    }
    made->hash = hash;
    list_init(&made->behind);
    list_init(&made->blocked);
    *key = made;
    return FERRY_OK;
}

static void let_go(struct pick *k, struct pick_key *key)
{
    if (!key->ready && !key->in_flight && list_is_empty(&key->behind) &&
        list_is_empty(&key->blocked)) {
        free_key(k, key);
    }
}

static void make_ready(struct pick *k, struct pick_one *one)
{
    heap_set(&k->ready_ones, &one->ready, one->offset);
    k->wake++;
}

static void park_one(struct pick *k, struct pick_one *one)
{
    list_push_back(&k->parking, &one->node);
    k->parking_count++;
}

/* None of it waits to be handed out any more: they are to become dead letters. */
static void park_key(struct pick *k, struct pick_key *key)
{
    for (struct list *n; (n = list_pop_front(&key->behind)) != NULL;) {
        park_one(k, list_entry(n, struct pick_one, node));
    }
}

/* One that came back goes before those that were never out. */
static void advance(struct pick *k, struct pick_key *key)
{
    uint32_t leased = 0, waiting = 0;
    delivery_key_counts(k->delivery, key->hash, &leased, &waiting);
    if (delivery_key_is_parked(k->delivery, key->hash)) {
        park_key(k, key);
    }
#ifdef MUT_64 /* two of one key are out at a time */
    leased = waiting = 0;
#endif
    if (leased > 0) {
        return;
    }
    struct list *blocked = list_pop_front(&key->blocked);
    if (blocked != NULL) {
        list_push_back(&k->ready, blocked);
        k->ready_count++;
        k->wake++;
    } else if (waiting == 0 && !key->ready && !list_is_empty(&key->behind)) {
        key->ready = true;
        make_ready(k, list_entry(list_pop_front(&key->behind), struct pick_one, node));
    }
}

enum ferry_err keyed_changed(struct pick *k, uint64_t key_hash)
{
    struct pick_key *key = k->keyed && key_hash != 0 ? find_key(k, key_hash) : NULL;
    if (key == NULL) {
        return FERRY_OK;
    }
#ifndef MUT_64
    if (key->in_flight) {
        return FERRY_OK;
    }
#endif
    advance(k, key);
    let_go(k, key);
    return FERRY_OK;
}

enum ferry_err keyed_flies(struct pick *k, uint64_t key_hash)
{
    struct pick_key *key = NULL;
    if (!k->keyed || key_hash == 0) {
        return FERRY_OK;
    }
    enum ferry_err err = get_key(k, key_hash, &key);
    if (err == FERRY_OK) {
        key->in_flight = true;
    }
    return err;
}

enum ferry_err keyed_landed(struct pick *k, uint64_t key_hash)
{
    struct pick_key *key = k->keyed && key_hash != 0 ? find_key(k, key_hash) : NULL;
    if (key != NULL) {
        key->in_flight = false;
    }
    return keyed_changed(k, key_hash);
}

void keyed_returned(struct pick *k, uint64_t key_hash)
{
    struct pick_key *key = k->keyed && key_hash != 0 ? find_key(k, key_hash) : NULL;
    if (key != NULL) {
        key->in_flight = false;
    }
}

enum ferry_err keyed_admit(struct pick *k, struct pick_wait *w, bool *may)
{
    struct pick_key *key = NULL;
    uint32_t leased = 0, waiting = 0;
    *may = true;
    if (!k->keyed || w->key_hash == 0) {
        return FERRY_OK;
    }
    delivery_key_counts(k->delivery, w->key_hash, &leased, &waiting);
    key = find_key(k, w->key_hash);
    if (leased == 0 && (key == NULL || !key->in_flight)) {
        return FERRY_OK;
    }
    enum ferry_err err = get_key(k, w->key_hash, &key);
    if (err == FERRY_OK) {
        *may = false;
        list_push_back(&key->blocked, &w->node);
    }
    return err;
}

/* ---- Looking ahead ---- */

static enum ferry_err add_one(struct pick *k, int64_t offset, uint64_t hash, uint32_t bytes)
{
    struct pick_key *key = NULL;
    struct pick_one *one = mem_zalloc(1, sizeof(*one));
    if (one == NULL || !heap_reserve(&k->ready_ones, k->ones + 1) ||
        (hash != 0 && get_key(k, hash, &key) != FERRY_OK)) {
        mem_free(one);
        return FERRY_ERR_NO_MEMORY;
    }
    *one = (struct pick_one){.offset = offset, .key_hash = hash, .bytes = bytes};
    heap_node_init(&one->ready);
    list_init(&one->node);
    k->ones++;
    if (key == NULL) {
        make_ready(k, one);
        return FERRY_OK;
    }
    bool first = list_is_empty(&key->behind);
    list_push_back(&key->behind, &one->node);
#ifndef MUT_64
    if (!first || key->ready || key->in_flight) {
        return FERRY_OK;
    }
#endif
    advance(k, key);
    let_go(k, key);
    return FERRY_OK;
}

uint64_t pick_key_hash(const struct batch_record *r)
{
    if (!r->has_key) {
        return 0;
    }
    uint64_t hash = checksum_of(r->key.data, r->key.size);
    return hash != 0 ? hash : 1;
}

static enum ferry_err add_piece(struct pick *k, const struct pick_piece *piece, int64_t first,
                                uint32_t count)
{
    struct batch_reader reader;
    struct batch_record r;
    enum ferry_err err = FERRY_OK;
    int64_t offset = piece->first;
    uint32_t skip = 0;
    batch_reader_init(&reader, piece->batch);
    for (uint32_t i = 0; offset < first + count && batch_reader_next(&reader, &r, &err); i++) {
        if (skip < piece->skip_count && get_le32(piece->skips + (size_t)skip * 4) == i) {
            skip++;
            continue;
        }
        if (offset >= first) {
            size_t bytes = r.key.size + r.headers.size + r.payload.size;
            enum ferry_err added = add_one(k, offset, pick_key_hash(&r), (uint32_t)bytes);
            if (added != FERRY_OK) {
                return added;
            }
            k->scanned = offset + 1; /* Also when the next one fails. */
        }
        offset++;
    }
    return err != FERRY_OK ? FERRY_ERR_CORRUPT : FERRY_OK;
}

enum ferry_err keyed_scan(struct pick *k, const struct pick_log *log, uint32_t wanted)
{
    size_t read = 0;
    uint32_t entries = 0;
    k->scan_more = false;
    while (k->ready_ones.count < wanted && k->ones < PICK_KEYED_MAX) {
        struct pick_piece piece;
        int64_t first = 0;
        uint32_t count = 0;
        if (read >= PICK_READ_BYTES || entries++ == PICK_SCAN_ENTRIES) {
            k->scan_more = true;
            return FERRY_OK;
        }
        enum ferry_err err = fresh_piece(k, log, &piece, &first, &count);
        if (err == FERRY_OK && count > 0) {
            err = add_piece(k, &piece, first, count);
        }
        if (err != FERRY_OK || count == 0) {
            return err;
        }
        k->scanned = first + count;
        read += piece.batch.size;
    }
    return FERRY_OK;
}

/* ---- Choosing ---- */

static void put_back(struct pick *k, struct pick_one *one)
{
    struct pick_key *key = find_key(k, one->key_hash);
    must(key != NULL && key->ready);
    key->ready = false;
    list_push_front(&key->behind, &one->node);
    advance(k, key);
    let_go(k, key);
}

static bool is_fresh(const struct pick *k, const struct pick_one *one)
{
    struct delivery_run run = delivery_at(k->delivery, one->offset, one->offset + 1);
    return one->offset >= delivery_floor(k->delivery) && run.state == DELIVERY_FRESH;
}

/* The first that is ready, if it still is; else it goes where it belongs. */
static bool is_still_ready(struct pick *k, struct pick_one *one)
{
    uint32_t leased = 0, waiting = 0;
    struct pick_key *key = one->key_hash != 0 ? find_key(k, one->key_hash) : NULL;
    if (!is_fresh(k, one)) {
        heap_remove(&k->ready_ones, &one->ready);
        free_one(k, one);
        if (key != NULL) {
            key->ready = false;
            advance(k, key);
            let_go(k, key);
        }
        return false;
    }
    if (key == NULL) {
        return true;
    }
    delivery_key_counts(k->delivery, one->key_hash, &leased, &waiting);
    bool free = leased == 0 && waiting == 0 && !key->in_flight &&
                !delivery_key_is_parked(k->delivery, one->key_hash);
#ifdef MUT_64
    free = true;
#endif
    if (!free) {
        heap_remove(&k->ready_ones, &one->ready);
        put_back(k, one);
    }
    return free;
}

enum ferry_err keyed_take(struct pick *k, struct pick_room *room)
{
    for (struct heap_node *n; (n = heap_first(&k->ready_ones)) != NULL;) {
        struct pick_one *one = list_entry(n, struct pick_one, ready);
        if (!is_still_ready(k, one)) {
            continue;
        }
        struct pick_taken t = {.first = one->offset,
                               .count = pick_room_for(room, one->bytes, 1),
                               .bytes_each = one->bytes,
                               .key_hash = one->key_hash};
        if (t.count == 0) {
            return FERRY_OK;
        }
        enum ferry_err err = pick_take(k, room, &t);
        if (err != FERRY_OK) {
            return err;
        }
        heap_remove(&k->ready_ones, n);
        if (one->key_hash != 0) {
            struct pick_key *key = find_key(k, one->key_hash);
            key->ready = false;
#ifdef MUT_64
            advance(k, key);
#endif
        }
        free_one(k, one);
    }
    return FERRY_OK;
}

enum ferry_err keyed_give_back(struct pick *k, const struct pick_taken *t)
{
    struct pick_key *key = t->key_hash != 0 ? find_key(k, t->key_hash) : NULL;
    struct pick_one *one = mem_zalloc(1, sizeof(*one));
    must(t->key_hash == 0 || key != NULL);
    if (one == NULL || !heap_reserve(&k->ready_ones, k->ones + 1)) {
        mem_free(one);
        return FERRY_ERR_NO_MEMORY;
    }
    *one = (struct pick_one){.offset = t->first, .key_hash = t->key_hash, .bytes = t->bytes_each};
    heap_node_init(&one->ready);
    list_init(&one->node);
    k->ones++;
    if (key == NULL) {
        make_ready(k, one);
    } else {
        list_push_front(&key->behind, &one->node);
        advance(k, key);
        let_go(k, key);
    }
    return FERRY_OK;
}

/* ---- Parked keys ---- */

static int by_offset(const void *a, const void *b)
{
    int64_t x = ((const struct delivery_range *)a)->first;
    int64_t y = ((const struct delivery_range *)b)->first;
    return x < y ? -1 : x > y;
}

/* Back to where its key is now: free, or parked still. */
static void unpark(struct pick *k, struct pick_one *one)
{
    struct pick_key *key = NULL;
    if (!is_fresh(k, one)) {
        free_one(k, one);
        return;
    }
    if (delivery_key_is_parked(k->delivery, one->key_hash) ||
        get_key(k, one->key_hash, &key) != FERRY_OK) {
        park_one(k, one);
        return;
    }
    struct list *before = key->behind.next;
    while (before != &key->behind &&
           list_entry(before, struct pick_one, node)->offset < one->offset) {
        before = before->next;
    }
    list_push_back(before, &one->node);
    if (!key->in_flight) {
        advance(k, key);
        let_go(k, key);
    }
}

uint32_t pick_to_park(struct pick *k, struct delivery_range *out)
{
    uint32_t count = 0;
    if (!list_is_empty(&k->parked)) {
        return 0; /* One entry at a time. */
    }
    for (size_t left = k->parking_count; left > 0 && count < PICK_PARK_MAX; left--) {
        struct pick_one *one = list_entry(list_pop_front(&k->parking), struct pick_one, node);
        k->parking_count--;
        if (!is_fresh(k, one) || !delivery_key_is_parked(k->delivery, one->key_hash)) {
            unpark(k, one);
            continue;
        }
        list_push_back(&k->parked, &one->node);
        out[count++] =
            (struct delivery_range){.first = one->offset, .count = 1, .key_hash = one->key_hash};
    }
    if (count > 1) {
        qsort(out, count, sizeof(*out), by_offset);
    }
    return count;
}

void pick_parked(struct pick *k)
{
    for (struct list *n; (n = list_pop_front(&k->parked)) != NULL;) {
        unpark(k, list_entry(n, struct pick_one, node));
    }
}

void keyed_check(const struct pick *k)
{
    size_t at = 0;
    const struct pick_key *key = NULL;
    for (int i = 0; i < 1024 && (key = map_next(&k->keys, &at)) != NULL; i++) {
        must(key->ready || key->in_flight || !list_is_empty(&key->behind) ||
             !list_is_empty(&key->blocked));
    }
    must(k->ready_ones.count + k->parking_count <= k->ones);
}
