#include "ring/share.h"

#include "base/must.h"
#include "ring/ring.h"

/* Every product below fits 63 bits: partitions 2^20 × replicas 2^3 × zone weight 2^14 × node
 * weight 2^6 × percent 2^14 is 2^57, and partitions × both denominators (2^14 each) × percent the
 * other side, 2^62. */
_Static_assert(RING_PARTITIONS_MAX <= 1 << 20 && RING_REPLICAS_MAX < 1 << 3, "products fit");
_Static_assert(RING_NODES_MAX *RING_WEIGHT_MAX <= 1 << 14 && RING_WEIGHT_MAX <= 1 << 6, "fit");
_Static_assert(RING_LOAD_PERCENT_MAX < 1 << 14, "products fit");

/* One that takes a part: its part is total × weight / weights, but within low..high. */
struct part {
    uint64_t weight;
    uint64_t low, high;
    bool fixed; /* Its part is `value` and not by weight. */
    uint64_t value;
};

/* What is left for those not fixed: each gets total × its weight / weights. */
struct rest {
    uint64_t total;
    uint64_t weights;
};

static struct rest sum_rest(const struct part *parts, size_t count, uint64_t total)
{
    struct rest rest = {.total = total};
    for (size_t i = 0; i < count; i++) {
        if (parts[i].fixed) {
            must(parts[i].value <= rest.total);
            rest.total -= parts[i].value;
        } else {
            rest.weights += parts[i].weight;
        }
    }
    return rest;
}

static bool is_over(const struct part *p, struct rest rest)
{
    return !p->fixed && rest.total * p->weight > p->high * rest.weights;
}

static bool is_under(const struct part *p, struct rest rest)
{
    return !p->fixed && rest.total * p->weight < p->low * rest.weights;
}

/* Fixes either all that are over their high or all under their low: the side that is further out
 * in sum, for the other side may come back within its bounds. False when nobody is outside. */
static bool fix_outside(struct part *parts, size_t count, struct rest rest)
{
    uint64_t over = 0;
    uint64_t under = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t by_weight = rest.total * parts[i].weight;
        over += is_over(&parts[i], rest) ? by_weight - parts[i].high * rest.weights : 0;
        under += is_under(&parts[i], rest) ? parts[i].low * rest.weights - by_weight : 0;
    }
    for (size_t i = 0; i < count; i++) {
        struct part *p = &parts[i];
        if (over >= under ? is_over(p, rest) : is_under(p, rest)) {
            p->fixed = true;
            p->value = over >= under ? p->high : p->low;
        }
    }
    return over > 0 || under > 0;
}

/* Fixes parts until the rest can be by weight. Each turn fixes one at least: <= count turns. */
static struct rest divide(struct part *parts, size_t count, uint64_t total)
{
    struct rest rest = sum_rest(parts, count, total);
    while (rest.weights > 0 && fix_outside(parts, count, rest)) {
        rest = sum_rest(parts, count, total);
    }
    return rest;
}

static uint32_t limit_of(uint64_t share, uint64_t denominator, uint32_t load_percent,
                         uint32_t partitions)
{
    uint64_t divisor = denominator * 100;
    uint64_t limit = (share * load_percent + divisor - 1) / divisor;
    return limit < partitions ? (uint32_t)limit : partitions;
}

/* Divides the zone's share, `share` / `denominator`, among its nodes. */
static void limit_zone(const struct share_node *nodes, size_t count, uint32_t zone, uint64_t share,
                       uint64_t denominator, uint32_t partitions, uint32_t load_percent,
                       uint32_t *limits)
{
    struct part parts[RING_NODES_MAX];
    size_t place[RING_NODES_MAX];
    size_t members = 0;
    for (size_t i = 0; i < count; i++) {
        if (nodes[i].zone == zone) {
            parts[members] =
                (struct part){.weight = nodes[i].weight, .high = partitions * denominator};
            place[members++] = i;
        }
    }
    struct rest rest = divide(parts, members, share);
    for (size_t m = 0; m < members; m++) {
        const struct part *p = &parts[m];
        limits[place[m]] = p->fixed ? limit_of(p->value, denominator, load_percent, partitions)
                                    : limit_of(rest.total * p->weight, denominator * rest.weights,
                                               load_percent, partitions);
    }
}

void share_limits(const struct share_node *nodes, size_t count, uint32_t zones, uint32_t partitions,
                  uint32_t replicas, uint32_t load_percent, uint32_t *limits)
{
    struct part parts[RING_NODES_MAX] = {0};
    uint64_t members[RING_NODES_MAX] = {0};
    must(count <= RING_NODES_MAX && zones <= count && replicas <= count);
    for (size_t i = 0; i < count; i++) {
        parts[nodes[i].zone].weight += nodes[i].weight;
        members[nodes[i].zone]++;
    }
    /* Zones enough: each partition is in a zone at most once. Too few: it is in every zone, and the
     * replicas that remain may be anywhere. */
    uint64_t spare = replicas > zones ? replicas - zones : 0;
    for (uint32_t z = 0; z < zones; z++) {
        uint64_t most = members[z] < spare + 1 ? members[z] : spare + 1;
        parts[z].low = replicas >= zones ? partitions : 0;
        parts[z].high = most * partitions;
    }
    struct rest rest = divide(parts, zones, (uint64_t)partitions * replicas);
    for (uint32_t z = 0; z < zones; z++) {
        bool fixed = parts[z].fixed;
        limit_zone(nodes, count, z, fixed ? parts[z].value : rest.total * parts[z].weight,
                   fixed ? 1 : rest.weights, partitions, load_percent, limits);
    }
}
