/* place: the walk around the ring, and the exchange that helps when the walk finds no room. Private
 * to the ring. */
#ifndef FERRY_RING_PLACE_H
#define FERRY_RING_PLACE_H

#include "base/bytes.h"
#include "ring/ring.h"
#include "ring/share.h"

/* A virtual node. */
struct ring_point {
    uint64_t hash;
    uint32_t node; /* Place in ring->ids. */
};

/* Nodes of weight 0 are not in it. Never changes after ring_new. */
struct ring {
    size_t count;                             /* Nodes. */
    uint32_t zones;                           /* Different ones. */
    uint32_t ids[RING_NODES_MAX];             /* Rising. */
    struct share_node shares[RING_NODES_MAX]; /* Weight and zone, by node. */
    struct ring_point *points;                /* Rising by hash. Owned. */
    size_t point_count;
};

/* As ring_place, whose arguments have been checked. */
void place_all(const struct ring *ring, struct bytes topic_id, uint32_t partitions,
               uint32_t replica_count, uint32_t load_percent, uint32_t *replicas);

#endif
