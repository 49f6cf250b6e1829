#include "ring/place.h"

#include "base/checksum.h"
#include "base/must.h"

#define NOBODY UINT32_MAX

/* One call of place_all. `chosen` is the caller's `replicas` with places in ring->ids instead of
 * ids, until the end.
 * Invariants: (1) load[n] <= limit[n]; (2) a partition's nodes are distinct, and in as many
 * different zones as there can be. */
struct placement {
    const struct ring *ring;
    uint32_t stride;   /* Replicas asked for: chosen[p * stride + k]. */
    uint32_t replicas; /* Replicas there can be: fewer when nodes are few. */
    uint32_t *chosen;
    uint32_t placed; /* Partitions that have all, and then one that has `partial`. */
    uint32_t partial;
    uint32_t load[RING_NODES_MAX];
    uint32_t limit[RING_NODES_MAX];
};

static uint32_t zone_of(const struct placement *pl, uint32_t node)
{
    return pl->ring->shares[node].zone;
}

static uint32_t chosen_count(const struct placement *pl, uint32_t partition)
{
    return partition < pl->placed ? pl->replicas : pl->partial;
}

/* ---- The walk ------------------------------------------------------------------------------- */

static uint32_t count_in_zone(const struct placement *pl, uint32_t partition, uint32_t zone)
{
    uint32_t count = 0;
    for (uint32_t k = 0; k < chosen_count(pl, partition); k++) {
        count += zone_of(pl, pl->chosen[(size_t)partition * pl->stride + k]) == zone ? 1 : 0;
    }
    return count;
}

static bool has_node(const struct placement *pl, uint32_t partition, uint32_t node)
{
    for (uint32_t k = 0; k < chosen_count(pl, partition); k++) {
        if (pl->chosen[(size_t)partition * pl->stride + k] == node) {
            return true;
        }
    }
    return false;
}

/* May the node be the next replica of the partition that is being placed? While there are zones
 * left it must be in a new one. Room is another question. */
static bool may_add(const struct placement *pl, uint32_t node)
{
    if (pl->partial < pl->ring->zones) {
        return count_in_zone(pl, pl->placed, zone_of(pl, node)) == 0;
    }
    return !has_node(pl, pl->placed, node);
}

static bool has_room(const struct placement *pl, uint32_t node)
{
    return pl->load[node] < pl->limit[node];
}

/* The first point at or after the hash; past the last comes the first. */
static size_t find_point(const struct ring *ring, uint64_t hash)
{
    size_t low = 0;
    size_t high = ring->point_count;
    must(high > 0);
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (ring->points[middle].hash < hash) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low % ring->point_count;
}

/* The next node clockwise that may be added and has room; NOBODY after one whole turn. */
static uint32_t walk(const struct placement *pl, size_t start)
{
    const struct ring *ring = pl->ring;
    for (size_t step = 0; step < ring->point_count; step++) {
        size_t at = start + step;
        uint32_t node = ring->points[at < ring->point_count ? at : at - ring->point_count].node;
        if (has_room(pl, node) && may_add(pl, node)) {
            return node;
        }
    }
    return NOBODY;
}

/* ---- The exchange --------------------------------------------------------------------------- */

/* When all nodes that may be added are full, somebody makes room: full node A gives a partition to
 * B, which gives one to C, which has room. The shortest such chain is searched breadth first; it
 * exists, because the limits are at least the fair shares (share.h), and being the shortest its
 * exchanges do not disturb one another (it is an augmenting path of a flow from partitions through
 * their zones to nodes). */
struct chain {
    uint32_t queue[RING_NODES_MAX];
    uint32_t queued;
    bool seen[RING_NODES_MAX];
    uint32_t from[RING_NODES_MAX]; /* The node that gives to this one; NOBODY at the start. */
    size_t slot[RING_NODES_MAX];   /* What it gives: place in chosen. */
};

static void enqueue(struct chain *c, uint32_t node, uint32_t from, size_t slot)
{
    c->seen[node] = true;
    c->from[node] = from;
    c->slot[node] = slot;
    c->queue[c->queued++] = node;
}

/* May `to` hold the partition instead of `from`? */
static bool may_exchange(const struct placement *pl, uint32_t partition, uint32_t from, uint32_t to)
{
    if (has_node(pl, partition, to)) {
        return false;
    }
    uint32_t zone_from = zone_of(pl, from);
    uint32_t zone_to = zone_of(pl, to);
    return zone_from == zone_to || count_in_zone(pl, partition, zone_to) == 0 ||
           count_in_zone(pl, partition, zone_from) > 1;
}

/* Queues every node that could take something off `from`. */
static void enqueue_takers(const struct placement *pl, struct chain *c, uint32_t from)
{
    for (uint32_t p = 0; p <= pl->placed; p++) {
        for (uint32_t k = 0; k < chosen_count(pl, p); k++) {
            size_t slot = (size_t)p * pl->stride + k;
            for (uint32_t to = 0; pl->chosen[slot] == from && to < pl->ring->count; to++) {
                if (!c->seen[to] && may_exchange(pl, p, from, to)) {
                    enqueue(c, to, from, slot);
                }
            }
        }
    }
}

/* Exchanges from the end that has room back to the start, which has room then. */
static uint32_t exchange(struct placement *pl, const struct chain *c, uint32_t end)
{
    uint32_t to = end;
    while (c->from[to] != NOBODY) {
        uint32_t from = c->from[to];
        must(pl->chosen[c->slot[to]] == from);
        pl->chosen[c->slot[to]] = to;
        pl->load[to]++;
        pl->load[from]--;
        must(pl->load[to] <= pl->limit[to]);
        to = from;
    }
    return to;
}

static uint32_t make_room(struct placement *pl)
{
    struct chain c = {0};
    for (uint32_t node = 0; node < pl->ring->count; node++) {
        if (may_add(pl, node)) {
            enqueue(&c, node, NOBODY, 0);
        }
    }
    for (uint32_t i = 0; i < c.queued; i++) {
        if (has_room(pl, c.queue[i])) {
            return exchange(pl, &c, c.queue[i]);
        }
        enqueue_takers(pl, &c, c.queue[i]);
    }
    must_fail("limits leave a placement", __FILE__, __LINE__);
}

/* ---- All ------------------------------------------------------------------------------------ */

static void place_partition(struct placement *pl, uint64_t hash)
{
    size_t start = find_point(pl->ring, hash);
    for (pl->partial = 0; pl->partial < pl->replicas; pl->partial++) {
        uint32_t node = walk(pl, start);
        if (node == NOBODY) {
            node = make_room(pl);
        }
        must(may_add(pl, node) && has_room(pl, node));
        pl->chosen[(size_t)pl->placed * pl->stride + pl->partial] = node;
        pl->load[node]++;
    }
    pl->partial = 0;
    pl->placed++;
}

/* ---- Leaders -------------------------------------------------------------------------------- */

/* Its whole part by weight: a transfer of leadership costs nothing, so no slack is left here. */
static int64_t leads_part(const struct placement *pl, uint32_t node, uint32_t partitions)
{
    uint64_t weights = 0;
    for (size_t n = 0; n < pl->ring->count; n++) {
        weights += pl->ring->shares[n].weight;
    }
    must(weights > 0);
    return (int64_t)((uint64_t)partitions * pl->ring->shares[node].weight / weights);
}

/* The replica of a partition that is to be its first: in the ring's order the first with room, or
 * the one that is the least beyond its part. `room[n]`: leads that the node may still take; below 0
 * beyond. */
static uint32_t choose_first(const struct placement *pl, const uint32_t *chosen,
                             const int64_t *room)
{
    uint32_t best = 0;
    for (uint32_t k = 0; k < pl->replicas; k++) {
        if (room[chosen[k]] > 0) {
            return k;
        }
        if (room[chosen[k]] > room[chosen[best]]) {
            best = k;
        }
    }
    return best;
}

static void spread_leaders(struct placement *pl, uint32_t partitions)
{
    int64_t room[RING_NODES_MAX];
    for (uint32_t n = 0; n < pl->ring->count; n++) {
        room[n] = leads_part(pl, n, partitions);
    }
    for (uint32_t p = 0; p < partitions; p++) {
        uint32_t *chosen = &pl->chosen[(size_t)p * pl->stride];
        uint32_t k = choose_first(pl, chosen, room);
        uint32_t first = chosen[k];
        for (; k > 0; k--) {
            chosen[k] = chosen[k - 1];
        }
        chosen[0] = first;
        room[first]--;
    }
}

static void write_ids(const struct placement *pl, uint32_t partitions)
{
    for (uint32_t p = 0; p < partitions; p++) {
        for (uint32_t k = 0; k < pl->stride; k++) {
            uint32_t *slot = &pl->chosen[(size_t)p * pl->stride + k];
            *slot = k < pl->replicas ? pl->ring->ids[*slot] : 0;
        }
    }
}

void place_all(const struct ring *ring, struct bytes topic_id, uint32_t partitions,
               uint32_t replica_count, uint32_t load_percent, uint32_t *replicas)
{
    struct placement pl = {.ring = ring, .stride = replica_count, .chosen = replicas};
    pl.replicas = replica_count < ring->count ? replica_count : (uint32_t)ring->count;
    if (pl.replicas > 0) {
        share_limits(ring->shares, ring->count, ring->zones, partitions, pl.replicas, load_percent,
                     pl.limit);
        for (uint32_t p = 0; p < partitions; p++) {
            uint8_t number[4];
            put_le32(number, p);
            place_partition(&pl, checksum_of_two(topic_id.data, topic_id.size, number, 4));
        }
        spread_leaders(&pl, partitions);
    }
    write_ids(&pl, partitions);
}
