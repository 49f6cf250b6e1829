/* ring: consistent hashing, pure. No I/O, no clock, no allocation but ring_new's arrays.
 *
 * Two questions. Which partition has a key: jump consistent hash (Lamping, Veach: "A Fast, Minimal
 * Memory, Consistent Hash Algorithm", 2014) over the XXH3-64 of the key. Which nodes hold a
 * partition: a ring of virtual nodes with bounded loads (Mirrokni, Thorup, Zadimoghaddam:
 * "Consistent Hashing with Bounded Loads", 2016).
 *
 * Invariants: (1) the same nodes give the same placement on every machine, whatever the order they
 * were named in; (2) the replicas of a partition are distinct nodes, in distinct zones while there
 * are zones left; (3) no node holds more than ceil(load_factor × its weighted fair share). The
 * share counts what can be: a node holds a partition once at most, and where (2) keeps nodes from
 * taking their share by weight the others take it, again by weight; (4) no node is the first
 * replica of more partitions than its part by weight unless none of a partition's replicas has room
 * for it; then the one that is the least beyond its part is. */
#ifndef FERRY_RING_RING_H
#define FERRY_RING_RING_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define RING_NODES_MAX        256
#define RING_VNODES_BY_WEIGHT 64
#define RING_WEIGHT_MAX       64
#define RING_REPLICAS_MAX     7
#define RING_ZONE_BYTES       32
#define RING_PARTITIONS_MAX   (1 << 20) /* Of one topic. */
#define RING_LOAD_PERCENT_MAX 10000

struct ring_node {
    uint32_t id;                /* Unique, not 0. */
    uint32_t weight;            /* 1..RING_WEIGHT_MAX; 0: takes nothing new (draining). */
    char zone[RING_ZONE_BYTES]; /* "" : no zone. */
};

struct ring; /* Opaque. */

/* Errors: INVALID_ARGUMENT (ids repeat, too many, weight too large, zone not ended by a NUL),
 * NO_MEMORY. */
MUST_CHECK enum ferry_err ring_new(const struct ring_node *nodes, size_t count, struct ring **ring);
void ring_free(struct ring **ring);

/* Places partitions 0..partitions-1 of the topic: replicas[p * replica_count + k] is the k-th node
 * of partition p, the first the preferred leader. `load_percent` >= 100, e.g. 125. When there are
 * fewer usable nodes than replica_count the rest is 0. Errors: INVALID_ARGUMENT (a number outside
 * its limits). */
MUST_CHECK enum ferry_err ring_place(const struct ring *ring, const void *topic_id, size_t id_bytes,
                                     uint32_t partitions, uint32_t replica_count,
                                     uint32_t load_percent, uint32_t *replicas);

/* The most replicas that ring_place gives each node (invariant 3): the usable nodes' ids, rising,
 * and their limits, both of RING_NODES_MAX places; returns how many. Arguments as of ring_place. */
size_t ring_limits(const struct ring *ring, uint32_t partitions, uint32_t replica_count,
                   uint32_t load_percent, uint32_t *ids, uint32_t *limits);

/* The partition of a key, in [0, partitions); partitions > 0. */
uint32_t ring_partition_of_key(const void *key, size_t key_bytes, uint32_t partitions);
/* Jump consistent hash itself. */
uint32_t ring_jump(uint64_t hash, uint32_t buckets);

#endif
