/* map: an open-addressing hash map from a 64-bit hash to pointers; keys live in the items.
 *
 * Linear probing, at most 3/4 full, backward-shift deletion (no tombstones). The caller gives the
 * hash and the equality; iteration order is by slot and means nothing, so nothing that is written
 * to a log or a disk may depend on it. One thread at a time.
 * Invariants: (1) count <= 3/4 capacity; (2) between an item's home slot and its slot nothing is
 * empty. */
#ifndef FERRY_BASE_MAP_H
#define FERRY_BASE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/must.h"

struct map_slot {
    uint64_t hash;
    void *item; /* NULL: empty. */
};

struct map {
    struct map_slot *slots;
    size_t capacity; /* A power of two, or 0. */
    size_t count;
};

/* True when the item has the key that is looked for. */
typedef bool map_match(const void *item, const void *key);

void map_init(struct map *m);
void map_fini(struct map *m);                             /* Frees the slots, not the items. */
MUST_CHECK bool map_reserve(struct map *m, size_t count); /* After it, so many items fit. */
void *map_find(const struct map *m, uint64_t hash, map_match *match, const void *key);
/* The item must not be there. False when memory is out; cannot fail after map_reserve. */
MUST_CHECK bool map_add(struct map *m, uint64_t hash, void *item);
/* Removes this very item; it must be there. */
void map_remove(struct map *m, uint64_t hash, const void *item);
/* Iteration: start with *at = 0; NULL at the end. No adding or removing meanwhile. */
void *map_next(const struct map *m, size_t *at);

/* A good hash of an integer key (splitmix64's finalizer). */
static inline uint64_t map_hash_u64(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

#endif
