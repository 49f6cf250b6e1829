#include "base/map.h"

#include "base/mem.h"

#define MAP_FIRST_CAPACITY 16

void map_init(struct map *m)
{
    *m = (struct map){0};
}

void map_fini(struct map *m)
{
    mem_free(m->slots);
    map_init(m);
}

static size_t next_slot(const struct map *m, size_t at)
{
    return (at + 1) & (m->capacity - 1);
}

static void place(struct map *m, uint64_t hash, void *item)
{
    size_t at = hash & (m->capacity - 1);
    while (m->slots[at].item != NULL) {
        at = next_slot(m, at);
    }
    m->slots[at] = (struct map_slot){.hash = hash, .item = item};
}

bool map_reserve(struct map *m, size_t count)
{
    size_t capacity = m->capacity ? m->capacity : MAP_FIRST_CAPACITY;
    while (capacity - capacity / 4 < count) {
        if (capacity > SIZE_MAX / 2) {
            return false;
        }
        capacity *= 2;
    }
    if (capacity == m->capacity) {
        return true;
    }
    struct map grown = {.capacity = capacity, .count = m->count};
    grown.slots = mem_zalloc(capacity, sizeof(*grown.slots));
    if (grown.slots == NULL) {
        return false;
    }
    for (size_t i = 0; i < m->capacity; i++) {
        if (m->slots[i].item != NULL) {
            place(&grown, m->slots[i].hash, m->slots[i].item);
        }
    }
    mem_free(m->slots);
    *m = grown;
    return true;
}

void *map_find(const struct map *m, uint64_t hash, map_match *match, const void *key)
{
    if (m->count == 0) {
        return NULL;
    }
    for (size_t at = hash & (m->capacity - 1); m->slots[at].item != NULL; at = next_slot(m, at)) {
        if (m->slots[at].hash == hash && match(m->slots[at].item, key)) {
            return m->slots[at].item;
        }
    }
    return NULL;
}

bool map_add(struct map *m, uint64_t hash, void *item)
{
    must(item != NULL);
    if (!map_reserve(m, m->count + 1)) {
        return false;
    }
    place(m, hash, item);
    m->count++;
    return true;
}

/* Closes the hole at `hole`: moves back each follower whose home is not behind the hole. */
static void close_hole(struct map *m, size_t hole)
{
    size_t mask = m->capacity - 1;
    for (size_t at = next_slot(m, hole); m->slots[at].item != NULL; at = next_slot(m, at)) {
        size_t home = m->slots[at].hash & mask;
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            m->slots[hole] = m->slots[at];
            hole = at;
        }
    }
    m->slots[hole] = (struct map_slot){0};
}

void map_remove(struct map *m, uint64_t hash, const void *item)
{
    must(m->count > 0);
    size_t at = hash & (m->capacity - 1);
    while (m->slots[at].item != item) {
        must(m->slots[at].item != NULL);
        at = next_slot(m, at);
    }
    close_hole(m, at);
    m->count--;
}

void *map_next(const struct map *m, size_t *at)
{
    while (*at < m->capacity) {
        void *item = m->slots[(*at)++].item;
        if (item != NULL) {
            return item;
        }
    }
    return NULL;
}
