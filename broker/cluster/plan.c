/* Placement: the ring's, and the steps that lead there. */
#include "cluster/plan.h"

#include <stdlib.h>

#include "base/checksum.h"
#include "base/mem.h"
#include "base/must.h"

#define NOWHERE UINT32_MAX

/* ---- The plan ---- */

void plan_init(struct plan *plan)
{
    *plan = (struct plan){0};
}

void plan_fini(struct plan *plan)
{
    mem_free(plan->steps);
    plan_init(plan);
}

static bool has(const uint32_t *ids, uint32_t count, uint32_t id)
{
    for (uint32_t k = 0; k < count; k++) {
        if (ids[k] == id) {
            return true;
        }
    }
    return false;
}

uint32_t plan_step_copies(const struct plan_step *step)
{
    uint32_t copies = 0;
    for (uint32_t k = 0; k < step->replicas; k++) {
        copies += has(step->from, step->replicas, step->to[k]) ? 0 : 1;
    }
    return copies;
}

static enum ferry_err add_step(struct plan *plan, uint64_t group, uint32_t replicas,
                               const uint32_t *from, const uint32_t *to)
{
    struct plan_step step = {.group = group, .replicas = replicas};
    memcpy(step.from, from, replicas * sizeof(*from));
    memcpy(step.to, to, replicas * sizeof(*to));
    if (from[0] == to[0] && plan_step_copies(&step) == 0) {
        return FERRY_OK;
    }
    if (plan->count >= PLAN_STEPS_MAX) {
        plan->cut = true;
        return FERRY_OK;
    }
    if (!mem_grow((void **)&plan->steps, &plan->capacity, plan->count + 1, sizeof(step))) {
        return FERRY_ERR_NO_MEMORY;
    }
    plan->steps[plan->count++] = step;
    return FERRY_OK;
}

static void set_id(struct plan *plan)
{
    uint64_t id = checksum_of(&plan->cut, sizeof(plan->cut));
    for (size_t i = 0; i < plan->count; i++) {
        const struct plan_step *step = &plan->steps[i];
        uint8_t bytes[12 + 8 * RING_REPLICAS_MAX] = {0};
        put_le64(bytes, step->group);
        put_le32(bytes + 8, step->replicas);
        for (uint32_t k = 0; k < step->replicas; k++) {
            put_le32(bytes + 12 + (size_t)8 * k, step->from[k]);
            put_le32(bytes + 16 + (size_t)8 * k, step->to[k]);
        }
        id = checksum_of_two(&id, sizeof(id), bytes, sizeof(bytes));
    }
    plan->id = id != 0 ? id : 1;
}

/* ---- Nodes ---- */

static bool is_usable(const struct plan_node *node)
{
    return node->weight > 0 && !node->draining;
}

size_t plan_usable(const struct plan_node *nodes, size_t count)
{
    size_t usable = 0;
    for (size_t i = 0; i < count; i++) {
        usable += is_usable(&nodes[i]) ? 1 : 0;
    }
    return usable;
}

static enum ferry_err make_ring(const struct plan_node *nodes, size_t count, struct ring **ring)
{
    struct ring_node named[RING_NODES_MAX];
    must(count <= RING_NODES_MAX);
    for (size_t i = 0; i < count; i++) {
        named[i].id = nodes[i].id;
        named[i].weight = is_usable(&nodes[i]) ? nodes[i].weight : 0;
        memcpy(named[i].zone, nodes[i].zone, RING_ZONE_BYTES);
    }
    return ring_new(named, count, ring);
}

enum ferry_err plan_place(const struct plan_node *nodes, size_t count, const struct ferry_id *topic,
                          uint32_t partitions, uint32_t replicas, uint32_t *placement)
{
    if (replicas > plan_usable(nodes, count)) {
        return FERRY_ERR_INVALID_ARGUMENT;
    }
    struct ring *ring = NULL;
    enum ferry_err err = make_ring(nodes, count, &ring);
    if (err == FERRY_OK) {
        err = ring_place(ring, topic->bytes, sizeof(topic->bytes), partitions, replicas,
                         PLAN_LOAD_PERCENT, placement);
    }
    ring_free(&ring);
    return err;
}

/* ---- All topics ---- */

/* What the planning of one topic after the other needs. Nodes are known by their place among the
 * usable ones, by id rising, as ring_limits names them. */
struct planner {
    const struct plan_node *nodes;
    size_t node_count;
    struct ring *ring;
    struct plan *plan;
    const struct plan_topic *
        *topics; /* By first group, so a plan is cut at the same place always. */
    size_t topic_count;
    uint32_t *wanted; /* The ring's placement of one topic. */
    size_t wanted_capacity;
    size_t usable;
    uint32_t ids[RING_NODES_MAX];
    uint32_t limits[RING_NODES_MAX];
    uint32_t loads[RING_NODES_MAX];
};

static int compare_topics(const void *a, const void *b)
{
    uint64_t x = (*(const struct plan_topic *const *)a)->first_group;
    uint64_t y = (*(const struct plan_topic *const *)b)->first_group;
    return (x > y) - (x < y);
}

static void planner_fini(struct planner *pl)
{
    ring_free(&pl->ring);
    mem_free(pl->topics);
    mem_free(pl->wanted);
}

static enum ferry_err planner_init(struct planner *pl, const struct plan_node *nodes, size_t count,
                                   const struct plan_topic *topics, size_t topic_count,
                                   struct plan *plan)
{
    *pl = (struct planner){.nodes = nodes, .node_count = count, .plan = plan};
    enum ferry_err err = make_ring(nodes, count, &pl->ring);
    pl->topics = err == FERRY_OK ? mem_zalloc(topic_count + 1, sizeof(struct plan_topic *)) : NULL;
    if (err == FERRY_OK && pl->topics == NULL) {
        err = FERRY_ERR_NO_MEMORY;
    }
    if (err != FERRY_OK) {
        planner_fini(pl);
        return err;
    }
    for (size_t i = 0; i < topic_count; i++) {
        pl->topics[i] = &topics[i];
    }
    pl->topic_count = topic_count;
    qsort((void *)pl->topics, topic_count, sizeof(struct plan_topic *), compare_topics);
    return FERRY_OK;
}

/* The ring's placement of the topic, its nodes and their limits. */
static enum ferry_err want(struct planner *pl, const struct plan_topic *t)
{
    if (!mem_grow((void **)&pl->wanted, &pl->wanted_capacity, (size_t)t->partitions * t->replicas,
                  sizeof(*pl->wanted))) {
        return FERRY_ERR_NO_MEMORY;
    }
    pl->usable =
        ring_limits(pl->ring, t->partitions, t->replicas, PLAN_LOAD_PERCENT, pl->ids, pl->limits);
    return ring_place(pl->ring, t->id.bytes, sizeof(t->id.bytes), t->partitions, t->replicas,
                      PLAN_LOAD_PERCENT, pl->wanted);
}

static enum ferry_err balance_topic(struct planner *pl, const struct plan_topic *t)
{
    enum ferry_err err = want(pl, t);
    for (uint32_t p = 0; p < t->partitions && err == FERRY_OK; p++) {
        size_t at = (size_t)p * t->replicas;
        err =
            add_step(pl->plan, t->first_group + p, t->replicas, t->placement + at, pl->wanted + at);
    }
    return err;
}

/* ---- Evacuation ---- */

static uint32_t place_of(const struct planner *pl, uint32_t id)
{
    size_t low = 0, high = pl->usable;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (pl->ids[middle] < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < pl->usable && pl->ids[low] == id ? (uint32_t)low : NOWHERE;
}

static const struct plan_node *node_of(const struct planner *pl, uint32_t id)
{
    for (size_t i = 0; i < pl->node_count; i++) {
        if (pl->nodes[i].id == id) {
            return &pl->nodes[i];
        }
    }
    return NULL;
}

static bool is_same_zone(const struct planner *pl, uint32_t a, uint32_t b)
{
    const struct plan_node *x = node_of(pl, a);
    const struct plan_node *y = node_of(pl, b);
    return a == b || (x->zone[0] != '\0' && strcmp(x->zone, y->zone) == 0);
}

/* True when no usable node of the set is in the zone of `id`. */
static bool is_new_zone(const struct planner *pl, const uint32_t *set, uint32_t count, uint32_t id)
{
    for (uint32_t k = 0; k < count; k++) {
        if (place_of(pl, set[k]) != NOWHERE && is_same_zone(pl, set[k], id)) {
            return false;
        }
    }
    return true;
}

static uint32_t rank_of(const uint32_t *wanted, uint32_t count, uint32_t id)
{
    uint32_t k = 0;
    while (k < count && wanted[k] != id) {
        k++;
    }
    return k;
}

/* How well a node would take a replica. */
struct fitness {
    bool new_zone;
    bool has_room;
    uint32_t rank; /* In the ring's set; past its end: not in it. */
    uint64_t load, weight;
};

static struct fitness fitness_of(const struct planner *pl, const uint32_t *set,
                                 const uint32_t *wanted, uint32_t count, uint32_t at)
{
    uint32_t id = pl->ids[at];
    bool new_zone = is_new_zone(pl, set, count, id);
#ifdef MUT_57 /* a drain does not look at zones */
    new_zone = true;
#endif
    return (struct fitness){.new_zone = new_zone,
                            .has_room = pl->loads[at] < pl->limits[at],
                            .rank = rank_of(wanted, count, id),
                            .load = pl->loads[at],
                            .weight = node_of(pl, id)->weight};
}

/* Equal ones: the lower id, which is met first, stays. */
static bool is_fitter(const struct fitness *a, const struct fitness *b)
{
    if (a->new_zone != b->new_zone) {
        return a->new_zone;
    }
    if (a->has_room != b->has_room) {
        return a->has_room;
    }
    if (a->rank != b->rank) {
        return a->rank < b->rank;
    }
    return a->load * b->weight < b->load * a->weight;
}

static uint32_t fittest(const struct planner *pl, const uint32_t *set, const uint32_t *wanted,
                        uint32_t count)
{
    uint32_t best = NOWHERE;
    struct fitness best_fitness = {0};
    for (uint32_t at = 0; at < pl->usable; at++) {
        struct fitness f = fitness_of(pl, set, wanted, count, at);
        if (!has(set, count, pl->ids[at]) && (best == NOWHERE || is_fitter(&f, &best_fitness))) {
            best = at;
            best_fitness = f;
        }
    }
    return best;
}

/* By their places in the ring's set; those not in it last, in the order they had. */
static void sort_by_rank(uint32_t *set, const uint32_t *wanted, uint32_t count)
{
    for (uint32_t i = 1; i < count; i++) {
        for (uint32_t k = i;
             k > 0 && rank_of(wanted, count, set[k]) < rank_of(wanted, count, set[k - 1]); k--) {
            uint32_t kept = set[k];
            set[k] = set[k - 1];
            set[k - 1] = kept;
        }
    }
}

static enum ferry_err evacuate_partition(struct planner *pl, const struct plan_topic *t, uint32_t p)
{
    const uint32_t *from = t->placement + (size_t)p * t->replicas;
    const uint32_t *wanted = pl->wanted + (size_t)p * t->replicas;
    uint32_t to[RING_REPLICAS_MAX];
    memcpy(to, from, t->replicas * sizeof(*to));
    for (uint32_t k = 0; k < t->replicas; k++) {
        if (place_of(pl, to[k]) == NOWHERE) {
            uint32_t at = fittest(pl, to, wanted, t->replicas);
            must(at != NOWHERE); /* There are as many usable nodes as replicas. */
            to[k] = pl->ids[at];
            pl->loads[at]++;
        }
    }
    if (to[0] != from[0]) {
        sort_by_rank(to, wanted, t->replicas);
    }
    return add_step(pl->plan, t->first_group + p, t->replicas, from, to);
}

/* Counts what usable nodes hold; true when others hold something as well. */
static bool count_loads(struct planner *pl, const struct plan_topic *t)
{
    bool others = false;
    memset(pl->loads, 0, sizeof(pl->loads));
    for (size_t i = 0; i < (size_t)t->partitions * t->replicas; i++) {
        uint32_t at = place_of(pl, t->placement[i]);
        others = others || at == NOWHERE;
        pl->loads[at == NOWHERE ? 0 : at] += at == NOWHERE ? 0 : 1;
    }
    return others;
}

static enum ferry_err evacuate_topic(struct planner *pl, const struct plan_topic *t)
{
    pl->usable =
        ring_limits(pl->ring, t->partitions, t->replicas, PLAN_LOAD_PERCENT, pl->ids, pl->limits);
    if (!count_loads(pl, t)) {
        return FERRY_OK;
    }
    enum ferry_err err = want(pl, t);
    for (uint32_t p = 0; p < t->partitions && err == FERRY_OK; p++) {
        err = evacuate_partition(pl, t, p);
    }
    return err;
}

/* ---- Both ---- */

typedef enum ferry_err plan_one(struct planner *pl, const struct plan_topic *t);

static enum ferry_err plan_all(const struct plan_node *nodes, size_t count,
                               const struct plan_topic *topics, size_t topic_count,
                               struct plan *plan, plan_one *one)
{
    struct planner pl;
    must(plan->count == 0);
    enum ferry_err err = planner_init(&pl, nodes, count, topics, topic_count, plan);
    if (err != FERRY_OK) {
        return err;
    }
    size_t usable = plan_usable(nodes, count);
    for (size_t i = 0; i < topic_count && err == FERRY_OK && !plan->cut; i++) {
        err = pl.topics[i]->replicas <= usable ? one(&pl, pl.topics[i]) : FERRY_OK;
    }
    planner_fini(&pl);
    set_id(plan);
    return err;
}

enum ferry_err plan_balance(const struct plan_node *nodes, size_t count,
                            const struct plan_topic *topics, size_t topic_count, struct plan *plan)
{
    return plan_all(nodes, count, topics, topic_count, plan, balance_topic);
}

enum ferry_err plan_evacuate(const struct plan_node *nodes, size_t count,
                             const struct plan_topic *topics, size_t topic_count, struct plan *plan)
{
    return plan_all(nodes, count, topics, topic_count, plan, evacuate_topic);
}
