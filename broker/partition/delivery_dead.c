/* What is known of dead letters without their rows: which numbers are kept, which are revived,
 * which keys they park. And the keys that have a message under way. */
#include "base/mem.h"
#include "partition/delivery_internal.h"

/* ---- Numbers that are kept: a bit each. ---- */

static size_t chunk_place(const struct delivery *d, uint64_t segment)
{
    size_t low = 0;
    size_t high = d->dead_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (d->dead[middle]->segment < segment) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static struct dead_chunk *chunk_find(const struct delivery *d, uint64_t number)
{
    uint64_t segment = number / DEAD_CHUNK_NUMBERS;
    size_t at = chunk_place(d, segment);
    return at < d->dead_count && d->dead[at]->segment == segment ? d->dead[at] : NULL;
}

static struct dead_chunk *chunk_add(struct delivery *d, uint64_t number)
{
    uint64_t segment = number / DEAD_CHUNK_NUMBERS;
    size_t at = chunk_place(d, segment);
    struct dead_chunk *chunk = mem_zalloc(1, sizeof(*chunk));
    if (chunk == NULL || !mem_grow((void **)&d->dead, &d->dead_capacity, d->dead_count + 1,
                                   sizeof(struct dead_chunk *))) {
        mem_free(chunk);
        d->no_memory = true;
        return NULL;
    }
    chunk->segment = segment;
    memmove(d->dead + at + 1, d->dead + at, (d->dead_count - at) * sizeof(struct dead_chunk *));
    d->dead[at] = chunk;
    d->dead_count++;
    return chunk;
}

static uint64_t *word_of(struct dead_chunk *chunk, uint64_t number)
{
    return &chunk->bits[number % DEAD_CHUNK_NUMBERS / 64];
}

static uint64_t bit_of(uint64_t number)
{
    return 1ull << (number % 64);
}

static void touch_chunk(struct delivery *d, struct dead_chunk *chunk)
{
    d->dirty_dead_count += chunk->dirty ? 0 : 1;
    chunk->dirty = true;
}

bool dead_has(const struct delivery *d, uint64_t number)
{
    struct dead_chunk *chunk = chunk_find(d, number);
    return chunk != NULL && (*word_of(chunk, number) & bit_of(number)) != 0;
}

bool delivery_dead_is_kept(const struct delivery *d, uint64_t number)
{
    return dead_has(d, number);
}

void dead_add(struct delivery *d, uint64_t number)
{
    must(!dead_has(d, number));
    struct dead_chunk *chunk = chunk_find(d, number);
    if (chunk == NULL) {
        chunk = chunk_add(d, number);
    }
    if (chunk != NULL) {
        *word_of(chunk, number) |= bit_of(number);
        chunk->count++;
        d->counters.dead++;
        touch_chunk(d, chunk);
    }
}

/* An empty chunk stays until the next flush, which deletes its row. */
void dead_remove(struct delivery *d, uint64_t number)
{
    must(dead_has(d, number));
    struct dead_chunk *chunk = chunk_find(d, number);
    *word_of(chunk, number) &= ~bit_of(number);
    chunk->count--;
    d->counters.dead--;
    touch_chunk(d, chunk);
}

/* ---- Revived ones ---- */

static bool has_number(const void *item, const void *key)
{
    return ((const struct revived *)item)->number == *(const uint64_t *)key;
}

const struct revived *revived_find(const struct delivery *d, uint64_t number)
{
    return map_find(&d->revived, map_hash_u64(number), has_number, &number);
}

void revived_add(struct delivery *d, uint64_t number, int64_t offset)
{
    struct revived *r = mem_alloc(sizeof(*r));
    if (r == NULL || !map_reserve(&d->revived, d->revived.count + 1)) {
        mem_free(r);
        d->no_memory = true;
        return;
    }
    *r = (struct revived){.number = number, .offset = offset};
    must(map_add(&d->revived, map_hash_u64(number), r));
}

void revived_remove(struct delivery *d, uint64_t number)
{
    struct revived *r = map_find(&d->revived, map_hash_u64(number), has_number, &number);
    must(r != NULL);
    map_remove(&d->revived, map_hash_u64(number), r);
    mem_free(r);
}

bool delivery_is_revived(const struct delivery *d, uint64_t number, int64_t *offset)
{
    const struct revived *r = revived_find(d, number);
    *offset = r != NULL ? r->offset : 0;
    return r != NULL;
}

/* ---- Parked keys ---- */

static bool has_parked_hash(const void *item, const void *key)
{
    return ((const struct parked_key *)item)->hash == *(const uint64_t *)key;
}

struct parked_key *parked_find(const struct delivery *d, uint64_t hash)
{
    return map_find(&d->parked, map_hash_u64(hash), has_parked_hash, &hash);
}

struct parked_key *parked_add(struct delivery *d, uint64_t hash)
{
    struct parked_key *key = mem_alloc(sizeof(*key));
    if (key == NULL || !map_reserve(&d->parked, d->parked.count + 1)) {
        mem_free(key);
        d->no_memory = true;
        return NULL;
    }
    *key = (struct parked_key){.hash = hash};
    list_init(&key->node);
    must(map_add(&d->parked, map_hash_u64(hash), key));
    return key;
}

static void push_key_change(struct delivery *d, uint64_t hash)
{
    delivery_push_change(d,
                         &(struct delivery_change){.kind = DELIVERY_CHANGED_KEY, .key_hash = hash});
}

static void touch_parked(struct delivery *d, struct parked_key *key)
{
    if (list_is_empty(&key->node)) {
        list_push_back(&d->dirty_parked, &key->node);
        d->dirty_parked_count++;
    }
}

void parked_change(struct delivery *d, uint64_t hash, int by)
{
    struct parked_key *key = parked_find(d, hash);
    if (hash == 0 || (by < 0 && (key == NULL || key->count == 0))) {
        return; /* A reset has unparked it since. */
    }
    if (key == NULL) {
        key = parked_add(d, hash);
    }
    if (key == NULL) {
        return;
    }
    bool was = key->count > 0;
    key->count += (uint64_t)(int64_t)by;
    touch_parked(d, key);
    if (was != (key->count > 0)) {
        d->parked_count = key->count > 0 ? d->parked_count + 1 : d->parked_count - 1;
        push_key_change(d, hash);
    }
}

void parked_clear(struct delivery *d)
{
    size_t at = 0;
    for (struct parked_key *key; (key = map_next(&d->parked, &at)) != NULL;) {
        if (key->count > 0) {
            key->count = 0;
            touch_parked(d, key);
        }
    }
    d->parked_count = 0;
    /* Not one change a key: in which order would be a matter of the map. */
    delivery_push_change(d, &(struct delivery_change){.kind = DELIVERY_CHANGED_RESET});
}

bool delivery_key_is_parked(const struct delivery *d, uint64_t key_hash)
{
    const struct parked_key *key = parked_find(d, key_hash);
    return key != NULL && key->count > 0;
}

size_t delivery_parked(const struct delivery *d)
{
    return d->parked_count;
}

/* ---- Keys under way ---- */

static bool has_key_hash(const void *item, const void *key)
{
    return ((const struct key_state *)item)->hash == *(const uint64_t *)key;
}

struct key_state *key_find(const struct delivery *d, uint64_t hash)
{
    return map_find(&d->keys, map_hash_u64(hash), has_key_hash, &hash);
}

struct key_state *key_add(struct delivery *d, uint64_t hash)
{
    struct key_state *key = key_find(d, hash);
    if (key != NULL) {
        return key;
    }
    key = mem_alloc(sizeof(*key));
    if (key == NULL || !map_reserve(&d->keys, d->keys.count + 1)) {
        mem_free(key);
        d->no_memory = true;
        return NULL;
    }
    *key = (struct key_state){.hash = hash};
    must(map_add(&d->keys, map_hash_u64(hash), key));
    return key;
}

void delivery_key_counts(const struct delivery *d, uint64_t key_hash, uint32_t *leased,
                         uint32_t *waiting)
{
    const struct key_state *key = key_find(d, key_hash);
    *leased = key != NULL ? key->leased : 0;
    *waiting = key != NULL ? key->waiting : 0;
}

void key_drop_if_idle(struct delivery *d, struct key_state *key)
{
    if (key->leased == 0 || key->waiting == 0) {
        push_key_change(d, key->hash);
    }
    if (key->leased == 0 && key->waiting == 0) {
        map_remove(&d->keys, map_hash_u64(key->hash), key);
        mem_free(key);
    }
}
