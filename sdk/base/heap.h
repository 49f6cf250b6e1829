/* heap: an intrusive binary min-heap of deadlines, for timers.
 *
 * Never allocates but to grow its array of pointers (heap_reserve). Ties are broken by insertion
 * order, so that two runs of the same events fire the same timers in the same order.
 * Invariants: (1) no node is due before its parent; (2) node->at is its place in the array. */
#ifndef FERRY_BASE_HEAP_H
#define FERRY_BASE_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/must.h"

#define HEAP_NOT_QUEUED SIZE_MAX

struct heap_node {
    int64_t due;       /* The caller's unit; Ferry's timers use monotonic microseconds. */
    uint64_t sequence; /* Insertion order, breaks ties. */
    size_t at;         /* Place in the array, HEAP_NOT_QUEUED when in no heap. */
};

struct heap {
    struct heap_node **nodes;
    size_t count;
    size_t capacity;
    uint64_t next_sequence;
};

void heap_init(struct heap *h);
void heap_fini(struct heap *h);
void heap_node_init(struct heap_node *n);

/* Room for `count` nodes in all. Call when an owner of a node is made, so that heap_set
 * cannot fail. */
MUST_CHECK bool heap_reserve(struct heap *h, size_t count);

void heap_set(struct heap *h, struct heap_node *n, int64_t due); /* Queues, or moves. */
void heap_remove(struct heap *h, struct heap_node *n);           /* No effect when not queued. */
struct heap_node *heap_first(const struct heap *h);              /* NULL when empty. */
void heap_check(const struct heap *h);

#endif
