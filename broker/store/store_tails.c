/* Where each group's log ends, so that an append's check of its index costs no search. */
#include "base/mem.h"
#include "store/store_core.h"

#define TAILS_FIRST 64u /* Slots; a power of two. */

void tails_fini(struct store_tails *t)
{
    mem_free(t->slots);
    *t = (struct store_tails){0};
}

void tails_forget_all(struct store_tails *t)
{
    if (t->capacity > 0) {
        memset(t->slots, 0, t->capacity * sizeof(*t->slots));
    }
    t->count = 0;
}

/* The group's slot, or the empty one where it would go. At most half the slots are taken. */
static struct store_tail *find_slot(struct store_tail *slots, size_t capacity, uint64_t group)
{
    /* Fibonacci hashing: group ids are often consecutive. */
    size_t place = (size_t)((group * 0x9E3779B97F4A7C15u) >> 32);
    size_t steps = 0;
    struct store_tail *slot = &slots[place & (capacity - 1)];
    while (slot->known && slot->group != group) {
        must(++steps < capacity);
        slot = &slots[(place + steps) & (capacity - 1)];
    }
    return slot;
}

struct store_tail *tails_find(const struct store_tails *t, uint64_t group)
{
    if (t->capacity == 0) {
        return NULL;
    }
    struct store_tail *slot = find_slot(t->slots, t->capacity, group);
    return slot->known ? slot : NULL;
}

static enum ferry_err grow(struct store_tails *t)
{
    size_t capacity = t->capacity == 0 ? TAILS_FIRST : t->capacity * 2;
    struct store_tail *slots = mem_zalloc(capacity, sizeof(*slots));
    if (slots == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    for (size_t i = 0; i < t->capacity; i++) {
        if (t->slots[i].known) {
            *find_slot(slots, capacity, t->slots[i].group) = t->slots[i];
        }
    }
    mem_free(t->slots);
    t->slots = slots;
    t->capacity = capacity;
    return FERRY_OK;
}

enum ferry_err tails_add(struct store_tails *t, uint64_t group, uint64_t last_index)
{
    if (t->count >= t->capacity / 2) {
        enum ferry_err err = grow(t);
        if (err != FERRY_OK) {
            return err;
        }
    }
    struct store_tail *slot = find_slot(t->slots, t->capacity, group);
    must(!slot->known);
    *slot = (struct store_tail){.group = group, .last_index = last_index, .known = true};
    t->count++;
    return FERRY_OK;
}
