/* share: how many replicas each node may hold, pure integer arithmetic. Private to the ring.
 *
 * A node's fair share of T = partitions × replicas is by weight, but for what cannot be: a node
 * holds a partition once at most, and a zone as often as the zone rule lets it. What one cannot
 * take the others share, again by weight. So shares can always be met, and a limit of at least
 * its share for every node leaves a placement (the transport problem has an integral solution). */
#ifndef FERRY_RING_SHARE_H
#define FERRY_RING_SHARE_H

#include "base/err.h"

struct share_node {
    uint32_t weight; /* Not 0. */
    uint32_t zone;   /* 0..zones-1; every zone has a node. */
};

/* Writes limits[i], most replicas that node i may hold: ceil(load_percent × share / 100), at most
 * `partitions`. `count` and `zones` within RING_NODES_MAX, replicas <= count. No error. */
void share_limits(const struct share_node *nodes, size_t count, uint32_t zones, uint32_t partitions,
                  uint32_t replicas, uint32_t load_percent, uint32_t *limits);

#endif
