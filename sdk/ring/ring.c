#include "ring/ring.h"

#include <stdlib.h>

#include "base/bytes.h"
#include "base/checksum.h"
#include "base/mem.h"
#include "base/must.h"
#include "ring/place.h"

static int compare_numbers(uint64_t a, uint64_t b)
{
    return (a > b) - (a < b);
}

static int compare_nodes(const void *a, const void *b)
{
    return compare_numbers(((const struct ring_node *)a)->id, ((const struct ring_node *)b)->id);
}

/* By hash; equal hashes by node, so that the order never depends on the sort. */
static int compare_points(const void *a, const void *b)
{
    const struct ring_point *x = a;
    const struct ring_point *y = b;
    int by_hash = compare_numbers(x->hash, y->hash);
    return by_hash != 0 ? by_hash : compare_numbers(x->node, y->node);
}

static bool are_nodes_valid(const struct ring_node *nodes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (nodes[i].id == 0 || nodes[i].weight > RING_WEIGHT_MAX ||
            memchr(nodes[i].zone, '\0', RING_ZONE_BYTES) == NULL) {
            return false;
        }
        for (size_t j = 0; j < i; j++) {
            if (nodes[j].id == nodes[i].id) {
                return false;
            }
        }
    }
    return true;
}

/* The zone of node i among those before it, else a new one. A node without a zone shares its fate
 * with nobody: it is a zone of its own. */
static uint32_t zone_of(const struct ring *ring, const struct ring_node *sorted, size_t i)
{
    for (size_t j = 0; j < i && sorted[i].zone[0] != '\0'; j++) {
        if (strcmp(sorted[i].zone, sorted[j].zone) == 0) {
            return ring->shares[j].zone;
        }
    }
    return ring->zones;
}

static void take_nodes(struct ring *ring, const struct ring_node *sorted, size_t count)
{
    ring->count = count;
    for (size_t i = 0; i < count; i++) {
        ring->ids[i] = sorted[i].id;
        ring->shares[i].weight = sorted[i].weight;
        ring->shares[i].zone = zone_of(ring, sorted, i);
        if (ring->shares[i].zone == ring->zones) {
            ring->zones++;
        }
    }
}

static enum ferry_err make_points(struct ring *ring)
{
    size_t weights = 0;
    for (size_t i = 0; i < ring->count; i++) {
        weights += ring->shares[i].weight;
    }
    ring->points = mem_zalloc(weights * RING_VNODES_BY_WEIGHT, sizeof(*ring->points));
    if (ring->points == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    for (uint32_t i = 0; i < ring->count; i++) {
        uint32_t vnodes = ring->shares[i].weight * RING_VNODES_BY_WEIGHT;
        for (uint32_t v = 0; v < vnodes; v++) {
            uint8_t name[8];
            put_le32(name, ring->ids[i]);
            put_le32(name + 4, v);
            ring->points[ring->point_count++] =
                (struct ring_point){.hash = checksum_of(name, sizeof(name)), .node = i};
        }
    }
    qsort(ring->points, ring->point_count, sizeof(*ring->points), compare_points);
    return FERRY_OK;
}

/* Those that take something, sorted by id: the order they were named in is forgotten here. */
static size_t sort_usable(const struct ring_node *nodes, size_t count, struct ring_node *sorted)
{
    size_t usable = 0;
    for (size_t i = 0; i < count; i++) {
        if (nodes[i].weight > 0) {
            sorted[usable++] = nodes[i];
        }
    }
    qsort(sorted, usable, sizeof(*sorted), compare_nodes);
    return usable;
}

enum ferry_err ring_new(const struct ring_node *nodes, size_t count, struct ring **ring)
{
    if (count > RING_NODES_MAX || !are_nodes_valid(nodes, count)) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    struct ring *made = mem_zalloc(1, sizeof(*made));
    if (made == NULL) {
        return FERRY_ERR_NO_MEMORY;
    }
    struct ring_node sorted[RING_NODES_MAX];
    take_nodes(made, sorted, sort_usable(nodes, count, sorted));
    enum ferry_err err = make_points(made);
    if (err != FERRY_OK) {
        ring_free(&made);
        return err;
    }
    *ring = made;
    return FERRY_OK;
}

void ring_free(struct ring **ring)
{
    if (*ring != NULL) {
        mem_free((*ring)->points);
        mem_free(*ring);
        *ring = NULL;
    }
}

enum ferry_err ring_place(const struct ring *ring, const void *topic_id, size_t id_bytes,
                          uint32_t partitions, uint32_t replica_count, uint32_t load_percent,
                          uint32_t *replicas)
{
    if (partitions == 0 || partitions > RING_PARTITIONS_MAX || replica_count == 0 ||
        replica_count > RING_REPLICAS_MAX || load_percent < 100 ||
        load_percent > RING_LOAD_PERCENT_MAX) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    place_all(ring, bytes_of(topic_id, id_bytes), partitions, replica_count, load_percent,
              replicas);
    return FERRY_OK;
}

size_t ring_limits(const struct ring *ring, uint32_t partitions, uint32_t replica_count,
                   uint32_t load_percent, uint32_t *ids, uint32_t *limits)
{
    uint32_t replicas = replica_count < ring->count ? replica_count : (uint32_t)ring->count;
    if (replicas > 0) {
        share_limits(ring->shares, ring->count, ring->zones, partitions, replicas, load_percent,
                     limits);
    }
    memcpy(ids, ring->ids, ring->count * sizeof(*ids));
    return ring->count;
}
